//! What every driver works with; cheap to clone.

use super::{Record, Registry};
use crate::{
    events::{self, Event, Events},
    ids::ContainerId,
    network::Networks,
    runtime::Runtime,
    storage::Store,
};
use std::{collections::BTreeMap, path::PathBuf};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tritium_probes::Probes;

/// The rooms below, and the daemon's own.
#[derive(Debug, Clone)]
pub struct Tools {
    pub runtime: Runtime,
    pub networks: Networks,
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
    pub(super) fn announce(&self, record: &Record, action: &str, more: &[(&str, String)]) {
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
}
