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
    let times = (0..200).map(|_| {
        let mut bench = Bench::with(&["/bin/true"]);
        // Parked: what has started is asleep in poll.
        while !fs::read_to_string(format!("/proc/{}/stat", bench.supervisor.id()))
            .unwrap()
            .contains("tritium:parked) S")
        {
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
    });
    let (started, exited) = times.unzip();
    println!("launch to started p50 {:?}, to exited p50 {:?}", p50(started), p50(exited));
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
    bench.launch.log = Some(Log { path: bench.top.join("log"), max_size: None, max_file: None });
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
    for (name, script) in [
        ("zeros", "cat /dev/zero"),
        (
            "lines",
            "yes 'a line of text as programs print them, eighty characters or so, 12345 67890'",
        ),
    ] {
        for logged in [false, true] {
            let mut bench = Bench::shell(&format!("{script} | head -c 1073741824"));
            if name == "zeros" && logged {
                continue;
            }
            bench.launch.log = logged.then(|| Log {
                path: bench.top.join("log"),
                max_size: Some(100 << 20),
                max_file: Some(2),
            });
            let begun = Instant::now();
            let (_fds, attached) = bench.start();
            let (out, _) = attached.demultiplexed();
            assert_eq!(out.len(), 1 << 30);
            println!("{name}, log {logged}: {:.0} MB/s", 1073.74 / begun.elapsed().as_secs_f64());
            bench.engine().exited(None);
        }
    }
}
