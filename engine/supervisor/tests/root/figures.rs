//! Figures, not promises: `cargo test -p tritium-supervisor --test root
//! figures -- --ignored --nocapture --test-threads 1`.

use crate::harness::*;
use rustix::process::{Signal, pidfd_send_signal};
use std::fs;
use std::time::{Duration, Instant};
use tritium_supervisor::protocol::*;

fn p50(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

#[test]
#[ignore = "measures; says nothing about right or wrong"]
fn launch_of_true() {
    for network in [Namespace::New, Namespace::Host] {
        let (started, exited) = (0..200).map(|_| launched_in(&network)).unzip();
        println!(
            "network {network:?}: launch to started p50 {:?}, to exited p50 {:?}",
            p50(started),
            p50(exited)
        );
    }
}

fn launched_in(network: &Namespace) -> (Duration, Duration) {
    let mut bench = Bench::with(&["/bin/true"]);
    bench.launch.namespaces.network = network.clone();
    // Parked: what has started is asleep in poll.
    let stat = format!("/proc/{}/stat", bench.supervisor.id());
    while !fs::read_to_string(&stat).unwrap().contains("tritium:parked) S") {
        std::thread::yield_now();
    }
    let begun = Instant::now();
    bench.send_launch(Vec::new());
    let started = match bench.engine().hear() {
        (Event::Started { .. }, _) => begun.elapsed(),
        other => panic!("{other:?}"),
    };
    bench.engine().exited(None);
    (started, begun.elapsed())
}

#[test]
#[ignore = "measures; says nothing about right or wrong"]
fn exec_of_true() {
    let mut bench = Bench::with(&["sleep", "1000"]);
    let (fds, _attached) = bench.start();
    let times = (0..200).map(|_| {
        let begun = Instant::now();
        bench.exec(&process(&["/bin/true"])).unwrap();
        begun.elapsed()
    });
    println!("exec p50 {:?}", p50(times.collect()));
    let status =
        fs::read_to_string(format!("/proc/{}/smaps_rollup", bench.supervisor.id())).unwrap();
    println!("after 200 execs:\n{status}");
    pidfd_send_signal(&fds[0], Signal::KILL).unwrap();
    bench.engine().exited(None);
}

#[test]
#[ignore = "measures; says nothing about right or wrong"]
fn memory_of_an_idle_one() {
    let mut bench = Bench::with(&["sleep", "1000"]);
    bench.launch.log = Some(Log {
        path: bench.top.join("log"),
        max_size: None,
        max_file: None,
        compress: false,
        attributes: None,
    });
    let (fds, _attached) = bench.start();
    let of =
        |file: &str| fs::read_to_string(format!("/proc/{}/{file}", bench.supervisor.id())).unwrap();
    let pss = || {
        let text = of("smaps_rollup");
        text.lines()
            .find_map(|line| {
                line.strip_prefix("Pss:")?.trim().strip_suffix(" kB")?.parse::<u32>().ok()
            })
            .unwrap()
    };
    let (begun, busy) = (Instant::now(), pss());
    while begun.elapsed() < Duration::from_secs(3) {
        std::thread::yield_now();
    }
    println!("{}", of("smaps"));
    println!("busy {busy} kB, at rest {} kB", pss());
    pidfd_send_signal(&fds[0], Signal::KILL).unwrap();
    bench.engine().exited(None);
}

#[test]
#[ignore = "measures; says nothing about right or wrong"]
fn a_gibibyte_through_standard_output() {
    let line = "a line of text as programs print them, eighty characters long or so, 0123456789\n";
    for (script, logged) in [
        ("dd if=/dev/zero bs=1M count=1024 2>/dev/null", false),
        ("for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16; do cat /lines; done", false),
        ("for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16; do cat /lines; done", true),
    ] {
        let mut bench = Bench::shell(script);
        let lines = line.repeat((64 << 20) / line.len());
        fs::write(bench.top.join("layers/base/lines"), lines).unwrap();
        let path = bench.top.join("log");
        bench.launch.log = logged.then_some(Log {
            path,
            max_size: Some(100 << 20),
            max_file: Some(2),
            compress: false,
            attributes: None,
        });
        let begun = Instant::now();
        bench.send_launch(Vec::new());
        bench.engine().hear();
        bench.engine().exited(None);
        println!("{script}, log {logged}: {:.0} MB/s", 1073.74 / begun.elapsed().as_secs_f64());
    }
}
