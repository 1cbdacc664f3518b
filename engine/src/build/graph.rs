//! Which stages there are, what each stands on, and which are needed. Pure.

use super::{
    args::Args,
    expand,
    parse::{Dockerfile, Instruction, Stage, Step},
};
use crate::error::Error;
use std::collections::{BTreeMap, BTreeSet};

/// What a stage stands on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Base {
    /// Nothing: `FROM scratch`.
    Scratch,
    /// An earlier stage.
    Stage(usize),
    Image(String),
}

/// A stage that shall be built.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) text: String,
    pub(super) name: String,
    pub(super) base: Base,
    pub(super) platform: String,
    pub(super) steps: Vec<Step>,
    /// The number of its `FROM` among the steps that are shown.
    pub(super) number: usize,
}

/// Stages in the order of the file; the last one is the target.
#[derive(Debug)]
pub(super) struct Graph {
    pub(super) nodes: Vec<Node>,
    /// Those that the target stands on, by any way that can be seen.
    pub(super) needed: BTreeSet<usize>,
    pub(super) globals: Vec<Step>,
    pub(super) total: usize,
    pub(super) escape: char,
    pub(super) warnings: Vec<String>,
    /// With the global arguments declared.
    pub(super) args: Args,
}

/// # Errors
/// There is no such target; a name is there twice; a variable in `FROM` makes
/// no sense.
pub(super) fn graph(
    file: Dockerfile,
    mut args: Args,
    target: &str,
    labels: &BTreeMap<String, String>,
) -> Result<Graph, Error> {
    let Dockerfile { escape, mut globals, mut stages, warnings } = file;
    for step in &mut globals {
        let expanded = |word: &str| expand_global(word, escape, &args);
        step.does.expand(&expanded).map_err(Error::Invalid)?;
        if let Instruction::Arg(declared) = &step.does {
            declared.iter().for_each(|arg| args.declare_global(arg));
        }
    }
    stages.truncate(target_of(&stages, target)? + 1);
    if let Some(last) = stages.last_mut() {
        last.steps.extend(labels.iter().map(label));
    }
    let mut nodes: Vec<Node> = Vec::new();
    for stage in stages {
        if !stage.name.is_empty() && nodes.iter().any(|node| node.name == stage.name) {
            return Err(Error::Invalid(format!("{} stage name already used", stage.name)));
        }
        let Stage { text, base, name, platform, steps } = stage;
        let platform = expand_global(&platform, escape, &args).map_err(Error::Invalid)?;
        let base = base_of(&base, &nodes, escape, &args)?;
        nodes.push(Node { text, name, base, platform, steps, number: 0 });
    }
    let needed = needed(&nodes);
    let mut next = globals.len() + 1;
    for (at, node) in nodes.iter_mut().enumerate() {
        node.number = next;
        if needed.contains(&at) {
            next += 1 + node.steps.len();
        }
    }
    Ok(Graph { nodes, needed, globals, total: next - 1, escape, warnings, args })
}

fn expand_global(word: &str, escape: char, args: &Args) -> Result<String, String> {
    expand::word(word, escape, &|name| args.global(name))
        .map_err(|error| format!("failed to process {word:?}: {error}"))
}

fn base_of(base: &str, nodes: &[Node], escape: char, args: &Args) -> Result<Base, Error> {
    let name = expand_global(base, escape, args).map_err(Error::Invalid)?;
    if name.is_empty() {
        return Err(Error::Invalid(format!("base name ({base}) should not be blank")));
    }
    if name == "scratch" {
        return Ok(Base::Scratch);
    }
    let lower = name.to_lowercase();
    Ok(match nodes.iter().position(|node| node.name == lower) {
        Some(at) => Base::Stage(at),
        None => Base::Image(name),
    })
}

/// By name, or by number.
fn target_of(stages: &[Stage], target: &str) -> Result<usize, Error> {
    if target.is_empty() {
        return Ok(stages.len().saturating_sub(1));
    }
    let named = stages.iter().position(|stage| stage.name == target.to_lowercase());
    let numbered = target.parse().ok().filter(|number| *number < stages.len());
    named
        .or(numbered)
        .ok_or_else(|| Error::Invalid(format!("target stage {target:?} could not be found")))
}

/// `--label`, as the last steps of the target.
fn label((key, value): (&String, &String)) -> Step {
    // In single quotes, nothing in it is expanded.
    let quoted = |text: &str| format!("'{}'", text.replace('\'', "'\"'\"'"));
    let does = Instruction::Label(vec![(quoted(key), quoted(value))]);
    Step { line: 0, text: format!("LABEL {key}={value}"), does }
}

impl Graph {
    /// The stage that `COPY --from` in stage `at` means, if it means one.
    ///
    /// # Errors
    /// It means itself.
    pub(super) fn stage_called(&self, name: &str, at: usize) -> Result<Option<usize>, Error> {
        called(&self.nodes, name, at)
    }
}

fn called(nodes: &[Node], name: &str, at: usize) -> Result<Option<usize>, Error> {
    let lower = name.to_lowercase();
    let named = nodes.iter().take(at).position(|node| node.name == lower);
    if named.is_some() {
        return Ok(named);
    }
    let Ok(number) = name.parse::<usize>() else { return Ok(None) };
    if number == at {
        return Err(Error::Invalid(format!(
            "invalid from flag value {name}: refers to current build stage"
        )));
    }
    if number > at {
        return Err(Error::Invalid(format!("invalid from flag value {name}: invalid stage index")));
    }
    Ok(Some(number))
}

fn needed(nodes: &[Node]) -> BTreeSet<usize> {
    let mut needed = BTreeSet::new();
    let mut open: Vec<usize> = nodes.len().checked_sub(1).into_iter().collect();
    while let Some(at) = open.pop() {
        let Some(node) = nodes.get(at).filter(|_| needed.insert(at)) else { continue };
        if let Base::Stage(below) = node.base {
            open.push(below);
        }
        for step in &node.steps {
            let Instruction::Copy(copy) = &step.does else { continue };
            let from = copy.from.as_deref();
            // What is wrong with it is said when its turn comes.
            if let Some(Ok(Some(other))) = from.map(|from| called(nodes, from, at)) {
                open.push(other);
            }
        }
    }
    needed
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::parse;

    fn of(text: &str, target: &str) -> Result<Graph, Error> {
        let file = parse::dockerfile(text).unwrap();
        let labels = BTreeMap::from([("k".to_owned(), "it's".to_owned())]);
        graph(file, Args::new(BTreeMap::new()), target, &labels)
    }

    #[test]
    fn only_what_the_target_stands_on_is_needed() {
        let text = "ARG v=1\nFROM b:$v AS a\nRUN x\nFROM c AS unused\nRUN y\nFROM scratch\nCOPY \
                    --from=a / /\nFROM A AS late\n";
        let graph = of(text, "2").unwrap();
        assert_eq!(Vec::from_iter(graph.needed.iter().copied()), [0, 2]);
        assert_eq!(graph.nodes[0].base, Base::Image("b:1".to_owned()));
        assert_eq!(graph.nodes[2].base, Base::Scratch);
        assert_eq!((graph.nodes[0].number, graph.nodes[2].number, graph.total), (2, 4, 6));
        let graph = of(text, "").unwrap();
        assert_eq!(graph.nodes[3].base, Base::Stage(0));
    }

    #[test]
    fn names_that_mean_nothing_are_refused() {
        let refused = |text: &str, target: &str| of(text, target).unwrap_err().to_string();
        assert_eq!(refused("FROM a", "zz"), "target stage \"zz\" could not be found");
        assert_eq!(refused("FROM a AS x\nFROM b AS x", ""), "x stage name already used");
        assert_eq!(refused("FROM $none", ""), "base name ($none) should not be blank");
        let graph = of("FROM a", "").unwrap();
        assert!(graph.stage_called("0", 0).is_err());
        assert_eq!(graph.stage_called("busybox", 0).unwrap(), None);
    }
}
