//! IPv4: own source, no source route, no redirects, no DHCP answers.

use tritium_common::guard::rule;

use super::{ETHERNET, Frame, Judgement, UDP};
use crate::{headers::Ipv4Header, tenant};

const ICMP: u8 = 1;
/// ICMP types of RFC 792 and RFC 1256.
const REDIRECT: u8 = 5;
const ADVERTISEMENT: u8 = 9;
/// Ports of RFC 2131.
const DHCP_SERVER: u16 = 67;
const DHCP_CLIENT: u16 = 68;
/// Options of RFC 791.
const END: u8 = 0;
const NOTHING: u8 = 1;
const LOOSE_ROUTE: u8 = 131;
const STRICT_ROUTE: u8 = 137;
/// A header without options.
const SHORTEST: usize = size_of::<Ipv4Header>();
/// No honest header has more options; each doubles the paths that Linux 6.1's verifier follows.
const MOST_OPTIONS: usize = 8;

#[inline(always)]
pub(super) fn judge(frame: &mut Frame<'_>) -> Judgement {
    let header: Ipv4Header = frame.load(ETHERNET)?;
    let length = header.length();
    if header.version() != 4 || length < SHORTEST {
        return Err(rule::FRAME);
    }
    frame.protocol = header.protocol;
    frame.judge_source(tenant::mapped(header.source))?;
    if length > SHORTEST {
        judge_options(frame, length)?;
    }
    judge_transport(frame, header.fragment, ETHERNET + length)?;
    frame.judge_destination(tenant::mapped(header.destination))
}

#[inline(always)]
fn judge_transport(frame: &Frame<'_>, fragment: [u8; 2], at: usize) -> Judgement {
    // A later fragment has no ports; the first is as long as them at least (units of 8 bytes),
    // and Linux takes no overlapping ones.
    if u16::from_be_bytes(fragment) & 0x1fff != 0 {
        return Ok(());
    }
    match frame.protocol {
        UDP => frame.judge_udp(at, DHCP_SERVER, DHCP_CLIENT),
        ICMP => match frame.load(at)? {
            REDIRECT | ADVERTISEMENT => Err(rule::ROUTER),
            _ => Ok(()),
        },
        _ => Ok(()),
    }
}

#[inline(always)]
fn judge_options(frame: &Frame<'_>, length: usize) -> Judgement {
    let mut at = SHORTEST;
    for _ in 0..MOST_OPTIONS {
        if at >= length {
            return Ok(());
        }
        match frame.load(ETHERNET + at)? {
            END => return Ok(()),
            NOTHING => at += 1,
            LOOSE_ROUTE | STRICT_ROUTE => return Err(rule::SOURCE_ROUTE),
            _ => {
                let size: u8 = frame.load(ETHERNET + at + 1)?;
                if size < 2 {
                    return Err(rule::FRAME);
                }
                at += usize::from(size);
            }
        }
    }
    if at >= length { Ok(()) } else { Err(rule::FRAME) }
}
