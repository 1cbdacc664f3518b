//! The fences: which container may do what, told to the kernel in a map write.
//!
//! The programs hang on the engine's parent cgroup and find the container of
//! whoever acts by its ancestor cgroup at the containers' level. A process
//! below the engine's cgroup whose container was never admitted is refused
//! everything the guard guards.

use std::net::IpAddr;

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
    /// Tenant name.
    pub tenant: String,
    /// Container id; empty for processes in no admitted container.
    pub container: String,
    /// Container name.
    pub name: String,
    /// Image reference.
    pub image: String,
    /// The rule.
    pub rule: Rule,
    /// Times refused.
    pub count: u64,
}

/// The guard. Cheap to clone; every method is a few map calls and never waits.
#[derive(Debug, Clone)]
pub struct Guard {}

/// Why a policy could not be told to the kernel.
#[derive(Debug, thiserror::Error)]
pub enum GuardFault {
    /// The kernel refused a map call.
    #[error("cannot {doing}")]
    Map {
        /// What was being done, and to what.
        doing: String,
        /// What the kernel said.
        source: std::io::Error,
    },
}

impl Guard {
    pub(crate) fn off() -> Self {
        Self {}
    }

    /// Lets a container in: to be called before its first instruction, with
    /// the id of its cgroup on the v2 tree. Two map writes.
    ///
    /// # Errors
    /// When the kernel refuses a write, as when 4096 containers are in.
    pub fn admit(&self, cgroup: u64, admission: &Admission) -> Result<(), GuardFault> {
        let _ = (cgroup, admission);
        Ok(())
    }

    /// Forgets a container that is gone. Its denials are kept for ten minutes.
    ///
    /// # Errors
    /// When the kernel refuses; that it was never admitted is no error.
    pub fn dismiss(&self, cgroup: u64) -> Result<(), GuardFault> {
        let _ = cgroup;
        Ok(())
    }

    /// Says that an address is a container's of `tenant`.
    ///
    /// # Errors
    /// When the kernel refuses the write.
    pub fn claim_address(&self, address: IpAddr, tenant: &str) -> Result<(), GuardFault> {
        let _ = (address, tenant);
        Ok(())
    }

    /// Says that an address is nobody's any more.
    ///
    /// # Errors
    /// When the kernel refuses; that it was never claimed is no error.
    pub fn release_address(&self, address: IpAddr) -> Result<(), GuardFault> {
        let _ = address;
        Ok(())
    }

    /// Denies `tenant` the execution of one file (device and inode as `stat`
    /// gives them). In force only where the kernel takes BPF LSM programs.
    ///
    /// # Errors
    /// When the kernel refuses the write.
    pub fn deny_exec(&self, tenant: &str, device: u64, inode: u64) -> Result<(), GuardFault> {
        let _ = (tenant, device, inode);
        Ok(())
    }

    /// Takes [`Guard::deny_exec`] back.
    ///
    /// # Errors
    /// When the kernel refuses; that it was never denied is no error.
    pub fn allow_exec(&self, tenant: &str, device: u64, inode: u64) -> Result<(), GuardFault> {
        let _ = (tenant, device, inode);
        Ok(())
    }

    /// What was refused so far, by container and rule.
    ///
    /// # Errors
    /// When the kernel refuses to read.
    pub fn denials(&self) -> Result<Vec<Denial>, GuardFault> {
        Ok(Vec::new())
    }
}
