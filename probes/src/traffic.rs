//! Who talks with whom: the kernel's counts by control group → by name.
//!
//! A container that is started anew has a new control group and the same name: one series. What
//! the kernel's map forgets, because the control group or the peer's is gone for long, is kept here
//! for as long as the container is there, so that a count never shrinks while the engine runs.

use std::collections::{HashMap, HashSet};

use aya::maps::{self, MapData, MapError};
use tritium_common::{
    bucket,
    ids::CgroupId,
    traffic::{OTHER_TENANT, OUTSIDE, Overflow, PairKey, RttKey, Traffic, UNKNOWN},
};

use crate::{
    load::{GuardObject, Load},
    sample::ContainerLabels,
};

/// What peers that are gone for long are called.
const FORMER: &str = "(former)";

/// What a container and one peer have exchanged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerTraffic {
    /// The container.
    pub labels: ContainerLabels,
    /// Name of the other container, or `(outside)` for what is no container, `(another tenant)`,
    /// `(unknown)` for frames in a name not its own, and `(former)` for what is gone.
    pub peer: String,
    /// Bytes, packets, connections.
    pub counts: Counts,
}

/// The numbers of one pair.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// Bytes of IP packets that reached a socket of the container.
    pub received_bytes: u64,
    /// Those packets.
    pub received_packets: u64,
    /// Bytes of IP packets that left one.
    pub sent_bytes: u64,
    /// Those packets.
    pub sent_packets: u64,
    /// Packets and frames that the guard dropped.
    pub dropped: u64,
    /// TCP connections opened.
    pub opened: u64,
    /// TCP connections accepted.
    pub accepted: u64,
    /// TCP segments sent again.
    pub retransmits: u64,
    /// Sum of the round-trip times, in nanoseconds.
    pub rtt_nanos: u64,
    /// Round-trip times shorter than any bucket.
    pub rtt_zero: u64,
    /// The others by OTLP's index at scale 4, in order.
    pub rtt: Vec<(i32, u64)>,
}

/// What was not counted since the maps were made, because they were full.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Uncounted {
    /// Packets and connections.
    pub events: u64,
    /// Round-trip times.
    pub round_trips: u64,
}

/// The maps.
pub(crate) struct Counters {
    traffic: maps::HashMap<MapData, PairKey, Traffic>,
    rtts: maps::HashMap<MapData, RttKey, u64>,
    overflow: maps::Array<MapData, Overflow>,
    /// By container id and peer: what is in the maps no more.
    kept: HashMap<(ContainerLabels, String), Counts>,
}

impl Counters {
    pub(crate) fn open(object: &mut GuardObject) -> Result<Self, Load> {
        let other = |name| move |_other_kind: MapError| Load::Map(name);
        Ok(Self {
            traffic: object.take("TRAFFIC")?.try_into().map_err(other("TRAFFIC"))?,
            rtts: object.take("RTTS")?.try_into().map_err(other("RTTS"))?,
            overflow: object.take("OVERFLOW")?.try_into().map_err(other("OVERFLOW"))?,
            kept: HashMap::new(),
        })
    }

    pub(crate) fn uncounted(&self) -> Result<Uncounted, MapError> {
        let overflow = self.overflow.get(&0, 0)?;
        Ok(Uncounted { events: overflow.pairs, round_trips: overflow.rtts })
    }

    /// Everything, by container and peer, in order of their names.
    pub(crate) fn all(
        &self,
        labels: impl Fn(CgroupId) -> ContainerLabels,
    ) -> Result<Vec<PeerTraffic>, MapError> {
        let mut sums = self.kept.clone();
        for (pair, counts) in self.read(|_| true)? {
            let name = peer_name(pair.peer, &labels);
            sums.entry((labels(pair.container), name)).or_default().add(&counts);
        }
        let mut all: Vec<PeerTraffic> = sums
            .into_iter()
            .map(|((labels, peer), counts)| PeerTraffic { labels, peer, counts })
            .collect();
        all.sort_by(|a, b| {
            let key = |it: &PeerTraffic| {
                (it.labels.tenant.clone(), it.labels.name.clone(), it.peer.clone())
            };
            key(a).cmp(&key(b))
        });
        Ok(all)
    }

    /// Takes the counts of control groups that are gone for long out of the maps. `alive` says
    /// which containers are still there, by id; call this before the names of `gone` are forgotten.
    pub(crate) fn forget(
        &mut self,
        gone: &HashSet<CgroupId>,
        alive: &HashSet<String>,
        labels: impl Fn(CgroupId) -> ContainerLabels,
    ) -> Result<(), MapError> {
        self.kept.retain(|(labels, _), _| alive.contains(&labels.id));
        let is_old = |pair: &PairKey| gone.contains(&pair.container) || gone.contains(&pair.peer);
        for (pair, counts) in self.read(is_old)? {
            let of = labels(pair.container);
            if alive.contains(&of.id) {
                let name = if gone.contains(&pair.peer) {
                    FORMER.to_owned()
                } else {
                    peer_name(pair.peer, &labels)
                };
                self.kept.entry((of, name)).or_default().add(&counts);
            }
            // Nothing is lost when this fails but room.
            drop(self.traffic.remove(&pair));
        }
        let old = self.rtts.keys().flatten().filter(|key| is_old(&key.pair));
        for key in old.collect::<Vec<_>>() {
            drop(self.rtts.remove(&key));
        }
        Ok(())
    }

    fn read(
        &self,
        wanted: impl Fn(&PairKey) -> bool,
    ) -> Result<HashMap<PairKey, Counts>, MapError> {
        let mut all: HashMap<PairKey, Counts> = HashMap::new();
        for entry in self.traffic.iter() {
            let (pair, traffic) = entry?;
            if wanted(&pair) {
                all.insert(pair, Counts::of(&traffic));
            }
        }
        for entry in self.rtts.iter() {
            let (RttKey { pair, slot, .. }, count) = entry?;
            let Some(counts) = all.get_mut(&pair) else { continue };
            match bucket::index_of_slot(slot.try_into().unwrap_or(usize::MAX)) {
                None => counts.rtt_zero += count,
                Some(index) => counts.rtt.push((index, count)),
            }
        }
        for counts in all.values_mut() {
            counts.rtt.sort_unstable();
        }
        Ok(all)
    }
}

fn peer_name(peer: CgroupId, labels: impl Fn(CgroupId) -> ContainerLabels) -> String {
    match peer {
        OUTSIDE => "(outside)".into(),
        OTHER_TENANT => "(another tenant)".into(),
        UNKNOWN => "(unknown)".into(),
        peer => Some(labels(peer).name).filter(|it| !it.is_empty()).unwrap_or(FORMER.into()),
    }
}

impl Counts {
    fn of(traffic: &Traffic) -> Self {
        Self {
            received_bytes: traffic.received_bytes,
            received_packets: traffic.received_packets,
            sent_bytes: traffic.sent_bytes,
            sent_packets: traffic.sent_packets,
            dropped: traffic.dropped,
            opened: traffic.opened,
            accepted: traffic.accepted,
            retransmits: traffic.retransmits,
            rtt_nanos: traffic.rtt_nanos,
            rtt_zero: 0,
            rtt: Vec::new(),
        }
    }

    /// Adds another's counts to these.
    pub fn add(&mut self, other: &Self) {
        self.received_bytes += other.received_bytes;
        self.received_packets += other.received_packets;
        self.sent_bytes += other.sent_bytes;
        self.sent_packets += other.sent_packets;
        self.dropped += other.dropped;
        self.opened += other.opened;
        self.accepted += other.accepted;
        self.retransmits += other.retransmits;
        self.rtt_nanos += other.rtt_nanos;
        self.rtt_zero += other.rtt_zero;
        for (index, count) in &other.rtt {
            match self.rtt.binary_search_by_key(index, |(index, _)| *index) {
                Ok(at) => self.rtt[at].1 += count,
                Err(at) => self.rtt.insert(at, (*index, *count)),
            }
        }
    }

    /// Quantiles of the round-trip time; none where nothing was measured.
    #[must_use]
    pub fn round_trips(&self) -> Option<crate::Percentiles> {
        crate::histogram::percentiles(self.rtt_zero, &self.rtt)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_add_up_bucket_by_bucket() {
        let mut sum = Counts { opened: 1, rtt: vec![(-100, 1), (-90, 2)], ..Counts::default() };
        let more = Counts { opened: 2, rtt: vec![(-95, 4), (-90, 8)], ..Counts::default() };
        sum.add(&more);
        assert_eq!(sum.opened, 3);
        assert_eq!(sum.rtt, [(-100, 1), (-95, 4), (-90, 10)]);
    }

    #[test]
    fn what_is_no_container_has_a_name_too() {
        let nobody = |_| ContainerLabels::nobody();
        assert_eq!(peer_name(OUTSIDE, nobody), "(outside)");
        assert_eq!(peer_name(OTHER_TENANT, nobody), "(another tenant)");
        assert_eq!(peer_name(CgroupId(7), nobody), "(former)", "whose name is forgotten");
    }
}
