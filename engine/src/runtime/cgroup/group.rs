//! One container's directories in every hierarchy.

use super::{Layout, Refused, Setting, Usage, layout, usage, v1, v2};
use crate::spec::HostConfig;
use std::{
    collections::VecDeque,
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::{fd::OwnedFd, unix::fs::MetadataExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

/// How long emptied groups are waited for: the kernel needs some milliseconds
/// after a kill.
const PATIENCE: Duration = Duration::from_secs(10);

/// A name below the engine's directory in every hierarchy.
#[derive(Debug, Clone)]
pub(in super::super) struct Group {
    layout: Arc<Layout>,
    name: String,
}

/// The calling thread is in a group's version 1 directories.
#[derive(Debug)]
#[must_use]
pub(in super::super) struct Inside<'a> {
    group: &'a Group,
}

impl Inside<'_> {
    /// Back to the engine's own directories.
    pub(in super::super) fn leave(self) -> io::Result<()> {
        let hierarchies = &self.group.layout.v1;
        hierarchies.iter().try_for_each(|hierarchy| write(&hierarchy.dir.join("tasks"), "0"))
    }
}

/// Writes a value as one write(2), as the kernel wants it.
pub(super) fn write(path: &Path, value: &str) -> io::Result<()> {
    OpenOptions::new().write(true).open(path)?.write_all(value.as_bytes())
}

impl Group {
    pub(super) fn new(layout: Arc<Layout>, name: String) -> Self {
        Self { layout, name }
    }

    fn v1_dirs(&self) -> impl Iterator<Item = PathBuf> {
        self.layout.v1.iter().map(|hierarchy| hierarchy.dir.join(&self.name))
    }

    fn v1_dir(&self, controller: &str) -> Option<PathBuf> {
        let hierarchy = self.layout.v1.iter().find(|hierarchy| hierarchy.has(controller))?;
        Some(hierarchy.dir.join(&self.name))
    }

    /// The directory on the version 2 tree.
    pub(in super::super) fn v2_dir(&self) -> PathBuf {
        self.layout.v2.join(&self.name)
    }

    /// Makes the version 1 directories and moves the calling thread there:
    /// what it forks is born there. Costs no grace period, for a thread that
    /// moves itself needs no lock against its own exit.
    pub(in super::super) fn enter(&self) -> io::Result<Inside<'_>> {
        let inside = Inside { group: self };
        let entered = self.v1_dirs().try_for_each(|dir| {
            fs::create_dir(&dir)?;
            write(&dir.join("tasks"), "0")
        });
        match entered {
            Ok(()) => Ok(inside),
            Err(error) => {
                inside.leave()?;
                self.try_remove_v1()?;
                Err(error)
            }
        }
    }

    /// Moves a supervisor to where they live on a version 2 host, out of
    /// reach of whoever stops the engine's own group. Waits for the kernel's
    /// RCU grace period.
    pub(in super::super) fn adopt(&self, pid: u32) -> io::Result<()> {
        if self.layout.is_v2() {
            write(&self.layout.supervisors().join("cgroup.procs"), &pid.to_string())?;
        }
        Ok(())
    }

    /// Gives the version 1 directories another name.
    pub(in super::super) fn rename(&self, name: String) -> io::Result<Self> {
        let renamed = Self { layout: self.layout.clone(), name };
        for (from, to) in self.v1_dirs().zip(renamed.v1_dirs()) {
            if let Err(error) = fs::rename(&from, &to) {
                // Back again: half a name would be found by nobody.
                for (from, to) in self.v1_dirs().zip(renamed.v1_dirs()) {
                    drop(fs::rename(to, from));
                }
                return Err(error);
            }
        }
        Ok(renamed)
    }

    /// Makes the directory on the version 2 tree; gives it and its id.
    pub(in super::super) fn make_v2(&self) -> io::Result<u64> {
        let dir = self.v2_dir();
        layout::make(&dir)?;
        self.id()
    }

    /// Whether a directory of it is there.
    pub(in super::super) fn exists(&self) -> bool {
        self.v2_dir().exists()
    }

    /// Removes the version 2 directory if it is empty.
    pub(in super::super) fn try_remove_v2(&self) -> io::Result<()> {
        try_remove(&self.v2_dir()).map(drop)
    }

    /// The inode number of the version 2 directory.
    pub(in super::super) fn id(&self) -> io::Result<u64> {
        fs::metadata(self.v2_dir()).map(|metadata| metadata.ino())
    }

    /// The version 2 directory, for `CLONE_INTO_CGROUP`.
    pub(in super::super) fn open(&self) -> io::Result<OwnedFd> {
        use rustix::fs::{Mode, OFlags};
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(rustix::fs::open(self.v2_dir(), flags, Mode::empty())?)
    }

    /// Where the kernel counts what its OOM killer did here.
    pub(in super::super) fn oom_file(&self) -> Option<PathBuf> {
        if self.layout.is_v2() {
            return Some(self.v2_dir().join("memory.events"));
        }
        self.v1_dir("memory").map(|dir| dir.join("memory.oom_control"))
    }

    /// Whether the kernel's OOM killer has killed here.
    pub(in super::super) fn had_oom(&self) -> io::Result<bool> {
        let Some(file) = self.oom_file() else { return Ok(false) };
        let text = fs::read_to_string(file)?;
        let count = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        Ok(count.is_some_and(|count| count.trim() != "0"))
    }

    /// Writes every limit that is asked for.
    pub(in super::super) fn limit(&self, host: &HostConfig) -> Result<(), Refused> {
        let settings = if self.layout.is_v2() { v2::settings(host) } else { v1::settings(host) };
        let mut left: VecDeque<(Setting, bool)> =
            settings.into_iter().map(|setting| (setting, false)).collect();
        while let Some((setting, again)) = left.pop_front() {
            let dir = if self.layout.is_v2() {
                self.v2_dir()
            } else {
                // A controller that the host does not have: Docker discards it too.
                let Some(dir) = self.v1_dir(setting.controller) else { continue };
                dir
            };
            let path = dir.join(setting.file);
            match write(&path, &setting.value) {
                Ok(()) => {}
                Err(error) if setting.optional && error.kind() == io::ErrorKind::NotFound => {}
                // Memory may not exceed memory and swap at any moment, so
                // which goes first depends on what was there before.
                Err(error) if !again && error.raw_os_error() == Some(nix::libc::EINVAL) => {
                    left.push_back((setting, true));
                }
                Err(why) => {
                    let path = path.display().to_string();
                    return Err(Refused { path, value: setting.value, why });
                }
            }
        }
        Ok(())
    }

    /// What the container has used.
    pub(in super::super) fn usage(&self) -> io::Result<Usage> {
        if self.layout.is_v2() {
            return usage::v2(&self.v2_dir());
        }
        usage::v1(|controller| self.v1_dir(controller))
    }

    /// Every process, also those in groups that the container made itself.
    pub(in super::super) fn processes(&self) -> io::Result<Vec<i32>> {
        let mut pids = Vec::new();
        for dir in with_children(&self.v2_dir())? {
            let text = match fs::read_to_string(dir.join("cgroup.procs")) {
                Ok(text) => text,
                Err(error) if is_gone(&error) => continue,
                Err(error) => return Err(error),
            };
            pids.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()));
        }
        pids.sort_unstable();
        Ok(pids)
    }

    /// Kills every process, whatever it forks meanwhile; no error if there is
    /// no such group.
    pub(in super::super) fn kill(&self) -> io::Result<()> {
        match write(&self.v2_dir().join("cgroup.kill"), "1") {
            Err(error) if is_gone(&error) => Ok(()),
            outcome => outcome,
        }
    }

    /// Stops every process, or lets them go on; returns once it is so.
    pub(in super::super) async fn freeze(&self, frozen: bool) -> io::Result<()> {
        let wish = if frozen { "1" } else { "0" };
        write(&self.v2_dir().join("cgroup.freeze"), wish)?;
        wait(|| Ok((self.event("frozen")? == frozen).then_some(()))).await
    }

    /// Whether it is frozen now.
    pub(in super::super) fn is_frozen(&self) -> bool {
        self.event("frozen").unwrap_or(false)
    }

    fn event(&self, key: &str) -> io::Result<bool> {
        let text = fs::read_to_string(self.v2_dir().join("cgroup.events"))?;
        let value = text.lines().filter_map(|line| line.split_once(' ')).find(|(k, _)| *k == key);
        Ok(value.is_some_and(|(_, value)| value == "1"))
    }

    /// Removes the directories, killing what is left of the container. Where
    /// the supervisor is still at work in the version 1 directories, they lose
    /// the container's name and come back for the caller to remove later.
    pub(in super::super) async fn remove(&self, aside: String) -> io::Result<Option<Self>> {
        let v2 = self.v2_dir();
        if !try_remove(&v2)? {
            self.kill()?;
            wait_to_remove(&v2).await?;
        }
        if self.try_remove_v1()? {
            return Ok(None);
        }
        let aside = Self { layout: self.layout.clone(), name: aside };
        for (from, to) in self.v1_dirs().zip(aside.v1_dirs()) {
            match fs::rename(from, to) {
                Err(error) if !is_gone(&error) => return Err(error),
                _ => {}
            }
        }
        Ok(Some(aside))
    }

    /// Whether every version 1 directory is gone now. Who is in one is in all:
    /// the first that is busy speaks for the rest.
    pub(in super::super) fn try_remove_v1(&self) -> io::Result<bool> {
        for dir in self.v1_dirs() {
            if !try_remove(&dir)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Removes what nobody is to be in any more: kills also in version 1.
    pub(in super::super) async fn raze(&self) -> io::Result<()> {
        self.kill()?;
        wait(|| {
            for dir in self.v1_dirs() {
                for pid in stragglers(&dir)? {
                    // A pid from cgroup.procs: gone between the two is fine.
                    match rustix::process::kill_process(pid, rustix::process::Signal::KILL) {
                        Ok(()) | Err(rustix::io::Errno::SRCH) => {}
                        Err(error) => return Err(error.into()),
                    }
                }
            }
            Ok((try_remove(&self.v2_dir())? & self.try_remove_v1()?).then_some(()))
        })
        .await
    }
}

fn stragglers(dir: &Path) -> io::Result<Vec<rustix::process::Pid>> {
    let mut pids = Vec::new();
    // A thread of the engine visits these directories, see `enter`.
    let me = rustix::process::getpid();
    for dir in with_children(dir)? {
        match fs::read_to_string(dir.join("cgroup.procs")) {
            Ok(text) => pids.extend(
                text.lines()
                    .filter_map(|line| line.parse().ok())
                    .filter_map(rustix::process::Pid::from_raw)
                    .filter(|pid| *pid != me),
            ),
            Err(error) if is_gone(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(pids)
}

fn is_gone(error: &io::Error) -> bool {
    // ENODEV: the directory went while its file was open.
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(nix::libc::ENODEV)
}

/// Removes a directory, and those in it, as soon as nobody is in them.
pub(super) async fn wait_to_remove(dir: &Path) -> io::Result<()> {
    wait(|| Ok(try_remove(dir)?.then_some(()))).await
}

/// Asks again and again, at first every millisecond.
async fn wait<T>(mut ask: impl FnMut() -> io::Result<Option<T>>) -> io::Result<T> {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(answer) = ask()? {
            return Ok(answer);
        }
        if tokio::time::Instant::now() > deadline {
            return Err(io::ErrorKind::TimedOut.into());
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

/// A directory and all below it, outer first; none if there is none.
fn with_children(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut all = vec![dir.to_owned()];
    let mut next = 0;
    while let Some(dir) = all.get(next) {
        next += 1;
        let entries = match fs::read_dir(dir) {
            Ok(entries) => entries,
            Err(error) if is_gone(&error) => continue,
            Err(error) => return Err(error),
        };
        for entry in entries {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                all.push(entry.path());
            }
        }
    }
    Ok(all)
}

/// Removes a directory with all below it; `false`: somebody is still in it.
fn try_remove(dir: &Path) -> io::Result<bool> {
    match fs::remove_dir(dir) {
        Ok(()) => return Ok(true),
        Err(error) if is_gone(&error) => return Ok(true),
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {}
        Err(error) => return Err(error),
    }
    // Two links: no directory is in it, so it is busy with processes.
    match fs::metadata(dir) {
        Ok(metadata) if metadata.nlink() == 2 => return Ok(false),
        Err(error) if is_gone(&error) => return Ok(true),
        Ok(_) => {}
        Err(error) => return Err(error),
    }
    let children = with_children(dir)?;
    for dir in children.iter().rev() {
        match fs::remove_dir(dir) {
            Ok(()) => {}
            Err(error) if is_gone(&error) => {}
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => return Ok(false),
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}
