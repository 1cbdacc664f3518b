//! The owner's daily work: attach, detach, and namespaces kept ready for it.

use super::{Attached, Owner, Reply};
use crate::{
    error::chain,
    ids::{ContainerId, NetworkId, TenantName, random},
    network::{
        AttachRequest, Attachment, Endpoint, Error, Mode, Proto, Published, firewall,
        ipam::{gateway_of, mac_of},
        link::Rtnl,
        namespace::{Order, Prepared, Unplugged, Veth},
        nft::Batch,
        ports::Held,
    },
};
use ipnet::Ipv4Net;
use std::net::Ipv4Addr;
use tracing::warn;

impl Owner {
    pub(super) fn attach_for(&mut self, request: AttachRequest, reply: Reply<Attachment>) {
        let container = request.container;
        if let Err(Ok(_)) = reply.send(self.attach(request)) {
            // The caller has gone, so nobody else will.
            if let Err(error) = self.detach(container) {
                warn!(%container, error = %chain(&error), "cannot detach what nobody waits for");
            }
        }
        self.refill();
    }

    fn attach(&mut self, request: AttachRequest) -> Result<Attachment, Error> {
        if !self.built {
            self.readopt(Vec::new())?;
        }
        if request.mode == Mode::None {
            let Prepared { netns, .. } = self.ready(None)?;
            return Ok(Attachment { netns, endpoint: None, ports: Vec::new() });
        }
        if self.attached.contains_key(&request.container) {
            return Err(Error::Attached(request.container));
        }
        let bridge = self.bridge(&request.tenant)?;
        let address = bridge.addresses.take(request.address, bridge.id)?;
        let begun = self.hold(&request, address).and_then(|held| {
            let prepared = self.ready(Some(&request.tenant))?;
            Ok((held, prepared))
        });
        let (held, prepared) = begun.inspect_err(|_| self.release(&request.tenant, address))?;
        let veth = prepared.veth.expect("a namespace for a bridge is made with a veth");
        let host_interface = veth.host_interface.clone();
        let Prepared { netns, inside, .. } = prepared;
        match self.plug_in(&request, address, (inside, veth), held) {
            Ok((endpoint, ports)) => Ok(Attachment { netns, endpoint: Some(endpoint), ports }),
            Err(error) => {
                self.unplug(request.tenant, address, host_interface);
                Err(error)
            }
        }
    }

    fn hold(&mut self, request: &AttachRequest, address: Ipv4Addr) -> Result<Held, Error> {
        if request.ports.is_empty() {
            return Ok(Held::default());
        }
        let all = self.attached.values().flat_map(|attached| &attached.held.ports);
        let taken: Vec<Published> = all.copied().collect();
        self.ports.hold(&request.ports, address, &taken)
    }

    /// Gives `eth0` its address, and the world a way to it.
    fn plug_in(
        &mut self,
        request: &AttachRequest,
        address: Ipv4Addr,
        (mut inside, veth): (Rtnl, Veth),
        held: Held,
    ) -> Result<(Endpoint, Vec<Published>), Error> {
        let bridge = self.bridge(&request.tenant)?;
        let endpoint = Endpoint {
            network_id: bridge.id,
            endpoint_id: NetworkId::of(random()),
            address,
            prefix: bridge.subnet.prefix_len(),
            gateway: gateway_of(bridge.subnet),
            mac: request.mac.unwrap_or_else(|| mac_of(address)),
            host_interface: veth.host_interface,
        };
        let net = Ipv4Net::new_assert(address, endpoint.prefix);
        inside.configure(veth.index, endpoint.mac, net, endpoint.gateway).map_err(|error| {
            Error::kernel(format!("give eth0 the address {address} and {}", endpoint.mac), error)
        })?;
        let ports = held.ports.clone();
        let mut batch = Batch::new(&self.config.bridge);
        ports.iter().for_each(|port| firewall::publish(&mut batch, port, address));
        let attached =
            Attached { tenant: request.tenant.clone(), endpoint: endpoint.clone(), held };
        self.attached.insert(request.container, attached);
        self.change(batch).inspect_err(|_| drop(self.attached.remove(&request.container)))?;
        self.forget_flows(&ports);
        Ok((endpoint, ports))
    }

    /// Has the kernel look up anew where datagrams to these ports go.
    fn forget_flows(&self, ports: &[Published]) {
        let udp = ports.iter().filter(|port| port.proto == Proto::Udp);
        let udp: Vec<u16> = udp.map(|port| port.host_port).collect();
        if !udp.is_empty() {
            self.unplugging.order(Order::Forget(udp));
        }
    }

    /// Removes an interface, and gives its address back when it is gone.
    pub(super) fn unplug(&self, tenant: TenantName, address: Ipv4Addr, host_interface: String) {
        self.unplugging.order(Order::Unplug(Unplugged { tenant, address, host_interface }));
    }

    fn release(&mut self, tenant: &TenantName, address: Ipv4Addr) {
        if let Some(bridge) = self.bridges.get_mut(tenant) {
            bridge.addresses.release(address);
        }
    }

    /// A namespace out of a pool, or a new one when the pool is empty.
    fn ready(&mut self, tenant: Option<&TenantName>) -> Result<Prepared, Error> {
        let (pool, index) = match tenant {
            None => (&mut self.bare, None),
            Some(tenant) => {
                let bridge = self.bridge(tenant)?;
                let index = bridge.index;
                (&mut self.bridges.get_mut(tenant).expect("just there").pool, Some(index))
            }
        };
        pool.ready.pop_front().map_or_else(|| self.maker.make(index), Ok)
    }

    pub(super) fn detach(&mut self, container: ContainerId) -> Result<(), Error> {
        let Some(attached) = self.attached.remove(&container) else { return Ok(()) };
        let mut batch = Batch::new(&self.config.bridge);
        attached.held.ports.iter().for_each(|port| firewall::unpublish(&mut batch, port));
        if let Err(error) = self.change(batch) {
            self.attached.insert(container, attached);
            return Err(error);
        }
        let Attached { tenant, endpoint, held } = attached;
        self.forget_flows(&held.ports);
        drop(held);
        let Endpoint { address, host_interface, .. } = endpoint;
        self.unplug(tenant, address, host_interface);
        Ok(())
    }

    pub(super) fn gone(&mut self, what: &Unplugged, gone: Result<(), Error>) {
        match gone {
            Ok(()) => self.release(&what.tenant, what.address),
            // Its address stays taken, as the interface still has it.
            Err(error) => warn!(error = %chain(&error), "an interface stays"),
        }
    }

    pub(super) fn made(&mut self, place: Option<&TenantName>, made: Result<Prepared, Error>) {
        let pool = match place {
            None => Some(&mut self.bare),
            Some(tenant) => self.bridges.get_mut(tenant).map(|bridge| &mut bridge.pool),
        };
        let Some(pool) = pool else { return };
        pool.coming -= 1;
        match made {
            Ok(prepared) => pool.ready.push_back(prepared),
            // Whoever needs it makes his own, and hears why that fails.
            Err(error) => warn!(error = %chain(&error), "cannot prepare a network namespace"),
        }
    }

    /// Orders as many namespaces as the pools lack.
    pub(super) fn refill(&mut self) {
        for _ in 0..self.bare.lacks(self.config.ready) {
            self.bare.coming += 1;
            self.making.order(Order::Make(None));
        }
        for (tenant, bridge) in &mut self.bridges {
            let wanted = self.config.ready.min(if tenant.is_operator() { usize::MAX } else { 1 });
            for _ in 0..bridge.pool.lacks(wanted) {
                bridge.pool.coming += 1;
                self.making.order(Order::Make(Some((tenant.clone(), bridge.index))));
            }
        }
    }
}
