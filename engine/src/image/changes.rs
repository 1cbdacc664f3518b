//! `--change` of `docker import` (and commit): Dockerfile lines that alter an
//! image's configuration.

use super::{Healthcheck, RunConfig};
use crate::{
    error::Error,
    spec::{self, Empty},
};

/// Applies the lines in order.
///
/// # Errors
/// `Invalid`, in the words of Docker's parser where it has some.
pub fn apply(config: &mut RunConfig, changes: &[String]) -> Result<(), Error> {
    changes
        .iter()
        .flat_map(|change| change.lines())
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .try_for_each(|line| apply_one(config, line))
}

fn apply_one(config: &mut RunConfig, line: &str) -> Result<(), Error> {
    let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let (name, rest) = (word.to_uppercase(), rest.trim());
    let known = [
        "CMD",
        "ENTRYPOINT",
        "ENV",
        "EXPOSE",
        "HEALTHCHECK",
        "LABEL",
        "ONBUILD",
        "STOPSIGNAL",
        "USER",
        "VOLUME",
        "WORKDIR",
    ];
    if !known.contains(&name.as_str()) {
        return Err(Error::Invalid(format!(
            "{} is not a valid change command",
            name.to_lowercase()
        )));
    }
    if rest.is_empty() && !matches!(name.as_str(), "CMD" | "ENTRYPOINT") {
        return Err(Error::Invalid(format!("{name} requires at least one argument")));
    }
    match name.as_str() {
        "CMD" => config.cmd = Some(command(rest)),
        "ENTRYPOINT" => config.entrypoint = Some(command(rest)),
        "ENV" => {
            for (key, value) in pairs(rest)? {
                config.env.retain(|one| one.split('=').next() != Some(key.as_str()));
                config.env.push(format!("{key}={value}"));
            }
        }
        "EXPOSE" => {
            for port in rest.split_whitespace() {
                for port in ports(port)? {
                    config.exposed_ports.insert(port, Empty {});
                }
            }
        }
        "HEALTHCHECK" => config.healthcheck = Some(healthcheck(rest)?),
        "LABEL" => config.labels.extend(pairs(rest)?),
        "ONBUILD" => config.on_build.push(rest.to_owned()),
        "STOPSIGNAL" => config.stop_signal = rest.to_owned(),
        "USER" => config.user = rest.to_owned(),
        "VOLUME" => {
            let volumes = json(rest).unwrap_or_else(|| words(rest));
            config.volumes.extend(volumes.into_iter().map(|volume| (volume, Empty {})));
        }
        _ => config.working_dir = below(&config.working_dir, rest),
    }
    Ok(())
}

/// `["a","b"]`, or a line for the shell.
fn command(rest: &str) -> Vec<String> {
    json(rest).unwrap_or_else(|| match rest {
        "" => Vec::new(),
        line => vec!["/bin/sh".to_owned(), "-c".to_owned(), line.to_owned()],
    })
}

fn json(rest: &str) -> Option<Vec<String>> {
    rest.starts_with('[').then(|| serde_json::from_str(rest).ok())?
}

/// A relative path continues the last one.
fn below(last: &str, path: &str) -> String {
    let path = if path.starts_with('/') { path.to_owned() } else { format!("{last}/{path}") };
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

/// `80`, `80/udp`, `8000-8010/tcp`, as an image's configuration has them.
///
/// # Errors
/// `Invalid`, in Docker's words.
pub fn ports(text: &str) -> Result<Vec<String>, Error> {
    let bad = || Error::Invalid(format!("Invalid containerPort: {text}"));
    let (range, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = protocol.to_lowercase();
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return Err(Error::Invalid(format!("Invalid proto: {protocol}")));
    }
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let first = first.parse::<u16>().map_err(|_| bad())?;
    let last = last.parse::<u16>().map_err(|_| bad())?;
    if first > last {
        return Err(bad());
    }
    Ok((first..=last).map(|port| format!("{port}/{protocol}")).collect())
}

fn healthcheck(rest: &str) -> Result<Healthcheck, Error> {
    let mut check = Healthcheck::default();
    let mut rest = rest;
    while let Some(option) = rest.strip_prefix("--") {
        let (option, after) = option.split_once(char::is_whitespace).unwrap_or((option, ""));
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        let bad = || Error::Invalid(format!("invalid HEALTHCHECK flag --{option}"));
        match name {
            "interval" => check.interval = spec::nanos(value).ok_or_else(bad)?,
            "timeout" => check.timeout = spec::nanos(value).ok_or_else(bad)?,
            "start-period" => check.start_period = spec::nanos(value).ok_or_else(bad)?,
            "start-interval" => check.start_interval = spec::nanos(value).ok_or_else(bad)?,
            "retries" => check.retries = value.parse().map_err(|_| bad())?,
            _ => return Err(bad()),
        }
        rest = after.trim_start();
    }
    let (kind, line) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let line = line.trim();
    check.test = match (kind.to_uppercase().as_str(), json(line)) {
        ("NONE", _) if line.is_empty() => vec!["NONE".to_owned()],
        ("CMD", Some(words)) => [vec!["CMD".to_owned()], words].concat(),
        ("CMD", None) if !line.is_empty() => vec!["CMD-SHELL".to_owned(), line.to_owned()],
        _ => return Err(Error::Invalid(format!("unknown type {kind:?} in HEALTHCHECK"))),
    };
    Ok(check)
}

/// `a=b c="d e"`, or the old `a b c`.
fn pairs(rest: &str) -> Result<Vec<(String, String)>, Error> {
    let words = words(rest);
    let first = words.first().map_or("", String::as_str);
    if !first.contains('=') {
        let Some((key, value)) = rest.split_once(char::is_whitespace) else {
            return Err(Error::Invalid(format!("{rest} must have two arguments")));
        };
        return Ok(vec![(key.to_owned(), value.trim().to_owned())]);
    }
    let pair = |word: String| match word.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(Error::Invalid(format!(
            "Syntax error - can't find = in {word:?}. Must be of the form: name=value"
        ))),
    };
    words.into_iter().map(pair).collect()
}

/// Splits at spaces that are not quoted or escaped, and takes quotes away.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = None::<String>;
    let mut quote = None;
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match (letter, quote) {
            ('\\', None | Some('"')) => {
                let next = letters.next().unwrap_or('\\');
                word.get_or_insert_default().push(next);
            }
            (letter, Some(open)) if letter == open => quote = None,
            ('"' | '\'', None) => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (letter, None) if letter.is_whitespace() => words.extend(word.take()),
            (letter, _) => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(lines: &[&str]) -> RunConfig {
        let mut config = RunConfig::default();
        let lines = lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>();
        apply(&mut config, &lines).unwrap();
        config
    }

    #[test]
    fn dockerfile_lines_change_the_configuration() {
        let config = applied(&[
            "CMD [\"sh\",\"-l\"]",
            "entrypoint run me",
            "ENV A=1 B=\"two words\"",
            "ENV A=3",
            "EXPOSE 80 9000-9001/udp",
            "LABEL x=y",
            "USER 1:2",
            "WORKDIR /a",
            "WORKDIR b/../c",
            "VOLUME /data",
            "STOPSIGNAL SIGQUIT",
            "HEALTHCHECK --interval=1m30s --retries=2 CMD true",
        ]);
        assert_eq!(config.cmd.unwrap(), ["sh", "-l"]);
        assert_eq!(config.entrypoint.unwrap(), ["/bin/sh", "-c", "run me"]);
        assert_eq!(config.env, ["B=two words", "A=3"]);
        assert_eq!(Vec::from_iter(config.exposed_ports.keys()), ["80/tcp", "9000/udp", "9001/udp"]);
        assert_eq!(config.labels["x"], "y");
        assert_eq!((config.user.as_str(), config.working_dir.as_str()), ("1:2", "/a/c"));
        assert!(config.volumes.contains_key("/data"));
        assert_eq!(config.stop_signal, "SIGQUIT");
        let health = config.healthcheck.unwrap();
        assert_eq!((health.interval, health.retries), (90_000_000_000, 2));
        assert_eq!(health.test, ["CMD-SHELL", "true"]);
    }

    #[test]
    fn a_line_that_builds_is_refused() {
        let refused = apply(&mut RunConfig::default(), &["RUN rm -rf /".to_owned()]).unwrap_err();
        assert_eq!(refused.to_string(), "run is not a valid change command");
        for bad in ["EXPOSE 99999", "ENV", "HEALTHCHECK PING", "ENV =x", "EXPOSE 1/icmp"] {
            assert!(apply(&mut RunConfig::default(), &[bad.to_owned()]).is_err(), "{bad}");
        }
    }
}
