//! What the engine does with containers that outlived it, or did not.

use crate::{
    container::{self, EndpointRecord, Handle, Record, RemoveOptions, State, Tools, ports},
    error::{Error, chain},
    events,
    ids::ContainerId,
    network,
    runtime::{Adopted, Running},
    storage::Table,
};
use futures_util::{StreamExt, stream};
use std::collections::{BTreeSet, HashMap};

/// How many supervisors are asked at once.
const AT_ONCE: usize = 32;
/// Docker's exit code for what ended while nobody looked.
const LOST: i32 = 255;

/// A record, and what has become of its processes.
pub struct Found {
    record: Record,
    running: Option<Running>,
    /// Its record no longer says what is.
    changed: bool,
}

impl std::fmt::Debug for Found {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Found({}, {})", self.record.id, self.record.state.name())
    }
}

impl Found {
    /// What the guard must know before it is put in force anew.
    ///
    /// # Errors
    /// A device that was allowed is not one any more.
    pub fn for_probes(&self) -> Result<Option<tritium_probes::Running>, Error> {
        let Some(running) = &self.running else { return Ok(None) };
        let endpoints = self.record.endpoints.values().filter_map(|it| it.endpoint.as_ref());
        Ok(Some(tritium_probes::Running {
            cgroup: running.cgroup_id(),
            admission: container::admission(&self.record)?,
            interfaces: endpoints.map(container::interface).collect(),
            // The driver takes a watch of its own.
            traced: false,
        }))
    }

    /// What the network must know.
    #[must_use]
    pub fn for_network(&self) -> Option<network::Running> {
        self.running.as_ref()?;
        let record = &self.record;
        let endpoints = record.endpoints.values().filter_map(|it| it.endpoint.clone());
        let endpoints: Vec<_> = endpoints.collect();
        if endpoints.is_empty() {
            return None;
        }
        Some(network::Running {
            container: record.id,
            tenant: record.tenant.clone(),
            endpoints,
            // They were understood when the container was made.
            wanted: ports::publish(&record.config, &record.host)
                .inspect_err(|error| {
                    let container = record.id;
                    tracing::error!(%container, error = %chain(error), "cannot read its ports");
                })
                .unwrap_or_default(),
            ports: record.published.clone(),
        })
    }
}

/// Reads every record and asks every supervisor; nothing is changed yet.
///
/// # Errors
/// The store cannot be read.
pub async fn find(
    store: &crate::storage::Store,
    runtime: &crate::runtime::Runtime,
) -> Result<Vec<Found>, Error> {
    let unreadable = |error| Error::internal("cannot read the containers", error);
    let records = store.all::<Record>(Table::Containers).await.map_err(unreadable)?;
    let asked = stream::iter(records).map(|(_, record)| look(record, runtime));
    Ok(asked.buffer_unordered(AT_ONCE).collect().await)
}

async fn look(mut record: Record, runtime: &crate::runtime::Runtime) -> Found {
    let adopted = match runtime.adopt(record.id, &record.host).await {
        Ok(adopted) => adopted,
        Err(error) => {
            tracing::error!(container = %record.id, error = %chain(&error), "cannot be adopted");
            Adopted::Gone
        }
    };
    let since = match record.state {
        State::Running { since, .. } | State::Paused { since, .. } => since,
        State::Created { .. }
        | State::Restarting { .. }
        | State::Exited { .. }
        | State::Removing => record.begun.unwrap_or_else(events::now),
    };
    let exited =
        |code, oom_killed, at| State::Exited { code, oom_killed, error: String::new(), since, at };
    let was_up = record.state.is_up();
    let (state, running) = match adopted {
        Adopted::Running(running) => {
            let pid = running.pid();
            let state = if running.is_frozen() {
                State::Paused { pid, since }
            } else {
                State::Running { pid, since }
            };
            (state, Some(running))
        }
        Adopted::Exited(exit) => (exited(exit.code, exit.oom_killed, exit.at), None),
        Adopted::Gone if was_up => (exited(LOST, false, events::now()), None),
        Adopted::Gone => match record.state.clone() {
            State::Restarting { code, oom_killed, at, .. } => (exited(code, oom_killed, at), None),
            state @ (State::Created { .. }
            | State::Running { .. }
            | State::Paused { .. }
            | State::Exited { .. }
            | State::Removing) => (state, None),
        },
    };
    let changed = state != record.state;
    record.state = state;
    Found { record, running, changed }
}

/// Gives every container its driver, and starts what is to run always.
///
/// # Errors
/// The store cannot be written.
pub async fn restore(found: Vec<Found>, tools: &Tools) -> Result<(), Error> {
    let mut to_start = Vec::new();
    let up: BTreeSet<_> =
        found.iter().filter(|it| it.running.is_some()).map(|it| it.record.id).collect();
    let running = found.iter().filter(|it| it.running.is_some());
    running.for_each(|it| container::announce_names(&it.record, tools));
    for Found { mut record, running, changed } in found {
        if running.is_none() {
            tools.runtime.cleanup(record.id).await;
            for EndpointRecord { endpoint, .. } in record.endpoints.values_mut() {
                *endpoint = None;
            }
            record.published.clear();
            record.set_down();
        }
        if changed {
            tools.save(&record).await?;
        }
        if running.is_none() {
            tools.runtime.forget_exit(record.id);
        }
        if let Some(running) = &running {
            container::resume_names(&record, running.pid(), tools).await;
        }
        tools.registry.take_name(&record.tenant, &record.name, record.id)?;
        keep_what_it_mounts(&record, tools);
        let policy = &record.host.restart_policy;
        let again = running.is_none()
            && container::wanted_at_start(
                policy,
                &record.state,
                record.stopped_by_user,
                record.restart_count,
            );
        let auto_remove = running.is_none()
            && record.host.auto_remove
            && matches!(record.state, State::Exited { .. });
        let build = record.build;
        let handle = container::adopt(record, running, tools);
        if again || auto_remove || build {
            to_start.push((handle, again && !build));
        }
    }
    let settled = tools.volumes.settle(&up).await;
    settled.map_err(|error| Error::internal("cannot unmount volumes", error))?;
    tools.tracker.spawn(async move {
        let how = RemoveOptions { force: true, volumes: true };
        for (handle, again) in to_start {
            let outcome = if again { handle.start().await } else { handle.remove(how, &handle.id().hex()).await };
            if let Err(error) = outcome {
                tracing::warn!(container = %handle.id(), error = %chain(&error), "cannot go on with it");
            }
        }
    });
    Ok(())
}

/// Its volumes are not removed, and neither are the images that it mounts.
fn keep_what_it_mounts(record: &Record, tools: &Tools) {
    for name in record.mounts.iter().filter_map(|point| point.volume()) {
        if !tools.volumes.hold(&record.tenant, name, record.id) {
            tracing::error!(container = %record.id, volume = %name, "its volume is lost");
        }
    }
    // Its layers are counted on from here; what becomes of a container whose
    // layers are lost is told when it is started.
    if let Err(error) = tools.store.rootfs(record.id, &record.layers) {
        tracing::error!(container = %record.id, error = %chain(&error), "cannot be started");
    }
    let held = tools.store.hold_for(record.id, &record.mounted_layers());
    if let Err(error) = held {
        tracing::error!(container = %record.id, error = %chain(&error), "an image it mounts is lost");
    }
}

/// Every container's state, by id: for the sweeps of the rooms below.
#[must_use]
pub fn known(found: &[Found]) -> Vec<ContainerId> {
    found.iter().map(|found| found.record.id).collect()
}

/// How many containers are in each state.
#[must_use]
pub(super) fn count(handles: &[Handle]) -> HashMap<&'static str, u64> {
    let mut counts = HashMap::new();
    for handle in handles {
        *counts.entry(handle.snapshot().state.name()).or_insert(0) += 1;
    }
    counts
}
