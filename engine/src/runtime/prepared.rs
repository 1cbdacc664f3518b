//! A container's place, before its first instruction.

use super::{Job, Running};
use crate::error::Error;

/// A supervisor in the container's control groups. Dropping it takes
/// everything back.
#[derive(Debug)]
pub struct Prepared(());

impl Prepared {
    /// The inode number of the container's directory on the version 2 tree:
    /// what BPF calls the cgroup's id.
    #[must_use]
    pub fn cgroup_id(&self) -> u64 {
        unimplemented!()
    }

    /// Starts the container.
    ///
    /// # Errors
    /// `NotStarted` with Docker's words; everything has been taken back then.
    pub async fn launch(self, job: Job) -> Result<Running, Error> {
        let _ = job;
        unimplemented!()
    }
}
