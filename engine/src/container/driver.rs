//! The task that owns one container; the only caller of `State::on`.
//!
//! It answers requests one after the other. What takes long (a stop with its
//! grace period) is noted and answered when the end comes, so that a kill can
//! overtake it.

use super::{
    AttachOptions, Attachment, EndpointRecord, Handle, Joining, Probe, Record, RemoveOptions,
    Snapshot, State, Update, WaitOutcome,
    attach::Waiting,
    ending::Ending,
    handle::{Inner, Views},
    restart::Backoff,
    state::Event,
    tools::Tools,
};
use crate::{
    error::{Error, chain},
    events,
    runtime::Running,
    storage::Upper,
};
use std::{os::fd::OwnedFd, sync::Arc};
use tokio::{
    sync::{broadcast, mpsc, oneshot, watch},
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

pub(super) const SIGKILL: i32 = nix::sys::signal::Signal::SIGKILL as i32;

/// Where an answer goes. Nobody may be listening any more; that is fine.
pub(super) type Done<T> = oneshot::Sender<Result<T, Error>>;

/// What others ask of a container.
pub(super) enum Request {
    Start { done: Done<()> },
    Stop { signal: Option<i32>, timeout: Option<i64>, restart: bool, done: Done<()> },
    Kill { signal: i32, done: Done<()> },
    Freeze { freeze: bool, done: Done<()> },
    Remove { how: RemoveOptions, called: String, done: Done<()> },
    Rename { name: String, done: Done<()> },
    Update { change: Box<Update>, done: Done<()> },
    Attach { options: AttachOptions, done: Done<Attachment> },
    Join { joining: Box<Joining>, done: Done<()> },
    Part { network: String, done: Done<()> },
    Keep { done: Done<()> },
    Surrender { done: Done<Upper> },
}

pub(super) struct Driver {
    pub(super) record: Record,
    pub(super) tools: Tools,
    pub(super) running: Option<Running>,
    /// Clients that attached before the start.
    pub(super) waiting: Vec<Waiting>,
    pub(super) exits: broadcast::Sender<WaitOutcome>,
    pub(super) running_seen: watch::Sender<Option<Running>>,
    /// The probes hold one watch for the label `tritium.trace=syscalls`.
    pub(super) traced: Option<u64>,
    /// Its volumes have been mounted (also if there are none).
    pub(super) mounted: bool,
    /// Its network namespace, while it is on networks that we connect.
    pub(super) netns: Option<OwnedFd>,
    /// Its control group, while the guard knows it.
    pub(super) admitted: Option<u64>,
    /// Nobody may look at its files while it is started.
    pub(super) views: Views,
    /// Ends who asks how it is.
    pub(super) health: Option<CancellationToken>,
    pub(super) probe_sender: mpsc::Sender<Probe>,
    pub(super) probes: mpsc::Receiver<Probe>,
    seen: watch::Sender<Arc<Snapshot>>,
    requests: mpsc::Receiver<Request>,
    pub(super) endings: Vec<Ending>,
    pub(super) backoff: Backoff,
    pub(super) restart_at: Option<Instant>,
    /// When its end goes on record. Until then the supervisor's file says how
    /// it ended, so nothing is lost; and most that end are removed right away.
    pub(super) end_due: Option<Instant>,
    /// The user has killed it: no restart by policy this time.
    pub(super) no_restart: bool,
    /// Nothing is left of it; the loop ends.
    pub(super) removed: bool,
}

/// Gives a container its driver. `running`: it has been found alive.
pub fn adopt(record: Record, running: Option<Running>, tools: &Tools) -> Handle {
    let (sender, requests) = mpsc::channel(64);
    let snapshot =
        Arc::new(Snapshot { record: Arc::new(record.clone()), state: record.state.clone() });
    let (seen, seen_by_others) = watch::channel(snapshot);
    let (running_seen, running_by_others) = watch::channel(running.clone());
    let exits = broadcast::Sender::new(16);
    let views = Views::default();
    let (probe_sender, probes) = mpsc::channel(1);
    let handle = Handle::new(Inner {
        id: record.id,
        tenant: record.tenant.clone(),
        requests: sender,
        seen: seen_by_others,
        running: running_by_others,
        exits: exits.downgrade(),
        tools: tools.clone(),
        views: views.clone(),
    });
    tools.registry.insert(handle.clone());
    let mounted = running.is_some();
    let driver = Driver {
        record,
        tools: tools.clone(),
        running,
        waiting: Vec::new(),
        exits,
        running_seen,
        traced: None,
        mounted,
        netns: None,
        admitted: None,
        views,
        health: None,
        probe_sender,
        probes,
        seen,
        requests,
        endings: Vec::new(),
        backoff: Backoff::default(),
        restart_at: None,
        end_due: None,
        no_restart: false,
        removed: false,
    };
    tools.tracker.spawn(driver.drive());
    handle
}

impl Driver {
    async fn drive(mut self) {
        if let Some(running) = &self.running {
            let cgroup = running.cgroup_id();
            let pid = running.pid();
            self.admitted = Some(cgroup);
            self.watch_if_asked(cgroup);
            if matches!(self.record.state, State::Running { .. }) {
                self.resume_health();
            }
            self.find_netns(pid);
        }
        let stopping = self.tools.stopping.clone();
        loop {
            let running = self.running.clone();
            let exit = async {
                match running {
                    Some(running) => running.exited().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = stopping.cancelled() => return,
                exit = exit => self.ended(exit).await,
                () = at(self.next_deadline()) => self.due().await,
                Some(probe) = self.probes.recv() => self.probed(probe).await,
                request = self.requests.recv() => match request {
                    Some(request) => self.serve(request).await,
                    None => return,
                },
            }
            if self.removed {
                return;
            }
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        let kills = self.endings.iter().filter_map(|ending| ending.kill_at);
        kills.chain(self.restart_at).chain(self.end_due).min()
    }

    /// The grace period of a stop, or the pause before a restart or a record,
    /// is over.
    async fn due(&mut self) {
        let now = Instant::now();
        if self.end_due.is_some_and(|at| at <= now) {
            return self.record_end().await;
        }
        if self.restart_at.is_some_and(|at| at <= now) {
            self.restart_at = None;
            self.record.restart_count += 1;
            if let Err(error) = self.start().await
                && !self.tools.stopping.is_cancelled()
            {
                tracing::warn!(container = %self.record.id, error = %chain(&error), "cannot restart");
                self.after_end(1).await;
            }
            return;
        }
        for ending in &mut self.endings {
            if ending.kill_at.is_some_and(|at| at <= now) {
                ending.kill_at = None;
                if let Some(running) = &self.running {
                    tracing::info!(container = %self.record.id, "did not stop in time, is killed");
                    // It may just have ended by itself: then the exit is on its way.
                    drop(running.signal(SIGKILL));
                    let signal = [("signal", SIGKILL.to_string())];
                    self.tools.announce(&self.record, "kill", &signal);
                }
            }
        }
    }

    async fn serve(&mut self, request: Request) {
        // Whatever else is asked builds on what is on record.
        if self.end_due.is_some() && !matches!(request, Request::Remove { .. }) {
            self.record_end().await;
        }
        match request {
            Request::Start { done } => {
                let outcome = self.start_asked().await;
                answer(done, outcome);
            }
            Request::Stop { signal, timeout, restart, done } => {
                self.stop(signal, timeout, restart, done).await;
            }
            Request::Kill { signal, done } => self.kill(signal, done),
            Request::Freeze { freeze, done } => {
                let outcome = self.freeze(freeze).await;
                answer(done, outcome);
            }
            Request::Rename { name, done } => {
                let outcome = self.rename(name).await;
                answer(done, outcome);
            }
            Request::Update { change, done } => {
                let outcome = self.update(*change).await;
                answer(done, outcome);
            }
            Request::Attach { options, done } => {
                let outcome = self.attach(options).await;
                answer(done, outcome);
            }
            Request::Join { joining, done } => {
                let outcome = self.join(*joining).await;
                answer(done, outcome);
            }
            Request::Part { network, done } => {
                let outcome = self.part_asked(&network).await;
                answer(done, outcome);
            }
            Request::Remove { how, called, done } => {
                self.remove_asked(how, &called, done).await;
            }
            Request::Keep { done } => {
                self.record.build = false;
                let outcome = self.save().await;
                self.publish();
                answer(done, outcome);
            }
            Request::Surrender { done } => {
                let outcome = self.surrender().await;
                answer(done, outcome);
            }
        }
    }

    pub(super) async fn start_asked(&mut self) -> Result<(), Error> {
        match self.record.state {
            State::Running { .. } => return Err(Error::NotModified),
            State::Paused { .. } => {
                return Err(Error::Conflict(
                    "cannot start a paused container, try unpause instead".into(),
                ));
            }
            State::Created { .. }
            | State::Restarting { .. }
            | State::Exited { .. }
            | State::Removing => {}
        }
        self.restart_at = None;
        self.record.stopped_by_user = false;
        self.record.restart_count = 0;
        let outcome = self.start().await;
        if outcome.is_err() && self.record.host.auto_remove {
            self.auto_remove().await;
        }
        outcome
    }

    pub(super) async fn freeze(&mut self, freeze: bool) -> Result<(), Error> {
        let id = self.record.id;
        let Some(running) = self.running.clone() else {
            return Err(Error::Conflict(format!("container {id} is not running")));
        };
        let paused = matches!(self.record.state, State::Paused { .. });
        if freeze == paused {
            let state = if paused { "already" } else { "not" };
            return Err(Error::Conflict(format!("Container {id} is {state} paused")));
        }
        if freeze {
            running.freeze().await?
        } else {
            running.thaw().await?
        }
        self.step(if freeze { Event::Paused } else { Event::Resumed });
        if freeze {
            self.pause_health();
        } else {
            self.resume_health();
        }
        self.tools.announce(&self.record, if freeze { "pause" } else { "unpause" }, &[]);
        self.save().await
    }

    async fn rename(&mut self, name: String) -> Result<(), Error> {
        let old = std::mem::replace(&mut self.record.name, name);
        if let Err(error) = self.save().await {
            self.record.name = old;
            return Err(error);
        }
        self.tools.registry.free_name(&self.record.tenant, &old);
        if self.record.state.is_up() {
            super::announce_names(&self.record, &self.tools);
        }
        self.tools.announce(&self.record, "rename", &[("oldName", format!("/{old}"))]);
        self.publish();
        Ok(())
    }

    async fn update(&mut self, change: Update) -> Result<(), Error> {
        let mut host = self.record.host.clone();
        change.apply(&mut host);
        if let Some(running) = &self.running {
            running.update(&host).await?;
        }
        self.record.host = host;
        self.tools.announce(&self.record, "update", &[]);
        self.save().await?;
        self.publish();
        Ok(())
    }

    /// Moves on. A refusal would be a bug of this file: it is reported, and
    /// the state stays.
    pub(super) fn step(&mut self, event: Event) {
        self.move_on(event);
        self.publish();
    }

    /// The same; the others see it later.
    pub(super) fn move_on(&mut self, event: Event) {
        match self.record.state.clone().on(event) {
            Ok(state) => self.record.state = state,
            Err(refused) => {
                tracing::error!(container = %self.record.id, error = %refused, "impossible event");
            }
        }
    }

    /// Shows the others what it looks like now.
    pub(super) fn publish(&self) {
        let state = self.record.state.clone();
        let snapshot = Snapshot { record: Arc::new(self.record.clone()), state };
        self.seen.send_replace(Arc::new(snapshot));
    }

    /// What is acknowledged survives: waits until the record is on disk.
    pub(super) async fn save(&self) -> Result<(), Error> {
        self.tools.save(&self.record).await
    }

    /// What the container no longer has once it is down.
    pub(super) fn forget_endpoints(&mut self) {
        for EndpointRecord { endpoint, .. } in self.record.endpoints.values_mut() {
            *endpoint = None;
        }
        self.record.published.clear();
    }

    pub(super) fn now() -> i64 {
        events::now()
    }
}

async fn at(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// The client may have gone; its work is done all the same.
pub(super) fn answer<T>(done: Done<T>, outcome: Result<T, Error>) {
    drop(done.send(outcome));
}
