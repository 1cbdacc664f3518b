//! Every exported name, unit and help text, in one table, and what each takes from a snapshot.
//!
//! Names follow OpenTelemetry's semantic conventions where there is one; what has none is `tritium.…`.
//! Names, image and tenant of a container stand on each of its series, for a Prometheus that
//! leaves resource attributes in `target_info` could not group by them.

use std::time::{Duration, SystemTime};

use crate::{
    sample::{ContainerLabels, ContainerSample, Snapshot},
    trace::{SyscallStats, TraceSnapshot},
    traffic::PeerTraffic,
};

/// How a metric's values behave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// May go up and down.
    Gauge,
    /// Only grows, from its start on.
    Counter,
    /// Counts by duration, growing.
    Histogram,
}

/// One exported name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metric {
    /// OpenTelemetry's name.
    pub name: &'static str,
    /// Unit by UCUM; in braces where it only says what is counted.
    pub unit: &'static str,
    /// How its values behave.
    pub kind: Kind,
    /// What it tells.
    pub help: &'static str,
}

impl Metric {
    const fn new(name: &'static str, unit: &'static str, kind: Kind, help: &'static str) -> Self {
        Self { name, unit, kind, help }
    }

    /// Its name on a Prometheus page: unit and `total` appended, as OpenTelemetry's compatibility page says.
    #[must_use]
    pub fn prometheus_name(&self) -> String {
        let unit = match self.unit {
            "s" => "_seconds",
            "By" => "_bytes",
            _ => "",
        };
        let total = if self.kind == Kind::Counter { "_total" } else { "" };
        format!("{}{unit}{total}", self.name.replace('.', "_"))
    }
}

const UPTIME: Metric =
    Metric::new("container.uptime", "s", Kind::Gauge, "Time since the container was started");
const CPU: Metric = Metric::new("container.cpu.time", "s", Kind::Counter, "CPU time by cpu.mode");
const MEMORY: Metric =
    Metric::new("container.memory.usage", "By", Kind::Gauge, "Memory charged to the container");
const LIMIT: Metric = Metric::new(
    "tritium.container.memory.limit",
    "By",
    Kind::Gauge,
    "Memory limit, where there is one",
);
const PROCESSES: Metric = Metric::new(
    "tritium.container.processes",
    "{process}",
    Kind::Gauge,
    "Processes and threads in the container",
);
const NETWORK: Metric = Metric::new(
    "container.network.io",
    "By",
    Kind::Counter,
    "Bytes by network.io.direction and network.interface.name",
);
const PEER_IO: Metric = Metric::new(
    "tritium.network.io",
    "By",
    Kind::Counter,
    "Bytes of IP packets between a container's sockets and a peer, by network.io.direction",
);
const PACKETS: Metric = Metric::new(
    "tritium.network.packets",
    "{packet}",
    Kind::Counter,
    "IP packets between a container's sockets and a peer, by network.io.direction",
);
const DROPPED: Metric = Metric::new(
    "tritium.network.dropped",
    "{packet}",
    Kind::Counter,
    "Packets and frames of a container that the guard dropped, by peer",
);
const CONNECTIONS: Metric = Metric::new(
    "tritium.network.connections",
    "{connection}",
    Kind::Counter,
    "TCP connections established, by peer and who opened them",
);
const RETRANSMITS: Metric =
    Metric::new("tritium.tcp.retransmits", "{segment}", Kind::Counter, "TCP segments sent again");
const RTT: Metric = Metric::new(
    "tritium.tcp.rtt",
    "s",
    Kind::Histogram,
    "TCP's smoothed round-trip time, every eighth that it measured",
);
const NOT_COUNTED: Metric = Metric::new(
    "tritium.network.uncounted",
    "{event}",
    Kind::Counter,
    "Events for which there was no room among the peers or round-trip times",
);
const DURATION: Metric = Metric::new(
    "tritium.syscall.duration",
    "s",
    Kind::Histogram,
    "Durations of a watched container's system calls",
);
const ERRORS: Metric = Metric::new(
    "tritium.syscall.errors",
    "{error}",
    Kind::Counter,
    "Failed system calls by error.type",
);
const IN_FLIGHT: Metric = Metric::new(
    "tritium.syscall.in_flight",
    "{call}",
    Kind::Gauge,
    "System calls that have not returned yet",
);
const OLDEST: Metric = Metric::new(
    "tritium.syscall.in_flight.age",
    "s",
    Kind::Gauge,
    "Age of the oldest system call in flight",
);
const UNCOUNTED: Metric = Metric::new(
    "tritium.syscall.uncounted",
    "{call}",
    Kind::Counter,
    "System calls that are in no histogram, by reason",
);
const DENIALS: Metric = Metric::new(
    "tritium.policy.denials",
    "{denial}",
    Kind::Counter,
    "What the guard refused, by rule",
);
const RULES: Metric = Metric::new(
    "tritium.policy.rules",
    "{rule}",
    Kind::Gauge,
    "1 for each rule that this host enforces",
);
const CONTAINERS: Metric =
    Metric::new("tritium.containers", "{container}", Kind::Gauge, "Containers by state");
const IMAGES: Metric = Metric::new("tritium.images", "{image}", Kind::Gauge, "Images in the store");
const REQUESTS: Metric = Metric::new(
    "tritium.api.requests",
    "{request}",
    Kind::Counter,
    "API requests answered, by method and status",
);
const ENGINE: Metric =
    Metric::new("tritium.uptime", "s", Kind::Gauge, "Time since the engine was started");

/// Every exported metric.
pub const ALL: [Metric; 24] = [
    UPTIME,
    CPU,
    MEMORY,
    LIMIT,
    PROCESSES,
    NETWORK,
    PEER_IO,
    PACKETS,
    DROPPED,
    CONNECTIONS,
    RETRANSMITS,
    RTT,
    NOT_COUNTED,
    DURATION,
    ERRORS,
    IN_FLIGHT,
    OLDEST,
    UNCOUNTED,
    DENIALS,
    RULES,
    CONTAINERS,
    IMAGES,
    REQUESTS,
    ENGINE,
];

/// One metric's series at one moment.
#[derive(Debug, Clone)]
pub(crate) struct Family {
    pub(crate) metric: Metric,
    pub(crate) points: Vec<Point>,
}

/// One series.
#[derive(Debug, Clone)]
pub(crate) struct Point {
    pub(crate) labels: Vec<(&'static str, String)>,
    /// Since when it counts, where that is known.
    pub(crate) since: Option<SystemTime>,
    pub(crate) value: Value,
}

#[derive(Debug, Clone)]
pub(crate) enum Value {
    Count(u64),
    Seconds(Duration),
    /// Calls shorter than any bucket, calls by bucket, and the sum of all.
    Durations {
        zero: u64,
        buckets: Vec<(i32, u64)>,
        sum: Duration,
    },
}

/// A snapshot as series, in the table's order; metrics without any are left out.
pub(crate) fn families(snapshot: &Snapshot) -> Vec<Family> {
    let mut families: Vec<Family> =
        ALL.iter().map(|metric| Family { metric: *metric, points: Vec::new() }).collect();
    let mut add = |metric: Metric,
                   labels: Vec<(&'static str, String)>,
                   since: Option<SystemTime>,
                   value: Value| {
        if let Some(family) = families.iter_mut().find(|family| family.metric == metric) {
            family.points.push(Point { labels, since, value });
        }
    };
    for container in &snapshot.sample.containers {
        of_container(container, snapshot.at, &mut add);
    }
    for (labels, trace) in &snapshot.syscalls {
        of_trace(labels, trace, &mut add);
    }
    for denial in &snapshot.denials {
        let labels = with(&denial.labels, [("rule", denial.rule.name().to_owned())]);
        // Counted in maps that outlive engines: since when is not known.
        add(DENIALS, labels, None, Value::Count(denial.count));
    }
    for traffic in &snapshot.traffic {
        of_traffic(traffic, &mut add);
    }
    let uncounted = snapshot.uncounted;
    for (kind, count) in [("traffic", uncounted.events), ("rtt", uncounted.round_trips)] {
        let labels = vec![("kind", kind.to_owned())];
        add(NOT_COUNTED, labels, None, Value::Count(count));
    }
    of_engine(snapshot, &mut add);
    families.retain(|family| !family.points.is_empty());
    families
}

type Add<'a> = &'a mut dyn FnMut(Metric, Vec<(&'static str, String)>, Option<SystemTime>, Value);

fn of_container(container: &ContainerSample, now: SystemTime, add: Add<'_>) {
    let (names, since) = (&container.labels, Some(container.started));
    let uptime = now.duration_since(container.started).unwrap_or_default();
    add(UPTIME, with(names, []), None, Value::Seconds(uptime));
    for (mode, time) in [("user", container.cpu_user), ("system", container.cpu_system)] {
        add(CPU, with(names, [("cpu.mode", mode.to_owned())]), since, Value::Seconds(time));
    }
    add(MEMORY, with(names, []), None, Value::Count(container.memory_bytes));
    if let Some(limit) = container.memory_limit {
        add(LIMIT, with(names, []), None, Value::Count(limit));
    }
    add(PROCESSES, with(names, []), None, Value::Count(container.processes));
    for network in &container.network {
        for (direction, bytes) in [("receive", network.received), ("transmit", network.sent)] {
            let labels = with(
                names,
                [
                    ("network.interface.name", network.interface.clone()),
                    ("network.io.direction", direction.to_owned()),
                ],
            );
            add(NETWORK, labels, since, Value::Count(bytes));
        }
    }
}

/// Counted in maps that outlive engines: since when is not known. What never happened is no series.
fn of_traffic(traffic: &PeerTraffic, add: Add<'_>) {
    let (names, counts) = (&traffic.labels, &traffic.counts);
    let peer = || ("peer", traffic.peer.clone());
    let mut count = |metric, label: Option<(&'static str, &str)>, count: u64| {
        if count > 0 {
            let mut labels = with(names, [peer()]);
            labels.extend(label.map(|(key, value)| (key, value.to_owned())));
            add(metric, labels, None, Value::Count(count));
        }
    };
    let direction = |way| Some(("network.io.direction", way));
    count(PEER_IO, direction("receive"), counts.received_bytes);
    count(PEER_IO, direction("transmit"), counts.sent_bytes);
    count(PACKETS, direction("receive"), counts.received_packets);
    count(PACKETS, direction("transmit"), counts.sent_packets);
    count(DROPPED, None, counts.dropped);
    count(CONNECTIONS, Some(("opened.by", "container")), counts.opened);
    count(CONNECTIONS, Some(("opened.by", "peer")), counts.accepted);
    count(RETRANSMITS, None, counts.retransmits);
    if counts.rtt_zero > 0 || !counts.rtt.is_empty() {
        let durations = Value::Durations {
            zero: counts.rtt_zero,
            buckets: counts.rtt.clone(),
            sum: Duration::from_nanos(counts.rtt_nanos),
        };
        add(RTT, with(names, [peer()]), None, durations);
    }
}

fn of_trace(names: &ContainerLabels, trace: &TraceSnapshot, add: Add<'_>) {
    let since = Some(trace.since);
    for stats in &trace.syscalls {
        of_syscall(names, stats, since, add);
    }
    let reasons =
        [("unpaired", trace.unpaired), ("overflowed", trace.overflowed), ("lost", trace.lost)];
    for (reason, count) in reasons {
        add(UNCOUNTED, with(names, [("reason", reason.to_owned())]), since, Value::Count(count));
    }
}

fn of_syscall(
    names: &ContainerLabels,
    stats: &SyscallStats,
    since: Option<SystemTime>,
    add: Add<'_>,
) {
    let call = ("syscall.name", stats.name.clone());
    if stats.calls > 0 {
        let sum = Duration::from_nanos(stats.nanos);
        let durations = Value::Durations { zero: stats.zero, buckets: stats.buckets.clone(), sum };
        add(DURATION, with(names, [call.clone()]), since, durations);
    }
    for error in &stats.errors {
        let labels = with(names, [call.clone(), ("error.type", error.name.clone())]);
        add(ERRORS, labels, since, Value::Count(error.count));
    }
    add(IN_FLIGHT, with(names, [call.clone()]), None, Value::Count(stats.in_flight));
    if stats.in_flight > 0 {
        add(
            OLDEST,
            with(names, [call]),
            None,
            Value::Seconds(Duration::from_nanos(stats.oldest_nanos)),
        );
    }
}

fn of_engine(snapshot: &Snapshot, add: Add<'_>) {
    let (engine, since) = (&snapshot.sample.engine, snapshot.sample.engine_started);
    for rule in snapshot.in_force.iter() {
        add(RULES, vec![("rule", rule.name().to_owned())], None, Value::Count(1));
    }
    for (state, count) in &engine.containers {
        add(CONTAINERS, vec![("state", state.clone())], None, Value::Count(*count));
    }
    add(IMAGES, Vec::new(), None, Value::Count(engine.images));
    for (method, status, count) in &engine.requests {
        let labels = vec![
            ("http.request.method", method.clone()),
            ("http.response.status_code", status.to_string()),
        ];
        add(REQUESTS, labels, Some(since), Value::Count(*count));
    }
    let uptime = snapshot.at.duration_since(since).unwrap_or_default();
    add(ENGINE, Vec::new(), None, Value::Seconds(uptime));
}

/// A container's names and what else tells a series apart.
fn with<const N: usize>(
    names: &ContainerLabels,
    more: [(&'static str, String); N],
) -> Vec<(&'static str, String)> {
    let mut labels = vec![
        ("container.id", names.id.clone()),
        ("container.name", names.name.clone()),
        ("container.image.name", names.image.clone()),
        ("tenant", names.tenant.clone()),
    ];
    labels.extend(more);
    labels
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_on_a_prometheus_page_say_unit_and_kind() {
        assert_eq!(CPU.prometheus_name(), "container_cpu_time_seconds_total");
        assert_eq!(MEMORY.prometheus_name(), "container_memory_usage_bytes");
        assert_eq!(DURATION.prometheus_name(), "tritium_syscall_duration_seconds");
        assert_eq!(CONTAINERS.prometheus_name(), "tritium_containers");
    }

    #[test]
    fn no_name_stands_twice() {
        let names: std::collections::HashSet<_> = ALL.iter().map(|metric| metric.name).collect();
        assert_eq!(names.len(), ALL.len());
        assert!(ALL.iter().all(|metric| !metric.help.is_empty()));
    }
}
