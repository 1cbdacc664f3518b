//! Which blob of which repository a layer is: what a pull has learned and a
//! push can use, so that bytes that are there are not sent again.
//!
//! A layer is known here by its diff id, in a registry by the digest of its
//! compressed bytes; one layer may have several of those.

use crate::ids::Digest;
use serde::{Deserialize, Serialize};

/// Remembered for one layer, the newest first.
const MOST: usize = 16;

/// A layer's bytes in a repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Remote {
    pub(super) digest: Digest,
    /// Of the compressed bytes.
    pub(super) size: u64,
    /// `docker.io`
    pub(super) registry: String,
    /// `library/busybox`
    pub(super) repository: String,
}

/// All that is known of one layer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Remotes(Vec<Remote>);

impl Remotes {
    /// One more, or the same again. False if nothing has changed.
    pub(super) fn add(&mut self, remote: Remote) -> bool {
        if self.0.first() == Some(&remote) {
            return false;
        }
        self.0.retain(|known| *known != remote);
        self.0.insert(0, remote);
        self.0.truncate(MOST);
        true
    }

    /// Blobs that `repository` may have: each digest once, its own first.
    pub(super) fn blobs(&self, registry: &str, repository: &str) -> Vec<Remote> {
        let here = |remote: &&Remote| remote.registry == registry;
        let own = |remote: &&Remote| remote.repository == repository;
        let (own, others) = self.0.iter().filter(here).partition::<Vec<_>, _>(own);
        let mut blobs = Vec::<Remote>::new();
        for remote in own.into_iter().chain(others) {
            if !blobs.iter().any(|blob| blob.digest == remote.digest) {
                blobs.push(remote.clone());
            }
        }
        blobs
    }

    /// From where in the registry it may be had: not from `repository` itself.
    pub(super) fn sources(&self, registry: &str, repository: &str) -> Vec<Remote> {
        let other = |r: &&Remote| r.registry == registry && r.repository != repository;
        self.0.iter().filter(other).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remote(number: u8, repository: &str) -> Remote {
        let (registry, repository) = ("r".to_owned(), repository.to_owned());
        Remote { digest: Digest::of([number; 32]), size: 1, registry, repository }
    }

    #[test]
    fn the_newest_are_remembered_and_a_repositorys_own_come_first() {
        let mut remotes = Remotes::default();
        assert!(remotes.add(remote(1, "a")));
        assert!(!remotes.add(remote(1, "a")));
        assert!(remotes.add(remote(2, "b")));
        assert!(remotes.add(remote(1, "b")));
        let digests = |list: Vec<Remote>| list.iter().map(|it| it.digest).collect::<Vec<_>>();
        let [one, two] = [1, 2].map(|number| Digest::of([number; 32]));
        assert_eq!(digests(remotes.blobs("r", "a")), [one, two]);
        assert_eq!(digests(remotes.sources("r", "b")), [one]);
        assert!(remotes.blobs("s", "a").is_empty());
        for number in 0..100 {
            remotes.add(remote(number, "c"));
        }
        assert_eq!(remotes.0.len(), MOST);
    }
}
