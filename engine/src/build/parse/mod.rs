//! A Dockerfile's text into stages of instructions. Pure: no files, no
//! variables (those are expanded when a step's turn comes).

mod health;
mod instruction;
mod lines;
mod options;
mod words;

pub use instruction::Network;
pub(crate) use instruction::{Arg, Command, Copy, Instruction, Run, Source, one};
pub(crate) use lines::Heredoc;

/// Why a Dockerfile cannot be read; Docker's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{text}", line.map(|line| format!("dockerfile parse error on line {line}: ")).unwrap_or_default())]
pub(crate) struct ParseError {
    line: Option<usize>,
    text: String,
}

impl ParseError {
    fn at(line: usize, text: impl Into<String>) -> Self {
        Self { line: Some(line), text: text.into() }
    }

    /// About the file as a whole.
    fn file(text: impl Into<String>) -> Self {
        Self { line: None, text: text.into() }
    }
}

/// One instruction as it was written, and what it means.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Step {
    /// Of its first line in the file, counted from 1.
    pub(crate) line: usize,
    pub(crate) text: String,
    pub(crate) does: Instruction,
}

/// `FROM` and what follows it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Stage {
    pub(crate) text: String,
    /// Of what; with variables in it.
    pub(crate) base: String,
    /// Lower case; empty if it has none.
    pub(crate) name: String,
    pub(crate) platform: String,
    pub(crate) steps: Vec<Step>,
}

/// A whole file.
#[derive(Debug)]
pub(crate) struct Dockerfile {
    pub(crate) escape: char,
    /// `ARG` before the first `FROM`.
    pub(crate) globals: Vec<Step>,
    pub(crate) stages: Vec<Stage>,
    pub(crate) warnings: Vec<String>,
}

/// # Errors
/// Docker's words, with the line.
pub(crate) fn dockerfile(text: &str) -> Result<Dockerfile, ParseError> {
    let lines::Lines { escape, lines, warnings } = lines::lines(text)?;
    let mut file = Dockerfile { escape, globals: Vec::new(), stages: Vec::new(), warnings };
    for line in lines {
        let number = line.number;
        let failed = |text| ParseError::at(number, text);
        if let Some(rest) = instruction::from_of(&line.text) {
            file.stages.push(from(&line.text, rest, escape).map_err(failed)?);
            continue;
        }
        let does = instruction::parse(&line, escape).map_err(failed)?;
        let step = Step { line: number, text: line.text, does };
        match (file.stages.last_mut(), &step.does) {
            (Some(stage), _) => stage.steps.push(step),
            (None, Instruction::Arg(_)) => file.globals.push(step),
            (None, _) => return Err(failed("no build stage in current context".to_owned())),
        }
    }
    if file.stages.is_empty() {
        return Err(ParseError::file("no build stage in current context"));
    }
    Ok(file)
}

fn from(text: &str, rest: &str, escape: char) -> Result<Stage, String> {
    let (flags, rest) = words::flags(rest, escape);
    let mut options = options::Options::of(&flags)?;
    let platform = options.text("platform")?;
    options.done(&["platform"])?;
    let words: Vec<&str> = rest.split_whitespace().collect();
    let (base, name) = match words.as_slice() {
        [base] => (base, String::new()),
        [base, r#as, name] if r#as.eq_ignore_ascii_case("as") => (base, name.to_lowercase()),
        _ => return Err("FROM requires either one or three arguments".to_owned()),
    };
    let first = name.chars().next().is_none_or(|c| c.is_ascii_lowercase());
    let good = |c: char| matches!(c, 'a'..='z' | '0'..='9' | '-' | '_' | '.');
    if !first || !name.chars().all(good) {
        return Err(format!(
            "invalid name for build stage: {name:?}, name can't start with a number or contain \
             symbols"
        ));
    }
    let (text, base) = (text.to_owned(), (*base).to_owned());
    Ok(Stage { text, base, name, platform: platform.unwrap_or_default(), steps: Vec::new() })
}

#[cfg(test)]
mod tests;
