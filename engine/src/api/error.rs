//! [`Error`] → status and `{"message": …}`: the only place that knows both.

use crate::error::{Error, chain};
use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, StatusCode, header};
use std::sync::atomic::{AtomicU64, Ordering};

/// What a handler answers when it cannot do what was asked.
#[derive(Debug)]
pub(super) struct Failure(pub(super) Error);

/// What every handler answers.
pub(super) type Answer<T = Response> = Result<T, Failure>;

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self(error)
    }
}

/// What was asked for makes no sense.
pub(super) fn invalid(message: impl Into<String>) -> Failure {
    Failure(Error::Invalid(message.into()))
}

/// `GET /this` is known to Docker and not built here.
pub(super) fn unbuilt(what: &str) -> Failure {
    Failure(Error::Unsupported(format!("{what} is not built yet")))
}

/// The status that Docker gives for the case.
pub(super) fn status(error: &Error) -> StatusCode {
    match error {
        Error::NotFound(_) => StatusCode::NOT_FOUND,
        Error::Conflict(_) => StatusCode::CONFLICT,
        Error::Invalid(_) | Error::NotStarted { code: 126 | 127, .. } => StatusCode::BAD_REQUEST,
        Error::NotModified => StatusCode::NOT_MODIFIED,
        Error::Denied(_) => StatusCode::FORBIDDEN,
        Error::Unauthorized(_) => StatusCode::UNAUTHORIZED,
        Error::Unsupported(_) => StatusCode::NOT_IMPLEMENTED,
        Error::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
        Error::NotStarted { .. } | Error::Internal { .. } => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// Logs what is the engine's or the host's fault, under a number that the user
/// can be asked for; answers what the user is told.
pub(super) fn told(error: &Error) -> String {
    static LAST: AtomicU64 = AtomicU64::new(0);
    match error {
        Error::Internal { .. } => {
            let request = LAST.fetch_add(1, Ordering::Relaxed) + 1;
            let causes = chain(error);
            tracing::error!(request, error = %causes, "a request failed");
            // Docker's users read causes too: "no space left on device".
            causes
        }
        Error::NotFound(_)
        | Error::Conflict(_)
        | Error::Invalid(_)
        | Error::NotModified
        | Error::Denied(_)
        | Error::Unauthorized(_)
        | Error::Unsupported(_)
        | Error::Unavailable(_)
        | Error::NotStarted { .. } => error.to_string(),
    }
}

/// `{"message": …}` as Go's encoder writes it, with its line feed.
pub(super) fn message(status: StatusCode, text: &str) -> Response {
    json(status, &serde_json::json!({ "message": text }))
}

/// A JSON answer with Docker's line feed at the end.
pub(super) fn json<T: serde::Serialize>(status: StatusCode, value: &T) -> Response {
    let mut body = match serde_json::to_vec(value) {
        Ok(body) => body,
        Err(error) => {
            return Failure(Error::internal("cannot write the answer", error)).into_response();
        }
    };
    body.push(b'\n');
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = status(&self.0);
        if status == StatusCode::NOT_MODIFIED {
            return status.into_response();
        }
        message(status, &told(&self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn text(response: Response) -> String {
        let body = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
        String::from_utf8(body.to_vec()).unwrap()
    }

    #[tokio::test]
    async fn an_error_is_dockers_message_and_a_line_feed() {
        let failure = Failure(Error::NotFound("No such container: nope".into()));
        let response = failure.into_response();
        assert_eq!(response.status(), 404);
        assert_eq!(response.headers()["content-type"], "application/json");
        assert_eq!(text(response).await, "{\"message\":\"No such container: nope\"}\n");
    }

    #[tokio::test]
    async fn not_modified_has_no_body() {
        let response = Failure(Error::NotModified).into_response();
        assert_eq!(response.status(), 304);
        assert_eq!(text(response).await, "");
    }

    #[test]
    fn a_missing_command_is_the_users_fault_and_a_failed_mount_the_hosts() {
        let not_started = |code| Error::NotStarted { code, message: String::new() };
        assert_eq!(status(&not_started(127)), 400);
        assert_eq!(status(&not_started(126)), 400);
        assert_eq!(status(&not_started(128)), 500);
    }

    #[test]
    fn the_user_sees_the_causes_of_a_failure() {
        let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
        let told = told(&Error::internal("cannot write the record", full));
        assert_eq!(told, "cannot write the record: no storage space");
    }
}
