//! `docker build` of one tenant: the builder, and who runs its commands.

use super::{CreateContainer, Scope, containers::Ending};
use crate::{
    build::{self, CacheUse, Context, Event, Network, Prune, Report, RunStep},
    container::{AttachOptions, Handle, WaitCondition},
    error::Error,
    events,
    ids::Digest,
    spec::{Config, HostConfig},
    storage::Upper,
};
use futures_util::StreamExt;
use std::{collections::HashSet, sync::Arc};
use tokio::io::AsyncRead;
use tokio_util::{io::SyncIoBridge, sync::CancellationToken};

/// What `POST /build` asks.
#[derive(Debug, Default)]
pub struct BuildImage {
    pub request: build::Request,
    /// From the context's root.
    pub dockerfile: String,
    /// Limits and network of the containers that run its commands.
    pub host: HostConfig,
    /// Take the container of a command away also when it has failed.
    pub force_remove: bool,
    /// Leave the containers of commands that have done well, too.
    pub keep: bool,
}

/// Docker's frames on a stream of output.
const STDERR: u8 = 2;

impl Scope {
    /// Reads a context to its end.
    ///
    /// # Errors
    /// `Invalid` for what is no archive.
    pub async fn build_context<R>(&self, archive: R) -> Result<Context, Error>
    where
        R: AsyncRead + Send + Unpin + 'static,
    {
        let builder = self.engine.builder.clone();
        let archive = SyncIoBridge::new(archive);
        let read = self.engine.tools.tracker.spawn_blocking(move || builder.context(archive));
        read.await.map_err(|error| Error::internal("cannot read the build context", error))?
    }

    /// A context from a web server; see [`build::Builder::remote_context`].
    ///
    /// # Errors
    /// It is not there, not allowed, or no context.
    pub async fn remote_context(&self, url: &str, dockerfile: &str) -> Result<Context, Error> {
        self.engine.builder.remote_context(url, dockerfile, self.tenant.is_operator()).await
    }

    /// Builds an image. Whoever drops the answer, or the reader of `report`,
    /// ends the build; it is undone then.
    ///
    /// # Errors
    /// In Docker's words, with the exit code of a command that has failed.
    pub async fn build_image(
        &self,
        context: Context,
        mut asked: BuildImage,
        report: Report,
    ) -> Result<(), Error> {
        asked.request.private_addresses = self.tenant.is_operator();
        super::policy::allow(&self.tenant, &asked.host)?;
        let scope = self.clone();
        let cancel = self.engine.tools.stopping.child_token();
        let dropped = cancel.clone().drop_guard();
        let work = async move { scope.build(context, asked, report, cancel).await };
        // On a task of its own, which undoes what it has begun.
        let built = self.engine.tools.tracker.spawn(work).await;
        drop(dropped.disarm());
        built.map_err(|error| Error::internal("the build's task failed", error))?
    }

    async fn build(
        &self,
        context: Context,
        asked: BuildImage,
        report: Report,
        cancel: CancellationToken,
    ) -> Result<(), Error> {
        let BuildImage { request, dockerfile, host, force_remove, keep } = asked;
        let files = context.clone();
        let read = tokio::task::spawn_blocking(move || files.dockerfile(&dockerfile)).await;
        let text = read.map_err(|error| Error::internal("cannot read the Dockerfile", error))??;
        let runner = Runner { scope: self.clone(), host: Arc::new(host), force_remove, keep };
        let run = Arc::new(move |step: RunStep| {
            let runner = runner.clone();
            Box::pin(async move { runner.run(step).await }) as _
        });
        let builder = &self.engine.builder;
        let names = request.names.clone();
        let built = builder.build(&self.tenant, (&text, context, request), run, (report, cancel));
        let image = built.await?;
        let (id, labels) = (image.id.to_string(), super::images::labels(&image));
        for name in names {
            self.announce_image("tag", &id, &name.familiar(), &labels);
        }
        Ok(())
    }

    /// What the build cache holds, most recently used first.
    #[must_use]
    pub fn build_cache(&self) -> Vec<CacheUse> {
        self.engine.builder.usage(&self.tenant, self.layers_of_containers())
    }

    fn layers_of_containers(&self) -> HashSet<Digest> {
        self.containers().iter().flat_map(|it| it.record.layers.clone()).collect()
    }

    /// `docker builder prune`: the entries that are gone, and the bytes won.
    ///
    /// # Errors
    /// The disk is full.
    pub async fn prune_builds(&self, how: Prune) -> Result<(Vec<String>, u64), Error> {
        let (gone, bytes) =
            self.engine.builder.prune(&self.tenant, how, self.layers_of_containers()).await?;
        self.engine.tools.events.publish(events::Event {
            tenant: self.tenant.clone(),
            kind: "builder",
            action: "prune".to_owned(),
            actor: String::new(),
            attributes: [("reclaimed".to_owned(), bytes.to_string())].into(),
            at: events::now(),
        });
        Ok((gone, bytes))
    }
}

/// Runs a build's commands as the tenant's containers.
#[derive(Debug, Clone)]
struct Runner {
    scope: Scope,
    host: Arc<HostConfig>,
    force_remove: bool,
    keep: bool,
}

impl Runner {
    async fn run(&self, step: RunStep) -> Result<Upper, Error> {
        let handle = self.create(&step).await?;
        let short = handle.id().short();
        let ended = self.carry_out(&handle, &step).await;
        match ended {
            Ok(0) if self.keep => {
                let (store, id) = (self.scope.engine.tools.store.clone(), handle.id());
                let tracker = &self.scope.engine.tools.tracker;
                let copied = tracker.spawn_blocking(move || store.copy_upper(id)).await;
                self.leave(&handle, Ending::Kept, &step).await;
                let layer =
                    copied.map_err(|error| Error::internal("cannot make a layer", error))?;
                Ok(Upper::copied(layer?))
            }
            Ok(0) => {
                let upper = handle.surrender().await?;
                tell(&step.report, Event::Removed { container: short }).await?;
                Ok(upper)
            }
            Ok(code) => {
                self.leave(&handle, Ending::Kept, &step).await;
                let command = step.command.join(" ");
                let message = format!("The command '{command}' returned a non-zero code: {code}");
                Err(Error::NotStarted { code, message })
            }
            // Its code is not the command's.
            Err(error) if error.start_code().is_some() => {
                self.leave(&handle, Ending::Kept, &step).await;
                Err(Error::Invalid(error.to_string()))
            }
            // It may still run.
            Err(error) => {
                self.leave(&handle, Ending::Gone, &step).await;
                Err(error)
            }
        }
    }

    async fn create(&self, step: &RunStep) -> Result<Handle, Error> {
        let from = &step.image.config.config;
        let config = Config {
            image: step.image.id.to_string(),
            cmd: Some(step.command.clone()),
            // None, and not the image's.
            entrypoint: Some(vec![String::new()]),
            env: Some(step.env.clone()),
            attach_stdout: true,
            attach_stderr: true,
            healthcheck: from.healthcheck.as_ref().map(|_| crate::spec::Healthcheck {
                test: Some(vec!["NONE".to_owned()]),
                ..crate::spec::Healthcheck::default()
            }),
            ..Config::default()
        };
        let mut host = (*self.host).clone();
        match step.network {
            Network::Default => {}
            Network::None => "none".clone_into(&mut host.network_mode),
            Network::Host => "host".clone_into(&mut host.network_mode),
        }
        "none".clone_into(&mut host.log_config.kind);
        let request = CreateContainer { config, host, ..CreateContainer::default() };
        let script = step.script.as_ref().map(|script| crate::container::MountPoint {
            destination: script.destination.clone(),
            mode: "ro".to_owned(),
            writable: false,
            propagation: "rprivate".to_owned(),
            what: crate::container::Mounted::Bind {
                source: script.source.clone(),
                recursive: false,
                create: false,
                shallow: false,
            },
        });
        let mut image = step.image.clone();
        // What is written to a volume's place is in the image, as BuildKit has it.
        image.config.config.volumes.clear();
        let id = self.scope.create_for_build(request, image, script).await?;
        self.scope.container(&id.to_string())
    }

    /// The command's exit code, or why there is none.
    async fn carry_out(&self, handle: &Handle, step: &RunStep) -> Result<i32, Error> {
        let container = handle.id().short();
        tell(&step.report, Event::Runs { container }).await?;
        let options =
            AttachOptions { stdout: true, stderr: true, stream: true, ..AttachOptions::default() };
        let output = handle.attach(options).await?.output;
        let exit = handle.wait(WaitCondition::NextExit);
        handle.start().await?;
        let said = async {
            let Some(mut output) = output else { return Ok(()) };
            let mut frames = Frames::default();
            while let Some(bytes) = output.next().await {
                let bytes = bytes.map_err(|error| Error::internal("cannot read the output", error));
                for (complains, text) in frames.take(&bytes?) {
                    tell(&step.report, Event::Said { text, complains }).await?;
                }
            }
            Ok(())
        };
        let ended = async { tokio::try_join!(said, exit) };
        tokio::select! {
            () = step.cancel.cancelled() => Err(cancelled()),
            ended = ended => ended.map(|((), outcome)| outcome.code),
        }
    }

    /// What has failed stays to be looked at, as with Docker, unless it is
    /// asked to go or nobody is there any more.
    async fn leave(&self, handle: &Handle, end: Ending, step: &RunStep) {
        let unwanted = self.force_remove || step.cancel.is_cancelled();
        let end = if unwanted { Ending::Gone } else { end };
        if let Err(error) = self.scope.end_for_build(handle, end).await {
            let error = crate::error::chain(&error);
            tracing::warn!(container = %handle.id(), error, "cannot end a build's container");
        }
    }
}

fn cancelled() -> Error {
    Error::Unavailable("Build cancelled".to_owned())
}

async fn tell(report: &Report, event: Event) -> Result<(), Error> {
    report.send(event).await.map_err(|_| cancelled())
}

/// Docker's frames, which may be cut anywhere: a stream's number, three zeros,
/// a length of four bytes, and so many bytes.
#[derive(Debug, Default)]
struct Frames {
    rest: Vec<u8>,
}

impl Frames {
    fn take(&mut self, bytes: &[u8]) -> Vec<(bool, String)> {
        self.rest.extend_from_slice(bytes);
        let mut whole = Vec::new();
        let mut at = 0;
        while let Some(&[stream, _, _, _, a, b, c, d]) =
            self.rest.get(at..).and_then(|rest| rest.first_chunk::<8>())
        {
            let length = u32::from_be_bytes([a, b, c, d]) as usize;
            let Some(text) = self.rest.get(at + 8..at + 8 + length) else { break };
            whole.push((stream == STDERR, String::from_utf8_lossy(text).into_owned()));
            at += 8 + length;
        }
        self.rest.drain(..at);
        whole
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_put_together_wherever_they_are_cut() {
        let stream = b"\x01\0\0\0\0\0\0\x02hi\x02\0\0\0\0\0\0\x01!";
        for cut in 0..=stream.len() {
            let (head, tail) = stream.split_at(cut);
            let mut frames = Frames::default();
            let mut said = frames.take(head);
            said.extend(frames.take(tail));
            assert_eq!(said, [(false, "hi".to_owned()), (true, "!".to_owned())], "{cut}");
        }
    }
}
