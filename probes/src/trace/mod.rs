//! System calls of a container: exact counts, errors by errno, latencies, and the calls still under way.
//!
//! The programs and their maps exist while at least one container is watched, and at no other time: a
//! system call of an unwatched host costs nothing at all. While they are attached every system
//! call on the host costs some (see `benches`), so watches are counted and those of
//! `tritium syscalls` end by themselves.
//!
//! `read` turns maps into numbers, `session` holds the maps; this file counts who watches.

mod read;
mod session;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

pub use crate::histogram::Percentiles;
use crate::{
    histogram,
    load::{Load, Place, trace_is_pinned},
    sample::ContainerLabels,
};
use session::Session;

/// How long a watch of an earlier engine lives on without anybody asking for it.
const INHERITED: Duration = Duration::from_secs(30);

/// How long the last numbers of a dead container are exported.
const REMEMBERED: Duration = Duration::from_secs(120);

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
    /// Calls shorter than 62 ns, which no bucket holds.
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
    /// Calls not counted, for all rows were taken.
    pub overflowed: u64,
    /// Calls or failures not counted: two tasks shared an entry, or errno keys ran out.
    pub lost: u64,
}

/// The trace. Cheap to clone. Methods are sync: `watch` takes some ten
/// milliseconds when it is the first of all, the others microseconds.
#[derive(Clone)]
pub struct Trace {
    state: Result<Arc<Mutex<State>>, Arc<str>>,
}

struct State {
    place: Place,
    session: Option<Session>,
    watches: HashMap<u64, Watch>,
    /// Last numbers of containers that are gone, until then.
    finals: Vec<(Instant, ContainerLabels, TraceSnapshot)>,
}

/// Who wants one container's numbers.
#[derive(Debug, Default)]
struct Watch {
    holds: u32,
    until: Option<Instant>,
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
    /// 1023 containers are watched already.
    #[error("cgroup {0} cannot be watched: too many are")]
    TooMany(u64),
    /// The programs could not be attached or detached.
    #[error("cannot attach or detach the trace")]
    Load(#[from] Load),
    /// The kernel refused a map call.
    #[error("cannot {doing}")]
    Map {
        /// What was being done.
        doing: &'static str,
        /// What the kernel said.
        source: Box<aya::maps::MapError>,
    },
}

impl TraceFault {
    fn while_(doing: &'static str) -> impl FnOnce(aya::maps::MapError) -> Self {
        move |source| Self::Map { doing, source: Box::new(source) }
    }
}

impl SyscallStats {
    /// Number of the entry that gathers calls with no number of their own.
    pub const OTHER: u32 = tritium_common::trace::OTHER;

    /// Quantiles by HdrHistogram; `None` when no call returned.
    #[must_use]
    pub fn percentiles(&self) -> Option<Percentiles> {
        histogram::percentiles(self.zero, &self.buckets)
    }

    /// Calls that failed.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.errors.iter().map(|error| error.count).sum()
    }
}

impl std::fmt::Debug for Trace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Trace").field("off", &self.state.is_err()).finish()
    }
}

impl Trace {
    pub(crate) fn off(why: &str) -> Self {
        Self { state: Err(why.into()) }
    }

    /// Takes over what an engine of this build left attached. Its watches
    /// end soon unless somebody asks for them again.
    pub(crate) fn open(place: Place) -> Result<Self, TraceFault> {
        let mut watches = HashMap::new();
        let mut session = None;
        if trace_is_pinned(&place) {
            let taken = Session::open(&place)?;
            let until = Some(Instant::now() + INHERITED);
            watches.extend(taken.watched().map(|cgroup| (cgroup, Watch { holds: 0, until })));
            session = Some(taken);
        }
        let state = State { place, session, watches, finals: Vec::new() };
        Ok(Self { state: Ok(Arc::new(Mutex::new(state))) })
    }

    fn state(&self) -> Result<MutexGuard<'_, State>, TraceFault> {
        let state = self.state.as_ref().map_err(|why| TraceFault::Off(why.to_string()))?;
        // A panic elsewhere leaves at worst a watch nobody counts, which the next sweep ends.
        Ok(state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Counts this container's system calls until [`Trace::unwatch`] was called
    /// as often. The first watch of all attaches the programs.
    ///
    /// # Errors
    /// [`TraceFault::Off`], or when the kernel refuses.
    pub fn watch(&self, cgroup: u64) -> Result<(), TraceFault> {
        self.state()?.watched(cgroup)?.holds += 1;
        Ok(())
    }

    /// As [`Trace::watch`], but ends by itself after `time`; calling again
    /// before that prolongs it. For `tritium syscalls`, which may go away
    /// without a word.
    ///
    /// # Errors
    /// As [`Trace::watch`].
    pub fn watch_for(&self, cgroup: u64, time: Duration) -> Result<(), TraceFault> {
        let until = Some(Instant::now() + time);
        let mut state = self.state()?;
        let watch = state.watched(cgroup)?;
        watch.until = watch.until.max(until);
        Ok(())
    }

    /// Takes one [`Trace::watch`] back. The last of all detaches the programs.
    ///
    /// # Errors
    /// [`TraceFault::NotWatched`], or when the kernel refuses.
    pub fn unwatch(&self, cgroup: u64) -> Result<(), TraceFault> {
        let mut state = self.state()?;
        let watch = state.watches.get_mut(&cgroup).ok_or(TraceFault::NotWatched(cgroup))?;
        watch.holds = watch.holds.saturating_sub(1);
        state.end_watches(Instant::now())
    }

    /// Ends every watch of a container that is gone. Its last numbers, under
    /// the names given, are exported for two minutes more. That it was not watched is no error.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn forget(&self, cgroup: u64, labels: ContainerLabels) -> Result<(), TraceFault> {
        let Ok(mut state) = self.state() else { return Ok(()) };
        if !state.watches.contains_key(&cgroup) {
            return Ok(());
        }
        let last = state.snapshot(cgroup)?;
        state.watches.insert(cgroup, Watch::default());
        let now = Instant::now();
        state.finals.push((now + REMEMBERED, labels, last));
        state.end_watches(now)
    }

    /// The numbers of one watched container.
    ///
    /// # Errors
    /// [`TraceFault::NotWatched`], or when the kernel refuses to read.
    pub fn snapshot(&self, cgroup: u64) -> Result<TraceSnapshot, TraceFault> {
        self.state()?.snapshot(cgroup)
    }

    /// The numbers of every watched container, and last numbers of dead ones.
    pub(crate) fn all(
        &self,
        labels: impl Fn(u64) -> ContainerLabels,
    ) -> Result<Vec<(ContainerLabels, TraceSnapshot)>, TraceFault> {
        let Ok(state) = self.state() else { return Ok(Vec::new()) };
        let mut all: Vec<(ContainerLabels, TraceSnapshot)> = Vec::new();
        for cgroup in state.watches.keys() {
            all.push((labels(*cgroup), state.snapshot(*cgroup)?));
        }
        for (_, labels, last) in state.finals.iter().rev() {
            // A container that was started anew has numbers of its own under the same names.
            if all.iter().all(|(other, _)| other != labels) {
                all.push((labels.clone(), last.clone()));
            }
        }
        Ok(all)
    }

    /// Whether the programs are attached at this moment.
    #[must_use]
    pub fn attached(&self) -> bool {
        self.state().is_ok_and(|state| state.session.is_some())
    }

    /// What `tritium doctor` says of the trace.
    pub(crate) fn verdict(&self) -> crate::Verdict {
        crate::Verdict {
            need: "tp_btf programs (sys_enter, sys_exit, …)".to_owned(),
            have: self.state.is_ok(),
            cost: match &self.state {
                Ok(_) => String::new(),
                Err(why) => format!("system calls cannot be counted ({why})"),
            },
        }
    }

    /// Ends watches whose time is over, and forgets numbers that were exported long enough.
    pub(crate) fn sweep(&self, now: Instant) -> Result<(), TraceFault> {
        let Ok(mut state) = self.state() else { return Ok(()) };
        state.finals.retain(|(until, ..)| *until > now);
        state.end_watches(now)
    }
}

impl State {
    /// The watch of a container, begun if there was none.
    fn watched(&mut self, cgroup: u64) -> Result<&mut Watch, TraceFault> {
        if !self.watches.contains_key(&cgroup) {
            let session = match &mut self.session {
                Some(session) => session,
                none => none.insert(Session::open(&self.place)?),
            };
            session.begin(cgroup)?;
        }
        Ok(self.watches.entry(cgroup).or_default())
    }

    fn snapshot(&self, cgroup: u64) -> Result<TraceSnapshot, TraceFault> {
        match &self.session {
            Some(session) if self.watches.contains_key(&cgroup) => {
                session.snapshot(&self.place, cgroup)
            }
            _ => Err(TraceFault::NotWatched(cgroup)),
        }
    }

    /// Ends the watches that nobody holds and whose time is over; without any, detaches.
    fn end_watches(&mut self, now: Instant) -> Result<(), TraceFault> {
        let wanted =
            |watch: &Watch| watch.holds > 0 || watch.until.is_some_and(|until| until > now);
        let over: Vec<u64> = self
            .watches
            .iter()
            .filter(|(_, watch)| !wanted(watch))
            .map(|(cgroup, _)| *cgroup)
            .collect();
        for cgroup in over {
            self.watches.remove(&cgroup);
            if let Some(session) = &mut self.session {
                session.end(cgroup)?;
            }
        }
        if self.watches.is_empty()
            && let Some(session) = self.session.take()
        {
            session.detach(&self.place)?;
        }
        Ok(())
    }
}
