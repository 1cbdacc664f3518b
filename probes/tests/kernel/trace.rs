//! The trace counts exactly, only who is watched, and only while somebody watches.

use std::{
    io::{BufRead as _, BufReader},
    process::Stdio,
    time::Duration,
};

use tritium_probes::{ContainerLabels, Probes, Running, SyscallStats, TraceSnapshot};

use crate::house::{House, admission, inside, outside, said};

fn call<'a>(snapshot: &'a TraceSnapshot, name: &str) -> Option<&'a SyscallStats> {
    snapshot.syscalls.iter().find(|stats| stats.name == name)
}

fn calls(snapshot: &TraceSnapshot, name: &str) -> u64 {
    call(snapshot, name).map_or(0, |stats| stats.calls)
}

#[test]
fn every_call_of_a_watched_container_is_counted_and_no_other() {
    let house = House::new();
    let probes = house.start();
    let (seen, other) = (house.admitted(&probes, "seen"), house.admitted(&probes, "other"));
    probes.trace().watch(seen.id).unwrap();
    assert_eq!(seen.act(&["ppids", "50000"]), "ok");
    assert_eq!(other.act(&["ppids", "777"]), "ok");
    assert_eq!(outside(&["ppids", "777"]), "ok");
    assert_eq!(seen.act(&["threads", "6", "20000"]), "ok");
    let snapshot = probes.trace().snapshot(seen.id).unwrap();
    // The shells that put the actors there ask for their parents once each.
    let shells = calls(&snapshot, "getppid") - 50_000 - 120_000;
    assert!(shells <= 4, "{shells} calls too many");
    assert_eq!((snapshot.lost, snapshot.overflowed), (0, 0));
    let getppid = call(&snapshot, "getppid").unwrap();
    let in_buckets: u64 =
        getppid.zero + getppid.buckets.iter().map(|(_, count)| count).sum::<u64>();
    assert_eq!(in_buckets, getppid.calls);
    let percentiles = getppid.percentiles().unwrap();
    assert!(percentiles.p50 < Duration::from_micros(50), "{percentiles:?}");
}

#[test]
fn two_watched_containers_have_numbers_of_their_own() {
    let house = House::new();
    let probes = house.start();
    let (one, two) = (house.admitted(&probes, "one"), house.admitted(&probes, "two"));
    probes.trace().watch(one.id).unwrap();
    probes.trace().watch(two.id).unwrap();
    let (mut first, mut second) = (
        one.command(&["ppids", "30000"]).spawn().unwrap(),
        two.command(&["ppids", "40000"]).spawn().unwrap(),
    );
    assert!(first.wait().unwrap().success() && second.wait().unwrap().success());
    let of = |id| calls(&probes.trace().snapshot(id).unwrap(), "getppid");
    assert!((30_000..30_003).contains(&of(one.id)) && (40_000..40_003).contains(&of(two.id)));
}

#[test]
fn failures_are_counted_by_errno() {
    let house = House::new();
    let probes = house.start();
    let container = house.admitted(&probes, "c");
    probes.trace().watch(container.id).unwrap();
    container.act(&["absent-files", "1234"]);
    let snapshot = probes.trace().snapshot(container.id).unwrap();
    let absent: u64 = snapshot
        .syscalls
        .iter()
        .filter(|stats| ["lstat", "newfstatat"].contains(&stats.name.as_str()))
        .flat_map(|stats| &stats.errors)
        .filter(|error| error.name == "ENOENT")
        .map(|error| error.count)
        .sum();
    assert!((1234..1300).contains(&absent), "{absent}");
}

#[test]
fn a_sleep_takes_as_long_as_it_says() {
    let house = House::new();
    let probes = house.start();
    let container = house.admitted(&probes, "c");
    probes.trace().watch(container.id).unwrap();
    container.act(&["sleeps", "20", "5"]);
    let snapshot = probes.trace().snapshot(container.id).unwrap();
    let sleep = call(&snapshot, "clock_nanosleep").unwrap();
    let median = sleep.percentiles().unwrap().p50;
    assert_eq!(sleep.calls, 20);
    assert!(
        median >= Duration::from_micros(4890) && median < Duration::from_millis(50),
        "{median:?}"
    );
    assert!(sleep.nanos >= 100_000_000);
}

#[test]
fn a_call_that_has_not_returned_is_seen_in_flight() {
    let house = House::new();
    let probes = house.start();
    let container = house.admitted(&probes, "c");
    probes.trace().watch(container.id).unwrap();
    let mut reader = container.command(&["read-for-ever"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(reader.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("reading")));
    let in_flight = loop {
        let snapshot = probes.trace().snapshot(container.id).unwrap();
        if let Some(read) = call(&snapshot, "read").filter(|read| read.in_flight > 0) {
            break read.clone();
        }
        std::thread::yield_now();
    };
    assert_eq!(in_flight.in_flight, 1);
    assert!(in_flight.oldest_nanos > 0);
    reader.kill().unwrap();
    reader.wait().unwrap();
    let snapshot = probes.trace().snapshot(container.id).unwrap();
    assert!(snapshot.syscalls.iter().all(|stats| stats.in_flight == 0), "the dead are in no call");
}

#[test]
fn child_cgroups_belong_to_the_container() {
    let house = House::new();
    let probes = house.start();
    let container = house.admitted(&probes, "c");
    probes.trace().watch(container.id).unwrap();
    let child = container.path.join("child");
    assert_eq!(container.act(&["child-cgroup", child.to_str().unwrap(), "5000"]), "ok");
    assert!(
        (5000..5003).contains(&calls(&probes.trace().snapshot(container.id).unwrap(), "getppid"))
    );
}

#[test]
fn nothing_is_attached_while_nobody_watches() {
    let house = House::new();
    let probes = house.start();
    let container = house.admitted(&probes, "c");
    let ours = || {
        let pins = std::fs::read_dir(&house.config.pin_dir).unwrap().flatten();
        pins.filter(|pin| pin.file_name().to_string_lossy().starts_with("trace-")).count()
    };
    assert!(!probes.trace().attached());
    assert_eq!(ours(), 0);
    probes.trace().watch(container.id).unwrap();
    probes.trace().watch(container.id).unwrap();
    assert!(probes.trace().attached());
    assert_eq!(ours(), 1);
    probes.trace().unwatch(container.id).unwrap();
    assert!(probes.trace().attached(), "watches are counted");
    probes.trace().unwatch(container.id).unwrap();
    assert!(!probes.trace().attached());
    assert_eq!(ours(), 0, "the pins are what keeps programs attached");
    assert!(probes.trace().snapshot(container.id).is_err());
}

#[tokio::test]
async fn a_watch_with_a_time_ends_by_itself() {
    let house = House::new();
    let probes = house.start();
    let container = house.admitted(&probes, "c");
    probes.trace().watch_for(container.id, Duration::from_millis(10)).unwrap();
    assert!(probes.trace().attached());
    let stop = tokio_util::sync::CancellationToken::new();
    tokio::select! {
        () = probes.run(stop.clone()) => {}
        () = async { while probes.trace().attached() { tokio::task::yield_now().await } } => {}
    }
    assert!(!probes.trace().attached());
}

#[test]
fn numbers_go_on_over_a_restart_of_the_engine() {
    let house = House::new();
    let container = house.container("c");
    let first = house.start();
    first.guard().admit(container.id, &admission("default", "c")).unwrap();
    first.trace().watch(container.id).unwrap();
    container.act(&["ppids", "1000"]);
    let before = first.trace().snapshot(container.id).unwrap();
    drop(first);
    container.act(&["ppids", "2000"]);
    let running = Running {
        cgroup: container.id,
        admission: admission("default", "c"),
        interfaces: Vec::new(),
        traced: true,
    };
    let second = Probes::start(&house.with_running(vec![running])).unwrap();
    container.act(&["ppids", "4000"]);
    let after = second.trace().snapshot(container.id).unwrap();
    assert!((7000..7008).contains(&calls(&after, "getppid")), "{}", calls(&after, "getppid"));
    assert_eq!(before.since, after.since);
    let labels =
        ContainerLabels { id: "x".into(), name: "x".into(), image: "x".into(), tenant: "x".into() };
    second.trace().forget(container.id, labels).unwrap();
    assert!(!second.trace().attached());
}

#[test]
fn a_slot_that_is_used_again_starts_from_nothing() {
    let house = House::new();
    let probes = house.start();
    let (keeper, first) = (house.admitted(&probes, "keeper"), house.admitted(&probes, "first"));
    probes.trace().watch(keeper.id).unwrap();
    probes.trace().watch(first.id).unwrap();
    first.act(&["ppids", "3000"]);
    probes.trace().unwatch(first.id).unwrap();
    assert!(probes.trace().snapshot(first.id).is_err());
    probes.trace().watch(first.id).unwrap();
    assert_eq!(calls(&probes.trace().snapshot(first.id).unwrap(), "getppid"), 0);
    assert_eq!(said(&inside(&first.path, &["ppids", "10"]).output().unwrap()), "ok");
    assert!((10..13).contains(&calls(&probes.trace().snapshot(first.id).unwrap(), "getppid")));
}
