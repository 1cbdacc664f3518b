//! Records.

use serde::Serialize;

/// A table of records. Keys are text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// By `ContainerId::hex`: the sweep goes by these keys.
    Containers,
    /// By `tenant/hex`.
    Images,
    /// By `tenant/reference`.
    Tags,
    Tenants,
    /// By diff id. Written by this room only.
    Layers,
    Networks,
    Volumes,
}

/// Changes that are made together or not at all.
#[derive(Debug, Default)]
pub struct Batch(());

impl Batch {
    /// Writes a record, in place of the one with that key.
    #[must_use]
    pub fn put<T: Serialize>(self, table: Table, key: impl Into<String>, record: &T) -> Self {
        let _ = (table, key.into(), record);
        self
    }

    /// Removes a record; no error if there is none.
    #[must_use]
    pub fn remove(self, table: Table, key: impl Into<String>) -> Self {
        let _ = (table, key.into());
        self
    }
}
