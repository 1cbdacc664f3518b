//! A tritiumd of the measurement's own, in a network namespace of its own.

use anyhow::{Context, Result, bail, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    fs,
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

pub(crate) struct Tritiumd {
    bin: PathBuf,
    dir: PathBuf,
    child: Child,
}

impl Tritiumd {
    pub(crate) fn start(bin: &Path, dir: &Path) -> Result<Self> {
        fs::create_dir_all(dir)?;
        let child = spawn(bin, dir)?;
        let daemon = Self { bin: bin.to_owned(), dir: dir.to_owned(), child };
        daemon.wait_for_answer()?;
        Ok(daemon)
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.join("sock")
    }

    /// Waits until what was removed is really gone, and the disk has all that
    /// was written: who is measured next shall not pay for it.
    pub(crate) fn settle(&self) -> Result<()> {
        let trash = self.dir.join("state/trash");
        let deadline = Instant::now() + Duration::from_secs(60);
        while fs::read_dir(&trash)?.next().is_some() {
            ensure!(Instant::now() < deadline, "{} does not get empty", trash.display());
            std::thread::sleep(Duration::from_millis(10));
        }
        nix::unistd::sync();
        Ok(())
    }

    fn wait_for_answer(&self) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(30);
        while Instant::now() < deadline {
            if ping(&self.socket()).is_ok() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        bail!("tritiumd does not answer; see {}", self.dir.join("log").display())
    }

    /// kill -9, start, and the time until it answers.
    pub(crate) fn crash_and_restart(&mut self) -> Result<Duration> {
        self.child.kill()?;
        self.child.wait()?;
        let since = Instant::now();
        self.child = spawn(&self.bin, &self.dir)?;
        self.wait_for_answer()?;
        Ok(since.elapsed())
    }
}

fn ping(socket: &Path) -> std::io::Result<()> {
    let mut stream = UnixStream::connect(socket)?;
    stream.write_all(b"GET /_ping HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    if answer.ends_with("OK") { Ok(()) } else { Err(std::io::ErrorKind::InvalidData.into()) }
}

fn spawn(bin: &Path, dir: &Path) -> Result<Child> {
    let log = fs::File::options().append(true).create(true).open(dir.join("log"))?;
    let name = name();
    let path = |name: &str| dir.join(name).display().to_string();
    Command::new("unshare")
        .args(["--net", "sh", "-c", "ip link set lo up; exec \"$@\"", "sh"])
        .arg(bin.join("tritiumd"))
        .args(["--socket", &path("sock"), "--state-dir", &path("state"), "--run-dir", &path("run")])
        .args(["--cgroup", &name, "--bridge", &name])
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .context("cannot start tritiumd")
}

/// Of its control groups and its bridge.
fn name() -> String {
    format!("tb{}", std::process::id())
}

impl Drop for Tritiumd {
    fn drop(&mut self) {
        let pid = Pid::from_raw(self.child.id().cast_signed());
        if kill(pid, Signal::SIGTERM).is_ok() {
            drop(self.child.wait());
        }
    }
}
