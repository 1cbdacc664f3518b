//! The fences: which container may do what, told to the kernel in a map write.
//!
//! The programs hang on the engine's parent cgroup and find the container of
//! whoever acts by its ancestor cgroup at the containers' level. A process
//! below the engine's cgroup whose container was never admitted is refused
//! everything the guard guards.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use aya::maps::{self, MapData, MapError};
use sha2::{Digest as _, Sha256};
use tritium_common::{
    guard::{
        ALL_DEVICES, ANY, BLOCK, CHARACTER, DenialCount, DenialKey, DeviceKey, Entry, ExecKey,
        Label, MKNOD, OWN_DEVICES, RAW_SOCKETS, READ, SYSCTL_WRITES, WRITE, rule,
    },
    ids::{CgroupId, TenantId},
};

use crate::{
    load::{GuardObject, Load},
    sample::ContainerLabels,
};

/// How long the denials and names of a container that is gone are kept.
const REMEMBERED: Duration = Duration::from_secs(600);

/// What a container may do and what it is called. Written by [`Guard::admit`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admission {
    /// Container id, 64 hex digits.
    pub container: String,
    /// Container name without the slash.
    pub name: String,
    /// Image reference as the user gave it.
    pub image: String,
    /// Tenant name.
    pub tenant: String,
    /// May open raw and packet sockets: `NET_RAW` was asked for by name, or privileged.
    pub raw_sockets: bool,
    /// May write sysctls: privileged only.
    pub sysctl_writes: bool,
    /// Devices it may use besides Docker's default ones.
    pub devices: DevicePolicy,
}

/// Which device files may be opened or made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DevicePolicy {
    /// Every device: a privileged container.
    All,
    /// Docker's default devices and these.
    List(Vec<Device>),
}

/// One line of a device allow-list, as `c 10:200 rwm`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Device {
    /// Block or character device.
    pub kind: DeviceKind,
    /// Major number; `None` for any.
    pub major: Option<u32>,
    /// Minor number; `None` for any.
    pub minor: Option<u32>,
    /// May be read.
    pub read: bool,
    /// May be written.
    pub write: bool,
    /// May be made with mknod.
    pub mknod: bool,
}

/// Kind of a device file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceKind {
    /// `b`
    Block,
    /// `c`
    Character,
}

/// What the guard refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Rule {
    /// connect or sendto towards another tenant's address.
    Connect,
    /// A packet to or from another tenant's address that got round the first rule.
    Packet,
    /// A raw or packet socket.
    RawSocket,
    /// A device outside the allow-list.
    Device,
    /// A write to a sysctl.
    Sysctl,
    /// exec of a denied file, or of one that has no name any more (memfd).
    Exec,
    /// ptrace towards another container or the host.
    Ptrace,
}

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

/// The guard. Cheap to clone; every method is a few map calls and never waits.
#[derive(Clone)]
pub struct Guard {
    /// `None` when the probes are off.
    state: Option<Arc<Mutex<State>>>,
}

/// The maps, and who is gone but not forgotten.
struct State {
    containers: maps::HashMap<MapData, CgroupId, Entry>,
    labels: maps::HashMap<MapData, CgroupId, Label>,
    addresses: maps::HashMap<MapData, [u8; 16], TenantId>,
    devices: maps::HashMap<MapData, DeviceKey, u32>,
    exec_denied: maps::HashMap<MapData, ExecKey, u32>,
    denials: maps::HashMap<MapData, DenialKey, DenialCount>,
    gone: HashMap<CgroupId, Instant>,
}

/// Why a policy could not be told to the kernel.
#[derive(Debug, thiserror::Error)]
#[error("cannot {doing}")]
pub struct GuardFault {
    /// What was being done, and to what.
    doing: String,
    /// What the kernel said.
    source: Box<MapError>,
}

impl GuardFault {
    fn while_(doing: impl Into<String>) -> impl FnOnce(MapError) -> Self {
        |source| Self { doing: doing.into(), source: Box::new(source) }
    }
}

impl std::fmt::Debug for Guard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Guard").field("off", &self.state.is_none()).finish()
    }
}

impl Guard {
    pub(crate) fn off() -> Self {
        Self { state: None }
    }

    /// Opens the maps; containers whose cgroup is not in `alive` are dismissed.
    pub(crate) fn open(object: &mut GuardObject, alive: &[u64]) -> Result<Self, Load> {
        let mut state = State {
            containers: hash(object, "CONTAINERS")?,
            labels: hash(object, "LABELS")?,
            addresses: hash(object, "ADDRESSES")?,
            devices: hash(object, "DEVICES")?,
            exec_denied: hash(object, "EXEC_DENIED")?,
            denials: hash(object, "DENIALS")?,
            gone: HashMap::new(),
        };
        let now = Instant::now();
        let known: Vec<CgroupId> = state.labels.keys().flatten().collect();
        for cgroup in known {
            if !alive.contains(&cgroup.0) {
                state.gone.insert(cgroup, now);
                // That it is not there is as good.
                drop(state.containers.remove(&cgroup));
            }
        }
        Ok(Self { state: Some(Arc::new(Mutex::new(state))) })
    }

    /// `None` when the probes are off. A panic elsewhere cannot leave the maps half changed
    /// in a way that matters: each call is one write.
    fn state(&self) -> Option<MutexGuard<'_, State>> {
        self.state.as_ref().map(|state| state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Lets a container in: to be called before its first instruction, with
    /// the id of its cgroup on the v2 tree. Two map writes, and one for each own device.
    ///
    /// # Errors
    /// When the kernel refuses a write, as when 16384 containers are in.
    pub fn admit(&self, cgroup: u64, admission: &Admission) -> Result<(), GuardFault> {
        let Some(mut state) = self.state() else { return Ok(()) };
        let cgroup = CgroupId(cgroup);
        let doing = || GuardFault::while_(format!("admit container {}", admission.container));
        let mut flags = 0;
        if admission.raw_sockets {
            flags |= RAW_SOCKETS;
        }
        if admission.sysctl_writes {
            flags |= SYSCTL_WRITES;
        }
        match &admission.devices {
            DevicePolicy::All => flags |= ALL_DEVICES,
            DevicePolicy::List(devices) => {
                for device in devices {
                    flags |= OWN_DEVICES;
                    state.devices.insert(device.key(cgroup), device.access(), 0).map_err(doing())?;
                }
            }
        }
        let tenant = tenant_id(&admission.tenant);
        state.labels.insert(cgroup, admission.label(tenant), 0).map_err(doing())?;
        // Last, for this opens the door.
        state.containers.insert(cgroup, Entry { tenant, flags }, 0).map_err(doing())?;
        state.gone.remove(&cgroup);
        Ok(())
    }

    /// Forgets a container that is gone: what still runs in its cgroup is refused
    /// everything. Its denials are kept for ten minutes.
    ///
    /// # Errors
    /// When the kernel refuses; that it was never admitted is no error.
    pub fn dismiss(&self, cgroup: u64) -> Result<(), GuardFault> {
        let Some(mut state) = self.state() else { return Ok(()) };
        let cgroup = CgroupId(cgroup);
        let doing = || GuardFault::while_(format!("dismiss cgroup {}", cgroup.0));
        let entry = match state.containers.get(&cgroup, 0) {
            Ok(entry) => entry,
            Err(MapError::KeyNotFound) => return Ok(()),
            Err(error) => return Err(doing()(error)),
        };
        absent_is_fine(state.containers.remove(&cgroup)).map_err(doing())?;
        if entry.flags & OWN_DEVICES != 0 {
            let own: Vec<DeviceKey> =
                state.devices.keys().flatten().filter(|key| key.cgroup == cgroup).collect();
            for key in own {
                absent_is_fine(state.devices.remove(&key)).map_err(doing())?;
            }
        }
        state.gone.insert(cgroup, Instant::now());
        Ok(())
    }

    /// Says that an address is a container's of `tenant`.
    ///
    /// # Errors
    /// When the kernel refuses the write.
    pub fn claim_address(&self, address: IpAddr, tenant: &str) -> Result<(), GuardFault> {
        let Some(mut state) = self.state() else { return Ok(()) };
        let doing = GuardFault::while_(format!("claim address {address}"));
        state.addresses.insert(octets(address), tenant_id(tenant), 0).map_err(doing)
    }

    /// Says that an address is nobody's any more.
    ///
    /// # Errors
    /// When the kernel refuses; that it was never claimed is no error.
    pub fn release_address(&self, address: IpAddr) -> Result<(), GuardFault> {
        let Some(mut state) = self.state() else { return Ok(()) };
        let doing = GuardFault::while_(format!("release address {address}"));
        absent_is_fine(state.addresses.remove(&octets(address))).map_err(doing)
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
        let mut sums: HashMap<(ContainerLabels, Rule), u64> = HashMap::new();
        for entry in state.denials.iter() {
            let (key, value) = entry.map_err(GuardFault::while_("read the denials"))?;
            // A rule without a name is of a newer build, whose engine will tell it.
            let Some(rule) = Rule::of_number(key.rule) else { continue };
            // A restarted container has a new cgroup and the same name: one series.
            *sums.entry((state.labels_of(key.cgroup), rule)).or_default() += value.count;
        }
        let mut denials: Vec<Denial> = sums
            .into_iter()
            .map(|((labels, rule), count)| Denial { labels, rule, count })
            .collect();
        denials.sort_by(|a, b| {
            (&a.labels.tenant, &a.labels.name, a.rule).cmp(&(
                &b.labels.tenant,
                &b.labels.name,
                b.rule,
            ))
        });
        Ok(denials)
    }

    /// Names of a container that is, or lately was; empty ones for a cgroup that never was admitted.
    pub(crate) fn labels(&self, cgroup: u64) -> ContainerLabels {
        self.state().map_or_else(ContainerLabels::nobody, |state| state.labels_of(CgroupId(cgroup)))
    }

    /// Forgets the containers that have been gone for long.
    pub(crate) fn sweep(&self, now: Instant) {
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

    /// Those whose container was started anew keep their denials, so that the sums never shrink while it lives.
    fn forget_gone(&mut self, now: Instant) {
        let old: Vec<CgroupId> = self
            .gone
            .iter()
            .filter(|(_, since)| now.saturating_duration_since(**since) >= REMEMBERED)
            .map(|(cgroup, _)| *cgroup)
            .collect();
        if old.is_empty() {
            return;
        }
        let alive: Vec<String> = self
            .containers
            .keys()
            .flatten()
            .map(|cgroup: CgroupId| self.labels_of(cgroup).id)
            .collect();
        for cgroup in old {
            if alive.contains(&self.labels_of(cgroup).id) {
                continue;
            }
            self.gone.remove(&cgroup);
            // Nothing is lost when these fail: the maps are bounded and the entries harmless.
            drop(self.labels.remove(&cgroup));
            let keys: Vec<DenialKey> =
                self.denials.keys().flatten().filter(|key| key.cgroup == cgroup).collect();
            for key in keys {
                drop(self.denials.remove(&key));
            }
        }
    }
}

impl Admission {
    fn label(&self, tenant_id: TenantId) -> Label {
        Label {
            tenant_id,
            container: cut(&self.container),
            name: cut(&self.name),
            image: cut(&self.image),
            tenant: cut(&self.tenant),
        }
    }
}

impl Device {
    fn key(&self, cgroup: CgroupId) -> DeviceKey {
        let kind = match self.kind {
            DeviceKind::Block => BLOCK,
            DeviceKind::Character => CHARACTER,
        };
        let (major, minor) = (self.major.unwrap_or(ANY), self.minor.unwrap_or(ANY));
        DeviceKey { cgroup, kind, major, minor, reserved: 0 }
    }

    fn access(&self) -> u32 {
        let bit = |wanted: bool, bit: u32| if wanted { bit } else { 0 };
        bit(self.read, READ) | bit(self.write, WRITE) | bit(self.mknod, MKNOD)
    }
}

impl Rule {
    /// Every rule.
    pub const ALL: [Self; 7] = [
        Self::Connect,
        Self::Packet,
        Self::RawSocket,
        Self::Device,
        Self::Sysctl,
        Self::Exec,
        Self::Ptrace,
    ];

    /// Its name in logs and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Packet => "packet",
            Self::RawSocket => "raw-socket",
            Self::Device => "device",
            Self::Sysctl => "sysctl",
            Self::Exec => "exec",
            Self::Ptrace => "ptrace",
        }
    }

    pub(crate) fn of_number(number: u32) -> Option<Self> {
        match number {
            rule::CONNECT => Some(Self::Connect),
            rule::PACKET => Some(Self::Packet),
            rule::RAW_SOCKET => Some(Self::RawSocket),
            rule::DEVICE => Some(Self::Device),
            rule::SYSCTL => Some(Self::Sysctl),
            rule::EXEC => Some(Self::Exec),
            rule::PTRACE => Some(Self::Ptrace),
            _ => None,
        }
    }
}

fn hash<K: aya::Pod, V: aya::Pod>(
    object: &mut GuardObject,
    name: &'static str,
) -> Result<maps::HashMap<MapData, K, V>, Load> {
    object.take(name)?.try_into().map_err(|_other_kind: MapError| Load::Map(name))
}

fn absent_is_fine(result: Result<(), MapError>) -> Result<(), MapError> {
    match result {
        Err(MapError::KeyNotFound) => Ok(()),
        // Removing an absent key is reported as the system call's ENOENT.
        Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(2) => Ok(()),
        other => other,
    }
}

/// The tenant's number: see [`TenantId`].
fn tenant_id(name: &str) -> TenantId {
    let digest = Sha256::digest(name.as_bytes());
    let mut first = [0; 8];
    first.copy_from_slice(&digest[..8]);
    TenantId(u64::from_ne_bytes(first))
}

fn exec_key(tenant: &str, device: u64, inode: u64) -> ExecKey {
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    ExecKey { tenant: tenant_id(tenant), inode, device: u64::from(major) << 20 | u64::from(minor) }
}

/// An address as the kernel side knows it: IPv4 ones as ::ffff:a.b.c.d.
fn octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// As much of a text as fits, cut between characters; the rest is zeros.
fn cut<const N: usize>(text: &str) -> [u8; N] {
    let mut end = text.len().min(N);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let mut bytes = [0; N];
    bytes[..end].copy_from_slice(&text.as_bytes()[..end]);
    bytes
}

fn read_label(label: &Label) -> ContainerLabels {
    let text = |bytes: &[u8]| {
        let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
        String::from_utf8_lossy(&bytes[..end]).into_owned()
    };
    ContainerLabels {
        id: text(&label.container),
        name: text(&label.name),
        image: text(&label.image),
        tenant: text(&label.tenant),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back_as_they_went_in_and_long_ones_are_cut_between_characters() {
        let admission = Admission {
            container: "ab".repeat(32),
            name: "web".into(),
            image: "é".repeat(100),
            tenant: "default".into(),
            raw_sockets: false,
            sysctl_writes: false,
            devices: DevicePolicy::List(Vec::new()),
        };
        let labels = read_label(&admission.label(tenant_id("default")));
        assert_eq!(
            (labels.id.as_str(), labels.name.as_str()),
            (admission.container.as_str(), "web")
        );
        assert_eq!(labels.image, "é".repeat(96));
    }

    #[test]
    fn every_rule_has_its_number_and_a_name_of_its_own() {
        let named: Vec<Rule> = (0..100).filter_map(Rule::of_number).collect();
        assert_eq!(named, Rule::ALL);
        let names: std::collections::HashSet<_> = Rule::ALL.map(Rule::name).into();
        assert_eq!(names.len(), Rule::ALL.len());
    }

    #[test]
    fn an_ipv4_address_is_the_same_key_in_both_families() {
        let v4: IpAddr = "10.1.2.3".parse().unwrap();
        let v6: IpAddr = "::ffff:10.1.2.3".parse().unwrap();
        assert_eq!(octets(v4), octets(v6));
    }
}
