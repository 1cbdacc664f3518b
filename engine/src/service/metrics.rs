//! The engine's numbers, for the exporters: resources of every running
//! container, and the engine's own.

use super::Engine;
use crate::{
    container::{Handle, Snapshot},
    ids::TenantName,
    runtime::Interface,
};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};
use tritium_probes::{ContainerLabels, ContainerSample, EngineSample, NetworkSample, Sample};

/// Requests answered since the engine started, by method and status. Cheap to
/// clone.
#[derive(Debug, Clone, Default)]
pub struct Requests {
    counts: Arc<Mutex<BTreeMap<(String, u16), u64>>>,
}

impl Requests {
    /// One more.
    pub fn count(&self, method: &str, status: u16) {
        let mut counts = self.counts.lock().expect("no panic happens under this lock");
        if let Some(count) = counts.get_mut(&(method.to_owned(), status)) {
            *count += 1;
        } else if counts.len() < MOST_SERIES {
            counts.insert((method.to_owned(), status), 1);
        }
    }

    fn all(&self) -> Vec<(String, u16, u64)> {
        let counts = self.counts.lock().expect("no panic happens under this lock");
        counts.iter().map(|((method, status), count)| (method.clone(), *status, *count)).collect()
    }
}

/// Methods are the client's to choose: no series without end.
const MOST_SERIES: usize = 256;

impl Engine {
    /// Everything there is to export at this moment.
    pub async fn measure(&self) -> tritium_probes::Snapshot {
        let handles = self.tools.registry.all();
        let mut containers = Vec::new();
        for handle in &handles {
            containers.extend(self.container(handle));
        }
        let counts = super::start::count(&handles);
        let sample = Sample {
            engine_started: moment(self.about.started.as_nanosecond()),
            engine: EngineSample {
                containers: counts.into_iter().map(|(state, n)| (state.to_owned(), n)).collect(),
                requests: self.requests.all(),
                images: self.images_of_all(),
            },
            containers,
        };
        let probes = self.tools.probes.clone();
        let empty = sample.clone();
        let collected = tokio::task::spawn_blocking(move || probes.collect(sample)).await;
        collected.unwrap_or_else(|error| {
            tracing::error!(%error, "cannot read what the kernel counted");
            self.tools.probes.collect(empty)
        })
    }

    fn images_of_all(&self) -> u64 {
        let tenants = self.tenants.list().into_iter().chain([TenantName::operator()]);
        tenants.map(|tenant| self.images.list(&tenant).len() as u64).sum()
    }

    fn container(&self, handle: &Handle) -> Option<ContainerSample> {
        let running = handle.running()?;
        let snapshot = handle.snapshot();
        let usage = match running.usage() {
            Ok(usage) => usage,
            Err(error) => {
                // It may have ended between the two lines above.
                tracing::debug!(container = %handle.id(), %error, "has no numbers");
                return None;
            }
        };
        // Counted inside: what goes from container to container passes no interface of the host.
        // Another container's network is counted there, the host's not at all.
        let has_own = snapshot.record.endpoints.values().any(|it| it.endpoint.is_some());
        let interfaces = if has_own { running.interfaces() } else { Ok(BTreeMap::new()) };
        let network = match interfaces {
            Ok(interfaces) => interfaces.into_iter().map(traffic).collect(),
            Err(error) => {
                tracing::debug!(container = %handle.id(), %error, "has no network counters");
                Vec::new()
            }
        };
        Some(ContainerSample {
            labels: labels(&snapshot),
            cgroup: running.cgroup_id(),
            started: started(&snapshot),
            cpu_user: Duration::from_nanos(usage.cpu.user),
            cpu_system: Duration::from_nanos(usage.cpu.system),
            memory_bytes: usage.memory.usage,
            memory_limit: usage.memory.limit,
            processes: usage.pids,
            network,
        })
    }
}

fn labels(snapshot: &Snapshot) -> ContainerLabels {
    ContainerLabels {
        id: snapshot.record.id.hex(),
        name: snapshot.record.name.clone(),
        image: snapshot.record.config.image.clone(),
        tenant: snapshot.record.tenant.to_string(),
    }
}

fn started(snapshot: &Snapshot) -> SystemTime {
    moment(snapshot.state.since().unwrap_or(snapshot.record.created).into())
}

/// `nanos` since 1970.
fn moment(nanos: i128) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_nanos(u64::try_from(nanos).unwrap_or(0))
}

fn traffic((interface, counted): (String, Interface)) -> NetworkSample {
    NetworkSample { interface, received: counted.received.bytes, sent: counted.sent.bytes }
}
