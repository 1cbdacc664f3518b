//! `GET /version`, `GET /info`, `GET /events`.

use crate::{
    api::version,
    events::Event,
    service::{Counts, Host},
};
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The engine's own version.
pub(in crate::api) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Go's names for machines.
fn go_arch(machine: &str) -> &str {
    match machine {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(in crate::api) struct Version {
    platform: Platform,
    components: Vec<Component>,
    version: &'static str,
    api_version: String,
    #[serde(rename = "MinAPIVersion")]
    min_api_version: String,
    git_commit: &'static str,
    go_version: &'static str,
    os: &'static str,
    arch: String,
    kernel_version: String,
    build_time: &'static str,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Platform {
    name: &'static str,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Component {
    name: &'static str,
    version: &'static str,
    details: BTreeMap<&'static str, String>,
}

impl Version {
    pub(in crate::api) fn of(host: &Host) -> Self {
        let details = BTreeMap::from([
            ("ApiVersion", version::NEWEST.to_string()),
            ("Arch", go_arch(&host.machine).to_owned()),
            ("Experimental", "false".to_owned()),
            ("KernelVersion", host.kernel.clone()),
            ("MinAPIVersion", version::OLDEST.to_string()),
            ("Os", "linux".to_owned()),
        ]);
        Self {
            platform: Platform { name: "Tritium" },
            // Clients look for this name to find the engine among the parts.
            components: vec![Component { name: "Engine", version: VERSION, details }],
            version: VERSION,
            api_version: version::NEWEST.to_string(),
            min_api_version: version::OLDEST.to_string(),
            git_commit: "",
            // No Go here.
            go_version: "",
            os: "linux",
            arch: go_arch(&host.machine).to_owned(),
            kernel_version: host.kernel.clone(),
            build_time: "",
        }
    }
}

/// What `docker info` wants to know.
#[derive(Debug)]
pub(in crate::api) struct Info<'a> {
    pub(in crate::api) host: &'a Host,
    pub(in crate::api) counts: Counts,
    pub(in crate::api) id: &'a str,
    pub(in crate::api) root: String,
    pub(in crate::api) in_force: Vec<String>,
    pub(in crate::api) now: String,
}

impl Info<'_> {
    pub(in crate::api) fn json(&self) -> Value {
        let mut info = self.engine();
        let rest = [self.limits(), self.platform(), constants()];
        if let Value::Object(info) = &mut info {
            for part in rest {
                if let Value::Object(part) = part {
                    info.extend(part);
                }
            }
        }
        info
    }

    fn engine(&self) -> Value {
        let counts = self.counts;
        let mut security = vec!["name=seccomp,profile=builtin".to_owned()];
        security.extend(self.in_force.iter().cloned());
        json!({
            "ID": self.id,
            "Containers": counts.all,
            "ContainersRunning": counts.running,
            "ContainersPaused": counts.paused,
            "ContainersStopped": counts.all - counts.running - counts.paused,
            "Images": counts.images,
            "SystemTime": self.now,
            "DockerRootDir": self.root,
            "NFd": self.host.open_files,
            "ServerVersion": VERSION,
            "SecurityOptions": security,
        })
    }

    fn limits(&self) -> Value {
        let has = |name: &str| self.host.controllers.iter().any(|own| own == name);
        let (v1, cpu) = (self.host.cgroup_version == 1, has("cpu"));
        let mut limits = json!({
            "MemoryLimit": has("memory"),
            "SwapLimit": has("memory") && self.host.swap_accounting,
            "CpuCfsPeriod": cpu,
            "CpuCfsQuota": cpu,
            "CPUShares": cpu,
            "CPUSet": has("cpuset"),
            "PidsLimit": has("pids"),
            "OomKillDisable": v1 && has("memory"),
            "IPv4Forwarding": self.host.ipv4_forwarding,
            "CgroupDriver": "cgroupfs",
            "CgroupVersion": self.host.cgroup_version.to_string(),
        });
        // Docker leaves it out where it is not so.
        if self.host.tcp_accounting {
            limits["KernelMemoryTCP"] = true.into();
        }
        limits
    }

    fn platform(&self) -> Value {
        json!({
            "Driver": "overlay2",
            "DriverStatus": [
                ["Backing Filesystem", self.host.backing_filesystem],
                ["Supports d_type", "true"],
            ],
            "KernelVersion": self.host.kernel,
            "OperatingSystem": self.host.system,
            "OSVersion": self.host.system_version,
            "OSType": "linux",
            "Architecture": self.host.machine,
            "NCPU": self.host.cpus,
            "MemTotal": self.host.memory,
            "Name": self.host.name,
        })
    }
}

/// What is the same on every host.
fn constants() -> Value {
    json!({
        "Plugins": {
            "Volume": ["local"],
            "Network": ["bridge", "host", "macvlan", "null"],
            "Authorization": null,
            "Log": ["json-file", "local", "none"],
        },
        "Debug": false,
        "NGoroutines": 0,
        "LoggingDriver": "json-file",
        "NEventsListener": 0,
        "IndexServerAddress": "https://index.docker.io/v1/",
        "RegistryConfig": {
            "IndexConfigs": {
                "docker.io": {
                    "Mirrors": [], "Name": "docker.io", "Official": true, "Secure": true,
                },
            },
            "InsecureRegistryCIDRs": ["::1/128", "127.0.0.0/8"],
            "Mirrors": null,
        },
        "GenericResources": null,
        "HttpProxy": "",
        "HttpsProxy": "",
        "NoProxy": "",
        "Labels": [],
        "ExperimentalBuild": false,
        "Runtimes": { "tritium": { "path": "tritium-supervisor" } },
        "DefaultRuntime": "tritium",
        "Swarm": {
            "NodeID": "", "NodeAddr": "", "LocalNodeState": "inactive", "ControlAvailable": false,
            "Error": "", "RemoteManagers": null,
        },
        "LiveRestoreEnabled": true,
        "Isolation": "",
        "InitBinary": "tritium-supervisor",
        "ContainerdCommit": { "ID": "" },
        "RuncCommit": { "ID": "" },
        "InitCommit": { "ID": "" },
        "FirewallBackend": { "Driver": "nftables" },
        "CDISpecDirs": [],
        "Warnings": null,
    })
}

/// One object of `GET /events`.
#[derive(Debug, Serialize)]
pub(in crate::api) struct EventMessage<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<&'a str>,
    #[serde(rename = "Type")]
    kind: &'a str,
    #[serde(rename = "Action")]
    action: &'a str,
    #[serde(rename = "Actor")]
    actor: Actor<'a>,
    scope: &'static str,
    time: i64,
    #[serde(rename = "timeNano")]
    time_nano: i64,
}

#[derive(Debug, Serialize)]
struct Actor<'a> {
    #[serde(rename = "ID")]
    id: &'a str,
    #[serde(rename = "Attributes")]
    attributes: &'a BTreeMap<String, String>,
}

impl<'a> From<&'a Event> for EventMessage<'a> {
    fn from(event: &'a Event) -> Self {
        // The oldest clients know of containers and images only.
        let legacy = matches!(event.kind, "container" | "image");
        let container = event.kind == "container";
        Self {
            status: legacy.then_some(event.action.as_str()),
            id: legacy.then_some(event.actor.as_str()),
            from: event.attributes.get("image").filter(|_| container).map(String::as_str),
            kind: event.kind,
            action: &event.action,
            actor: Actor { id: &event.actor, attributes: &event.attributes },
            scope: "local",
            time: event.at.div_euclid(1_000_000_000),
            time_nano: event.at,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_spelled_as_docker_spells_it_with_the_old_fields_first() {
        let event = Event {
            tenant: crate::ids::TenantName::operator(),
            kind: "container",
            action: "start".into(),
            actor: "ab".into(),
            attributes: [("image".to_owned(), "busybox".to_owned())].into(),
            at: 1_500_000_000,
        };
        assert_eq!(
            serde_json::to_string(&EventMessage::from(&event)).unwrap(),
            "{\"status\":\"start\",\"id\":\"ab\",\"from\":\"busybox\",\"Type\":\"container\",\
             \"Action\":\"start\",\"Actor\":{\"ID\":\"ab\",\"Attributes\":{\"image\":\"busybox\"}},\
             \"scope\":\"local\",\"time\":1,\"timeNano\":1500000000}"
        );
    }
}
