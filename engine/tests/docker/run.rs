//! `docker run` and its options.

use crate::engine::Engine;
use std::{fs, path::Path};

#[test]
fn a_container_says_hello_and_its_exit_code_is_the_clis() {
    let engine = Engine::start();
    assert_eq!(engine.ok(&["run", "--rm", "busybox", "echo", "hello"]), "hello");
    engine.fails(3, &["run", "--rm", "busybox", "sh", "-c", "exit 3"]);
    engine.fails(137, &["run", "--rm", "busybox", "sh", "-c", "sh -c 'kill -9 $$'; exit $?"]);
    let error = engine.fails(127, &["run", "--rm", "busybox", "nope"]);
    assert!(error.contains("exec: \"nope\": executable file not found in $PATH"), "{error}");
    let error = engine.fails(126, &["run", "--rm", "busybox", "/etc/passwd"]);
    assert!(error.contains("exec: \"/etc/passwd\": permission denied"), "{error}");
    let error = engine.fails(125, &["run", "--rm", "--memory", "1m", "busybox"]);
    assert!(error.contains("Minimum memory limit allowed is 6MB"), "{error}");
    assert_eq!(engine.ok(&["ps", "-aq"]), "");
}

#[test]
fn standard_output_and_standard_error_stay_apart() {
    let engine = Engine::start();
    let said = engine.said(&["run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2"]);
    assert_eq!((said.out.as_str(), said.err.as_str()), ("out\n", "err\n"));
}

#[test]
fn environment_directory_user_and_hostname_are_what_was_asked() {
    let engine = Engine::start();
    let script = "echo $A $PWD $(id -u):$(id -g) $(hostname) $HOME";
    let said = engine.ok(&[
        "run",
        "--rm",
        "-e",
        "A=b",
        "-w",
        "/new/dir",
        "-u",
        "nobody",
        "--hostname",
        "web",
        "busybox",
        "sh",
        "-c",
        script,
    ]);
    assert_eq!(said, "b /new/dir 65534:65534 web /home");
    assert_eq!(engine.ok(&["run", "--rm", "-u", "7:8", "busybox", "id"]), "uid=7 gid=8 groups=8");
    let error = engine.fails(125, &["run", "--rm", "-u", "ghost", "busybox", "true"]);
    assert!(
        error.contains("unable to find user ghost: no matching entries in passwd file"),
        "{error}"
    );
    assert_eq!(engine.ok(&["run", "--rm", "--entrypoint", "echo", "busybox", "xx"]), "xx");
}

#[test]
fn a_container_cannot_write_what_is_read_only() {
    let engine = Engine::start();
    let error = engine.fails(1, &["run", "--rm", "--read-only", "busybox", "touch", "/x"]);
    assert!(error.contains("Read-only file system"), "{error}");
    let script = "touch /tmp/ok && mount | grep ' /tmp ' | grep -q noexec && echo yes";
    let said = engine.ok(&[
        "run",
        "--rm",
        "--read-only",
        "--tmpfs",
        "/tmp",
        "busybox",
        "sh",
        "-c",
        script,
    ]);
    assert_eq!(said, "yes");
    let host = engine.dir.join("host");
    fs::create_dir(&host).unwrap();
    let read_only = format!("{}:/data:ro", host.display());
    let error = engine.fails(1, &["run", "--rm", "-v", &read_only, "busybox", "touch", "/data/x"]);
    assert!(error.contains("Read-only file system"), "{error}");
    let writable = format!("{}:/data", host.display());
    engine.ok(&["run", "--rm", "-v", &writable, "busybox", "touch", "/data/x"]);
    assert!(host.join("x").exists());
    engine.fails(1, &["run", "--rm", "busybox", "sh", "-c", "echo 1 > /proc/sys/kernel/panic"]);
}

#[test]
fn limits_are_in_force_inside() {
    let engine = Engine::start();
    let probe = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max \
                 2>/dev/null; cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us /sys/fs/cgroup/cpu.max \
                 2>/dev/null | cut -d' ' -f1";
    let said =
        engine.ok(&["run", "--rm", "-m", "64m", "--cpus", "0.5", "busybox", "sh", "-c", probe]);
    assert_eq!(said, format!("{}\n50000", 64 << 20));
    let fork_bomb = "for i in 1 2 3 4 5 6 7 8 9; do sleep 5 & done; wait";
    let said = engine.said(&["run", "--rm", "--pids-limit", "5", "busybox", "sh", "-c", fork_bomb]);
    assert!(said.err.contains("can't fork"), "{said:?}");
    let said = engine.ok(&[
        "run",
        "--rm",
        "--ulimit",
        "nofile=123:456",
        "busybox",
        "sh",
        "-c",
        "ulimit -Sn; ulimit -Hn",
    ]);
    assert_eq!(said, "123\n456");
}

#[test]
fn real_time_is_had_of_what_the_operator_has_given_the_engine() {
    let engine = Engine::start();
    let all = Path::new("/sys/fs/cgroup/cpu");
    let run = ["run", "--rm", "--cpu-rt-runtime", "2000", "busybox"];
    let run = [&run[..], &["cat", "/sys/fs/cgroup/cpu/cpu.rt_runtime_us"]].concat();
    if !all.join("cpu.rt_runtime_us").exists() {
        let said = engine.fails(125, &run);
        assert!(said.contains("does not support CPU real-time"), "{said}");
        return;
    }
    let said = engine.fails(125, &run);
    assert!(said.contains("cpu.rt_runtime_us: invalid argument\n"), "{said}");
    fs::write(all.join(&engine.name).join("cpu.rt_runtime_us"), "4000").unwrap();
    assert_eq!(engine.ok(&run), "2000");
}

#[test]
fn a_container_out_of_memory_is_killed_and_inspect_says_so() {
    let engine = Engine::start();
    let hog = "x=a; while :; do x=$x$x; done";
    engine.fails(
        137,
        &["run", "--name", "hog", "-m", "16m", "--memory-swap", "16m", "busybox", "sh", "-c", hog],
    );
    assert_eq!(
        engine.ok(&["inspect", "-f", "{{.State.OOMKilled}} {{.State.ExitCode}}", "hog"]),
        "true 137"
    );
}

#[test]
fn capabilities_and_no_new_privileges_are_what_docker_gives() {
    let engine = Engine::start();
    let status = |options: &[&str]| {
        let mut arguments = vec!["run", "--rm"];
        arguments.extend(options);
        arguments.extend([
            "busybox",
            "sh",
            "-c",
            "grep -E 'CapEff|NoNewPrivs|Seccomp:' /proc/self/status | cut -f2 | tr '\\n' ' '",
        ]);
        engine.ok(&arguments)
    };
    assert_eq!(status(&[]), "00000000a80425fb 0 2 ");
    assert_eq!(status(&["--cap-drop", "ALL", "--cap-add", "CHOWN"]), "0000000000000001 0 2 ");
    assert_eq!(status(&["--cap-add", "net_admin"]), "00000000a80435fb 0 2 ");
    assert_eq!(status(&["--security-opt", "no-new-privileges"]), "00000000a80425fb 1 2 ");
    assert_eq!(
        status(&["--security-opt", "seccomp=unconfined", "--cap-add", "NET_RAW"]),
        "00000000a80425fb 0 0 "
    );
    let error = engine.fails(125, &["run", "--rm", "--cap-add", "NOPE", "busybox"]);
    assert!(error.contains("unknown capability: \"CAP_NOPE\""), "{error}");
}

#[test]
fn a_seccomp_profile_of_ones_own_is_obeyed() {
    let engine = Engine::start();
    let profile = engine.dir.join("profile.json");
    fs::write(
        &profile,
        r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":13}]}"#,
    )
    .unwrap();
    let option = format!("seccomp={}", profile.display());
    let error =
        engine.fails(1, &["run", "--rm", "--security-opt", &option, "busybox", "mkdir", "/x"]);
    assert!(error.contains("Permission denied"), "{error}");
    // Docker's own profile refuses what could hurt the host.
    let error = engine.fails(1, &["run", "--rm", "busybox", "unshare", "-m", "true"]);
    assert!(error.contains("Operation not permitted"), "{error}");
}

#[test]
fn an_init_process_reaps_and_passes_signals_on() {
    let engine = Engine::start();
    assert_eq!(
        engine.ok(&[
            "run",
            "--rm",
            "--init",
            "busybox",
            "sh",
            "-c",
            "tr '\\0' ' ' < /proc/1/cmdline | cut -c1-17"
        ]),
        "/sbin/docker-init"
    );
    engine.ok(&["run", "-d", "--init", "--name", "xx", "busybox", "sleep", "100"]);
    engine.ok(&["stop", "-t", "20", "xx"]);
    assert_eq!(engine.ok(&["inspect", "-f", "{{.State.ExitCode}}", "xx"]), "143");
}

#[test]
fn a_terminal_is_one() {
    let engine = Engine::start();
    let said =
        engine.ok(&["run", "--rm", "-t", "busybox", "sh", "-c", "tty; echo $TERM; echo x >&2"]);
    assert_eq!(said, "/dev/pts/0\r\nxterm\r\nx\r");
}

#[test]
fn masked_and_read_only_paths_are_as_docker_has_them() {
    let engine = Engine::start();
    let said = engine.ok(&[
        "run",
        "--rm",
        "busybox",
        "sh",
        "-c",
        "wc -c < /proc/keys; ls /sys/firmware | wc -l; ls /proc/acpi 2>/dev/null | wc -l",
    ]);
    assert_eq!(said, "0\n0\n0");
    let mounts = engine.ok(&["run", "--rm", "busybox", "cat", "/proc/mounts"]);
    for line in [
        "proc /proc/sys proc ro",
        "sysfs /sys sysfs ro,nosuid,nodev,noexec",
        "tmpfs /dev/shm tmpfs rw,nosuid,nodev,noexec",
    ] {
        assert!(mounts.contains(line), "{line} is missing from\n{mounts}");
    }
    assert!(!mounts.contains("/dev/vda / "), "{mounts}");
}

#[test]
fn namespaces_can_be_shared_as_asked() {
    let engine = Engine::start();
    engine.ok(&["run", "-d", "--name", "aa", "--ipc", "shareable", "busybox", "sleep", "1000"]);
    let inside = |options: &[&str], what: &str| {
        let mut arguments = vec!["run", "--rm"];
        arguments.extend(options);
        let link = format!("/proc/self/ns/{what}");
        arguments.extend(["busybox", "readlink", &link]);
        engine.ok(&arguments)
    };
    for (what, option) in [("net", "--network"), ("pid", "--pid")] {
        let link = format!("/proc/self/ns/{what}");
        let of_a = engine.ok(&["exec", "aa", "readlink", &link]);
        assert_eq!(inside(&[option, "container:aa"], what), of_a, "{what}");
        assert_ne!(inside(&[], what), of_a, "{what}");
    }
    let host = engine.on_host(&["readlink", "/proc/self/ns/net"]).out;
    assert_eq!(format!("{}\n", inside(&["--network", "host"], "net")), host);
}
