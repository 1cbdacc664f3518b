//! When a container that has ended is started again: pure.

use super::State;
use crate::spec::RestartPolicy;
use std::time::Duration;

/// The first pause before a restart; each further one is twice as long.
const FIRST: Duration = Duration::from_millis(100);
/// No pause is longer.
const LONGEST: Duration = Duration::from_secs(60);
/// Who has run that long begins with the first pause again.
const SETTLED: Duration = Duration::from_secs(10);

/// Remembers how long the last pause was.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    last: Option<Duration>,
}

impl Backoff {
    /// How long to wait now, after a run of `ran`.
    pub(super) fn next(&mut self, ran: Duration) -> Duration {
        let pause = match self.last {
            Some(last) if ran < SETTLED => (last * 2).min(LONGEST),
            Some(_) | None => FIRST,
        };
        self.last = Some(pause);
        pause
    }
}

/// Whether `policy` wants a container restarted that has ended by itself.
pub(super) fn wanted(policy: &RestartPolicy, code: i32, restarts: u32) -> bool {
    match policy.name.as_str() {
        "always" | "unless-stopped" => true,
        "on-failure" => {
            let most = policy.maximum_retry_count;
            code != 0 && (most == 0 || i64::from(restarts) < most)
        }
        _ => false,
    }
}

/// Whether `policy` wants a container running that the engine, as it starts,
/// finds not running.
pub fn wanted_at_start(
    policy: &RestartPolicy,
    state: &State,
    stopped_by_user: bool,
    restarts: u32,
) -> bool {
    match (policy.name.as_str(), state) {
        (_, State::Created { .. } | State::Removing) => false,
        ("always", _) => true,
        ("unless-stopped", _) => !stopped_by_user,
        ("on-failure", state) => !stopped_by_user && wanted(policy, state.exit_code(), restarts),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(name: &str, most: i64) -> RestartPolicy {
        RestartPolicy { name: name.into(), maximum_retry_count: most }
    }

    #[test]
    fn pauses_double_up_to_a_minute_and_begin_anew_after_a_good_run() {
        let mut backoff = Backoff::default();
        let short = Duration::from_millis(1);
        let pauses: Vec<u128> = (0..12).map(|_| backoff.next(short).as_millis()).collect();
        assert_eq!(&pauses[..4], [100, 200, 400, 800]);
        assert_eq!(pauses[11], 60_000);
        assert_eq!(backoff.next(Duration::from_secs(11)).as_millis(), 100);
    }

    #[test]
    fn on_failure_gives_up_after_its_count_and_ignores_success() {
        assert!(wanted(&policy("on-failure", 2), 1, 1));
        assert!(!wanted(&policy("on-failure", 2), 1, 2));
        assert!(!wanted(&policy("on-failure", 0), 0, 0));
        assert!(wanted(&policy("on-failure", 0), 1, 1000));
    }

    #[test]
    fn a_container_its_user_stopped_stays_down_unless_it_is_to_run_always() {
        let exited =
            State::Exited { code: 0, oom_killed: false, error: String::new(), since: 0, at: 0 };
        assert!(wanted_at_start(&policy("always", 0), &exited, true, 0));
        assert!(!wanted_at_start(&policy("unless-stopped", 0), &exited, true, 0));
        assert!(wanted_at_start(&policy("unless-stopped", 0), &exited, false, 0));
        assert!(!wanted_at_start(&policy("no", 0), &exited, false, 0));
    }
}
