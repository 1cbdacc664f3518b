//! The trace's maps while somebody watches: who has which slot, and which rows are free.

use std::{
    collections::HashMap,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use aya::{
    Pod,
    maps::{Array, HashMap as BpfMap, MapData, MapError, Stack},
};
use bytemuck::Zeroable as _;
use tritium_common::{
    ids::CgroupId,
    trace::{ErrorKey, MAX_WATCHED, Row, RowKey, State, Task, Watched},
};

use super::TraceFault;
use crate::load::{Load, Place, TraceObject, remove_all, shards};

/// A program that runs while its container's watch ends may write into a row this much later at most.
const GRACE: Duration = Duration::from_secs(1);

/// More than the moves of tasks between one read and one write of the generation.
const GENERATION_STEP: u64 = 1000;

pub(super) struct Session {
    pub(super) watches: BpfMap<MapData, CgroupId, u32>,
    pub(super) tasks: Array<MapData, Task>,
    state: Array<MapData, State>,
    pub(super) watched: Array<MapData, Watched>,
    pub(super) rows: Array<MapData, Row>,
    free_rows: Stack<MapData, u32>,
    row_owners: BpfMap<MapData, RowKey, u32>,
    pub(super) errors: BpfMap<MapData, ErrorKey, u64>,
    pub(super) shards: u32,
    slots: HashMap<u64, u32>,
    free_slots: Vec<u32>,
    /// Slots that were given back, and when. Their rows are still theirs.
    retired: Vec<(Instant, u32)>,
}

impl Session {
    /// Makes the maps and attaches the programs, or takes over what is pinned.
    pub(super) fn open(place: &Place) -> Result<Self, TraceFault> {
        if !crate::load::trace_is_pinned(place) {
            // What a crash left half attached is no base to count on.
            remove_all(&place.trace_pins())?;
        }
        let mut object = TraceObject::load(place)?;
        let mut session = Self::from_maps(&mut object)?;
        session.prepare(place)?;
        object.attach(place)?;
        Ok(session)
    }

    fn from_maps(object: &mut TraceObject) -> Result<Self, Load> {
        fn array<V: Pod>(
            object: &mut TraceObject,
            name: &'static str,
        ) -> Result<Array<MapData, V>, Load> {
            object.take(name)?.try_into().map_err(|_other_kind: MapError| Load::Map(name))
        }
        fn hash<K: Pod, V: Pod>(
            object: &mut TraceObject,
            name: &'static str,
        ) -> Result<BpfMap<MapData, K, V>, Load> {
            object.take(name)?.try_into().map_err(|_other_kind: MapError| Load::Map(name))
        }
        let free_rows = object.take("FREE_ROWS")?.try_into();
        Ok(Self {
            watches: hash(object, "WATCHES")?,
            tasks: array(object, "TASKS")?,
            state: array(object, "STATE")?,
            watched: array(object, "WATCHED")?,
            rows: array(object, "ROWS")?,
            free_rows: free_rows.map_err(|_other_kind: MapError| Load::Map("FREE_ROWS"))?,
            row_owners: hash(object, "ROW_OWNERS")?,
            errors: hash(object, "ERRORS")?,
            shards: shards(),
            slots: HashMap::new(),
            free_slots: Vec::new(),
            retired: Vec::new(),
        })
    }

    /// Fills new maps, or learns who is watched from those of an earlier engine.
    fn prepare(&mut self, place: &Place) -> Result<(), TraceFault> {
        let failed = TraceFault::while_;
        let fresh =
            self.state.get(&0, 0).map_err(failed("read the trace's state"))?.generation == 0;
        if fresh {
            for row in (1..=place.trace_rows).rev() {
                self.free_rows.push(row, 0).map_err(failed("fill the stack of rows"))?;
            }
            self.state
                .set(0, State { generation: 1 }, 0)
                .map_err(failed("set the trace's state"))?;
        }
        for entry in self.watches.iter() {
            let (cgroup, slot) = entry.map_err(failed("read who is watched"))?;
            self.slots.insert(cgroup.0, slot);
        }
        let taken: Vec<u32> = self.slots.values().copied().collect();
        for slot in (1..MAX_WATCHED).rev().filter(|slot| !taken.contains(slot)) {
            // What an earlier engine gave back but did not come to clear.
            let used =
                !fresh && self.watched.get(&slot, 0).map_err(failed("read a slot"))?.since != 0;
            if used {
                self.retired.push((Instant::now(), slot));
            } else {
                self.free_slots.push(slot);
            }
        }
        Ok(())
    }

    /// Ids of the cgroups that are watched.
    pub(super) fn watched(&self) -> impl Iterator<Item = u64> {
        self.slots.keys().copied()
    }

    pub(super) fn slot(&self, cgroup: u64) -> Option<u32> {
        self.slots.get(&cgroup).copied()
    }

    /// Counts a container from now on.
    pub(super) fn begin(&mut self, cgroup: u64) -> Result<(), TraceFault> {
        let failed = TraceFault::while_;
        self.reclaim(Instant::now())?;
        let slot = *self.free_slots.last().ok_or(TraceFault::TooMany(cgroup))?;
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        let fresh =
            Watched { since: u64::try_from(since).unwrap_or(u64::MAX), ..Watched::zeroed() };
        self.watched.set(slot, fresh, 0).map_err(failed("clear a slot"))?;
        self.watches.insert(CgroupId(cgroup), slot, 0).map_err(failed("watch a cgroup"))?;
        self.free_slots.pop();
        self.slots.insert(cgroup, slot);
        self.look_anew()
    }

    /// Counts a container no more. Its slot and rows are used again after a grace.
    pub(super) fn end(&mut self, cgroup: u64) -> Result<(), TraceFault> {
        let failed = TraceFault::while_;
        let Some(slot) = self.slots.remove(&cgroup) else { return Ok(()) };
        self.watches.remove(&CgroupId(cgroup)).map_err(failed("unwatch a cgroup"))?;
        self.look_anew()?;
        self.retired.push((Instant::now(), slot));
        Ok(())
    }

    /// Makes every task look up anew which container it is in.
    fn look_anew(&mut self) -> Result<(), TraceFault> {
        let failed = TraceFault::while_;
        let now = self.state.get(&0, 0).map_err(failed("read the trace's state"))?;
        let next = State { generation: now.generation + GENERATION_STEP };
        self.state.set(0, next, 0).map_err(failed("set the trace's state"))
    }

    /// Clears what was given back long enough ago.
    fn reclaim(&mut self, now: Instant) -> Result<(), TraceFault> {
        let (old, young): (Vec<_>, Vec<_>) = std::mem::take(&mut self.retired)
            .into_iter()
            .partition(|(since, _)| now.saturating_duration_since(*since) >= GRACE);
        self.retired = young;
        for (_, slot) in old {
            self.clear(slot)?;
            self.free_slots.push(slot);
        }
        Ok(())
    }

    /// Gives the rows and errnos of a slot back.
    fn clear(&mut self, slot: u32) -> Result<(), TraceFault> {
        let failed = TraceFault::while_;
        let watched = self.watched.get(&slot, 0).map_err(failed("read a slot"))?;
        for (number, row) in (0_u32..).zip(watched.rows) {
            if row == 0 {
                continue;
            }
            self.row_owners.remove(&RowKey { slot, number }).map_err(failed("give a row back"))?;
            for shard in 0..self.shards {
                self.rows
                    .set(row * self.shards + shard, Row::zeroed(), 0)
                    .map_err(failed("clear a row"))?;
            }
            self.free_rows.push(row, 0).map_err(failed("give a row back"))?;
        }
        let errors: Vec<ErrorKey> =
            self.errors.keys().flatten().filter(|key| key.slot == slot).collect();
        for key in errors {
            self.errors.remove(&key).map_err(failed("forget an errno"))?;
        }
        self.watched.set(slot, Watched::zeroed(), 0).map_err(failed("clear a slot"))
    }

    /// Detaches the programs and frees the maps.
    pub(super) fn detach(self, place: &Place) -> Result<(), TraceFault> {
        drop(self);
        remove_all(&place.trace_pins())?;
        Ok(())
    }
}
