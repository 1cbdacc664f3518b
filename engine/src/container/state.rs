//! Where a container is in its life: pure, no clock, no I/O.

use serde::{Deserialize, Serialize};

/// ```text
///              ┌──────── NotStarted (the reason is kept)
///              ▼         │
///  Created ──Started──▶ Running ⇄ Paused
///     │        ▲         │ Exited
///     │        │         ▼
///     │        ├───── Exited ──WillRestart──▶ Restarting
///     │        └──────────│───────Started─────────┘ │
///     └──Removed──▶ Removing ◀──Removed─┴───────────┘
/// ```
///
/// Times are nanoseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum State {
    /// Never run. `code`, `error`: why the last start failed (0: not tried).
    Created {
        code: i32,
        error: String,
    },
    Running {
        pid: i32,
        since: i64,
    },
    Paused {
        pid: i32,
        since: i64,
    },
    /// Ended, and to be started again by its restart policy.
    Restarting {
        code: i32,
        oom_killed: bool,
        since: i64,
        at: i64,
    },
    Exited {
        code: i32,
        oom_killed: bool,
        error: String,
        since: i64,
        at: i64,
    },
    Removing,
}

/// What can happen to a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    Started {
        pid: i32,
        at: i64,
    },
    /// It was to be started and could not.
    NotStarted {
        code: i32,
        error: String,
        at: i64,
    },
    Paused,
    Resumed,
    Exited {
        code: i32,
        oom_killed: bool,
        at: i64,
    },
    WillRestart,
    /// The user does not want it restarted after all.
    Stopped,
    Removed,
}

/// The event makes no sense in that state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a container that is {state} cannot take {event:?}")]
pub(crate) struct Refused {
    pub(crate) state: &'static str,
    pub(crate) event: Event,
}

impl State {
    /// The state that follows.
    pub(crate) fn on(self, event: Event) -> Result<Self, Refused> {
        Ok(match (self, event) {
            (
                Self::Created { .. } | Self::Exited { .. } | Self::Restarting { .. },
                Event::Started { pid, at },
            ) => Self::Running { pid, since: at },
            (Self::Created { .. }, Event::NotStarted { code, error, .. }) => {
                Self::Created { code, error }
            }
            (
                Self::Exited { since, .. } | Self::Restarting { since, .. },
                Event::NotStarted { code, error, at },
            ) => Self::Exited { code, oom_killed: false, error, since, at },
            (Self::Running { pid, since }, Event::Paused) => Self::Paused { pid, since },
            (Self::Paused { pid, since }, Event::Resumed) => Self::Running { pid, since },
            (
                Self::Running { since, .. } | Self::Paused { since, .. },
                Event::Exited { code, oom_killed, at },
            ) => Self::Exited { code, oom_killed, error: String::new(), since, at },
            (Self::Exited { code, oom_killed, since, at, .. }, Event::WillRestart) => {
                Self::Restarting { code, oom_killed, since, at }
            }
            (Self::Restarting { code, oom_killed, since, at }, Event::Stopped) => {
                Self::Exited { code, oom_killed, error: String::new(), since, at }
            }
            (
                Self::Created { .. } | Self::Exited { .. } | Self::Restarting { .. },
                Event::Removed,
            ) => Self::Removing,
            (state, event) => return Err(Refused { state: state.name(), event }),
        })
    }

    /// Docker's `Status`: `created running paused restarting removing exited`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Created { .. } => "created",
            Self::Running { .. } => "running",
            Self::Paused { .. } => "paused",
            Self::Restarting { .. } => "restarting",
            Self::Exited { .. } => "exited",
            Self::Removing => "removing",
        }
    }

    /// Whether its processes exist.
    #[must_use]
    pub fn is_up(&self) -> bool {
        matches!(self, Self::Running { .. } | Self::Paused { .. })
    }

    /// The init process on the host, while there is one.
    #[must_use]
    pub fn pid(&self) -> Option<i32> {
        match self {
            Self::Running { pid, .. } | Self::Paused { pid, .. } => Some(*pid),
            Self::Created { .. }
            | Self::Restarting { .. }
            | Self::Exited { .. }
            | Self::Removing => None,
        }
    }

    /// When it was last started, if it ever was.
    #[must_use]
    pub fn since(&self) -> Option<i64> {
        match self {
            Self::Running { since, .. }
            | Self::Paused { since, .. }
            | Self::Restarting { since, .. }
            | Self::Exited { since, .. } => Some(*since),
            Self::Created { .. } | Self::Removing => None,
        }
    }

    /// Why it could not be started the last time that was tried.
    #[must_use]
    pub fn error(&self) -> Option<&str> {
        let error = match self {
            Self::Created { error, .. } | Self::Exited { error, .. } => error,
            Self::Running { .. }
            | Self::Paused { .. }
            | Self::Restarting { .. }
            | Self::Removing => return None,
        };
        (!error.is_empty()).then_some(error)
    }

    /// What `docker wait` says of a container that does not run.
    #[must_use]
    pub fn exit_code(&self) -> i32 {
        match self {
            Self::Created { code, .. }
            | Self::Restarting { code, .. }
            | Self::Exited { code, .. } => *code,
            Self::Running { .. } | Self::Paused { .. } | Self::Removing => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn created() -> State {
        State::Created { code: 0, error: String::new() }
    }

    fn running() -> State {
        State::Running { pid: 7, since: 1 }
    }

    fn exited() -> State {
        State::Exited { code: 3, oom_killed: false, error: String::new(), since: 1, at: 2 }
    }

    #[test]
    fn a_created_container_runs_ends_and_runs_again() {
        let state = created().on(Event::Started { pid: 7, at: 1 }).unwrap();
        assert_eq!(state, running());
        let state = state.on(Event::Exited { code: 3, oom_killed: false, at: 2 }).unwrap();
        assert_eq!(state, exited());
        assert_eq!(state.on(Event::Started { pid: 7, at: 1 }).unwrap(), running());
    }

    #[test]
    fn a_paused_container_cannot_be_started_again() {
        let paused = running().on(Event::Paused).unwrap();
        let refused = paused.on(Event::Started { pid: 8, at: 3 }).unwrap_err();
        assert_eq!(refused.state, "paused");
    }

    #[test]
    fn a_running_container_cannot_be_removed() {
        assert_eq!(running().on(Event::Removed).unwrap_err().state, "running");
    }

    #[test]
    fn a_failed_first_start_leaves_it_created_with_the_reason() {
        let event = Event::NotStarted { code: 127, error: "no such file".into(), at: 5 };
        let state = created().on(event).unwrap();
        assert_eq!(state.name(), "created");
        assert_eq!(state.exit_code(), 127);
    }

    #[test]
    fn a_container_waiting_to_be_restarted_can_be_stopped() {
        let waiting = exited().on(Event::WillRestart).unwrap();
        assert_eq!(waiting.name(), "restarting");
        assert_eq!(waiting.on(Event::Stopped).unwrap(), exited());
    }

    #[test]
    fn nothing_happens_to_a_container_that_is_being_removed() {
        let removing = created().on(Event::Removed).unwrap();
        assert!(removing.clone().on(Event::Started { pid: 1, at: 1 }).is_err());
        assert!(removing.on(Event::Removed).is_err());
    }
}
