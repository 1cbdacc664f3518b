//! The task that owns one container; the only caller of `State::on`.
//!
//! It answers requests one after the other. What takes long (a stop with its
//! grace period) is noted and answered when the end comes, so that a kill can
//! overtake it.

use super::{
    AttachOptions, Attachment, EndpointRecord, Handle, Joining, MountPoint, Mounted, Probe, Record,
    RemoveOptions, Snapshot, State, Update, WaitOutcome,
    attach::Waiting,
    handle::{Inner, Views},
    restart::Backoff,
    state::Event,
    tools::Tools,
};
use crate::{
    error::{Error, chain},
    events,
    runtime::{Exit, Running},
    signal,
    storage::{NotRemoved, Upper},
};
use std::{os::fd::OwnedFd, sync::Arc, time::Duration};
use tokio::{
    sync::{broadcast, mpsc, oneshot, watch},
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

const SIGKILL: i32 = nix::sys::signal::Signal::SIGKILL as i32;
const SIGTERM: i32 = nix::sys::signal::Signal::SIGTERM as i32;
/// How long the record of an end waits for what may come after it.
const SOON: Duration = Duration::from_millis(20);

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

/// Somebody waits for the container to end.
struct Ending {
    /// When SIGKILL follows, if that is still to come.
    kill_at: Option<Instant>,
    then: Then,
    done: Done<()>,
}

enum Then {
    Nothing,
    Restart,
    Remove(RemoveOptions),
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
    endings: Vec<Ending>,
    backoff: Backoff,
    restart_at: Option<Instant>,
    /// When its end goes on record. Until then the supervisor's file says how
    /// it ended, so nothing is lost; and most that end are removed right away.
    end_due: Option<Instant>,
    /// The user has killed it: no restart by policy this time.
    no_restart: bool,
    /// Nothing is left of it; the loop ends.
    removed: bool,
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

    async fn start_asked(&mut self) -> Result<(), Error> {
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

    async fn stop(
        &mut self,
        signal: Option<i32>,
        timeout: Option<i64>,
        restart: bool,
        done: Done<()>,
    ) {
        if !restart {
            self.record.stopped_by_user = true;
        }
        let Some(running) = self.running.clone() else {
            let outcome =
                if restart { self.start_asked().await } else { self.stop_waiting().await };
            answer(done, outcome);
            return;
        };
        let config = &self.record.config;
        let signal = signal
            .or_else(|| config.stop_signal.as_deref().and_then(|text| signal::parse(text).ok()))
            .unwrap_or(SIGTERM);
        let seconds = timeout.or(config.stop_timeout).unwrap_or(10);
        let kill_at = u64::try_from(seconds).ok().map(|s| Instant::now() + Duration::from_secs(s));
        self.tools.announce(&self.record, "kill", &[("signal", signal.to_string())]);
        if let Err(error) = running.signal(signal) {
            tracing::debug!(container = %self.record.id, error = %chain(&error), "ends already");
        }
        if matches!(self.record.state, State::Paused { .. })
            && let Err(error) = self.freeze(false).await
        {
            answer(done, Err(error));
            return;
        }
        let then = if restart { Then::Restart } else { Then::Nothing };
        self.endings.push(Ending { kill_at, then, done });
    }

    /// A stop of what does not run: only a pending restart is to be called off.
    async fn stop_waiting(&mut self) -> Result<(), Error> {
        self.restart_at = None;
        if matches!(self.record.state, State::Restarting { .. }) {
            self.step(Event::Stopped);
            return self.save().await;
        }
        Err(Error::NotModified)
    }

    fn kill(&mut self, signal: i32, done: Done<()>) {
        let Some(running) = self.running.clone() else {
            self.restart_at = None;
            if matches!(self.record.state, State::Restarting { .. }) {
                self.step(Event::Stopped);
                return answer(done, Ok(()));
            }
            return answer(
                done,
                Err(Error::Conflict(format!("container {} is not running", self.record.id))),
            );
        };
        let own =
            self.record.config.stop_signal.as_deref().and_then(|text| signal::parse(text).ok());
        if signal == SIGKILL || own.is_none_or(|own| own == signal) {
            self.no_restart = true;
        }
        self.record.stopped_by_user = true;
        if let Err(error) = running.signal(signal) {
            return answer(done, Err(error));
        }
        self.tools.announce(&self.record, "kill", &[("signal", signal.to_string())]);
        if signal == SIGKILL {
            self.endings.push(Ending { kill_at: None, then: Then::Nothing, done });
        } else {
            answer(done, Ok(()));
        }
    }

    async fn freeze(&mut self, freeze: bool) -> Result<(), Error> {
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

    async fn remove_asked(&mut self, how: RemoveOptions, called: &str, done: Done<()>) {
        let Some(running) = self.running.clone() else {
            self.restart_at = None;
            let outcome = self.remove(how).await;
            return answer(done, outcome);
        };
        if !how.force {
            let paused = matches!(self.record.state, State::Paused { .. });
            let why = if paused {
                "paused and must be unpaused first".to_owned()
            } else {
                let state = self.record.state.name();
                format!("{state}: stop the container before removing or force remove")
            };
            let refused = format!("cannot remove container \"{called}\": container is {why}");
            return answer(done, Err(Error::Conflict(refused)));
        }
        self.no_restart = true;
        // An error: it has just ended, and the exit is on its way.
        drop(running.signal(SIGKILL));
        self.endings.push(Ending { kill_at: None, then: Then::Remove(how), done });
    }

    /// The first process has ended, and so have all others.
    async fn ended(&mut self, exit: Exit) {
        let since = match &self.record.state {
            State::Running { since, .. } | State::Paused { since, .. } => *since,
            State::Created { .. }
            | State::Restarting { .. }
            | State::Exited { .. }
            | State::Removing => exit.at,
        };
        self.running = None;
        self.running_seen.send_replace(None);
        self.end_health();
        self.announce_networks("disconnect");
        self.take_down().await;
        let code = exit.code;
        self.move_on(Event::Exited { code, oom_killed: exit.oom_killed, at: exit.at });
        if exit.oom_killed {
            self.tools.announce(&self.record, "oom", &[]);
        }
        let seconds = (exit.at - since) / 1_000_000_000;
        self.tools.announce(
            &self.record,
            "die",
            &[("execDuration", seconds.to_string()), ("exitCode", exit.code.to_string())],
        );
        // Told before it can be seen: who waited finds it among the events.
        self.publish();
        self.after_end(exit.code).await;
    }

    /// Restarts, removes, or rests; then answers everybody who waited.
    async fn after_end(&mut self, code: i32) {
        let endings = std::mem::take(&mut self.endings);
        let by_hand = !endings.is_empty() || std::mem::take(&mut self.no_restart);
        let policy = &self.record.host.restart_policy;
        let restart = !by_hand && super::restart::wanted(policy, code, self.record.restart_count);
        if restart {
            self.step(Event::WillRestart);
            let ran = match self.record.state {
                State::Restarting { since, at, .. } => at - since,
                State::Created { .. }
                | State::Running { .. }
                | State::Paused { .. }
                | State::Exited { .. }
                | State::Removing => 0,
            };
            let ran = Duration::from_nanos(u64::try_from(ran).unwrap_or(0));
            self.restart_at = Some(Instant::now() + self.backoff.next(ran));
        }
        self.publish();
        // An error only says that nobody waits.
        drop(self.exits.send(WaitOutcome { code, error: None }));
        if endings.is_empty() && !restart {
            if self.record.host.auto_remove {
                return self.auto_remove().await;
            }
            self.end_due = Some(Instant::now() + SOON);
            return;
        }
        self.settle(endings).await;
        if self.record.host.auto_remove && !restart && self.running.is_none() && !self.removed {
            self.auto_remove().await;
        }
    }

    /// Its end is on record from here on, and the supervisor's file goes.
    async fn record_end(&mut self) {
        self.end_due = None;
        if let Err(error) = self.save().await {
            tracing::error!(container = %self.record.id, error = %chain(&error), "cannot record its end");
        } else {
            self.tools.runtime.forget_exit(self.record.id);
        }
    }

    async fn settle(&mut self, endings: Vec<Ending>) {
        if !endings.iter().any(|ending| matches!(ending.then, Then::Remove(_))) {
            self.record_end().await;
        }
        let mut removed = None;
        for Ending { then, done, .. } in endings {
            match then {
                Then::Nothing => {
                    self.tools.announce(&self.record, "stop", &[]);
                    answer(done, Ok(()));
                }
                Then::Restart => {
                    let outcome = if self.running.is_none() { self.start().await } else { Ok(()) };
                    if outcome.is_ok() {
                        self.tools.announce(&self.record, "restart", &[]);
                    }
                    answer(done, outcome);
                }
                Then::Remove(how) => removed = Some((how, done)),
            }
        }
        if let Some((how, done)) = removed {
            let outcome = self.remove(how).await;
            answer(done, outcome);
        }
    }

    /// Docker's `--rm`.
    async fn auto_remove(&mut self) {
        let how = RemoveOptions { force: false, volumes: true };
        if let Err(error) = self.remove(how).await {
            tracing::error!(container = %self.record.id, error = %chain(&error), "cannot remove");
        }
    }

    /// Record first, then the rest: what a crash leaves has no owner, and is
    /// swept away at the next start.
    async fn remove(&mut self, how: RemoveOptions) -> Result<(), Error> {
        if self.record.state == State::Removing {
            return Err(Error::Conflict(format!(
                "removal of container {} is already in progress",
                self.record.id
            )));
        }
        let id = self.record.id;
        let before = self.record.state.clone();
        self.step(Event::Removed);
        if let Err(error) = self.tools.forget(id).await {
            self.record.state = before;
            self.publish();
            return Err(error);
        }
        self.end_due = None;
        self.tools.store.remove_rootfs(id).await.map_err(|error| {
            Error::internal(format!("cannot remove the files of container {id}"), error)
        })?;
        self.tools.runtime.forget_exit(id);
        self.tools.registry.remove(id);
        self.tools.volumes.release(id);
        self.tools.announce(&self.record, "destroy", &[]);
        self.removed = true;
        if how.volumes {
            self.remove_volumes().await;
        }
        Ok(())
    }

    /// Gives away what it has written, and goes.
    async fn surrender(&mut self) -> Result<Upper, Error> {
        let id = self.record.id;
        if self.running.is_some() {
            return Err(Error::Conflict(format!("container {id} is running")));
        }
        let store = self.tools.store.clone();
        let taken = self.tools.tracker.spawn_blocking(move || store.take_upper(id)).await;
        let upper = taken.map_err(|error| Error::internal("cannot take a layer", error))??;
        self.remove(RemoveOptions { force: false, volumes: true }).await?;
        Ok(upper)
    }

    /// Docker's `rm -v`: of the volumes that were given no name. One that
    /// another container uses stays.
    async fn remove_volumes(&self) {
        let anonymous =
            |point: &&MountPoint| matches!(point.what, Mounted::Volume { anonymous: true, .. });
        let tenant = &self.record.tenant;
        for name in self.record.mounts.iter().filter(anonymous).filter_map(MountPoint::volume) {
            match self.tools.volumes.remove(tenant, name).await {
                Ok(()) => self.tools.announce_volume(tenant, name, "destroy", &[]),
                Err(NotRemoved::InUse(_) | NotRemoved::NoSuch) => {}
                Err(error) => {
                    tracing::error!(volume = %name, error = %chain(&error), "cannot remove");
                }
            }
        }
    }

    /// Moves on. A refusal would be a bug of this file: it is reported, and
    /// the state stays.
    pub(super) fn step(&mut self, event: Event) {
        self.move_on(event);
        self.publish();
    }

    /// The same; the others see it later.
    fn move_on(&mut self, event: Event) {
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
fn answer<T>(done: Done<T>, outcome: Result<T, Error>) {
    drop(done.send(outcome));
}
