//! One stage: its base, then step after step.

use super::{
    cache::Hit,
    expand,
    graph::Base,
    job::Job,
    parse::{self, Instruction, Step},
    report::{Event, Report, cancelled, tell},
    state::{Added, State},
};
use crate::{
    error::Error,
    ids::{Digest, ImageId},
    storage::Pin,
};
use sha2::{Digest as _, Sha256};
use std::sync::Arc;

/// A stage under construction.
pub(super) struct Stage<'a> {
    pub(super) job: &'a Arc<Job>,
    /// Which of the graph's.
    pub(super) at: usize,
    pub(super) state: State,
    pub(super) report: Report,
}

/// What a step is known by in the cache.
pub(super) struct Key(Sha256);

impl Key {
    pub(super) fn of(kind: &str) -> Self {
        Self(Sha256::new()).and("1").and(kind)
    }

    pub(super) fn and(mut self, text: &str) -> Self {
        self.0.update((text.len() as u64).to_le_bytes());
        self.0.update(text);
        self
    }

    pub(super) fn over(self, parent: Option<ImageId>) -> Digest {
        let parent = parent.map(|id| id.to_string()).unwrap_or_default();
        Digest::of(self.and(&parent).0.finalize().into())
    }
}

/// Builds the stage.
pub(super) async fn build(job: &Arc<Job>, at: usize, report: Report) -> Result<State, Error> {
    let node = &job.graph.nodes[at];
    let step = |number: usize, text: &str| Event::Step {
        number,
        of: job.graph.total,
        text: text.to_owned(),
    };
    tell(&report, step(node.number, &node.text)).await?;
    let args = job.graph.args.of_stage();
    let state = match &node.base {
        Base::Scratch => State::scratch(args),
        Base::Stage(below) => job.stage(*below, &report).await?.next_stage(args),
        Base::Image(name) => {
            let image = job.image(name, &node.platform, &report).await?;
            State::of_image(&job.builder.store, &image, args)?
        }
    };
    let mut stage = Stage { job, at, state, report };
    stage.triggers().await?;
    stage.tell(Event::Became(stage.state.id)).await?;
    for (index, instruction) in node.steps.iter().enumerate() {
        if job.cancel.is_cancelled() {
            return Err(cancelled());
        }
        stage.tell(step(node.number + 1 + index, &instruction.text)).await?;
        stage.step(instruction).await?;
        stage.tell(Event::Became(stage.state.id)).await?;
    }
    if let Some(id) = stage.state.id {
        stage.tell(Event::Stage(id)).await?;
    }
    Ok(stage.state)
}

impl Stage<'_> {
    pub(super) async fn tell(&self, event: Event) -> Result<(), Error> {
        tell(&self.report, event).await
    }

    /// What the base has asked for by `ONBUILD`.
    async fn triggers(&mut self) -> Result<(), Error> {
        let triggers = std::mem::take(&mut self.state.config.config.on_build);
        if triggers.is_empty() {
            return Ok(());
        }
        let s = if triggers.len() > 1 { "s" } else { "" };
        let count = triggers.len();
        self.tell(Event::Note(format!("# Executing {count} build trigger{s}\n"))).await?;
        for trigger in triggers {
            let step = parse::one(&trigger).map_err(|error| Error::Invalid(error.to_string()))?;
            self.step(&step).await?;
        }
        Ok(())
    }

    async fn step(&mut self, step: &Step) -> Result<(), Error> {
        let mut does = step.does.clone();
        let escape = self.job.graph.escape;
        let process = |word: &str| {
            expand::word(word, escape, &|name| self.state.look(name))
                .map_err(|error| format!("failed to process {word:?}: {error}"))
        };
        does.expand(&process).map_err(Error::Invalid)?;
        match &does {
            Instruction::Run(run) => self.run(run).await,
            Instruction::Copy(copy) => self.transfer(copy, "COPY").await,
            Instruction::Add(copy) => self.transfer(copy, "ADD").await,
            Instruction::Workdir(path) => self.work_directory(path).await,
            Instruction::Expose(words) => {
                let mut ports = Vec::new();
                for word in words {
                    let look = |name: &str| self.state.look(name);
                    ports.extend(expand::words(word, escape, &look).map_err(Error::Invalid)?);
                }
                self.configure(&Instruction::Expose(ports)).await
            }
            Instruction::Arg(_)
            | Instruction::Cmd(_)
            | Instruction::Entrypoint(_)
            | Instruction::Env(_)
            | Instruction::Healthcheck(_)
            | Instruction::Label(_)
            | Instruction::Maintainer(_)
            | Instruction::Onbuild(_)
            | Instruction::Shell(_)
            | Instruction::Stopsignal(_)
            | Instruction::User(_)
            | Instruction::Volume(_) => self.configure(&does).await,
        }
    }

    /// Whether it was done before: then it is done now, too.
    pub(super) async fn found(&mut self, key: Digest, by: &str) -> Result<bool, Error> {
        if self.job.request.no_cache {
            return Ok(false);
        }
        let by = by.to_owned();
        let known = self.job.builder.cache.find(&self.job.tenant, key);
        let added = match known {
            Some(Hit { at, layer }) => Added { by, at, layer },
            None => match self.seen(&by) {
                Some(Hit { at, layer }) => {
                    let added = Added { by, at, layer };
                    self.job.remember(key, self.state.id, &added);
                    added
                }
                None => return Ok(false),
            },
        };
        self.tell(Event::Cached).await?;
        self.state.commit(added)?;
        Ok(true)
    }

    /// Whether an image of `--cache-from` is this one with that step more.
    fn seen(&self, by: &str) -> Option<Hit> {
        let (history, layers) = (&self.state.config.history, self.state.layers());
        self.job.cache_from.iter().find_map(|image| {
            let next = image.config.history.strip_prefix(history.as_slice())?.first()?;
            let above = image.layers.strip_prefix(layers.as_slice())?;
            let at = next.created.clone().filter(|_| next.created_by == by)?;
            let layer = match next.empty_layer {
                true => None,
                false => Some(Arc::new(self.job.builder.store.pin_layer(*above.first()?)?)),
            };
            Some(Hit { at, layer })
        })
    }

    /// It has been done now, and is remembered.
    pub(super) fn made(
        &mut self,
        key: Digest,
        by: String,
        layer: Option<Arc<Pin>>,
    ) -> Result<(), Error> {
        let added = Added { by, at: jiff::Timestamp::now().to_string(), layer };
        self.job.remember(key, self.state.id, &added);
        self.state.commit(added)?;
        Ok(())
    }
}
