//! Where published ports lead, in the firewall's words.

use super::{Batch, Held, Target, firewall, zones};

/// Leads ports to where they are to lead.
pub(super) fn publish(batch: &mut Batch, table: &str, held: &Held, target: Target) {
    publish_plainly(batch, held, target);
    publish_zones(batch, table, held, target);
}

/// What of it stands in the firewall's tables.
pub(super) fn publish_plainly(batch: &mut Batch, held: &Held, target: Target) {
    for port in &held.ports {
        if let Some(address) = target.of(port) {
            firewall::publish(batch, port, address);
        }
    }
}

/// What of it stands in the tables for shadowed networks.
pub(super) fn publish_zones(batch: &mut Batch, table: &str, held: &Held, target: Target) {
    for port in &held.ports {
        if let Some(zone) = target.zone(port) {
            zones::publish(batch, table, port, zone);
        }
    }
}

/// Takes that back.
pub(super) fn unpublish(batch: &mut Batch, table: &str, held: &Held, target: Target) {
    for port in &held.ports {
        firewall::unpublish(batch, port);
        if target.zone(port).is_some() {
            zones::unpublish(batch, table, port);
        }
    }
}
