//! IPv6: own source, no source route, no router's messages, no other's neighbour claims,
//! no DHCP answers.

use tritium_common::guard::rule;

use super::{ETHERNET, Frame, Judgement, UDP};

/// Length of the fixed header.
const HEADER: usize = 40;
/// Next headers of RFC 8200 and RFC 4302.
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const ICMP: u8 = 58;
const DESTINATION: u8 = 60;
/// More extension headers than these have no honest use.
const MOST_HEADERS: usize = 4;
/// Nor have more options of neighbour discovery.
const MOST_OPTIONS: usize = 4;

/// ICMPv6 types of RFC 2710, 4861, 2894 and 3810.
const LISTENER_REPORT: u8 = 131;
const LISTENER_DONE: u8 = 132;
const ROUTER_SOLICITATION: u8 = 133;
const ROUTER_ADVERTISEMENT: u8 = 134;
const NEIGHBOUR_SOLICITATION: u8 = 135;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
const REDIRECT: u8 = 137;
const ROUTER_RENUMBERING: u8 = 138;
const LISTENER_REPORT_2: u8 = 143;
/// Options with an Ethernet address: the source's and the target's.
const SOURCE_ADDRESS: u8 = 1;
const TARGET_ADDRESS: u8 = 2;

/// Ports of RFC 8415.
const DHCP_SERVER: u16 = 547;
const DHCP_CLIENT: u16 = 546;

const UNSPECIFIED: [u8; 16] = [0; 16];

/// Where the headers before the transport's end.
struct Upper {
    at: usize,
    /// Part of a fragmented packet.
    is_fragment: bool,
    /// And not its first: nothing more can be seen.
    is_later: bool,
}

#[inline(always)]
pub(super) fn judge(frame: &mut Frame<'_>) -> Judgement {
    let first: u8 = frame.load(ETHERNET)?;
    if first >> 4 != 6 {
        return Err(rule::FRAME);
    }
    let source: [u8; 16] = frame.load(ETHERNET + 8)?;
    let destination: [u8; 16] = frame.load(ETHERNET + 24)?;
    let nameless = source == UNSPECIFIED;
    if !nameless {
        frame.judge_source(source)?;
    }
    let upper = find_upper(frame)?;
    judge_upper(frame, &upper, nameless)?;
    frame.judge_destination(destination)
}

#[inline(always)]
fn judge_upper(frame: &mut Frame<'_>, upper: &Upper, nameless: bool) -> Judgement {
    if frame.protocol == ICMP && !upper.is_later {
        return judge_icmp(frame, upper, nameless);
    }
    if nameless {
        return Err(rule::SPOOFED_IP);
    }
    if frame.protocol == UDP && !upper.is_later {
        return frame.judge_udp(upper.at, DHCP_SERVER, DHCP_CLIENT);
    }
    Ok(())
}

/// Walks the extension headers. A first fragment that does not hold them all is broken (RFC 7112).
#[inline(always)]
fn find_upper(frame: &mut Frame<'_>) -> Result<Upper, u32> {
    let mut upper = Upper { at: ETHERNET + HEADER, is_fragment: false, is_later: false };
    frame.protocol = frame.load(ETHERNET + 6)?;
    for _ in 0..MOST_HEADERS {
        let [next, length]: [u8; 2] = match frame.protocol {
            HOP_BY_HOP | DESTINATION | FRAGMENT | AUTHENTICATION => frame.load(upper.at)?,
            ROUTING => return Err(rule::SOURCE_ROUTE),
            _ => return Ok(upper),
        };
        match frame.protocol {
            FRAGMENT => {
                let place = u16::from_be_bytes(frame.load(upper.at + 2)?);
                upper.is_fragment = true;
                frame.protocol = next;
                if place >> 3 != 0 {
                    upper.is_later = true;
                    return Ok(upper);
                }
                upper.at += 8;
            }
            AUTHENTICATION => upper.at += (usize::from(length) + 2) * 4,
            _ => upper.at += (usize::from(length) + 1) * 8,
        }
        frame.protocol = next;
    }
    Err(rule::FRAME)
}

#[inline(always)]
fn judge_icmp(frame: &mut Frame<'_>, upper: &Upper, nameless: bool) -> Judgement {
    let kind: u8 = frame.load(upper.at)?;
    match kind {
        ROUTER_ADVERTISEMENT | REDIRECT | ROUTER_RENUMBERING => Err(rule::ROUTER),
        // Linux takes none of these in fragments (RFC 6980), and here they could hide.
        ROUTER_SOLICITATION | NEIGHBOUR_SOLICITATION | NEIGHBOUR_ADVERTISEMENT
            if upper.is_fragment =>
        {
            Err(rule::NEIGHBOUR)
        }
        ROUTER_SOLICITATION => judge_neighbour_options(frame, upper.at + 8),
        NEIGHBOUR_SOLICITATION | NEIGHBOUR_ADVERTISEMENT => {
            let target: [u8; 16] = frame.load(upper.at + 8)?;
            // To ask for another's address is fine, but not by duplicate address detection.
            let claims = kind == NEIGHBOUR_ADVERTISEMENT || nameless;
            if claims && !frame.owns(&target) {
                frame.address = target;
                return Err(rule::NEIGHBOUR);
            }
            judge_neighbour_options(frame, upper.at + 24)
        }
        // Sent while duplicate address detection is under way.
        LISTENER_REPORT | LISTENER_DONE | LISTENER_REPORT_2 => Ok(()),
        _ if nameless => Err(rule::SPOOFED_IP),
        _ => Ok(()),
    }
}

/// Options may tell no Ethernet address but the own.
#[inline(always)]
fn judge_neighbour_options(frame: &Frame<'_>, mut at: usize) -> Judgement {
    for _ in 0..MOST_OPTIONS {
        // The end of the packet.
        let Ok([kind, length]) = frame.load::<[u8; 2]>(at) else { return Ok(()) };
        if length == 0 {
            return Err(rule::NEIGHBOUR);
        }
        if kind == SOURCE_ADDRESS || kind == TARGET_ADDRESS {
            let told: [u8; 6] = frame.load(at + 2)?;
            if told != frame.binding.mac {
                return Err(rule::NEIGHBOUR);
            }
        }
        at += usize::from(length) * 8;
    }
    Err(rule::NEIGHBOUR)
}
