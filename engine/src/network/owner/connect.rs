//! The owner and one network more or less, also for containers that run.

use super::{
    Attached, Batch, ConnectRequest, DisconnectRequest, Held, Owner, Reply, Target, answer,
    publish, unpublish,
};
use crate::{
    error::chain,
    ids::{ContainerId, NetworkId, random},
    network::{
        Connected, Endpoint, EndpointRequest, Error, Proto, Published,
        cable::{Cable, PlugPlan, Socket},
        link::Rtnl,
        namespace::{Order, Unplugged, Veth, Waiting},
        segment,
        ways::{Way, ways_out},
    },
};
use ipnet::IpNet;
use nix::libc;
use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};
use tracing::warn;

/// What there is of a place that was left: the interface, which has its
/// addresses still; and the ports that are published from now on.
struct Left {
    ports: Vec<Published>,
    endpoint: Endpoint,
}

impl Owner {
    /// Gives a namespace a place on a network; `ready` is an interface that it has already.
    pub(super) fn join(
        &mut self,
        (network, request): (NetworkId, &EndpointRequest),
        netns: BorrowedFd<'_>,
        ready: Option<(Veth, &mut Rtnl)>,
        others: &[Endpoint],
    ) -> Result<Endpoint, Error> {
        let wanted = [request.ipv4.map(IpAddr::V4), request.ipv6.map(IpAddr::V6)];
        let wanted: Vec<IpAddr> = wanted.into_iter().flatten().collect();
        for address in &wanted {
            self.hasten(network, *address)?;
        }
        let missing = || Error::NoNetwork(request.network.clone());
        let socket = self.socket(network, request.fenced)?.ok_or_else(missing)?;
        let segment = self.segments.get_mut(&network).ok_or_else(missing)?;
        let nets = segment.take(&wanted)?;
        let settings = segment.settings.clone();
        let mac = request.mac.unwrap_or_else(|| segment::mac(&nets));
        let interface = free_name(&settings.prefix, others);
        let addresses: Vec<IpAddr> = nets.iter().map(IpNet::addr).collect();
        let refused = |error| {
            let of = addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ");
            Error::kernel(format!("give {interface} the address {of} and {mac}"), error)
        };
        let host_interface = match ready {
            Some((veth, inside)) => {
                let set = inside.set_mac(veth.index, mac);
                let set = set.and_then(|()| inside.add_addresses(veth.index, &nets));
                if let Err(error) = set {
                    let cable = Cable::Host(veth.host_interface);
                    self.unplug(Some(network), addresses.clone(), Some(cable));
                    return Err(refused(error));
                }
                veth.host_interface
            }
            None => {
                let plan =
                    PlugPlan { socket, inside: &interface, mac, mtu: settings.mtu, nets: &nets };
                match self.plug(netns, &plan) {
                    Ok(host_interface) => host_interface,
                    Err(error) => {
                        self.release(network, &addresses);
                        return Err(refused(error));
                    }
                }
            }
        };
        let mut endpoint = Endpoint { mac, interface, host_interface, ..self.place(network) };
        endpoint.priority = request.priority;
        if let Socket::Macvlan(port) = socket {
            endpoint.index = Some(port.index);
        }
        for net in nets {
            match net {
                IpNet::V4(net) => {
                    (endpoint.address, endpoint.prefix) = (Some(net.addr()), net.prefix_len());
                }
                IpNet::V6(net) => {
                    (endpoint.address6, endpoint.prefix6) = (Some(net.addr()), net.prefix_len());
                }
            }
        }
        Ok(endpoint)
    }

    fn plug(&mut self, netns: BorrowedFd<'_>, plan: &PlugPlan<'_>) -> io::Result<String> {
        match self.maker.plug_in(netns, plan) {
            // By one parent no two have the same Ethernet address, nor is another beside one in
            // mode passthru: perhaps it is about to go.
            Err(error)
                if matches!(error.raw_os_error(), Some(libc::EADDRINUSE | libc::EINVAL))
                    && self.hasten_macvlans().map_err(io::Error::other)? =>
            {
                self.maker.plug_in(netns, plan)
            }
            plugged => plugged,
        }
    }

    /// An endpoint on a network, as yet without addresses.
    fn place(&self, network: NetworkId) -> Endpoint {
        let segment = &self.segments[&network];
        let gateway = |ipv4| segment.way_out(ipv4);
        Endpoint {
            network_id: network,
            network: segment.definition.name.clone(),
            internal: segment.is_internal(),
            isolated: !segment.settings.icc,
            endpoint_id: NetworkId::of(random()),
            address: None,
            prefix: 0,
            gateway: gateway(true)
                .and_then(|ip| if let IpAddr::V4(ip) = ip { Some(ip) } else { None }),
            address6: None,
            prefix6: 0,
            gateway6: gateway(false)
                .and_then(|ip| if let IpAddr::V6(ip) = ip { Some(ip) } else { None }),
            mac: crate::network::Mac([0; 6]),
            interface: String::new(),
            host_interface: String::new(),
            index: None,
            priority: 0,
        }
    }

    /// Where ports lead of a container with these places.
    pub(super) fn target(&self, endpoints: &[Endpoint]) -> Target {
        // To a macvlan's addresses the world has a way that is not by the host.
        let by_the_host = |endpoint: &&Endpoint| endpoint.index.is_none();
        let [four, six] = ways_out(endpoints)
            .map(|way| way.map(|way| &endpoints[way.endpoint]).filter(by_the_host));
        let segment = four.and_then(|endpoint| self.segments.get(&endpoint.network_id));
        let zone = |place: Option<&Endpoint>| {
            self.segments.get(&place?.network_id).and_then(|segment| segment.definition.zone)
        };
        Target {
            ipv4: four.and_then(|endpoint| endpoint.address),
            ipv6: six.and_then(|endpoint| endpoint.address6),
            zones: [zone(four), zone(six)],
            binding: segment.and_then(|segment| segment.settings.binding),
        }
    }

    pub(super) fn connect_for(&mut self, request: ConnectRequest, reply: Reply<Connected>) {
        let (container, netns) = (request.container, request.netns.try_clone());
        if let Err(Ok(connected)) = reply.send(self.connect(request)) {
            // The caller has gone, so nobody will record it.
            let network = connected.endpoint.network_id;
            let undone = netns
                .map_err(|error| Error::kernel("copy a descriptor", error))
                .and_then(|netns| Ok((self.leave(container, network, &netns)?, netns)));
            match undone {
                Ok((left, netns)) => self.unplug_one(&left.endpoint, netns),
                Err(error) => {
                    warn!(%container, error = %chain(&error), "cannot undo a connection");
                }
            }
        }
        self.refill_soon();
    }

    fn connect(&mut self, request: ConnectRequest) -> Result<Connected, Error> {
        let ConnectRequest { container, tenant, endpoint: wanted, ports, netns } = request;
        let network = self.joinable(&tenant, &wanted.network)?;
        let attached = self.attached.entry(container).or_insert_with(|| Attached {
            endpoints: Vec::new(),
            wanted: ports,
            held: Held::default(),
            target: Target::default(),
        });
        let old = attached.endpoints.clone();
        if old.iter().any(|endpoint| endpoint.network_id == network) {
            return Err(Error::Attached(container));
        }
        let endpoint = self.join((network, &wanted), netns.as_fd(), None, &old)?;
        let new = [old.clone(), vec![endpoint.clone()]].concat();
        let led = self.lead_out(netns.as_fd(), &old, &new);
        match led.and_then(|()| self.republish(container, new.clone())) {
            Ok(ports) => Ok(Connected { endpoint, ports }),
            Err(error) => {
                if let Err(error) = self.lead_out(netns.as_fd(), &new, &old) {
                    warn!(%container, error = %chain(&error), "cannot go back to the old way out");
                }
                self.unplug_one(&endpoint, netns);
                Err(error)
            }
        }
    }

    /// Answers when the interface has gone.
    pub(super) fn disconnect_for(
        &mut self,
        request: DisconnectRequest,
        reply: Reply<Vec<Published>>,
    ) {
        let DisconnectRequest { container, network, netns } = request;
        match self.leave(container, network, &netns) {
            Ok(Left { ports, endpoint }) => self.unplug_what(Unplugged {
                network: Some(network),
                addresses: endpoint.addresses().collect(),
                cable: Cable::of(&endpoint, netns),
                waiting: Some(Waiting { reply, ports }),
            }),
            Err(error) => answer(reply, Err(error)),
        }
    }

    fn unplug_one(&mut self, endpoint: &Endpoint, netns: OwnedFd) {
        let addresses = endpoint.addresses().collect();
        let cable = Cable::of(endpoint, netns);
        self.unplug(Some(endpoint.network_id), addresses, Some(cable));
    }

    /// Takes a place away but for its interface.
    fn leave(
        &mut self,
        container: ContainerId,
        network: NetworkId,
        netns: &OwnedFd,
    ) -> Result<Left, Error> {
        let not_there = || Error::NotConnected { container, network: network.to_string() };
        let attached = self.attached.get(&container).ok_or_else(not_there)?;
        let old = attached.endpoints.clone();
        let at = old.iter().position(|it| it.network_id == network).ok_or_else(not_there)?;
        let mut new = old.clone();
        let endpoint = new.remove(at);
        self.lead_out(netns.as_fd(), &old, &new)?;
        let ports = self.republish(container, new.clone()).inspect_err(|_| {
            if let Err(error) = self.lead_out(netns.as_fd(), &new, &old) {
                warn!(%container, error = %chain(&error), "cannot go back to the old way out");
            }
        })?;
        Ok(Left { ports, endpoint })
    }

    /// Changes the default routes inside from what they are with the `old`
    /// places to what they are with the `new`.
    fn lead_out(
        &mut self,
        netns: BorrowedFd<'_>,
        old: &[Endpoint],
        new: &[Endpoint],
    ) -> Result<(), Error> {
        let before = ways_out(old).map(|way| way.map(|way| old[way.endpoint].network_id));
        let after = ways_out(new);
        let moved = |nth: usize| {
            let way = after[nth]?;
            (before[nth] != Some(new[way.endpoint].network_id)).then_some(way)
        };
        let moved: Vec<Way> = [0, 1].into_iter().filter_map(moved).collect();
        if moved.is_empty() {
            return Ok(());
        }
        let led = self.maker.within(netns, |_, inside| routes(inside, new, &moved));
        led.map_err(|error| Error::kernel("change the default route", error))
    }

    /// Has the container have these places, and leads its ports there.
    pub(super) fn republish(
        &mut self,
        container: ContainerId,
        endpoints: Vec<Endpoint>,
    ) -> Result<Vec<Published>, Error> {
        let target = self.target(&endpoints);
        let wants = self.attached.get(&container).is_some_and(|it| !it.wanted.is_empty());
        let others = self.attached.iter().filter(|(other, _)| wants && **other != container);
        let taken: Vec<Published> =
            others.flat_map(|(_, attached)| &attached.held.ports).copied().collect();
        let Some(attached) = self.attached.get_mut(&container) else { return Ok(Vec::new()) };
        let held = self.ports.hold(&attached.wanted, target, &taken, &attached.held)?;
        let mut batch = Batch::new(&self.config.bridge);
        if held.ports != attached.held.ports || target != attached.target {
            unpublish(&mut batch, &self.config.bridge, &attached.held, attached.target);
            publish(&mut batch, &self.config.bridge, &held, target);
        }
        let ports = held.ports.clone();
        let old = (
            std::mem::replace(&mut attached.held, held),
            std::mem::replace(&mut attached.endpoints, endpoints),
            std::mem::replace(&mut attached.target, target),
        );
        let moved = !batch.is_empty();
        if let Err(error) = self.change(batch) {
            if let Some(attached) = self.attached.get_mut(&container) {
                (attached.held, attached.endpoints, attached.target) = old;
            }
            return Err(error);
        }
        if moved {
            self.forget_flows(&[old.0.ports, ports.clone()].concat());
        }
        Ok(ports)
    }

    /// Has the kernel look up anew where datagrams to these ports go.
    pub(super) fn forget_flows(&self, ports: &[Published]) {
        let udp = ports.iter().filter(|port| port.proto == Proto::Udp);
        let udp: Vec<SocketAddr> =
            udp.map(|port| SocketAddr::new(port.host_ip, port.host_port)).collect();
        if !udp.is_empty() {
            self.unplugging.order(Order::Forget(udp));
        }
    }
}

/// Sets default routes.
pub(super) fn routes(inside: &mut Rtnl, endpoints: &[Endpoint], ways: &[Way]) -> io::Result<()> {
    for way in ways {
        let name = &endpoints[way.endpoint].interface;
        let link = inside.find(name)?.ok_or(io::ErrorKind::NotFound)?;
        inside.set_default_route(link.index, way.gateway)?;
    }
    Ok(())
}

/// The first name that is free inside: `eth0`, `eth1` and so on.
fn free_name(prefix: &str, others: &[Endpoint]) -> String {
    let taken = |name: &String| others.iter().any(|other| other.interface == *name);
    let mut names = (0..).map(|nth: usize| format!("{prefix}{nth}"));
    names.find(|name| !taken(name)).unwrap_or_default()
}
