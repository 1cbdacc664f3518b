//! Who the tenants are: their names, and the record of them.

use crate::{
    error::Error,
    ids::TenantName,
    storage::{Batch, Store, Table},
};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard},
};
use tokio::sync::watch;

/// The tenants beside the operator. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Tenants {
    store: Store,
    names: Arc<Mutex<BTreeSet<TenantName>>>,
    changed: watch::Sender<()>,
}

/// What is on disk for a tenant.
#[derive(Debug, Serialize, Deserialize)]
struct TenantRecord {
    version: u32,
    created: i64,
}

impl Tenants {
    /// Those on disk.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn open(store: Store) -> Result<Self, Error> {
        let unreadable = |error| Error::internal("cannot read the tenants", error);
        let records = store.all::<TenantRecord>(Table::Tenants).await.map_err(unreadable)?;
        let mut names = BTreeSet::new();
        for (name, _) in records {
            let name = name.parse();
            names.insert(name.map_err(|error| Error::internal("cannot read the tenants", error))?);
        }
        Ok(Self { store, names: Arc::new(Mutex::new(names)), changed: watch::Sender::new(()) })
    }

    fn names(&self) -> MutexGuard<'_, BTreeSet<TenantName>> {
        self.names.lock().expect("no panic happens under this lock")
    }

    /// All but the operator.
    #[must_use]
    pub fn list(&self) -> Vec<TenantName> {
        self.names().iter().cloned().collect()
    }

    /// Wakes whoever serves the tenants' sockets.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Adds one; on disk when this returns.
    ///
    /// # Errors
    /// `Conflict` if there is one of that name.
    pub async fn create(&self, name: &TenantName) -> Result<(), Error> {
        if name.is_operator() || !self.names().insert(name.clone()) {
            return Err(Error::Conflict(format!("tenant {name} exists already")));
        }
        let record = TenantRecord { version: 1, created: crate::events::now() };
        let batch = Batch::default().put(Table::Tenants, name.as_str(), &record);
        if let Err(error) = self.store.commit(batch).await {
            self.names().remove(name);
            return Err(Error::internal(format!("cannot record tenant {name}"), error));
        }
        self.changed.send_replace(());
        Ok(())
    }

    /// Takes one away that has no containers (the caller has checked).
    ///
    /// # Errors
    /// `NotFound`; the record cannot be removed.
    pub(super) async fn remove(&self, name: &TenantName) -> Result<(), Error> {
        if !self.names().remove(name) {
            return Err(Error::NotFound(format!("No such tenant: {name}")));
        }
        let batch = Batch::default().remove(Table::Tenants, name.as_str());
        if let Err(error) = self.store.commit(batch).await {
            self.names().insert(name.clone());
            return Err(Error::internal(format!("cannot remove tenant {name}"), error));
        }
        self.changed.send_replace(());
        Ok(())
    }
}
