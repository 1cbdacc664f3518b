//! `GET /containers/{id}/stats`.

use super::{
    Shared,
    error::{self, Answer, invalid},
    extract::Params,
    wire::stats::Stats,
};
use crate::{
    error::{Error, chain},
    service::seen::{Handle, Sample},
};
use axum::{
    Router,
    body::Body,
    extract::{Path, State},
    response::Response,
    routing::get,
};
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderValue, StatusCode, header};
use std::{io, time::Duration};
use tokio::time::{Interval, MissedTickBehavior, interval, sleep};

/// Between two measurements; the CLI counts on a second.
const PAUSE: Duration = Duration::from_secs(1);

pub(super) fn routes() -> Router<Shared> {
    Router::new().route("/containers/{id}/stats", get(stats))
}

async fn stats(
    State(shared): State<Shared>,
    Path(id): Path<String>,
    params: Params,
) -> Answer<Response> {
    // Absent, it is true: moby's `BoolValueOrDefault`.
    let streams = params.given("stream").is_none() || params.flag("stream");
    let at_once = params.flag("one-shot");
    if streams && at_once {
        return Err(invalid("cannot have stream=true and one-shot=true"));
    }
    let handle = shared.scope.container(&id)?;
    if streams {
        return Ok(endless(handle));
    }
    let mut sample = handle.sample().await?;
    let mut before = None;
    if sample.is_some() && !at_once {
        before = sample;
        sleep(PAUSE).await;
        sample = handle.sample().await?;
    }
    Ok(error::json(StatusCode::OK, &object(&handle, sample.as_ref(), before.as_ref())))
}

fn object(handle: &Handle, sample: Option<&Sample>, before: Option<&Sample>) -> Stats {
    let snapshot = handle.snapshot();
    Stats::of(&snapshot.record.name, handle.id().hex(), sample, before)
}

/// A measurement a second until the client leaves or the container is removed.
struct Watch {
    handle: Handle,
    before: Option<Sample>,
    ticks: Interval,
}

fn endless(handle: Handle) -> Response {
    let mut ticks = interval(PAUSE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let watch = Watch { handle, before: None, ticks };
    let lines = stream::unfold(watch, |mut watch| async move {
        let line = watch.next().await?;
        Some((line, watch))
    });
    let mut response = Response::new(Body::from_stream(lines));
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

impl Watch {
    async fn next(&mut self) -> Option<io::Result<Bytes>> {
        tokio::select! {
            biased;
            () = self.handle.removed() => return None,
            _ = self.ticks.tick() => {}
        }
        let sample = match self.handle.sample().await {
            Ok(sample) => sample,
            Err(error) => {
                tracing::warn!(error = %chain(&error), "cannot measure a container");
                return Some(Err(io::Error::other(error)));
            }
        };
        let line = line(&object(&self.handle, sample.as_ref(), self.before.as_ref()));
        self.before = sample;
        Some(line)
    }
}

fn line(stats: &Stats) -> io::Result<Bytes> {
    let failed = |error| io::Error::other(Error::internal("cannot write the answer", error));
    let mut text = serde_json::to_vec(stats).map_err(failed)?;
    text.push(b'\n');
    Ok(text.into())
}
