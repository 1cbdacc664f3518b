//! `GET /containers/{id}/json`, and what is shared with the list.

use crate::{
    api::human,
    service::{
        ContainerSize, Places,
        seen::{EndpointRecord, Health, MountPoint, Record, Snapshot, State},
    },
    spec::{Config, EndpointSettings, HostConfig},
};
use serde::Serialize;
use std::collections::BTreeMap;

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(in crate::api) struct Inspect<'a> {
    id: String,
    created: String,
    path: &'a str,
    args: &'a [String],
    state: InspectState,
    image: String,
    resolv_conf_path: String,
    hostname_path: String,
    hosts_path: String,
    log_path: String,
    name: String,
    restart_count: u32,
    driver: &'static str,
    platform: &'static str,
    mount_label: &'static str,
    process_label: &'static str,
    app_armor_profile: &'static str,
    #[serde(rename = "ExecIDs")]
    exec_ids: Option<Vec<String>>,
    host_config: &'a HostConfig,
    graph_driver: GraphDriver,
    #[serde(skip_serializing_if = "Option::is_none")]
    size_rw: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    size_root_fs: Option<u64>,
    mounts: Vec<Mount>,
    config: &'a Config,
    network_settings: NetworkSettings,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
#[expect(clippy::struct_excessive_bools, reason = "Docker's own struct has them")]
struct InspectState {
    status: &'static str,
    running: bool,
    paused: bool,
    restarting: bool,
    #[serde(rename = "OOMKilled")]
    oom_killed: bool,
    dead: bool,
    pid: i32,
    exit_code: i32,
    error: String,
    started_at: String,
    finished_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    health: Option<HealthState>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct HealthState {
    status: &'static str,
    failing_streak: u32,
    log: Vec<HealthAnswer>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct HealthAnswer {
    start: String,
    end: String,
    exit_code: i32,
    output: String,
}

impl From<&Health> for HealthState {
    fn from(health: &Health) -> Self {
        let answers = health.log.iter().map(|probe| HealthAnswer {
            start: human::moment(Some(probe.start)),
            end: human::moment(Some(probe.end)),
            exit_code: probe.exit_code,
            output: probe.output.clone(),
        });
        Self {
            status: health.status.name(),
            failing_streak: health.failing_streak,
            log: answers.collect(),
        }
    }
}

impl From<&State> for InspectState {
    fn from(state: &State) -> Self {
        let (oom_killed, error, started, finished) = match state {
            State::Created { error, .. } => (false, error.clone(), None, None),
            State::Running { since, .. } | State::Paused { since, .. } => {
                (false, String::new(), Some(*since), None)
            }
            State::Restarting { oom_killed, since, at, .. } => {
                (*oom_killed, String::new(), Some(*since), Some(*at))
            }
            State::Exited { oom_killed, error, since, at, .. } => {
                (*oom_killed, error.clone(), Some(*since), Some(*at))
            }
            State::Removing => (false, String::new(), None, None),
        };
        let restarting = matches!(state, State::Restarting { .. });
        Self {
            status: state.name(),
            // Docker's "running" goes on while it is about to be restarted.
            running: state.is_up() || restarting,
            paused: matches!(state, State::Paused { .. }),
            restarting,
            oom_killed,
            dead: false,
            pid: state.pid().unwrap_or(0),
            exit_code: state.exit_code(),
            error,
            started_at: human::moment(started),
            finished_at: human::moment(finished),
            health: None,
        }
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(in crate::api) struct GraphDriver {
    pub(in crate::api) data: BTreeMap<&'static str, String>,
    pub(in crate::api) name: &'static str,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(in crate::api) struct Mount {
    r#type: &'static str,
    #[serde(skip_serializing_if = "String::is_empty")]
    name: String,
    source: String,
    destination: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    driver: Option<&'static str>,
    mode: String,
    #[serde(rename = "RW")]
    rw: bool,
    propagation: String,
}

impl From<&MountPoint> for Mount {
    fn from(point: &MountPoint) -> Self {
        Self {
            r#type: point.kind(),
            name: point.name().to_owned(),
            source: point.source().to_string_lossy().into_owned(),
            destination: point.destination.clone(),
            driver: point.volume().map(|_| "local"),
            mode: point.mode.clone(),
            rw: point.writable,
            propagation: point.propagation.clone(),
        }
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct NetworkSettings {
    bridge: &'static str,
    #[serde(rename = "SandboxID")]
    sandbox_id: String,
    sandbox_key: String,
    ports: BTreeMap<String, Option<Vec<HostPort>>>,
    hairpin_mode: bool,
    #[serde(rename = "LinkLocalIPv6Address")]
    link_local_ipv6_address: &'static str,
    #[serde(rename = "LinkLocalIPv6PrefixLen")]
    link_local_ipv6_prefix_len: u8,
    #[serde(rename = "SecondaryIPAddresses")]
    secondary_ip_addresses: Option<()>,
    #[serde(rename = "SecondaryIPv6Addresses")]
    secondary_ipv6_addresses: Option<()>,
    #[serde(rename = "EndpointID")]
    endpoint_id: String,
    gateway: String,
    #[serde(rename = "GlobalIPv6Address")]
    global_ipv6_address: String,
    #[serde(rename = "GlobalIPv6PrefixLen")]
    global_ipv6_prefix_len: u8,
    #[serde(rename = "IPAddress")]
    ip_address: String,
    #[serde(rename = "IPPrefixLen")]
    ip_prefix_len: u8,
    #[serde(rename = "IPv6Gateway")]
    ipv6_gateway: String,
    mac_address: String,
    networks: BTreeMap<String, Endpoint>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
struct HostPort {
    host_ip: String,
    host_port: String,
}

/// Docker's `EndpointSettings`: what was asked, and what it got.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(in crate::api) struct Endpoint {
    #[serde(flatten)]
    asked: EndpointSettings,
    #[serde(rename = "NetworkID")]
    network_id: String,
    #[serde(rename = "EndpointID")]
    endpoint_id: String,
    gateway: String,
    #[serde(rename = "IPAddress")]
    ip_address: String,
    #[serde(rename = "IPPrefixLen")]
    ip_prefix_len: u8,
    #[serde(rename = "IPv6Gateway")]
    ipv6_gateway: String,
    #[serde(rename = "GlobalIPv6Address")]
    global_ipv6_address: String,
    #[serde(rename = "GlobalIPv6PrefixLen")]
    global_ipv6_prefix_len: u8,
    #[serde(rename = "DNSNames")]
    dns_names: Option<Vec<String>>,
}

impl Endpoint {
    fn of(container: &Record, network: &str, record: &EndpointRecord) -> Self {
        let mut asked = record.asked.clone();
        let got = record.endpoint.as_ref();
        let id = got.map(|it| it.network_id).or(record.network_id);
        if let Some(endpoint) = got {
            asked.mac_address = endpoint.mac.to_string();
        }
        Self {
            asked,
            network_id: id.map(|id| id.to_string()).unwrap_or_default(),
            endpoint_id: got.map(|it| it.endpoint_id.to_string()).unwrap_or_default(),
            gateway: shown(got.and_then(|it| it.gateway)),
            ip_address: shown(got.and_then(|it| it.address)),
            ip_prefix_len: got.map(|it| it.prefix).unwrap_or_default(),
            ipv6_gateway: shown(got.and_then(|it| it.gateway6)),
            global_ipv6_address: shown(got.and_then(|it| it.address6)),
            global_ipv6_prefix_len: got.map(|it| it.prefix6).unwrap_or_default(),
            dns_names: container.dns_names(network),
        }
    }
}

/// The container's endpoints by network.
pub(in crate::api) fn endpoints(record: &Record) -> BTreeMap<String, Endpoint> {
    let all = record.endpoints.iter();
    all.map(|(name, it)| (name.clone(), Endpoint::of(record, name, it))).collect()
}

/// Empty if there is none.
fn shown(address: Option<impl ToString>) -> String {
    address.map(|address| address.to_string()).unwrap_or_default()
}

fn ports(snapshot: &Snapshot) -> BTreeMap<String, Option<Vec<HostPort>>> {
    let mut ports = BTreeMap::new();
    if !snapshot.state.is_up() {
        return ports;
    }
    let record = &snapshot.record;
    let mut endpoints = record.endpoints.values().filter_map(|it| it.endpoint.as_ref());
    // As in Docker, only bridges have ports at all.
    let exposed = endpoints.any(|it| it.index.is_none()).then_some(&record.config.exposed_ports);
    for (port, _) in exposed.into_iter().flatten().flatten() {
        let port = if port.contains('/') { port.clone() } else { format!("{port}/tcp") };
        ports.insert(port, None);
    }
    for published in &record.published {
        let port = format!("{}/{}", published.container_port, published.proto);
        let places: &mut Option<Vec<_>> = ports.entry(port).or_default();
        places.get_or_insert_default().push(HostPort {
            host_ip: published.host_ip.to_string(),
            host_port: published.host_port.to_string(),
        });
    }
    ports
}

impl NetworkSettings {
    fn of(snapshot: &Snapshot) -> Self {
        let record = &snapshot.record;
        // The old fields beside `Networks` speak of the default network only.
        let bridge = record.endpoints.get("bridge").map(|it| Endpoint::of(record, "bridge", it));
        let text = |field: fn(&Endpoint) -> &String| {
            bridge.as_ref().map(field).cloned().unwrap_or_default()
        };
        let pid = snapshot.state.pid();
        Self {
            bridge: "",
            sandbox_id: pid.map(|_| record.id.hex()).unwrap_or_default(),
            sandbox_key: pid.map(|pid| format!("/proc/{pid}/ns/net")).unwrap_or_default(),
            ports: ports(snapshot),
            hairpin_mode: false,
            link_local_ipv6_address: "",
            link_local_ipv6_prefix_len: 0,
            secondary_ip_addresses: None,
            secondary_ipv6_addresses: None,
            endpoint_id: text(|it| &it.endpoint_id),
            gateway: text(|it| &it.gateway),
            global_ipv6_address: text(|it| &it.global_ipv6_address),
            global_ipv6_prefix_len: bridge.as_ref().map_or(0, |it| it.global_ipv6_prefix_len),
            ip_address: text(|it| &it.ip_address),
            ip_prefix_len: bridge.as_ref().map(|it| it.ip_prefix_len).unwrap_or_default(),
            ipv6_gateway: text(|it| &it.ipv6_gateway),
            mac_address: text(|it| &it.asked.mac_address),
            networks: endpoints(record),
        }
    }
}

fn graph_driver(record: &Record, places: &Places) -> GraphDriver {
    let mut data = BTreeMap::new();
    data.insert("ID", record.id.hex());
    if let Some(layers) = &places.layers {
        let text = |path: &std::path::Path| path.to_string_lossy().into_owned();
        let lower: Vec<_> = layers.lower.iter().map(|path| text(path)).collect();
        data.insert("LowerDir", lower.join(":"));
        data.insert("MergedDir", text(&layers.merged));
        data.insert("UpperDir", text(&layers.upper));
        data.insert("WorkDir", text(&layers.work));
    }
    GraphDriver { data, name: "overlay2" }
}

impl<'a> Inspect<'a> {
    /// `execs`: those that run or have run in it. `size`: if it was asked for.
    pub(in crate::api) fn of(
        snapshot: &'a Snapshot,
        places: &Places,
        execs: Vec<String>,
        size: Option<ContainerSize>,
    ) -> Self {
        let record = &snapshot.record;
        let (path, args) = match record.args.split_first() {
            Some((path, args)) => (path.as_str(), args),
            None => ("", [].as_slice()),
        };
        // They are written when it is started for the first time.
        let fresh = matches!(&snapshot.state, State::Created { code: 0, .. });
        let file = |name: &str| {
            let path = places.directory.join(name);
            if fresh { String::new() } else { path.to_string_lossy().into_owned() }
        };
        let log = record.host.log_config.kind == "json-file" && !fresh;
        let log_path = if log { places.log.to_string_lossy().into_owned() } else { String::new() };
        Self {
            id: record.id.hex(),
            created: human::moment(Some(record.created)),
            path,
            args,
            state: InspectState {
                health: record.health.as_ref().map(HealthState::from),
                ..(&snapshot.state).into()
            },
            image: record.image.to_string(),
            resolv_conf_path: file("resolv.conf"),
            hostname_path: file("hostname"),
            hosts_path: file("hosts"),
            log_path,
            name: format!("/{}", record.name),
            restart_count: record.restart_count,
            driver: "overlay2",
            platform: "linux",
            mount_label: "",
            process_label: "",
            app_armor_profile: "",
            exec_ids: (!execs.is_empty()).then_some(execs),
            host_config: &record.host,
            graph_driver: graph_driver(record, places),
            size_rw: size.map(|size| size.own),
            size_root_fs: size.map(|size| size.all),
            mounts: record.mounts.iter().map(Mount::from).collect(),
            config: &record.config,
            network_settings: NetworkSettings::of(snapshot),
        }
    }
}
