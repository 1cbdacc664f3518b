//! The fence on a container's cable: which interface may send in whose name.
//!
//! Its program hangs on the host's end of each veth, by a classifier that lives and dies with the
//! interface: it needs no engine, and leaves nothing behind. An interface that is fenced but
//! bound to nobody sends nothing, so one can be fenced long before it is needed. A macvlan has no
//! end on the host: there it hangs inside, where frames leave.

use std::{
    fs::File,
    io,
    net::{IpAddr, Ipv6Addr},
    os::fd::OwnedFd,
    sync::{
        Mutex, PoisonError,
        mpsc::{Sender, SyncSender, channel, sync_channel},
    },
    thread,
};

use aya::programs::{
    ProgramError, SchedClassifier,
    tc::{
        NlOptions, SchedClassifierLink, TcAttachOptions, TcAttachType, TcError, TcHandle,
        qdisc_add_clsact,
    },
};
use nix::{
    errno::Errno,
    net::if_::if_nametoindex,
    sched::{CloneFlags, setns, unshare},
};
use tritium_common::{
    guard::{Binding, MAX_ADDRESSES, PeerKey, words},
    ids::{CgroupId, TenantId},
};

/// Before others on the same interface; and the one place there, so that a second is no addition.
const PRIORITY: u16 = 1;
const HANDLE: TcHandle = TcHandle::new(0, 1);

/// By what the program knows an interface of a container's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cable {
    /// The name of the host's end.
    Veth(String),
    /// Its index inside, which no other fenced interface may have.
    Macvlan(u32),
}

impl std::fmt::Display for Cable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Veth(name) => f.write_str(name),
            Self::Macvlan(index) => write!(f, "macvlan {index}"),
        }
    }
}

/// One interface of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Where it leaves the container.
    pub cable: Cable,
    /// Ethernet address of the container's end.
    pub mac: [u8; 6],
    /// Its addresses. The link-local one that goes with `mac` is added where one is IPv6.
    pub addresses: Vec<IpAddr>,
    /// What its network is known by, if those on it may talk to each other: never 0.
    pub network: Option<u64>,
}

/// Why an interface could not be fenced or bound.
#[derive(Debug, thiserror::Error)]
pub enum WireFault {
    /// There is none of that name.
    #[error("cannot find the interface {0}")]
    Missing(String, #[source] Errno),
    /// It has more addresses than the guard can know.
    #[error("the interface {0} has more than {MAX_ADDRESSES} addresses")]
    TooMany(String),
    /// The kernel refused the program.
    #[error("cannot fence the interface {0}")]
    Attach(String, #[source] Box<ProgramError>),
    /// The trial could not be made.
    #[error("cannot make a network namespace to try it in")]
    Trial(#[source] io::Error),
    /// The thread that does the work is not there.
    #[error("cannot use the thread that fences interfaces")]
    Thread(#[source] io::Error),
}

/// The program, loaded, and the thread that hangs it on interfaces: of the network namespace
/// that the probes were started in unless told otherwise, whichever the caller is in at the moment.
#[derive(Debug)]
pub(crate) struct Wire(Mutex<Sender<Order>>);

type Outcome = Result<(), ProgramError>;

/// Fence this interface, and say how it went.
#[derive(Debug)]
struct Order {
    interface: String,
    /// Inside of this namespace, for what leaves by it; else on the host, for what comes by it.
    netns: Option<OwnedFd>,
    done: SyncSender<Outcome>,
}

impl Wire {
    /// Its thread lives as long as this does.
    pub(crate) fn new(mut program: SchedClassifier) -> Result<Self, WireFault> {
        let (sender, orders) = channel::<Order>();
        let home = File::open("/proc/thread-self/ns/net").map_err(WireFault::Thread)?;
        let serve = move || {
            for Order { interface, netns, done } in orders {
                let outcome = match netns {
                    None => attach(&mut program, &interface, TcAttachType::Ingress),
                    Some(netns) => attach_within(&mut program, &interface, &netns, &home),
                };
                // Whoever asked may have panicked.
                drop(done.send(outcome));
            }
        };
        let thread = thread::Builder::new().name("guard-wire".into()).spawn(serve);
        thread.map_err(WireFault::Thread)?;
        Ok(Self(Mutex::new(sender)))
    }

    /// Puts the program on an interface, in place of one that an earlier engine put there.
    /// `netns`: where it is, if not on the host.
    pub(crate) fn fence(&self, interface: &str, netns: Option<OwnedFd>) -> Result<(), WireFault> {
        let (done, outcome) = sync_channel(1);
        let order = Order { interface: interface.to_owned(), netns, done };
        let gone = || WireFault::Thread(io::Error::other("it has ended"));
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .send(order)
            .map_err(|_gone| gone())?;
        outcome.recv().map_err(|_gone| gone())?.map_err(|error| refused(interface, error))
    }
}

fn refused(interface: &str, error: ProgramError) -> WireFault {
    WireFault::Attach(interface.to_owned(), Box::new(error))
}

/// Whether this kernel lets the program hang where it is to hang: tried on the loopback of a
/// network namespace that is nobody's.
pub(crate) fn try_out(program: &mut SchedClassifier) -> Result<(), WireFault> {
    let trial = || {
        unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| WireFault::Trial(errno.into()))?;
        attach(program, "lo", TcAttachType::Ingress).map_err(|error| refused("lo", error))
    };
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("guard-trial".into());
        let thread = thread.spawn_scoped(scope, trial).map_err(WireFault::Thread)?;
        let panicked = |_| WireFault::Trial(io::Error::other("the trial panicked"));
        thread.join().map_err(panicked)?
    })
}

/// Does it in another network namespace.
///
/// # Panics
/// If this thread cannot come back: it must not go on in the wrong place.
fn attach_within(
    program: &mut SchedClassifier,
    interface: &str,
    netns: &OwnedFd,
    home: &File,
) -> Outcome {
    setns(netns, CloneFlags::CLONE_NEWNET).map_err(|errno| TcError::IoError(errno.into()))?;
    let done = attach(program, interface, TcAttachType::Egress);
    setns(home, CloneFlags::CLONE_NEWNET).expect("we came from this namespace and hold it open");
    done
}

fn attach(program: &mut SchedClassifier, interface: &str, at: TcAttachType) -> Outcome {
    let old = match qdisc_add_clsact(interface) {
        Ok(()) => None,
        Err(TcError::NetlinkError(error)) if error.raw_os_error() == Some(Errno::EEXIST as i32) => {
            Some(SchedClassifierLink::attached(interface, at, PRIORITY, HANDLE, None))
        }
        Err(error) => return Err(error.into()),
    };
    let old = old.transpose().map_err(TcError::IoError)?;
    let replaced = old.map(|old| program.attach_to_link(old));
    let link = match replaced {
        Some(Ok(link)) => link,
        // Somebody else's qdisc, and nothing of ours on it.
        Some(Err(_)) | None => {
            let options = NlOptions { priority: PRIORITY, handle: HANDLE, classid: None };
            program.attach_with_options(interface, at, TcAttachOptions::Netlink(options))?
        }
    };
    // Dropped, it would take the program off again; it holds nothing but numbers.
    std::mem::forget(program.take_link(link)?);
    Ok(())
}

/// Its index and what the kernel must know of it.
pub(crate) fn binding(
    cgroup: CgroupId,
    tenant: TenantId,
    interface: &Interface,
) -> Result<(u32, Binding), WireFault> {
    let index = match &interface.cable {
        Cable::Veth(name) => if_nametoindex(name.as_str())
            .map_err(|errno| WireFault::Missing(name.clone(), errno))?,
        Cable::Macvlan(index) => *index,
    };
    let mut all = interface.addresses.clone();
    if all.iter().any(IpAddr::is_ipv6) {
        all.push(link_local(interface.mac).into());
    }
    if all.len() > MAX_ADDRESSES {
        return Err(WireFault::TooMany(interface.cable.to_string()));
    }
    let mut addresses = [[0; 2]; MAX_ADDRESSES];
    for (place, address) in addresses.iter_mut().zip(all) {
        *place = words(&octets(address));
    }
    let network = interface.network.unwrap_or(0);
    Ok((index, Binding { cgroup, tenant, addresses, mac: interface.mac, reserved: 0, network }))
}

/// What others on its network find it by.
pub(crate) fn peer(binding: &Binding) -> Option<PeerKey> {
    let Binding { network, mac, .. } = *binding;
    (network != 0).then_some(PeerKey { network, mac, reserved: 0 })
}

/// What the kernel gives an interface of that Ethernet address (`addr_gen_mode` 0, RFC 4291
/// appendix A).
fn link_local([a, b, c, d, e, f]: [u8; 6]) -> Ipv6Addr {
    Ipv6Addr::from([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f])
}

/// An address as the kernel side knows it: IPv4 ones as ::ffff:a.b.c.d.
pub(crate) fn octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv4_address_is_the_same_key_in_both_families() {
        let v4: IpAddr = "10.1.2.3".parse().unwrap();
        let v6: IpAddr = "::ffff:10.1.2.3".parse().unwrap();
        assert_eq!(octets(v4), octets(v6));
    }

    #[test]
    fn the_link_local_address_is_the_one_that_linux_makes() {
        let mac = [0x02, 0x42, 0xac, 0x11, 0x00, 0x02];
        assert_eq!(link_local(mac).to_string(), "fe80::42:acff:fe11:2");
    }

    #[test]
    fn only_an_interface_with_ipv6_has_a_link_local_address() {
        let mut interface = Interface {
            cable: Cable::Veth("lo".into()),
            mac: [2, 0x42, 10, 0, 0, 2],
            addresses: vec!["10.0.0.2".parse().unwrap()],
            network: None,
        };
        let known = |interface: &Interface| {
            let (_, binding) = binding(CgroupId(1), TenantId(2), interface).unwrap();
            binding.addresses.iter().filter(|words| **words != [0; 2]).count()
        };
        assert_eq!(known(&interface), 1);
        interface.addresses.push("fd00::2".parse().unwrap());
        assert_eq!(known(&interface), 3);
        let more: IpAddr = "fd00::3".parse().unwrap();
        interface.addresses.extend([more; MAX_ADDRESSES]);
        assert!(matches!(
            binding(CgroupId(1), TenantId(2), &interface),
            Err(WireFault::TooMany(_))
        ));
    }
}
