//! Volumes of one tenant.

use super::{Scope, policy};
use crate::{
    container::{Mounted, Record},
    error::Error,
    events,
    ids::{ContainerId, TenantName, VolumeName},
    storage::{Fill, NotMounted, NotRemoved, UsedVolume, Volume, check_options},
};
use std::{collections::BTreeMap, path::PathBuf};

/// The label by which Docker knows a volume that was given no name.
pub(super) const ANONYMOUS: &str = "com.docker.volume.anonymous";

/// What `POST /volumes/create` asks.
#[derive(Debug, Clone, Default)]
pub struct CreateVolume {
    /// Empty: the engine chooses one.
    pub name: String,
    pub driver: String,
    pub options: BTreeMap<String, String>,
    pub labels: BTreeMap<String, String>,
}

/// One volume.
#[derive(Debug, Clone)]
pub struct VolumeView {
    pub used: UsedVolume,
    /// Docker's `Mountpoint`.
    pub path: PathBuf,
}

impl Scope {
    /// The volume of that name, made if there is none; on disk when this returns.
    ///
    /// # Errors
    /// `Invalid` for the name or the options, `NotFound` for the driver,
    /// `Denied` for what a tenant may not mount.
    pub async fn create_volume(&self, request: CreateVolume) -> Result<VolumeView, Error> {
        let wanted = self.wanted_volume(request)?;
        let name = wanted.name.clone();
        self.make_volume(wanted, None).await?;
        self.volume(name.as_str())
    }

    /// Checks what is asked, and decides a name; nothing is made yet.
    pub(super) fn wanted_volume(&self, request: CreateVolume) -> Result<Volume, Error> {
        let CreateVolume { name, driver, options, mut labels } = request;
        let name = if name.is_empty() {
            labels.insert(ANONYMOUS.into(), String::new());
            VolumeName::random()
        } else {
            let bad = |error| Error::Invalid(format!("create {name}: {error}"));
            name.parse().map_err(bad)?
        };
        if !matches!(driver.as_str(), "" | "local") {
            return Err(Error::NotFound(format!(
                "create {name}: error looking up volume plugin {driver}: plugin \"{driver}\" not \
                 found"
            )));
        }
        policy::allow_volume(&self.tenant, &options)?;
        // A volume that is there stays what it is.
        if self.engine.tools.volumes.get(&self.tenant, &name).is_none() {
            check_options(&options)
                .map_err(|error| Error::Invalid(format!("create {name}: {error}")))?;
        }
        Ok(Volume {
            version: Volume::VERSION,
            tenant: self.tenant.clone(),
            name,
            created: events::now(),
            options,
            labels: (!labels.is_empty()).then_some(labels),
        })
    }

    async fn make_volume(&self, wanted: Volume, user: Option<ContainerId>) -> Result<(), Error> {
        let tools = &self.engine.tools;
        let name = wanted.name.clone();
        let (_, made) = tools
            .volumes
            .create(wanted, user)
            .await
            .map_err(|error| Error::internal(format!("create {name}"), error))?;
        if made {
            tools.announce_volume(&self.tenant, &name, "create", &[]);
        }
        Ok(())
    }

    /// By its whole name.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn volume(&self, name: &str) -> Result<VolumeView, Error> {
        let missing = || Error::NotFound(format!("get {name}: no such volume"));
        let name: VolumeName = name.parse().map_err(|_| missing())?;
        let used = self.engine.tools.volumes.get(&self.tenant, &name).ok_or_else(missing)?;
        Ok(self.volume_view(used))
    }

    /// All of them, by name.
    #[must_use]
    pub fn volumes(&self) -> Vec<VolumeView> {
        let all = self.engine.tools.volumes.of(&self.tenant);
        all.into_iter().map(|used| self.volume_view(used)).collect()
    }

    fn volume_view(&self, used: UsedVolume) -> VolumeView {
        let path = self.engine.tools.volumes.path(&self.tenant, &used.volume.name);
        VolumeView { used, path }
    }

    /// Removes a volume and all that is in it.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` while a container uses it.
    pub async fn remove_volume(&self, name: &str) -> Result<(), Error> {
        let missing = || Error::NotFound(format!("get {name}: no such volume"));
        let parsed: VolumeName = name.parse().map_err(|_| missing())?;
        let tools = &self.engine.tools;
        match tools.volumes.remove(&self.tenant, &parsed).await {
            Ok(()) => {
                tools.announce_volume(&self.tenant, &parsed, "destroy", &[]);
                Ok(())
            }
            Err(NotRemoved::NoSuch) => Err(missing()),
            Err(NotRemoved::InUse(users)) => {
                let users: Vec<String> = users.iter().map(ContainerId::hex).collect();
                let users = users.join(", ");
                Err(Error::Conflict(format!("remove {name}: volume is in use - [{users}]")))
            }
            Err(NotRemoved::Store(error)) => Err(Error::internal(format!("remove {name}"), error)),
        }
    }

    /// Makes the volumes that a new container names, and fills those that are
    /// empty from its image.
    pub(super) async fn provide_volumes(
        &self,
        record: &Record,
        wanted: Vec<Volume>,
    ) -> Result<(), Error> {
        let volumes = &self.engine.tools.volumes;
        for volume in wanted {
            self.make_volume(volume, Some(record.id)).await?;
        }
        for name in record.mounts.iter().filter_map(|point| point.volume()) {
            // Of another container: `--volumes-from`.
            if !volumes.hold(&self.tenant, name, record.id) {
                return Err(Error::NotFound(format!("get {name}: no such volume")));
            }
        }
        let fills: Vec<Fill> = record.mounts.iter().filter_map(crate::container::fill).collect();
        let filled = volumes.fill(&self.tenant, record.id, &record.layers, fills).await;
        filled.map_err(|error| refused(&self.tenant, error))
    }

    /// A container could not be made: what was made for it alone goes.
    pub(super) async fn abandon_volumes(&self, record: &Record) {
        self.engine.tools.volumes.release(record.id);
        for point in &record.mounts {
            let Mounted::Volume { name, anonymous: true, .. } = &point.what else { continue };
            match self.remove_volume(name.as_str()).await {
                // Of `--volumes-from`, or not made yet.
                Ok(()) | Err(Error::Conflict(_) | Error::NotFound(_)) => {}
                Err(error) => {
                    let error = crate::error::chain(&error);
                    tracing::warn!(volume = %name, error, "cannot remove a volume");
                }
            }
        }
    }
}

fn refused(tenant: &TenantName, error: NotMounted) -> Error {
    match error {
        NotMounted::Refused(message) => Error::NotStarted { code: 128, message },
        NotMounted::NoSuch => Error::NotFound("no such volume".into()),
        NotMounted::Store(error) => {
            Error::internal(format!("cannot fill the volumes of tenant {tenant}"), error)
        }
    }
}
