//! Starting, ending, and engines that come and go.

use crate::harness::*;
use rustix::process::{Signal, pidfd_send_signal};
use std::fs;
use std::path::Path;
use tritium_supervisor::protocol::*;

#[test]
fn a_container_runs_and_its_output_and_code_come_out() {
    let mut bench = Bench::shell("echo hello; echo oops >&2; exit 7");
    assert_eq!(bench.run(), ("hello\n".to_owned(), "oops\n".to_owned(), 7));
    let exit: Exit = serde_json::from_slice(&fs::read(bench.top.join("exit")).unwrap()).unwrap();
    assert_eq!((exit.code, exit.oom_killed), (7, false));
}

#[test]
fn a_signal_is_told_as_a_shell_tells_it() {
    let mut bench = Bench::with(&["sleep", "1000"]);
    let (fds, _attached) = bench.start();
    pidfd_send_signal(&fds[0], Signal::KILL).unwrap();
    assert_eq!(bench.engine().exited(None).code, 137);
}

#[test]
fn what_cannot_be_executed_is_refused_in_dockers_words() {
    let refused = |args: &[&str]| Bench::with(args).refused();
    let sentence = "exec: \"nope\": executable file not found in $PATH";
    assert_eq!(refused(&["nope"]), (127, sentence.to_owned()));
    let sentence = "exec: \"/nope\": stat /nope: no such file or directory";
    assert_eq!(refused(&["/nope"]), (127, sentence.to_owned()));
    let sentence = "exec: \"/etc/passwd\": permission denied";
    assert_eq!(refused(&["/etc/passwd"]), (126, sentence.to_owned()));
    let mut bench = Bench::new();
    bench.launch.process.user = "ghost".to_owned();
    assert_eq!(bench.refused().1, "unable to find user ghost: no matching entries in passwd file");
    let mut bench = Bench::new();
    bench.launch.process.cwd = "/etc/passwd".to_owned();
    assert_eq!(bench.refused().1, "Cannot mkdir: /etc/passwd is not a directory");
    let mut bench = Bench::new();
    bench.launch.sysctls = vec![("net.foo".to_owned(), "1".to_owned())];
    assert_eq!(
        bench.refused().1,
        "error during container init: open /proc/sys/net/foo: no such file or directory"
    );
}

#[test]
fn a_parked_supervisor_leaves_with_its_engine() {
    let mut bench = Bench::new();
    bench.engine = None;
    assert!(bench.supervisor.wait().unwrap().success());
}

#[test]
fn a_container_outlives_its_engine_and_the_next_one_hears_of_its_end() {
    let mut bench = Bench::shell("read line; echo got $line; exit 3");
    bench.launch.stdin = true;
    let (fds, _attached) = bench.start();
    drop(fds);
    bench.engine = None;

    let engine = bench.reconnect();
    let (hello, fds) = engine.hear();
    assert!(matches!(hello, Event::Hello { version: VERSION, exit: None, .. }), "{hello:?}");
    let (attached, theirs) = attached();
    engine.ask(&Request::Attach { streams: BOTH }, &[theirs]);
    assert!(matches!(engine.hear().0, Event::Attached {}));
    rustix::io::write(&fds[1], b"word\n").unwrap();
    assert_eq!(attached.demultiplexed().0, "got word\n");
    assert_eq!(engine.exited(None).code, 3);
}

#[test]
fn an_exec_has_its_own_output_and_code() {
    let mut bench = Bench::with(&["sleep", "1000"]);
    let (fds, _attached) = bench.start();
    let (out, code) = bench
        .exec(&process(&["sh", "-c", "echo $HOME; hostname; readlink /proc/1/exe; exit 5"]))
        .unwrap();
    assert_eq!((out.as_str(), code), ("/root\nbox\n/bin/busybox\n", 5));
    let refused = bench.exec(&process(&["nope"])).unwrap_err();
    assert_eq!(
        refused.message.as_deref(),
        Some("exec: \"nope\": executable file not found in $PATH")
    );
    let refused =
        bench.exec(&Process { cwd: "/none".to_owned(), ..process(&["true"]) }).unwrap_err();
    let sentence = "chdir to cwd (\"/none\") set in config.json failed: no such file or directory";
    assert_eq!((refused.message.as_deref(), refused.code), (Some(sentence), 127));
    pidfd_send_signal(&fds[0], Signal::KILL).unwrap();
    assert_eq!(bench.engine().exited(None).code, 137);
}

#[test]
fn an_exec_sees_the_containers_own_namespaces_and_no_more_descriptors() {
    let mut bench = Bench::with(&["sleep", "1000"]);
    let (fds, _attached) = bench.start();
    let script = "cd /proc/self/ns; for n in cgroup ipc mnt net pid uts; do \
                  [ $(readlink $n) = $(readlink /proc/1/ns/$n) ] || echo $n; done; ls /proc/$$/fd; :";
    let (out, code) = bench.exec(&process(&["sh", "-c", script])).unwrap();
    assert_eq!((out.as_str(), code), ("0\n1\n2\n", 0));
    pidfd_send_signal(&fds[0], Signal::KILL).unwrap();
    bench.engine().exited(None);
}

#[test]
fn the_end_of_the_first_process_is_the_end_of_all() {
    let mut bench = Bench::with(&["sleep", "1000"]);
    let (fds, _attached) = bench.start();
    bench.engine().ask(
        &Request::Exec { id: "long".to_owned() },
        &[memfd(&Process { terminal: true, ..process(&["sleep", "1000"]) })],
    );
    let (started, terminal) = bench.engine().hear();
    assert!(matches!(started, Event::Started { exec: Some(_), .. }), "{started:?}");
    assert_eq!(terminal.len(), 2);
    pidfd_send_signal(&fds[0], Signal::KILL).unwrap();
    assert_eq!(bench.engine().exited(Some("long")).code, 137);
    assert_eq!(bench.engine().exited(None).code, 137);
}

#[test]
fn without_a_pid_namespace_the_rest_is_killed_all_the_same() {
    let mut bench = Bench::shell("sleep 1000 & echo started");
    bench.launch.namespaces.pid = Namespace::Host;
    let (out, _, code) = bench.run();
    assert_eq!((out.as_str(), code), ("started\n", 0));
}

#[test]
fn the_reaper_hands_signals_on_and_buries_orphans() {
    let script = "trap 'ls /proc | grep -c \"^[0-9]\"; exit 9' TERM; (sleep 0 &); (sleep 0 &); echo ready; while :; do sleep 0.01; done";
    let mut bench = Bench::shell(script);
    bench.launch.init = true;
    let (fds, mut attached) = bench.start();
    attached.until("ready");
    pidfd_send_signal(&fds[0], Signal::TERM).unwrap();
    assert_eq!(bench.engine().exited(None).code, 9);
}

#[test]
fn a_supervisor_has_no_zombies() {
    let mut bench = Bench::with(&["sleep", "1000"]);
    let (fds, _attached) = bench.start();
    for _ in 0..3 {
        bench.exec(&process(&["true"])).unwrap();
        bench.exec(&process(&["nope"])).unwrap_err();
    }
    let children = format!("/proc/{0}/task/{0}/children", bench.supervisor.id());
    let children = fs::read_to_string(children).unwrap();
    assert_eq!(children.split_whitespace().count(), 1, "{children}");
    pidfd_send_signal(&fds[0], Signal::KILL).unwrap();
    bench.engine().exited(None);
}

#[test]
fn a_kill_for_want_of_memory_is_seen() {
    let name = format!("tritium-test-oom-{}", std::process::id());
    let v1 = Path::new("/sys/fs/cgroup/memory").exists();
    let mut bench =
        Bench::shell("x=$(dd if=/dev/zero bs=1M count=64 | tr '\\0' x); echo unreachable");
    let group =
        if v1 { Path::new("/sys/fs/cgroup/memory").join(&name) } else { bench.cgroup.clone() };
    if v1 {
        fs::create_dir(&group).unwrap();
        fs::write(group.join("memory.limit_in_bytes"), "33554432").unwrap();
        fs::write(group.join("cgroup.procs"), bench.supervisor.id().to_string()).unwrap();
        bench.launch.oom_file = Some(group.join("memory.oom_control"));
    } else {
        fs::write(group.join("memory.max"), "33554432").unwrap();
        bench.launch.oom_file = Some(group.join("memory.events"));
    }
    bench.launch.process.oom_score_adj = Some(500);
    let (_fds, _attached) = bench.start();
    let exit = bench.engine().exited(None);
    assert_eq!((exit.code, exit.oom_killed), (137, true));
    drop(bench);
    while v1 && fs::remove_dir(&group).is_err() {
        std::thread::yield_now();
    }
}
