//! One logical line into what it asks for.

use super::{
    ParseError, Step,
    lines::{Heredoc, Line, heredoc},
    options::{Options, near},
    words,
};
use crate::image::Healthcheck;

/// What to do, with variables not expanded yet.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Instruction {
    Add(Copy),
    Copy(Copy),
    Arg(Vec<Arg>),
    Cmd(Command),
    Entrypoint(Command),
    Env(Vec<(String, String)>),
    Expose(Vec<String>),
    Healthcheck(Healthcheck),
    Label(Vec<(String, String)>),
    Maintainer(String),
    Onbuild(String),
    Run(Run),
    Shell(Vec<String>),
    Stopsignal(String),
    User(String),
    Volume(Vec<String>),
    Workdir(String),
}

/// A command: `["a","b"]`, or a line for the shell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Command {
    pub(crate) words: Vec<String>,
    pub(crate) shell: bool,
}

/// `ARG NAME` or `ARG NAME=DEFAULT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Arg {
    pub(crate) name: String,
    pub(crate) default: Option<String>,
}

/// What `RUN` runs, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) command: Command,
    pub(crate) heredocs: Vec<Heredoc>,
    pub(crate) network: Network,
}

/// `RUN --network`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Network {
    #[default]
    Default,
    None,
    Host,
}

/// Where a copied file comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    Path(String),
    Heredoc(Heredoc),
}

/// `COPY` and `ADD`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Copy {
    pub(crate) sources: Vec<Source>,
    pub(crate) to: String,
    /// Another stage or an image.
    pub(crate) from: Option<String>,
    pub(crate) chown: Option<String>,
    pub(crate) chmod: Option<String>,
    pub(crate) link: bool,
    pub(crate) parents: bool,
    pub(crate) exclude: Vec<String>,
    /// `ADD --checksum`.
    pub(crate) checksum: Option<String>,
}

const NAMES: [&str; 18] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];
const BUILDKIT: &str = "option requires BuildKit. Refer to https://docs.docker.com/go/buildkit/ \
                        to learn how to build images with BuildKit enabled";

/// The arguments of `FROM`, if it is one.
pub(super) fn from_of(line: &str) -> Option<&str> {
    let (name, rest) = split(line);
    name.eq_ignore_ascii_case("from").then_some(rest)
}

fn split(line: &str) -> (&str, &str) {
    let line = line.trim();
    line.split_once(char::is_whitespace).map_or((line, ""), |(name, rest)| (name, rest.trim()))
}

/// One instruction alone: a trigger of `ONBUILD`, a change of `docker commit`.
///
/// # Errors
/// Docker's words.
pub(crate) fn one(text: &str) -> Result<Step, ParseError> {
    let found = super::lines::lines(text)?;
    let [line] = found.lines.as_slice() else {
        return Err(ParseError::file("onbuild trigger should be a single expression"));
    };
    let does = parse(line, found.escape).map_err(|text| ParseError::at(line.number, text))?;
    Ok(Step { line: line.number, text: line.text.clone(), does })
}

/// # Errors
/// Docker's words, without the line's number.
pub(super) fn parse(line: &Line, escape: char) -> Result<Instruction, String> {
    let (word, rest) = split(&line.text);
    let name = word.to_uppercase();
    if !NAMES.contains(&name.as_str()) {
        let near = NAMES.iter().find(|known| near(&name, known));
        let hint = near.map(|near| format!(" (did you mean {near}?)")).unwrap_or_default();
        return Err(format!("unknown instruction: {word}{hint}"));
    }
    let (flags, rest) = match name.as_str() {
        "ADD" | "COPY" | "RUN" | "HEALTHCHECK" => words::flags(rest, escape),
        _ => (Vec::new(), rest.to_owned()),
    };
    if rest.is_empty() && !matches!(name.as_str(), "CMD" | "ENTRYPOINT" | "SHELL") {
        return Err(match name.as_str() {
            "WORKDIR" | "USER" | "STOPSIGNAL" | "MAINTAINER" => {
                format!("{name} requires exactly one argument")
            }
            _ => format!("{name} requires at least one argument"),
        });
    }
    let options = Options::of(&flags)?;
    Ok(match name.as_str() {
        "ADD" => Instruction::Add(copy(&name, options, &rest, &line.heredocs)?),
        "COPY" => Instruction::Copy(copy(&name, options, &rest, &line.heredocs)?),
        "RUN" => Instruction::Run(run(options, &rest, &line.heredocs)?),
        "HEALTHCHECK" => Instruction::Healthcheck(super::health::healthcheck(options, &rest)?),
        "ARG" => Instruction::Arg(args(&rest, escape)?),
        "CMD" => Instruction::Cmd(command(&rest)?),
        "ENTRYPOINT" => Instruction::Entrypoint(command(&rest)?),
        "ENV" => Instruction::Env(named_pairs(&rest, "ENV", escape)?),
        "LABEL" => Instruction::Label(named_pairs(&rest, "LABEL", escape)?),
        "EXPOSE" => Instruction::Expose(rest.split_whitespace().map(str::to_owned).collect()),
        "MAINTAINER" => Instruction::Maintainer(rest),
        "ONBUILD" => Instruction::Onbuild(trigger(rest)?),
        "SHELL" => Instruction::Shell(shell(&rest)?),
        "STOPSIGNAL" => Instruction::Stopsignal(rest),
        "USER" => Instruction::User(rest),
        "VOLUME" => Instruction::Volume(volumes(&rest)?),
        _ => Instruction::Workdir(rest),
    })
}

fn command(rest: &str) -> Result<Command, String> {
    Ok(match words::json(rest)? {
        Some(words) => Command { words, shell: false },
        None if rest.is_empty() => Command { words: Vec::new(), shell: false },
        None => Command { words: vec![rest.to_owned()], shell: true },
    })
}

fn run(mut options: Options, rest: &str, heredocs: &[Heredoc]) -> Result<Run, String> {
    if !options.all("mount")?.is_empty() {
        return Err(format!("the --mount {BUILDKIT}"));
    }
    if options.text("security")?.is_some_and(|mode| mode != "sandbox") {
        return Err(format!("the --security {BUILDKIT}"));
    }
    let network = match options.text("network")?.as_deref() {
        None | Some("default") => Network::Default,
        Some("none") => Network::None,
        Some("host") => Network::Host,
        Some(other) => {
            let text = format!("invalid network mode: {other:?}, valid modes: default, none, host");
            return Err(text);
        }
    };
    options.done(&["mount", "network", "security"])?;
    Ok(Run { command: command(rest)?, heredocs: heredocs.to_vec(), network })
}

fn copy(
    name: &str,
    mut options: Options,
    rest: &str,
    heredocs: &[Heredoc],
) -> Result<Copy, String> {
    let mut copy = Copy {
        chown: options.text("chown")?,
        chmod: options.text("chmod")?,
        link: options.flag("link")?,
        exclude: options.all("exclude")?,
        ..Copy::default()
    };
    if name == "COPY" {
        copy.from = options.text("from")?;
        copy.parents = options.flag("parents")?;
        options.done(&["chmod", "chown", "exclude", "from", "link", "parents"])?;
    } else {
        copy.checksum = options.text("checksum")?;
        if options.flag("keep-git-dir")? {
            return Err(format!("the --keep-git-dir {BUILDKIT}"));
        }
        options.done(&["checksum", "chmod", "chown", "exclude", "keep-git-dir", "link"])?;
    }
    let words = match words::json(rest)? {
        Some(words) => words,
        None => rest.split_whitespace().map(str::to_owned).collect(),
    };
    let Some((to, sources)) = words.split_last() else {
        return Err(format!("{name} requires at least one argument"));
    };
    if sources.is_empty() {
        return Err(format!(
            "{name} requires at least two arguments, but only one was provided. Destination could \
             not be determined"
        ));
    }
    to.clone_into(&mut copy.to);
    for word in sources {
        let named = heredoc(word).and_then(|it| heredocs.iter().find(|own| own.name == it.name));
        copy.sources.push(match named {
            Some(document) => Source::Heredoc(document.clone()),
            None => Source::Path(word.clone()),
        });
    }
    Ok(copy)
}

fn args(rest: &str, escape: char) -> Result<Vec<Arg>, String> {
    let arg = |word: String| {
        let (name, default) = match word.split_once('=') {
            Some((name, default)) => (name.to_owned(), Some(default.to_owned())),
            None => (word, None),
        };
        if name.is_empty() {
            return Err("ARG names can not be blank".to_owned());
        }
        Ok(Arg { name, default })
    };
    words::words(rest, escape).into_iter().map(arg).collect()
}

fn named_pairs(rest: &str, name: &str, escape: char) -> Result<Vec<(String, String)>, String> {
    let pairs = words::pairs(rest, name, escape)?;
    if pairs.iter().any(|(key, _)| key.is_empty()) {
        return Err(format!("{name} names can not be blank"));
    }
    Ok(pairs)
}

fn trigger(rest: String) -> Result<String, String> {
    let word = split(&rest).0.to_uppercase();
    match word.as_str() {
        "ONBUILD" => Err("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed".to_owned()),
        "MAINTAINER" | "FROM" => Err(format!("{word} isn't allowed as an ONBUILD trigger")),
        _ => {
            one(&rest).map_err(|error| error.text)?;
            Ok(rest)
        }
    }
}

fn shell(rest: &str) -> Result<Vec<String>, String> {
    match words::json(rest)? {
        Some(words) if !words.is_empty() => Ok(words),
        Some(_) => Err("SHELL requires at least one argument".to_owned()),
        None => Err("SHELL requires the arguments to be in JSON form".to_owned()),
    }
}

fn volumes(rest: &str) -> Result<Vec<String>, String> {
    let volumes = match words::json(rest)? {
        Some(words) => words,
        None => rest.split_whitespace().map(str::to_owned).collect(),
    };
    if volumes.is_empty() {
        return Err("VOLUME requires at least one argument".to_owned());
    }
    if volumes.iter().any(|volume| volume.trim().is_empty()) {
        return Err("VOLUME specified can not be an empty string".to_owned());
    }
    Ok(volumes)
}

/// Expands one word, or says why it cannot.
pub(crate) type Expand<'a> = dyn Fn(&str) -> Result<String, String> + 'a;

impl Instruction {
    /// Puts variables' values in, where Docker does. `EXPOSE` is not among
    /// them: there one word may become several.
    ///
    /// # Errors
    /// Those of `expand`.
    pub(crate) fn expand(&mut self, expand: &Expand<'_>) -> Result<(), String> {
        let one = |word: &mut String| expand(word).map(|expanded| *word = expanded);
        match self {
            Self::Add(copy) | Self::Copy(copy) => copy.expand(expand),
            Self::Arg(args) => {
                args.iter_mut().filter_map(|arg| arg.default.as_mut()).try_for_each(one)
            }
            Self::Env(pairs) | Self::Label(pairs) => {
                pairs.iter_mut().try_for_each(|(key, value)| {
                    one(key)?;
                    one(value)
                })
            }
            Self::Volume(words) => words.iter_mut().try_for_each(one),
            Self::Stopsignal(word) | Self::User(word) | Self::Workdir(word) => one(word),
            Self::Cmd(_)
            | Self::Entrypoint(_)
            | Self::Expose(_)
            | Self::Healthcheck(_)
            | Self::Maintainer(_)
            | Self::Onbuild(_)
            | Self::Run(_)
            | Self::Shell(_) => Ok(()),
        }
    }
}

impl Copy {
    fn expand(&mut self, expand: &Expand<'_>) -> Result<(), String> {
        let texts = [&mut self.chown, &mut self.chmod, &mut self.checksum];
        for word in texts.into_iter().flatten().chain(&mut self.exclude) {
            *word = expand(word)?;
        }
        for source in &mut self.sources {
            match source {
                Source::Path(path) => *path = expand(path)?,
                Source::Heredoc(document) if document.expand => {
                    // Quotes in a document are letters like others.
                    document.text = expand_document(&document.text, expand)?;
                }
                Source::Heredoc(_) => {}
            }
        }
        self.to = expand(&self.to)?;
        Ok(())
    }
}

/// Quotes in a document are letters like any others.
fn expand_document(text: &str, expand: &Expand<'_>) -> Result<String, String> {
    let mut protected = String::with_capacity(text.len() + 2);
    for letter in text.chars() {
        if letter == '"' {
            protected.push('\\');
        }
        protected.push(letter);
    }
    expand(&format!("\"{protected}\""))
}
