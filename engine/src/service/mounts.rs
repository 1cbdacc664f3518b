//! `-v`, `--mount` and image volumes, from Docker's texts to mount points.

use crate::{
    container::MountPoint,
    error::Error,
    spec::{Config, HostConfig, MountRequest},
};
use std::path::{Component, Path, PathBuf};

/// What the user asked to see of the host.
///
/// # Errors
/// Docker's words for what cannot be read, is there twice, or is not built.
pub(super) fn plan(config: &Config, host: &HostConfig) -> Result<Vec<MountPoint>, Error> {
    let mut mounts: Vec<MountPoint> = Vec::new();
    for bind in host.binds.iter().flatten() {
        mounts.push(parse_bind(bind)?);
    }
    for request in host.mounts.iter().flatten() {
        if request.kind != "tmpfs" {
            mounts.push(parse_mount(request)?);
        }
    }
    let tmpfs = host.tmpfs.iter().flatten().map(|(path, _)| path.clone());
    let mut seen: Vec<String> = tmpfs.collect();
    for mount in &mounts {
        if seen.contains(&mount.destination) {
            return Err(Error::Invalid(format!("Duplicate mount point: {}", mount.destination)));
        }
        seen.push(mount.destination.clone());
    }
    if host.binds.is_none() && config.volumes.iter().flatten().any(|(path, _)| path.is_empty()) {
        return Err(Error::Invalid("invalid volume specification: ''".into()));
    }
    Ok(mounts)
}

/// Volumes of the image or of `-v /path` that nothing is mounted at. They are
/// not built yet: what is written there is kept in the container's own layer.
pub(super) fn without_volume(config: &Config, mounts: &[MountPoint]) -> Vec<String> {
    let paths = config.volumes.iter().flatten().map(|(path, _)| path);
    paths
        .filter(|path| !mounts.iter().any(|mount| mount.destination == **path))
        .map(|path| {
            format!(
                "volumes are not built yet: {path} is kept in the container's own layer and goes \
                 with the container"
            )
        })
        .collect()
}

/// `SOURCE:DESTINATION[:MODE,…]`.
fn parse_bind(text: &str) -> Result<MountPoint, Error> {
    let bad = |why: &str| Error::Invalid(format!("invalid volume specification: '{text}'{why}"));
    let mut parts = text.split(':');
    let (Some(source), Some(destination), mode, None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(bad(""));
    };
    if !source.starts_with('/') {
        if source.is_empty() {
            return Err(bad(""));
        }
        return Err(Error::Unsupported(format!("named volumes are not built yet: {source}")));
    }
    let mode = mode.unwrap_or_default();
    let mut point = bind(source, destination, text)?;
    mode.clone_into(&mut point.mode);
    for option in mode.split(',').filter(|option| !option.is_empty()) {
        match option {
            "ro" => point.writable = false,
            "rw" | "z" | "Z" | "nocopy" | "consistent" | "cached" | "delegated" => {}
            "private" | "rprivate" | "shared" | "rshared" | "slave" | "rslave" => {
                option.clone_into(&mut point.propagation);
            }
            _ => return Err(Error::Invalid(format!("invalid mode: {mode}"))),
        }
    }
    Ok(point)
}

fn parse_mount(request: &MountRequest) -> Result<MountPoint, Error> {
    match request.kind.as_str() {
        "bind" => {}
        "volume" | "image" | "cluster" => {
            return Err(Error::Unsupported(format!(
                "mounts of type {} are not built yet",
                request.kind
            )));
        }
        other => {
            return Err(Error::Invalid(format!(
                "invalid mount config for type \"{other}\": mount type unknown: \"{other}\""
            )));
        }
    }
    let shown = format!("type=bind,source={},target={}", request.source, request.target);
    let invalid =
        |why: &str| Error::Invalid(format!("invalid mount config for type \"bind\": {why}"));
    if request.source.is_empty() {
        return Err(invalid("field Source must not be empty"));
    }
    if !request.source.starts_with('/') {
        return Err(invalid(&format!(
            "invalid mount path: '{}' mount path must be absolute",
            request.source
        )));
    }
    let options = request.bind_options.clone().unwrap_or_default();
    if !options.create_mountpoint && !Path::new(&request.source).exists() {
        return Err(invalid(&format!("bind source path does not exist: {}", request.source)));
    }
    let mut point = bind(&request.source, &request.target, &shown)?;
    point.writable = !request.read_only;
    if !options.propagation.is_empty() {
        point.propagation = options.propagation;
    }
    point.recursive = !options.non_recursive;
    Ok(point)
}

fn bind(source: &str, destination: &str, shown: &str) -> Result<MountPoint, Error> {
    let bad = |why: &str| Error::Invalid(format!("invalid volume specification: '{shown}': {why}"));
    let destination = clean(destination).ok_or_else(|| bad("mount path must be absolute"))?;
    if destination == Path::new("/") {
        return Err(bad("destination can't be '/'"));
    }
    let source = clean(source).ok_or_else(|| bad("mount path must be absolute"))?;
    let text = |path: PathBuf| path.into_os_string().into_string();
    Ok(MountPoint {
        kind: "bind".into(),
        source,
        destination: text(destination).map_err(|_| bad("the path is not UTF-8"))?,
        mode: String::new(),
        writable: true,
        recursive: true,
        propagation: "rprivate".into(),
    })
}

/// Go's `path.Clean` for absolute paths.
fn clean(path: &str) -> Option<PathBuf> {
    if !path.starts_with('/') || path.contains('\0') {
        return None;
    }
    let mut clean = PathBuf::from("/");
    for part in Path::new(path).components() {
        match part {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => drop(clean.pop()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    Some(clean)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bind_is_read_as_docker_reads_it() {
        let point = parse_bind("/a/../b:/data/:ro,rslave").unwrap();
        assert_eq!(point.source, Path::new("/b"));
        assert_eq!(point.destination, "/data");
        assert!(!point.writable);
        assert_eq!(point.propagation, "rslave");
    }

    #[test]
    fn nonsense_is_refused_and_what_is_not_built_says_so() {
        for text in ["", "/a", "/a:b", "/a:/b:xx", "/a:/b:ro:x", "/a:/", ":/b"] {
            assert!(matches!(parse_bind(text), Err(Error::Invalid(_))), "{text}");
        }
        assert!(matches!(parse_bind("data:/data"), Err(Error::Unsupported(_))));
    }

    #[test]
    fn the_same_place_cannot_be_mounted_at_twice() {
        let host = HostConfig {
            binds: Some(vec!["/a:/x".into(), "/b:/x".into()]),
            ..HostConfig::default()
        };
        let error = plan(&Config::default(), &host).unwrap_err();
        assert_eq!(error.to_string(), "Duplicate mount point: /x");
    }
}
