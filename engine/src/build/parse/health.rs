//! `HEALTHCHECK`'s options and command.

use super::{options::Options, words};
use crate::image::Healthcheck;

const KNOWN: [&str; 5] = ["interval", "retries", "start-interval", "start-period", "timeout"];

/// # Errors
/// Docker's words.
pub(super) fn healthcheck(mut options: Options, rest: &str) -> Result<Healthcheck, String> {
    let (kind, line) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let line = line.trim();
    let upper = kind.to_uppercase();
    if upper == "NONE" {
        if !line.is_empty() {
            return Err("HEALTHCHECK NONE takes no arguments".to_owned());
        }
        options.done(&[])?;
        return Ok(Healthcheck { test: vec!["NONE".to_owned()], ..Healthcheck::default() });
    }
    if upper != "CMD" {
        return Err(format!("Unknown type {kind:?} in HEALTHCHECK (try CMD)"));
    }
    let test = match words::json(line)? {
        Some(words) => [vec!["CMD".to_owned()], words].concat(),
        None if line.is_empty() => Vec::new(),
        None => vec!["CMD-SHELL".to_owned(), line.to_owned()],
    };
    if test.len() < 2 {
        return Err("Missing command after HEALTHCHECK CMD".to_owned());
    }
    let check = Healthcheck {
        test,
        interval: duration(&mut options, "interval")?,
        timeout: duration(&mut options, "timeout")?,
        start_period: duration(&mut options, "start-period")?,
        start_interval: duration(&mut options, "start-interval")?,
        retries: retries(options.text("retries")?)?,
    };
    options.done(&KNOWN)?;
    Ok(check)
}

fn retries(text: Option<String>) -> Result<i64, String> {
    let Some(text) = text else { return Ok(0) };
    let number: i64 =
        text.parse().map_err(|_| format!("strconv.ParseInt: parsing {text:?}: invalid syntax"))?;
    if number < 0 {
        return Err(format!("--retries cannot be negative ({number})"));
    }
    Ok(number)
}

fn duration(options: &mut Options, name: &str) -> Result<i64, String> {
    let Some(text) = options.text(name)? else { return Ok(0) };
    let bad = || format!("time: invalid duration {text:?}");
    let nanos = nanos(&text).ok_or_else(bad)?;
    if nanos != 0 && nanos < 1_000_000 {
        return Err(format!("Interval {name:?} cannot be less than 1ms"));
    }
    Ok(nanos)
}

/// Go's durations: `1m30s`, `500ms`, `1.5h`, `0`.
fn nanos(text: &str) -> Option<i64> {
    if text == "0" {
        return Some(0);
    }
    let mut total = 0_f64;
    let mut rest = text;
    while !rest.is_empty() {
        let number = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (value, after) = rest.split_at_checked(number)?;
        let unit = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at_checked(unit)?;
        let each = match unit {
            "ns" => 1.0,
            "us" | "µs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return None,
        };
        total += value.parse::<f64>().ok()? * each;
        rest = after;
    }
    // Printed without a fraction, and read back: no cast that could lie.
    (!text.is_empty()).then(|| format!("{total:.0}").parse().ok())?
}
