//! What a container's processes find around them.

use crate::harness::*;
use std::fs;
use std::os::unix::fs::symlink;
use tritium_supervisor::protocol::*;

fn out(bench: &mut Bench) -> String {
    let (out, error, code) = bench.run();
    assert_eq!((error.as_str(), code), ("", 0), "{out}");
    out
}

#[test]
fn a_read_only_root_takes_no_write_and_a_tmpfs_on_it_does() {
    let mut bench = Bench::shell(
        "touch /no 2>&1; touch /scratch/yes && stat -c %a /scratch; grep ' / ' /proc/mounts | cut -d' ' -f4 | cut -c1-2",
    );
    bench.launch.rootfs.readonly = true;
    bench.launch.mounts.push(mount(MountKind::Tmpfs { data: "size=1m".to_owned() }, "/scratch"));
    assert_eq!(out(&mut bench), "touch: /no: Read-only file system\n1777\nro\n");
}

#[test]
fn what_is_masked_shows_nothing_and_what_is_protected_takes_nothing() {
    let mut bench = Bench::shell(
        "cat /proc/keys; ls /proc/acpi /sys/firmware 2>/dev/null | grep -v :; echo x 2>/dev/null > /proc/sys/kernel/hostname || echo refused; echo x 2>/dev/null >/sys/kernel/profiling || echo refused",
    );
    assert_eq!(out(&mut bench).trim(), "refused\nrefused");
}

#[test]
fn capabilities_are_exactly_those_asked_for() {
    let mut bench = Bench::shell(
        "grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status | tr -d '\\t' | tr '\\n' ' '",
    );
    let bits = "CapInh:0000000000000000 CapPrm:00000000a80425fb CapEff:00000000a80425fb CapBnd:00000000a80425fb CapAmb:0000000000000000 NoNewPrivs:0 Seccomp:0 ";
    assert_eq!(out(&mut bench), bits);
    let mut bench =
        Bench::shell("grep -E '^(Cap|NoNewPrivs)' /proc/self/status | tr -d '\\t' | tr '\\n' ' '");
    bench.launch.process.user = "web".to_owned();
    bench.launch.process.no_new_privileges = true;
    bench.launch.process.capabilities = Capabilities {
        bounding: 0x400,
        permitted: 0x400,
        effective: 0x400,
        inheritable: 0x400,
        ambient: 0x400,
    };
    let bits = "CapInh:0000000000000400 CapPrm:0000000000000400 CapEff:0000000000000400 CapBnd:0000000000000400 CapAmb:0000000000000400 NoNewPrivs:1 ";
    assert_eq!(out(&mut bench), bits);
}

/// ld [nr]; jeq mkdir, kill it with EPERM; allow.
const NO_MKDIR: [u64; 4] =
    [0x0000_0000_0000_0020, 0x0000_0053_0100_0015, 0x0005_0001_0000_0006, 0x7fff_0000_0000_0006];

#[test]
fn a_seccomp_policy_is_in_force_with_and_without_new_privileges() {
    for no_new_privileges in [false, true] {
        let mut bench = Bench::shell(
            "mkdir /x 2>&1; grep ^Seccomp: /proc/self/status; grep ^CapEff /proc/self/status",
        );
        bench.launch.process.no_new_privileges = no_new_privileges;
        bench.launch.process.user = "web".to_owned();
        let bytes: Vec<u8> =
            NO_MKDIR.iter().flat_map(|instruction| instruction.to_le_bytes()).collect();
        let program = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, bytes);
        bench.launch.process.seccomp = vec![program];
        let expected = "mkdir: can't create directory '/x': Operation not permitted\nSeccomp:\t2\nCapEff:\t0000000000000000\n";
        assert_eq!(out(&mut bench), expected);
    }
}

#[test]
fn a_user_is_looked_up_in_the_containers_own_files() {
    let mut bench = Bench::shell("id; echo $HOME; pwd; echo x > /dev/stdout");
    bench.launch.process.user = "web".to_owned();
    bench.launch.process.groups = strings(&["77"]);
    bench.launch.process.cwd = "/made/here".to_owned();
    assert_eq!(
        out(&mut bench),
        "uid=33(web) gid=33(web) groups=29(audio),33(web),77\n/var/www\n/made/here\nx\n"
    );
}

#[test]
fn a_link_in_the_image_does_not_lead_a_mount_out() {
    let mut bench = Bench::shell("cat /outside/file; cat /etc/inner");
    let base = bench.top.join("layers/base");
    symlink("../../outside", base.join("data")).unwrap();
    symlink("/etc/inner", base.join("config")).unwrap();
    let source = bench.top.join("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("file"), "bound\n").unwrap();
    let directory = bind_of(&source, "/data");
    bench.launch.mounts.extend([directory, bind_of(&source.join("file"), "/config")]);
    assert_eq!(out(&mut bench), "bound\nbound\n");
    assert!(!bench.top.join("outside").exists());
}

#[test]
fn a_read_only_bind_takes_no_write_and_a_wrong_one_is_refused() {
    let mut bench = Bench::shell("touch /data/x 2>&1");
    let mut bound = bind_of(&bench.top.join("layers"), "/data");
    bound.readonly = true;
    bench.launch.mounts.push(bound);
    let (text, _, code) = bench.run();
    assert_eq!((text.as_str(), code), ("touch: /data/x: Read-only file system\n", 1));

    let mut bench = Bench::new();
    let wrong = bind_of(&bench.top.join("layers"), "/etc/passwd");
    bench.launch.mounts.push(wrong);
    let (code, sentence) = bench.refused();
    assert!(
        sentence.contains("not a directory: Are you trying to mount a directory onto a file"),
        "{sentence}"
    );
    assert_eq!(code, 128);
}

#[test]
fn the_container_has_its_own_name_network_processes_and_devices() {
    let mut bench = Bench::shell(
        "hostname; ip -o link | cut -d' ' -f2,3; echo $$; stat -c '%t:%T %a' /dev/null; ls /dev | tr '\\n' ' '; readlink /dev/fd; readlink /dev/ptmx; umask; cat /proc/self/cgroup | grep ^0",
    );
    let expected = "box\nlo: <LOOPBACK,UP,LOWER_UP>\n1\n1:3 666\nfd mqueue null ptmx pts shm stderr stdin stdout tty zero /proc/self/fd\npts/ptmx\n0022\n0::/\n";
    assert_eq!(out(&mut bench), expected);
}

#[test]
fn limits_and_the_oom_score_are_set() {
    let mut bench = Bench::shell("ulimit -n; ulimit -Hn; cat /proc/self/oom_score_adj");
    bench.launch.process.rlimits = vec![Rlimit { resource: 7, soft: 100, hard: 200 }];
    bench.launch.process.oom_score_adj = Some(321);
    assert_eq!(out(&mut bench), "100\n200\n321\n");
    let mut bench = Bench::new();
    bench.launch.process.rlimits = vec![Rlimit { resource: 7, soft: 1, hard: 1 << 40 }];
    let sentence = "error during container init: error setting rlimits for ready process: error setting rlimit type 7: operation not permitted";
    assert_eq!(bench.refused().1, sentence);
}

#[test]
fn a_container_can_join_the_namespaces_of_another() {
    let mut first = Bench::with(&["sleep", "1000"]);
    let (fds, _attached) = first.start();
    let pid =
        fs::read_to_string(format!("/proc/{0}/task/{0}/children", first.supervisor.id())).unwrap();
    let pid: i32 = pid.trim().parse().unwrap();
    let names = |pid: &str| {
        ["pid", "net", "ipc", "uts"]
            .map(|name| {
                fs::read_link(format!("/proc/{pid}/ns/{name}")).unwrap().display().to_string()
                    + "\n"
            })
            .concat()
    };
    for given in [false, true] {
        let mut second = Bench::shell(
            "cd /proc/self/ns; for n in pid net ipc uts; do readlink $n; done; cat /proc/1/comm",
        );
        let of = || Namespace::Of { pid };
        let namespaces = &mut second.launch.namespaces;
        (namespaces.pid, namespaces.network, namespaces.ipc, namespaces.uts) =
            (of(), of(), of(), of());
        if given {
            namespaces.network = Namespace::Given;
            second.network = Some(fs::File::open(format!("/proc/{pid}/ns/net")).unwrap().into());
        }
        assert_eq!(out(&mut second), names(&pid.to_string()) + "sleep\n");
    }
    rustix::process::pidfd_send_signal(&fds[0], rustix::process::Signal::KILL).unwrap();
    first.engine().exited(None);
}

#[test]
fn options_too_long_for_one_string_go_in_a_page() {
    let mut bench = Bench::shell("cat /etc/marker; echo written > /new; cat /new");
    let deep = |name: &str| {
        let path = bench.top.join(name.repeat(100)).join(name.repeat(50));
        fs::create_dir_all(&path).unwrap();
        path
    };
    let (upper, work) = (deep("u,"), deep("w:"));
    fs::create_dir_all(bench.top.join("layers/top:1/etc")).unwrap();
    fs::write(bench.top.join("layers/top:1/etc/marker"), "topmost\n").unwrap();
    (bench.launch.rootfs.upper, bench.launch.rootfs.work) = (upper.clone(), work);
    bench.launch.rootfs.lower = strings(&["top:1", "base"]);
    assert_eq!(out(&mut bench), "topmost\nwritten\n");
    assert_eq!(fs::read_to_string(upper.join("new")).unwrap(), "written\n");
}

#[test]
fn the_containers_groups_are_shown_and_cannot_be_written() {
    let mut bench = Bench::shell(
        "grep -c cgroup /proc/mounts >/dev/null; for f in /sys/fs/cgroup/cgroup.procs /sys/fs/cgroup/*/cgroup.procs; do [ -e $f ] && echo 0 2>/dev/null > $f && echo $f; done; grep '/sys/fs/cgroup' /proc/mounts | grep -c cgroup",
    );
    let (count, _, _) = bench.run();
    assert!(count.trim().parse::<u32>().unwrap() >= 1, "{count}");
}
