//! The least that a container can cost on this kernel: clone3 with namespaces,
//! overlayfs, /proc, /dev, /sys, pivot_root, exec, wait. No engine, no limits,
//! no seccomp, no log.

use anyhow::{Context, Result, ensure};
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::wait::{WaitStatus, waitpid},
    unistd::{Pid, chdir, execve, pivot_root},
};
use std::{
    fs,
    os::fd::AsFd,
    path::{Path, PathBuf},
};
use tritium_sys::clone::{NewNamespaces, Side, clone_into};

/// A root file system to run `true` of, and a control group to run it in.
pub(crate) struct Floor {
    lower: PathBuf,
    dir: PathBuf,
    cgroup: PathBuf,
}

impl Floor {
    pub(crate) fn new(dir: &Path, sample: &Path) -> Result<Self> {
        let lower = dir.join("floor-lower");
        fs::create_dir_all(&lower)?;
        let status = std::process::Command::new("tar")
            .arg("-xf")
            .arg(sample)
            .arg("-C")
            .arg(&lower)
            .status()
            .context("cannot run tar")?;
        ensure!(status.success(), "cannot unpack {}", sample.display());
        let unified = Path::new("/sys/fs/cgroup/unified");
        let root = if unified.is_dir() { unified } else { Path::new("/sys/fs/cgroup") };
        let cgroup = root.join(format!("tritium-floor-{}", std::process::id()));
        fs::create_dir(&cgroup).with_context(|| format!("cannot make {}", cgroup.display()))?;
        Ok(Self { lower, dir: dir.to_owned(), cgroup })
    }

    /// One container that runs /bin/true.
    pub(crate) fn run(&self, number: usize, network: bool) -> Result<()> {
        let here = self.dir.join(format!("floor-{number}-{network}"));
        for name in ["upper", "work", "root"] {
            fs::create_dir_all(here.join(name))?;
        }
        let cgroup = fs::File::open(&self.cgroup)?;
        let new = NewNamespaces { mount: true, pid: true, network, ipc: true, uts: true };
        match clone_into(cgroup.as_fd(), new)? {
            Side::Child => {
                let failed = self.become_container(&here).err();
                // Only reached when the exec did not happen: the parent sees
                // how this process ends.
                panic!("the floor's container failed: {failed:?}");
            }
            Side::Parent { pid, .. } => {
                let ended = waitpid(Pid::from_raw(pid), None)?;
                ensure!(matches!(ended, WaitStatus::Exited(_, 0)), "the floor ended {ended:?}");
            }
        }
        fs::remove_dir_all(&here)?;
        Ok(())
    }

    fn become_container(&self, here: &Path) -> Result<()> {
        let none: Option<&str> = None;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
        let options = format!(
            "lowerdir={},upperdir={},workdir={}",
            self.lower.display(),
            here.join("upper").display(),
            here.join("work").display()
        );
        let root = here.join("root");
        mount(Some("overlay"), &root, Some("overlay"), MsFlags::empty(), Some(options.as_str()))?;
        chdir(&root)?;
        mount(Some("proc"), "proc", Some("proc"), MsFlags::empty(), none)?;
        mount(Some("tmpfs"), "dev", Some("tmpfs"), MsFlags::empty(), Some("mode=755"))?;
        mount(Some("sysfs"), "sys", Some("sysfs"), MsFlags::MS_RDONLY, none)?;
        pivot_root(".", ".")?;
        umount2(".", MntFlags::MNT_DETACH)?;
        chdir("/")?;
        execve(c"/bin/true", &[c"true"], &[c"PATH=/bin"])?;
        Ok(())
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        // Empty by now: every container has been waited for.
        drop(fs::remove_dir(&self.cgroup));
    }
}
