//! Volumes that are mounts: made for their first running container, taken away
//! with the last one.

use super::{DATA, Entry, NotMounted, StoreError, Volume, Volumes, local};
use crate::ids::{ContainerId, TenantName, VolumeName};
use nix::mount::{MntFlags, MsFlags, umount2};
use std::{
    collections::BTreeSet,
    ffi::OsString,
    io,
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
    sync::Arc,
};

impl Volumes {
    /// Where a container that is about to run finds the volume. What must be
    /// mounted for that is, until [`Volumes::unmount`].
    ///
    /// # Errors
    /// See [`NotMounted`]; then nothing is mounted for this container.
    pub async fn mount(
        &self,
        tenant: &TenantName,
        name: &VolumeName,
        user: ContainerId,
    ) -> Result<PathBuf, NotMounted> {
        let (volumes, key) = (self.clone(), (tenant.clone(), name.clone()));
        self.finish(async move { Ok(volumes.mount_now(key, user).await) }).await?
    }

    async fn mount_now(
        &self,
        key: (TenantName, VolumeName),
        user: ContainerId,
    ) -> Result<PathBuf, NotMounted> {
        let path = self.path(&key.0, &key.1);
        let turn = self.turn(&key).await.ok_or(NotMounted::NoSuch)?;
        let (volume, first) =
            turn.with(|entry| (entry.volume.clone(), entry.mounted_for.is_empty()));
        let Some(mount) = local::mount(&volume.options) else { return Ok(path) };
        if first {
            let target = path.clone();
            let mounted = self.0.store.blocking(move |_| Ok(mount_at(mount, &target))).await?;
            mounted.map_err(NotMounted::Refused)?;
        }
        turn.with(|entry| entry.mounted_for.insert(user));
        Ok(path)
    }

    /// A container does not run any more: what was mounted for it and for
    /// nobody else is unmounted.
    ///
    /// # Errors
    /// The kernel refuses; the next start of the engine tries again.
    pub async fn unmount(
        &self,
        tenant: &TenantName,
        name: &VolumeName,
        user: ContainerId,
    ) -> Result<(), StoreError> {
        let (volumes, key) = (self.clone(), (tenant.clone(), name.clone()));
        self.finish(async move { volumes.unmount_now(key, user).await }).await
    }

    async fn unmount_now(
        &self,
        key: (TenantName, VolumeName),
        user: ContainerId,
    ) -> Result<(), StoreError> {
        let Some(turn) = self.turn(&key).await else { return Ok(()) };
        let last =
            turn.with(|entry| entry.mounted_for.remove(&user) && entry.mounted_for.is_empty());
        if last {
            let path = self.path(&key.0, &key.1);
            self.0.store.blocking(move |_| unmount_below(&path)).await?;
        }
        Ok(())
    }

    /// After a restart: these containers run. What is mounted for none of
    /// them is unmounted.
    ///
    /// # Errors
    /// The kernel's list of mounts cannot be read.
    pub async fn settle(&self, running: &BTreeSet<ContainerId>) -> Result<(), StoreError> {
        let mut idle: Vec<Arc<Volume>> = Vec::new();
        for entry in self.entries().values_mut() {
            let Entry { volume, users, mounted_for, .. } = entry;
            if local::mount(&volume.options).is_some() {
                *mounted_for = users.intersection(running).copied().collect();
                if mounted_for.is_empty() {
                    idle.push(volume.clone());
                }
            }
        }
        let work = move |store: &super::Store| {
            for volume in idle {
                unmount_below(&store.volume_dir(&volume.tenant, &volume.name).join(DATA))?;
            }
            Ok(())
        };
        self.0.store.blocking(work).await
    }
}

/// Mounts it. What is said when the kernel refuses is Docker's.
pub(super) fn mount_at(mut mount: local::Mount, target: &Path) -> Result<(), String> {
    local::resolve(&mut mount)?;
    let refused = |errno: nix::errno::Errno, target: &Path, mount: &local::Mount| {
        let data = if mount.data.is_empty() {
            String::new()
        } else {
            format!(", data: {}", local::shown(&mount.data))
        };
        let flags = match mount.flags.bits() {
            0 => String::new(),
            bits => format!(", flags: {bits:#x}"),
        };
        let reason = errno.desc().to_lowercase();
        format!(
            "error while mounting volume '{}': failed to mount local volume: mount \
             {}:{}{flags}{data}: {reason}",
            target.display(),
            mount.device,
            target.display(),
        )
    };
    let data = Some(mount.data.as_str()).filter(|data| !data.is_empty());
    nix::mount::mount(
        Some(mount.device.as_str()),
        target,
        Some(mount.kind.as_str()),
        mount.flags,
        data,
    )
    .map_err(|errno| refused(errno, target, &mount))?;
    let undone = |errno| {
        // The mount was made for this call alone; the next start tries again.
        umount2(target, MntFlags::MNT_DETACH).ok();
        refused(errno, target, &mount)
    };
    let none = None::<&str>;
    // A bind takes its other flags by a second call only: mount(2).
    if mount.flags.contains(MsFlags::MS_BIND) && !(mount.flags - BIND).is_empty() {
        let again = mount.flags | MsFlags::MS_REMOUNT;
        nix::mount::mount(none, target, none, again, none).map_err(undone)?;
    }
    if !mount.propagation.is_empty() {
        nix::mount::mount(none, target, none, mount.propagation, none).map_err(undone)?;
    }
    Ok(())
}

const BIND: MsFlags = MsFlags::MS_BIND.union(MsFlags::MS_REC);

/// Unmounts everything at `path` and below it, so that nothing is removed
/// through a mount. Blocks.
pub(in crate::storage) fn unmount_below(path: &Path) -> Result<(), StoreError> {
    let list = Path::new("/proc/self/mountinfo");
    let text = std::fs::read(list).map_err(StoreError::io("read", list))?;
    // Mounts are listed in the order of mounting: the last is the innermost.
    for point in text.split(|byte| *byte == b'\n').rev().filter_map(mount_point) {
        if !point.starts_with(path) {
            continue;
        }
        let flags = MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW;
        umount2(&point, flags)
            .map_err(|errno| StoreError::io("unmount", &point)(io::Error::from(errno)))?;
    }
    Ok(())
}

/// The fifth word of a line of proc_pid_mountinfo(5), with its octal escapes.
fn mount_point(line: &[u8]) -> Option<PathBuf> {
    let word = line.split(|byte| *byte == b' ').nth(4)?;
    let mut plain = Vec::with_capacity(word.len());
    let mut rest = word;
    while let Some((&byte, more)) = rest.split_first() {
        let digits = more.get(..3).filter(|_| byte == b'\\');
        let digits = digits.and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(escaped) => {
                plain.push(escaped);
                rest = more.get(3..).unwrap_or_default();
            }
            None => {
                plain.push(byte);
                rest = more;
            }
        }
    }
    Some(OsString::from_vec(plain).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_points_escapes_are_read() {
        let line = br"36 35 98:0 / /a\040b\134c rw,noatime master:1 - ext3 /dev/root rw";
        assert_eq!(mount_point(line), Some(PathBuf::from("/a b\\c")));
        assert_eq!(mount_point(b""), None);
    }
}
