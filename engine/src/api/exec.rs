//! Processes beside a container's first: `docker exec`.

use super::{
    Shared,
    detach::DetachKeys,
    error::{self, Answer, invalid},
    extract::{Json, OptionalJson, Params},
    lifecycle,
    stream::{self, Hijack},
    wire::exec::{ExecCreate, ExecInspect, ExecStart},
};
use crate::{
    error::Error,
    service::seen::{Attachment, ExecRequest, ExecStart as Start},
};
use axum::{
    Router,
    extract::{FromRequest, Path, Request, State},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use http::StatusCode;
use serde_json::json;

pub(super) fn routes() -> Router<Shared> {
    Router::new()
        .route("/containers/{id}/exec", post(create))
        .route("/exec/{id}/start", post(start))
        .route("/exec/{id}/resize", post(resize))
        .route("/exec/{id}/json", get(inspect))
}

async fn create(
    State(shared): State<Shared>,
    Path(id): Path<String>,
    Json(body): Json<ExecCreate>,
) -> Answer {
    let request = ExecRequest::from(body);
    if request.cmd.is_empty() {
        return Err(invalid("No exec command specified"));
    }
    DetachKeys::parse(&request.detach_keys).map_err(|error| invalid(error.to_string()))?;
    let exec = shared.scope.create_exec(&id, request).await?;
    Ok(error::json(StatusCode::CREATED, &json!({ "Id": exec.hex() })))
}

async fn start(State(shared): State<Shared>, Path(id): Path<String>, request: Request) -> Answer {
    let (parts, body) = request.into_parts();
    let hijack = Hijack::of(&parts);
    let request = Request::from_parts(parts, body);
    // Read to its end: what follows on the socket is the process's input.
    let OptionalJson(body) = OptionalJson::<ExecStart>::from_request(request, &()).await?;
    let how = body.unwrap_or_default();
    let exec = shared.scope.exec(&id)?;
    let snapshot = exec.snapshot();
    let keys = DetachKeys::parse(&snapshot.request.detach_keys);
    let keys = keys.map_err(|error| invalid(error.to_string()))?;
    let terminal = how.terminal() || snapshot.request.terminal;
    let started = exec
        .start(Start { detach: how.detach(), terminal: how.terminal(), size: how.size() })
        .await;
    match started {
        Ok(Some(attachment)) => Ok(hijack.run(attachment, keys).await),
        Ok(None) => Ok(StatusCode::OK.into_response()),
        // Docker says that where the process would have spoken; the client
        // asks for the exit code next.
        Err(Error::NotStarted { message, .. }) if !how.detach() => {
            let words: Attachment = stream::last_words(&message, terminal);
            Ok(hijack.run(words, keys).await)
        }
        Err(error) => Err(error.into()),
    }
}

async fn resize(
    State(shared): State<Shared>,
    Path(id): Path<String>,
    params: Params,
) -> Answer<StatusCode> {
    let (rows, columns) = lifecycle::size(&params)?;
    shared.scope.exec(&id)?.resize(rows, columns).await?;
    Ok(StatusCode::OK)
}

async fn inspect(State(shared): State<Shared>, Path(id): Path<String>) -> Answer<Response> {
    let snapshot = shared.scope.exec(&id)?.snapshot();
    Ok(error::json(StatusCode::OK, &ExecInspect::from(snapshot)))
}
