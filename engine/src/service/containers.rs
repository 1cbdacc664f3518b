//! Containers of one tenant: make, find, list, rename.

use super::{Scope, create, policy};
use crate::{
    container::{self, ExecHandle, ExecRequest, Handle, Snapshot},
    error::Error,
    ids::{ContainerId, ExecId},
    image::Image,
    spec::{Config, HostConfig, NetworkingConfig},
};
use std::sync::Arc;

/// Docker's words before what is wrong with a new name.
const NEW_NAME: &str = "Error when allocating new name: ";

/// What `POST /containers/create` asks.
#[derive(Debug, Clone, Default)]
pub struct CreateContainer {
    /// As the user wrote it, perhaps with a leading `/`.
    pub name: Option<String>,
    pub platform: Option<String>,
    pub config: Config,
    pub host: HostConfig,
    pub networking: NetworkingConfig,
}

/// What becomes of a build's container that did not do what it should.
#[derive(Debug, Clone, Copy)]
pub(super) enum Ending {
    Gone,
    /// It is the user's from now on.
    Kept,
}

/// What it answers.
#[derive(Debug, Clone)]
pub struct Created {
    pub id: ContainerId,
    pub warnings: Vec<String>,
}

impl Scope {
    /// Makes a container; it is on disk when this returns.
    ///
    /// # Errors
    /// `NotFound` for the image, `Conflict` for the name, `Invalid` and
    /// `Denied` for what is asked.
    pub async fn create_container(&self, request: CreateContainer) -> Result<Created, Error> {
        let scope = self.clone();
        // On a task of its own: a client that leaves now leaves nothing half made.
        let create = async move { Box::pin(scope.create(request)).await };
        let made = self.engine.tools.tracker.spawn(create);
        made.await.map_err(|error| Error::internal("the creation's task failed", error))?
    }

    async fn create(&self, mut request: CreateContainer) -> Result<Created, Error> {
        let tools = &self.engine.tools;
        let asked = request.name.take().filter(|name| !name.is_empty());
        let asked = asked.map(|name| checked_name(&name)).transpose()?;
        let image = self.engine.images.resolve(&self.tenant, &request.config.image)?;
        if let Some(platform) = request.platform.as_deref().filter(|it| !it.is_empty()) {
            check_platform(platform, &image, &request.config.image)?;
        }
        self.check_links(&request.host)?;
        let networks = self.networks_named(&request).await?;
        let name = asked.clone().unwrap_or_default();
        let create::Plan { mut record, warnings, volumes } =
            create::plan(self, request, name, &image, &networks)?;
        match asked {
            Some(name) => tools.registry.take_name(&self.tenant, &name, record.id)?,
            None => record.name = self.take_random_name(record.id),
        }
        let id = self.make_or_forget(record, volumes).await?;
        Ok(Created { id, warnings })
    }

    async fn make_or_forget(
        &self,
        record: container::Record,
        volumes: Vec<crate::storage::Volume>,
    ) -> Result<ContainerId, Error> {
        let tools = &self.engine.tools;
        let id = record.id;
        let model = record.clone();
        let outcome = self.make(record, volumes).await;
        if outcome.is_err() {
            tools.registry.free_name(&model.tenant, &model.name);
            self.abandon_volumes(&model).await;
            // What is left without a record is swept away at the next start.
            if let Err(error) = tools.store.remove_rootfs(id).await {
                let error = crate::error::chain(&error);
                tracing::warn!(container = %id, error, "cannot remove a half-made container");
            }
        }
        outcome.map(|()| id)
    }

    async fn make(
        &self,
        record: container::Record,
        volumes: Vec<crate::storage::Volume>,
    ) -> Result<(), Error> {
        let tools = &self.engine.tools;
        let doing = || format!("cannot make the root filesystem of container {}", record.id);
        let made = tools.store.create_rootfs(record.id, &record.layers).await;
        made.map_err(|error| Error::internal(doing(), error))?;
        let held = tools.store.hold_for(record.id, &record.mounted_layers());
        held.map_err(|error| Error::internal(doing(), error))?;
        self.provide_volumes(&record, volumes).await?;
        tools.save(&record).await?;
        tools.announce(&record, "create", &[]);
        container::adopt(record, None, tools);
        Ok(())
    }

    /// A container of an image that nobody has named, for one command of a
    /// build. It goes when the engine does not end it (see `end_for_build`).
    pub(super) async fn create_for_build(
        &self,
        request: CreateContainer,
        image: Image,
        script: Option<container::MountPoint>,
    ) -> Result<ContainerId, Error> {
        let scope = self.clone();
        let made = self.engine.tools.tracker.spawn(async move {
            let networks = scope.networks_named(&request).await?;
            let plan = create::plan(&scope, request, String::new(), &image, &networks)?;
            let create::Plan { mut record, volumes, .. } = plan;
            record.build = true;
            record.mounts.extend(script);
            record.name = scope.take_random_name(record.id);
            scope.make_or_forget(record, volumes).await
        });
        made.await.map_err(|error| Error::internal("the creation's task failed", error))?
    }

    /// A build is through with a container of its own.
    pub(super) async fn end_for_build(&self, handle: &Handle, end: Ending) -> Result<(), Error> {
        match end {
            Ending::Gone => {
                let how = container::RemoveOptions { force: true, volumes: true };
                handle.remove(how, &handle.id().hex()).await
            }
            Ending::Kept => handle.keep().await,
        }
    }

    fn take_random_name(&self, id: ContainerId) -> String {
        loop {
            let name = super::names::random();
            if self.engine.tools.registry.take_name(&self.tenant, &name, id).is_ok() {
                return name;
            }
        }
    }

    /// By name, id or a prefix of an id that is one only.
    ///
    /// # Errors
    /// `NotFound`; `Invalid` for an ambiguous prefix.
    pub fn container(&self, reference: &str) -> Result<Handle, Error> {
        self.engine.tools.registry.find(&self.tenant, reference)
    }

    /// All of them, newest first.
    #[must_use]
    pub fn containers(&self) -> Vec<Arc<Snapshot>> {
        let handles = self.engine.tools.registry.of(&self.tenant);
        let mut all: Vec<_> = handles.iter().map(Handle::snapshot).collect();
        all.sort_by_key(|snapshot| std::cmp::Reverse(snapshot.record.created));
        all
    }

    /// Gives a container another name.
    ///
    /// # Errors
    /// `Conflict` if another has it; `Invalid` if it cannot be one.
    pub async fn rename_container(&self, reference: &str, name: &str) -> Result<(), Error> {
        let handle = self.container(reference)?;
        if name.is_empty() {
            return Err(Error::Invalid("Neither old nor new names may be empty".into()));
        }
        let allocating = |error: Error| {
            let why = format!("{NEW_NAME}{error}");
            let taken = matches!(error, Error::Conflict(_));
            if taken { Error::Conflict(why) } else { Error::Invalid(why) }
        };
        let slashed = format!("/{}", name.strip_prefix('/').unwrap_or(name));
        let name = checked_name(&slashed).map_err(allocating)?;
        if handle.snapshot().record.name == name {
            return Err(Error::Invalid(
                "Renaming a container with the same name as its current name".into(),
            ));
        }
        let registry = &self.engine.tools.registry;
        registry.take_name(&self.tenant, &name, handle.id()).map_err(allocating)?;
        let outcome = handle.rename(name.clone()).await;
        if outcome.is_err() {
            registry.free_name(&self.tenant, &name);
        }
        outcome
    }

    /// Changes limits or the restart policy; what Docker warns of.
    ///
    /// # Errors
    /// `Invalid` for values that make no sense.
    pub async fn update_container(
        &self,
        reference: &str,
        change: container::Update,
    ) -> Result<Vec<String>, Error> {
        let handle = self.container(reference)?;
        let warnings = create::check_update(&handle.snapshot().record, &change)?;
        handle.update(change).await?;
        Ok(warnings)
    }

    /// Notes a process that is to run beside a container's first.
    ///
    /// # Errors
    /// `Denied`; `Conflict` if the container does not run or is paused.
    pub async fn create_exec(
        &self,
        reference: &str,
        request: ExecRequest,
    ) -> Result<ExecId, Error> {
        policy::allow_exec(&self.tenant, request.privileged)?;
        self.container(reference)?.exec_create(request).await
    }

    /// One exec of one of this tenant's containers.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn exec(&self, id: &str) -> Result<ExecHandle, Error> {
        self.engine.tools.registry.find_exec(&self.tenant, id)
    }
}

/// Docker's rule for names.
fn checked_name(name: &str) -> Result<String, Error> {
    let bare = name.strip_prefix('/').unwrap_or(name);
    let mut letters = bare.chars();
    let first = letters.next().is_some_and(|c| c.is_ascii_alphanumeric());
    let rest = letters.clone().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'));
    if first && rest && letters.next().is_some() {
        return Ok(bare.to_owned());
    }
    Err(Error::Invalid(format!(
        "Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
    )))
}

fn check_platform(platform: &str, image: &Image, reference: &str) -> Result<(), Error> {
    let mut parts = platform.split('/');
    let (os, architecture) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let fits = os == image.config.os
        && (architecture.is_empty() || architecture == image.config.architecture);
    if fits {
        return Ok(());
    }
    Err(Error::NotFound(format!(
        "image with reference {reference} was found but does not provide the specified platform \
         ({platform})"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_dockers_rule() {
        assert_eq!(checked_name("/web_1.a-b").unwrap(), "web_1.a-b");
        for name in ["", "/", "a", "-ab", "a b", "../x", "a/b", "é1"] {
            assert!(checked_name(name).is_err(), "{name}");
        }
    }
}
