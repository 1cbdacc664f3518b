//! An engine of the test's own, and the real docker CLI pointed at it.
//!
//! It runs in a network namespace of its own, with its own directories,
//! control group and bridge, so that tests run side by side and the machine's
//! network is left alone. When it is dropped, nothing of it may be left.

use std::{
    fs,
    io::Write,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A running tritiumd.
pub(crate) struct Engine {
    pub(crate) dir: PathBuf,
    pub(crate) name: String,
    options: Vec<String>,
    daemon: Child,
}

/// What a command said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
    /// `out` before it was made text.
    pub(crate) raw: Vec<u8>,
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self {
            code: output.status.code().unwrap_or(-1),
            out: text(&output.stdout),
            err: text(&output.stderr),
            raw: output.stdout,
        }
    }
}

fn program(name: &str, variable: &str) -> PathBuf {
    if let Some(path) = std::env::var_os(variable) {
        return path.into();
    }
    let beside = Path::new(env!("CARGO_BIN_EXE_tritiumd")).with_file_name(name);
    // `make build` puts a static supervisor there; cargo's own is not.
    beside.parent().unwrap().with_file_name("bin").join(name)
}

fn docker_cli() -> PathBuf {
    std::env::var_os("TRITIUM_DOCKER").map_or_else(|| "docker".into(), PathBuf::from)
}

/// A directory and a name that no other engine has.
fn place() -> (PathBuf, String) {
    let name = format!("tt{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    // Where overlayfs may stand on: not on a tmpfs of little memory.
    let base = std::env::var_os("TRITIUM_TEST_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    let dir = base.join(&name);
    fs::create_dir_all(&dir).unwrap();
    (dir, name)
}

fn start(dir: &Path, name: &str, options: &[String]) -> Child {
    let log = fs::File::options().append(true).create(true).open(dir.join("log")).unwrap();
    Command::new("unshare")
        .args(["--net", "sh", "-c", "ip link set lo up; exec \"$@\"", "sh"])
        .arg(env!("CARGO_BIN_EXE_tritiumd"))
        .arg("--socket")
        .arg(dir.join("sock"))
        .arg("--state-dir")
        .arg(dir.join("state"))
        .arg("--run-dir")
        .arg(dir.join("run"))
        .arg("--supervisor")
        .arg(program("tritium-supervisor", "TRITIUM_SUPERVISOR"))
        .args(["--cgroup", name, "--bridge", name, "--ready", "1"])
        .args(options)
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap()
}

impl Engine {
    /// Starts one, with the sample image as `busybox`.
    pub(crate) fn start() -> Self {
        Self::with(&[])
    }

    pub(crate) fn with(options: &[&str]) -> Self {
        let engine = Self::bare(options);
        let sample = std::env::var_os("TRITIUM_SAMPLE").map_or_else(
            || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/sample.tar"),
            PathBuf::from,
        );
        let sample = sample.to_str().unwrap();
        engine.ok(&["import", "-c", "CMD [\"sh\"]", sample, "busybox"]);
        engine
    }

    /// Without any image.
    pub(crate) fn bare(options: &[&str]) -> Self {
        let (dir, name) = place();
        let options: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
        let daemon = start(&dir, &name, &options);
        let engine = Self { dir, name, options, daemon };
        engine.wait_until_it_answers();
        engine
    }

    /// One that ends by itself: what it said. Nothing of it may be left, either.
    pub(crate) fn that_fails(options: &[&str]) -> String {
        let (dir, name) = place();
        let options: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
        let ended = start(&dir, &name, &options).wait().unwrap();
        let log = fs::read_to_string(dir.join("log")).unwrap();
        assert!(!ended.success(), "{log}");
        let left = left_in_the_kernel(&name);
        assert!(left.is_empty(), "left behind: {left:?}\n{log}");
        drop(fs::remove_dir_all(&dir));
        log
    }

    /// Not only takes connections: the socket of an engine that was killed
    /// does that too, until the last child that it was making is gone.
    fn wait_until_it_answers(&self) {
        wait_for("the engine to answer", || self.pings().is_ok_and(|answered| answered));
    }

    fn pings(&self) -> std::io::Result<bool> {
        use std::io::Read;
        let mut stream = UnixStream::connect(self.socket())?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        stream.write_all(b"GET /_ping HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer.ends_with("OK"))
    }

    /// kill -9, and another engine in its place (in another network namespace:
    /// for containers that need none of it).
    pub(crate) fn crash_and_restart(&mut self) {
        self.daemon.kill().unwrap();
        self.daemon.wait().unwrap();
        self.daemon = start(&self.dir, &self.name, &self.options);
        self.wait_until_it_answers();
    }

    pub(crate) fn pid(&self) -> u32 {
        self.daemon.id()
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.join("sock")
    }

    /// The docker CLI, pointed at the operator's socket.
    pub(crate) fn docker(&self, arguments: &[&str]) -> Command {
        self.docker_at(&self.socket(), arguments)
    }

    /// The docker CLI, pointed at any socket of this engine.
    pub(crate) fn docker_at(&self, socket: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(docker_cli());
        command
            .args(arguments)
            .env("DOCKER_HOST", format!("unix://{}", socket.display()))
            .env("DOCKER_CONFIG", self.dir.join("docker-config"))
            .env_remove("DOCKER_CONTEXT")
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn said(&self, arguments: &[&str]) -> Said {
        self.docker(arguments).output().unwrap().into()
    }

    /// Runs it; it must succeed. What it printed, without the last newline.
    #[track_caller]
    pub(crate) fn ok(&self, arguments: &[&str]) -> String {
        let said = self.said(arguments);
        assert_eq!(said.code, 0, "docker {arguments:?} said {said:?}\n{}", self.log());
        said.out.trim_end_matches('\n').to_owned()
    }

    /// Runs it; it must fail with that code. What it complained.
    #[track_caller]
    pub(crate) fn fails(&self, code: i32, arguments: &[&str]) -> String {
        let said = self.said(arguments);
        assert_eq!(said.code, code, "docker {arguments:?} said {said:?}\n{}", self.log());
        said.err
    }

    /// Runs it with that on its standard input.
    pub(crate) fn fed(&self, arguments: &[&str], input: &[u8]) -> Said {
        let mut child = self
            .docker(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        child.wait_with_output().unwrap().into()
    }

    /// A program in the engine's network namespace: its "host".
    pub(crate) fn on_host(&self, program: &[&str]) -> Said {
        let net = format!("--net=/proc/{}/ns/net", self.pid());
        let output = Command::new("nsenter").arg(net).args(program).output().unwrap();
        output.into()
    }

    /// The `tritium` CLI.
    pub(crate) fn tritium(&self, arguments: &[&str]) -> Said {
        let output = Command::new(program("tritium", "TRITIUM_CLI"))
            .arg("--socket")
            .arg(self.socket())
            .args(arguments)
            .output()
            .unwrap();
        output.into()
    }

    /// A request without the CLI: status line, headers and body as they came.
    pub(crate) fn http(&self, request: &str) -> String {
        String::from_utf8_lossy(&self.http_bytes(request.as_bytes())).into_owned()
    }

    pub(crate) fn http_bytes(&self, request: &[u8]) -> Vec<u8> {
        use std::io::Read;
        let mut stream = UnixStream::connect(self.socket()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.write_all(request).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        answer
    }

    /// `METHOD PATH` with a JSON body: status and body.
    pub(crate) fn api(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        let length = body.len();
        let answer = self.http(&format!(
            "{method} {path} HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        ));
        let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok());
        let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
        (status.unwrap_or_else(|| panic!("no status in {answer:?}")), body.unwrap_or_default())
    }

    pub(crate) fn log(&self) -> String {
        let log = fs::read_to_string(self.dir.join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().rev().take(30).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    /// Everything in the kernel that bears this engine's name.
    pub(crate) fn traces(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        found.extend(mounts.lines().filter(|line| line.contains(&self.name)).map(str::to_owned));
        let containers = self.dir.join("run/containers");
        for directory in cgroup_directories(&self.name) {
            for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
                let name = entry.file_name().to_string_lossy().into_owned();
                let is_container = name.len() == 64 && entry.path().is_dir();
                if is_container {
                    found.push(entry.path().display().to_string());
                }
            }
        }
        for folder in [containers, self.dir.join("state/containers"), self.dir.join("state/tmp")] {
            for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
                found.push(entry.path().display().to_string());
            }
        }
        found
    }
}

/// Control groups and pins of an engine that has ended.
fn left_in_the_kernel(name: &str) -> Vec<PathBuf> {
    let mut left = cgroup_directories(name);
    left.extend(Some(Path::new("/sys/fs/bpf").join(name)).filter(|pins| pins.exists()));
    left
}

/// The engine's own directory in each hierarchy.
fn cgroup_directories(name: &str) -> Vec<PathBuf> {
    let supervisors = format!("{name}-supervisors");
    let mut found = Vec::new();
    let root = Path::new("/sys/fs/cgroup");
    let hierarchies = fs::read_dir(root).unwrap().flatten().map(|entry| entry.path());
    for hierarchy in hierarchies.chain([root.to_owned()]) {
        let directory = hierarchy.join(name);
        let directories = [directory, hierarchy.join(&supervisors)];
        found.extend(directories.into_iter().filter(|directory| directory.is_dir()));
    }
    found
}

/// Waits for a state; never sleeps for a time that somebody guessed.
#[track_caller]
pub(crate) fn wait_for(what: &str, mut reached: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(if slow() { 120 } else { 20 });
    while !reached() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// This moment, for `--until`; "0s" would be the beginning of this second.
pub(crate) fn moment() -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    format!("{}.{:09}", now.as_secs(), now.subsec_nanos())
}

/// Under software emulation.
pub(crate) fn slow() -> bool {
    std::env::var_os("TRITIUM_SLOW").is_some()
}

impl Drop for Engine {
    fn drop(&mut self) {
        let all = self.said(&["ps", "-aq"]).out;
        let ids: Vec<&str> = all.split_whitespace().collect();
        if !ids.is_empty() {
            let mut arguments = vec!["rm", "-f"];
            arguments.extend(&ids);
            self.said(&arguments);
        }
        let log = self.log();
        let traces = self.traces();
        let pid = nix::unistd::Pid::from_raw(self.daemon.id().cast_signed());
        // An error: it has died, and its status says how.
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).ok();
        let ended = self.daemon.wait();
        let left = left_in_the_kernel(&self.name);
        if !std::thread::panicking() {
            assert!(ended.unwrap().success(), "the engine did not stop well:\n{log}");
            assert_eq!(traces, [""; 0], "left behind:\n{log}");
            assert!(left.is_empty(), "left behind: {left:?}");
        }
        drop(fs::remove_dir_all(&self.dir));
    }
}
