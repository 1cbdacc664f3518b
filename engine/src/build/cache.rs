//! What steps have made before: by their parent, what they say, and what is in
//! the files they copy.
//!
//! An entry says when its step was done and which layer it made, so that a
//! build that finds all of its steps here makes the very same image, id and
//! all. Entries are a tenant's own. They count on their layers, so the cache
//! outlives the images that were built with it, until it is pruned.
//!
//! What a build adds is used by others at once and recorded when the build
//! ends: a crash in between forgets it, which costs time and nothing else.

use crate::{
    error::Error,
    events::now,
    ids::{Digest, ImageId, TenantName},
    storage::{Batch, Pin, Store, Table},
};
use serde::{Deserialize, Serialize};
use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard},
};

/// What is on disk about one step.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Record {
    /// When it was done, as history has it.
    at: String,
    layer: Option<Digest>,
    parent: Option<ImageId>,
    /// How history shows it.
    by: String,
    made: i64,
    used: i64,
    uses: u64,
}

#[derive(Debug)]
struct Entry {
    record: Record,
    /// Until the record counts on the layer.
    pin: Option<Arc<Pin>>,
    stored: bool,
}

/// A step that was done before.
#[derive(Debug)]
pub(super) struct Hit {
    pub(super) at: String,
    pub(super) layer: Option<Arc<Pin>>,
}

/// One line of `docker system df -v`.
#[derive(Debug, Clone)]
pub struct CacheUse {
    pub id: String,
    pub description: String,
    pub layer: Option<Digest>,
    /// Bytes of its layer.
    pub size: u64,
    /// An image, a container or an entry that was used later has the layer
    /// too: those bytes are not this one's.
    pub shared: bool,
    /// A build that has not ended yet has made it.
    pub in_use: bool,
    /// Nanoseconds since 1970.
    pub made: i64,
    pub used: i64,
    pub uses: u64,
}

/// What `docker builder prune` was told to leave.
#[derive(Debug, Clone, Copy, Default)]
pub struct Prune {
    /// Also what images share.
    pub all: bool,
    /// Nanoseconds since 1970: what was used since then stays.
    pub until: Option<i64>,
    /// Bytes that may stay, most recently used first.
    pub keep: u64,
}

type Key = (TenantName, Digest);

/// A cheap handle on all tenants' entries.
#[derive(Debug, Clone)]
pub(super) struct Cache {
    store: Store,
    entries: Arc<Mutex<HashMap<Key, Entry>>>,
}

fn row(key: &Key) -> String {
    format!("{}/{}", key.0, key.1.hex())
}

impl Cache {
    /// Reads what is on disk, and counts on its layers.
    pub(super) async fn open(store: Store) -> Result<Self, Error> {
        let records = store.all::<Record>(Table::Builds).await?;
        let cache = Self { store, entries: Arc::default() };
        let mut lost = Batch::default();
        for (name, record) in records {
            let key = name.split_once('/').and_then(|(tenant, hex)| {
                Some((tenant.parse().ok()?, format!("sha256:{hex}").parse().ok()?))
            });
            let layers: Vec<Digest> = record.layer.into_iter().collect();
            match key {
                Some(key) if cache.store.hold_layers(&layers).is_ok() => {
                    cache.entries().insert(key, Entry { record, pin: None, stored: true });
                }
                _ => lost = lost.remove(Table::Builds, name),
            }
        }
        cache.store.commit(lost).await?;
        Ok(cache)
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<Key, Entry>> {
        self.entries.lock().expect("no panic happens under this lock")
    }

    pub(super) fn find(&self, tenant: &TenantName, key: Digest) -> Option<Hit> {
        let mut entries = self.entries();
        let entry = entries.get_mut(&(tenant.clone(), key))?;
        let layer = match entry.record.layer {
            Some(digest) => Some(Arc::new(self.store.pin_layer(digest)?)),
            None => None,
        };
        entry.record.used = now();
        entry.record.uses += 1;
        Some(Hit { at: entry.record.at.clone(), layer })
    }

    pub(super) fn add(
        &self,
        tenant: &TenantName,
        key: Digest,
        parent: Option<ImageId>,
        added: &super::state::Added,
    ) {
        let record = Record {
            at: added.at.clone(),
            layer: added.layer.as_ref().map(|pin| pin.digest()),
            parent,
            by: added.by.clone(),
            made: now(),
            used: now(),
            uses: 1,
        };
        let entry = Entry { record, pin: added.layer.clone(), stored: false };
        // One that was there stays counted: its layer is let go with it.
        let last = self.entries().insert((tenant.clone(), key), entry);
        if let Some(Entry { record, stored: true, .. }) = last {
            self.store.release_layers(&Vec::from_iter(record.layer));
        }
    }

    /// Records what a build has added. An entry that is pruned meanwhile is
    /// removed after it, in the order of commits.
    pub(super) async fn save(&self, tenant: &TenantName, keys: &[Digest]) -> Result<(), Error> {
        let (mut batch, mut layers, mut pins) = (Batch::default(), Vec::new(), Vec::new());
        for key in keys {
            let key = (tenant.clone(), *key);
            if let Some(entry) = self.entries().get_mut(&key).filter(|entry| !entry.stored) {
                batch = batch.put(Table::Builds, row(&key), &entry.record);
                layers.extend(entry.record.layer);
                pins.extend(entry.pin.take());
                entry.stored = true;
            }
        }
        // The pins are let go when the records count.
        let outcome = self.store.commit_image(batch, &layers).await;
        drop(pins);
        Ok(outcome?)
    }

    /// The tenant's entries, most recently used first. `held`: layers of its
    /// images and containers.
    pub(super) fn usage(&self, tenant: &TenantName, held: &HashSet<Digest>) -> Vec<CacheUse> {
        let mut uses: Vec<CacheUse> = {
            let entries = self.entries();
            let own = entries.iter().filter(|((owner, _), _)| owner == tenant);
            own.map(|((_, key), Entry { record, stored, .. })| CacheUse {
                id: key.hex(),
                description: record.by.clone(),
                layer: record.layer,
                size: record.layer.and_then(|layer| self.store.layer_size(layer)).unwrap_or(0),
                shared: false,
                in_use: !stored,
                made: record.made,
                used: record.used,
                uses: record.uses,
            })
            .collect()
        };
        uses.sort_by(|a, b| (b.used, &b.id).cmp(&(a.used, &a.id)));
        let mut seen = held.clone();
        for entry in &mut uses {
            entry.shared = entry.layer.is_some_and(|layer| !seen.insert(layer));
        }
        uses
    }

    /// Forgets entries: their ids, and the bytes of layers that neither what
    /// stays nor an image or a container (`held`) has.
    pub(super) async fn prune(
        &self,
        tenant: &TenantName,
        how: Prune,
        held: &HashSet<Digest>,
    ) -> Result<(Vec<String>, u64), Error> {
        let mut kept = 0;
        let (mut gone, mut needed) = (Vec::new(), held.clone());
        // The most recently used first: they are what may stay.
        for entry in self.usage(tenant, held) {
            let own = if entry.shared { 0 } else { entry.size };
            let stays = entry.layer.is_some_and(|layer| held.contains(&layer)) && !how.all
                || how.until.is_some_and(|until| entry.used > until)
                || kept + own <= how.keep && how.keep > 0;
            if stays {
                kept += own;
                needed.extend(entry.layer);
            } else {
                gone.push(entry);
            }
        }
        let mut batch = Batch::default();
        let mut removed = Vec::new();
        for entry in &gone {
            let Ok(key) = format!("sha256:{}", entry.id).parse::<Digest>() else { continue };
            let key = (tenant.clone(), key);
            batch = batch.remove(Table::Builds, row(&key));
            removed.extend(self.entries().remove(&key));
        }
        let committed = self.store.commit(batch).await;
        let stored = removed.iter().filter(|entry| entry.stored);
        let layers: Vec<Digest> = stored.filter_map(|entry| entry.record.layer).collect();
        self.store.release_layers(&layers);
        committed?;
        let won = gone.iter().filter(|it| it.layer.is_some_and(|layer| needed.insert(layer)));
        let reclaimed = won.map(|entry| entry.size).sum();
        Ok((gone.into_iter().map(|entry| entry.id).collect(), reclaimed))
    }
}
