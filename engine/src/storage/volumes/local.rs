//! The local driver's options: what Docker lets one say, and what to mount.

use nix::mount::MsFlags;
use std::{collections::BTreeMap, net::ToSocketAddrs};

/// Options that make no sense, in Docker's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadOption {
    #[error("invalid option: \"{0}\"")]
    Unknown(String),
    #[error("missing required option: \"{0}\"")]
    Missing(&'static str),
    #[error("quota size requested but no quota support")]
    Quota,
}

/// Which option needs which others.
const NEEDS: [(&str, &[&str]); 3] =
    [("device", &["type"]), ("o", &["device", "type"]), ("type", &["device"])];

/// Whether Docker would take these.
///
/// # Errors
/// See [`BadOption`].
pub fn check(options: &BTreeMap<String, String>) -> Result<(), BadOption> {
    let known = ["type", "o", "device", "size"];
    if let Some(key) = options.keys().find(|key| !known.contains(&key.as_str())) {
        return Err(BadOption::Unknown(key.clone()));
    }
    for (key, needed) in NEEDS {
        let missing = needed.iter().find(|needed| !options.contains_key(**needed));
        if let (true, Some(missing)) = (options.contains_key(key), missing) {
            return Err(BadOption::Missing(missing));
        }
    }
    if options.contains_key("size") {
        return Err(BadOption::Quota);
    }
    Ok(())
}

/// One call of mount(2).
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mount {
    pub(super) device: String,
    pub(super) kind: String,
    pub(super) flags: MsFlags,
    /// Of how the mount propagates: a second call.
    pub(super) propagation: MsFlags,
    /// What the file system itself is told.
    pub(super) data: String,
}

/// What is to be mounted for these options; none for a plain directory.
pub(super) fn mount(options: &BTreeMap<String, String>) -> Option<Mount> {
    let text = |key: &str| options.get(key).cloned().unwrap_or_default();
    let kind = options.get("type").filter(|kind| !kind.is_empty())?.clone();
    let mut mount = Mount {
        device: text("device"),
        kind,
        flags: MsFlags::empty(),
        propagation: MsFlags::empty(),
        data: String::new(),
    };
    let mut data = Vec::new();
    for option in text("o").split(',').filter(|option| !option.is_empty()) {
        match flag(option) {
            Some((set, flag)) if set => mount.flags |= flag,
            Some((_, flag)) => mount.flags &= !flag,
            None => match propagation(option) {
                Some(flag) => mount.propagation |= flag,
                None => data.push(option.to_owned()),
            },
        }
    }
    mount.data = data.join(",");
    Some(mount)
}

/// The flags of mount(8), and whether the word sets or clears.
fn flag(option: &str) -> Option<(bool, MsFlags)> {
    Some(match option {
        "defaults" => (true, MsFlags::empty()),
        "ro" => (true, MsFlags::MS_RDONLY),
        "rw" => (false, MsFlags::MS_RDONLY),
        "bind" => (true, MsFlags::MS_BIND),
        "rbind" => (true, MsFlags::MS_BIND | MsFlags::MS_REC),
        "dev" => (false, MsFlags::MS_NODEV),
        "nodev" => (true, MsFlags::MS_NODEV),
        "exec" => (false, MsFlags::MS_NOEXEC),
        "noexec" => (true, MsFlags::MS_NOEXEC),
        "suid" => (false, MsFlags::MS_NOSUID),
        "nosuid" => (true, MsFlags::MS_NOSUID),
        "async" => (false, MsFlags::MS_SYNCHRONOUS),
        "sync" => (true, MsFlags::MS_SYNCHRONOUS),
        "dirsync" => (true, MsFlags::MS_DIRSYNC),
        "atime" => (false, MsFlags::MS_NOATIME),
        "noatime" => (true, MsFlags::MS_NOATIME),
        "diratime" => (false, MsFlags::MS_NODIRATIME),
        "nodiratime" => (true, MsFlags::MS_NODIRATIME),
        "relatime" => (true, MsFlags::MS_RELATIME),
        "norelatime" => (false, MsFlags::MS_RELATIME),
        "strictatime" => (true, MsFlags::MS_STRICTATIME),
        "nostrictatime" => (false, MsFlags::MS_STRICTATIME),
        "mand" => (true, MsFlags::MS_MANDLOCK),
        "nomand" => (false, MsFlags::MS_MANDLOCK),
        _ => return None,
    })
}

fn propagation(option: &str) -> Option<MsFlags> {
    Some(match option {
        "private" => MsFlags::MS_PRIVATE,
        "rprivate" => MsFlags::MS_PRIVATE | MsFlags::MS_REC,
        "shared" => MsFlags::MS_SHARED,
        "rshared" => MsFlags::MS_SHARED | MsFlags::MS_REC,
        "slave" => MsFlags::MS_SLAVE,
        "rslave" => MsFlags::MS_SLAVE | MsFlags::MS_REC,
        "unbindable" => MsFlags::MS_UNBINDABLE,
        "runbindable" => MsFlags::MS_UNBINDABLE | MsFlags::MS_REC,
        _ => return None,
    })
}

/// NFS and CIFS in the kernel know addresses only: `addr=NAME` is looked up.
/// Blocks.
///
/// # Errors
/// The name has no address.
pub(super) fn resolve(mount: &mut Mount) -> Result<(), String> {
    if !mount.kind.starts_with("nfs") && mount.kind != "cifs" {
        return Ok(());
    }
    let mut words: Vec<String> = mount.data.split(',').map(str::to_owned).collect();
    for word in &mut words {
        let Some(name) = word.strip_prefix("addr=") else { continue };
        let found = (name, 0).to_socket_addrs().map(|mut found| found.next());
        let address = match found {
            Ok(Some(address)) => address.ip(),
            Ok(None) => {
                return Err(format!(
                    "error resolving passed in network volume address: {name}: no address"
                ));
            }
            Err(error) => {
                return Err(format!("error resolving passed in network volume address: {error}"));
            }
        };
        *word = format!("addr={address}");
    }
    mount.data = words.join(",");
    Ok(())
}

/// Without the password that CIFS takes among its options.
pub(super) fn shown(data: &str) -> String {
    let words = data.split(',').map(|word| match word.split_once('=') {
        Some((key @ ("password" | "pass"), _)) => format!("{key}=********"),
        Some(_) | None => word.to_owned(),
    });
    words.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn options_are_refused_in_dockers_words() {
        let said = |pairs: &[(&str, &str)]| check(&options(pairs)).unwrap_err().to_string();
        assert_eq!(said(&[("foo", "bar")]), "invalid option: \"foo\"");
        assert_eq!(said(&[("type", "none")]), "missing required option: \"device\"");
        assert_eq!(said(&[("device", "/x")]), "missing required option: \"type\"");
        assert_eq!(said(&[("o", "size=1m")]), "missing required option: \"device\"");
        assert_eq!(said(&[("size", "1m")]), "quota size requested but no quota support");
        assert_eq!(check(&options(&[("type", "tmpfs"), ("device", "tmpfs")])), Ok(()));
        assert_eq!(check(&options(&[])), Ok(()));
    }

    #[test]
    fn words_become_flags_and_the_rest_goes_to_the_file_system() {
        let made = mount(&options(&[
            ("type", "nfs"),
            ("device", ":/x"),
            ("o", "addr=127.0.0.1,ro,rw,nosuid,rslave,vers=4"),
        ]));
        let expected = Mount {
            device: ":/x".into(),
            kind: "nfs".into(),
            flags: MsFlags::MS_NOSUID,
            propagation: MsFlags::MS_SLAVE | MsFlags::MS_REC,
            data: "addr=127.0.0.1,vers=4".into(),
        };
        assert_eq!(made, Some(expected));
        assert_eq!(mount(&options(&[])), None);
    }

    #[test]
    fn a_servers_name_becomes_its_address_and_a_password_is_not_shown() {
        let all = options(&[("type", "nfs4"), ("device", ":/"), ("o", "addr=localhost,soft")]);
        let mut made = mount(&all).unwrap();
        resolve(&mut made).unwrap();
        assert!(["addr=127.0.0.1,soft", "addr=::1,soft"].contains(&made.data.as_str()));
        assert_eq!(shown("user=a,password=b"), "user=a,password=********");
    }
}
