//! `HEALTHCHECK`'s options and command.

use super::{options::Options, words};
use crate::{image::Healthcheck, spec};

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
    let nanos = spec::nanos(&text).ok_or_else(bad)?;
    if nanos != 0 && nanos < 1_000_000 {
        return Err(format!("Interval {name:?} cannot be less than 1ms"));
    }
    Ok(nanos)
}
