//! What the probes cost. Prints; asserts no time.

use std::time::{Duration, Instant};

use tritium_probes::DevicePolicy;

use crate::house::{House, admission};

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn nanos_per_call(calls: u32) -> f64 {
    let start = Instant::now();
    for _ in 0..calls {
        nix::unistd::getppid();
    }
    start.elapsed().as_nanos() as f64 / f64::from(calls)
}

fn middle(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[test]
#[ignore = "measures; run it alone, in a release build"]
fn costs() {
    let house = House::new();
    let start = Instant::now();
    let probes = house.start();
    println!("start {:?}", start.elapsed());
    let start = Instant::now();
    let again = house.start();
    println!("start, taking over {:?}", start.elapsed());
    drop(again);
    let (here, elsewhere) = (house.admitted(&probes, "here"), house.admitted(&probes, "elsewhere"));
    std::fs::write(here.path.join("cgroup.procs"), "0").unwrap();
    let mut admits = Vec::new();
    for _ in 0..1001 {
        let policy = admission("a", "here");
        assert!(matches!(policy.devices, DevicePolicy::List(_)));
        let start = Instant::now();
        probes.guard().admit(here.id, &policy).unwrap();
        admits.push(start.elapsed());
    }
    println!("admit {:?}", median(admits));
    let (mut off, mut other, mut watched) = (Vec::new(), Vec::new(), Vec::new());
    let (mut attach, mut detach, mut more) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..15 {
        off.push(nanos_per_call(200_000));
        let start = Instant::now();
        probes.trace().watch(elsewhere.id).unwrap();
        attach.push(start.elapsed());
        other.push(nanos_per_call(200_000));
        let start = Instant::now();
        probes.trace().watch(here.id).unwrap();
        more.push(start.elapsed());
        watched.push(nanos_per_call(200_000));
        let calls = probes.trace().snapshot(here.id).unwrap();
        let ppid = calls.syscalls.iter().find(|s| s.name == "getppid").unwrap();
        assert_eq!(ppid.calls, 200_000);
        probes.trace().unwatch(here.id).unwrap();
        let start = Instant::now();
        probes.trace().unwatch(elsewhere.id).unwrap();
        detach.push(start.elapsed());
        if watched.len() == 15 {
            println!("floor {:?}", ppid.percentiles());
        }
    }
    let (off, other, watched) = (middle(off), middle(other), middle(watched));
    println!(
        "getppid: off {off:.0} ns, attached and not watched {other:.0} ns (x{:.2}), watched {watched:.0} ns (x{:.2})",
        other / off,
        watched / off
    );
    println!(
        "first watch {:?}, next watch {:?}, last unwatch {:?}",
        median(attach),
        median(more),
        median(detach)
    );
    std::fs::write(house.config.cgroup_root.join("cgroup.procs"), "0").unwrap();
}
