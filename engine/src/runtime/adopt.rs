//! Finding supervisors that outlived the engine that started them.

use super::{Exit, Running};

/// What has become of a container that an earlier engine had started.
#[derive(Debug)]
pub enum Adopted {
    Running(Running),
    Exited(Exit),
    /// Neither a supervisor nor its last word.
    Gone,
}
