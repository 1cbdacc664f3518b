//! The fences: which container may do what, told to the kernel in a map write.
//!
//! The programs hang on the engine's parent cgroup and find the container of
//! whoever acts by its ancestor cgroup at the containers' level. A process
//! below the engine's cgroup whose container was never admitted is refused
//! everything the guard guards.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
    os::fd::OwnedFd,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use aya::maps::{self, MapData, MapError};
use tritium_common::{
    guard::{Binding, DeviceKey, Entry, ExecKey, Label, OWN_DEVICES, Owner, PeerKey},
    ids::{CgroupId, TenantId},
};

use crate::{
    addresses::Addresses,
    admission::{Admission, read_label, tenant_id},
    denials::Denials,
    load::{GuardObject, Load},
    rule::Rule,
    sample::ContainerLabels,
    traffic::{Counters, PeerTraffic, Uncounted},
    wire::{self, Interface, Wire, WireFault, octets},
};

/// How long the denials and names of a container that is gone are kept.
const REMEMBERED: Duration = Duration::from_secs(600);
/// How long after its end a control group surely counts nothing any more.
const SETTLED: Duration = Duration::from_secs(10);

/// How often a rule refused a container something, since the container was admitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial {
    /// Whose container; all empty for processes in no admitted one.
    pub labels: ContainerLabels,
    /// The rule.
    pub rule: Rule,
    /// Times refused.
    pub count: u64,
}

/// The guard. Cheap to clone; every method but `fence` is a few map calls and never waits.
#[derive(Clone)]
pub struct Guard {
    /// `None` when the probes are off.
    state: Option<Arc<Mutex<State>>>,
    /// `None` where the kernel does not take it.
    wire: Option<Arc<Wire>>,
}

/// The maps, and who is gone but not forgotten.
struct State {
    containers: maps::HashMap<MapData, CgroupId, Entry>,
    labels: maps::HashMap<MapData, CgroupId, Label>,
    addresses: Addresses,
    bindings: maps::HashMap<MapData, u32, Binding>,
    peers: maps::HashMap<MapData, PeerKey, u32>,
    /// How often one of those above has changed, for what the programs remember of them.
    changes: maps::Array<MapData, u64>,
    devices: maps::HashMap<MapData, DeviceKey, u32>,
    exec_denied: maps::HashMap<MapData, ExecKey, u32>,
    denials: Denials,
    counters: Counters,
    /// What `bindings` and `addresses` hold of each container, so that nobody has to search them.
    held: HashMap<CgroupId, Held>,
    gone: HashMap<CgroupId, Instant>,
}

/// A container's keys in the maps.
#[derive(Default)]
struct Held {
    interfaces: HashSet<u32>,
    addresses: HashSet<[u8; 16]>,
}

/// Why a policy could not be told to the kernel.
#[derive(Debug, thiserror::Error)]
pub enum GuardFault {
    /// A map could not be read or written.
    #[error("cannot {doing}")]
    Map {
        /// What was being done, and to what.
        doing: String,
        /// What the kernel said.
        source: Box<MapError>,
    },
    /// Nothing can be bound to a container that is not in.
    #[error("cgroup {0} was never admitted")]
    NotAdmitted(u64),
    /// About one interface.
    #[error(transparent)]
    Wire(#[from] WireFault),
}

impl GuardFault {
    pub(crate) fn while_(doing: impl Into<String>) -> impl FnOnce(MapError) -> Self {
        |source| Self::Map { doing: doing.into(), source: Box::new(source) }
    }
}

impl std::fmt::Debug for Guard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Guard").field("off", &self.state.is_none()).finish()
    }
}

impl Guard {
    pub(crate) fn off() -> Self {
        Self { state: None, wire: None }
    }

    /// Opens the maps; containers whose cgroup is not in `alive` are dismissed.
    pub(crate) fn open(object: &mut GuardObject, alive: &[u64]) -> Result<Self, Load> {
        let mut state = State {
            containers: hash(object, "CONTAINERS")?,
            labels: hash(object, "LABELS")?,
            addresses: Addresses::open(object)?,
            bindings: hash(object, "BINDINGS")?,
            peers: hash(object, "PEERS")?,
            changes: object
                .take("CHANGES")?
                .try_into()
                .map_err(|_other_kind: MapError| Load::Map("CHANGES"))?,
            devices: hash(object, "DEVICES")?,
            exec_denied: hash(object, "EXEC_DENIED")?,
            denials: Denials::open(object)?,
            counters: Counters::open(object)?,
            held: HashMap::new(),
            gone: HashMap::new(),
        };
        state.look_round();
        let now = Instant::now();
        let known: Vec<CgroupId> = state.labels.keys().flatten().collect();
        for cgroup in known {
            if !alive.contains(&cgroup.0) {
                state.gone.insert(cgroup, now);
                // That it is not there is as good.
                drop(state.containers.remove(&cgroup));
                drop(state.release_all(cgroup));
            }
        }
        state.tell_change().map_err(Load::Change)?;
        Ok(Self { state: Some(Arc::new(Mutex::new(state))), wire: None })
    }

    /// With the program that interfaces are fenced with.
    pub(crate) fn with_wire(self, wire: Option<Wire>) -> Self {
        Self { wire: wire.map(Arc::new), ..self }
    }

    /// `None` when the probes are off. A panic elsewhere cannot leave the maps half changed
    /// in a way that matters: each call is one write.
    fn state(&self) -> Option<MutexGuard<'_, State>> {
        self.state.as_ref().map(|state| state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes who is in, or where, and tells the programs that remember how it was: also when it
    /// fails half way.
    fn change(
        &self,
        change: impl FnOnce(&mut State) -> Result<(), GuardFault>,
    ) -> Result<(), GuardFault> {
        let Some(mut state) = self.state() else { return Ok(()) };
        let outcome = change(&mut state);
        state.tell_change().map_err(GuardFault::while_("tell that something has changed"))?;
        outcome
    }

    /// Lets a container in: to be called before its first instruction, with
    /// the id of its cgroup on the v2 tree. Two map writes, and one for each own device.
    ///
    /// # Errors
    /// When the kernel refuses a write, as when 16384 containers are in.
    pub fn admit(&self, cgroup: u64, admission: &Admission) -> Result<(), GuardFault> {
        self.change(|state| {
            let cgroup = CgroupId(cgroup);
            let doing = || GuardFault::while_(format!("admit container {}", admission.container));
            for device in admission.own_devices() {
                let (key, access) = (device.key(cgroup), device.access());
                state.devices.insert(key, access, 0).map_err(doing())?;
            }
            let tenant = tenant_id(&admission.tenant);
            state.labels.insert(cgroup, admission.label(tenant), 0).map_err(doing())?;
            // Last, for this opens the door.
            let entry = Entry { tenant, flags: admission.flags() };
            state.containers.insert(cgroup, entry, 0).map_err(doing())?;
            state.gone.remove(&cgroup);
            Ok(())
        })
    }

    /// Forgets a container that is gone: what still runs in its cgroup is refused
    /// everything. Its denials are kept for ten minutes.
    ///
    /// # Errors
    /// When the kernel refuses; that it was never admitted is no error.
    pub fn dismiss(&self, cgroup: u64) -> Result<(), GuardFault> {
        self.change(|state| {
            let cgroup = CgroupId(cgroup);
            let doing = || GuardFault::while_(format!("dismiss cgroup {}", cgroup.0));
            let entry = match state.containers.get(&cgroup, 0) {
                Ok(entry) => entry,
                Err(MapError::KeyNotFound) => return Ok(()),
                Err(error) => return Err(doing()(error)),
            };
            absent_is_fine(state.containers.remove(&cgroup)).map_err(doing())?;
            state.release_all(cgroup).map_err(doing())?;
            if entry.flags & OWN_DEVICES != 0 {
                let own: Vec<DeviceKey> =
                    state.devices.keys().flatten().filter(|key| key.cgroup == cgroup).collect();
                for key in own {
                    absent_is_fine(state.devices.remove(&key)).map_err(doing())?;
                }
            }
            state.gone.insert(cgroup, Instant::now());
            Ok(())
        })
    }

    /// Puts the wire's program on the host's end of a veth, in the network namespace that the
    /// probes were started in. Until the interface is bound to a container, nothing comes out of
    /// it. Answers when it is in force, after half a millisecond.
    ///
    /// # Errors
    /// When the kernel refuses. Where it takes no such program at all, this does nothing.
    pub fn fence(&self, host_name: &str) -> Result<(), GuardFault> {
        self.wire.as_ref().map_or(Ok(()), |wire| Ok(wire.fence(host_name, None)?))
    }

    /// The same for an interface that has no end on the host: on what leaves by it, inside. Who
    /// has `CAP_NET_ADMIN` there can take it off, and packet sockets with `PACKET_QDISC_BYPASS`
    /// go past it.
    ///
    /// # Errors
    /// As [`Guard::fence`].
    pub fn fence_within(&self, netns: OwnedFd, interface: &str) -> Result<(), GuardFault> {
        self.wire.as_ref().map_or(Ok(()), |wire| Ok(wire.fence(interface, Some(netns))?))
    }

    /// Says which container is at the other end of a fenced interface, and that its addresses
    /// are the container's. To be called after `admit`, in that same network namespace, and again
    /// when the addresses change.
    ///
    /// # Errors
    /// When there is no such interface, or the kernel refuses a write.
    pub fn bind(&self, cgroup: u64, interface: &Interface) -> Result<(), GuardFault> {
        self.change(|state| {
            let cgroup = CgroupId(cgroup);
            let doing =
                || GuardFault::while_(format!("bind {} to cgroup {}", interface.cable, cgroup.0));
            let entry = match state.containers.get(&cgroup, 0) {
                Err(MapError::KeyNotFound) => return Err(GuardFault::NotAdmitted(cgroup.0)),
                got => got.map_err(doing())?,
            };
            let (index, binding) = wire::binding(cgroup, entry.tenant, interface)?;
            let owner = Owner { tenant: entry.tenant, cgroup };
            for address in &interface.addresses {
                let address = octets(*address);
                state.addresses.claim(address, owner).map_err(doing())?;
                state.held.entry(cgroup).or_default().addresses.insert(address);
            }
            state.bindings.insert(index, binding, 0).map_err(doing())?;
            if let Some(peer) = wire::peer(&binding) {
                state.peers.insert(peer, index, 0).map_err(doing())?;
            }
            state.held.entry(cgroup).or_default().interfaces.insert(index);
            Ok(())
        })
    }

    /// Takes `bind` back: nothing comes out of the interface any more. `dismiss` does this for
    /// all of a container's.
    ///
    /// # Errors
    /// When the kernel refuses; that it is gone already is no error.
    pub fn unbind(&self, cgroup: u64, interface: &Interface) -> Result<(), GuardFault> {
        self.change(|state| {
            let cgroup = CgroupId(cgroup);
            let doing =
                || GuardFault::while_(format!("unbind {} of cgroup {}", interface.cable, cgroup.0));
            if let Ok((index, _)) = wire::binding(cgroup, TenantId(0), interface) {
                state.unbind(index, cgroup).map_err(doing())?;
                state.held.entry(cgroup).or_default().interfaces.remove(&index);
            }
            for address in &interface.addresses {
                let address = octets(*address);
                state.addresses.release(cgroup, &address).map_err(doing())?;
                state.held.entry(cgroup).or_default().addresses.remove(&address);
            }
            Ok(())
        })
    }

    /// Says that an address is a container's of `tenant`, whose interface is none of ours to fence.
    ///
    /// # Errors
    /// When the kernel refuses the write.
    pub fn claim_address(&self, address: IpAddr, tenant: &str) -> Result<(), GuardFault> {
        self.change(|state| {
            let doing = GuardFault::while_(format!("claim address {address}"));
            let owner = Owner { tenant: tenant_id(tenant), cgroup: CgroupId(0) };
            state.addresses.claim(octets(address), owner).map_err(doing)
        })
    }

    /// Takes `claim_address` back.
    ///
    /// # Errors
    /// When the kernel refuses; that it was never claimed is no error.
    pub fn release_address(&self, address: IpAddr) -> Result<(), GuardFault> {
        self.change(|state| {
            let doing = GuardFault::while_(format!("release address {address}"));
            state.addresses.release(CgroupId(0), &octets(address)).map_err(doing)
        })
    }

    /// Denies `tenant` the execution of one file (device and inode as `stat`
    /// gives them). In force only where the kernel takes BPF LSM programs.
    ///
    /// # Errors
    /// When the kernel refuses the write.
    pub fn deny_exec(&self, tenant: &str, device: u64, inode: u64) -> Result<(), GuardFault> {
        let Some(mut state) = self.state() else { return Ok(()) };
        let doing =
            GuardFault::while_(format!("deny tenant {tenant} the execution of inode {inode}"));
        state.exec_denied.insert(exec_key(tenant, device, inode), 1, 0).map_err(doing)
    }

    /// Takes [`Guard::deny_exec`] back.
    ///
    /// # Errors
    /// When the kernel refuses; that it was never denied is no error.
    pub fn allow_exec(&self, tenant: &str, device: u64, inode: u64) -> Result<(), GuardFault> {
        let Some(mut state) = self.state() else { return Ok(()) };
        let doing =
            GuardFault::while_(format!("allow tenant {tenant} the execution of inode {inode}"));
        absent_is_fine(state.exec_denied.remove(&exec_key(tenant, device, inode))).map_err(doing)
    }

    /// What was refused so far, by container and rule; also to containers gone
    /// within the last ten minutes.
    ///
    /// # Errors
    /// When the kernel refuses to read.
    pub fn denials(&self) -> Result<Vec<Denial>, GuardFault> {
        let Some(state) = self.state() else { return Ok(Vec::new()) };
        let all = state.denials.all(|cgroup| state.labels_of(cgroup));
        all.map_err(GuardFault::while_("read the denials"))
    }

    /// What containers have exchanged with each other and the outside, by container and peer;
    /// also those gone within the last ten minutes. And what could not be counted.
    ///
    /// # Errors
    /// When the kernel refuses to read.
    pub fn traffic(&self) -> Result<(Vec<PeerTraffic>, Uncounted), GuardFault> {
        let Some(state) = self.state() else { return Ok((Vec::new(), Uncounted::default())) };
        let failed = || GuardFault::while_("read the traffic");
        let all = state.counters.all(|cgroup| state.labels_of(cgroup)).map_err(failed())?;
        Ok((all, state.counters.uncounted().map_err(failed())?))
    }

    /// Names of a container that is, or lately was; empty ones for a cgroup that never was admitted.
    pub(crate) fn labels(&self, cgroup: u64) -> ContainerLabels {
        self.state().map_or_else(ContainerLabels::nobody, |state| state.labels_of(CgroupId(cgroup)))
    }

    /// Forgets the containers that have been gone for long. `Probes::run` does this now and then.
    pub fn sweep(&self, now: Instant) {
        if let Some(mut state) = self.state() {
            state.forget_gone(now);
        }
    }
}

impl State {
    fn labels_of(&self, cgroup: CgroupId) -> ContainerLabels {
        self.labels
            .get(&cgroup, 0)
            .map_or_else(|_unknown| ContainerLabels::nobody(), |label| read_label(&label))
    }

    /// What programs remember of the maps from before is old.
    fn tell_change(&mut self) -> Result<(), MapError> {
        let changes = self.changes.get(&0, 0)?;
        self.changes.set(0, changes + 1, 0)
    }

    /// Finds what an earlier engine wrote.
    fn look_round(&mut self) {
        for (index, binding) in self.bindings.iter().flatten() {
            self.held.entry(binding.cgroup).or_default().interfaces.insert(index);
        }
        for (address, cgroup) in self.addresses.all() {
            self.held.entry(cgroup).or_default().addresses.insert(address);
        }
    }

    /// Takes an interface back, unless it is another container's by now.
    fn unbind(&mut self, index: u32, cgroup: CgroupId) -> Result<(), MapError> {
        let binding = match self.bindings.get(&index, 0) {
            Ok(binding) if binding.cgroup == cgroup => binding,
            Ok(_) | Err(MapError::KeyNotFound) => return Ok(()),
            Err(error) => return Err(error),
        };
        if let Some(peer) = wire::peer(&binding)
            && self.peers.get(&peer, 0).is_ok_and(|at| at == index)
        {
            absent_is_fine(self.peers.remove(&peer))?;
        }
        absent_is_fine(self.bindings.remove(&index))
    }

    /// Takes back every interface and address of a container.
    fn release_all(&mut self, cgroup: CgroupId) -> Result<(), MapError> {
        let Some(held) = self.held.remove(&cgroup) else { return Ok(()) };
        for index in held.interfaces {
            self.unbind(index, cgroup)?;
        }
        for address in held.addresses {
            self.addresses.release(cgroup, &address)?;
        }
        Ok(())
    }

    /// Those whose container was started anew keep their denials, so that the sums never shrink
    /// while it lives: put together, so that they take no more room the longer it is restarted.
    fn forget_gone(&mut self, now: Instant) {
        let since = |least: Duration| {
            let gone = self.gone.iter();
            let long = gone.filter(move |(_, at)| now.saturating_duration_since(**at) >= least);
            long.map(|(cgroup, _)| *cgroup).collect::<HashSet<_>>()
        };
        let (settled, old) = (since(SETTLED), since(REMEMBERED));
        if settled.is_empty() {
            return;
        }
        let settled = settled.into_iter().map(|cgroup| (cgroup, self.labels_of(cgroup))).collect();
        let counted = self.denials.fold(&settled);
        if old.is_empty() {
            return;
        }
        let alive = self.containers.keys().flatten();
        let alive: HashSet<String> = alive.map(|it: CgroupId| self.labels_of(it).id).collect();
        let names: HashMap<CgroupId, ContainerLabels> =
            self.labels.keys().flatten().map(|it: CgroupId| (it, self.labels_of(it))).collect();
        let named = |it| names.get(&it).cloned().unwrap_or_else(ContainerLabels::nobody);
        // Nothing is lost when this fails: the next sweep does it.
        drop(self.counters.forget(&old, &alive, named));
        let lives = |cgroup: &CgroupId| {
            settled.get(cgroup).is_some_and(|labels: &ContainerLabels| alive.contains(&labels.id))
        };
        let over = old.into_iter().filter(|it| !(counted.contains(it) && lives(it)));
        let over: HashSet<CgroupId> = over.collect();
        self.denials.forget(&over);
        for cgroup in over {
            self.gone.remove(&cgroup);
            // Nothing is lost when this fails: the map is bounded and the entry harmless.
            drop(self.labels.remove(&cgroup));
        }
    }
}

pub(crate) fn hash<K: aya::Pod, V: aya::Pod>(
    object: &mut GuardObject,
    name: &'static str,
) -> Result<maps::HashMap<MapData, K, V>, Load> {
    object.take(name)?.try_into().map_err(|_other_kind: MapError| Load::Map(name))
}

pub(crate) fn absent_is_fine(result: Result<(), MapError>) -> Result<(), MapError> {
    match result {
        Err(MapError::KeyNotFound) => Ok(()),
        // Removing an absent key is reported as the system call's ENOENT.
        Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(2) => Ok(()),
        other => other,
    }
}

fn exec_key(tenant: &str, device: u64, inode: u64) -> ExecKey {
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    ExecKey { tenant: tenant_id(tenant), inode, device: u64::from(major) << 20 | u64::from(minor) }
}
