//! Figures of this room alone; `make bench` has those of the whole engine.

use crate::host::{Host, exec, new_id, quiet, within};
use std::time::{Duration, Instant};

#[tokio::test(flavor = "multi_thread")]
#[ignore = "prints figures; run it alone, in release mode"]
async fn figures() {
    let host = Host::with_ready(4).await;
    let settle = || crate::host::wait_for("the pool", || host.runtime.parked() == 4);
    let from = Instant::now();
    settle().await;
    println!("4 supervisors parked in {:?}", from.elapsed());
    let quiet = quiet();
    for (name, rested) in [("one after another", false), ("with a full pool", true)] {
        let (mut prepare, mut launch, mut exit, mut clean, mut all) =
            (Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for _ in 0..300 {
            if rested {
                settle().await;
            }
            let id = new_id();
            let job = host.job(id, &["/bin/true"], &quiet);
            let t0 = Instant::now();
            let prepared = host.runtime.prepare(id, &quiet).await.unwrap();
            let t1 = Instant::now();
            let running = prepared.launch(job).await.unwrap();
            let t2 = Instant::now();
            within(running.exited()).await;
            let t3 = Instant::now();
            host.done(id).await;
            let t4 = Instant::now();
            prepare.push(t1 - t0);
            launch.push(t2 - t1);
            exit.push(t3 - t2);
            clean.push(t4 - t3);
            all.push(t4 - t0);
        }
        println!("{name}:");
        for (step, times) in [
            ("prepare", prepare),
            ("launch", launch),
            ("exit", exit),
            ("cleanup", clean),
            ("all", all),
        ] {
            show(step, times);
        }
    }
    let (id, running) = host.launch(&["sleep", "1000"]).await;
    let mut times = Vec::new();
    for _ in 0..300 {
        let from = Instant::now();
        let beside = running.exec(exec(&["/bin/true"])).await.unwrap();
        within(beside.exited()).await;
        times.push(from.elapsed());
    }
    show("exec", times);
    tokio::time::sleep(Duration::from_secs(2)).await;
    println!("PSS of an idle supervisor: {} KiB", pss(parent(running.pid())));
    running.signal(9).unwrap();
    within(running.exited()).await;
    host.done(id).await;
}

#[expect(clippy::print_stdout, reason = "the figures are what it is for")]
fn show(step: &str, mut times: Vec<Duration>) {
    times.sort();
    let at = |percent: usize| times[(times.len() - 1) * percent / 100];
    println!("  {step:8} p50 {:?}  p99 {:?}", at(50), at(99));
}

fn parent(pid: i32) -> i32 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit_once(')').unwrap().1.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn pss(pid: i32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:")).unwrap();
    line.trim().trim_end_matches(" kB").trim().parse().unwrap()
}
