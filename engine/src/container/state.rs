//! Where a container is in its life: pure, no clock, no I/O.

use serde::{Deserialize, Serialize};

/// ```text
///  Created ──start──▶ Running ⇄ Paused
///     │                 │ exits     ╲ restart policy
///     │                 ▼            ▼
///     │              Exited ◀──── Restarting
///     └──remove──▶ Removing ◀──remove──┘
/// ```
///
/// Times are nanoseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum State {
    /// Never run. `error`, `code`: why the last start failed (0: not tried).
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

impl State {
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
}
