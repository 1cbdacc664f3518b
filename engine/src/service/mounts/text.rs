//! `-v` and `--mount`, from Docker's texts and objects to mount points.

use super::Asked;
use crate::{
    container::{MountPoint, Mounted},
    error::Error,
    spec::{DriverConfig, MountRequest},
};
use std::path::{Component, Path, PathBuf};

/// What Docker shows for a volume whose mode nobody gave.
const VOLUME_MODE: &str = "z";
const PROPAGATIONS: [&str; 6] = ["private", "rprivate", "shared", "rshared", "slave", "rslave"];

/// `SOURCE:DESTINATION[:MODE,…]`, or `DESTINATION` alone.
pub(super) fn bind(text: &str, driver: &str) -> Result<Asked, Error> {
    let bad = |why: &str| Error::Invalid(format!("invalid volume specification: '{text}'{why}"));
    let mut parts = text.split(':');
    let (Some(first), second, mode, None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(bad(""));
    };
    let (source, destination) = match second {
        Some(destination) => (first, destination),
        None => ("", first),
    };
    if destination.is_empty() || (second.is_some() && source.is_empty()) {
        return Err(bad(""));
    }
    let mode = mode.unwrap_or_default();
    let words = modes(mode)?;
    let kind = if source.starts_with('/') { "bind" } else { "volume" };
    let within = |why: String| bad(&format!(": invalid mount config for type \"{kind}\": {why}"));
    let destination = absolute(destination).map_err(within)?;
    let point = |what, mode: &str, propagation: &str| MountPoint {
        destination: destination.clone(),
        mode: mode.to_owned(),
        writable: !words.contains(&"ro"),
        propagation: propagation.to_owned(),
        what,
    };
    let propagation = words.iter().copied().find(|word| PROPAGATIONS.contains(word));
    if kind == "bind" {
        if words.contains(&"nocopy") {
            return Err(within("field VolumeOptions must not be specified".into()));
        }
        let source = path(source).map_err(within)?;
        let what = Mounted::Bind { source, recursive: true, create: true, shallow: false };
        let point = point(what, mode, propagation.unwrap_or("rprivate"));
        return Ok(Asked::plain(point));
    }
    if propagation.is_some() {
        return Err(within("field BindOptions must not be specified".into()));
    }
    let shown = if mode.is_empty() { VOLUME_MODE } else { mode };
    let what = Asked::volume(String::new(), !words.contains(&"nocopy"));
    let driver = DriverConfig { name: driver.to_owned(), options: None };
    Ok(Asked { point: point(what, shown, ""), source: source.to_owned(), driver, labels: None })
}

/// The words of a mode; at most one of each kind.
fn modes(mode: &str) -> Result<Vec<&str>, Error> {
    let words: Vec<&str> = mode.split(',').filter(|_| !mode.is_empty()).collect();
    let groups: [&[&str]; 5] = [
        &["ro", "rw"],
        &["z", "Z"],
        &["nocopy"],
        &["consistent", "cached", "delegated"],
        &PROPAGATIONS,
    ];
    let known = words.iter().all(|word| groups.iter().any(|group| group.contains(word)));
    let twice = |group: &[&str]| words.iter().filter(|word| group.contains(*word)).count() > 1;
    if known && !groups.iter().any(|group| twice(group)) {
        return Ok(words);
    }
    Err(Error::Invalid(format!("invalid mode: {mode}")))
}

/// One of `--mount`. An image is not looked for yet, and neither is whether a
/// bind's source exists: that is for those who may know.
pub(super) fn mount(request: &MountRequest) -> Result<Asked, Error> {
    let kind = request.kind.as_str();
    foreign_options(request)?;
    let invalid =
        |why: String| Error::Invalid(format!("invalid mount config for type \"{kind}\": {why}"));
    if !matches!(kind, "bind" | "volume" | "tmpfs" | "image") {
        return Err(invalid("mount type unknown".into()));
    }
    if request.target.is_empty() {
        return Err(invalid("field Target must not be empty".into()));
    }
    let destination = absolute(&request.target).map_err(invalid)?;
    let point = |what, mode: &str, writable, propagation: &str| MountPoint {
        destination: destination.clone(),
        mode: mode.to_owned(),
        writable,
        propagation: propagation.to_owned(),
        what,
    };
    let writable = !request.read_only;
    let (what, propagation) = match kind {
        "bind" => bound(request).map_err(invalid)?,
        "tmpfs" => {
            tmpfs(request).map_err(invalid)?;
            (Mounted::Tmpfs {}, String::new())
        }
        "image" => {
            let what = image(request).map_err(invalid)?;
            let mut asked = Asked::plain(point(what, "", false, "rprivate"));
            asked.source.clone_from(&request.source);
            return Ok(asked);
        }
        _ => {
            let options = request.volume_options.clone().unwrap_or_default();
            named(request, &options.subpath).map_err(invalid)?;
            let what = Asked::volume(options.subpath, !options.no_copy);
            return Ok(Asked {
                point: point(what, VOLUME_MODE, writable, ""),
                source: request.source.clone(),
                driver: options.driver_config.unwrap_or_default(),
                labels: options.labels,
            });
        }
    };
    Ok(Asked::plain(point(what, "", writable, &propagation)))
}

/// Options of another type of mount than this.
fn foreign_options(request: &MountRequest) -> Result<(), Error> {
    let given = [
        ("BindOptions", "bind", request.bind_options.is_some()),
        ("VolumeOptions", "volume", request.volume_options.is_some()),
        ("ImageOptions", "image", request.image_options.is_some()),
        ("TmpfsOptions", "tmpfs", request.tmpfs_options.is_some()),
        ("ClusterOptions", "cluster", request.cluster_options.is_some()),
    ];
    let kind = request.kind.as_str();
    match given.iter().find(|(_, owner, given)| *given && *owner != kind) {
        Some((name, ..)) => {
            Err(Error::Invalid(format!("{name} must not be specified on mount type \"{kind}\"")))
        }
        None => Ok(()),
    }
}

fn bound(request: &MountRequest) -> Result<(Mounted, String), String> {
    if request.source.is_empty() {
        return Err("field Source must not be empty".into());
    }
    let options = request.bind_options.clone().unwrap_or_default();
    let propagation = match options.propagation.as_str() {
        "" => "rprivate".to_owned(),
        known if PROPAGATIONS.contains(&known) => known.to_owned(),
        other => return Err(format!("invalid propagation mode: {other}")),
    };
    let what = Mounted::Bind {
        source: path(&request.source)?,
        recursive: !options.non_recursive,
        create: options.create_mountpoint,
        shallow: options.read_only_non_recursive && !options.read_only_force_recursive,
    };
    Ok((what, propagation))
}

fn tmpfs(request: &MountRequest) -> Result<(), String> {
    if !request.source.is_empty() {
        return Err("field Source must not be specified".into());
    }
    let options = request.tmpfs_options.clone().unwrap_or_default();
    for option in options.options.iter().flatten() {
        let word = option.first().map(String::as_str).unwrap_or_default();
        if option.len() != 1 || !matches!(word, "exec" | "noexec") {
            return Err(format!("invalid option: {word}"));
        }
    }
    Ok(())
}

fn image(request: &MountRequest) -> Result<Mounted, String> {
    if request.source.is_empty() {
        return Err("field Source must not be empty".into());
    }
    let options = request.image_options.clone().unwrap_or_default();
    let subpath = options.subpath;
    within(&subpath)?;
    let name = request.source.clone();
    // The image itself is found by the one who may look.
    let image = crate::ids::ImageId::of([0; 32]);
    Ok(Mounted::Image { name, image, layers: Vec::new(), subpath })
}

fn named(request: &MountRequest, subpath: &str) -> Result<(), String> {
    if request.source.is_empty() && !subpath.is_empty() {
        return Err("must not set Subpath when using anonymous volumes".into());
    }
    if request.source.is_empty() && request.read_only {
        return Err("must not set ReadOnly mode when using anonymous volumes".into());
    }
    within(subpath)
}

/// A subpath cannot even be written so that it would leave the volume; that
/// no link leads out of it is the kernel's to see, when it is mounted.
fn within(subpath: &str) -> Result<(), String> {
    let mut depth = 0_i32;
    for part in Path::new(subpath).components() {
        depth += match part {
            Component::Normal(_) => 1,
            Component::CurDir => 0,
            Component::ParentDir => -1,
            Component::RootDir | Component::Prefix(_) => i32::MIN / 2,
        };
        if depth < 0 {
            return Err("subpath must be a relative path within the volume".into());
        }
    }
    if subpath.contains('\0') { Err("subpath has a NUL byte".into()) } else { Ok(()) }
}

/// A destination: absolute, and not the root itself.
pub(super) fn absolute(text: &str) -> Result<String, String> {
    let clean = path(text)?;
    if clean == Path::new("/") {
        return Err("invalid specification: destination can't be '/'".into());
    }
    clean.into_os_string().into_string().map_err(|_| "the path is not UTF-8".into())
}

/// Go's `path.Clean` for absolute paths.
fn path(path: &str) -> Result<PathBuf, String> {
    if !path.starts_with('/') || path.contains('\0') {
        return Err(format!("invalid mount path: '{path}' mount path must be absolute"));
    }
    let mut clean = PathBuf::from("/");
    for part in Path::new(path).components() {
        match part {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => drop(clean.pop()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    Ok(clean)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        bind(text, "").unwrap_err().to_string()
    }

    #[test]
    fn the_hosts_root_can_be_bound() {
        let Asked { point, .. } = bind("/:/host", "").unwrap();
        assert_eq!(point.source(), Path::new("/"));
    }

    #[test]
    fn a_bind_is_read_as_docker_reads_it() {
        let Asked { point, .. } = bind("/a/../b:/data/:ro,rslave", "").unwrap();
        assert_eq!(point.source(), Path::new("/b"));
        assert_eq!(point.destination, "/data");
        assert!(!point.writable);
        assert_eq!((point.mode.as_str(), point.propagation.as_str()), ("ro,rslave", "rslave"));
    }

    #[test]
    fn a_named_volume_is_told_from_a_path() {
        let Asked { point, source, .. } = bind("data:/data", "").unwrap();
        assert_eq!((source.as_str(), point.kind(), point.mode.as_str()), ("data", "volume", "z"));
        let Asked { point, .. } = bind("data:/data:nocopy,ro", "").unwrap();
        assert!(matches!(point.what, Mounted::Volume { copy: false, .. }) && !point.writable);
        let Asked { source, .. } = bind("/only", "").unwrap();
        assert_eq!(source, "");
    }

    #[test]
    fn nonsense_is_refused_in_dockers_words() {
        for text in ["", "/a:/b:ro:x", ":/b", "a:", "::"] {
            assert_eq!(refused(text), format!("invalid volume specification: '{text}'"));
        }
        for mode in ["xx", "ro,rw", "nocopy,nocopy", "ro,", "shared,slave"] {
            assert_eq!(refused(&format!("vv:/x:{mode}")), format!("invalid mode: {mode}"));
        }
        assert_eq!(
            refused("vv:x"),
            "invalid volume specification: 'vv:x': invalid mount config for type \"volume\": \
             invalid mount path: 'x' mount path must be absolute"
        );
        assert_eq!(
            refused("/:/"),
            "invalid volume specification: '/:/': invalid mount config for type \"bind\": invalid \
             specification: destination can't be '/'"
        );
        assert!(refused("vv:/x:rslave").ends_with("field BindOptions must not be specified"));
        assert!(refused("/tmp:/x:nocopy").ends_with("field VolumeOptions must not be specified"));
    }

    #[test]
    fn mounts_are_refused_in_dockers_words() {
        let said = |json: &str| {
            let request: MountRequest = serde_json::from_str(json).unwrap();
            mount(&request).unwrap_err().to_string()
        };
        for (json, words) in [
            (
                r#"{"Type":"zz","Target":"/x"}"#,
                "invalid mount config for type \"zz\": mount type unknown",
            ),
            (r#"{"Target":"/x"}"#, "invalid mount config for type \"\": mount type unknown"),
            (
                r#"{"Type":"bind","Source":"/a","Target":""}"#,
                "invalid mount config for type \"bind\": field Target must not be empty",
            ),
            (
                r#"{"Type":"bind","Target":"/x"}"#,
                "invalid mount config for type \"bind\": field Source must not be empty",
            ),
            (
                r#"{"Type":"bind","Source":"/a","Target":"/x","BindOptions":{"Propagation":"zz"}}"#,
                "invalid mount config for type \"bind\": invalid propagation mode: zz",
            ),
            (
                r#"{"Type":"bind","Source":"/a","Target":"/x","VolumeOptions":{}}"#,
                "VolumeOptions must not be specified on mount type \"bind\"",
            ),
            (
                r#"{"Type":"tmpfs","Source":"/a","Target":"/x"}"#,
                "invalid mount config for type \"tmpfs\": field Source must not be specified",
            ),
            (
                r#"{"Type":"tmpfs","Target":"/x","TmpfsOptions":{"Options":[["zz"]]}}"#,
                "invalid mount config for type \"tmpfs\": invalid option: zz",
            ),
            (
                r#"{"Type":"volume","Target":"/x","VolumeOptions":{"Subpath":"a"}}"#,
                "invalid mount config for type \"volume\": must not set Subpath when using \
                 anonymous volumes",
            ),
            (
                r#"{"Type":"volume","Source":"vv","Target":"/x","VolumeOptions":{"Subpath":"a/../../x"}}"#,
                "invalid mount config for type \"volume\": subpath must be a relative path within \
                 the volume",
            ),
            (
                r#"{"Type":"image","Source":"i","Target":"/x","ImageOptions":{"Subpath":"/x"}}"#,
                "invalid mount config for type \"image\": subpath must be a relative path within \
                 the volume",
            ),
        ] {
            assert_eq!(said(json), words);
        }
    }
}
