//! The one task that changes what images there are: on disk, then in memory.
//!
//! Orders are carried out one after the other, each to its end whether or not
//! the one who gave it still waits.

use super::{
    Image, ImageConfig, Reference, Removal, Removed, Users,
    catalog::Catalog,
    remote::{Remote, Remotes},
    remove::{self, Plan},
};
use crate::{
    error::Error,
    events::now,
    ids::{Digest, ImageId, TenantName},
    storage::{Batch, Pin, Store, Table},
};
use serde::{Deserialize, Serialize};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard},
};
use tokio::sync::{mpsc, oneshot};
use tokio_util::task::TaskTracker;

/// What is on disk about an image of a tenant.
#[derive(Debug, Serialize, Deserialize)]
struct ImageRecord {
    /// The configuration, byte for byte.
    config: String,
    size: u64,
    #[serde(default)]
    parent: Option<ImageId>,
    #[serde(default)]
    tagged_at: i64,
}

#[derive(Debug, Serialize, Deserialize)]
struct TagRecord {
    image: ImageId,
}

/// An image whose layers are all unpacked.
#[derive(Debug)]
pub(super) struct Complete {
    pub(super) id: ImageId,
    pub(super) config: ImageConfig,
    pub(super) raw: Arc<str>,
    pub(super) size: u64,
    pub(super) parent: Option<ImageId>,
    pub(super) names: Vec<Reference>,
    /// Where its layers came from, by diff id.
    pub(super) remotes: Vec<(Digest, Remote)>,
    /// Keep its layers until they are counted on.
    pub(super) pins: Vec<Pin>,
}

enum Order {
    Register {
        tenant: TenantName,
        image: Box<Complete>,
        done: Answer<Arc<Image>>,
    },
    Tag {
        tenant: TenantName,
        name: String,
        new: Reference,
        done: Answer<Arc<Image>>,
    },
    Pushed {
        tenant: TenantName,
        image: (ImageId, Reference),
        remotes: Vec<(Digest, Remote)>,
        done: Answer<()>,
    },
    Mend {
        done: Answer<Vec<Lost>>,
    },
    Remove {
        tenant: TenantName,
        name: String,
        how: Removal,
        users: Arc<Users>,
        done: Answer<Vec<Removed>>,
    },
}

type Answer<T> = oneshot::Sender<Result<T, Error>>;
type Catalogs = Arc<Mutex<HashMap<TenantName, Catalog>>>;

/// A record that leads nowhere, since what it is about is gone.
#[derive(Debug, Clone)]
pub(super) struct Lost {
    pub(super) kind: &'static str,
    pub(super) key: String,
    pub(super) why: String,
}

type AllLost = Arc<Mutex<Vec<(Table, Lost)>>>;

/// What images there are, and where to order changes.
#[derive(Debug, Clone)]
pub(super) struct Handle {
    catalogs: Catalogs,
    lost: AllLost,
    orders: mpsc::Sender<Order>,
}

struct Ledger {
    catalogs: Catalogs,
    lost: AllLost,
    store: Store,
}

fn key(tenant: &TenantName, rest: impl std::fmt::Display) -> String {
    format!("{tenant}/{rest}")
}

fn lock(catalogs: &Catalogs) -> MutexGuard<'_, HashMap<TenantName, Catalog>> {
    catalogs.lock().expect("no panic happens under this lock")
}

impl Handle {
    /// Reads what is on disk and starts the task.
    pub(super) async fn open(store: Store, tracker: &TaskTracker) -> Result<Self, Error> {
        let catalogs = Catalogs::default();
        let lost = Arc::new(Mutex::new(load(&store, &catalogs).await?));
        let (orders, received) = mpsc::channel(64);
        let ledger = Ledger { catalogs: catalogs.clone(), lost: lost.clone(), store };
        tracker.spawn(ledger.run(received));
        Ok(Self { catalogs, lost, orders })
    }

    /// Looks at a tenant's images.
    pub(super) fn look<T>(&self, tenant: &TenantName, look: impl FnOnce(&Catalog) -> T) -> T {
        match lock(&self.catalogs).get(tenant) {
            Some(catalog) => look(catalog),
            None => look(&Catalog::default()),
        }
    }

    /// Everybody's images.
    pub(super) fn all(&self) -> Vec<(TenantName, Arc<Image>)> {
        let catalogs = lock(&self.catalogs);
        let all = catalogs.iter().flat_map(|(tenant, catalog)| {
            catalog.all().map(|image| (tenant.clone(), image.clone()))
        });
        all.collect()
    }

    /// Records that led nowhere at start.
    pub(super) fn lost(&self) -> Vec<Lost> {
        let lost = self.lost.lock().expect("no panic happens under this lock");
        lost.iter().map(|(_, lost)| lost.clone()).collect()
    }

    /// Removes them; says which those were.
    pub(super) async fn mend(&self) -> Result<Vec<Lost>, Error> {
        self.order(|done| Order::Mend { done }).await
    }

    pub(super) async fn register(
        &self,
        tenant: &TenantName,
        image: Complete,
    ) -> Result<Arc<Image>, Error> {
        let (tenant, image) = (tenant.clone(), Box::new(image));
        self.order(|done| Order::Register { tenant, image, done }).await
    }

    pub(super) async fn tag(
        &self,
        tenant: &TenantName,
        name: &str,
        new: Reference,
    ) -> Result<Arc<Image>, Error> {
        let (tenant, name) = (tenant.clone(), name.to_owned());
        self.order(|done| Order::Tag { tenant, name, new, done }).await
    }

    pub(super) async fn remove(
        &self,
        tenant: &TenantName,
        name: &str,
        how: Removal,
        users: Arc<Users>,
    ) -> Result<Vec<Removed>, Error> {
        let (tenant, name) = (tenant.clone(), name.to_owned());
        self.order(|done| Order::Remove { tenant, name, how, users, done }).await
    }

    /// An image is in a registry by that digest now, and its layers are there.
    pub(super) async fn pushed(
        &self,
        tenant: &TenantName,
        image: (ImageId, Reference),
        remotes: Vec<(Digest, Remote)>,
    ) -> Result<(), Error> {
        let tenant = tenant.clone();
        self.order(|done| Order::Pushed { tenant, image, remotes, done }).await
    }

    async fn order<T>(&self, order: impl FnOnce(Answer<T>) -> Order) -> Result<T, Error> {
        let stopping = || Error::Unavailable("the engine is stopping".to_owned());
        let (done, answer) = oneshot::channel();
        self.orders.send(order(done)).await.map_err(|_| stopping())?;
        answer.await.map_err(|_| stopping())?
    }
}

impl Ledger {
    async fn run(self, mut orders: mpsc::Receiver<Order>) {
        while let Some(order) = orders.recv().await {
            // An answer that nobody waits for is dropped.
            match order {
                Order::Register { tenant, image, done } => {
                    drop(done.send(self.register(&tenant, *image).await));
                }
                Order::Tag { tenant, name, new, done } => {
                    drop(done.send(self.tag(&tenant, &name, new).await));
                }
                Order::Pushed { tenant, image, remotes, done } => {
                    drop(done.send(self.pushed(&tenant, image, remotes).await));
                }
                Order::Mend { done } => drop(done.send(self.mend().await)),
                Order::Remove { tenant, name, how, users, done } => {
                    drop(done.send(self.remove(&tenant, &name, how, &*users).await));
                }
            }
        }
    }

    async fn register(&self, tenant: &TenantName, new: Complete) -> Result<Arc<Image>, Error> {
        let (id, at) = (new.id, now());
        let known = lock(&self.catalogs).get(tenant).is_some_and(|c| c.get(id).is_some());
        let layers = new.config.rootfs.diff_ids.clone();
        let record = ImageRecord {
            config: new.raw.to_string(),
            size: new.size,
            parent: new.parent,
            tagged_at: at,
        };
        let mut batch = Batch::default().put(Table::Images, key(tenant, id.hex()), &record);
        for name in &new.names {
            batch = batch.put(Table::Tags, key(tenant, name), &TagRecord { image: id });
        }
        let remotes = self.learned(tenant, new.remotes);
        for (layer, remotes) in &remotes {
            batch = batch.put(Table::Remotes, key(tenant, layer), remotes);
        }
        // An image that was here counts on its layers already; they may have a
        // recipe now that they had not before.
        self.store.commit_image(batch, &layers).await?;
        if known {
            self.store.release_layers(&layers);
        }
        drop(new.pins);
        let mut catalogs = lock(&self.catalogs);
        let catalog = catalogs.entry(tenant.clone()).or_default();
        catalog.add(image(id, new.config, new.raw, &record));
        for name in new.names {
            catalog.name(name, id, at);
        }
        for (layer, remotes) in remotes {
            catalog.set_remotes(layer, remotes);
        }
        catalog.get(id).cloned().ok_or_else(|| Error::NotFound(format!("No such image: {id}")))
    }

    async fn mend(&self) -> Result<Vec<Lost>, Error> {
        let lost = std::mem::take(&mut *self.lost.lock().expect("no panic under this lock"));
        let stale = |(table, lost): &&(Table, Lost)| match split_key(&lost.key) {
            // It has come back since: pulled, loaded or tagged anew.
            Some((tenant, rest)) => lock(&self.catalogs).get(&tenant).is_none_or(|catalog| {
                let image = format!("sha256:{rest}").parse::<ImageId>().ok();
                let name = rest.parse::<Reference>().ok();
                if *table == Table::Images {
                    return image.is_none_or(|image| catalog.get(image).is_none());
                }
                name.is_none_or(|name| catalog.named(&name).is_none())
            }),
            None => true,
        };
        let lost = lost.iter().filter(stale).cloned().collect::<Vec<_>>();
        let batch = lost
            .iter()
            .fold(Batch::default(), |batch, (table, lost)| batch.remove(*table, &*lost.key));
        if let Err(error) = self.store.commit(batch).await {
            self.lost.lock().expect("no panic under this lock").extend(lost);
            return Err(error.into());
        }
        Ok(lost.into_iter().map(|(_, lost)| lost).collect())
    }

    /// What has to be written of what was learned.
    fn learned(
        &self,
        tenant: &TenantName,
        news: Vec<(Digest, Remote)>,
    ) -> HashMap<Digest, Remotes> {
        let layers = news.iter().map(|(layer, _)| *layer);
        let known = lock(&self.catalogs).get(tenant).map(|catalog| catalog.remotes(layers));
        let known = known.unwrap_or_default();
        let mut changed = HashMap::<Digest, Remotes>::new();
        for (layer, remote) in news {
            let mut remotes =
                changed.get(&layer).or(known.get(&layer)).cloned().unwrap_or_default();
            if remotes.add(remote) {
                changed.insert(layer, remotes);
            }
        }
        changed
    }

    async fn pushed(
        &self,
        tenant: &TenantName,
        (id, name): (ImageId, Reference),
        news: Vec<(Digest, Remote)>,
    ) -> Result<(), Error> {
        let image = lock(&self.catalogs).get(tenant).and_then(|catalog| catalog.get(id).cloned());
        // Removed while it was pushed: nothing of it shall come back.
        let Some(image) = image else { return Ok(()) };
        let mut batch =
            Batch::default().put(Table::Tags, key(tenant, &name), &TagRecord { image: id });
        let remotes = self.learned(tenant, news);
        for (layer, remotes) in &remotes {
            batch = batch.put(Table::Remotes, key(tenant, layer), remotes);
        }
        self.store.commit(batch).await?;
        let mut catalogs = lock(&self.catalogs);
        let catalog = catalogs.entry(tenant.clone()).or_default();
        catalog.name(name, id, image.tagged_at);
        for (layer, remotes) in remotes {
            catalog.set_remotes(layer, remotes);
        }
        Ok(())
    }

    async fn tag(
        &self,
        tenant: &TenantName,
        name: &str,
        new: Reference,
    ) -> Result<Arc<Image>, Error> {
        let found = match lock(&self.catalogs).get(tenant) {
            Some(catalog) => catalog.find(name)?.clone(),
            None => Catalog::default().find(name)?.clone(),
        };
        if new.digest().is_some() {
            let text = "refusing to create a tag with a digest reference";
            return Err(Error::Invalid(text.to_owned()));
        }
        let (new, at) = (new.or_latest(), now());
        let record = ImageRecord {
            config: found.raw.to_string(),
            size: found.size,
            parent: found.parent,
            tagged_at: at,
        };
        let batch = Batch::default()
            .put(Table::Tags, key(tenant, &new), &TagRecord { image: found.id })
            .put(Table::Images, key(tenant, found.id.hex()), &record);
        self.store.commit(batch).await?;
        let mut catalogs = lock(&self.catalogs);
        let catalog = catalogs.entry(tenant.clone()).or_default();
        catalog.name(new, found.id, at);
        Ok(catalog.get(found.id).cloned().unwrap_or(found))
    }

    async fn remove(
        &self,
        tenant: &TenantName,
        name: &str,
        how: Removal,
        users: &Users,
    ) -> Result<Vec<Removed>, Error> {
        let mut catalog = lock(&self.catalogs).get(tenant).cloned().unwrap_or_default();
        let Plan { unname, forget, told } = remove::plan(catalog.clone(), name, how, users)?;
        let mut batch = Batch::default();
        for reference in &unname {
            batch = batch.remove(Table::Tags, key(tenant, reference));
        }
        for image in &forget {
            batch = batch.remove(Table::Images, key(tenant, image.id.hex()));
            catalog.forget(image.id);
        }
        let layers = forget.iter().flat_map(|image| &image.layers).copied().collect::<Vec<_>>();
        for layer in catalog.forget_remotes(&layers) {
            batch = batch.remove(Table::Remotes, key(tenant, layer));
        }
        self.store.commit(batch).await?;
        {
            let mut catalogs = lock(&self.catalogs);
            let catalog = catalogs.entry(tenant.clone()).or_default();
            unname.iter().for_each(|reference| catalog.unname(reference));
            forget.iter().for_each(|image| catalog.forget(image.id));
            catalog.forget_remotes(&layers);
        }
        forget.iter().for_each(|image| self.store.release_layers(&image.layers));
        Ok(told)
    }
}

fn image(id: ImageId, config: ImageConfig, raw: Arc<str>, record: &ImageRecord) -> Image {
    Image {
        id,
        layers: config.rootfs.diff_ids.clone(),
        config,
        raw,
        size: record.size,
        repo_tags: Vec::new(),
        repo_digests: Vec::new(),
        parent: record.parent,
        tagged_at: record.tagged_at,
    }
}

/// Fills the catalogues; tells what leads nowhere.
async fn load(store: &Store, catalogs: &Catalogs) -> Result<Vec<(Table, Lost)>, Error> {
    let images = store.all::<ImageRecord>(Table::Images).await?;
    let tags = store.all::<TagRecord>(Table::Tags).await?;
    let remotes = store.all::<Remotes>(Table::Remotes).await?;
    let mut catalogs = lock(catalogs);
    let mut lost = Vec::new();
    for (key, record) in images {
        let (tenant, id) = split::<ImageId>(&key, |rest| format!("sha256:{rest}"))?;
        let config = serde_json::from_str::<ImageConfig>(&record.config)
            .map_err(|source| Error::internal(format!("read the configuration of {id}"), source))?;
        if let Err(error) = store.hold_layers(&config.rootfs.diff_ids) {
            tracing::error!(%tenant, image = %id, %error, "an image has lost a layer, and is left out");
            lost.push((Table::Images, Lost { kind: "image", key, why: error.to_string() }));
            continue;
        }
        let image = image(id, config, record.config.as_str().into(), &record);
        catalogs.entry(tenant).or_default().add(image);
    }
    for (key, record) in tags {
        let (tenant, reference) = split::<Reference>(&key, str::to_owned)?;
        if let Some(catalog) = catalogs.get_mut(&tenant)
            && let Some(image) = catalog.get(record.image)
        {
            let at = image.tagged_at;
            catalog.name(reference, record.image, at);
        } else {
            let why = format!("there is no image {}", record.image);
            lost.push((Table::Tags, Lost { kind: "name", key, why }));
        }
    }
    for (key, remotes) in remotes {
        let (tenant, layer) = split::<Digest>(&key, str::to_owned)?;
        if let Some(catalog) = catalogs.get_mut(&tenant) {
            catalog.set_remotes(layer, remotes);
        }
    }
    Ok(lost)
}

fn split_key(key: &str) -> Option<(TenantName, &str)> {
    let (tenant, rest) = key.split_once('/')?;
    Some((tenant.parse().ok()?, rest))
}

fn split<T: std::str::FromStr>(
    key: &str,
    whole: impl FnOnce(&str) -> String,
) -> Result<(TenantName, T), Error> {
    let parsed =
        split_key(key).and_then(|(tenant, rest)| Some((tenant, whole(rest).parse().ok()?)));
    let bad = || Error::internal("read the image records", format!("{key:?} is no key"));
    parsed.ok_or_else(bad)
}
