//! Supervisors that are ready, and what is left of those that are not needed.

use super::{
    cgroup::{Group, Layout},
    connection::Tasks,
    spawner::Spawner,
};
use crate::config::REFILL_AFTER;
use std::{
    collections::VecDeque,
    io,
    os::fd::OwnedFd,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    process::Child,
    sync::{Notify, mpsc},
};

/// How the directories of supervisors that are leaving begin.
pub(super) const GONE: &str = "gone-";

/// Gives out parked supervisors and parks new ones.
#[derive(Debug)]
pub(super) struct Pool {
    ready: Mutex<VecDeque<Supervisor>>,
    target: usize,
    taken: Arc<Notify>,
    emptied: Arc<Notify>,
    spawner: Spawner,
    janitor: Janitor,
}

/// A supervisor without a container. Dropped, it leaves, and its version 1
/// directories go.
#[derive(Debug)]
pub(super) struct Supervisor {
    inner: Option<Parked>,
    janitor: Janitor,
}

#[derive(Debug)]
struct Parked {
    child: Child,
    socket: OwnedFd,
    group: Group,
}

impl Pool {
    /// Begins to park `target` supervisors. Needs the reactor.
    pub(super) fn start(
        program: PathBuf,
        target: usize,
        layout: Arc<Layout>,
        tasks: &Tasks,
    ) -> io::Result<Arc<Self>> {
        let janitor = Janitor::start(tasks);
        let pool = Arc::new(Self {
            ready: Mutex::default(),
            target,
            taken: Arc::default(),
            emptied: Arc::default(),
            spawner: Spawner::start(program, layout, janitor.clone(), tasks.tracker.token())?,
            janitor,
        });
        let stopping = tasks.stopping.clone();
        let weak = Arc::downgrade(&pool);
        let (taken, emptied) = (pool.taken.clone(), pool.emptied.clone());
        tasks.tracker.spawn(async move {
            // Holds the pool only while it works: a dropped runtime ends.
            let refill = async {
                while let Some(pool) = weak.upgrade() {
                    pool.refill().await;
                    drop(pool);
                    taken.notified().await;
                    // Nobody is to start slower for it, unless he must wait.
                    tokio::select! {
                        () = tokio::time::sleep(REFILL_AFTER) => {}
                        () = emptied.notified() => {}
                    }
                }
            };
            stopping.run_until_cancelled(refill).await;
            // One may have been parked while it was stopped.
            if let Some(pool) = weak.upgrade() {
                pool.close();
            }
        });
        Ok(pool)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<Supervisor>> {
        self.ready.lock().expect("no panic happens under this lock")
    }

    /// Parks no more, and lets the parked ones leave.
    pub(super) fn close(&self) {
        self.spawner.stop();
        self.lock().clear();
    }

    async fn refill(&self) {
        while self.lock().len() < self.target {
            match self.spawner.spawn().await {
                Ok(supervisor) => self.lock().push_back(supervisor),
                Err(error) => {
                    // The next launch tries by itself, and reports.
                    tracing::warn!(%error, "cannot park a supervisor");
                    return;
                }
            }
        }
    }

    /// A supervisor that lives: a parked one if there is one.
    pub(super) async fn take(&self) -> io::Result<Supervisor> {
        loop {
            let (next, left) = {
                let mut ready = self.lock();
                (ready.pop_front(), ready.len())
            };
            self.taken.notify_one();
            if left == 0 {
                self.emptied.notify_one();
            }
            let Some(mut supervisor) = next else { return self.spawner.spawn().await };
            // Else somebody has killed it.
            if supervisor.is_alive() {
                return Ok(supervisor);
            }
        }
    }

    /// How many are parked now.
    pub(super) fn parked(&self) -> usize {
        self.lock().len()
    }

    /// Who removes what cannot be removed yet.
    pub(super) fn janitor(&self) -> &Janitor {
        &self.janitor
    }
}

impl Drop for Pool {
    /// Lets the refilling task see that there is nothing to fill.
    fn drop(&mut self) {
        self.taken.notify_one();
    }
}

impl Supervisor {
    pub(super) fn new(child: Child, socket: OwnedFd, group: Group, janitor: Janitor) -> Self {
        Self { inner: Some(Parked { child, socket, group }), janitor }
    }

    fn is_alive(&mut self) -> bool {
        self.inner.as_mut().is_some_and(|parked| matches!(parked.child.try_wait(), Ok(None)))
    }

    /// Gives its version 1 directories another name.
    pub(super) fn rename(&mut self, name: &str) -> io::Result<()> {
        if let Some(parked) = &mut self.inner {
            parked.group = parked.group.rename(name.to_owned())?;
        }
        Ok(())
    }

    /// A second descriptor of its socket.
    pub(super) fn socket(&self) -> io::Result<OwnedFd> {
        match &self.inner {
            Some(parked) => parked.socket.try_clone(),
            None => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// It has a container now: it and its directories stay.
    pub(super) fn engage(mut self) -> Option<Child> {
        self.inner.take().map(|parked| parked.child)
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        let Some(Parked { child, socket, group }) = self.inner.take() else { return };
        // It leaves when the last end is closed; tokio reaps the child.
        drop((child, socket));
        self.janitor.set_aside(&group);
    }
}

/// Removes directories once the supervisors in them have left.
#[derive(Debug, Clone)]
pub(super) struct Janitor {
    inbox: mpsc::UnboundedSender<Group>,
    count: Arc<AtomicU64>,
}

impl Janitor {
    fn start(tasks: &Tasks) -> Self {
        let (inbox, mut groups) = mpsc::unbounded_channel::<Group>();
        let stopping = tasks.stopping.clone();
        tasks.tracker.spawn(async move {
            let mut left: Vec<Group> = Vec::new();
            let mut pause = SOON;
            loop {
                let more = async {
                    if left.is_empty() {
                        return groups.recv().await;
                    }
                    tokio::select! {
                        group = groups.recv() => group,
                        () = tokio::time::sleep(pause) => None,
                    }
                };
                match stopping.run_until_cancelled(more).await {
                    Some(Some(group)) => {
                        left.push(group);
                        pause = SOON;
                    }
                    // Everybody who could leave something has gone, or the
                    // engine stops: the next one sweeps.
                    Some(None) if groups.is_closed() && left.is_empty() => return,
                    None => return,
                    Some(None) => {
                        left.retain(|group| !removed(group));
                        pause = (pause * 2).min(LATER);
                    }
                }
            }
        });
        Self { inbox, count: Arc::default() }
    }

    /// A name that nobody has.
    pub(super) fn name(&self) -> String {
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        format!("{GONE}{}-{count}", std::process::id())
    }

    /// Frees the name of a group whose supervisor is leaving.
    pub(super) fn set_aside(&self, group: &Group) {
        match group.rename(self.name()) {
            Ok(aside) => self.remove(aside),
            // There under its old name still, or not there at all.
            Err(_) => self.remove(group.clone()),
        }
    }

    pub(super) fn remove(&self, group: Group) {
        // No janitor: the engine stops, and the next one sweeps.
        drop(self.inbox.send(group));
    }
}

const SOON: Duration = Duration::from_millis(2);
const LATER: Duration = Duration::from_secs(1);

fn removed(group: &Group) -> bool {
    group.try_remove_v1().unwrap_or_else(|error| {
        tracing::warn!(%error, cgroup = ?group, "cannot remove a control group");
        true
    })
}
