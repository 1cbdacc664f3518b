//! Nothing is left: not after a life, not after half a start.

use crate::host::{Host, new_id, quiet};
use std::collections::BTreeSet;
use tritium_engine::runtime::BindMount;

/// Of this host: other tests, and the machine, have their own.
fn mounts(host: &Host) -> usize {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let dir = host.dir.path().to_str().unwrap();
    table.lines().filter(|line| line.contains(dir)).count()
}

fn run_dirs(host: &Host) -> usize {
    std::fs::read_dir(host.dir.path().join("run/containers")).unwrap().count()
}

/// Of containers: children of supervisors.
fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

#[tokio::test]
async fn a_life_leaves_nothing() {
    let host = Host::new().await;
    host.run(&["true"], &quiet()).await;
    host.settled().await;
    let dirs = run_dirs(&host);
    for _ in 0..5 {
        host.run(&["true"], &quiet()).await;
    }
    host.settled().await;
    assert_eq!((mounts(&host), run_dirs(&host)), (0, dirs));
    assert_eq!(host.groups_of_containers(), BTreeSet::new());
}

#[tokio::test]
async fn a_start_that_fails_half_way_leaves_nothing() {
    let host = Host::new().await;
    for _ in 0..3 {
        let (id, quiet) = (new_id(), quiet());
        let prepared = host.runtime.prepare(id, &quiet).await.unwrap();
        let mut job = host.job(id, &["true"], &quiet);
        job.mounts.push(BindMount {
            source: "/dev/null".into(),
            destination: "/etc".into(),
            readonly: false,
            recursive: true,
            propagation: String::new(),
        });
        let (_, message) = host.refused(prepared, job).await;
        assert!(message.contains("error during container init"), "{message}");
    }
    host.settled().await;
    assert_eq!((mounts(&host), run_dirs(&host)), (0, 0));
}

#[tokio::test]
async fn a_place_that_is_not_used_is_taken_back() {
    let host = Host::new().await;
    let id = new_id();
    let prepared = host.runtime.prepare(id, &quiet()).await.unwrap();
    assert_ne!(prepared.cgroup_id(), 0);
    drop(prepared);
    host.settled().await;
    // And can be taken again, at once.
    drop(host.runtime.prepare(id, &quiet()).await.unwrap());
    let again = host.runtime.prepare(id, &quiet()).await.unwrap();
    let running = again.launch(host.job(id, &["true"], &quiet())).await.unwrap();
    assert_eq!(running.exited().await.code, 0);
    host.done(id).await;
    host.settled().await;
}

#[tokio::test]
async fn descriptors_do_not_pile_up() {
    let host = Host::new().await;
    let round = || async {
        host.run(&["true"], &quiet()).await;
        host.settled().await;
        crate::host::wait_for("the pool", || host.runtime.parked() == 2).await;
    };
    round().await;
    let before = descriptors();
    for _ in 0..10 {
        round().await;
    }
    // Other tests of this process have theirs at the same time.
    assert!(descriptors() < before + 60, "{before} before, {} now", descriptors());
}
