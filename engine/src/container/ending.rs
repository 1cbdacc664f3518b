//! How a container ends: asked to, made to, or by itself; and who waited for it.

use super::{
    RemoveOptions, State, WaitOutcome,
    driver::{Done, Driver, SIGKILL, answer},
    state::Event,
};
use crate::{
    error::{Error, chain},
    runtime::Exit,
    signal,
};
use std::time::Duration;
use tokio::time::Instant;

const SIGTERM: i32 = nix::sys::signal::Signal::SIGTERM as i32;
/// How long the record of an end waits for what may come after it.
const SOON: Duration = Duration::from_millis(20);

/// Somebody waits for the container to end.
pub(super) struct Ending {
    /// When SIGKILL follows, if that is still to come.
    pub(super) kill_at: Option<Instant>,
    pub(super) then: Then,
    pub(super) done: Done<()>,
}

pub(super) enum Then {
    Nothing,
    Restart,
    Remove(RemoveOptions),
}

impl Driver {
    pub(super) async fn stop(
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
    pub(super) async fn stop_waiting(&mut self) -> Result<(), Error> {
        self.restart_at = None;
        if matches!(self.record.state, State::Restarting { .. }) {
            self.step(Event::Stopped);
            return self.save().await;
        }
        Err(Error::NotModified)
    }

    pub(super) fn kill(&mut self, signal: i32, done: Done<()>) {
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

    /// The first process has ended, and so have all others.
    pub(super) async fn ended(&mut self, exit: Exit) {
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
    pub(super) async fn after_end(&mut self, code: i32) {
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
    pub(super) async fn record_end(&mut self) {
        self.end_due = None;
        if let Err(error) = self.save().await {
            tracing::error!(container = %self.record.id, error = %chain(&error), "cannot record its end");
        } else {
            self.tools.runtime.forget_exit(self.record.id);
        }
    }

    pub(super) async fn settle(&mut self, endings: Vec<Ending>) {
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
}
