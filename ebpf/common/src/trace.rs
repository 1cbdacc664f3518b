//! Records of the trace's maps.

use bytemuck::{Pod, Zeroable};

use crate::{bucket, record};

/// Containers that may be watched at a time; slot 0 means "not watched".
pub const MAX_WATCHED: u32 = 1024;

/// System call numbers a slot has rows for. The last gathers 32-bit calls and larger numbers.
pub const NUMBERS: usize = 512;

/// Where calls without a number of their own are counted.
pub const OTHER: u32 = 511;

/// The call a task is in. Index: pid modulo the map's size.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Task {
    /// `CLOCK_MONOTONIC` at entry; 0 when in no call.
    pub entered: u64,
    /// Whose entry this is: the kernel's pid, which user space calls a thread id.
    pub pid: u32,
    /// [`State::generation`] when `slot` was looked up.
    pub generation: u32,
    /// The watched container it is in; 0 for none.
    pub slot: u32,
    /// Number of the call.
    pub number: u32,
}

/// What all programs share. Index: 0.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct State {
    /// Grows whenever a task may be in another container than before, or a watch changed. Starts at 1.
    pub generation: u64,
}

/// What is known of a watched container. Index: its slot.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Watched {
    /// Row of each system call; 0 for none yet.
    pub rows: [u32; NUMBERS],
    /// Returns without an entry.
    pub unpaired: u64,
    /// Calls not counted, for all rows were taken.
    pub overflowed: u64,
    /// Calls not counted: the task's entry was another task's, or errno keys ran out.
    pub lost: u64,
    /// When the watch began, in nanoseconds of the Unix epoch; only user space reads it.
    pub since: u64,
}

/// Durations of one system call in one container. Index: row × shards + CPU modulo shards.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Row {
    /// Sum of the durations.
    pub nanos: u64,
    /// Calls by duration; see [`bucket`].
    pub buckets: [u64; bucket::SLOTS],
}

/// Which row. Value: its number.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Pod, Zeroable)]
pub struct RowKey {
    /// The container.
    pub slot: u32,
    /// The system call.
    pub number: u32,
}

/// Which failure. Value: how often.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Pod, Zeroable)]
pub struct ErrorKey {
    /// The container.
    pub slot: u32,
    /// The system call.
    pub number: u16,
    /// Positive errno.
    pub errno: u16,
}

record!(Task, State, Watched, Row, RowKey, ErrorKey);

const _: () = assert!(size_of::<Task>() == 24);
const _: () = assert!(size_of::<State>() == 8);
const _: () = assert!(size_of::<Watched>() == 2080);
const _: () = assert!(size_of::<Row>() == 4104);
const _: () = assert!(size_of::<RowKey>() == 8);
const _: () = assert!(size_of::<ErrorKey>() == 8);
