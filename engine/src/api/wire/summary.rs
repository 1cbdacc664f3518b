//! One container of `GET /containers/json`.

use super::container::{Endpoint, Mount, endpoints};
use crate::{api::human, service::seen::Snapshot};
use serde::Serialize;
use std::collections::BTreeMap;

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(in crate::api) struct Summary {
    id: String,
    names: Vec<String>,
    image: String,
    #[serde(rename = "ImageID")]
    image_id: String,
    command: String,
    /// Seconds since 1970.
    created: i64,
    ports: Vec<Port>,
    #[serde(skip_serializing_if = "Option::is_none")]
    size_root_fs: Option<u64>,
    labels: BTreeMap<String, String>,
    state: &'static str,
    status: String,
    host_config: SummaryHost,
    network_settings: SummaryNetworks,
    mounts: Vec<Mount>,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Port {
    #[serde(rename = "IP", skip_serializing_if = "Option::is_none")]
    ip: Option<String>,
    private_port: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    public_port: Option<u16>,
    r#type: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct SummaryHost {
    network_mode: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct SummaryNetworks {
    networks: BTreeMap<String, Endpoint>,
}

impl Summary {
    /// `image`: its name, or its id if the name means another one by now.
    /// `size`: of the image, if it was asked for. `now`: nanoseconds since 1970.
    pub(in crate::api) fn of(
        snapshot: &Snapshot,
        image: String,
        size: Option<u64>,
        now: i64,
    ) -> Self {
        let record = &snapshot.record;
        Self {
            id: record.id.hex(),
            names: vec![format!("/{}", record.name)],
            image,
            image_id: record.image.to_string(),
            command: command(&record.args),
            created: record.created.div_euclid(1_000_000_000),
            ports: ports(snapshot),
            size_root_fs: size,
            labels: record.config.labels.clone().unwrap_or_default(),
            state: snapshot.state.name(),
            status: human::status(
                &snapshot.state,
                record.health.as_ref().map(|health| health.status),
                now,
            ),
            host_config: SummaryHost {
                network_mode: record.host.network_mode.clone(),
                annotations: record.host.annotations.clone(),
            },
            network_settings: SummaryNetworks { networks: endpoints(record) },
            mounts: record.mounts.iter().map(Mount::from).collect(),
        }
    }
}

/// Arguments (not the program) with a space in them get quotes, as in Docker.
fn command(args: &[String]) -> String {
    let quoted = args.iter().enumerate().map(|(at, arg)| {
        if at > 0 && arg.contains(' ') { format!("'{arg}'") } else { arg.clone() }
    });
    quoted.collect::<Vec<_>>().join(" ")
}

fn ports(snapshot: &Snapshot) -> Vec<Port> {
    if !snapshot.state.is_up() {
        return Vec::new();
    }
    let record = &snapshot.record;
    let mut ports: Vec<Port> = record
        .published
        .iter()
        .map(|published| Port {
            ip: Some(published.host_ip.to_string()),
            private_port: published.container_port,
            public_port: Some(published.host_port),
            r#type: published.proto.to_string(),
        })
        .collect();
    for (text, _) in record.config.exposed_ports.iter().flatten() {
        let (number, proto) = text.split_once('/').unwrap_or((text, "tcp"));
        let Ok(number) = number.parse() else { continue };
        let known = |port: &Port| port.private_port == number && port.r#type == proto;
        if !ports.iter().any(known) {
            let r#type = proto.to_owned();
            ports.push(Port { ip: None, private_port: number, public_port: None, r#type });
        }
    }
    ports.sort_by_key(|port| (port.private_port, port.public_port));
    ports
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_with_spaces_are_quoted_and_the_program_is_not() {
        let args = ["my sh", "-c", "echo hi; sleep 1"].map(str::to_owned);
        assert_eq!(command(&args), "my sh -c 'echo hi; sleep 1'");
        assert_eq!(command(&[]), "");
    }
}
