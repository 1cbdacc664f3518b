//! The owner's daily work: attach, detach, and namespaces kept ready for it.

use super::{Attached, Batch, Held, Owner, Prepared, Reply, Target, connect::routes, unpublish};
use crate::{
    config::REFILL_AFTER,
    error::chain,
    ids::{ContainerId, NetworkId},
    network::{
        AttachRequest, Attachment, DEFAULT, Endpoint, Error,
        cable::Cable,
        link::Rtnl,
        namespace::{Order, Unplugged},
        segment::Segment,
        ways::ways_out,
    },
};
use std::{
    net::IpAddr,
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
    time::Instant,
};
use tracing::warn;

impl Owner {
    pub(super) fn attach_for(&mut self, request: AttachRequest, reply: Reply<Attachment>) {
        let container = request.container;
        if let Err(Ok(attachment)) = reply.send(self.attach(request)) {
            // The caller has gone, so nobody else will.
            if let Err(error) = self.detach(container, Some(attachment.netns)) {
                warn!(%container, error = %chain(&error), "cannot detach what nobody waits for");
            }
        }
        self.refill_soon();
    }

    fn attach(&mut self, request: AttachRequest) -> Result<Attachment, Error> {
        if !self.built {
            self.readopt(super::Found::default())?;
        }
        let AttachRequest { container, tenant, endpoints: wanted, ports } = request;
        if self.attached.contains_key(&container) {
            return Err(Error::Attached(container));
        }
        if wanted.is_empty() {
            let Prepared { netns, .. } = self.ready(None)?;
            return Ok(Attachment { netns, endpoints: Vec::new(), ports: Vec::new() });
        }
        let mut networks = Vec::new();
        for wanted in &wanted {
            networks.push(self.joinable(&tenant, &wanted.network)?);
        }
        let default = self.names.id(&tenant, DEFAULT);
        let first = networks.first().copied().filter(|network| *network == default);
        let Prepared { netns, mut inside, mut veth } = self.ready(first)?;
        let mut endpoints: Vec<Endpoint> = Vec::new();
        let mut joined = Ok(());
        for (network, wanted) in networks.into_iter().zip(&wanted) {
            let ready = veth.take().map(|veth| (veth, &mut inside));
            let twice = endpoints.iter().any(|endpoint| endpoint.network_id == network);
            let place = if twice {
                Err(Error::Attached(container))
            } else {
                self.join((network, wanted), netns.as_fd(), ready, &endpoints)
            };
            match place {
                Ok(endpoint) => endpoints.push(endpoint),
                Err(error) => joined = Err(error),
            }
            if joined.is_err() {
                break;
            }
        }
        let attached = Attached {
            endpoints: Vec::new(),
            wanted: ports,
            held: Held::default(),
            target: Target::default(),
        };
        let opened = joined.and_then(|()| self.open(container, attached, &endpoints, &mut inside));
        match opened {
            Ok(ports) => Ok(Attachment { netns, endpoints, ports }),
            Err(error) => {
                self.attached.remove(&container);
                self.unplug_all(endpoints, Some(netns));
                Err(error)
            }
        }
    }

    /// Gives a container its way out, and the world a way to it.
    fn open(
        &mut self,
        container: ContainerId,
        attached: Attached,
        endpoints: &[Endpoint],
        inside: &mut Rtnl,
    ) -> Result<Vec<crate::network::Published>, Error> {
        let ways: Vec<_> = ways_out(endpoints).into_iter().flatten().collect();
        routes(inside, endpoints, &ways)
            .map_err(|error| Error::kernel("set the default route", error))?;
        self.attached.insert(container, attached);
        self.republish(container, endpoints.to_vec())
    }

    fn unplug_all(&mut self, endpoints: Vec<Endpoint>, netns: Option<OwnedFd>) {
        let netns = netns.map(Arc::new);
        for endpoint in endpoints {
            let addresses = endpoint.addresses().collect();
            let cable = match &netns {
                Some(netns) => Some(Cable::of(&endpoint, netns.clone())),
                None => Cable::on_the_host(&endpoint),
            };
            self.unplug(Some(endpoint.network_id), addresses, cable);
        }
    }

    /// Removes an interface, and gives its addresses back when it is gone: at
    /// once if nobody holds it.
    pub(super) fn unplug(
        &mut self,
        network: Option<NetworkId>,
        addresses: Vec<IpAddr>,
        cable: Option<Cable>,
    ) {
        match (cable, network) {
            (Some(cable), _) => {
                self.unplug_what(Unplugged { network, addresses, cable, waiting: None });
            }
            (None, Some(network)) => self.release(network, &addresses),
            (None, None) => {}
        }
    }

    pub(super) fn unplug_what(&mut self, what: Unplugged) {
        if let Some(network) = what.network {
            for address in &what.addresses {
                self.leaving.insert((network, *address), what.cable.clone());
            }
        }
        self.unplugging.order(Order::Unplug(what));
    }

    /// Has an address that somebody wants now, and whose interface is about to
    /// go, free at once: a container that restarts has it again.
    pub(super) fn hasten(&mut self, network: NetworkId, address: IpAddr) -> Result<(), Error> {
        let Some(cable) = self.leaving.remove(&(network, address)) else { return Ok(()) };
        self.maker.unplug(&cable)?;
        self.release(network, &[address]);
        Ok(())
    }

    pub(super) fn release(&mut self, network: NetworkId, addresses: &[IpAddr]) {
        if let Some(segment) = self.segments.get_mut(&network) {
            segment.release(addresses.iter().copied());
        }
    }

    /// A namespace out of a pool, or a new one when the pool is empty.
    fn ready(&mut self, network: Option<NetworkId>) -> Result<Prepared, Error> {
        let bridge = network.and_then(|network| self.segments.get_mut(&network)?.bridge_mut());
        let (pool, index) = match bridge {
            Some(bridge) => (&mut bridge.pool, Some(bridge.index)),
            None => (&mut self.bare, None),
        };
        pool.ready.pop_front().map_or_else(|| self.maker.make(index), Ok)
    }

    /// `netns`: the container's, if somebody holds it.
    pub(super) fn detach(
        &mut self,
        container: ContainerId,
        netns: Option<OwnedFd>,
    ) -> Result<(), Error> {
        let Some(attached) = self.attached.remove(&container) else { return Ok(()) };
        let mut batch = Batch::new(&self.config.bridge);
        unpublish(&mut batch, &self.config.bridge, &attached.held, attached.target);
        if let Err(error) = self.change(batch) {
            self.attached.insert(container, attached);
            return Err(error);
        }
        self.forget_flows(&attached.held.ports);
        drop(attached.held);
        self.unplug_all(attached.endpoints, netns);
        Ok(())
    }

    pub(super) fn gone(&mut self, what: Unplugged, gone: Result<(), Error>) {
        match &gone {
            Ok(()) => {
                for address in what.addresses {
                    let Some(network) = what.network else { break };
                    // Unless it was hastened, and perhaps is another's by now.
                    let leaving = self.leaving.get(&(network, address));
                    if leaving.is_some_and(|cable| cable.is(&what.cable)) {
                        self.leaving.remove(&(network, address));
                        self.release(network, &[address]);
                    }
                }
            }
            // Its addresses stay taken, as the interface still has them.
            Err(error) => warn!(error = %chain(error), "an interface stays"),
        }
        if let Some(waiting) = what.waiting {
            super::answer(waiting.reply, gone.map(|()| waiting.ports));
        }
    }

    pub(super) fn made(&mut self, place: Option<NetworkId>, made: Result<Prepared, Error>) {
        let pool = match place {
            None => Some(&mut self.bare),
            Some(network) => {
                let segment = self.segments.get_mut(&network);
                segment.and_then(Segment::bridge_mut).map(|bridge| &mut bridge.pool)
            }
        };
        let Some(pool) = pool else { return };
        pool.coming -= 1;
        match made {
            Ok(prepared) => pool.ready.push_back(prepared),
            // Whoever needs it makes his own, and hears why that fails.
            Err(error) => warn!(error = %chain(&error), "cannot prepare a network namespace"),
        }
    }

    /// Fills the pools up when the container that has just taken of them has
    /// started: making a namespace keeps a processor busy for a millisecond.
    pub(super) fn refill_soon(&mut self) {
        self.refill_at.get_or_insert_with(|| Instant::now() + REFILL_AFTER);
    }

    /// Orders as many namespaces as the pools lack.
    pub(super) fn refill(&mut self) {
        self.refill_at = None;
        for _ in 0..self.bare.lacks(self.config.ready) {
            self.bare.coming += 1;
            self.making.order(Order::Make(None));
        }
        for (network, segment) in &mut self.segments {
            let tenant = &segment.definition.tenant;
            if *network != self.names.id(tenant, DEFAULT) {
                continue;
            }
            let wanted = self.config.ready.min(if tenant.is_operator() { usize::MAX } else { 1 });
            let Some(bridge) = segment.bridge_mut() else { continue };
            for _ in 0..bridge.pool.lacks(wanted) {
                bridge.pool.coming += 1;
                self.making.order(Order::Make(Some((*network, bridge.index))));
            }
        }
    }
}
