//! `--log-driver` and `--log-opt`.

use crate::{
    error::Error,
    ids::{ContainerId, ImageId},
    spec::{Config, LogConfig},
};
use regex_lite::Regex;
use std::{collections::BTreeMap, path::Path};
use tritium_supervisor::protocol::Log;

/// Drivers that Docker has besides.
const DOCKERS: [&str; 7] =
    ["awslogs", "fluentd", "gcplogs", "gelf", "journald", "splunk", "syslog"];

/// Why a driver other than json-file, local and none is refused.
fn no_such_driver(name: &str) -> Error {
    if DOCKERS.contains(&name) {
        return Error::Unsupported(format!("the logging driver {name} is not built yet"));
    }
    Error::Invalid(format!("error looking up logging plugin {name}: plugin \"{name}\" not found"))
}

/// What the options can name of a container.
#[derive(Debug, Clone, Copy)]
pub(super) struct Subject<'a> {
    pub(super) id: ContainerId,
    pub(super) name: &'a str,
    pub(super) image: ImageId,
    pub(super) config: &'a Config,
}

/// `--log-driver` and `--log-opt`. `local` is kept as json-file, with what
/// Docker's `local` does by default: only the engine reads it.
pub(super) fn log(
    config: &LogConfig,
    path: &Path,
    subject: Option<Subject<'_>>,
) -> Result<Option<Log>, Error> {
    let (mut max_size, mut max_file) = match config.kind.as_str() {
        "" | "json-file" => (None, None),
        "local" => (Some(20_000_000), Some(5)),
        "none" => return Ok(None),
        other => return Err(no_such_driver(other)),
    };
    let kind = if config.kind.is_empty() { "json-file" } else { &config.kind };
    let mut compress = kind == "local";
    for (key, value) in &config.config {
        match key.as_str() {
            "max-size" if value == "-1" && kind == "json-file" => max_size = None,
            "max-size" => max_size = Some(human_size(value)?),
            "max-file" => max_file = Some(count(value)?),
            // The supervisor writes files only, and never waits for anybody
            // else: both modes are one here, and nothing is dropped.
            "mode" if matches!(value.as_str(), "" | "blocking" | "non-blocking") => {}
            "mode" => {
                return Err(Error::Invalid(format!("logger: logging mode not supported: {value}")));
            }
            "max-buffer-size" => check_buffer(config, value)?,
            "compress" => compress = truth(kind, value)?,
            "labels" | "labels-regex" | "env" | "env-regex" | "tag" if kind == "json-file" => {}
            _ if kind == "local" => {
                return Err(Error::Invalid(format!(
                    "unknown log opt '{key}' for log driver local"
                )));
            }
            _ => {
                return Err(Error::Invalid(format!(
                    "unknown log opt '{key}' for {kind} log driver"
                )));
            }
        }
    }
    let rotates = max_size.is_some() && max_file.is_some_and(|files| files > 1);
    if compress && !rotates {
        return Err(failed(match kind {
            "local" => "compression cannot be enabled when max file count is 1",
            _ => "compress cannot be true when max-file is less than 2 or max-size is not set",
        }));
    }
    let attributes = attributes(&config.config, subject)?;
    Ok(Some(Log { path: path.to_owned(), max_size, max_file, compress, attributes }))
}

fn failed(why: impl std::fmt::Display) -> Error {
    Error::Invalid(format!("failed to initialize logging driver: {why}"))
}

fn count(text: &str) -> Result<u32, Error> {
    match text.parse() {
        Ok(0) => Err(failed("max-file cannot be less than 1")),
        Ok(count) => Ok(count),
        Err(_) => Err(failed(format_args!("strconv.Atoi: parsing {text:?}: invalid syntax"))),
    }
}

/// Go's `strconv.ParseBool`.
fn truth(kind: &str, text: &str) -> Result<bool, Error> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => {
            let which = if kind == "local" { "error reading compress log option: " } else { "" };
            let why = format_args!("{which}strconv.ParseBool: parsing {text:?}: invalid syntax");
            Err(failed(why))
        }
    }
}

fn check_buffer(config: &LogConfig, size: &str) -> Result<(), Error> {
    if config.config.get("mode").is_none_or(|mode| mode != "non-blocking") {
        return Err(Error::Invalid(
            "logger: max-buffer-size option is only supported with 'mode=non-blocking'".into(),
        ));
    }
    human_size(size).map(drop)
}

/// What every line of the log tells of the container: labels and variables that
/// were asked for, and the tag. Without a subject the options are only checked.
fn attributes(
    options: &BTreeMap<String, String>,
    subject: Option<Subject<'_>>,
) -> Result<Option<String>, Error> {
    let regex = |option: &str| -> Result<Option<Regex>, Error> {
        let Some(text) = options.get(option).filter(|text| !text.is_empty()) else {
            return Ok(None);
        };
        Regex::new(text).map(Some).map_err(|error| {
            Error::Invalid(format!("failed to initialize logging driver: {option}: {error}"))
        })
    };
    let (by_label, by_variable) = (regex("labels-regex")?, regex("env-regex")?);
    let tag = options.get("tag").filter(|tag| !tag.is_empty());
    let tag = tag.map(|tag| expand(tag, subject)).transpose()?;
    let Some(subject) = subject else { return Ok(None) };
    let listed = |option: &str, key: &str| {
        options.get(option).is_some_and(|list| list.split(',').any(|listed| listed == key))
    };
    let mut found = BTreeMap::new();
    for (key, value) in subject.config.labels.iter().flatten() {
        if listed("labels", key) || by_label.as_ref().is_some_and(|regex| regex.is_match(key)) {
            found.insert(key.as_str(), value.as_str());
        }
    }
    for entry in subject.config.env.iter().flatten() {
        let Some((key, value)) = entry.split_once('=') else { continue };
        if listed("env", key) || by_variable.as_ref().is_some_and(|regex| regex.is_match(key)) {
            found.insert(key, value);
        }
    }
    found.extend(tag.as_deref().map(|tag| ("tag", tag)));
    if found.is_empty() {
        return Ok(None);
    }
    let failed = |error| Error::internal("cannot write the log's attributes", error);
    serde_json::to_string(&found).map(Some).map_err(failed)
}

/// The fields of Docker's tag template; nothing else of Go's templates.
fn expand(template: &str, subject: Option<Subject<'_>>) -> Result<String, Error> {
    let bad = |what: &str| {
        Error::Invalid(format!(
            "failed to initialize logging driver: the tag {template:?} has {what}, which is not \
             supported"
        ))
    };
    let mut text = String::new();
    let mut rest = template;
    while let Some((before, behind)) = rest.split_once("{{") {
        let (field, after) = behind.split_once("}}").ok_or_else(|| bad("no closing braces"))?;
        text.push_str(before);
        let value: fn(Subject<'_>) -> String = match field.trim() {
            ".ID" => |it| it.id.short(),
            ".FullID" => |it| it.id.hex(),
            ".Name" => |it| it.name.to_owned(),
            ".ImageName" => |it| it.config.image.clone(),
            ".ImageID" => |it| bare(&it.image).chars().take(12).collect(),
            ".ImageFullID" => |it| it.image.to_string(),
            ".DaemonName" => |_| "docker".to_owned(),
            other => return Err(bad(other)),
        };
        text.push_str(&subject.map(value).unwrap_or_default());
        rest = after;
    }
    text.push_str(rest);
    Ok(text)
}

fn bare(image: &ImageId) -> String {
    let text = image.to_string();
    text.strip_prefix("sha256:").unwrap_or(&text).to_owned()
}

/// `10k`, `1.5MB`: decimal, as Docker reads sizes of logs.
fn human_size(text: &str) -> Result<u64, Error> {
    let invalid =
        || Error::Invalid(format!("failed to initialize logging driver: invalid size: '{text}'"));
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(digits).ok_or_else(invalid)?;
    let unit = unit.trim_start().to_ascii_lowercase();
    let unit = unit.strip_suffix("ib").or_else(|| unit.strip_suffix('b')).unwrap_or(&unit);
    let factor: u64 = match unit {
        "" => 1,
        "k" => 1_000,
        "m" => 1_000_000,
        "g" => 1_000_000_000,
        "t" => 1_000_000_000_000,
        _ => return Err(invalid()),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let whole: u64 = whole.parse().map_err(|_| invalid())?;
    let mut size = whole.checked_mul(factor).ok_or_else(invalid)?;
    let mut worth = factor;
    for digit in fraction.chars() {
        worth /= 10;
        size += u64::from(digit.to_digit(10).ok_or_else(invalid)?) * worth;
    }
    Ok(size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_options_are_read_and_unknown_ones_refused() {
        let config = |options: &[(&str, &str)]| LogConfig {
            kind: "json-file".into(),
            config: options.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect(),
        };
        let read = |options: &[(&str, &str)]| log(&config(options), Path::new("/l"), None);
        let both = read(&[("max-size", "10k"), ("max-file", "3")]).unwrap().unwrap();
        assert_eq!((both.max_size, both.max_file), (Some(10_000), Some(3)));
        assert_eq!(read(&[("max-size", "1.5MB")]).unwrap().unwrap().max_size, Some(1_500_000));
        let words = |options: &[(&str, &str)]| read(options).unwrap_err().to_string();
        assert_eq!(words(&[("foo", "1")]), "unknown log opt 'foo' for json-file log driver");
        assert!(words(&[("max-size", "foo")]).ends_with("invalid size: 'foo'"));
        assert!(words(&[("max-file", "x")]).ends_with("parsing \"x\": invalid syntax"));
        assert_eq!(words(&[("mode", "bla")]), "logger: logging mode not supported: bla");
        assert!(words(&[("max-buffer-size", "1m")]).contains("only supported with"));
        assert!(read(&[("max-buffer-size", "1m"), ("mode", "non-blocking")]).is_ok());
        let compressed = read(&[("compress", "T"), ("max-size", "1k"), ("max-file", "2")]);
        assert!(compressed.unwrap().unwrap().compress);
        assert!(words(&[("compress", "true"), ("max-size", "1k")]).contains("less than 2 or max"));
        assert!(words(&[("compress", "")]).ends_with("parsing \"\": invalid syntax"));
        let local = |options: &[(&str, &str)]| {
            log(&LogConfig { kind: "local".into(), ..config(options) }, Path::new("/l"), None)
        };
        assert!(local(&[]).unwrap().unwrap().compress, "by default");
        let alone = local(&[("max-file", "1")]).unwrap_err().to_string();
        assert!(alone.ends_with("compression cannot be enabled when max file count is 1"));
        assert!(!local(&[("max-file", "1"), ("compress", "0")]).unwrap().unwrap().compress);
        assert!(local(&[("max-size", "-1")]).is_err());
        assert!(read(&[("labels-regex", "(")]).is_err());
        assert!(read(&[("tag", "{{range .}}")]).is_err());
    }

    #[test]
    fn every_line_tells_the_labels_and_variables_that_were_asked_for() {
        let config = Config {
            labels: Some(
                [("l", "1"), ("m", "2"), ("other", "3")].map(|(k, v)| (k.into(), v.into())).into(),
            ),
            env: Some(vec!["E=4".into(), "F=5".into()]),
            image: "busybox".into(),
            ..Config::default()
        };
        let id = ContainerId::of([7; 32]);
        let image = "sha256:".to_owned() + &"ab".repeat(32);
        let subject = Subject { id, name: "web", image: image.parse().unwrap(), config: &config };
        let options = [
            ("labels", "l"),
            ("labels-regex", "^m"),
            ("env", "E"),
            ("tag", "{{.Name}}/{{ .ImageID }}"),
        ];
        let options = options.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        let said = attributes(&options, Some(subject)).unwrap().unwrap();
        assert_eq!(said, r#"{"E":"4","l":"1","m":"2","tag":"web/abababababab"}"#);
        assert_eq!(attributes(&BTreeMap::new(), Some(subject)).unwrap(), None);
    }
}
