//! Containers: start, stop, restart, kill, pause, unpause, wait, resize.

use super::{
    Shared,
    error::{self, Answer, invalid},
    extract::Params,
};
use crate::{
    error::Error,
    service::seen::{WaitCondition, WaitOutcome},
    signal,
};
use axum::{
    Router,
    body::Body,
    extract::{Path, State},
    response::Response,
    routing::post,
};
use bytes::Bytes;
use futures_util::{FutureExt, stream};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::Serialize;
use std::io;

/// Docker lets an empty JSON object pass, however it is written.
const LONGEST_START_BODY: u64 = 7;

pub(super) fn routes() -> Router<Shared> {
    Router::new()
        .route("/containers/{id}/start", post(start))
        .route("/containers/{id}/stop", post(stop))
        .route("/containers/{id}/restart", post(restart))
        .route("/containers/{id}/kill", post(kill))
        .route("/containers/{id}/pause", post(pause))
        .route("/containers/{id}/unpause", post(unpause))
        .route("/containers/{id}/wait", post(wait))
        .route("/containers/{id}/resize", post(resize))
}

async fn start(
    State(shared): State<Shared>,
    Path(id): Path<String>,
    headers: HeaderMap,
    params: Params,
) -> Answer<StatusCode> {
    let length = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok());
    let length = length.and_then(|length| length.parse::<u64>().ok()).unwrap_or(0);
    if length > LONGEST_START_BODY || headers.contains_key(header::TRANSFER_ENCODING) {
        return Err(invalid(
            "starting container with non-empty request body was deprecated since API v1.22 and \
             removed in v1.24",
        ));
    }
    if params.some("checkpoint").is_some() {
        return Err(error::unbuilt("starting from a checkpoint"));
    }
    shared.scope.container(&id)?.start().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `signal` and `t` of a stop.
fn stop_options(params: &Params) -> Answer<(Option<i32>, Option<i64>)> {
    let signal = params.some("signal").map(signal::parse).transpose();
    let signal = signal.map_err(|error| invalid(error.to_string()))?;
    Ok((signal, params.number("t")?))
}

async fn stop(
    State(shared): State<Shared>,
    Path(id): Path<String>,
    params: Params,
) -> Answer<StatusCode> {
    let (signal, timeout) = stop_options(&params)?;
    shared.scope.container(&id)?.stop(signal, timeout).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn restart(
    State(shared): State<Shared>,
    Path(id): Path<String>,
    params: Params,
) -> Answer<StatusCode> {
    let (signal, timeout) = stop_options(&params)?;
    shared.scope.container(&id)?.restart(signal, timeout).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn kill(
    State(shared): State<Shared>,
    Path(id): Path<String>,
    params: Params,
) -> Answer<StatusCode> {
    let prefixed = |text: String| format!("cannot kill container: {id}: {text}");
    let signal = signal::parse(params.some("signal").unwrap_or("KILL"));
    let signal = signal.map_err(|error| invalid(prefixed(error.to_string())))?;
    match shared.scope.container(&id)?.kill(signal).await {
        Err(Error::Conflict(text)) => return Err(Error::Conflict(prefixed(text)).into()),
        killed => killed?,
    }
    Ok(StatusCode::NO_CONTENT)
}

async fn pause(State(shared): State<Shared>, Path(id): Path<String>) -> Answer<StatusCode> {
    shared.scope.container(&id)?.pause().await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn unpause(State(shared): State<Shared>, Path(id): Path<String>) -> Answer<StatusCode> {
    shared.scope.container(&id)?.unpause().await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Debug, Serialize)]
struct Waited {
    #[serde(rename = "Error", skip_serializing_if = "Option::is_none")]
    error: Option<WaitedError>,
    #[serde(rename = "StatusCode")]
    status_code: i32,
}

#[derive(Debug, Serialize)]
struct WaitedError {
    #[serde(rename = "Message")]
    message: String,
}

impl From<WaitOutcome> for Waited {
    fn from(outcome: WaitOutcome) -> Self {
        let error = outcome.error.map(|message| WaitedError { message });
        Self { error, status_code: outcome.code }
    }
}

/// The client starts the container when it has this answer's headers: so the
/// wait is registered before, and the outcome is the body that follows.
async fn wait(State(shared): State<Shared>, Path(id): Path<String>, params: Params) -> Answer {
    let condition = match params.text("condition") {
        "" | "not-running" => WaitCondition::NotRunning,
        "next-exit" => WaitCondition::NextExit,
        "removed" => WaitCondition::Removed,
        other => return Err(invalid(format!("invalid condition: {other:?}"))),
    };
    let outcome = shared.scope.container(&id)?.wait(condition);
    let body = outcome.map(|outcome| -> io::Result<Bytes> {
        let waited = match outcome {
            Ok(outcome) => Waited::from(outcome),
            Err(error) => {
                Waited { error: Some(WaitedError { message: error::told(&error) }), status_code: 1 }
            }
        };
        let mut text = serde_json::to_vec(&waited).map_err(io::Error::other)?;
        text.push(b'\n');
        Ok(text.into())
    });
    let mut response = Response::new(Body::from_stream(stream::once(body)));
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    Ok(response)
}

async fn resize(
    State(shared): State<Shared>,
    Path(id): Path<String>,
    params: Params,
) -> Answer<StatusCode> {
    let (rows, columns) = size(&params)?;
    shared.scope.container(&id)?.resize(rows, columns).await?;
    Ok(StatusCode::OK)
}

/// `h` and `w`: rows and columns.
pub(super) fn size(params: &Params) -> Answer<(u16, u16)> {
    let side = |name: &str, what: &str| {
        let text = params.text(name);
        let number = text
            .parse::<u32>()
            .map_err(|_| invalid(format!("invalid resize {what} {text:?}: invalid syntax")))?;
        u16::try_from(number)
            .map_err(|_| invalid(format!("invalid resize {what} {text:?}: value out of range")))
    };
    Ok((side("h", "height")?, side("w", "width")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_that_is_none_is_refused_in_dockers_words() {
        let said = |query| size(&Params::parse(query)).unwrap_err().0.to_string();
        assert_eq!(said("h=x&w=1"), "invalid resize height \"x\": invalid syntax");
        assert_eq!(said("h=1&w=70000"), "invalid resize width \"70000\": value out of range");
        assert_eq!(size(&Params::parse("h=24&w=80")).unwrap(), (24, 80));
    }

    #[test]
    fn an_outcome_is_spelled_as_dockers_with_the_error_first() {
        let text = |error: Option<&str>| {
            let outcome = WaitOutcome { code: 127, error: error.map(str::to_owned) };
            serde_json::to_string(&Waited::from(outcome)).unwrap()
        };
        assert_eq!(text(None), r#"{"StatusCode":127}"#);
        assert_eq!(text(Some("no")), r#"{"Error":{"Message":"no"},"StatusCode":127}"#);
    }
}
