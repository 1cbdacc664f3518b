//! How often who was refused what: the counts, and whose they are.
//!
//! The kernel counts by control group, and a container that is started anew has
//! a new one. So that one which is restarted for ever does not fill the map, the
//! counts of its control groups that are gone are put together in one of them:
//! one count for each rule, however often it was restarted.

use std::collections::{HashMap, HashSet, hash_map};

use aya::maps::{self, MapData, MapError};
use tritium_common::{
    guard::{DenialCount, DenialKey},
    ids::CgroupId,
};

use crate::{guard::Denial, load::GuardObject, load::Load, rule::Rule, sample::ContainerLabels};

/// The map of counts.
pub(crate) struct Denials(maps::HashMap<MapData, DenialKey, DenialCount>);

impl Denials {
    pub(crate) fn open(object: &mut GuardObject) -> Result<Self, Load> {
        let map = object.take("DENIALS")?.try_into();
        map.map(Self).map_err(|_other_kind: MapError| Load::Map("DENIALS"))
    }

    /// All counts, by container and rule.
    pub(crate) fn all(
        &self,
        labels: impl Fn(CgroupId) -> ContainerLabels,
    ) -> Result<Vec<Denial>, MapError> {
        let mut sums: HashMap<(ContainerLabels, Rule), u64> = HashMap::new();
        for entry in self.0.iter() {
            let (key, value) = entry?;
            // A rule without a name is of a newer build, whose engine will tell it.
            let Some(rule) = Rule::of_number(key.rule) else { continue };
            // A restarted container has a new cgroup and the same name: one series.
            *sums.entry((labels(key.cgroup), rule)).or_default() += value.count;
        }
        let denials = sums.into_iter();
        let mut denials: Vec<Denial> =
            denials.map(|((labels, rule), count)| Denial { labels, rule, count }).collect();
        let order = |it: &Denial| (it.labels.tenant.clone(), it.labels.name.clone(), it.rule);
        denials.sort_by_cached_key(order);
        Ok(denials)
    }

    /// Puts the counts of those control groups together by container: `settled` are gone for so
    /// long that the kernel counts nothing there any more. Answers which still have a count.
    pub(crate) fn fold(
        &mut self,
        settled: &HashMap<CgroupId, ContainerLabels>,
    ) -> HashSet<CgroupId> {
        let mut keys: Vec<DenialKey> =
            self.0.keys().flatten().filter(|key| settled.contains_key(&key.cgroup)).collect();
        // It is always the same one that is kept.
        keys.sort_by_key(|key| key.cgroup.0);
        let mut kept: HashMap<(&ContainerLabels, u32), DenialKey> = HashMap::new();
        for key in keys {
            let Some(labels) = settled.get(&key.cgroup) else { continue };
            let into = match kept.entry((labels, key.rule)) {
                hash_map::Entry::Vacant(place) => {
                    place.insert(key);
                    continue;
                }
                hash_map::Entry::Occupied(kept) => *kept.get(),
            };
            let (Ok(one), Ok(other)) = (self.0.get(&into, 0), self.0.get(&key, 0)) else {
                continue;
            };
            let sum = DenialCount {
                count: one.count.saturating_add(other.count),
                told: one.told.max(other.told),
            };
            // Where this fails nothing has changed, and the next sweep does it.
            if self.0.insert(into, sum, 0).is_ok() {
                drop(self.0.remove(&key));
            }
        }
        kept.into_values().map(|key| key.cgroup).collect()
    }

    /// Drops the counts of control groups whose container is gone.
    pub(crate) fn forget(&mut self, gone: &HashSet<CgroupId>) {
        let keys = self.0.keys().flatten().filter(|key: &DenialKey| gone.contains(&key.cgroup));
        for key in keys.collect::<Vec<_>>() {
            // The map is bounded and the entry harmless: the next sweep does it.
            drop(self.0.remove(&key));
        }
    }
}
