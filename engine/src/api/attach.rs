//! A container's streams: attach, logs.

use super::{
    Shared,
    detach::DetachKeys,
    error::{Answer, invalid},
    extract::Params,
    stream::{self, Hijack},
    version::{self, Version},
};
use crate::{
    error::Error,
    service::seen::{AttachOptions, Attachment, LogOptions},
};
use axum::{
    Extension, Router,
    extract::{Path, Request, State},
    response::Response,
    routing::{get, post},
};

pub(super) fn routes() -> Router<Shared> {
    Router::new()
        .route("/containers/{id}/attach", post(attach))
        .route("/containers/{id}/logs", get(logs))
}

async fn attach(
    State(shared): State<Shared>,
    Path(id): Path<String>,
    params: Params,
    request: Request,
) -> Response {
    let (parts, _) = request.into_parts();
    let hijack = Hijack::of(&parts);
    match attached(&shared, &id, &params).await {
        Ok(Attached { attachment, keys }) => hijack.run(attachment, keys).await,
        Err(error) => stream::refusal(&error),
    }
}

/// A client that is attached, and the keys with which it leaves.
pub(super) struct Attached {
    pub(super) attachment: Attachment,
    pub(super) keys: DetachKeys,
}

/// Attaches as the parameters say.
pub(super) async fn attached(
    shared: &Shared,
    id: &str,
    params: &Params,
) -> Result<Attached, Error> {
    let handle = shared.scope.container(id)?;
    let snapshot = handle.snapshot();
    let config = &snapshot.record.config;
    let keys = DetachKeys::parse(params.text("detachKeys"));
    let keys = keys.map_err(|error| Error::Invalid(error.to_string()))?;
    if snapshot.state.name() == "restarting" {
        let id = handle.id();
        return Err(Error::Conflict(format!(
            "container {id} is restarting, wait until the container is running"
        )));
    }
    let options = AttachOptions {
        stdin: params.flag("stdin"),
        stdout: params.flag("stdout"),
        stderr: params.flag("stderr"),
        stream: params.flag("stream"),
        logs: params.flag("logs"),
    };
    tracing::debug!(container = %handle.id(), terminal = config.tty, "attached");
    let attachment = handle.attach(options).await?;
    Ok(Attached { attachment, keys })
}

async fn logs(
    State(shared): State<Shared>,
    Path(id): Path<String>,
    params: Params,
    version: Option<Extension<Version>>,
) -> Answer {
    let handle = shared.scope.container(&id)?;
    let options = LogOptions {
        stdout: params.flag("stdout"),
        stderr: params.flag("stderr"),
        follow: params.flag("follow"),
        timestamps: params.flag("timestamps"),
        // `all`, and whatever is no number, is all.
        tail: params.text("tail").parse().ok(),
        since: params.moment("since")?.filter(|since| *since > 0),
        until: params.moment("until")?.filter(|until| *until > 0),
        details: params.flag("details"),
    };
    if !options.stdout && !options.stderr {
        return Err(invalid("Bad parameters: you must choose at least one stream"));
    }
    let output = handle.logs(options).await?;
    let version = version.map_or(version::NEWEST, |Extension(version)| version);
    Ok(stream::answer(output, version, handle.snapshot().record.config.tty))
}
