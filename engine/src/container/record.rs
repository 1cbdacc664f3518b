//! What is on disk per container; versioned.

use super::{Health, HealthStatus, State};
use crate::{
    ids::{ContainerId, Digest, ImageId, NetworkId, TenantName},
    network::{DEFAULT, Endpoint, Published},
    spec::{Config, EndpointSettings, HostConfig},
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, path::PathBuf};

/// Everything that a restart of the engine needs to know of a container.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Record {
    /// Of this struct; grows with it.
    pub version: u32,
    pub id: ContainerId,
    pub tenant: TenantName,
    /// Without the leading `/`.
    pub name: String,
    /// Nanoseconds since 1970.
    pub created: i64,
    pub image: ImageId,
    /// Diff ids of the image's layers, lowest first.
    pub layers: Vec<Digest>,
    /// With the image's defaults merged in.
    pub config: Config,
    pub host: HostConfig,
    /// Entrypoint and command together.
    pub args: Vec<String>,
    pub mounts: Vec<MountPoint>,
    /// By network name; asked for at creation, filled in at start.
    pub endpoints: BTreeMap<String, EndpointRecord>,
    /// What is published while it runs.
    pub published: Vec<Published>,
    pub restart_count: u32,
    /// The user has stopped it: `unless-stopped` leaves it down.
    pub stopped_by_user: bool,
    pub state: State,
    /// Since it was started first, if it is asked how it is.
    #[serde(default)]
    pub health: Option<Health>,
}

impl Record {
    /// What is written now.
    pub const VERSION: u32 = 1;

    /// Whatever was known of its health, it is not well any more.
    pub fn set_down(&mut self) {
        if let Some(health) = &mut self.health {
            health.status = HealthStatus::Unhealthy;
        }
    }

    /// By which names others find it on a network that users made; none on others.
    #[must_use]
    pub fn dns_names(&self, network: &str) -> Option<Vec<String>> {
        if [DEFAULT, "host", "none"].contains(&network) {
            return None;
        }
        let asked = &self.endpoints.get(network)?.asked;
        let mut names = vec![self.name.clone()];
        let more = asked.aliases.iter().flatten().cloned();
        for name in more.chain([self.id.short(), self.config.hostname.clone()]) {
            if !name.is_empty() && !names.contains(&name) {
                names.push(name);
            }
        }
        Some(names)
    }

    /// Its label asks for its system calls to be traced for its whole life.
    #[must_use]
    pub fn wants_trace(&self) -> bool {
        let labels = self.config.labels.iter().flatten();
        labels.into_iter().any(|(key, value)| key == "tritium.trace" && value == "syscalls")
    }
}

/// One endpoint: what was asked for, and what it got while the container runs.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct EndpointRecord {
    pub asked: EndpointSettings,
    pub endpoint: Option<Endpoint>,
    /// The network, once the container has been on it.
    #[serde(default)]
    pub network_id: Option<NetworkId>,
    /// The one that `--network` named: it is `eth0`.
    #[serde(default)]
    pub first: bool,
}

/// Something of the host's that the container sees; Docker's `MountPoint`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountPoint {
    /// `bind` or `tmpfs`.
    pub kind: String,
    pub source: PathBuf,
    pub destination: String,
    /// Docker's `Mode` as it was written: `ro`, `z`, `rslave`.
    pub mode: String,
    pub writable: bool,
    /// What is mounted below the source is seen too.
    pub recursive: bool,
    /// `rprivate` and so on.
    pub propagation: String,
}
