//! The one task that changes what images there are: on disk, then in memory.
//!
//! Orders are carried out one after the other, each to its end whether or not
//! the one who gave it still waits.

use super::{
    Image, ImageConfig, Reference, Removal, Removed, Users,
    catalog::Catalog,
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

/// What images there are, and where to order changes.
#[derive(Debug, Clone)]
pub(super) struct Handle {
    catalogs: Catalogs,
    orders: mpsc::Sender<Order>,
}

struct Ledger {
    catalogs: Catalogs,
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
        load(&store, &catalogs).await?;
        let (orders, received) = mpsc::channel(64);
        let ledger = Ledger { catalogs: catalogs.clone(), store };
        tracker.spawn(ledger.run(received));
        Ok(Self { catalogs, orders })
    }

    /// Looks at a tenant's images.
    pub(super) fn look<T>(&self, tenant: &TenantName, look: impl FnOnce(&Catalog) -> T) -> T {
        match lock(&self.catalogs).get(tenant) {
            Some(catalog) => look(catalog),
            None => look(&Catalog::default()),
        }
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
        // An image that was here counts on its layers already.
        let fresh: &[Digest] = if known { &[] } else { &layers };
        self.store.commit_image(batch, fresh).await?;
        drop(new.pins);
        let mut catalogs = lock(&self.catalogs);
        let catalog = catalogs.entry(tenant.clone()).or_default();
        catalog.add(image(id, new.config, new.raw, &record));
        for name in new.names {
            catalog.name(name, id, at);
        }
        catalog.get(id).cloned().ok_or_else(|| Error::NotFound(format!("No such image: {id}")))
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
        let catalog = lock(&self.catalogs).get(tenant).cloned().unwrap_or_default();
        let Plan { unname, forget, told } = remove::plan(catalog, name, how, users)?;
        let mut batch = Batch::default();
        for reference in &unname {
            batch = batch.remove(Table::Tags, key(tenant, reference));
        }
        for image in &forget {
            batch = batch.remove(Table::Images, key(tenant, image.id.hex()));
        }
        self.store.commit(batch).await?;
        {
            let mut catalogs = lock(&self.catalogs);
            let catalog = catalogs.entry(tenant.clone()).or_default();
            unname.iter().for_each(|reference| catalog.unname(reference));
            forget.iter().for_each(|image| catalog.forget(image.id));
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

async fn load(store: &Store, catalogs: &Catalogs) -> Result<(), Error> {
    let images = store.all::<ImageRecord>(Table::Images).await?;
    let tags = store.all::<TagRecord>(Table::Tags).await?;
    let mut catalogs = lock(catalogs);
    for (key, record) in images {
        let (tenant, id) = split::<ImageId>(&key, |rest| format!("sha256:{rest}"))?;
        let config = serde_json::from_str::<ImageConfig>(&record.config)
            .map_err(|source| Error::internal(format!("read the configuration of {id}"), source))?;
        if let Err(error) = store.hold_layers(&config.rootfs.diff_ids) {
            tracing::error!(%tenant, image = %id, %error, "an image has lost a layer, and is left out");
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
        }
    }
    Ok(())
}

fn split<T: std::str::FromStr>(
    key: &str,
    whole: impl FnOnce(&str) -> String,
) -> Result<(TenantName, T), Error> {
    let parsed = key
        .split_once('/')
        .and_then(|(tenant, rest)| Some((tenant.parse().ok()?, whole(rest).parse().ok()?)));
    let bad = || Error::internal("read the image records", format!("{key:?} is no key"));
    parsed.ok_or_else(bad)
}
