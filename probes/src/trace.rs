//! System calls of a container: exact counts, errors by errno, latencies.
//!
//! Attached while at least one container is watched, and at no other time.

use std::time::{Duration, SystemTime};

/// What one system call did in one container since its watch began.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyscallStats {
    /// Its number, or [`SyscallStats::OTHER`].
    pub nr: u32,
    /// Its name; `other` for 32-bit calls and numbers this build has no name for.
    pub name: String,
    /// Calls that returned. Exact.
    pub calls: u64,
    /// Those that returned an error, by errno.
    pub errors: Vec<ErrorCount>,
    /// Calls by duration: `(index, count)` of OpenTelemetry's exponential
    /// histogram of scale 4 in seconds, ascending, none empty.
    pub buckets: Vec<(i32, u64)>,
    /// Calls shorter than 2^-24 s (60 ns), which no bucket holds.
    pub zero: u64,
    /// Sum of the durations.
    pub nanos: u64,
    /// Calls that have not returned yet.
    pub in_flight: u64,
    /// Since when the oldest of those has been running.
    pub oldest_nanos: u64,
}

/// Failed calls by errno.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorCount {
    /// The errno, positive.
    pub errno: u32,
    /// Its name as in errno(3), as `ENOENT`.
    pub name: String,
    /// How often.
    pub count: u64,
}

/// Quantiles of the duration; each within 2.6 % of the true one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Percentiles {
    /// Median.
    pub p50: Duration,
    /// 90 %.
    pub p90: Duration,
    /// 99 %.
    pub p99: Duration,
    /// 99.9 %.
    pub p999: Duration,
    /// The longest, to one bucket.
    pub max: Duration,
}

/// All system calls of one container at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceSnapshot {
    /// Id of its cgroup.
    pub cgroup: u64,
    /// When its watch began; counts are cumulative from here.
    pub since: SystemTime,
    /// One entry for each system call seen, most frequent first.
    pub syscalls: Vec<SyscallStats>,
    /// Returns without a seen entry: a child's first return from fork, or a
    /// call that was under way when the watch began.
    pub unpaired: u64,
    /// Calls not counted by name, for all rows were taken.
    pub overflowed: u64,
    /// Calls not counted at all: two tasks shared a slot, or errno keys ran out.
    pub lost: u64,
}

/// The trace. Cheap to clone. Methods are sync: `watch` takes some
/// milliseconds when it is the first, the others microseconds.
#[derive(Debug, Clone)]
pub struct Trace {
    why_off: String,
}

/// Why there are no numbers.
#[derive(Debug, thiserror::Error)]
pub enum TraceFault {
    /// This kernel cannot trace, or tracing is switched off.
    #[error("system calls cannot be traced here: {0}")]
    Off(String),
    /// The container is not watched.
    #[error("cgroup {0} is not watched")]
    NotWatched(u64),
}

impl SyscallStats {
    /// Number of the entry that gathers calls with no number of their own.
    pub const OTHER: u32 = 511;

    /// Quantiles by HdrHistogram; `None` when no call returned.
    #[must_use]
    pub fn percentiles(&self) -> Option<Percentiles> {
        None
    }
}

impl Trace {
    pub(crate) fn off(why: &str) -> Self {
        Self { why_off: why.to_owned() }
    }

    /// Counts this container's system calls until [`Trace::unwatch`] was called
    /// as often. The first watch of all attaches the programs.
    ///
    /// # Errors
    /// [`TraceFault::Off`], or when the kernel refuses.
    pub fn watch(&self, cgroup: u64) -> Result<(), TraceFault> {
        let _ = cgroup;
        Err(TraceFault::Off(self.why_off.clone()))
    }

    /// As [`Trace::watch`], but ends by itself after `time`; calling again
    /// before that prolongs it. For `tritium syscalls`, which may go away
    /// without a word.
    ///
    /// # Errors
    /// As [`Trace::watch`].
    pub fn watch_for(&self, cgroup: u64, time: Duration) -> Result<(), TraceFault> {
        let _ = time;
        self.watch(cgroup)
    }

    /// Takes one [`Trace::watch`] back. The last of all detaches the programs.
    ///
    /// # Errors
    /// [`TraceFault::NotWatched`], or when the kernel refuses.
    pub fn unwatch(&self, cgroup: u64) -> Result<(), TraceFault> {
        Err(TraceFault::NotWatched(cgroup))
    }

    /// Ends every watch of a container that is gone. Its last numbers are
    /// exported once more.
    pub fn forget(&self, cgroup: u64) {
        let _ = cgroup;
    }

    /// The numbers of one watched container.
    ///
    /// # Errors
    /// [`TraceFault::NotWatched`], or when the kernel refuses to read.
    pub fn snapshot(&self, cgroup: u64) -> Result<TraceSnapshot, TraceFault> {
        Err(TraceFault::NotWatched(cgroup))
    }

    /// Whether the programs are attached at this moment.
    #[must_use]
    pub fn attached(&self) -> bool {
        false
    }
}
