//! Control groups: a container's limits, its use, and who is in it.
//!
//! Two layouts. *Version 2*: one tree, everything in it. *Hybrid*: controllers
//! on version 1 hierarchies, and a version 2 tree beside them that BPF
//! attaches to and that `clone3` places processes in. A container has a
//! directory on the version 2 tree in either case; it holds the container's
//! processes without their supervisor. On hybrid the supervisor, which the
//! processes are forked from, lives in the version 1 directories with them.
//!
//! Values to write are computed by pure functions (`v1.rs`, `v2.rs`), then
//! written (`group.rs`).

mod group;
mod layout;
mod limits;
mod usage;
mod v1;
mod v2;

pub(super) use group::Group;
pub(super) use layout::Layout;
pub(super) use limits::{Refused, check};
pub use usage::{BlockUsage, CpuUsage, MemoryUsage, Usage};

/// A value for a file of a control group.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Setting {
    controller: &'static str,
    file: &'static str,
    value: String,
    /// Docker discards it where the kernel has no such file.
    optional: bool,
}

impl Setting {
    #[expect(clippy::needless_pass_by_value, reason = "numbers and texts, written in place")]
    fn new(controller: &'static str, file: &'static str, value: impl ToString) -> Self {
        Self { controller, file, value: value.to_string(), optional: false }
    }

    fn optional(self) -> Self {
        Self { optional: true, ..self }
    }
}
