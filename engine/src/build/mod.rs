//! Builds images from Dockerfiles.
//!
//! ```text
//! parse/    text → stages of instructions     expand.rs, args.rs   variables
//! graph.rs  stages → what stands on what, what the target needs
//! context.rs  the files that came along
//! job.rs    one build: its stages in parallel, their reports in the file's order
//! stage.rs  one stage: step after step, each a hit in the cache or work
//! config.rs what changes the configuration only     run.rs   RUN
//! transfer.rs, fetch.rs, files/   COPY, ADD, WORKDIR: into a layer of their own
//! state.rs  what a stage is so far     cache.rs  what steps have made before
//! report.rs what is told meanwhile: a front door makes its protocol of it
//! ```
//!
//! The builder knows no client: `POST /build` is one front door, and another
//! one brings a [`Request`], a [`Context`] and a reader of [`Event`]s too.
//! Who runs a `RUN` is given to it by the room above ([`Run`]), so that a
//! build's containers are a tenant's containers like any other, with the same
//! policy and the same guard.
//!
//! What must stay true: a build that is cancelled or fails leaves no
//! container, layer, mount or file behind; nothing of a Dockerfile or a
//! context can name a file outside of the context and the layers; a step's
//! layer is what its container or copy has written, and nothing else.
//!
//! `service` may use this room; it uses `image` and `storage`.

mod args;
mod cache;
mod config;
mod context;
mod expand;
mod fetch;
mod files;
mod graph;
mod ignore;
mod job;
mod parse;
mod report;
mod run;
mod stage;
mod state;
mod transfer;

pub use cache::{CacheUse, Prune};
pub use context::Context;
pub use report::{Event, Report};
pub use run::{Network, Run, RunStep, Script};

use crate::{
    error::Error,
    ids::{Digest, TenantName},
    image::{Auth, Image, Images, Platform, Reference},
    storage::Store,
};
use cache::Cache;
use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};
use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// What is to be built, and how.
#[derive(Debug, Default)]
pub struct Request {
    /// `--build-arg`; without a value it only allows the name.
    pub args: BTreeMap<String, Option<String>>,
    pub labels: BTreeMap<String, String>,
    pub target: String,
    pub no_cache: bool,
    /// Images whose steps count as done, too.
    pub cache_from: Vec<String>,
    /// Ask for newer bases.
    pub pull: bool,
    pub platform: Option<Platform>,
    /// Credentials, by registry.
    pub auths: BTreeMap<String, Auth>,
    pub names: Vec<Reference>,
    /// `ADD` may fetch from addresses that are not public, `FROM` may name a
    /// registry on the host.
    pub private_addresses: bool,
}

/// A handle on the builder; cheap to clone.
#[derive(Debug, Clone)]
pub struct Builder {
    store: Store,
    images: Images,
    cache: Cache,
    /// For contexts.
    memory: Arc<Semaphore>,
    tracker: TaskTracker,
}

impl Builder {
    /// Reads what the cache holds.
    ///
    /// # Errors
    /// The records cannot be read.
    pub async fn open(store: Store, images: Images, tracker: TaskTracker) -> Result<Self, Error> {
        let cache = Cache::open(store.clone()).await?;
        Ok(Self { store, images, cache, memory: context::memory(), tracker })
    }

    /// Builds. `run` runs the commands; dropping the reader of `report`, or
    /// cancelling, ends the build and undoes what it has begun.
    ///
    /// # Errors
    /// What is wrong with the Dockerfile, or went wrong in a step, in Docker's
    /// words.
    pub async fn build(
        &self,
        tenant: &TenantName,
        (dockerfile, context, request): (&str, Context, Request),
        run: Arc<Run>,
        (report, cancel): (Report, CancellationToken),
    ) -> Result<Arc<Image>, Error> {
        let parsed = parse::dockerfile(dockerfile).map_err(|error| {
            let text = error.to_string();
            let prefix = if text.starts_with("dockerfile parse") {
                ""
            } else {
                "failed to parse Dockerfile: "
            };
            Error::Invalid(format!("{prefix}{text}"))
        })?;
        let args = args::Args::new(request.args.clone());
        let graph = graph::graph(parsed, args, &request.target, &request.labels)?;
        let job =
            job::Job::new(self.clone(), tenant.clone(), (graph, request, context), run, &cancel);
        job.build(report).await
    }

    /// What the cache of a tenant holds, most recently used first.
    /// `containers`: layers that its containers stand on.
    #[must_use]
    pub fn usage(&self, tenant: &TenantName, containers: HashSet<Digest>) -> Vec<CacheUse> {
        self.cache.usage(tenant, &self.held(tenant, containers))
    }

    /// Forgets what was built before: the entries' ids, and the bytes won.
    ///
    /// # Errors
    /// The disk is full.
    pub async fn prune(
        &self,
        tenant: &TenantName,
        how: Prune,
        containers: HashSet<Digest>,
    ) -> Result<(Vec<String>, u64), Error> {
        self.cache.prune(tenant, how, &self.held(tenant, containers)).await
    }

    fn held(&self, tenant: &TenantName, mut containers: HashSet<Digest>) -> HashSet<Digest> {
        let images = self.images.list(tenant);
        containers.extend(images.iter().flat_map(|image| &image.layers));
        containers
    }
}
