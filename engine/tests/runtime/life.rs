//! Start, signal, exec, end.

use crate::host::{Host, exec, new_id, quiet, within};
use tokio::io::AsyncReadExt;
use tritium_engine::{
    runtime::ExecStdio,
    spec::{Config, HostConfig},
};

#[tokio::test]
async fn a_container_runs_and_tells_how_it_ended() {
    let host = Host::new().await;
    let (output, exit) = host.run(&["sh", "-c", "echo $HOSTNAME; exit 7"], &quiet()).await;
    assert_eq!(output.trim().len(), 12);
    assert_eq!((exit.code, exit.oom_killed), (7, false));
    host.settled().await;
}

#[tokio::test]
async fn a_signal_ends_it_and_a_second_one_finds_nobody() {
    let host = Host::new().await;
    let (id, running) = host.launch(&["sleep", "1000"]).await;
    running.signal(9).unwrap();
    let (one, other) = tokio::join!(running.exited(), running.exited());
    assert_eq!((one.code, other.code), (137, 137));
    let refused = running.signal(15).unwrap_err().to_string();
    assert_eq!(refused, format!("container {id} is not running"));
    assert!(running.signal(900).is_err());
    host.done(id).await;
    host.settled().await;
}

#[tokio::test]
async fn a_real_time_signal_is_delivered() {
    let host = Host::new().await;
    let script = "trap 'exit 3' 40; echo > /tmp/up; while :; do sleep 0.05; done";
    let (id, running) = host.launch(&["sh", "-c", script]).await;
    let up = format!("/proc/{}/root/tmp/up", running.pid());
    crate::host::wait_for("the trap", || std::path::Path::new(&up).exists()).await;
    running.signal(40).unwrap();
    assert_eq!(within(running.exited()).await.code, 3);
    host.done(id).await;
}

#[tokio::test]
async fn a_command_that_is_missing_reads_as_dockers() {
    let host = Host::new().await;
    let prefix = "failed to create task for container: failed to create shim task: OCI runtime \
                  create failed: runc create failed: unable to start container process: ";
    for (command, code, reason) in [
        ("nope", 127, "exec: \"nope\": executable file not found in $PATH"),
        ("/nope", 127, "exec: \"/nope\": stat /nope: no such file or directory"),
        ("/etc/passwd", 126, "exec: \"/etc/passwd\": permission denied"),
        ("/etc", 126, "exec: \"/etc\": permission denied"),
    ] {
        let (id, quiet) = (new_id(), quiet());
        let prepared = host.runtime.prepare(id, &quiet).await.unwrap();
        let refused = host.refused(prepared, host.job(id, &[command], &quiet)).await;
        assert_eq!(refused, (code, format!("{prefix}{reason}")));
    }
    host.settled().await;
}

#[tokio::test]
async fn an_exec_runs_beside_the_first_process() {
    let host = Host::new().await;
    let (id, running) = host.launch(&["sleep", "1000"]).await;
    let mut exec_running =
        running.exec(exec(&["sh", "-c", "echo out; echo err >&2; exit 5"])).await.unwrap();
    let ExecStdio::Pipes { stdin: None, stdout: Some(mut out), stderr: Some(mut err) } =
        exec_running.take_stdio()
    else {
        panic!("other streams");
    };
    let (mut text, mut errors) = (String::new(), String::new());
    within(out.read_to_string(&mut text)).await.unwrap();
    within(err.read_to_string(&mut errors)).await.unwrap();
    assert_eq!((text.as_str(), errors.as_str()), ("out\n", "err\n"));
    assert_eq!(within(exec_running.exited()).await.code, 5);
    let missing = running.exec(exec(&["nope"])).await.unwrap_err().to_string();
    assert_eq!(
        missing,
        "OCI runtime exec failed: exec failed: unable to start container process: exec: \"nope\": \
         executable file not found in $PATH"
    );
    running.signal(9).unwrap();
    within(running.exited()).await;
    host.done(id).await;
    host.settled().await;
}

#[tokio::test]
async fn an_exec_ends_with_its_container() {
    let host = Host::new().await;
    let (id, running) = host.launch(&["sleep", "1000"]).await;
    let beside = running.exec(exec(&["sleep", "1000"])).await.unwrap();
    assert_eq!(running.processes().unwrap().len(), 2);
    running.signal(9).unwrap();
    assert_eq!(within(beside.exited()).await.code, 137);
    assert_eq!(within(running.exited()).await.code, 137);
    assert!(running.exec(exec(&["true"])).await.is_err());
    host.done(id).await;
    host.settled().await;
}

#[tokio::test]
async fn what_was_asked_for_is_seen_inside() {
    let host = Host::new().await;
    let asked = HostConfig {
        tmpfs: Some([("/t".into(), "size=1m".into())].into()),
        cap_drop: Some(vec!["ALL".into()]),
        readonly_rootfs: true,
        ..quiet()
    };
    let config = Config {
        env: Some(vec!["A=b".into()]),
        working_dir: "/tmp".into(),
        user: "1:2".into(),
        ..Config::default()
    };
    let script = "echo $A; id -u; id -g; cat /etc/hosts; while read k v; do case $k in CapBnd:) \
                  echo $v;; Seccomp:) echo $v;; esac; done < /proc/self/status; (echo > /x) 2>/dev/null || echo ro; \
                  while read a m t o r; do [ $m = /t ] && echo $o; done < /proc/mounts; true";
    let (output, exit) = host.run_with(&["sh", "-c", script], &asked, config).await;
    let lines: Vec<&str> = output.lines().collect();
    assert_eq!(exit.code, 0, "{output}");
    assert_eq!(&lines[..4], ["b", "1", "2", "hosts of the test"]);
    assert_eq!(&lines[4..6], ["0000000000000000", "2"]);
    assert!(lines.contains(&"ro"), "{output}");
    let tmpfs = lines.last().unwrap();
    assert!(tmpfs.contains("size=1024k") && tmpfs.contains("noexec"), "{tmpfs}");
}

#[tokio::test]
async fn a_paused_container_stands_still() {
    let host = Host::new().await;
    let (id, running) = host.launch(&["sleep", "1000"]).await;
    running.freeze().await.unwrap();
    assert!(running.is_frozen());
    running.thaw().await.unwrap();
    assert!(!running.is_frozen());
    running.signal(9).unwrap();
    within(running.exited()).await;
    host.done(id).await;
}
