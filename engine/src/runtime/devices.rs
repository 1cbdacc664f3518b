//! Which device files a container gets, and which it may open.

use crate::{
    error::Error,
    spec::{DeviceMapping, HostConfig},
};
use std::{
    fs, io,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _},
    path::{Path, PathBuf},
};
use tritium_supervisor::protocol;

/// One device that a container may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceRule {
    pub block: bool,
    /// `None`: any.
    pub major: Option<u32>,
    /// `None`: any.
    pub minor: Option<u32>,
    /// Of `r`, `w` and `m` (mknod).
    pub access: String,
}

/// Made in every container: path, major, minor; all `0666`.
const ALWAYS: [(&str, u32, u32); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];

/// May be opened in every container though no file is made: the console, the
/// terminals of its own devpts.
const OPENED: [(u32, Option<u32>); 3] = [(5, Some(1)), (5, Some(2)), (136, None)];

/// Folders of /dev that are not devices of the host (runc's list).
const SKIPPED: [&str; 8] =
    ["pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev", "console"];

/// What a container may open: Docker's defaults and what was asked for.
///
/// # Errors
/// `Invalid` in Docker's words: the host has no such device.
pub fn devices(host: &HostConfig) -> Result<Vec<DeviceRule>, Error> {
    if host.privileged {
        let any = |block| DeviceRule { block, major: None, minor: None, access: "rwm".into() };
        return Ok(vec![any(false), any(true)]);
    }
    let character =
        |major, minor| DeviceRule { block: false, major: Some(major), minor, access: "rwm".into() };
    // Making a device file harms nobody: opening it is what is refused.
    let mknod = |block| DeviceRule { block, major: None, minor: None, access: "m".into() };
    let mut rules = vec![mknod(false), mknod(true)];
    rules.extend(ALWAYS.map(|(_, major, minor)| character(major, Some(minor))));
    rules.extend(OPENED.map(|(major, minor)| character(major, minor)));
    for mapping in host.devices.iter().flatten() {
        for device in mapped(mapping)? {
            rules.push(DeviceRule {
                block: device.kind == 'b',
                major: Some(device.major),
                minor: Some(device.minor),
                access: access(mapping).to_owned(),
            });
        }
    }
    for text in host.device_cgroup_rules.iter().flatten() {
        rules.extend(parse_rule(text)?);
    }
    Ok(rules)
}

/// Says at creation which rule cannot be meant.
pub(super) fn check_rules(host: &HostConfig) -> Result<(), Error> {
    host.device_cgroup_rules.iter().flatten().try_for_each(|text| parse_rule(text).map(drop))
}

/// The files to make in the container's /dev.
pub(super) fn files(host: &HostConfig) -> Result<Vec<protocol::Device>, Error> {
    let mut files: Vec<protocol::Device> = ALWAYS
        .map(|(path, major, minor)| protocol::Device {
            path: path.into(),
            kind: 'c',
            major,
            minor,
            mode: 0o666,
            uid: 0,
            gid: 0,
        })
        .into();
    let mut add =
        |device: protocol::Device| match files.iter_mut().find(|old| old.path == device.path) {
            Some(old) => *old = device,
            None => files.push(device),
        };
    if host.privileged {
        let failed = |error| Error::internal("cannot list the devices in /dev", error);
        below(Path::new("/dev"), "/dev").map_err(failed)?.into_iter().for_each(&mut add);
    }
    for mapping in host.devices.iter().flatten() {
        mapped(mapping)?.into_iter().for_each(&mut add);
    }
    Ok(files)
}

fn access(mapping: &DeviceMapping) -> &str {
    let asked = mapping.cgroup_permissions.as_str();
    if asked.is_empty() { "rwm" } else { asked }
}

/// What `--device` names: one device, or all in a folder.
fn mapped(mapping: &DeviceMapping) -> Result<Vec<protocol::Device>, Error> {
    let DeviceMapping { path_on_host, path_in_container, .. } = mapping;
    let inside = if path_in_container.is_empty() { path_on_host } else { path_in_container };
    let gathering = |reason: String| {
        Error::Invalid(format!(
            "error gathering device information while adding custom device \"{path_on_host}\": \
             {reason}"
        ))
    };
    if !access(mapping).chars().all(|right| "rwm".contains(right)) {
        return Err(gathering(format!("invalid device mode: {}", mapping.cgroup_permissions)));
    }
    let failed = |error: io::Error| gathering(super::failure::go_words(&error));
    let path = fs::canonicalize(path_on_host).map_err(failed)?;
    let metadata = fs::metadata(&path).map_err(failed)?;
    if metadata.is_dir() {
        let found = below(&path, inside).map_err(failed)?;
        return if found.is_empty() {
            Err(gathering("not a device node".into()))
        } else {
            Ok(found)
        };
    }
    device(&metadata, inside)
        .map(|device| vec![device])
        .ok_or_else(|| gathering("not a device node".into()))
}

fn device(metadata: &fs::Metadata, inside: &str) -> Option<protocol::Device> {
    let kind = match metadata.file_type() {
        kind if kind.is_char_device() => 'c',
        kind if kind.is_block_device() => 'b',
        _ => return None,
    };
    let number = metadata.rdev();
    Some(protocol::Device {
        path: inside.to_owned(),
        kind,
        major: rustix::fs::major(number),
        minor: rustix::fs::minor(number),
        mode: metadata.mode() & 0o7777,
        uid: metadata.uid(),
        gid: metadata.gid(),
    })
}

/// Every device file below a folder; links are not followed.
fn below(folder: &Path, inside: &str) -> io::Result<Vec<protocol::Device>> {
    let mut found = Vec::new();
    let mut folders: Vec<(PathBuf, String)> = vec![(folder.into(), inside.into())];
    while let Some((folder, inside)) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            let name = entry.file_name();
            let Some(name) = name.to_str().filter(|name| !SKIPPED.contains(name)) else { continue };
            let path = format!("{inside}/{name}");
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_dir() {
                folders.push((entry.path(), path));
            } else {
                found.extend(device(&metadata, &path));
            }
        }
    }
    found.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(found)
}

/// `--device-cgroup-rule`: `c 1:3 rwm`, with `a` for both kinds and `*` for any.
fn parse_rule(text: &str) -> Result<Vec<DeviceRule>, Error> {
    let invalid = || Error::Invalid(format!("invalid device cgroup rule format: '{text}'"));
    let mut words = text.split_whitespace();
    let (Some(kind), Some(numbers), Some(access), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(invalid());
    };
    let kinds: &[bool] = match kind {
        "a" => &[false, true],
        "b" => &[true],
        "c" => &[false],
        _ => return Err(invalid()),
    };
    let (major, minor) = numbers.split_once(':').ok_or_else(invalid)?;
    let number = |text: &str| match text {
        "*" => Ok(None),
        digits => digits.parse().map(Some).map_err(|_| invalid()),
    };
    let (major, minor) = (number(major)?, number(minor)?);
    if access.len() > 3 || !access.chars().all(|right| "rwm".contains(right)) {
        return Err(invalid());
    }
    Ok(kinds
        .iter()
        .map(|block| DeviceRule { block: *block, major, minor, access: access.to_owned() })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping(host: &str, inside: &str, access: &str) -> HostConfig {
        let mapping = DeviceMapping {
            path_on_host: host.into(),
            path_in_container: inside.into(),
            cgroup_permissions: access.into(),
        };
        HostConfig { devices: Some(vec![mapping]), ..HostConfig::default() }
    }

    #[test]
    fn a_device_of_the_host_is_made_and_may_be_opened_as_asked() {
        let host = mapping("/dev/zero", "/dev/z", "r");
        let files = files(&host).unwrap();
        let made = files.iter().find(|device| device.path == "/dev/z").unwrap();
        assert_eq!((made.kind, made.major, made.minor), ('c', 1, 5));
        let last = devices(&host).unwrap().pop().unwrap();
        assert_eq!((last.major, last.minor, last.access.as_str()), (Some(1), Some(5), "r"));
    }

    #[test]
    fn what_is_no_device_is_refused_in_dockers_words() {
        let words = |path| devices(&mapping(path, "/dev/x", "rwm")).unwrap_err().to_string();
        assert_eq!(
            words("/dev/nope"),
            "error gathering device information while adding custom device \"/dev/nope\": no such \
             file or directory"
        );
        assert!(words("/etc/passwd").ends_with("not a device node"));
    }

    #[test]
    fn rules_are_read_as_docker_writes_them() {
        let any = parse_rule("a *:* rwm").unwrap();
        assert_eq!(any.iter().map(|rule| rule.block).collect::<Vec<_>>(), [false, true]);
        let one = parse_rule("b 8:* rm").unwrap();
        assert_eq!((one[0].major, one[0].minor), (Some(8), None));
        for text in ["", "c 1:3", "x 1:3 r", "c 1 r", "c 1:z r", "c 1:3 q", "c 1:3 r r"] {
            assert!(parse_rule(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_privileged_container_gets_the_devices_of_the_host() {
        let host = HostConfig { privileged: true, ..HostConfig::default() };
        assert!(devices(&host).unwrap().iter().all(|rule| rule.major.is_none()));
        let files = files(&host).unwrap();
        assert!(files.iter().any(|device| device.path == "/dev/null"));
        assert!(!files.iter().any(|device| device.path.starts_with("/dev/pts/")));
    }
}
