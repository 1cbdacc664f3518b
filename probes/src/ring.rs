//! The kernel's record of a refusal → a line in the log.
//!
//! The kernel writes at most one record per second, container and rule; the counts are exact
//! whatever becomes of the records.

use std::net::Ipv6Addr;

use aya::maps::{MapData, RingBuf};
use tokio::io::unix::AsyncFd;
use tracing::info;
use tritium_common::guard::{Denied, rule};

use crate::{guard::Guard, rule::Rule};

/// Where the kernel writes refusals.
pub(crate) type Ring = RingBuf<MapData>;

/// Waits for refusals and logs them; returns only when the ring cannot be waited for.
pub(crate) async fn log_denials(ring: Ring, guard: &Guard) -> std::io::Result<()> {
    #[expect(
        deprecated,
        reason = "its unsafe successor asks for a descriptor that stays open: the ring owns its map"
    )]
    let mut ring = AsyncFd::new(ring)?;
    loop {
        let mut ready = ring.readable_mut().await?;
        let records = ready.get_inner_mut();
        while let Some(record) = records.next() {
            // Shorter or longer records are of another build; a build reads only its own maps.
            if let Ok(denied) = bytemuck::try_pod_read_unaligned::<Denied>(&record) {
                log(&denied, guard);
            }
        }
        ready.clear_ready();
    }
}

fn log(denied: &Denied, guard: &Guard) {
    let labels = guard.labels(denied.cgroup.0);
    info!(
        tenant = labels.tenant,
        container = labels.id,
        name = labels.name,
        rule = Rule::of_number(denied.rule).map_or("unknown", Rule::name),
        pid = denied.pid,
        what = what(denied),
        count = denied.count,
        "the guard refused"
    );
}

/// What was refused, in words.
fn what(denied: &Denied) -> String {
    let [first, second, third, fourth] = denied.detail;
    let address = Ipv6Addr::from(denied.address).to_canonical();
    match denied.rule {
        rule::CONNECT => format!("{address} port {first}"),
        rule::PACKET if first == 1 => format!("packet to {address}"),
        rule::PACKET => format!("packet from {address}"),
        rule::RAW_SOCKET => format!("socket of family {first}, type {second}"),
        rule::DEVICE => {
            let kind = if first == tritium_common::guard::BLOCK { 'b' } else { 'c' };
            format!("{kind} {second}:{third}, access {fourth}")
        }
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use tritium_common::ids::CgroupId;

    use super::*;

    #[test]
    fn a_refused_connection_is_told_with_address_and_port() {
        let mut address = [0; 16];
        address[10..].copy_from_slice(&[0xff, 0xff, 10, 0, 0, 7]);
        let denied = Denied {
            cgroup: CgroupId(1),
            count: 1,
            rule: rule::CONNECT,
            pid: 7,
            address,
            detail: [80, 0, 0, 0],
        };
        assert_eq!(what(&denied), "10.0.0.7 port 80");
    }
}
