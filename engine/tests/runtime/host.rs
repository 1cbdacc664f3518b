//! One runtime of a test's own, and containers for it.

use std::{
    collections::BTreeSet,
    fs,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};
use tempfile::TempDir;
use tokio::io::AsyncReadExt;
use tokio_util::task::TaskTracker;
use tritium_engine::{
    error::Error,
    ids::{self, ContainerId, ExecId},
    runtime::{
        ExecJob, Exit, Files, Job, NetworkNamespace, Overlay, Prepared, Running, Runtime,
        RuntimeConfig, Streams,
    },
    spec::{Config, HostConfig, LogConfig},
};

/// Long enough for a loaded machine; nothing waits this long when all is well.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

static COUNT: AtomicU32 = AtomicU32::new(0);

/// A runtime with its own control groups, directories and busybox.
pub(crate) struct Host {
    pub(crate) runtime: Runtime,
    pub(crate) tracker: TaskTracker,
    pub(crate) cgroup: String,
    pub(crate) dir: TempDir,
    ready: usize,
}

/// Where `make build`, or else cargo, has put the supervisor.
fn supervisor() -> PathBuf {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let built = "target/x86_64-unknown-linux-gnu/supervisor/tritium-supervisor";
    let given = std::env::var_os("TRITIUM_SUPERVISOR").map(PathBuf::from).or_else(|| {
        std::env::var_os("TRITIUM_BIN").map(|dir| Path::new(&dir).join("tritium-supervisor"))
    });
    let path = given.unwrap_or_else(|| workspace.join(built));
    assert!(
        path.exists(),
        "{} is missing: cargo build --profile supervisor -p tritium-supervisor --target \
         x86_64-unknown-linux-gnu",
        path.display()
    );
    path
}

impl Host {
    pub(crate) async fn new() -> Self {
        Self::with_ready(2).await
    }

    pub(crate) async fn with_ready(ready: usize) -> Self {
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let cgroup = format!("tritium-test-{}-{count}", std::process::id());
        let dir = tempfile::tempdir().unwrap();
        let layer = dir.path().join("layers/busybox");
        for folder in ["bin", "etc", "proc", "sys", "dev", "tmp"] {
            fs::create_dir_all(layer.join(folder)).unwrap();
        }
        fs::copy("/bin/busybox", layer.join("bin/busybox")).unwrap();
        for name in ["sh", "true", "sleep", "cat", "echo", "id", "stat", "ls", "head", "stty", "dd"]
        {
            std::os::unix::fs::symlink("busybox", layer.join("bin").join(name)).unwrap();
        }
        fs::write(layer.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\n").unwrap();
        fs::write(layer.join("etc/group"), "root:x:0:\n").unwrap();
        for name in ["hosts", "hostname", "resolv.conf"] {
            fs::write(dir.path().join(name), format!("{name} of the test\n")).unwrap();
        }
        let tracker = TaskTracker::new();
        let runtime = start(&dir, &cgroup, ready, &tracker).await;
        Self { runtime, tracker, cgroup, dir, ready }
    }

    /// Another engine in the place of this one, which just goes.
    pub(crate) async fn restart(&mut self) {
        self.runtime.stop();
        self.tracker.close();
        self.tracker.wait().await;
        self.tracker = TaskTracker::new();
        self.runtime = start(&self.dir, &self.cgroup, self.ready, &self.tracker).await;
    }

    pub(crate) fn job(&self, id: ContainerId, command: &[&str], host: &HostConfig) -> Job {
        self.job_with(id, command, host, Config::default())
    }

    pub(crate) fn job_with(
        &self,
        id: ContainerId,
        command: &[&str],
        host: &HostConfig,
        config: Config,
    ) -> Job {
        let own = self.dir.path().join("containers").join(id.hex());
        for folder in ["upper", "work", "merged"] {
            fs::create_dir_all(own.join(folder)).unwrap();
        }
        let file = |name: &str| self.dir.path().join(name);
        Job {
            id,
            name: "container".into(),
            image: ids::Digest::of([0; 32]),
            args: command.iter().map(|word| (*word).to_owned()).collect(),
            config: Arc::new(Config { hostname: id.short(), ..config }),
            host: Arc::new(host.clone()),
            rootfs: Overlay {
                lower: vec!["busybox".into()],
                layers_dir: self.dir.path().join("layers"),
                upper: own.join("upper"),
                work: own.join("work"),
                target: own.join("merged"),
                readonly: false,
            },
            files: Files {
                hosts: file("hosts"),
                hostname: file("hostname"),
                resolv_conf: file("resolv.conf"),
            },
            mounts: Vec::new(),
            network: NetworkNamespace::Given(network_namespace()),
            pid: None,
            ipc: None,
            log_path: own.join("json.log"),
            attachments: Vec::new(),
        }
    }

    pub(crate) async fn launch(&self, command: &[&str]) -> (ContainerId, Running) {
        let host = quiet();
        let id = new_id();
        let prepared = self.runtime.prepare(id, &host).await.unwrap();
        (id, prepared.launch(self.job(id, command, &host)).await.unwrap())
    }

    /// Runs a command to its end: all output, and the exit.
    pub(crate) async fn run(&self, command: &[&str], host: &HostConfig) -> (String, Exit) {
        self.run_with(command, host, Config::default()).await
    }

    pub(crate) async fn run_with(
        &self,
        command: &[&str],
        host: &HostConfig,
        config: Config,
    ) -> (String, Exit) {
        let id = new_id();
        let prepared = self.runtime.prepare(id, host).await.unwrap();
        let mut job = self.job_with(id, command, host, config);
        let (mut ours, theirs) = pair();
        job.attachments.push((Streams { stdout: true, stderr: true }, theirs));
        let running = prepared.launch(job).await.unwrap();
        let mut bytes = Vec::new();
        ours.read_to_end(&mut bytes).await.unwrap();
        let exit = within(running.exited()).await;
        self.done(id).await;
        (text_of(&bytes), exit)
    }

    pub(crate) async fn refused(&self, prepared: Prepared, job: Job) -> (i32, String) {
        match prepared.launch(job).await {
            Err(Error::NotStarted { code, message }) => (code, message),
            other => panic!("{other:?}"),
        }
    }

    /// What the engine does after an exit.
    pub(crate) async fn done(&self, id: ContainerId) {
        self.runtime.forget_exit(id);
        self.runtime.cleanup(id).await;
    }

    /// Every directory of this runtime in any hierarchy.
    pub(crate) fn groups(&self) -> BTreeSet<PathBuf> {
        let mut found = BTreeSet::new();
        for root in roots() {
            let Ok(entries) = fs::read_dir(root.join(&self.cgroup)) else { continue };
            found.extend(entries.flatten().map(|it| it.path()).filter(|path| path.is_dir()));
        }
        found
    }

    /// Where supervisors live on a version 2 host.
    pub(crate) fn supervisors(&self) -> Option<PathBuf> {
        let name = format!("{}-supervisors", self.cgroup);
        roots().map(|root| root.join(&name)).find(|dir| dir.exists())
    }

    /// Without the parked ones'.
    pub(crate) fn groups_of_containers(&self) -> BTreeSet<PathBuf> {
        let name = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
        self.groups().into_iter().filter(|path| !name(path).starts_with("ready-")).collect()
    }

    pub(crate) async fn settled(&self) {
        wait_for("the control groups to go", || self.groups_of_containers().is_empty()).await;
    }
}

impl Drop for Host {
    /// Takes down what a failed test may have left.
    fn drop(&mut self) {
        self.runtime.stop();
        for _ in 0..200 {
            let groups = self.groups();
            for group in groups.iter().rev() {
                drop(fs::write(group.join("cgroup.kill"), "1"));
                let procs = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
                for pid in procs.lines().filter_map(|pid| pid.parse().ok()) {
                    // Not the runtime's own thread that starts supervisors.
                    if pid != std::process::id().cast_signed() {
                        kill(pid);
                    }
                }
                drop(fs::remove_dir(group));
            }
            if groups.is_empty() {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        // The thread that starts supervisors is in them until it has ended.
        for _ in 0..200 {
            let supervisors = format!("{}-supervisors", self.cgroup);
            let own: Vec<PathBuf> = roots()
                .flat_map(|root| [root.join(&self.cgroup), root.join(&supervisors)])
                .filter(|dir| dir.exists())
                .collect();
            own.iter().for_each(|dir| drop(fs::remove_dir(dir)));
            if own.is_empty() {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Of every hierarchy.
fn roots() -> impl Iterator<Item = PathBuf> {
    let mounted = fs::read_dir("/sys/fs/cgroup").unwrap().flatten().map(|it| it.path());
    mounted.chain([PathBuf::from("/sys/fs/cgroup")])
}

async fn start(dir: &TempDir, cgroup: &str, ready: usize, tracker: &TaskTracker) -> Runtime {
    let config = RuntimeConfig {
        run_dir: dir.path().join("run"),
        cgroup: cgroup.to_owned(),
        supervisor: supervisor(),
        ready,
    };
    Runtime::start(config, tracker.clone()).await.unwrap()
}

pub(crate) fn new_id() -> ContainerId {
    ContainerId::of(ids::random())
}

/// A container that logs nothing.
pub(crate) fn quiet() -> HostConfig {
    let log_config = LogConfig { kind: "none".into(), ..LogConfig::default() };
    HostConfig { log_config, ..HostConfig::default() }
}

pub(crate) fn exec(command: &[&str]) -> ExecJob {
    ExecJob {
        id: ExecId::of(ids::random()),
        args: command.iter().map(|word| (*word).to_owned()).collect(),
        env: Vec::new(),
        cwd: String::new(),
        user: String::new(),
        terminal: false,
        size: None,
        privileged: false,
        stdin: false,
        detached: false,
        host: Arc::new(quiet()),
    }
}

/// A socket for us, and one for the supervisor.
pub(crate) fn pair() -> (tokio::net::UnixStream, OwnedFd) {
    let (ours, theirs) = tokio::net::UnixStream::pair().unwrap();
    let theirs = theirs.into_std().unwrap();
    theirs.set_nonblocking(false).unwrap();
    (ours, theirs.into())
}

/// The text in Docker's frames.
pub(crate) fn text_of(mut frames: &[u8]) -> String {
    let mut text = Vec::new();
    while let [_, 0, 0, 0, a, b, c, d, rest @ ..] = frames {
        let length = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
        text.extend(&rest[..length]);
        frames = &rest[length..];
    }
    assert!(frames.is_empty(), "a broken frame");
    String::from_utf8(text).unwrap()
}

/// A network namespace of nobody: made by a thread that goes.
fn network_namespace() -> OwnedFd {
    std::thread::spawn(|| {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        OwnedFd::from(fs::File::open("/proc/thread-self/ns/net").unwrap())
    })
    .join()
    .unwrap()
}

pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("it takes too long")
}

/// Looks again and again until it is so.
pub(crate) async fn wait_for(what: &str, mut so: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !so() {
        assert!(tokio::time::Instant::now() < deadline, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Kills a process that may have gone already.
pub(crate) fn kill(pid: i32) {
    match nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::SIGKILL) {
        Ok(()) | Err(nix::errno::Errno::ESRCH) => {}
        Err(error) => panic!("cannot kill {pid}: {error}"),
    }
}
