//! Who a process runs as: Docker's `user[:group]`, looked up in the
//! container's own /etc/passwd and /etc/group.

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use std::fs::File;
use std::io::Read;
use tritium_supervisor::protocol::Failure;

use crate::failure::{errno_of, with_message};

/// A passwd file longer than this is somebody's joke.
const LONGEST: u64 = 16 << 20;

/// What the kernel needs to know, and the home directory.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Supplementary groups.
    pub(crate) groups: Vec<u32>,
    pub(crate) home: String,
}

/// Looks `user` and the additional `groups` up in the files at `/etc` of this
/// process's root.
pub(crate) fn look_up(user: &str, groups: &[String]) -> Result<Identity, Failure> {
    resolve(user, groups, &read("/etc/passwd")?, &read("/etc/group")?)
}

/// `file`'s text; empty if there is none, as images without users are.
fn read(path: &str) -> Result<String, Failure> {
    let fail = |errno| with_message(format!("read {path}"), errno, format!("cannot read {path}"));
    // Not blocking: an image may hold a FIFO by this name.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(String::new()),
        Err(errno) => return Err(fail(errno)),
    };
    let stat = rustix::fs::fstat(&file).map_err(fail)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(fail(Errno::INVAL));
    }
    let mut bytes = Vec::new();
    file.take(LONGEST).read_to_end(&mut bytes).map_err(|error| fail(errno_of(&error)))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn resolve(user: &str, extra: &[String], passwd: &str, group: &str) -> Result<Identity, Failure> {
    let (user, main_group) = match user.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
        None => (user, None),
    };
    let wanted = if user.is_empty() { "0" } else { user };
    let entry = passwd.lines().map(Fields::of).find(|entry| entry.is(wanted));
    let uid = match (&entry, number(wanted)?) {
        (Some(entry), _) => entry.number(2).ok_or_else(|| no_user(user))?,
        (None, Some(uid)) => uid,
        (None, None) => return Err(no_user(user)),
    };
    let gid = match main_group {
        Some(wanted) => group_id(wanted, group)?,
        None => entry.as_ref().and_then(|entry| entry.number(3)).unwrap_or(0),
    };
    let mut groups = Vec::new();
    // A group that was asked for by name replaces those of the user.
    if let (Some(entry), None) = (&entry, main_group) {
        groups.extend(groups_with(entry.0[0], group));
    }
    for wanted in extra {
        groups.push(group_id(wanted, group)?);
    }
    let home = entry.map_or("", |entry| entry.0[5]);
    let home = if home.is_empty() { "/" } else { home }.to_owned();
    groups.push(gid);
    groups.sort_unstable();
    groups.dedup();
    Ok(Identity { uid, gid, groups, home })
}

/// The fields of one line; missing ones are empty.
struct Fields<'a>([&'a str; 6]);

impl<'a> Fields<'a> {
    fn of(line: &'a str) -> Self {
        let mut fields = [""; 6];
        for (to, from) in fields.iter_mut().zip(line.trim().split(':')) {
            *to = from;
        }
        Self(fields)
    }

    /// By name, or by the number that stands third in both files.
    fn is(&self, wanted: &str) -> bool {
        !self.0[0].is_empty() && (self.0[0] == wanted || self.0[2] == wanted)
    }

    fn number(&self, field: usize) -> Option<u32> {
        self.0.get(field)?.parse().ok()
    }
}

fn group_id(wanted: &str, group: &str) -> Result<u32, Failure> {
    let found = group.lines().map(Fields::of).find(|entry| entry.is(wanted));
    match (found.and_then(|entry| entry.number(2)), number(wanted)?) {
        (Some(gid), _) | (None, Some(gid)) => Ok(gid),
        (None, None) => {
            let message =
                format!("unable to find group {wanted}: no matching entries in group file");
            Err(other(format!("find group {wanted}"), message))
        }
    }
}

fn groups_with<'a>(name: &'a str, group: &'a str) -> impl Iterator<Item = u32> + 'a {
    group
        .lines()
        .map(Fields::of)
        .filter(move |entry| entry.0[3].split(',').any(|member| member == name))
        .filter_map(|entry| entry.number(2))
}

/// The number that `text` is, if it is one; Docker takes 0 to 2^31 - 1.
fn number(text: &str) -> Result<Option<u32>, Failure> {
    match text.parse::<i64>() {
        Err(_) => Ok(None),
        Ok(number) => match i32::try_from(number).ok().and_then(|n| u32::try_from(n).ok()) {
            Some(id) => Ok(Some(id)),
            None => Err(other(
                format!("find {text}"),
                "uids and gids must be in range 0-2147483647".to_owned(),
            )),
        },
    }
}

fn no_user(user: &str) -> Failure {
    let message = format!("unable to find user {user}: no matching entries in passwd file");
    other(format!("find user {user}"), message)
}

fn other(step: String, message: String) -> Failure {
    with_message(step, Errno::INVAL, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:33:web:/var/www:/bin/false\n";
    const GROUP: &str = "root:x:0:\nweb:x:33:\naudio:x:29:web,other\n";

    fn resolved(user: &str) -> Identity {
        resolve(user, &[], PASSWD, GROUP).unwrap()
    }

    #[test]
    fn a_user_has_the_groups_that_name_it() {
        let web = Identity { uid: 33, gid: 33, groups: vec![29, 33], home: "/var/www".to_owned() };
        assert_eq!(resolved("web"), web);
        assert_eq!(resolved("33"), web);
    }

    #[test]
    fn a_group_asked_for_replaces_those_of_the_user() {
        let mixed = resolved("web:audio");
        assert_eq!((mixed.uid, mixed.gid, mixed.groups), (33, 29, vec![29]));
    }

    #[test]
    fn a_number_needs_no_entry_and_a_name_does() {
        let nobody = Identity { uid: 1000, gid: 0, groups: vec![0], home: "/".to_owned() };
        assert_eq!(resolved("1000"), nobody);
        assert_eq!(resolved("").home, "/root");
        let refused = resolve("ghost", &[], PASSWD, GROUP).unwrap_err().message.unwrap();
        assert_eq!(refused, "unable to find user ghost: no matching entries in passwd file");
        let refused = resolve("0:ghost", &[], PASSWD, GROUP).unwrap_err().message.unwrap();
        assert_eq!(refused, "unable to find group ghost: no matching entries in group file");
        let refused = resolve("99999999999", &[], PASSWD, GROUP).unwrap_err().message.unwrap();
        assert_eq!(refused, "uids and gids must be in range 0-2147483647");
    }

    #[test]
    fn hostile_lines_are_no_entries() {
        let passwd = ":::\nweb\n:x:5:5::/:\nweb:x:notanumber:1:::\n";
        assert!(resolve("web", &[], passwd, "").is_err());
    }
}
