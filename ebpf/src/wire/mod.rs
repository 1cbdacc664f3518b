//! Is this frame the container's own?
//!
//! Looks at what comes out of a container at the host's end of its veth: from there on nobody
//! can tell who sent it. A frame passes when it comes from the interface's own Ethernet and
//! IP addresses and claims no others; who may speak for routers and DHCP servers is the
//! host alone. What only the network room could have sent this way, or nobody, is dropped:
//! an interface that is bound to no container sends nothing. A macvlan has no end on the host:
//! there this hangs inside, on what leaves.
//!
//! A packet for another container of the same network is put into its namespace at once: the
//! bridge would do nothing but that, and queue it once more. Everything else goes the bridge's
//! way: what is for many, for the host, or for an address that nobody has.

use aya_ebpf::{helpers::generated, macros::classifier, programs::TcContext};
use tritium_common::{
    guard::{self, Binding, PeerKey, rule},
    traffic::{OTHER_TENANT, UNKNOWN},
};

use crate::{
    connection,
    denial::{self, Detail},
    headers::Ethernet,
    maps::{BINDINGS, DIRECT, PEERS},
    tenant, traffic,
};

mod ipv4;
mod ipv6;

/// `TC_ACT_UNSPEC` of linux/pkt_cls.h: what others hung on the interface decides.
const PASS: i32 = -1;
/// `TC_ACT_SHOT`.
const DROP: i32 = 2;

/// `PACKET_HOST` of linux/if_packet.h.
const FOR_ME: u32 = 0;

/// Length of an Ethernet header.
const ETHERNET: usize = size_of::<Ethernet>();

const UDP: u8 = 17;

/// A rule that was broken, or none.
type Judgement = Result<(), u32>;

/// A frame, whose sender it must come from, and what is known of it so far.
struct Frame<'a> {
    ctx: &'a TcContext,
    binding: &'a Binding,
    /// The address that it is refused for.
    address: [u8; 16],
    /// Whom it goes to.
    to: [u8; 6],
    kind: u16,
    protocol: u8,
}

#[classifier]
pub(crate) fn guard_wire(ctx: TcContext) -> i32 {
    let changes = connection::changes();
    // SAFETY: the kernel passes a whole __sk_buff.
    let interface = unsafe { (*ctx.skb.skb).ifindex };
    if let Some(neighbour) = connection::crossing(&ctx, changes, interface) {
        return hand_over(&ctx, neighbour);
    }
    // SAFETY: as in `tenant::entry`.
    let Some(binding) = (unsafe { BINDINGS.get(interface) }) else { return DROP };
    let mut frame =
        Frame { ctx: &ctx, binding, address: [0; 16], to: [0; 6], kind: 0, protocol: 0 };
    let Err(rule) = frame.judge() else {
        let neighbour = frame.neighbour();
        connection::note_crossing(&ctx, changes, interface, neighbour);
        return hand_over(&ctx, neighbour);
    };
    let numbers = [u32::from(frame.kind), u32::from(frame.protocol), 0, 0];
    let peer = if rule == rule::PACKET { OTHER_TENANT } else { UNKNOWN };
    traffic::dropped(binding.cgroup, peer);
    denial::count(binding.cgroup, rule, &Detail { pid: 0, address: frame.address, numbers });
    DROP
}

/// Puts a frame into a neighbour's namespace; 0 is none, whose frames take the bridge.
#[inline(always)]
fn hand_over(ctx: &TcContext, neighbour: u32) -> i32 {
    if neighbour == 0 {
        return PASS;
    }
    // It came by another interface's address, which is only right on a bridge.
    // SAFETY: the kernel passes a whole __sk_buff.
    if unsafe { generated::bpf_skb_change_type(ctx.skb.skb, FOR_ME) } != 0 {
        return PASS;
    }
    // SAFETY: the helper takes any index; the kernel drops the frame if it is nobody's.
    unsafe { generated::bpf_redirect_peer(neighbour, 0) as i32 }
}

impl Frame<'_> {
    /// The interface of the one container that a frame goes to; 0 where it is for many, for the
    /// host, or for an address that nobody has.
    #[inline(always)]
    fn neighbour(&self) -> u32 {
        let network = self.binding.network;
        if DIRECT.load() == 0
            || network == 0
            || (self.kind != Ethernet::IPV4 && self.kind != Ethernet::IPV6)
        {
            return 0;
        }
        let mac = self.to;
        // SAFETY: as in `tenant::entry`.
        unsafe { PEERS.get(PeerKey { network, mac, reserved: 0 }) }.copied().unwrap_or(0)
    }

    #[inline(always)]
    fn judge(&mut self) -> Judgement {
        let Ethernet { destination, source, kind } = self.load(0)?;
        self.to = destination;
        self.kind = u16::from_be_bytes(kind);
        // The kernel has taken the outer tag off already; an inner one is an EtherType of its own.
        // SAFETY: the kernel passes a whole __sk_buff.
        if unsafe { (*self.ctx.skb.skb).vlan_present } != 0 {
            return Err(rule::FRAME);
        }
        if source != self.binding.mac {
            return Err(rule::SPOOFED_MAC);
        }
        match self.kind {
            Ethernet::IPV4 => ipv4::judge(self),
            Ethernet::IPV6 => ipv6::judge(self),
            Ethernet::ARP => self.judge_arp(),
            _ => Err(rule::FRAME),
        }
    }

    /// ARP of IPv4 over Ethernet that claims the own address, or probes for it (RFC 5227).
    #[inline(always)]
    fn judge_arp(&mut self) -> Judgement {
        const HEAD: [u8; 6] = [0, 1, 8, 0, 6, 4];
        const REQUEST: [u8; 2] = [0, 1];
        let head: [u8; 6] = self.load(ETHERNET)?;
        let operation: [u8; 2] = self.load(ETHERNET + 6)?;
        let sender: [u8; 6] = self.load(ETHERNET + 8)?;
        let claimed: u32 = self.load(ETHERNET + 14)?;
        let target: u32 = self.load(ETHERNET + 24)?;
        self.address = tenant::mapped(claimed);
        let probes = claimed == 0 && operation == REQUEST && self.owns(&tenant::mapped(target));
        if head == HEAD && sender == self.binding.mac && (probes || self.owns(&self.address)) {
            return Ok(());
        }
        Err(rule::ARP)
    }

    /// Reads at `offset` of the frame; what is too short for that is broken.
    #[inline(always)]
    fn load<T>(&self, offset: usize) -> Result<T, u32> {
        self.ctx.load(offset).map_err(|_| rule::FRAME)
    }

    #[inline(always)]
    fn owns(&self, address: &[u8; 16]) -> bool {
        // Without an early end: fewer paths for the verifier to follow.
        let [high, low] = guard::words(address);
        let mut found = false;
        for own in &self.binding.addresses {
            found |= (own[0] ^ high) | (own[1] ^ low) == 0;
        }
        found
    }

    /// Whether a packet comes from an address of its own.
    #[inline(always)]
    fn judge_source(&mut self, source: [u8; 16]) -> Judgement {
        if self.owns(&source) {
            return Ok(());
        }
        self.address = source;
        Err(rule::SPOOFED_IP)
    }

    /// Whether a packet goes to no other tenant. Asked last, since it says least.
    #[inline(always)]
    fn judge_destination(&mut self, destination: [u8; 16]) -> Judgement {
        if !tenant::is_foreign(&destination, self.binding.tenant) {
            return Ok(());
        }
        self.address = destination;
        Err(rule::PACKET)
    }

    /// No datagram from a DHCP server's port, nor to a DHCP client's.
    #[inline(always)]
    fn judge_udp(&self, at: usize, server: u16, client: u16) -> Judgement {
        let [source, destination]: [[u8; 2]; 2] = self.load(at)?;
        if u16::from_be_bytes(source) == server || u16::from_be_bytes(destination) == client {
            return Err(rule::DHCP);
        }
        Ok(())
    }
}
