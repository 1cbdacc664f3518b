//! Docker's phrases for durations: `About a minute`, `3 weeks` (go-units'
//! `HumanDuration`, exactly).

use crate::service::seen::{HealthStatus, State};

/// `seconds`: the whole of it, of which nanoseconds have been cut off.
pub(super) fn duration(nanos: i64) -> String {
    let seconds = nanos / 1_000_000_000;
    let minutes = seconds / 60;
    // Go: int(d.Hours() + 0.5)
    let hours = (seconds + 1800) / 3600;
    match seconds {
        ..1 => "Less than a second".into(),
        1 => "1 second".into(),
        2..60 => format!("{seconds} seconds"),
        _ if minutes == 1 => "About a minute".into(),
        _ if minutes < 60 => format!("{minutes} minutes"),
        _ if hours == 1 => "About an hour".into(),
        _ if hours < 48 => format!("{hours} hours"),
        _ if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
        _ if hours < 24 * 30 * 2 => format!("{} weeks", hours / 24 / 7),
        _ if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", seconds / 3600 / 24 / 365),
    }
}

/// The `STATUS` column of `docker ps`, `now` in nanoseconds since 1970.
pub(super) fn status(state: &State, health: Option<HealthStatus>, now: i64) -> String {
    let since = |then: i64| duration(now.saturating_sub(then));
    match state {
        State::Created { .. } => "Created".into(),
        State::Running { since: then, .. } => {
            let health = match health {
                None => "",
                Some(HealthStatus::Starting) => " (health: starting)",
                Some(HealthStatus::Healthy) => " (healthy)",
                Some(HealthStatus::Unhealthy) => " (unhealthy)",
            };
            format!("Up {}{health}", since(*then))
        }
        State::Paused { since: then, .. } => format!("Up {} (Paused)", since(*then)),
        State::Restarting { code, at, .. } => format!("Restarting ({code}) {} ago", since(*at)),
        State::Exited { code, at, .. } => format!("Exited ({code}) {} ago", since(*at)),
        State::Removing => "Removal In Progress".into(),
    }
}

/// A moment as Go writes it in JSON: no trailing zeros in the fraction. None:
/// Go's zero time.
pub(super) fn moment(nanos: Option<i64>) -> String {
    let stamp = nanos.and_then(|nanos| jiff::Timestamp::from_nanosecond(nanos.into()).ok());
    stamp.map_or_else(|| "0001-01-01T00:00:00Z".into(), |stamp| stamp.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_said_as_go_units_says_them() {
        let hour = 3600;
        for (seconds, said) in [
            (0, "Less than a second"),
            (1, "1 second"),
            (45, "45 seconds"),
            (60, "About a minute"),
            (90, "About a minute"),
            (120, "2 minutes"),
            (45 * 60, "45 minutes"),
            (hour, "About an hour"),
            (hour + 1799, "About an hour"),
            (hour + 1800, "2 hours"),
            (47 * hour, "47 hours"),
            (48 * hour, "2 days"),
            (13 * 24 * hour, "13 days"),
            (14 * 24 * hour, "2 weeks"),
            (60 * 24 * hour, "2 months"),
            (365 * 24 * hour, "12 months"),
            (730 * 24 * hour, "2 years"),
        ] {
            assert_eq!(duration(seconds * 1_000_000_000 + 999), said);
        }
    }

    #[test]
    fn the_status_column_reads_as_dockers() {
        let second = 1_000_000_000;
        let now = 200 * second;
        let running = State::Running { pid: 1, since: now - 3 * second };
        assert_eq!(status(&running, None, now), "Up 3 seconds");
        let paused = State::Paused { pid: 1, since: now - 60 * second };
        assert_eq!(status(&paused, None, now), "Up About a minute (Paused)");
        let exited = State::Exited {
            code: 0,
            oom_killed: false,
            error: String::new(),
            since: 0,
            at: now - 120 * second,
        };
        assert_eq!(status(&exited, None, now), "Exited (0) 2 minutes ago");
    }

    #[test]
    fn a_moment_that_never_was_is_gos_zero_time() {
        assert_eq!(moment(None), "0001-01-01T00:00:00Z");
        assert_eq!(moment(Some(1_500_000_000)), "1970-01-01T00:00:01.5Z");
    }
}
