//! What a container's mount points mean on this host, right now.

use super::{MountPoint, Mounted, Record, tools::Tools};
use crate::{
    error::Error,
    ids::TenantName,
    runtime::{Shown, UserMount},
    storage::{Fill, NotMounted},
};
use std::{
    io,
    path::{Path, PathBuf},
};

/// Where each tenant's socket is.
#[derive(Debug, Clone, Default)]
pub struct Sockets {
    pub operator: PathBuf,
    /// Of the others: `NAME.sock` in here.
    pub tenants: PathBuf,
}

impl Sockets {
    /// The socket of the Docker host that a tenant sees.
    #[must_use]
    pub fn of(&self, tenant: &TenantName) -> PathBuf {
        if tenant.is_operator() {
            return self.operator.clone();
        }
        self.tenants.join(format!("{tenant}.sock"))
    }
}

/// Where clients expect the engine that they speak to. In a bind mount it means
/// the asking tenant's own socket, wherever that is: a container that is given
/// "the Docker socket" finds the engine that made it.
#[must_use]
pub fn is_docker_socket(source: &Path) -> bool {
    source == Path::new("/var/run/docker.sock") || source == Path::new("/run/docker.sock")
}

/// The volume at a mount point, if an image's content belongs into it.
#[must_use]
pub fn fill(point: &MountPoint) -> Option<Fill> {
    let Mounted::Volume { name, subpath, anonymous, copy: true, .. } = &point.what else {
        return None;
    };
    let destination = point.destination.clone();
    subpath.is_empty().then(|| Fill { name: name.clone(), destination, anonymous: *anonymous })
}

impl Tools {
    /// What is mounted beside the root. Volumes are ready when this returns,
    /// until `unmount`.
    pub(super) async fn mount(&self, record: &Record) -> Result<Vec<UserMount>, Error> {
        let mut mounts = Vec::new();
        for point in &record.mounts {
            let what = match &point.what {
                Mounted::Bind { .. } => self.bind(record, point).await?,
                Mounted::Volume { .. } => self.volume(record, point).await?,
                Mounted::Image { layers, subpath, .. } => self.image(layers, subpath)?,
                // The runtime reads its options in the `HostConfig`.
                Mounted::Tmpfs {} => continue,
            };
            let (destination, readonly) = (point.destination.clone(), !point.writable);
            mounts.push(UserMount { destination, readonly, what });
        }
        for point in &record.mounts {
            let Some(name) = point.volume() else { continue };
            let more = [
                ("container", record.id.hex()),
                ("destination", point.destination.clone()),
                ("propagation", point.propagation.clone()),
                ("read/write", point.writable.to_string()),
            ];
            self.announce_volume(&record.tenant, name, "mount", &more);
        }
        Ok(mounts)
    }

    /// The same for one who looks into a container that does not run: nothing
    /// is made, nothing is told. Until `unsee`.
    pub(super) async fn seen(&self, record: &Record) -> Result<Vec<UserMount>, Error> {
        let mut mounts = Vec::new();
        for point in &record.mounts {
            let what = match &point.what {
                Mounted::Bind { source, recursive, shallow, .. } => Shown::Bind {
                    source: source.clone(),
                    subpath: String::new(),
                    recursive: *recursive,
                    shallow: *shallow,
                    propagation: String::new(),
                },
                Mounted::Volume { .. } => self.volume(record, point).await?,
                Mounted::Image { layers, subpath, .. } => self.image(layers, subpath)?,
                Mounted::Tmpfs {} => continue,
            };
            let (destination, readonly) = (point.destination.clone(), !point.writable);
            mounts.push(UserMount { destination, readonly, what });
        }
        Ok(mounts)
    }

    pub(super) async fn unsee(&self, record: &Record) {
        for name in record.mounts.iter().filter_map(MountPoint::volume) {
            let unmounted = self.volumes.unmount(&record.tenant, name, record.id).await;
            if let Err(error) = unmounted {
                let error = crate::error::chain(&error);
                tracing::warn!(volume = %name, error, "cannot unmount a volume");
            }
        }
    }

    /// The container does not run any more.
    pub(super) async fn unmount(&self, record: &Record) {
        self.unsee(record).await;
        for name in record.mounts.iter().filter_map(MountPoint::volume) {
            let more = [("container", record.id.hex())];
            self.announce_volume(&record.tenant, name, "unmount", &more);
        }
    }

    async fn bind(&self, record: &Record, point: &MountPoint) -> Result<Shown, Error> {
        let Mounted::Bind { source, recursive, create, shallow } = point.what.clone() else {
            return Err(Error::Invalid("not a bind mount".into()));
        };
        let source =
            if is_docker_socket(&source) { self.sockets.of(&record.tenant) } else { source };
        let propagation = point.propagation.clone();
        let checked = tokio::task::spawn_blocking(move || {
            check_source(&source, create)?;
            check_propagation(&source, &propagation)?;
            let subpath = String::new();
            Ok(Shown::Bind { source, subpath, recursive, shallow, propagation })
        });
        checked.await.map_err(|error| Error::internal("cannot look at the mounts", error))?
    }

    async fn volume(&self, record: &Record, point: &MountPoint) -> Result<Shown, Error> {
        let Mounted::Volume { name, subpath, .. } = &point.what else {
            return Err(Error::Invalid("not a volume".into()));
        };
        let mounted = self.volumes.mount(&record.tenant, name, record.id).await;
        let source = mounted.map_err(|error| match error {
            NotMounted::NoSuch => Error::NotFound(format!("get {name}: no such volume")),
            NotMounted::Refused(message) => Error::NotStarted { code: 128, message },
            NotMounted::Store(error) => Error::internal(format!("cannot mount {name}"), error),
        })?;
        Ok(Shown::Bind {
            source,
            subpath: subpath.clone(),
            recursive: true,
            shallow: false,
            propagation: "rprivate".into(),
        })
    }

    fn image(&self, layers: &[crate::ids::Digest], subpath: &str) -> Result<Shown, Error> {
        let found = self.store.read_only_layers(layers);
        let (lower, layers_dir) =
            found.map_err(|error| Error::internal("cannot find the layers of an image", error))?;
        Ok(Shown::Image { lower, layers_dir, subpath: subpath.to_owned() })
    }
}

/// A missing source of `-v` is made, as Docker does.
fn check_source(source: &Path, create: bool) -> Result<(), Error> {
    let Err(error) = std::fs::metadata(source) else { return Ok(()) };
    let failed = |error| {
        let doing = format!("error while creating mount source path '{}'", source.display());
        Error::internal(doing, error)
    };
    if error.kind() != io::ErrorKind::NotFound {
        return Err(failed(error));
    }
    if !create {
        return Err(Error::Invalid(format!(
            "invalid mount config for type \"bind\": bind source path does not exist: {}",
            source.display()
        )));
    }
    std::fs::create_dir_all(source).map_err(failed)
}

/// Docker's rule: what is mounted in the container can come out, or in, only
/// where the host has asked for it.
fn check_propagation(source: &Path, propagation: &str) -> Result<(), Error> {
    let wanted: &[&str] = match propagation {
        "shared" | "rshared" => &["shared:"],
        "slave" | "rslave" => &["shared:", "master:"],
        _ => return Ok(()),
    };
    let failed =
        |error| Error::internal(format!("cannot find the mount of {}", source.display()), error);
    let real = std::fs::canonicalize(source).map_err(failed)?;
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").map_err(failed)?;
    let mount = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ').skip(4);
        let point = Path::new(words.next()?);
        // The optional fields stand between the options and a dash.
        let fields = words.skip(1).take_while(|word| *word != "-").collect::<Vec<_>>();
        real.starts_with(point).then_some((point, fields))
    });
    // Of those mounted at one place the last one is seen.
    let Some((point, fields)) = mount.max_by_key(|(point, _)| point.components().count()) else {
        return Ok(());
    };
    if fields.iter().any(|field| wanted.iter().any(|wanted| field.starts_with(wanted))) {
        return Ok(());
    }
    let kind = if wanted.len() == 1 { "a shared" } else { "a shared or slave" };
    let message = format!(
        "path {} is mounted on {} but it is not {kind} mount",
        source.display(),
        point.display()
    );
    Err(Error::NotStarted { code: 128, message })
}
