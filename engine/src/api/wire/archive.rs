//! `X-Docker-Container-Path-Stat`, and the changes of `docker diff`.

use crate::service::seen::{ChangeKind, FileChange, PathStat};
use serde::Serialize;

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::api) struct Stat {
    name: String,
    size: i64,
    /// Go's `os.FileMode`.
    mode: u32,
    mtime: String,
    link_target: String,
}

impl From<&PathStat> for Stat {
    fn from(found: &PathStat) -> Self {
        let stamp = jiff::Timestamp::from_nanosecond(found.modified);
        Self {
            name: found.name.clone(),
            size: found.size,
            mode: go_mode(found.mode),
            // A time that no calendar has: Go's zero time.
            mtime: stamp.map_or_else(|_| "0001-01-01T00:00:00Z".into(), |it| it.to_string()),
            link_target: found.target.clone(),
        }
    }
}

/// `st_mode` as Go numbers it (io/fs, `FileMode`).
fn go_mode(mode: u32) -> u32 {
    let kind = match mode & 0o170_000 {
        0o040_000 => 1 << 31,
        0o120_000 => 1 << 27,
        0o060_000 => 1 << 26,
        0o020_000 => 1 << 26 | 1 << 21,
        0o010_000 => 1 << 25,
        0o140_000 => 1 << 24,
        _ => 0,
    };
    let bits = [(0o4000, 1 << 23), (0o2000, 1 << 22), (0o1000, 1 << 20)];
    let special = bits.iter().filter(|(own, _)| mode & own != 0).map(|(_, go)| go).sum::<u32>();
    kind | special | (mode & 0o777)
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(in crate::api) struct Change {
    path: String,
    kind: u8,
}

impl From<&FileChange> for Change {
    fn from(change: &FileChange) -> Self {
        let kind = match change.kind {
            ChangeKind::Modified => 0,
            ChangeKind::Added => 1,
            ChangeKind::Deleted => 2,
        };
        Self { path: change.path.to_string_lossy().into_owned(), kind }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_numbered_as_go_numbers_them() {
        // As Docker Engine said for /, /etc/passwd and a symbolic link.
        assert_eq!(go_mode(0o040_755), 2_147_484_141);
        assert_eq!(go_mode(0o100_644), 420);
        assert_eq!(go_mode(0o120_777), 134_218_239);
        assert_eq!(go_mode(0o041_777), 1 << 31 | 1 << 20 | 0o777);
        assert_eq!(go_mode(0o020_666), 1 << 26 | 1 << 21 | 0o666);
    }
}
