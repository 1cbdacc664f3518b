//! Instructions that change the configuration and no file.

use super::{
    parse::Instruction,
    report::Event,
    stage::{Key, Stage},
    state::State,
};
use crate::{error::Error, image, spec::Empty};
use std::fmt::Write;

impl Stage<'_> {
    pub(super) async fn configure(&mut self, does: &Instruction) -> Result<(), Error> {
        let key = Key::of("config").and(&format!("{does:?}")).over(self.state.id);
        if let Instruction::Healthcheck(_) = does
            && let Some(last) = &self.state.config.config.healthcheck
            && last.test.first().is_some_and(|word| word != "NONE")
        {
            let text =
                format!("Note: overriding previous HEALTHCHECK: [{}]\n", last.test.join(" "));
            self.tell(Event::Note(text)).await?;
        }
        let by = apply(&mut self.state, does)?;
        if self.found(key, &by).await? {
            return Ok(());
        }
        self.made(key, by, None)
    }
}

/// Makes the change; how history shows it.
fn apply(state: &mut State, does: &Instruction) -> Result<String, Error> {
    let shell = state.shell();
    let nop = |what: String| state.nop(&format!(" {what}"));
    let text = nop(described(does, &shell));
    let run = &mut state.config.config;
    match does {
        Instruction::Arg(args) => args.iter().for_each(|arg| state.args.declare(arg)),
        Instruction::Cmd(command) => {
            run.cmd = Some(words_of(command, &shell));
            state.cmd_set = !command.words.is_empty();
        }
        Instruction::Entrypoint(command) => {
            run.entrypoint = Some(words_of(command, &shell));
            if !state.cmd_set {
                run.cmd = None;
            }
        }
        Instruction::Env(pairs) => {
            for (key, value) in pairs {
                let entry = format!("{key}={value}");
                match run.env.iter_mut().find(|old| old.split('=').next() == Some(key)) {
                    Some(old) => *old = entry,
                    None => run.env.push(entry),
                }
            }
        }
        Instruction::Expose(ports) => {
            for port in ports {
                for port in image::exposed(port)? {
                    run.exposed_ports.insert(port, Empty {});
                }
            }
        }
        Instruction::Healthcheck(check) => run.healthcheck = Some(check.clone()),
        Instruction::Label(pairs) => run.labels.extend(pairs.iter().cloned()),
        Instruction::Maintainer(author) => state.config.author.clone_from(author),
        Instruction::Onbuild(trigger) => run.on_build.push(trigger.clone()),
        Instruction::Shell(words) => run.shell.clone_from(words),
        Instruction::Stopsignal(signal) => {
            crate::signal::parse(signal)
                .map_err(|_| Error::Invalid(format!("invalid signal: {signal}")))?;
            run.stop_signal.clone_from(signal);
        }
        Instruction::User(user) => run.user.clone_from(user),
        Instruction::Volume(volumes) => {
            run.volumes.extend(volumes.iter().map(|volume| (volume.clone(), Empty {})));
        }
        // These change files.
        Instruction::Add(_)
        | Instruction::Copy(_)
        | Instruction::Run(_)
        | Instruction::Workdir(_) => {}
    }
    Ok(text)
}

fn words_of(command: &super::parse::Command, shell: &[String]) -> Vec<String> {
    match command.shell {
        true => [shell, &command.words].concat(),
        false => command.words.clone(),
    }
}

/// Go's `%q` of a list.
fn quoted(words: &[String]) -> String {
    let words: Vec<String> = words.iter().map(|word| format!("{word:?}")).collect();
    format!("[{}]", words.join(" "))
}

fn pairs_of(name: &str, pairs: &[(String, String)]) -> String {
    let mut text = name.to_owned();
    for (key, value) in pairs {
        // Writing to a string cannot fail.
        let _written = write!(text, " {key}={value}");
    }
    text
}

/// As Docker's builder words it for history.
fn described(does: &Instruction, shell: &[String]) -> String {
    match does {
        Instruction::Arg(args) => {
            let words = args.iter().map(|arg| match &arg.default {
                Some(default) => format!("{}={default}", arg.name),
                None => arg.name.clone(),
            });
            format!("ARG {}", Vec::from_iter(words).join(" "))
        }
        Instruction::Cmd(command) => format!("CMD {}", quoted(&words_of(command, shell))),
        Instruction::Entrypoint(command) => {
            format!("ENTRYPOINT {}", quoted(&words_of(command, shell)))
        }
        Instruction::Env(pairs) => pairs_of("ENV", pairs),
        Instruction::Label(pairs) => pairs_of("LABEL", pairs),
        Instruction::Expose(ports) => format!("EXPOSE {}", ports.join(" ")),
        Instruction::Healthcheck(check) => {
            let durations = [check.interval, check.timeout, check.start_period];
            let durations = durations.into_iter().chain([check.start_interval]).map(duration);
            format!(
                "HEALTHCHECK &{{{} {} {}}}",
                format_args!("[{}]", check.test.join(" ")),
                Vec::from_iter(durations).join(" "),
                check.retries
            )
        }
        Instruction::Maintainer(author) => format!("MAINTAINER {author}"),
        Instruction::Onbuild(trigger) => format!("ONBUILD {trigger}"),
        Instruction::Shell(words) => format!("SHELL [{}]", words.join(" ")),
        Instruction::Stopsignal(signal) => format!("STOPSIGNAL {signal}"),
        Instruction::User(user) => format!("USER {user}"),
        Instruction::Volume(volumes) => format!("VOLUME [{}]", volumes.join(" ")),
        Instruction::Add(_)
        | Instruction::Copy(_)
        | Instruction::Run(_)
        | Instruction::Workdir(_) => String::new(),
    }
}

/// Go's `Duration.String`, of whole milliseconds.
fn duration(nanos: i64) -> String {
    let millis = nanos / 1_000_000;
    if millis < 1000 && millis > 0 {
        return format!("{millis}ms");
    }
    let (seconds, rest) = (millis / 1000, millis % 1000);
    let fraction = format!(".{rest:03}");
    let fraction = fraction.trim_end_matches('0').trim_end_matches('.');
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    let tail = format!("{}{fraction}s", seconds % 60);
    match (hours, minutes) {
        (0, 0) => tail,
        (0, minutes) => format!("{minutes}m{tail}"),
        (hours, minutes) => format!("{hours}h{minutes}m{tail}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_as_go_does() {
        let of = |seconds: i64| duration(seconds * 1_000_000_000);
        assert_eq!((of(0).as_str(), of(30).as_str(), of(90).as_str()), ("0s", "30s", "1m30s"));
        assert_eq!((of(3600).as_str(), duration(1_500_000_000).as_str()), ("1h0m0s", "1.5s"));
        assert_eq!(duration(500_000_000), "500ms");
    }
}
