//! A supervisor, a busybox root and the engine's end of the socket.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{MemfdFlags, Mode, OFlags, memfd_create};
use rustix::io::{IoSlice, IoSliceMut};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType, bind, connect,
    listen, recvmsg, sendmsg, socket_with, socketpair,
};
use std::fs;
use std::io::{Read, Write};
use std::mem::MaybeUninit;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use tritium_supervisor::protocol::*;

/// Docker's fourteen capabilities.
pub(crate) const DOCKER: u64 = 0xa804_25fb;

/// The static binary: `TRITIUM_SUPERVISOR`, or built here.
pub(crate) fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        if let Some(path) = std::env::var_os("TRITIUM_SUPERVISOR") {
            return path.into();
        }
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap();
        let target = workspace.join("target/supervisor-tests");
        let built = Command::new(env!("CARGO"))
            .args(["build", "--profile", "supervisor", "-p", "tritium-supervisor"])
            .args(["--target", "x86_64-unknown-linux-gnu", "--target-dir"])
            .arg(&target)
            .current_dir(&workspace)
            .env(
                "CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS",
                "-C target-feature=+crt-static -C relocation-model=static",
            )
            .status()
            .unwrap();
        assert!(built.success(), "the supervisor must build");
        target.join("x86_64-unknown-linux-gnu/supervisor/tritium-supervisor")
    })
}

fn unified() -> PathBuf {
    let hybrid = Path::new("/sys/fs/cgroup/unified");
    if hybrid.exists() { hybrid.into() } else { "/sys/fs/cgroup".into() }
}

/// A parked supervisor, and what is needed to launch on it.
pub(crate) struct Bench {
    pub(crate) top: PathBuf,
    pub(crate) cgroup: PathBuf,
    pub(crate) launch: Launch,
    /// For [`Namespace::Given`].
    pub(crate) network: Option<OwnedFd>,
    pub(crate) supervisor: Child,
    pub(crate) engine: Option<Engine>,
}

/// An engine's end of a connection.
pub(crate) struct Engine(OwnedFd);

impl Bench {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        assert!(
            rustix::process::geteuid().is_root(),
            "these tests make containers: run them as root"
        );
        let name = format!(
            "tritium-test-{}-{}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        let top = std::env::temp_dir().join(&name);
        let cgroup = unified().join(&name);
        fs::create_dir(&cgroup).unwrap();
        for directory in
            ["layers/base/bin", "layers/base/etc", "layers/base/root", "upper", "work", "target"]
        {
            fs::create_dir_all(top.join(directory)).unwrap();
        }
        let base = top.join("layers/base");
        fs::copy("/bin/busybox", base.join("bin/busybox")).unwrap();
        let list = Command::new("/bin/busybox").arg("--list").output().unwrap();
        for applet in
            String::from_utf8(list.stdout).unwrap().lines().filter(|name| *name != "busybox")
        {
            symlink("busybox", base.join("bin").join(applet)).unwrap();
        }
        fs::write(
            base.join("etc/passwd"),
            "root:x:0:0:root:/root:/bin/sh\nweb:x:33:33:web:/var/www:/bin/sh\n",
        )
        .unwrap();
        fs::write(base.join("etc/group"), "root:x:0:\nweb:x:33:\naudio:x:29:web\n").unwrap();
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .unwrap();
        let supervisor = Command::new(binary()).stdin(Stdio::from(theirs)).spawn().unwrap();
        let launch = launch(&top);
        Self { top, cgroup, launch, network: None, supervisor, engine: Some(Engine(ours)) }
    }

    pub(crate) fn with(args: &[&str]) -> Self {
        let mut bench = Self::new();
        bench.launch.process.args = strings(args);
        bench
    }

    /// As the shell's `sh -c`.
    pub(crate) fn shell(script: &str) -> Self {
        Self::with(&["sh", "-c", script])
    }

    pub(crate) fn engine(&self) -> &Engine {
        self.engine.as_ref().unwrap()
    }

    /// Sends the launch, with these clients attached.
    pub(crate) fn send_launch(&mut self, attached: Vec<(Streams, OwnedFd)>) {
        let socket =
            socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .unwrap();
        bind(&socket, &SocketAddrUnix::new(self.top.join("socket")).unwrap()).unwrap();
        listen(&socket, 8).unwrap();
        let group =
            rustix::fs::open(&self.cgroup, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())
                .unwrap();
        let (streams, sockets): (Vec<_>, Vec<_>) = attached.into_iter().unzip();
        let mut fds = vec![memfd(&self.launch), socket, group];
        fds.extend(self.network.take());
        fds.extend(sockets);
        self.engine().ask(&Request::Launch { attachments: streams }, &fds);
    }

    /// Launches with everything attached; answers with what Started brought
    /// and the attached stream.
    pub(crate) fn start(&mut self) -> (Vec<OwnedFd>, Attached) {
        let (attached, theirs) = attached();
        self.send_launch(vec![(BOTH, theirs)]);
        match self.engine().hear() {
            (Event::Started { exec: None, .. }, fds) => (fds, attached),
            other => panic!("{other:?}"),
        }
    }

    /// Launches, waits for the end, and answers with stdout, stderr and code.
    pub(crate) fn run(&mut self) -> (String, String, i32) {
        let (_fds, attached) = self.start();
        let (out, error) = attached.demultiplexed();
        let code = self.engine().exited(None).code;
        (out, error, code)
    }

    /// Launches what cannot start: the code and the sentence.
    pub(crate) fn refused(&mut self) -> (i32, String) {
        self.send_launch(Vec::new());
        match self.engine().hear() {
            (Event::Failed { exec: None, failure }, _) => (failure.code, failure.message.unwrap()),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn reconnect(&self) -> Engine {
        let socket =
            socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .unwrap();
        connect(&socket, &SocketAddrUnix::new(self.top.join("socket")).unwrap()).unwrap();
        Engine(socket)
    }

    /// Execs in the container: output and code.
    pub(crate) fn exec(&self, process: &Process) -> Result<(String, i32), Failure> {
        let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        let null =
            rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).unwrap();
        let error = write.try_clone().unwrap();
        self.engine()
            .ask(&Request::Exec { id: "e".to_owned() }, &[memfd(process), null, write, error]);
        match self.engine().hear() {
            (Event::Started { exec, .. }, _) => assert_eq!(exec.as_deref(), Some("e")),
            (Event::Failed { failure, .. }, _) => return Err(failure),
            other => panic!("{other:?}"),
        }
        let mut text = String::new();
        fs::File::from(read).read_to_string(&mut text).unwrap();
        Ok((text, self.engine().exited(Some("e")).code))
    }
}

impl Drop for Bench {
    /// Every test also checks that nothing of its container is left.
    fn drop(&mut self) {
        self.engine = None;
        if std::thread::panicking() {
            fs::write(self.cgroup.join("cgroup.kill"), "1").unwrap();
            self.supervisor.kill().unwrap();
        }
        self.supervisor.wait().unwrap();
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let name = self.top.to_str().unwrap().to_owned();
        fs::remove_dir_all(&self.top).unwrap();
        // The group empties as the kernel lets go of the last process.
        while let Err(error) = fs::remove_dir(&self.cgroup) {
            assert_eq!(error.raw_os_error(), Some(16), "{error}");
            std::thread::yield_now();
        }
        if !std::thread::panicking() {
            assert!(!mounts.contains(&name), "a mount is left: {mounts}");
        }
    }
}

impl Engine {
    pub(crate) fn ask(&self, request: &Request, fds: &[OwnedFd]) {
        let bytes = serde_json::to_vec(request).unwrap();
        let fds: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(32))];
        let mut beside = SendAncillaryBuffer::new(&mut space);
        assert!(fds.is_empty() || beside.push(SendAncillaryMessage::ScmRights(&fds)));
        sendmsg(&self.0, &[IoSlice::new(&bytes)], &mut beside, SendFlags::empty()).unwrap();
    }

    /// The next event, within a minute: a guest under emulation is slow.
    pub(crate) fn hear(&self) -> (Event, Vec<OwnedFd>) {
        let mut polls = [PollFd::new(&self.0, PollFlags::IN)];
        let minute = Timespec { tv_sec: 60, tv_nsec: 0 };
        assert_eq!(poll(&mut polls, Some(&minute)).unwrap(), 1, "the supervisor says nothing");
        let mut bytes = vec![0; 65_536];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(32))];
        let mut beside = RecvAncillaryBuffer::new(&mut space);
        let got = recvmsg(
            &self.0,
            &mut [IoSliceMut::new(&mut bytes)],
            &mut beside,
            RecvFlags::CMSG_CLOEXEC,
        )
        .unwrap();
        assert!(got.bytes > 0, "the supervisor has gone");
        let mut fds = Vec::new();
        for message in beside.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                fds.extend(rights);
            }
        }
        (serde_json::from_slice(&bytes[..got.bytes]).unwrap(), fds)
    }

    pub(crate) fn exited(&self, wanted: Option<&str>) -> Exit {
        match self.hear() {
            (Event::Exited { exec, exit }, _) => {
                assert_eq!(exec.as_deref(), wanted);
                exit
            }
            other => panic!("{other:?}"),
        }
    }
}

/// Both streams.
pub(crate) const BOTH: Streams = Streams { stdout: true, stderr: true };

/// The reading end of an attached client.
pub(crate) struct Attached(pub(crate) fs::File);

pub(crate) fn attached() -> (Attached, OwnedFd) {
    let (ours, theirs) =
        socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
    (Attached(fs::File::from(ours)), theirs)
}

impl Attached {
    /// All bytes to the end.
    pub(crate) fn raw(mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.0.read_to_end(&mut bytes).unwrap();
        bytes
    }

    /// Reads until what has come ends with `end`.
    pub(crate) fn until(&mut self, end: &str) -> String {
        let mut text = Vec::new();
        while !String::from_utf8_lossy(&text).trim_end().ends_with(end) {
            let mut byte = [0];
            assert_eq!(self.0.read(&mut byte).unwrap(), 1, "the stream has ended");
            text.push(byte[0]);
        }
        String::from_utf8_lossy(&text).into_owned()
    }

    /// Docker's frames taken apart.
    pub(crate) fn demultiplexed(self) -> (String, String) {
        let bytes = self.raw();
        let mut streams = [Vec::new(), Vec::new()];
        let mut rest = bytes.as_slice();
        while let Some((header, after)) = rest.split_first_chunk::<8>() {
            assert_eq!(header[1..4], [0; 3]);
            let length = u32::from_be_bytes([header[4], header[5], header[6], header[7]]) as usize;
            streams[usize::from(header[0]) - 1].extend_from_slice(&after[..length]);
            rest = &after[length..];
        }
        assert_eq!(rest, [0; 0]);
        let [out, error] = streams.map(|stream| String::from_utf8_lossy(&stream).into_owned());
        (out, error)
    }
}

pub(crate) fn memfd(document: &impl serde::Serialize) -> OwnedFd {
    let fd = memfd_create("document", MemfdFlags::CLOEXEC).unwrap();
    fs::File::from(fd.try_clone().unwrap())
        .write_all(&serde_json::to_vec(document).unwrap())
        .unwrap();
    fd
}

pub(crate) fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

pub(crate) fn mount(kind: MountKind, destination: &str) -> Mount {
    let fixed = matches!(kind, MountKind::Bind { .. });
    let device = matches!(kind, MountKind::Devpts) || destination == "/dev";
    Mount {
        readonly: matches!(kind, MountKind::Sysfs | MountKind::Cgroup),
        nosuid: !fixed,
        nodev: !fixed && !device,
        noexec: !fixed,
        kind,
        destination: destination.to_owned(),
    }
}

pub(crate) fn bind_of(source: &Path, destination: &str) -> Mount {
    let source = source.to_owned();
    mount(
        MountKind::Bind { source, recursive: true, propagation: Propagation::Rprivate },
        destination,
    )
}

pub(crate) fn process(args: &[&str]) -> Process {
    Process {
        args: strings(args),
        env: strings(&["PATH=/usr/local/bin:/usr/bin:/bin"]),
        cwd: "/".to_owned(),
        user: String::new(),
        groups: Vec::new(),
        terminal: false,
        size: None,
        capabilities: Capabilities {
            bounding: DOCKER,
            permitted: DOCKER,
            effective: DOCKER,
            inheritable: 0,
            ambient: 0,
        },
        no_new_privileges: false,
        seccomp: Vec::new(),
        rlimits: Vec::new(),
        oom_score_adj: None,
    }
}

fn launch(top: &Path) -> Launch {
    let tmpfs = |data: &str| MountKind::Tmpfs { data: data.to_owned() };
    let device = |path: &str, major, minor| Device {
        path: path.to_owned(),
        kind: 'c',
        major,
        minor,
        mode: 0o666,
        uid: 0,
        gid: 0,
    };
    Launch {
        version: VERSION,
        id: "0123456789abcdef".repeat(4),
        exit_file: top.join("exit"),
        process: process(&["true"]),
        hostname: "box".to_owned(),
        domainname: String::new(),
        rootfs: Rootfs {
            lower: strings(&["base"]),
            layers_dir: top.join("layers"),
            upper: top.join("upper"),
            work: top.join("work"),
            target: top.join("target"),
            readonly: false,
        },
        mounts: vec![
            mount(MountKind::Proc, "/proc"),
            mount(tmpfs("mode=755,size=65536k"), "/dev"),
            mount(MountKind::Devpts, "/dev/pts"),
            mount(MountKind::Sysfs, "/sys"),
            mount(MountKind::Cgroup, "/sys/fs/cgroup"),
            mount(MountKind::Mqueue, "/dev/mqueue"),
            mount(tmpfs("mode=1777,size=65536k"), "/dev/shm"),
        ],
        devices: vec![
            device("/dev/null", 1, 3),
            device("/dev/zero", 1, 5),
            device("/dev/tty", 5, 0),
        ],
        masked_paths: strings(&["/proc/keys", "/proc/acpi", "/sys/firmware", "/proc/none"]),
        readonly_paths: strings(&["/proc/sys", "/proc/none"]),
        namespaces: Namespaces {
            pid: Namespace::New,
            network: Namespace::New,
            ipc: Namespace::New,
            uts: Namespace::New,
            cgroup: Namespace::New,
        },
        sysctls: Vec::new(),
        init: false,
        stdin: false,
        log: None,
        oom_file: None,
    }
}
