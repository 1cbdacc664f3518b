//! Sockets in other network namespaces, made from one thread.

use crate::network::{
    conntrack::Conntrack,
    nft::{Base, Batch, End, Family, Nft, PORT, PROTOCOL, dnat, ip_address, meta, port, value_of},
};
use netlink_packet_netfilter::nftables::{InetHookNumber, MetaKey};
use nix::sched::{CloneFlags, setns};
use std::{
    fs::File,
    io,
    marker::PhantomData,
    net::{Ipv4Addr, TcpListener, UdpSocket},
    os::fd::{AsFd, OwnedFd},
    rc::Rc,
    sync::mpsc,
};

/// Where a container finds its resolver.
pub const ADDRESS_INSIDE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);
const DNS_PORT: u16 = 53;

/// The table in a container's namespace.
const TABLE: &str = "tritium-dns";
const SERVERS: &str = "servers";
const UDP: u8 = 17;
const TCP: u8 = 6;

/// The network namespace that this thread belongs to; it goes nowhere else.
#[derive(Debug)]
pub(super) struct Home {
    netns: OwnedFd,
    /// To a thread that only closes them: the kernel has that wait for whatever
    /// anybody has deleted from nf_tables just now, an RCU grace period of 5 to
    /// 15 ms (`nft_rcv_nl_event` of net/netfilter/nf_tables_api.c).
    used: mpsc::Sender<Nft>,
    here: PhantomData<Rc<()>>,
}

/// What a container's resolver listens on.
#[derive(Debug)]
pub(super) struct Sockets {
    pub(super) udp: UdpSocket,
    pub(super) tcp: TcpListener,
}

impl Home {
    /// The calling thread's.
    pub(super) fn of_this_thread() -> io::Result<Self> {
        let netns = File::open("/proc/thread-self/ns/net")?.into();
        let (used, done) = mpsc::channel();
        let close = move || done.into_iter().for_each(drop);
        std::thread::Builder::new().name("dns-closing".to_owned()).spawn(close)?;
        Ok(Self { netns, used, here: PhantomData })
    }

    /// Does something with the thread in another namespace. Nothing else runs
    /// on this thread meanwhile, for `what` cannot wait for anything.
    ///
    /// # Panics
    /// If the thread cannot come back: it must not go on in the wrong place.
    pub(super) fn inside<T>(
        &self,
        netns: impl AsFd,
        what: impl FnOnce() -> io::Result<T>,
    ) -> io::Result<T> {
        setns(netns, CloneFlags::CLONE_NEWNET)?;
        let done = what();
        setns(&self.netns, CloneFlags::CLONE_NEWNET)
            .expect("we came from this namespace and hold it open");
        done
    }

    /// Listens for a container, and has what it sends to port 53 of
    /// [`ADDRESS_INSIDE`] arrive here. On a port of the kernel's choice, so that
    /// the container may still have port 53 on all its addresses.
    pub(super) fn listen(&self, netns: impl AsFd) -> io::Result<Sockets> {
        let (sockets, nft) = self.inside(netns, || {
            let udp = UdpSocket::bind((ADDRESS_INSIDE, 0))?;
            let tcp = TcpListener::bind((ADDRESS_INSIDE, 0))?;
            udp.set_nonblocking(true)?;
            tcp.set_nonblocking(true)?;
            let nft = redirect(udp.local_addr()?.port(), tcp.local_addr()?.port())?;
            Ok((Sockets { udp, tcp }, nft))
        })?;
        // Only fails where that thread is gone, and then it is closed here.
        drop(self.used.send(nft));
        Ok(sockets)
    }
}

/// In place of any redirection that was there. What it was done by is yet to be closed.
fn redirect(udp: u16, tcp: u16) -> io::Result<Nft> {
    let mut nft = Nft::open()?;
    let again = !nft.keys(Family::V4, TABLE, SERVERS)?.is_empty();
    let mut batch = Batch::new(TABLE);
    batch.fresh_table();
    let address = Family::V4.address();
    batch.set(SERVERS, &[address, PROTOCOL, PORT], Some(&[address, PORT]));
    let base = Base { kind: "nat", hook: InetHookNumber::LocalOut, priority: -100 };
    batch.chain("asked", base);
    batch.rule(
        "asked",
        [
            ip_address(Family::V4, End::Destination, 0),
            meta(MetaKey::L4Proto, 1),
            port(2),
            value_of(SERVERS, 4),
            dnat(Family::V4, 4),
        ],
    );
    for (protocol, to) in [(UDP, udp), (TCP, tcp)] {
        let address = ADDRESS_INSIDE.octets();
        let key = [address, [protocol, 0, 0, 0], padded(DNS_PORT)].concat();
        batch.add(SERVERS, key, Some([address, padded(to)].concat()));
    }
    nft.commit(batch)?;
    if again {
        // Or datagrams of an open socket would go to the port before this one
        // for as long as it asks.
        Conntrack::open()?
            .forget(&[(ADDRESS_INSIDE, DNS_PORT).into()], &[ADDRESS_INSIDE.into()])?;
    }
    Ok(nft)
}

fn padded(port: u16) -> [u8; 4] {
    let [high, low] = port.to_be_bytes();
    [high, low, 0, 0]
}
