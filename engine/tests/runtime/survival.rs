//! Engines go, containers stay.

use crate::host::{Host, exec, kill, new_id, quiet, within};
use std::time::Instant;
use tritium_engine::runtime::{Adopted, Running};

fn alive(adopted: Adopted) -> Running {
    match adopted {
        Adopted::Running(running) => running,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn the_next_engine_takes_a_container_over() {
    let mut host = Host::new().await;
    let (id, running) = host.launch(&["sleep", "1000"]).await;
    let (pid, cgroup) = (running.pid(), running.cgroup_id());
    drop(running);
    host.restart().await;
    let running = alive(host.runtime.adopt(id, &quiet()).await.unwrap());
    assert_eq!((running.pid(), running.cgroup_id()), (pid, cgroup));
    let beside = running.exec(exec(&["true"])).await.unwrap();
    assert_eq!(within(beside.exited()).await.code, 0);
    host.runtime.sweep(&[id]).await.unwrap();
    running.signal(9).unwrap();
    assert_eq!(within(running.exited()).await.code, 137);
    host.done(id).await;
    host.settled().await;
}

#[tokio::test]
async fn what_ended_meanwhile_is_known_until_it_is_forgotten() {
    let mut host = Host::new().await;
    let (id, running) = host.launch(&["sleep", "1000"]).await;
    let pid = running.pid();
    host.runtime.stop();
    drop(running);
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::SIGKILL).unwrap();
    crate::host::wait_for("the exit file", || {
        host.dir.path().join("run/containers").join(id.hex()).join("exit.json").exists()
    })
    .await;
    host.restart().await;
    for _ in 0..2 {
        match host.runtime.adopt(id, &quiet()).await.unwrap() {
            Adopted::Exited(exit) => assert_eq!(exit.code, 137),
            other => panic!("{other:?}"),
        }
    }
    host.runtime.forget_exit(id);
    assert!(matches!(host.runtime.adopt(id, &quiet()).await.unwrap(), Adopted::Gone));
    host.done(id).await;
    host.settled().await;
}

#[tokio::test]
async fn a_container_does_not_outlive_its_supervisor() {
    let mut host = Host::new().await;
    let (id, running) = host.launch(&["sleep", "1000"]).await;
    let supervisor = parent(running.pid());
    kill(supervisor);
    assert_eq!(within(running.exited()).await.code, 255);
    crate::host::wait_for("the process to go", || !is_alive(running.pid())).await;
    host.done(id).await;
    // The same while no engine looks.
    let (id, running) = host.launch(&["sleep", "1000"]).await;
    let pid = running.pid();
    host.runtime.stop();
    drop(running);
    kill(parent(pid));
    host.restart().await;
    assert!(matches!(host.runtime.adopt(id, &quiet()).await.unwrap(), Adopted::Gone));
    crate::host::wait_for("the process to go", || !is_alive(pid)).await;
    host.done(id).await;
    host.settled().await;
}

#[tokio::test]
async fn a_hundred_containers_are_adopted_in_a_second() {
    let mut host = Host::with_ready(16).await;
    let mut ids = Vec::new();
    for _ in 0..100 {
        ids.push(host.launch(&["sleep", "1000"]).await.0);
    }
    host.restart().await;
    let from = Instant::now();
    let quiet = quiet();
    let adoptions = ids.iter().map(|id| host.runtime.adopt(*id, &quiet));
    let adopted = futures_util::future::join_all(adoptions).await;
    let took = from.elapsed();
    println!("100 adopted in {took:?}");
    for (id, adopted) in ids.iter().zip(adopted) {
        let running = alive(adopted.unwrap());
        running.signal(9).unwrap();
        within(running.exited()).await;
        host.done(*id).await;
    }
    host.settled().await;
}

#[tokio::test]
async fn strangers_are_swept_away_and_known_ones_are_not() {
    let mut host = Host::new().await;
    let (known, _running) = host.launch(&["sleep", "1000"]).await;
    let (stranger, strange) = host.launch(&["sleep", "1000"]).await;
    let pid = strange.pid();
    drop(strange);
    host.restart().await;
    host.runtime.sweep(&[known]).await.unwrap();
    crate::host::wait_for("the stranger to go", || !is_alive(pid)).await;
    assert!(!host.dir.path().join("run/containers").join(stranger.hex()).exists());
    let running = alive(host.runtime.adopt(known, &quiet()).await.unwrap());
    running.signal(9).unwrap();
    within(running.exited()).await;
    host.done(known).await;
    host.settled().await;
}

#[tokio::test]
async fn a_parked_supervisor_that_was_killed_is_not_used() {
    let host = Host::new().await;
    crate::host::wait_for("the pool", || host.runtime.parked() == 2).await;
    let me = std::process::id().cast_signed();
    let mut pids: Vec<i32> = Vec::new();
    for group in host.groups().into_iter().chain(host.supervisors()) {
        let procs = std::fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
        pids.extend(procs.lines().filter_map(|pid| pid.parse::<i32>().ok()).filter(|it| *it != me));
    }
    assert!(!pids.is_empty());
    pids.iter().copied().for_each(kill);
    crate::host::wait_for("them to die", || !pids.iter().copied().any(is_alive)).await;
    let (output, exit) = host.run(&["echo", "up"], &quiet()).await;
    assert_eq!((output.as_str(), exit.code), ("up\n", 0));
}

#[tokio::test]
async fn what_an_engine_that_died_had_parked_goes_with_the_next() {
    let mut host = Host::new().await;
    crate::host::wait_for("the pool", || host.runtime.parked() == 2).await;
    let before = host.groups();
    host.restart().await;
    crate::host::wait_for("the pool", || host.runtime.parked() == 2).await;
    crate::host::wait_for("the old ones to go", || host.groups().len() <= before.len()).await;
    assert!(matches!(host.runtime.adopt(new_id(), &quiet()).await.unwrap(), Adopted::Gone));
}

fn parent(pid: i32) -> i32 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit_once(')').unwrap().1.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn is_alive(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit_once(')').unwrap().1.starts_with(" Z"))
}
