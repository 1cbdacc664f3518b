//! `docker commit`: an image out of a container.

use super::Scope;
use crate::{
    container::{Handle, Record, State},
    error::{Error, chain},
    ids::ImageId,
    image::{self, History, ImageConfig, Platform, Reference, RunConfig},
    spec::Config,
};
use std::sync::Arc;

/// What `POST /commit` asks.
#[derive(Debug, Default)]
pub struct CommitContainer {
    pub container: String,
    pub name: Option<Reference>,
    pub comment: String,
    pub author: String,
    /// Dockerfile lines.
    pub changes: Vec<String>,
    /// Freeze it meanwhile.
    pub pause: bool,
    /// In place of the container's own configuration.
    pub config: Option<Config>,
}

impl Scope {
    /// Makes an image of a container's files as they are now.
    ///
    /// # Errors
    /// `NotFound`; `Invalid` for changes that are none.
    pub async fn commit_container(&self, asked: CommitContainer) -> Result<ImageId, Error> {
        let handle = self.container(&asked.container)?;
        let scope = self.clone();
        // On a task of its own: what has been frozen goes on in any case.
        let work = async move { scope.commit(&handle, asked).await };
        let done = self.engine.tools.tracker.spawn(work).await;
        done.map_err(|error| Error::internal("the commit's task failed", error))?
    }

    async fn commit(&self, handle: &Handle, asked: CommitContainer) -> Result<ImageId, Error> {
        let record = handle.snapshot().record.clone();
        let mut run = run_config(asked.config.as_ref().unwrap_or(&record.config));
        image::apply_changes(&mut run, &asked.changes)?;
        let running = matches!(handle.snapshot().state, State::Running { .. });
        // It may just end: then there is nothing to freeze.
        let frozen = asked.pause && running && handle.pause().await.is_ok();
        let made = self.image_of(&record, run, &asked).await;
        if frozen && let Err(error) = handle.unpause().await {
            tracing::warn!(container = %record.id, error = %chain(&error), "cannot unfreeze");
        }
        let image = made?;
        let id = image.id.to_string();
        let labels = super::images::labels(&image);
        self.announce_image("create", &id, &id, &labels);
        let name = asked.name.as_ref().map(Reference::familiar).unwrap_or_default();
        if !name.is_empty() {
            self.announce_image("tag", &id, &name, &labels);
        }
        let attributes = [("comment", asked.comment), ("imageID", id), ("imageRef", name)];
        self.engine.tools.announce(&record, "commit", &attributes);
        Ok(image.id)
    }

    async fn image_of(
        &self,
        record: &Record,
        run: RunConfig,
        asked: &CommitContainer,
    ) -> Result<Arc<image::Image>, Error> {
        let store = self.engine.tools.store.clone();
        let id = record.id;
        let copied = self.engine.tools.tracker.spawn_blocking(move || store.copy_upper(id));
        // Kept until the image counts on it.
        let layer =
            copied.await.map_err(|error| Error::internal("cannot make a layer", error))??;
        let base = self.image(&record.image.to_string()).ok();
        let parent = base.as_ref().map(|image| image.id);
        let mut config = match base {
            Some(image) => image.config.clone(),
            None => without_image(record),
        };
        let created = Some(jiff::Timestamp::now().to_string());
        config.history.push(History {
            created: created.clone(),
            author: asked.author.clone(),
            created_by: record.config.cmd.iter().flatten().cloned().collect::<Vec<_>>().join(" "),
            comment: asked.comment.clone(),
            empty_layer: layer.is_none(),
        });
        config.rootfs.diff_ids.extend(layer.iter().map(crate::storage::Pin::digest));
        if config.rootfs.diff_ids.len() > crate::storage::MOST_LAYERS {
            return Err(Error::Invalid("max depth exceeded".to_owned()));
        }
        config.created = created;
        config.author.clone_from(&asked.author);
        config.comment.clone_from(&asked.comment);
        config.config = run;
        let raw = serde_json::to_string(&config)
            .map_err(|source| Error::internal("write the image's configuration", source))?;
        let names = asked.name.clone().into_iter().collect();
        self.engine.images.create(&self.tenant, (raw, config), names, parent).await
    }
}

/// The image has been removed meanwhile: its layers are known, and not how
/// they came to be.
fn without_image(record: &Record) -> ImageConfig {
    let host = Platform::host();
    let mut config = ImageConfig {
        architecture: host.architecture,
        os: host.os,
        history: vec![History::default(); record.layers.len()],
        ..ImageConfig::default()
    };
    "layers".clone_into(&mut config.rootfs.kind);
    config.rootfs.diff_ids.clone_from(&record.layers);
    config
}

/// What of a container's configuration is an image's.
fn run_config(config: &Config) -> RunConfig {
    let check = config.healthcheck.as_ref().map(|check| image::Healthcheck {
        test: check.test.clone().unwrap_or_default(),
        interval: check.interval.unwrap_or(0),
        timeout: check.timeout.unwrap_or(0),
        start_period: check.start_period.unwrap_or(0),
        start_interval: check.start_interval.unwrap_or(0),
        retries: check.retries.unwrap_or(0),
    });
    RunConfig {
        user: config.user.clone(),
        exposed_ports: config.exposed_ports.clone().unwrap_or_default(),
        env: config.env.clone().unwrap_or_default(),
        entrypoint: config.entrypoint.clone(),
        cmd: config.cmd.clone(),
        healthcheck: check,
        args_escaped: false,
        volumes: config.volumes.clone().unwrap_or_default(),
        working_dir: config.working_dir.clone(),
        on_build: config.on_build.clone().unwrap_or_default(),
        labels: config.labels.clone().unwrap_or_default(),
        stop_signal: config.stop_signal.clone().unwrap_or_default(),
        stop_timeout: config.stop_timeout,
        shell: config.shell.clone().unwrap_or_default(),
    }
}
