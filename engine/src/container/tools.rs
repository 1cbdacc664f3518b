//! What every driver works with; cheap to clone.

use super::{MountPoint, Record, Registry};
use crate::{
    error::Error,
    events::{self, Event, Events},
    ids::ContainerId,
    network::{Networks, dns::Dns},
    runtime::{BindMount, Overlay, Runtime},
    storage::{Batch, Store, Table},
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

    /// What is mounted beside the root. A missing source of `-v` is made, as
    /// Docker does (`--mount` has been refused at creation).
    pub(super) async fn mounts(&self, record: &Record) -> Result<Vec<BindMount>, Error> {
        let points = record.mounts.clone();
        let resolved = tokio::task::spawn_blocking(move || points.iter().map(bind_mount).collect());
        resolved.await.map_err(|error| Error::internal("cannot look at the mounts", error))?
    }
}

fn bind_mount(point: &MountPoint) -> Result<BindMount, Error> {
    let source = &point.source;
    if let Err(error) = std::fs::metadata(source) {
        let failed = |error| {
            let doing = format!("error while creating mount source path '{}'", source.display());
            Error::internal(doing, error)
        };
        if error.kind() != std::io::ErrorKind::NotFound {
            return Err(failed(error));
        }
        std::fs::create_dir_all(source).map_err(failed)?;
    }
    Ok(BindMount {
        source: source.clone(),
        destination: point.destination.clone(),
        readonly: !point.writable,
        recursive: point.recursive,
        propagation: point.propagation.clone(),
    })
}
