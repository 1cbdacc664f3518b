//! What is on disk per container; versioned.

use super::{Health, HealthStatus, State};
use crate::{
    ids::{ContainerId, Digest, ImageId, NetworkId, TenantName, VolumeName},
    network::{DEFAULT, Endpoint, Published},
    spec::{Config, EndpointSettings, HostConfig},
};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

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
    /// A build's own: it is of no use to the next engine.
    #[serde(default)]
    pub build: bool,
    pub state: State,
    /// When it was last started, nanoseconds since 1970. The state that is on
    /// record does not say: what runs is known from its supervisor.
    #[serde(default)]
    pub begun: Option<i64>,
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

/// Something that is mounted in the container beside its root; Docker's
/// `MountPoint`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountPoint {
    pub destination: String,
    /// Docker's `Mode` as it was written: `ro`, `z`, `rslave`.
    pub mode: String,
    pub writable: bool,
    /// `rprivate` and so on; empty for volumes.
    pub propagation: String,
    #[serde(flatten)]
    pub what: Mounted,
}

/// What is mounted there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Mounted {
    /// A file or directory of the host.
    Bind {
        source: PathBuf,
        /// What is mounted below the source is seen too.
        recursive: bool,
        /// Made if it is missing, at each start.
        #[serde(default)]
        create: bool,
        /// "Read-only" is not for what is mounted below the source.
        #[serde(default)]
        shallow: bool,
    },
    Volume {
        name: VolumeName,
        /// Its directory, as `inspect` shows it.
        source: PathBuf,
        /// Only this of it.
        #[serde(default)]
        subpath: String,
        /// It was given no name, so it goes with the container where that is
        /// asked for.
        anonymous: bool,
        /// Filled with the image's content, if it is empty.
        #[serde(default)]
        copy: bool,
    },
    /// `--mount type=tmpfs`; its options are in the `HostConfig`.
    Tmpfs {},
    Image {
        /// As it was asked for.
        name: String,
        image: ImageId,
        /// Diff ids, lowest first.
        layers: Vec<Digest>,
        #[serde(default)]
        subpath: String,
    },
}

impl MountPoint {
    /// Docker's word.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self.what {
            Mounted::Bind { .. } => "bind",
            Mounted::Volume { .. } => "volume",
            Mounted::Tmpfs {} => "tmpfs",
            Mounted::Image { .. } => "image",
        }
    }

    /// The volume that is mounted there.
    #[must_use]
    pub fn volume(&self) -> Option<&VolumeName> {
        if let Mounted::Volume { name, .. } = &self.what { Some(name) } else { None }
    }

    /// Docker's `Name`: of the volume, or the image.
    #[must_use]
    pub fn name(&self) -> &str {
        match &self.what {
            Mounted::Volume { name, .. } => name.as_str(),
            Mounted::Image { name, .. } => name,
            Mounted::Bind { .. } | Mounted::Tmpfs {} => "",
        }
    }

    /// Docker's `Source`.
    #[must_use]
    pub fn source(&self) -> &Path {
        match &self.what {
            Mounted::Bind { source, .. } | Mounted::Volume { source, .. } => source,
            Mounted::Tmpfs {} | Mounted::Image { .. } => Path::new(""),
        }
    }
}

impl Record {
    /// The layers of the images that are mounted in it.
    #[must_use]
    pub fn mounted_layers(&self) -> Vec<Digest> {
        let images = self.mounts.iter().filter_map(|point| match &point.what {
            Mounted::Image { layers, .. } => Some(layers),
            Mounted::Bind { .. } | Mounted::Volume { .. } | Mounted::Tmpfs {} => None,
        });
        images.flatten().copied().collect()
    }
}
