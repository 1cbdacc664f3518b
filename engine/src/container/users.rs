//! Who a name is in a container: by its own files.

use super::{
    Handle,
    archive::{Look, blocking},
};
use crate::{error::Error, runtime::View};
use rustix::fs::OFlags;
use std::{fs::File, io::Read};

/// Of a file of names, which is the container's, in bytes.
const LONGEST: u64 = 1 << 20;

impl Handle {
    /// Whether `user[:group]` is somebody there, as Docker asks before an exec
    /// is made. Numbers always are.
    pub(super) async fn check_user(&self, text: &str) -> Result<(), Error> {
        let (name, group) = text.split_once(':').unwrap_or((text, ""));
        let number = |text: &str| text.parse::<i64>().ok();
        if [name, group]
            .into_iter()
            .filter_map(number)
            .any(|id| i32::try_from(id).is_err() || id < 0)
        {
            return Err(Error::Invalid("uids and gids must be in range 0-2147483647".into()));
        }
        let named = |text: &str| !text.is_empty() && number(text).is_none();
        if !named(name) && !named(group) {
            return Ok(());
        }
        let look = self.look().await?;
        let (name, group) = (name.to_owned(), group.to_owned());
        blocking(move || {
            let Look { view, .. } = &look;
            if !name.is_empty() {
                user(view, &name)?;
            }
            let known = || Ok::<_, Error>(find(&read(view, "/etc/group")?, &group).is_some());
            if group.parse::<i64>().is_err() && !group.is_empty() && !known()? {
                return Err(Error::Invalid(format!(
                    "unable to find group {group}: no matching entries in group file"
                )));
            }
            Ok(())
        })
        .await
    }
}

/// The user's ids, by the container's own /etc/passwd.
pub(super) fn user(view: &View, user: &str) -> Result<(u32, u32), Error> {
    let name = user.split(':').next().unwrap_or(user);
    let passwd = read(view, "/etc/passwd")?;
    let number = |bytes: &[u8]| std::str::from_utf8(bytes).ok()?.parse::<u32>().ok();
    let ids = find(&passwd, name).and_then(|fields| {
        let [_, _, uid, gid, ..] = fields.as_slice() else { return None };
        Some((number(uid)?, number(gid)?))
    });
    ids.or_else(|| name.parse().ok().map(|uid| (uid, 0))).ok_or_else(|| {
        Error::Invalid(format!("unable to find user {name}: no matching entries in passwd file"))
    })
}

/// The file's beginning; nothing where there is none.
fn read(view: &View, path: &str) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    if let Ok(open) = view.open(path, OFlags::RDONLY | OFlags::NONBLOCK) {
        let read = File::from(open).take(LONGEST).read_to_end(&mut bytes);
        read.map_err(|error| {
            Error::internal(format!("cannot read the container's {path}"), error)
        })?;
    }
    Ok(bytes)
}

/// The line of a name, or of a number: both stand in the third field.
fn find<'a>(file: &'a [u8], name: &str) -> Option<Vec<&'a [u8]>> {
    file.split(|byte| *byte == b'\n').find_map(|line| {
        let fields: Vec<&[u8]> = line.split(|byte| *byte == b':').collect();
        let [known, _, id, ..] = fields.as_slice() else { return None };
        (known == &name.as_bytes() || id == &name.as_bytes()).then_some(fields)
    })
}
