//! What a container may do and what it is called, as the kernel's maps hold it.

use sha2::{Digest as _, Sha256};
use tritium_common::{
    guard::{
        ALL_DEVICES, ANY, BLOCK, CHARACTER, DeviceKey, Label, MKNOD, OWN_DEVICES, RAW_SOCKETS,
        READ, SYSCTL_WRITES, UNPACED, WRITE,
    },
    ids::{CgroupId, TenantId},
};

use crate::sample::ContainerLabels;

/// What a container may do and what it is called. Written by [`crate::Guard::admit`].
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
    /// Its TCP connections to other containers are not paced, even if those to elsewhere are.
    pub unpaced: bool,
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

impl Admission {
    /// Those besides Docker's default ones.
    pub(crate) fn own_devices(&self) -> &[Device] {
        match &self.devices {
            DevicePolicy::All => &[],
            DevicePolicy::List(devices) => devices,
        }
    }

    pub(crate) fn flags(&self) -> u64 {
        let all = self.devices == DevicePolicy::All;
        let flags = [
            (self.raw_sockets, RAW_SOCKETS),
            (self.sysctl_writes, SYSCTL_WRITES),
            (self.unpaced, UNPACED),
            (all, ALL_DEVICES),
            (!self.own_devices().is_empty(), OWN_DEVICES),
        ];
        flags.into_iter().filter(|(has, _)| *has).fold(0, |all, (_, flag)| all | flag)
    }

    pub(crate) fn label(&self, tenant_id: TenantId) -> Label {
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
    pub(crate) fn key(&self, cgroup: CgroupId) -> DeviceKey {
        let kind = match self.kind {
            DeviceKind::Block => BLOCK,
            DeviceKind::Character => CHARACTER,
        };
        let (major, minor) = (self.major.unwrap_or(ANY), self.minor.unwrap_or(ANY));
        DeviceKey { cgroup, kind, major, minor, reserved: 0 }
    }

    pub(crate) fn access(&self) -> u32 {
        let bit = |wanted: bool, bit: u32| if wanted { bit } else { 0 };
        bit(self.read, READ) | bit(self.write, WRITE) | bit(self.mknod, MKNOD)
    }
}

/// The tenant's number: see [`TenantId`].
pub(crate) fn tenant_id(name: &str) -> TenantId {
    let digest = Sha256::digest(name.as_bytes());
    let mut first = [0; 8];
    first.copy_from_slice(&digest[..8]);
    TenantId(u64::from_ne_bytes(first))
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

pub(crate) fn read_label(label: &Label) -> ContainerLabels {
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
            unpaced: false,
            devices: DevicePolicy::List(Vec::new()),
        };
        let labels = read_label(&admission.label(tenant_id("default")));
        assert_eq!(
            (labels.id.as_str(), labels.name.as_str()),
            (admission.container.as_str(), "web")
        );
        assert_eq!(labels.image, "é".repeat(96));
    }
}
