//! The cases of failure that a caller of the API can tell apart.

use std::error::Error as Cause;

/// What went wrong, in the words that Docker's users read.
///
/// `api::error` turns a case into an HTTP status; nobody else knows statuses.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such thing, or it is another tenant's.
    #[error("{0}")]
    NotFound(String),
    /// It is in the way of something, or in the wrong state.
    #[error("{0}")]
    Conflict(String),
    /// What was asked for makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// It is so already.
    #[error("not modified")]
    NotModified,
    /// The tenant may not do that.
    #[error("{0}")]
    Denied(String),
    /// A registry wants (other) credentials.
    #[error("{0}")]
    Unauthorized(String),
    /// Docker has it, this engine does not have it yet.
    #[error("{0}")]
    Unsupported(String),
    /// Not now: the engine is stopping, or something it needs is away.
    #[error("{0}")]
    Unavailable(String),
    /// The container could not be started: the command is missing or not
    /// executable, a mount's source is absent. Docker answers 400 for what the
    /// user asked wrongly (`code` 126 and 127), 500 otherwise.
    #[error("{message}")]
    NotStarted {
        /// What `docker run` shall exit with.
        code: i32,
        message: String,
    },
    /// The host or the engine failed. The user sees `doing`, the log also the causes.
    #[error("{doing}")]
    Internal {
        /// What was being done, and to what.
        doing: String,
        #[source]
        source: Box<dyn Cause + Send + Sync>,
    },
}

impl Error {
    /// What `docker run` and `docker exec` shall exit with, if this is about a
    /// process that could not be started.
    #[must_use]
    pub fn start_code(&self) -> Option<i32> {
        if let Self::NotStarted { code, .. } = self { Some(*code) } else { None }
    }

    /// The host failed while `doing` something.
    pub fn internal(
        doing: impl Into<String>,
        source: impl Into<Box<dyn Cause + Send + Sync>>,
    ) -> Self {
        Self::Internal { doing: doing.into(), source: source.into() }
    }
}

/// An error with all its causes, in one line.
#[must_use]
pub fn chain(error: &dyn Cause) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}
