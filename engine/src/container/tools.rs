//! What every driver works with; cheap to clone.

use super::{Record, Registry, Sockets};
use crate::{
    error::Error,
    events::{self, Event, Events},
    ids::{ContainerId, TenantName, VolumeName},
    network::{Networks, dns::Dns},
    runtime::{Overlay, Runtime},
    storage::{Batch, Store, Table, Volumes},
};
use std::{collections::BTreeMap, path::PathBuf};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tritium_probes::Probes;

/// The rooms below, and the daemon's own.
#[derive(Debug, Clone)]
pub struct Tools {
    pub runtime: Runtime,
    pub networks: Networks,
    pub dns: Dns,
    pub store: Store,
    pub volumes: Volumes,
    pub sockets: Sockets,
    pub probes: Probes,
    pub events: Events,
    pub registry: Registry,
    pub tracker: TaskTracker,
    /// The daemon stops: drivers save and leave, containers go on.
    pub stopping: CancellationToken,
    /// Trace every container for its whole life.
    pub trace_all: bool,
}

impl Tools {
    /// The folder of what is written per container beside its record.
    pub(crate) fn directory(&self, id: ContainerId) -> PathBuf {
        self.store.container_dir(id)
    }

    /// Where the supervisor writes the json-file log.
    pub(crate) fn log_path(&self, id: ContainerId) -> PathBuf {
        self.directory(id).join(format!("{id}-json.log"))
    }

    /// Tells everybody what happened to a container, with Docker's attributes.
    pub(crate) fn announce(&self, record: &Record, action: &str, more: &[(&str, String)]) {
        let mut attributes: BTreeMap<String, String> =
            record.config.labels.clone().unwrap_or_default();
        attributes.insert("image".into(), record.config.image.clone());
        attributes.insert("name".into(), record.name.clone());
        attributes.extend(more.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
        self.events.publish(Event {
            tenant: record.tenant.clone(),
            kind: "container",
            action: action.to_owned(),
            actor: record.id.hex(),
            attributes,
            at: events::now(),
        });
    }

    /// Tells everybody what happened to a volume.
    pub(crate) fn announce_volume(
        &self,
        tenant: &TenantName,
        name: &VolumeName,
        action: &str,
        more: &[(&str, String)],
    ) {
        let driver = ("driver".to_owned(), "local".to_owned());
        let more = more.iter().map(|(key, value)| ((*key).to_owned(), value.clone()));
        self.events.publish(Event {
            tenant: tenant.clone(),
            kind: "volume",
            action: action.to_owned(),
            actor: name.to_string(),
            attributes: more.chain([driver]).collect(),
            at: events::now(),
        });
    }

    /// Writes the record; on disk when this returns.
    pub(crate) async fn save(&self, record: &Record) -> Result<(), Error> {
        let batch = Batch::default().put(Table::Containers, record.id.hex(), record);
        let doing = || format!("cannot record container {}", record.id);
        self.store.commit(batch).await.map_err(|error| Error::internal(doing(), error))
    }

    /// Removes the record; on disk when this returns.
    pub(super) async fn forget(&self, id: ContainerId) -> Result<(), Error> {
        let batch = Batch::default().remove(Table::Containers, id.hex());
        let doing = || format!("cannot remove the record of container {id}");
        self.store.commit(batch).await.map_err(|error| Error::internal(doing(), error))
    }

    pub(super) fn rootfs(&self, record: &Record) -> Result<Overlay, Error> {
        let doing = || format!("cannot find the layers of container {}", record.id);
        let rootfs = self.store.rootfs(record.id, &record.layers);
        let rootfs = rootfs.map_err(|error| Error::internal(doing(), error))?;
        Ok(Overlay {
            lower: rootfs.lower,
            layers_dir: rootfs.layers_dir,
            upper: rootfs.upper,
            work: rootfs.work,
            target: rootfs.target,
            readonly: record.host.readonly_rootfs,
        })
    }
}
