//! A container and its networks: what is asked, joining and leaving while it
//! runs, who is told of it.
//!
//! Whatever follows from having an address (the guard, names) hangs on
//! [`Driver::claim`] and [`Driver::release`], one call per endpoint.

use super::{EndpointRecord, Record, bring_up::interface, driver::Driver, names};
use crate::{
    error::Error,
    events::{self, Event},
    ids::NetworkId,
    network::{self, DEFAULT, Endpoint, EndpointRequest},
    spec::{EndpointSettings, HostConfig},
};
use std::{fs::File, net::IpAddr, os::fd::OwnedFd, path::Path};

/// Networks that are not made by bridges, with the driver that Docker says they have.
const BARE: [(&str, &str); 2] = [("none", "null"), ("host", "host")];

/// No `/etc/hosts` that is changed is longer, in bytes.
const LONGEST_HOSTS: u64 = 1024 * 1024;

/// A network that a container is to join; its settings have been checked.
#[derive(Debug, Clone)]
pub struct Joining {
    pub id: NetworkId,
    pub name: String,
    pub asked: EndpointSettings,
}

/// What a container's record asks of its networks, the first first. None: only loopback.
///
/// # Errors
/// An address is none.
pub(super) fn wanted(record: &Record) -> Result<Vec<EndpointRequest>, Error> {
    if record.config.network_disabled == Some(true) {
        return Ok(Vec::new());
    }
    if record.endpoints.is_empty() && !is_bare(&record.host.network_mode) {
        // It was taken from all of them; as in Docker, it begins anew.
        let mode = &record.host.network_mode;
        return Ok(vec![request(&record.host, mode, &EndpointSettings::default())?]);
    }
    let mut all: Vec<_> = record.endpoints.iter().filter(|(name, _)| !is_bare(name)).collect();
    all.sort_by_key(|(_, endpoint)| !endpoint.first);
    let own_mac = record.config.mac_address.as_deref().unwrap_or_default();
    let requests = all.into_iter().map(|(name, endpoint)| {
        let mut request = request(&record.host, name, &endpoint.asked)?;
        if request.mac.is_none() && endpoint.first && !own_mac.is_empty() {
            request.mac = Some(mac(own_mac)?);
        }
        Ok(request)
    });
    requests.collect()
}

fn is_bare(network: &str) -> bool {
    BARE.iter().any(|(name, _)| *name == network)
}

fn mac(text: &str) -> Result<network::Mac, Error> {
    text.parse().map_err(|_| Error::Invalid(format!("invalid MAC address {text}")))
}

/// What settings ask of one network.
fn request(
    host: &HostConfig,
    network: &str,
    asked: &EndpointSettings,
) -> Result<EndpointRequest, Error> {
    let ipam = asked.ipam_config.as_ref();
    let given = |key: &str| ipam?.get(key)?.as_str().filter(|text| !text.is_empty());
    let bad = |text: &str| Error::Invalid(format!("invalid IP address: {text}"));
    let ipv4 = given("IPv4Address").map(|text| text.parse().map_err(|_| bad(text)));
    let ipv6 = given("IPv6Address").map(|text| text.parse().map_err(|_| bad(text)));
    Ok(EndpointRequest {
        network: network.to_owned(),
        mac: Some(asked.mac_address.as_str()).filter(|it| !it.is_empty()).map(mac).transpose()?,
        ipv4: ipv4.transpose()?,
        ipv6: ipv6.transpose()?,
        priority: asked.gw_priority,
        fenced: !host.may_change_interfaces(),
    })
}

/// `NAME:ALIAS`, or a name that is its own alias.
pub fn link_parts(link: &str) -> (&str, &str) {
    let (name, alias) = link.split_once(':').unwrap_or((link, link));
    (name.trim_start_matches('/'), alias.rsplit('/').next().unwrap_or(alias))
}

/// A failure of the networks while a container starts, as Docker says it.
pub(super) fn while_starting(name: &str, error: network::Error) -> Error {
    use network::Error as Network;
    let of_ports = matches!(
        error,
        Network::PortAllocated { .. } | Network::RangeTaken { .. } | Network::Bind { .. }
    );
    let about = if of_ports {
        format!("driver failed programming external connectivity on endpoint {name}: ")
    } else {
        String::new()
    };
    let said = format!("failed to set up container networking: {about}{error}");
    match Error::from(error) {
        Error::NotFound(_) => Error::NotFound(said),
        Error::Conflict(_) => Error::Conflict(said),
        Error::Invalid(_) => Error::Invalid(said),
        Error::Denied(_) => Error::Denied(said),
        Error::Internal { source, .. } => Error::Internal { doing: said, source },
        other @ (Error::NotModified
        | Error::Unauthorized(_)
        | Error::Unsupported(_)
        | Error::Unavailable(_)
        | Error::NotStarted { .. }) => other,
    }
}

impl Driver {
    /// The container runs and gets one more network, or will when it starts.
    pub(super) async fn join(&mut self, joining: Joining) -> Result<(), Error> {
        let Joining { id, name, asked } = joining;
        self.check_join()?;
        let known = self.record.endpoints.contains_key(&name);
        if !self.record.state.is_up() {
            if !known {
                let endpoint =
                    EndpointRecord { asked, network_id: Some(id), ..EndpointRecord::default() };
                self.record.endpoints.insert(name, endpoint);
            }
            return self.save_networks().await;
        }
        if known {
            return Err(Error::Denied(format!(
                "endpoint with name {} already exists in network {name}",
                self.record.name
            )));
        }
        let netns = self.copy_netns()?;
        let record = &self.record;
        let ports = super::ports::publish(&record.config, &record.host)?;
        let request = request(&record.host, &name, &asked)?;
        let request = EndpointRequest { network: id.to_string(), ..request };
        let container = (record.id, &record.tenant);
        let connected = self.tools.networks.connect(container, request, ports, netns).await?;
        let endpoint = connected.endpoint;
        let before = self.record.clone();
        self.record.published = connected.ports;
        let entry = EndpointRecord {
            asked,
            endpoint: Some(endpoint.clone()),
            network_id: Some(id),
            first: false,
        };
        self.record.endpoints.insert(name.clone(), entry);
        let done = self.take_up(&endpoint, &before).await;
        if let Err(error) = done {
            self.record.endpoints.remove(&name);
            self.part(&endpoint).await?;
            self.publish();
            return Err(error);
        }
        self.change_hosts(&endpoint, true)?;
        self.announce_network("connect", &name, endpoint.network_id);
        Ok(())
    }

    async fn take_up(&mut self, endpoint: &Endpoint, before: &Record) -> Result<(), Error> {
        self.claim(endpoint)?;
        names::announce(&self.record, &self.tools, endpoint);
        self.begin_names(before).await?;
        self.save_networks().await
    }

    /// Lines of `/etc/hosts` for `--link` on the default bridge: names, address.
    /// (On networks that users made, links are names that are looked up.)
    pub(super) fn links(&self) -> Result<Vec<(String, String)>, Error> {
        let record = &self.record;
        let mut lines = Vec::new();
        if record.host.network_mode != DEFAULT {
            return Ok(lines);
        }
        for link in record.host.links.iter().flatten() {
            let (reference, alias) = link_parts(link);
            let other = self.tools.registry.find(&record.tenant, reference)?.snapshot();
            let there = other.record.endpoints.get(DEFAULT).and_then(|it| it.endpoint.as_ref());
            let address = there.and_then(|endpoint| endpoint.address);
            let Some(address) = address.filter(|_| other.state.is_up()) else {
                return Err(Error::Conflict(format!(
                    "Cannot link to a non running container: /{} AS /{}/{alias}",
                    other.record.name, record.name
                )));
            };
            let names = format!("{alias} {} {}", other.record.id.short(), other.record.name);
            lines.push((names, address.to_string()));
        }
        Ok(lines)
    }

    /// Where containers reach the host, on whatever network they are: the
    /// gateway of the default bridge. None if nobody asks.
    pub(super) async fn host_gateway(&self) -> Result<Option<IpAddr>, Error> {
        let mut extra = self.record.host.extra_hosts.iter().flatten();
        if !extra.any(|entry| entry.ends_with(":host-gateway")) {
            return Ok(None);
        }
        let networks = self.tools.networks.list(&self.record.tenant).await?;
        let default = networks.iter().find(|network| network.definition.name == DEFAULT);
        Ok(default.and_then(|network| network.definition.pool(true)?.gateway))
    }

    fn check_join(&self) -> Result<(), Error> {
        let mode = self.record.host.network_mode.as_str();
        if mode == "host" || mode.starts_with("container:") {
            return Err(Error::Invalid(
                "container sharing network namespace with another container or host cannot be \
                 connected to any other network"
                    .into(),
            ));
        }
        if mode == "none" && self.record.endpoints.contains_key("none") {
            return Err(Error::Invalid(
                "container cannot be connected to multiple networks with one of the networks in \
                 private (none) mode"
                    .into(),
            ));
        }
        Ok(())
    }

    /// The container runs and loses a network, or will not have it when it starts.
    pub(super) async fn part_asked(&mut self, name: &str) -> Result<(), Error> {
        if name == "host" && self.record.host.network_mode == "host" {
            return Err(Error::Invalid(
                "cannot disconnect container from host network - container was created in host \
                 network mode"
                    .into(),
            ));
        }
        let Some(entry) = self.record.endpoints.remove(name) else {
            let said = format!("container {} is not connected to network {name}", self.record.id);
            return Err(Error::internal(said.clone(), said));
        };
        // The record first: an interface that it does not know is swept away
        // at the next start, one that is not there would stay in it.
        let mut done = self.save_networks().await;
        if let (Ok(()), Some(endpoint)) = (&done, &entry.endpoint) {
            done = self.part(endpoint).await;
        }
        if let Err(error) = done {
            self.record.endpoints.insert(name.to_owned(), entry);
            self.save_networks().await?;
            return Err(error);
        }
        let Some(endpoint) = entry.endpoint else { return Ok(()) };
        self.change_hosts(&endpoint, false)?;
        self.announce_network("disconnect", name, endpoint.network_id);
        self.save_networks().await
    }

    async fn part(&mut self, endpoint: &Endpoint) -> Result<(), Error> {
        let (id, network, netns) = (self.record.id, endpoint.network_id, self.copy_netns()?);
        // First, as it goes by the interface, which is gone afterwards.
        self.release(endpoint);
        match self.tools.networks.disconnect(id, network, netns).await {
            Ok(ports) => self.record.published = ports,
            Err(error) => {
                self.claim(endpoint)?;
                return Err(error.into());
            }
        }
        self.tools.dns.leave(id, network);
        Ok(())
    }

    fn copy_netns(&self) -> Result<OwnedFd, Error> {
        let doing = "cannot reach the container's network namespace";
        let netns = self.netns.as_ref().ok_or_else(|| Error::internal(doing, "it is not held"))?;
        netns.try_clone().map_err(|error| Error::internal(doing, error))
    }

    async fn save_networks(&mut self) -> Result<(), Error> {
        self.save().await?;
        self.publish();
        Ok(())
    }

    /// Tells everybody whom it concerns that this interface and its addresses
    /// are the container's.
    pub(super) fn claim(&self, endpoint: &Endpoint) -> Result<(), Error> {
        let Some(cgroup) = self.admitted else { return Ok(()) };
        let bound = self.tools.probes.guard().bind(cgroup, &interface(endpoint));
        bound.map_err(|error| Error::internal("cannot put the guard in force", error))
    }

    /// And that they are not any more. (When it ends, `dismiss` says so of all.)
    fn release(&self, endpoint: &Endpoint) {
        let Some(cgroup) = self.admitted else { return };
        let released = self.tools.probes.guard().unbind(cgroup, &interface(endpoint));
        self.report("cannot release an interface", released);
    }

    /// The namespace of a container that was found running.
    pub(super) fn find_netns(&mut self, pid: i32) {
        let mode = self.record.host.network_mode.as_str();
        if mode == "host" || mode.starts_with("container:") {
            return;
        }
        match File::open(format!("/proc/{pid}/ns/net")) {
            Ok(file) => self.netns = Some(OwnedFd::from(file)),
            Err(error) => {
                tracing::warn!(container = %self.record.id, %error, "cannot open its network namespace");
            }
        }
    }

    /// Docker's events of a container that starts or has ended.
    pub(super) fn announce_networks(&self, action: &str) {
        for (name, record) in &self.record.endpoints {
            let id = record.endpoint.as_ref().map(|endpoint| endpoint.network_id);
            let bare = is_bare(name).then(|| self.tools.networks.id(&self.record.tenant, name));
            if let Some(id) = id.or(bare) {
                self.announce_network(action, name, id);
            }
        }
    }

    fn announce_network(&self, action: &str, name: &str, id: NetworkId) {
        let driver = BARE.iter().find(|(bare, _)| *bare == name).map_or("bridge", |(_, it)| it);
        let attributes = [
            ("container", self.record.id.hex()),
            ("name", name.to_owned()),
            ("type", driver.to_owned()),
        ];
        self.tools.events.publish(Event {
            tenant: self.record.tenant.clone(),
            kind: "network",
            action: action.to_owned(),
            actor: id.hex(),
            attributes: attributes.map(|(key, value)| (key.to_owned(), value)).into(),
            at: events::now(),
        });
    }

    /// Adds or removes the container's own lines of `/etc/hosts`, and leaves
    /// alone what was written there since.
    fn change_hosts(&self, endpoint: &Endpoint, there: bool) -> Result<(), Error> {
        let path = self.tools.directory(self.record.id).join("hosts");
        let doing = || format!("cannot write {}", path.display());
        let text = read_some(&path).map_err(|error| Error::internal(doing(), error))?;
        let own: Vec<String> = endpoint
            .addresses()
            .map(|address| {
                let config = &self.record.config;
                network::files::own_line(&config.hostname, &config.domainname, address)
            })
            .collect();
        let mut kept: Vec<u8> = text
            .split_inclusive(|byte| *byte == b'\n')
            .filter(|line| !own.iter().any(|own| own.as_bytes() == *line))
            .flatten()
            .copied()
            .collect();
        if there {
            own.iter().for_each(|line| kept.extend(line.as_bytes()));
        }
        write_in_place(&path, &kept).map_err(|error| Error::internal(doing(), error))
    }
}

/// What the container has made of it, which may be anything.
pub(super) fn read_some(path: &Path) -> std::io::Result<Vec<u8>> {
    use std::io::Read;
    let mut text = Vec::new();
    File::open(path)?.take(LONGEST_HOSTS + 1).read_to_end(&mut text)?;
    if text.len() as u64 > LONGEST_HOSTS {
        return Err(std::io::Error::other("it is too long to be changed"));
    }
    Ok(text)
}

/// In place: processes see the same file by a mount.
fn write_in_place(path: &Path, text: &[u8]) -> std::io::Result<()> {
    use std::io::Write;
    File::create(path)?.write_all(text)
}
