//! One operation at a time on one volume.

use super::{Entry, Key, Volume, Volumes};
use crate::ids::ContainerId;
use std::{collections::BTreeSet, sync::Arc};

/// The right to work on a volume, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    volumes: Volumes,
    key: Key,
    /// The volume is gone, and its name perhaps another's already.
    over: bool,
}

impl Volumes {
    /// Waits for a turn. None if there is no such volume (any more).
    pub(super) async fn turn(&self, key: &Key) -> Option<Turn> {
        let mut changed = self.0.changed.subscribe();
        loop {
            {
                let mut entries = self.entries();
                let entry = entries.get_mut(key)?;
                if !entry.busy {
                    entry.busy = true;
                    return Some(Turn { volumes: self.clone(), key: key.clone(), over: false });
                }
            }
            // Cannot fail: the sender lives as long as `self`.
            drop(changed.changed().await);
        }
    }

    /// Takes a name that is free. None if somebody was faster.
    pub(super) fn claim(&self, volume: &Arc<Volume>, user: Option<ContainerId>) -> Option<Turn> {
        let key = volume.key();
        let mut entries = self.entries();
        if entries.contains_key(&key) {
            return None;
        }
        let (users, mounted_for) = (user.into_iter().collect(), BTreeSet::new());
        let entry = Entry { volume: volume.clone(), users, mounted_for, busy: true };
        entries.insert(key.clone(), entry);
        Some(Turn { volumes: self.clone(), key, over: false })
    }
}

impl Turn {
    /// Looks at the volume, or changes it.
    pub(super) fn with<T>(&self, work: impl FnOnce(&mut Entry) -> T) -> T {
        let mut entries = self.volumes.entries();
        let entry = entries.get_mut(&self.key);
        work(entry.expect("only the one whose turn it is removes it"))
    }

    /// The volume is gone.
    pub(super) fn forget(mut self) {
        self.volumes.entries().remove(&self.key);
        self.over = true;
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if !self.over
            && let Some(entry) = self.volumes.entries().get_mut(&self.key)
        {
            entry.busy = false;
        }
        self.volumes.0.changed.send_replace(());
    }
}
