//! An engine's cgroup with probes on it, and containers that are single processes.

use std::{
    fs,
    os::unix::{fs::MetadataExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
};

use nix::{
    sched::{CloneFlags, CpuSet, sched_setaffinity, unshare},
    unistd::Pid,
};
use tritium_probes::{Admission, DevicePolicy, Probes, ProbesConfig, Rule, Running};

static NEXT: AtomicU32 = AtomicU32::new(0);

/// Everything a test makes; gone when it is dropped.
pub(crate) struct House {
    pub(crate) config: ProbesConfig,
}

impl House {
    pub(crate) fn new() -> Self {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let cgroup = format!("tritium-test-{}-{number}", std::process::id());
        let pin_dir = Path::new("/sys/fs/bpf").join(&cgroup);
        let config = ProbesConfig {
            cgroup_root: cgroup2(),
            cgroup,
            pin_dir,
            running: Vec::new(),
            trace_rows: 256,
        };
        Self { config }
    }

    pub(crate) fn start(&self) -> Probes {
        Probes::start(&self.config).unwrap()
    }

    fn directory(&self) -> PathBuf {
        self.config.cgroup_root.join(&self.config.cgroup)
    }

    /// Makes the cgroup of a container; nobody is admitted.
    pub(crate) fn container(&self, name: &str) -> Container {
        let path = self.directory().join(name);
        fs::create_dir_all(&path).unwrap();
        let id = fs::metadata(&path).unwrap().ino();
        Container { path, id }
    }

    /// The cgroup of a container that may run: where the kernel takes LSM programs, another may not even execute.
    pub(crate) fn admitted(&self, probes: &Probes, name: &str) -> Container {
        let container = self.container(name);
        probes.guard().admit(container.id, &admission("default", name)).unwrap();
        container
    }

    /// The same house as an engine that is started anew would see it.
    pub(crate) fn with_running(&self, running: Vec<Running>) -> ProbesConfig {
        ProbesConfig { running, ..self.config.clone() }
    }
}

impl Drop for House {
    fn drop(&mut self) {
        Probes::remove(&self.config.pin_dir).unwrap();
        // What a failed test left running.
        let kill = self.directory().join("cgroup.kill");
        if kill.exists() {
            fs::write(kill, "1").unwrap();
        }
        remove_tree(&self.directory());
    }
}

/// Removes a cgroup and those below it, once the processes in them have gone.
fn remove_tree(path: &Path) {
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().unwrap().is_dir() {
            remove_tree(&entry.path());
        }
    }
    for _ in 0..1000 {
        if fs::remove_dir(path).is_ok() || !path.exists() {
            return;
        }
        thread::yield_now();
    }
}

pub(crate) struct Container {
    pub(crate) path: PathBuf,
    pub(crate) id: u64,
}

impl Container {
    /// Runs one of `actor`'s acts inside; see there.
    pub(crate) fn act(&self, act: &[&str]) -> String {
        let output = self.command(act).output().unwrap();
        said(&output)
    }

    /// A process that moves into the cgroup before it becomes this test again, as an actor.
    pub(crate) fn command(&self, act: &[&str]) -> Command {
        inside(&self.path, act)
    }
}

/// The command, put into the cgroup by a shell, which needs no unsafe code here.
pub(crate) fn inside(cgroup: &Path, act: &[&str]) -> Command {
    let mut command = Command::new("/bin/sh");
    let script = r#"echo $$ > "$0/cgroup.procs" && exec "$@""#;
    command.arg("-c").arg(script).arg(cgroup).arg(std::env::current_exe().unwrap());
    command.args(["--exact", "actor::acts", "--nocapture", "--test-threads=1"]);
    command.env("TRITIUM_TEST_ACT", act.join("\n")).stdin(Stdio::null());
    command.process_group(0);
    command
}

/// The same act outside any container.
pub(crate) fn outside(act: &[&str]) -> String {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "actor::acts", "--nocapture", "--test-threads=1"]);
    said(&command.env("TRITIUM_TEST_ACT", act.join("\n")).output().unwrap())
}

/// What the actor printed.
pub(crate) fn said(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().find_map(|line| line.split_once("act: "));
    match line {
        Some((_, said)) => said.to_owned(),
        None => panic!("the actor said nothing: {output:?}"),
    }
}

/// How often a rule refused a container something.
pub(crate) fn denied(probes: &Probes, name: &str, rule: Rule) -> u64 {
    let denials = probes.guard().denials().unwrap();
    denials.iter().filter(|d| d.labels.name == name && d.rule == rule).map(|d| d.count).sum()
}

pub(crate) fn admission(tenant: &str, name: &str) -> Admission {
    Admission {
        container: format!("{name:0>64}"),
        name: name.into(),
        image: "test:latest".into(),
        tenant: tenant.into(),
        raw_sockets: false,
        sysctl_writes: false,
        unpaced: false,
        devices: DevicePolicy::List(Vec::new()),
    }
}

/// In a network namespace that a script has furnished; on one CPU, so that frames arrive in the
/// order they are sent in.
pub(crate) fn in_a_namespace(script: &str, test: impl FnOnce() + Send) {
    let enter = || {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        let mut first = CpuSet::new();
        first.set(0).unwrap();
        sched_setaffinity(Pid::from_raw(0), &first).unwrap();
        furnish(script);
        test();
    };
    thread::scope(|scope| scope.spawn(enter).join()).unwrap_or_else(|panic| {
        std::panic::resume_unwind(panic);
    });
}

/// Runs a script in the calling thread's network namespace.
pub(crate) fn furnish(script: &str) {
    // No IPv6 of the kernel's own: it would send what was not asked for.
    let script = format!("sysctl -q net.ipv6.conf.default.disable_ipv6=1\n{script}");
    let done = Command::new("sh").args(["-ec", &script]).status().unwrap();
    assert!(done.success());
}

fn cgroup2() -> PathBuf {
    let mounts = fs::read_to_string("/proc/mounts").unwrap();
    let found = mounts.lines().find_map(|line| {
        let mut words = line.split(' ');
        let (path, kind) = (words.nth(1)?, words.next()?);
        (kind == "cgroup2").then(|| PathBuf::from(path))
    });
    found.expect("a cgroup v2 tree must be mounted")
}
