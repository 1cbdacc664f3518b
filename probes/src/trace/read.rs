//! Maps → numbers, the copies of each row summed.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::{Duration, UNIX_EPOCH},
};

use rustix::time::{ClockId, clock_gettime};
use tritium_common::{
    bucket,
    trace::{OTHER, Row, Watched},
};

use super::{ErrorCount, SyscallStats, TraceFault, TraceSnapshot, session::Session};
use crate::load::Place;

/// Errnos that never leave the kernel: a call that a signal broke off and that will be
/// restarted returns one where the trace looks (include/linux/errno.h).
const RESTARTS: [(u32, &str); 4] = [
    (512, "ERESTARTSYS"),
    (513, "ERESTARTNOINTR"),
    (514, "ERESTARTNOHAND"),
    (516, "ERESTART_RESTARTBLOCK"),
];

/// A call under way.
struct InFlight {
    number: u32,
    nanos: u64,
}

impl Session {
    pub(super) fn snapshot(&self, place: &Place, cgroup: u64) -> Result<TraceSnapshot, TraceFault> {
        let slot = self.slot(cgroup).ok_or(TraceFault::NotWatched(cgroup))?;
        let watched = self.watched.get(&slot, 0).map_err(TraceFault::while_("read a slot"))?;
        let in_flight = self.in_flight(place, cgroup, slot)?;
        let mut syscalls = self.rows_of(&watched)?;
        for call in &in_flight {
            if syscalls.iter().all(|stats| stats.nr != call.number) {
                syscalls.push(empty(call.number));
            }
        }
        for stats in &mut syscalls {
            let mine = in_flight.iter().filter(|call| call.number == stats.nr);
            stats.oldest_nanos = mine.clone().map(|call| call.nanos).max().unwrap_or(0);
            stats.in_flight = mine.count() as u64;
        }
        self.add_errors(slot, &mut syscalls)?;
        syscalls.sort_by(|a, b| b.calls.cmp(&a.calls).then(a.nr.cmp(&b.nr)));
        Ok(TraceSnapshot {
            cgroup,
            since: UNIX_EPOCH + Duration::from_nanos(watched.since),
            syscalls,
            unpaired: watched.unpaired,
            overflowed: watched.overflowed,
            lost: watched.lost,
        })
    }

    fn rows_of(&self, watched: &Watched) -> Result<Vec<SyscallStats>, TraceFault> {
        let mut syscalls = Vec::new();
        for (number, row) in (0_u32..).zip(watched.rows) {
            if row == 0 {
                continue;
            }
            let mut copies = Vec::new();
            for shard in 0..self.shards {
                let copy = self.rows.get(&(row * self.shards + shard), 0);
                copies.push(copy.map_err(TraceFault::while_("read a row"))?);
            }
            syscalls.push(sum(number, &copies));
        }
        Ok(syscalls)
    }

    fn add_errors(&self, slot: u32, syscalls: &mut [SyscallStats]) -> Result<(), TraceFault> {
        for entry in self.errors.iter() {
            let (key, count) = entry.map_err(TraceFault::while_("read the errors"))?;
            if key.slot != slot {
                continue;
            }
            let Some(stats) = syscalls.iter_mut().find(|stats| stats.nr == u32::from(key.number))
            else {
                continue;
            };
            // It returns what the interrupted code had in its register.
            if stats.name == "rt_sigreturn" {
                continue;
            }
            let errno = u32::from(key.errno);
            stats.errors.push(ErrorCount { errno, name: errno_name(errno), count });
        }
        for stats in syscalls {
            stats.errors.sort_by(|a, b| b.count.cmp(&a.count).then(a.errno.cmp(&b.errno)));
        }
        Ok(())
    }

    /// The calls that the container's tasks are in. Tasks are found by the
    /// cgroup's own lists, for the map of tasks is as large as the host's pids are many.
    fn in_flight(
        &self,
        place: &Place,
        cgroup: u64,
        slot: u32,
    ) -> Result<Vec<InFlight>, TraceFault> {
        let mut calls = Vec::new();
        for thread in
            directory_of(&place.cgroup, cgroup).map(|path| threads_of(&path)).unwrap_or_default()
        {
            let index = thread & (self.tasks.len() - 1);
            let task = self.tasks.get(&index, 0).map_err(TraceFault::while_("read a task"))?;
            if task.pid == thread && task.slot == slot && task.entered != 0 {
                // Now, and not before the task was read: it may have entered since.
                let nanos = monotonic_nanos().saturating_sub(task.entered);
                calls.push(InFlight { number: task.number, nanos });
            }
        }
        Ok(calls)
    }
}

/// The directory of a child cgroup of the engine's, by its id.
fn directory_of(engine: &Path, cgroup: u64) -> Option<PathBuf> {
    let children = fs::read_dir(engine).ok()?.flatten();
    let found = children
        .into_iter()
        .find(|child| child.metadata().is_ok_and(|meta| meta.ino() == cgroup))?;
    Some(found.path())
}

/// Threads of a cgroup and those below it. One that goes away meanwhile has none.
fn threads_of(directory: &Path) -> Vec<u32> {
    let mut threads = Vec::new();
    let mut left = vec![directory.to_owned()];
    while let Some(directory) = left.pop() {
        let listed = fs::read_to_string(directory.join("cgroup.threads"));
        threads
            .extend(listed.unwrap_or_default().lines().filter_map(|line| line.parse::<u32>().ok()));
        left.extend(children_of(&directory).unwrap_or_default());
    }
    threads
}

fn children_of(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut children = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            children.push(entry.path());
        }
    }
    Ok(children)
}

fn empty(number: u32) -> SyscallStats {
    SyscallStats {
        nr: number,
        name: syscall_name(number),
        calls: 0,
        errors: Vec::new(),
        buckets: Vec::new(),
        zero: 0,
        nanos: 0,
        in_flight: 0,
        oldest_nanos: 0,
    }
}

/// One system call's copies, added up.
fn sum(number: u32, copies: &[Row]) -> SyscallStats {
    let mut stats = empty(number);
    stats.nanos = copies.iter().map(|copy| copy.nanos).sum();
    for slot in 0..bucket::SLOTS {
        let count: u64 = copies.iter().filter_map(|copy| copy.buckets.get(slot)).sum();
        stats.calls += count;
        match bucket::index_of_slot(slot) {
            None => stats.zero = count,
            Some(index) if count > 0 => stats.buckets.push((index, count)),
            Some(_) => {}
        }
    }
    stats
}

fn syscall_name(number: u32) -> String {
    let known =
        usize::try_from(number).ok().filter(|_| number != OTHER).and_then(syscalls::Sysno::new);
    match known {
        Some(call) => call.name().to_owned(),
        None if number == OTHER => "other".to_owned(),
        // Newer than the table.
        None => format!("syscall_{number}"),
    }
}

fn errno_name(errno: u32) -> String {
    if let Some((_, name)) = RESTARTS.iter().find(|(number, _)| *number == errno) {
        return (*name).to_owned();
    }
    let known = i32::try_from(errno).ok().and_then(|errno| syscalls::Errno::new(errno).name());
    known.map_or_else(|| errno.to_string(), str::to_owned)
}

fn monotonic_nanos() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let nanos = i128::from(now.tv_sec) * 1_000_000_000 + i128::from(now.tv_nsec);
    u64::try_from(nanos).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use bytemuck::Zeroable as _;

    use super::*;

    #[test]
    fn copies_of_a_row_are_added_up_and_short_calls_are_apart() {
        let mut here = Row { nanos: 10, ..Row::zeroed() };
        let mut there = Row { nanos: 5, ..Row::zeroed() };
        here.buckets[0] = 2;
        here.buckets[100] = 3;
        there.buckets[100] = 4;
        let stats = sum(39, &[here, there]);
        assert_eq!((stats.calls, stats.zero, stats.nanos), (9, 2, 15));
        assert_eq!(stats.buckets, [(100 - 384, 7)]);
    }

    #[test]
    fn numbers_have_names_and_unknown_ones_say_so() {
        #[cfg(target_arch = "x86_64")]
        assert_eq!(syscall_name(39), "getpid");
        assert_eq!(syscall_name(OTHER), "other");
        assert_eq!(syscall_name(510), "syscall_510");
        assert_eq!((errno_name(2).as_str(), errno_name(512).as_str()), ("ENOENT", "ERESTARTSYS"));
        assert_eq!(errno_name(3999), "3999");
    }
}
