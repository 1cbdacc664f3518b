//! What a container is to see beside its root: `-v`, `--mount`,
//! `--volumes-from` and an image's `VOLUME`, put together as Docker does.

mod text;

use super::{Scope, policy, volumes};
use crate::{
    container::{MountPoint, Mounted, is_docker_socket},
    error::Error,
    ids::VolumeName,
    spec::{Config, DriverConfig, HostConfig},
    storage::Volume,
};
use std::{collections::BTreeMap, path::PathBuf};

/// One mount as it was asked for: volumes and images have been looked for by
/// nobody yet.
#[derive(Debug)]
struct Asked {
    point: MountPoint,
    /// Name of a volume (empty: none was given) or an image.
    source: String,
    driver: DriverConfig,
    labels: Option<BTreeMap<String, String>>,
}

impl Asked {
    fn plain(point: MountPoint) -> Self {
        Self { point, source: String::new(), driver: DriverConfig::default(), labels: None }
    }

    /// A volume that has no name and no place yet.
    fn volume(subpath: String, copy: bool) -> Mounted {
        let (name, source) = (VolumeName::random(), PathBuf::new());
        Mounted::Volume { name, source, subpath, anonymous: false, copy }
    }
}

/// Where the mounts are, and the volumes that must be there for them.
#[derive(Debug, Default)]
pub(super) struct Mounts {
    pub(super) points: Vec<MountPoint>,
    pub(super) volumes: Vec<Volume>,
}

/// Decides what is mounted where; nothing is made yet.
///
/// # Errors
/// Docker's words for what cannot be read or is there twice; `Denied` for what
/// a tenant may not see.
pub(super) fn plan(scope: &Scope, config: &Config, host: &HostConfig) -> Result<Mounts, Error> {
    let mut mounts = Mounts::default();
    for from in host.volumes_from.iter().flatten() {
        for point in of_other(scope, from)? {
            mounts.put(point);
        }
    }
    let mut taken: Vec<String> =
        host.tmpfs.iter().flatten().map(|(path, _)| path.clone()).collect();
    for bind in host.binds.iter().flatten() {
        let asked = text::bind(bind, &host.volume_driver)?;
        take(&mut taken, &asked)?;
        mounts.add(scope, asked)?;
    }
    // Docker lets one of these lie over a `--tmpfs`.
    taken.retain(|path| !host.tmpfs.iter().flatten().any(|(tmpfs, _)| tmpfs == path));
    for request in host.mounts.iter().flatten() {
        let asked = text::mount(request)?;
        take(&mut taken, &asked)?;
        mounts.add(scope, asked)?;
    }
    for (path, _) in config.volumes.iter().flatten() {
        let destination = text::absolute(&format!("/{path}"));
        let destination = destination.map_err(|why| {
            Error::Invalid(format!("invalid volume specification: '{path}': {why}"))
        })?;
        if mounts.points.iter().all(|point| point.destination != destination) {
            mounts.add(scope, anonymous(destination, &host.volume_driver))?;
        }
    }
    policy::allow_mounts(&scope.tenant, &mounts.points)?;
    mounts.points.iter().try_for_each(bind_exists)?;
    Ok(mounts)
}

fn take(taken: &mut Vec<String>, asked: &Asked) -> Result<(), Error> {
    let destination = &asked.point.destination;
    if taken.contains(destination) {
        return Err(Error::Invalid(format!("Duplicate mount point: {destination}")));
    }
    taken.push(destination.clone());
    Ok(())
}

/// Of an image's `VOLUME`, or `-v /path`.
fn anonymous(destination: String, driver: &str) -> Asked {
    let point = MountPoint {
        destination,
        mode: String::new(),
        writable: true,
        propagation: String::new(),
        what: Asked::volume(String::new(), true),
    };
    let driver = DriverConfig { name: driver.to_owned(), options: None };
    Asked { point, source: String::new(), driver, labels: None }
}

/// `--mount type=bind` wants its source to be there. (The engine's own socket
/// is, under another name.)
fn bind_exists(point: &MountPoint) -> Result<(), Error> {
    match &point.what {
        Mounted::Bind { source, create: false, .. }
            if !is_docker_socket(source) && !source.exists() =>
        {
            Err(Error::Invalid(format!(
                "invalid mount config for type \"bind\": bind source path does not exist: {}",
                source.display()
            )))
        }
        Mounted::Bind { .. }
        | Mounted::Volume { .. }
        | Mounted::Tmpfs {}
        | Mounted::Image { .. } => Ok(()),
    }
}

/// `--volumes-from CONTAINER[:ro|rw]`.
fn of_other(scope: &Scope, text: &str) -> Result<Vec<MountPoint>, Error> {
    let (reference, mode) = text.split_once(':').unwrap_or((text, "rw"));
    if reference.is_empty() {
        return Err(Error::Invalid("invalid name or ID supplied: \"\"".into()));
    }
    if !matches!(mode, "ro" | "rw" | "z" | "Z" | "ro,z" | "ro,Z" | "rw,z" | "rw,Z") {
        return Err(Error::Invalid(format!("invalid mode: {mode}")));
    }
    let found = scope.container(reference).map_err(|error| Error::Invalid(error.to_string()))?;
    let snapshot = found.snapshot();
    let shared = snapshot.record.mounts.iter().filter(|it| !matches!(it.what, Mounted::Tmpfs {}));
    Ok(shared
        .map(|point| {
            let mut point = point.clone();
            point.writable &= !mode.starts_with("ro");
            point.mode.clear();
            if let Mounted::Volume { copy, .. } = &mut point.what {
                *copy = false;
            }
            point
        })
        .collect())
}

impl Mounts {
    fn add(&mut self, scope: &Scope, asked: Asked) -> Result<(), Error> {
        let Asked { mut point, source: asked, driver, labels } = asked;
        match &mut point.what {
            Mounted::Volume { name, source, anonymous, .. } => {
                let request = volumes::CreateVolume {
                    name: asked,
                    driver: driver.name,
                    options: driver.options.unwrap_or_default(),
                    labels: labels.unwrap_or_default(),
                };
                *anonymous = request.name.is_empty();
                let volume = scope.wanted_volume(request)?;
                name.clone_from(&volume.name);
                *source = scope.engine.tools.volumes.path(&scope.tenant, name);
                self.volumes.push(volume);
            }
            Mounted::Image { image, layers, .. } => {
                let found = scope.image(&asked)?;
                *image = found.id;
                layers.clone_from(&found.layers);
            }
            Mounted::Bind { .. } | Mounted::Tmpfs {} => {}
        }
        self.put(point);
        Ok(())
    }

    /// The later one counts, as with Docker's `--volumes-from`.
    fn put(&mut self, point: MountPoint) {
        self.points.retain(|other| other.destination != point.destination);
        self.points.push(point);
    }
}
