//! The steps up and down: root filesystem, network, control group, guard,
//! process; and the same backwards.
//!
//! A step that fails takes back the ones before it: `Prepared` and the
//! supervisor by being dropped, the network and the guard by `take_down`.

use super::{EndpointRecord, driver::Driver, networking, pacing, state::Event};
use crate::{
    error::Error,
    network::{AttachRequest, Attachment as Network, Endpoint},
    runtime::{self, Job, NetworkNamespace, Prepared},
};
use std::sync::Arc;
use tritium_probes::{Admission, Cable, Device, DeviceKind, DevicePolicy, Interface};

impl Driver {
    /// Starts the container, whatever it did before.
    pub(super) async fn start(&mut self) -> Result<(), Error> {
        let looks = self.views.clone();
        let nobody_looks = tokio::select! {
            nobody_looks = looks.write() => nobody_looks,
            // Whoever looks is sent away then, and nothing is to begin.
            () = self.tools.stopping.cancelled() => {
                return Err(Error::Unavailable("the engine is stopping".into()));
            }
        };
        let outcome = self.bring_up().await;
        drop(nobody_looks);
        match outcome {
            Ok(running) => {
                self.running = Some(running.clone());
                self.running_seen.send_replace(Some(running));
                self.announce_networks("connect");
                self.tools.announce(&self.record, "start", &[]);
                self.begin_health();
                Ok(())
            }
            Err(error) => {
                self.take_down().await;
                let code = error.start_code().unwrap_or(128);
                // Clients that attached see the end of their streams.
                self.waiting.clear();
                let event = Event::NotStarted { code, error: error.to_string(), at: Self::now() };
                self.step(event);
                self.save().await?;
                Err(error)
            }
        }
    }

    async fn bring_up(&mut self) -> Result<runtime::Running, Error> {
        let id = self.record.id;
        let joined = self.joined()?;
        let prepare = self.tools.runtime.prepare(id, &self.record.host);
        let (prepared, network) = tokio::join!(prepare, self.connect(&joined));
        // Both have run: whichever succeeded is taken back by dropping it, or
        // by `take_down`.
        let network = network?;
        let prepared = prepared?;
        self.note_network(network.as_ref())?;
        let files = self.write_files().await?;
        self.bring_up_names().await?;
        self.admit(&prepared)?;
        let rootfs = self.tools.rootfs(&self.record)?;
        self.mounted = true;
        let mounts = self.tools.mount(&self.record).await?;
        let waiting = std::mem::take(&mut self.waiting);
        let job = Job {
            id,
            name: self.record.name.clone(),
            image: self.record.image,
            args: self.record.args.clone(),
            config: Arc::new(self.record.config.clone()),
            host: Arc::new(self.record.host.clone()),
            rootfs,
            files,
            mounts,
            network: joined.network_namespace(network),
            pid: joined.pid,
            ipc: joined.ipc,
            log_path: self.tools.log_path(id),
            attachments: waiting,
        };
        // The addresses are on disk before a start is acknowledged; that it
        // runs is known from the supervisor itself.
        // Taken before the launch, or one that ends at once had ended before it began.
        let at = Self::now();
        self.record.begun = Some(at);
        let (saved, running) = tokio::join!(self.save(), prepared.launch(job));
        let running = running?;
        self.step(Event::Started { pid: running.pid(), at });
        saved?;
        Ok(running)
    }

    /// Undoes all that `bring_up` may have done, or the container has used.
    pub(super) async fn take_down(&mut self) {
        let id = self.record.id;
        self.unwatch();
        if let Some(cgroup) = self.admitted.take() {
            self.report("cannot dismiss from the guard", self.tools.probes.guard().dismiss(cgroup));
        }
        self.tools.dns.end(id);
        let detached = self.tools.networks.detach(id, self.netns.take()).await;
        self.report("cannot leave the network", detached);
        self.tools.runtime.cleanup(id).await;
        if std::mem::take(&mut self.mounted) {
            self.tools.unmount(&self.record).await;
        }
        self.forget_endpoints();
    }

    /// What could not be undone now is swept away when the engine starts.
    pub(super) fn report<E: std::error::Error>(&self, what: &'static str, outcome: Result<(), E>) {
        if let Err(error) = outcome {
            let error = crate::error::chain(&error);
            tracing::warn!(container = %self.record.id, error, "{what}");
        }
    }

    async fn connect(&self, joined: &Joined) -> Result<Option<Network>, Error> {
        match joined.network {
            JoinedNetwork::Own => {}
            JoinedNetwork::Host | JoinedNetwork::Of(_) => return Ok(None),
        }
        let record = &self.record;
        let request = AttachRequest {
            container: record.id,
            tenant: record.tenant.clone(),
            endpoints: networking::wanted(record)?,
            ports: super::ports::publish(&record.config, &record.host)?,
        };
        let attached = self.tools.networks.attach(&request).await;
        attached.map(Some).map_err(|error| networking::while_starting(&record.name, error))
    }

    fn note_network(&mut self, network: Option<&Network>) -> Result<(), Error> {
        let Some(network) = network else { return Ok(()) };
        self.record.published.clone_from(&network.ports);
        let netns = network.netns.try_clone();
        self.netns =
            Some(netns.map_err(|error| Error::internal("cannot copy a descriptor", error))?);
        for endpoint in &network.endpoints {
            let record = self.record.endpoints.entry(endpoint.network.clone()).or_default();
            record.network_id = Some(endpoint.network_id);
            record.endpoint = Some(endpoint.clone());
        }
        Ok(())
    }

    /// Tells the guard who is about to run in which control group.
    fn admit(&mut self, prepared: &Prepared) -> Result<(), Error> {
        let cgroup = prepared.cgroup_id();
        let guard = self.tools.probes.guard();
        let refused = |error| Error::internal("cannot put the guard in force", error);
        guard.admit(cgroup, &admission(&self.record)?).map_err(refused)?;
        self.admitted = Some(cgroup);
        for EndpointRecord { endpoint, .. } in self.record.endpoints.values() {
            if let Some(endpoint) = endpoint {
                self.claim(endpoint)?;
            }
        }
        self.watch_if_asked(cgroup);
        Ok(())
    }

    pub(super) fn watch_if_asked(&mut self, cgroup: u64) {
        if !self.record.wants_trace() && !self.tools.trace_all {
            return;
        }
        match self.tools.probes.trace().watch(cgroup) {
            Ok(()) => self.traced = Some(cgroup),
            Err(error) => {
                let error = crate::error::chain(&error);
                tracing::warn!(container = %self.record.id, error, "cannot trace system calls");
            }
        }
    }

    fn unwatch(&mut self) {
        if let Some(cgroup) = self.traced.take() {
            self.report("cannot end its trace", self.tools.probes.trace().unwatch(cgroup));
        }
    }

    /// What `--network`, `--pid` and `--ipc` mean right now.
    fn joined(&self) -> Result<Joined, Error> {
        let host = &self.record.host;
        let network = match host.network_mode.as_str() {
            "host" => JoinedNetwork::Host,
            mode => match mode.strip_prefix("container:") {
                Some(other) => JoinedNetwork::Of(self.pid_of(other, "network")?),
                None => JoinedNetwork::Own,
            },
        };
        let of = |mode: &str, what| {
            mode.strip_prefix("container:").map(|other| self.pid_of(other, what)).transpose()
        };
        let ipc = host.ipc_mode.strip_prefix("container:");
        let ipc = ipc.map(|other| self.ipc_donor(other)).transpose()?;
        Ok(Joined { network, pid: of(&host.pid_mode, "PID")?, ipc })
    }

    /// Who shares its IPC namespace and its /dev/shm, if it lets.
    fn ipc_donor(&self, reference: &str) -> Result<i32, Error> {
        let donor = self.tools.registry.find(&self.record.tenant, reference)?.snapshot();
        let id = donor.record.id;
        let Some(pid) = donor.state.pid() else {
            return Err(Error::Conflict(format!(
                "failed to join IPC namespace: container {id} is not running"
            )));
        };
        let mode = donor.record.host.ipc_mode.as_str();
        if mode == "shareable" || mode.starts_with("container:") {
            return Ok(pid);
        }
        Err(Error::Invalid(format!(
            "failed to join IPC namespace: container {id}: non-shareable IPC (hint: use \
             IpcMode:shareable for the donor container)"
        )))
    }

    fn pid_of(&self, reference: &str, what: &str) -> Result<i32, Error> {
        let other = self.tools.registry.find(&self.record.tenant, reference)?;
        other.snapshot().state.pid().ok_or_else(|| {
            Error::Conflict(format!(
                "cannot join {what} namespace of a non running container: container {} is {}",
                other.snapshot().record.name,
                other.snapshot().state.name()
            ))
        })
    }
}

/// The namespaces of others that a container is to share.
struct Joined {
    network: JoinedNetwork,
    pid: Option<i32>,
    ipc: Option<i32>,
}

#[derive(Clone, Copy)]
enum JoinedNetwork {
    Own,
    Host,
    Of(i32),
}

impl Joined {
    fn network_namespace(&self, network: Option<Network>) -> NetworkNamespace {
        match (self.network, network) {
            (JoinedNetwork::Of(pid), _) => NetworkNamespace::Of(pid),
            (_, Some(network)) => NetworkNamespace::Given(network.netns),
            (JoinedNetwork::Host | JoinedNetwork::Own, None) => NetworkNamespace::Host,
        }
    }
}

/// An endpoint as the guard knows it.
#[must_use]
pub fn interface(endpoint: &Endpoint) -> Interface {
    Interface {
        cable: match endpoint.index {
            None => Cable::Veth(endpoint.host_interface.clone()),
            Some(index) => Cable::Macvlan(index),
        },
        mac: endpoint.mac.0,
        addresses: endpoint.addresses().collect(),
        network: (!endpoint.isolated && endpoint.index.is_none())
            .then(|| endpoint.network_id.number()),
    }
}

/// What the guard lets a container do.
pub fn admission(record: &super::Record) -> Result<Admission, Error> {
    let host = &record.host;
    Ok(Admission {
        container: record.id.hex(),
        name: record.name.clone(),
        image: record.config.image.clone(),
        tenant: record.tenant.to_string(),
        raw_sockets: host.wants_raw_sockets(),
        sysctl_writes: host.privileged,
        unpaced: pacing::is_only_the_hosts(host),
        devices: if host.privileged {
            DevicePolicy::All
        } else {
            DevicePolicy::List(devices(record)?)
        },
    })
}

fn devices(record: &super::Record) -> Result<Vec<Device>, Error> {
    let resolved = runtime::devices(&record.host)?;
    Ok(resolved
        .into_iter()
        .map(|device| Device {
            kind: if device.block { DeviceKind::Block } else { DeviceKind::Character },
            major: device.major,
            minor: device.minor,
            read: device.access.contains('r'),
            write: device.access.contains('w'),
            mknod: device.access.contains('m'),
        })
        .collect())
}
