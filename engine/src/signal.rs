//! Signals by name and number, as users of `docker kill` write them.

use nix::sys::signal::Signal;
use std::str::FromStr;

/// SIGRTMIN as the C library gives it out (signal(7)); the kernel's own first
/// real-time signal is 32, and two are the library's.
const RTMIN: i32 = 34;
const RTMAX: i32 = 64;

/// The text names no signal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid signal: {0}")]
pub struct BadSignal(String);

/// `9`, `KILL`, `sigkill`, `RTMIN+3`.
///
/// # Errors
/// Docker's words for what is none.
pub fn parse(text: &str) -> Result<i32, BadSignal> {
    let bad = || BadSignal(text.to_owned());
    if let Ok(number) = text.parse::<i32>() {
        return if (1..=RTMAX).contains(&number) { Ok(number) } else { Err(bad()) };
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let real_time = match name.split_at_checked(5) {
        Some(("RTMIN", rest)) => Some((RTMIN, rest)),
        Some(("RTMAX", rest)) => Some((RTMAX, rest)),
        Some(_) | None => None,
    };
    if let Some((base, offset)) = real_time {
        let offset =
            if offset.is_empty() { 0 } else { offset.parse::<i32>().map_err(|_| bad())? };
        let number = base.checked_add(offset).ok_or_else(bad)?;
        return if (RTMIN..=RTMAX).contains(&number) { Ok(number) } else { Err(bad()) };
    }
    let name = match name {
        "CLD" => "CHLD",
        "POLL" => "IO",
        other => other,
    };
    Signal::from_str(&format!("SIG{name}")).map(|signal| signal as i32).map_err(|_| bad())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_found_by_number_and_by_name_in_any_case() {
        for (text, number) in [
            ("9", 9),
            ("KILL", 9),
            ("sigterm", 15),
            ("SIGRTMIN+3", 37),
            ("rtmax-1", 63),
            ("cld", 17),
        ] {
            assert_eq!(parse(text), Ok(number), "{text}");
        }
    }

    #[test]
    fn what_is_no_signal_is_refused_by_its_name() {
        for text in ["", "0", "65", "-1", "SIGNOPE", "RTMIN+99", "RTMINx"] {
            assert_eq!(parse(text).unwrap_err().to_string(), format!("invalid signal: {text}"));
        }
    }
}
