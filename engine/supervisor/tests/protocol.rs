//! Every message, byte for byte, per released version of the protocol.
//!
//! A supervisor of an older version may be running when an engine of a newer
//! one starts. So a file in `tests/golden/v1` is never changed once version 1
//! is released: new fields are optional, and these files must still be read.
//! `TRITIUM_WRITE_GOLDEN=1` writes the files that are missing.
#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
#![expect(clippy::disallowed_methods, reason = "golden files need not survive a crash")]

use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use std::fs;
use std::path::Path;
use tritium_supervisor::protocol::*;

fn golden<T: Serialize + DeserializeOwned + PartialEq + Debug>(name: &str, message: &T) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/v1/{name}.json"));
    let now = serde_json::to_string_pretty(message).unwrap() + "\n";
    if std::env::var_os("TRITIUM_WRITE_GOLDEN").is_some() && !path.exists() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, &now).unwrap();
    }
    let then =
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert_eq!(
        serde_json::from_str::<T>(&then).unwrap(),
        *message,
        "{name} is read otherwise than before"
    );
    assert_eq!(then, now, "{name} is written otherwise than before");
}

#[test]
fn requests_are_what_version_1_has() {
    let streams = Streams { stdout: true, stderr: false };
    golden("request_launch", &Request::Launch { attachments: vec![streams] });
    golden("request_exec", &Request::Exec { id: "4f".to_owned() });
    golden("request_attach", &Request::Attach { streams });
    golden("request_close_stdin", &Request::CloseStdin);
}

#[test]
fn events_are_what_version_1_has() {
    let exit = Exit { code: 137, oom_killed: true, at: 1_764_000_000_000_000_001 };
    golden("event_hello", &Event::Hello { version: 1, pid: 42, exit: None });
    golden("event_hello_after_exit", &Event::Hello { version: 1, pid: 42, exit: Some(exit) });
    golden("event_started", &Event::Started { exec: None, pid: 42 });
    golden("event_attached", &Event::Attached {});
    golden("event_started_exec", &Event::Started { exec: Some("4f".to_owned()), pid: 43 });
    let failure = Failure {
        step: "exec nope".to_owned(),
        errno: 2,
        code: 127,
        message: Some("exec: \"nope\": executable file not found in $PATH".to_owned()),
    };
    golden("event_failed", &Event::Failed { exec: None, failure });
    golden("event_warned", &Event::Warned { message: "the log has lost output".to_owned() });
    golden("event_exited", &Event::Exited { exec: None, exit });
    golden("exit_file", &exit);
}

fn process() -> Process {
    Process {
        args: vec!["sh".to_owned(), "-c".to_owned(), "true".to_owned()],
        env: vec!["PATH=/bin".to_owned()],
        cwd: "/".to_owned(),
        user: "web:audio".to_owned(),
        groups: vec!["29".to_owned()],
        terminal: true,
        size: Some((24, 80)),
        capabilities: Capabilities {
            bounding: 1,
            permitted: 2,
            effective: 4,
            inheritable: 8,
            ambient: 16,
        },
        no_new_privileges: true,
        seccomp: vec!["BgAAAAAA/38=".to_owned()],
        rlimits: vec![Rlimit { resource: 7, soft: 1024, hard: u64::MAX }],
        oom_score_adj: Some(-500),
    }
}

fn mounts() -> Vec<Mount> {
    let bind = |propagation| MountKind::Bind {
        source: "/src".into(),
        subpath: String::new(),
        recursive: true,
        propagation,
    };
    let kinds = [
        MountKind::Proc,
        MountKind::Sysfs,
        MountKind::Cgroup,
        MountKind::Mqueue,
        MountKind::Devpts,
        MountKind::Tmpfs { data: "size=64m".to_owned() },
        bind(Propagation::Private),
        bind(Propagation::Rprivate),
        bind(Propagation::Shared),
        bind(Propagation::Rshared),
        bind(Propagation::Slave),
        bind(Propagation::Rslave),
    ];
    let mount = |kind| Mount {
        kind,
        destination: "/at".to_owned(),
        readonly: true,
        shallow: false,
        nosuid: true,
        nodev: false,
        noexec: true,
    };
    kinds.into_iter().map(mount).collect()
}

#[test]
fn documents_are_what_version_1_has() {
    golden("process", &process());
    let launch = Launch {
        version: 1,
        id: "ab".repeat(32),
        exit_file: "/run/exit".into(),
        process: process(),
        hostname: "box".to_owned(),
        domainname: "example".to_owned(),
        rootfs: Rootfs {
            lower: vec!["top".to_owned(), "base".to_owned()],
            layers_dir: "/layers".into(),
            upper: "/upper".into(),
            work: "/work".into(),
            target: "/target".into(),
            readonly: true,
        },
        mounts: mounts(),
        devices: vec![Device {
            path: "/dev/null".to_owned(),
            kind: 'c',
            major: 1,
            minor: 3,
            mode: 0o666,
            uid: 0,
            gid: 0,
        }],
        masked_paths: vec!["/proc/keys".to_owned()],
        readonly_paths: vec!["/proc/sys".to_owned()],
        namespaces: Namespaces {
            pid: Namespace::New,
            network: Namespace::Given,
            ipc: Namespace::Of { pid: 7 },
            uts: Namespace::Host,
            cgroup: Namespace::New,
        },
        sysctls: vec![("net.ipv4.ip_forward".to_owned(), "1".to_owned())],
        init: true,
        stdin: true,
        log: Some(Log {
            path: "/log".into(),
            max_size: Some(1),
            max_file: Some(2),
            compress: false,
            attributes: None,
        }),
        oom_file: Some("/oom".into()),
    };
    golden("launch", &launch);
}

#[test]
fn fields_that_may_be_missing_are_filled_in() {
    let text = serde_json::to_string(&mounts()[0]).unwrap();
    let short = text.replace(r#","readonly":true,"nosuid":true,"nodev":false,"noexec":true"#, "");
    assert_ne!(short, text);
    let mount: Mount = serde_json::from_str(&short).unwrap();
    assert!(!(mount.readonly || mount.nosuid || mount.nodev || mount.noexec));
}
