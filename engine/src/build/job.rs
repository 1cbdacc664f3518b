//! One build: stages in parallel, their reports in the order of the file.
//!
//! A stage that is needed runs once, on a task of its own; whoever stands on
//! it waits for it. The first failure ends all others, and what they had begun
//! is undone before the build answers.

use super::{
    Builder, Context, Request, Run,
    graph::Graph,
    report::{Event, Report, cancelled, tell},
    stage,
    state::{Added, State},
};
use crate::{
    error::Error,
    ids::{Digest, ImageId, TenantName},
    image::{Image, Platform, Progress, Reference},
};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard},
};
use tokio::sync::{mpsc, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// What a stage may say before its turn to be heard.
const AHEAD: usize = 1024;

/// Everything that the stages of one build share.
pub(super) struct Job {
    pub(super) builder: Builder,
    pub(super) tenant: TenantName,
    pub(super) graph: Graph,
    pub(super) request: Request,
    pub(super) context: Context,
    pub(super) run: Arc<Run>,
    pub(super) cancel: CancellationToken,
    /// Those of `--cache-from` that are here.
    pub(super) cache_from: Vec<Arc<Image>>,
    stages: Mutex<BTreeMap<usize, watch::Receiver<Outcome>>>,
    /// The first failure, and the stage it is of: the others are consequences.
    failure: Mutex<Option<(usize, Error)>>,
    /// What the cache has got from this build.
    fresh: Mutex<Vec<Digest>>,
    tasks: TaskTracker,
}

/// Of a stage.
#[derive(Clone)]
enum Outcome {
    Pending,
    Built(Box<State>),
    Failed,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no panic happens under this lock")
}

impl Job {
    pub(super) fn new(
        builder: Builder,
        tenant: TenantName,
        (graph, request, context): (Graph, Request, Context),
        run: Arc<Run>,
        cancel: &CancellationToken,
    ) -> Arc<Self> {
        let named = request.cache_from.iter();
        let cache_from = named.filter_map(|name| builder.images.resolve(&tenant, name).ok());
        Arc::new(Self {
            cache_from: cache_from.collect(),
            builder,
            tenant,
            graph,
            request,
            context,
            run,
            cancel: cancel.child_token(),
            stages: Mutex::default(),
            failure: Mutex::default(),
            fresh: Mutex::default(),
            tasks: TaskTracker::new(),
        })
    }

    pub(super) async fn build(self: &Arc<Self>, report: Report) -> Result<Arc<Image>, Error> {
        let built = self.stages(&report).await;
        // Nobody needs what is still under way; it is undone before we answer.
        self.cancel.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        let keys = std::mem::take(&mut *lock(&self.fresh));
        let saved = self.builder.cache.save(&self.tenant, &keys);
        let (registered, saved) = tokio::join!(self.register(built, &report), saved);
        if let Err(error) = saved {
            tracing::warn!(error = %crate::error::chain(&error), "cannot record the build cache");
        }
        registered
    }

    async fn stages(self: &Arc<Self>, report: &Report) -> Result<State, Error> {
        let globals = self.graph.globals.iter().enumerate();
        for warning in &self.graph.warnings {
            tell(report, Event::Warning(format!("{warning}\n"))).await?;
        }
        for (at, step) in globals {
            let (number, of, text) = (at + 1, self.graph.total, step.text.clone());
            tell(report, Event::Step { number, of, text }).await?;
        }
        let mut heard = VecDeque::new();
        for at in &self.graph.needed {
            let (sender, receiver) = mpsc::channel(AHEAD);
            self.begin(*at, sender);
            heard.push_back((*at, receiver));
        }
        let mut built = None;
        while let Some((at, mut events)) = heard.pop_front() {
            while let Some(event) = events.recv().await {
                if report.send(event).await.is_err() {
                    self.fail(at, cancelled());
                    break;
                }
            }
            built = self.outcome(at).await;
            if built.is_none() {
                break;
            }
        }
        if let Some(state) = built {
            return Ok(state);
        }
        let Some((failed, error)) = lock(&self.failure).take() else { return Err(cancelled()) };
        // What the stage that failed has said, if its turn had not come yet.
        if let Some((_, events)) = heard.iter_mut().find(|(at, _)| *at == failed) {
            while let Ok(event) = events.try_recv() {
                tell(report, event).await?;
            }
        }
        Err(error)
    }

    /// Gives the image its names; it is on disk when this returns.
    async fn register(
        &self,
        built: Result<State, Error>,
        report: &Report,
    ) -> Result<Arc<Image>, Error> {
        let state = built?;
        let Some(id) = state.id else {
            let text = "No image was generated. Is your Dockerfile empty?";
            return Err(Error::Invalid(text.to_owned()));
        };
        let unused = self.graph.args.unused();
        if !unused.is_empty() {
            let names = unused.join(" ");
            let text = format!("[Warning] One or more build-args [{names}] were not consumed\n");
            tell(report, Event::Note(text)).await?;
        }
        let names = self.request.names.clone();
        let (raw, config) = (state.raw.to_string(), state.config);
        let image = self.builder.images.create(&self.tenant, (raw, config), names, None).await?;
        tell(report, Event::Built(id)).await?;
        for name in &self.request.names {
            tell(report, Event::Tagged(name.familiar())).await?;
        }
        Ok(image)
    }

    fn begin(self: &Arc<Self>, at: usize, report: Report) -> watch::Receiver<Outcome> {
        let mut stages = lock(&self.stages);
        if let Some(running) = stages.get(&at) {
            return running.clone();
        }
        let (done, outcome) = watch::channel(Outcome::Pending);
        stages.insert(at, outcome.clone());
        let job = self.clone();
        self.tasks.spawn(async move {
            let built = stage::build(&job, at, report).await;
            done.send_replace(match built {
                Ok(state) => Outcome::Built(Box::new(state)),
                Err(error) => {
                    job.fail(at, error);
                    Outcome::Failed
                }
            });
        });
        outcome
    }

    fn fail(&self, at: usize, error: Error) {
        lock(&self.failure).get_or_insert((at, error));
        self.cancel.cancel();
    }

    async fn outcome(&self, at: usize) -> Option<State> {
        let mut running = lock(&self.stages).get(&at).cloned()?;
        let outcome = running.wait_for(|outcome| !matches!(outcome, Outcome::Pending)).await;
        match &*outcome.ok()? {
            Outcome::Built(state) => Some((**state).clone()),
            Outcome::Pending | Outcome::Failed => None,
        }
    }

    /// Another stage, once it is complete. One that nobody has seen to be
    /// needed (a trigger's) says what it says through the one who asks.
    pub(super) async fn stage(
        self: &Arc<Self>,
        at: usize,
        report: &Report,
    ) -> Result<State, Error> {
        // Boxed by being a task: stages may stand on stages.
        drop(self.begin(at, report.clone()));
        self.outcome(at).await.ok_or_else(cancelled)
    }

    /// An image of the tenant's, pulled if it is not here (or if asked to).
    pub(super) async fn image(
        &self,
        name: &str,
        platform: &str,
        report: &Report,
    ) -> Result<Arc<Image>, Error> {
        let images = &self.builder.images;
        let platform = platform_of(platform)?.or(self.request.platform.clone());
        let fits = |image: &Image| {
            platform.as_ref().is_none_or(|wanted| {
                (&wanted.os, &wanted.architecture) == (&image.config.os, &image.config.architecture)
            })
        };
        match images.resolve(&self.tenant, name) {
            Ok(image) if !self.request.pull && fits(&image) => return Ok(image),
            Err(error @ Error::Invalid(_)) => return Err(error),
            Ok(_) | Err(_) => {}
        }
        let reference: Reference = name
            .parse()
            .map_err(|bad: crate::image::BadReference| Error::Invalid(bad.to_string()))?;
        let reference = reference.or_latest();
        if !self.request.private_addresses
            && crate::image::is_private_registry(reference.registry())
        {
            let registry = reference.registry();
            return Err(Error::Denied(format!(
                "a tenant's build may not use a registry on the host ({registry})"
            )));
        }
        let auth = self.request.auths.get(reference.registry()).cloned();
        let (progress, mut messages) = Progress::channel();
        let pulled = images.pull(&self.tenant, &reference, platform, auth, progress);
        let mut pulled = std::pin::pin!(pulled);
        loop {
            tokio::select! {
                biased;
                () = self.cancel.cancelled() => return Err(cancelled()),
                Some(message) = messages.recv() => tell(report, Event::Pull(message)).await?,
                images = &mut pulled => {
                    let gone = || Error::internal("cannot pull", format!("{reference} is none"));
                    return images?.into_iter().next().ok_or_else(gone);
                }
            }
        }
    }

    /// The cache knows it from now on; it is recorded when the build ends.
    pub(super) fn remember(&self, key: Digest, parent: Option<ImageId>, added: &Added) {
        self.builder.cache.add(&self.tenant, key, parent, added);
        lock(&self.fresh).push(key);
    }

    /// Work that goes on to its end when nobody waits for it any more.
    pub(super) async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let job = self.clone();
        let done = self.builder.tracker.spawn_blocking(move || work(&job));
        done.await.map_err(|error| Error::internal("the work of a build has panicked", error))?
    }
}

/// `FROM --platform=linux/arm64`.
fn platform_of(text: &str) -> Result<Option<Platform>, Error> {
    if text.is_empty() {
        return Ok(None);
    }
    let mut parts = text.split('/').map(str::to_ascii_lowercase);
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(os), Some(architecture), variant, None)
            if !os.is_empty() && !architecture.is_empty() =>
        {
            Ok(Some(Platform { os, architecture, variant }))
        }
        _ => Err(Error::Invalid(format!(
            "{text:?} is an invalid platform: expected OS/ARCHITECTURE[/VARIANT]"
        ))),
    }
}
