//! Whether a container is well: the command that asks, and what it said.
//!
//! A task of its own asks while the container runs and is not paused; the
//! driver keeps the answers. moby's `daemon/health.go` has the rules.

use super::{Attachment, ExecHandle, ExecRequest, ExecStart, Handle, driver::Driver};
use crate::{
    events,
    spec::{Config, Healthcheck},
};
use futures_util::StreamExt;
use serde::{Deserialize, Serialize};
use std::{collections::VecDeque, time::Duration};
use tokio::{sync::mpsc, time::sleep};

/// Docker's defaults.
const INTERVAL: Duration = Duration::from_secs(30);
const TIMEOUT: Duration = Duration::from_secs(30);
const START_INTERVAL: Duration = Duration::from_secs(5);
const RETRIES: u32 = 3;
/// Answers that are kept, and bytes of each one's output.
const KEPT: usize = 5;
const OUTPUT: usize = 4096;

/// What is known of a container's health.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    pub status: HealthStatus,
    pub failing_streak: u32,
    /// The last few answers, oldest first.
    pub log: VecDeque<Probe>,
}

/// Docker's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HealthStatus {
    Starting,
    Healthy,
    Unhealthy,
}

impl HealthStatus {
    /// As the API says it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
        }
    }
}

/// One answer. Times in nanoseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    pub start: i64,
    pub end: i64,
    pub exit_code: i32,
    pub output: String,
}

/// What is asked, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Check {
    command: Vec<String>,
    interval: Duration,
    timeout: Duration,
    start_period: Duration,
    start_interval: Duration,
    retries: u32,
}

impl Check {
    /// None if nothing is to be asked.
    pub(super) fn of(config: &Config) -> Option<Self> {
        let asked: &Healthcheck = config.healthcheck.as_ref()?;
        let command = match asked.test.as_deref()? {
            [kind, command @ ..] if kind == "CMD" && !command.is_empty() => command.to_vec(),
            [kind, script, ..] if kind == "CMD-SHELL" => {
                let shell = config.shell.clone().filter(|shell| !shell.is_empty());
                let shell = shell.unwrap_or_else(|| vec!["/bin/sh".into(), "-c".into()]);
                shell.into_iter().chain([script.clone()]).collect()
            }
            _ => return None,
        };
        let or = |nanos: Option<i64>, default: Duration| {
            let nanos = nanos.and_then(|nanos| u64::try_from(nanos).ok()).filter(|it| *it > 0);
            nanos.map_or(default, Duration::from_nanos)
        };
        let retries = asked.retries.and_then(|it| u32::try_from(it).ok()).filter(|it| *it > 0);
        Some(Self {
            command,
            interval: or(asked.interval, INTERVAL),
            timeout: or(asked.timeout, TIMEOUT),
            start_period: or(asked.start_period, Duration::ZERO),
            start_interval: or(asked.start_interval, START_INTERVAL),
            retries: retries.unwrap_or(RETRIES),
        })
    }

    /// How long to wait before asking again, `up` after the start.
    fn pause(&self, status: HealthStatus, up: Duration) -> Duration {
        match status {
            HealthStatus::Starting if up < self.start_period => self.start_interval,
            HealthStatus::Starting | HealthStatus::Healthy | HealthStatus::Unhealthy => {
                self.interval
            }
        }
    }
}

impl Health {
    fn starting(log: VecDeque<Probe>) -> Self {
        Self { status: HealthStatus::Starting, failing_streak: 0, log }
    }

    /// Takes an answer, `up` after the start; the status, if it is another now.
    fn take(&mut self, probe: Probe, up: Duration, check: &Check) -> Option<HealthStatus> {
        let before = self.status;
        if probe.exit_code == 0 {
            self.failing_streak = 0;
            self.status = HealthStatus::Healthy;
        } else if before != HealthStatus::Starting || up >= check.start_period {
            self.failing_streak += 1;
            if self.failing_streak >= check.retries {
                self.status = HealthStatus::Unhealthy;
            }
        }
        while self.log.len() >= KEPT {
            self.log.pop_front();
        }
        self.log.push_back(probe);
        (self.status != before).then_some(self.status)
    }
}

impl Driver {
    /// The container has just been started.
    pub(super) fn begin_health(&mut self) {
        let check = Check::of(&self.record.config);
        let log = self.record.health.take().map(|health| health.log).unwrap_or_default();
        self.record.health = check.is_some().then(|| Health::starting(log));
        self.publish();
        self.resume_health();
    }

    /// It goes on after a pause, or has been found running.
    pub(super) fn resume_health(&mut self) {
        let Some(check) = Check::of(&self.record.config) else { return };
        let Some(handle) = self.tools.registry.get(self.record.id) else { return };
        self.pause_health();
        self.record.health.get_or_insert_with(|| Health::starting(VecDeque::new()));
        let over = self.tools.stopping.child_token();
        self.health = Some(over.clone());
        let answers = self.probe_sender.clone();
        self.tools.tracker.spawn(async move {
            tokio::select! {
                () = over.cancelled() => {}
                () = ask(handle, check, answers) => {}
            }
        });
    }

    /// Nobody asks any more, and what was on its way does not count.
    pub(super) fn pause_health(&mut self) {
        if let Some(over) = self.health.take() {
            over.cancel();
        }
        while self.probes.try_recv().is_ok() {}
    }

    /// The container has ended.
    pub(super) fn end_health(&mut self) {
        self.pause_health();
        self.record.set_down();
    }

    /// An answer has come.
    pub(super) async fn probed(&mut self, probe: Probe) {
        let Some(check) = Check::of(&self.record.config) else { return };
        let up = up(self.record.state.since(), probe.start);
        let Some(health) = &mut self.record.health else { return };
        let changed = health.take(probe, up, &check);
        self.publish();
        let Some(status) = changed else { return };
        self.tools.announce(&self.record, &format!("health_status: {}", status.name()), &[]);
        if let Err(error) = self.save().await {
            let error = crate::error::chain(&error);
            tracing::error!(container = %self.record.id, error, "cannot record its health");
        }
    }
}

fn up(since: Option<i64>, now: i64) -> Duration {
    let nanos = now.saturating_sub(since.unwrap_or(now));
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(0))
}

/// Asks again and again.
async fn ask(container: Handle, check: Check, answers: mpsc::Sender<Probe>) {
    loop {
        let snapshot = container.snapshot();
        let status = snapshot.record.health.as_ref().map(|health| health.status);
        let up = up(snapshot.state.since(), events::now());
        sleep(check.pause(status.unwrap_or(HealthStatus::Starting), up)).await;
        let probe = probe(&container, &check).await;
        if answers.send(probe).await.is_err() {
            return;
        }
    }
}

/// Runs the command once. Dropped, it kills it.
async fn probe(container: &Handle, check: &Check) -> Probe {
    let start = events::now();
    let request = ExecRequest {
        cmd: check.command.clone(),
        stdout: true,
        stderr: true,
        ..ExecRequest::default()
    };
    let exec = ExecHandle::unlisted(container.clone(), request);
    let _ends_with_us = Ends(exec.clone());
    let mut said = Said::default();
    let outcome = tokio::time::timeout(check.timeout, async {
        let attachment = exec.start(ExecStart::default()).await?;
        said.listen(attachment).await;
        Ok::<_, crate::error::Error>(())
    })
    .await;
    let (exit_code, output) = match outcome {
        Ok(Ok(())) => (exec.snapshot().exit_code.unwrap_or(-1), said.text()),
        Ok(Err(error)) => (-1, error.to_string()),
        Err(_elapsed) => {
            let mut text = format!("Health check exceeded timeout ({})", in_go(check.timeout));
            let said = said.text();
            if !said.is_empty() {
                text.push_str(": ");
                text.push_str(&said);
            }
            (-1, text)
        }
    };
    Probe { start, end: events::now(), exit_code, output }
}

struct Ends(ExecHandle);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.kill();
    }
}

/// The beginning of what a command says.
#[derive(Default)]
struct Said {
    bytes: Vec<u8>,
    cut: bool,
}

impl Said {
    async fn listen(&mut self, attachment: Option<Attachment>) {
        let Some(mut output) = attachment.and_then(|attachment| attachment.output) else { return };
        // One frame an item, its head before it.
        while let Some(Ok(frame)) = output.next().await {
            let text = frame.get(8..).unwrap_or_default();
            let room = OUTPUT - self.bytes.len();
            self.cut |= text.len() > room;
            self.bytes.extend_from_slice(text.get(..room).unwrap_or(text));
        }
    }

    fn text(&self) -> String {
        let mut text = String::from_utf8_lossy(&self.bytes).into_owned();
        if self.cut {
            text.push_str("...");
        }
        text
    }
}

/// As Go prints a `time.Duration`: `500ms`, `1.5s`, `1m30s`.
fn in_go(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    let fraction = |nanos: u128, unit: u128| {
        let width = unit.ilog10() as usize;
        let text = format!("{}.{:0width$}", nanos / unit, nanos % unit);
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    match nanos {
        0 => "0s".into(),
        1..1_000 => format!("{nanos}ns"),
        1_000..1_000_000 => format!("{}µs", fraction(nanos, 1_000)),
        1_000_000..1_000_000_000 => format!("{}ms", fraction(nanos, 1_000_000)),
        _ => {
            let minutes = duration.as_secs() / 60;
            let mut text = String::new();
            if minutes >= 60 {
                text.push_str(&format!("{}h", minutes / 60));
            }
            if minutes > 0 {
                text.push_str(&format!("{}m", minutes % 60));
            }
            let rest = nanos - u128::from(minutes) * 60_000_000_000;
            if rest == 0 {
                return text + "0s";
            }
            text + &fraction(rest, 1_000_000_000) + "s"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(healthcheck: Healthcheck) -> Option<Check> {
        Check::of(&Config { healthcheck: Some(healthcheck), ..Config::default() })
    }

    fn test(words: &[&str]) -> Healthcheck {
        let test = Some(words.iter().map(|word| (*word).to_owned()).collect());
        Healthcheck { test, ..Healthcheck::default() }
    }

    fn answer(exit_code: i32) -> Probe {
        Probe { start: 0, end: 0, exit_code, output: String::new() }
    }

    #[test]
    fn a_command_is_run_as_it_is_and_a_script_by_the_shell() {
        assert_eq!(check(test(&["CMD", "a", "b"])).unwrap().command, ["a", "b"]);
        assert_eq!(check(test(&["CMD-SHELL", "a b"])).unwrap().command, ["/bin/sh", "-c", "a b"]);
        for nothing in [&["NONE"][..], &[], &["CMD"], &["BLA", "x"]] {
            assert_eq!(check(test(nothing)), None);
        }
    }

    #[test]
    fn it_is_unhealthy_after_as_many_failures_as_were_allowed() {
        let check = check(Healthcheck { retries: Some(2), ..test(&["CMD", "x"]) }).unwrap();
        let mut health = Health::starting(VecDeque::new());
        assert_eq!(health.take(answer(1), Duration::ZERO, &check), None);
        let unhealthy = Some(HealthStatus::Unhealthy);
        assert_eq!(health.take(answer(1), Duration::ZERO, &check), unhealthy);
        assert_eq!(health.take(answer(1), Duration::ZERO, &check), None);
        assert_eq!(health.take(answer(0), Duration::ZERO, &check), Some(HealthStatus::Healthy));
        assert_eq!(health.failing_streak, 0);
        for _ in 0..9 {
            health.take(answer(0), Duration::ZERO, &check);
        }
        assert_eq!(health.log.len(), KEPT);
    }

    #[test]
    fn failures_while_it_starts_do_not_count() {
        let second = Duration::from_secs(1);
        let period = Some(10_000_000_000);
        let asked = Healthcheck { start_period: period, retries: Some(1), ..test(&["CMD", "x"]) };
        let check = check(asked).unwrap();
        let mut health = Health::starting(VecDeque::new());
        assert_eq!(health.take(answer(1), second, &check), None);
        assert_eq!(check.pause(health.status, second), START_INTERVAL);
        assert_eq!(check.pause(health.status, second * 10), INTERVAL);
        assert!(health.take(answer(1), second * 10, &check).is_some());
    }

    #[test]
    fn durations_are_said_as_go_says_them() {
        for (millis, said) in
            [(500, "500ms"), (1_000, "1s"), (1_500, "1.5s"), (90_000, "1m30s"), (60_000, "1m0s")]
        {
            assert_eq!(in_go(Duration::from_millis(millis)), said);
        }
        assert_eq!(in_go(Duration::from_secs(3_600)), "1h0m0s");
        assert_eq!(in_go(Duration::from_micros(1)), "1µs");
    }
}
