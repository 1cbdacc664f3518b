//! Containers of one tenant: make, find, list.

use super::Scope;
use crate::{
    container::{ExecHandle, Handle, Snapshot},
    error::Error,
    ids::ContainerId,
    spec::{Config, HostConfig, NetworkingConfig},
};
use std::sync::Arc;

/// What `POST /containers/create` asks.
#[derive(Debug, Clone, Default)]
pub struct CreateContainer {
    /// As the user wrote it, perhaps with a leading `/`.
    pub name: Option<String>,
    pub platform: Option<String>,
    pub config: Config,
    pub host: HostConfig,
    pub networking: NetworkingConfig,
}

/// What it answers.
#[derive(Debug, Clone)]
pub struct Created {
    pub id: ContainerId,
    pub warnings: Vec<String>,
}

impl Scope {
    pub async fn create_container(&self, request: CreateContainer) -> Result<Created, Error> {
        unimplemented!("{request:?}")
    }
    /// By name, id or a prefix of an id that is one only.
    pub fn container(&self, reference: &str) -> Result<Handle, Error> {
        unimplemented!("{reference}")
    }
    /// All of them, newest first.
    #[must_use]
    pub fn containers(&self) -> Vec<Arc<Snapshot>> {
        unimplemented!()
    }
    pub async fn rename_container(&self, reference: &str, name: &str) -> Result<(), Error> {
        unimplemented!("{reference}{name}")
    }
    pub fn exec(&self, id: &str) -> Result<ExecHandle, Error> {
        unimplemented!("{id}")
    }
}
