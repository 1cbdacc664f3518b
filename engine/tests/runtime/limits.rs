//! Limits, as the container feels them.

use crate::host::{Host, new_id, quiet, within};
use tritium_engine::{error::Error, spec::HostConfig};

#[tokio::test]
async fn too_much_memory_is_an_oom_kill() {
    let host = Host::new().await;
    let small = HostConfig { memory: 16 << 20, ..quiet() };
    let eat = "dd if=/dev/zero of=/dev/null bs=200M count=1";
    let (_, exit) = host.run(&["sh", "-c", &format!("exec {eat}")], &small).await;
    assert_eq!((exit.code, exit.oom_killed), (137, true));
    host.settled().await;
}

#[tokio::test]
async fn limits_are_in_the_kernels_files_and_can_be_changed() {
    let host = Host::new().await;
    let asked = HostConfig {
        memory: 64 << 20,
        nano_cpus: 500_000_000,
        cpu_shares: 512,
        cpuset_cpus: "0".into(),
        pids_limit: Some(50),
        ..quiet()
    };
    let id = new_id();
    let prepared = host.runtime.prepare(id, &asked).await.unwrap();
    let running = prepared.launch(host.job(id, &["sleep", "1000"], &asked)).await.unwrap();
    let usage = running.usage().unwrap();
    assert_eq!(usage.memory.limit, Some(64 << 20));
    assert_eq!((usage.pids, usage.pids_limit), (1, Some(50)));
    assert!(usage.memory.usage > 0);
    let status = std::fs::read_to_string(format!("/proc/{}/status", running.pid())).unwrap();
    assert!(status.lines().any(|line| line == "Cpus_allowed_list:\t0"), "{status}");
    for memory in [256 << 20, 32 << 20] {
        running.update(&HostConfig { memory, pids_limit: Some(9), ..quiet() }).await.unwrap();
        let usage = running.usage().unwrap();
        assert_eq!((usage.memory.limit, usage.pids_limit), (Some(memory.cast_unsigned()), Some(9)));
    }
    running.signal(9).unwrap();
    within(running.exited()).await;
    host.done(id).await;
    host.settled().await;
}

#[tokio::test]
async fn no_more_processes_than_asked_for() {
    let host = Host::new().await;
    let few = HostConfig { pids_limit: Some(2), ..quiet() };
    let script = "sleep 0 & sleep 0; wait; (sleep 0; sleep 0; echo no) | cat | cat";
    let (output, exit) = host.run(&["sh", "-c", script], &few).await;
    assert!(output.contains("can't fork"), "{output} {exit:?}");
}

#[tokio::test]
async fn a_limit_that_the_kernel_refuses_leaves_nothing() {
    let host = Host::new().await;
    let wrong = HostConfig { cpuset_cpus: "4095".into(), ..quiet() };
    match host.runtime.prepare(new_id(), &wrong).await {
        Err(Error::NotStarted { message, .. }) => {
            assert!(message.contains("error setting cgroup config"), "{message}");
        }
        other => panic!("{other:?}"),
    }
    host.settled().await;
}
