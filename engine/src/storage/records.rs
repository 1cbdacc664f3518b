//! Records: what exists, as JSON with a version, in a table by key.
//!
//! The types belong to the rooms above; here they are text. A record is
//! written as `{"version":1,"record":{…}}`. An engine reads its own version
//! and older ones (what is new in a record is `#[serde(default)]`), and refuses
//! newer ones instead of losing what it does not know.

use super::StoreError;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::sync::Arc;

/// Grows when an older engine could no longer read what this one writes.
const VERSION: u32 = 1;

/// A table of records. Keys are text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// By `ContainerId::hex`: the sweep at start goes by these keys.
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
    /// What builds have made before, by `tenant/key`.
    Builds,
    /// By `tenant/diff id`: where layers are in registries.
    Remotes,
}

impl Table {
    pub(super) const ALL: [Self; 9] = [
        Self::Containers,
        Self::Images,
        Self::Tags,
        Self::Tenants,
        Self::Layers,
        Self::Networks,
        Self::Volumes,
        Self::Builds,
        Self::Remotes,
    ];

    /// As it is called in the file.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Containers => "containers",
            Self::Images => "images",
            Self::Tags => "tags",
            Self::Tenants => "tenants",
            Self::Layers => "layers",
            Self::Networks => "networks",
            Self::Volumes => "volumes",
            Self::Builds => "builds",
            Self::Remotes => "remotes",
        }
    }
}

#[derive(Debug, Clone)]
pub(super) struct Change {
    pub(super) table: Table,
    pub(super) key: String,
    /// None: remove it.
    pub(super) value: Option<Vec<u8>>,
}

/// Changes that are made together or not at all.
#[derive(Debug, Default)]
pub struct Batch {
    pub(super) changes: Vec<Change>,
    /// The first record that could not be written as JSON.
    pub(super) bad: Option<StoreError>,
}

#[derive(Serialize)]
struct Written<'a, T> {
    version: u32,
    record: &'a T,
}

#[derive(Deserialize)]
struct Version {
    version: u32,
}

#[derive(Deserialize)]
struct Read<T> {
    record: T,
}

impl Batch {
    /// Writes a record, in place of the one with that key. That it cannot be
    /// written as JSON is told by `Store::commit`.
    #[must_use]
    pub fn put<T: Serialize>(mut self, table: Table, key: impl Into<String>, record: &T) -> Self {
        let key = key.into();
        match serde_json::to_vec(&Written { version: VERSION, record }) {
            Ok(value) => self.changes.push(Change { table, key, value: Some(value) }),
            Err(source) => {
                let bad = StoreError::Encode { table, key, source: Arc::new(source) };
                self.bad.get_or_insert(bad);
            }
        }
        self
    }

    /// Removes a record; no error if there is none.
    #[must_use]
    pub fn remove(mut self, table: Table, key: impl Into<String>) -> Self {
        self.changes.push(Change { table, key: key.into(), value: None });
        self
    }

    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.bad.is_none()
    }
}

/// The record in those bytes.
pub(super) fn read<T: DeserializeOwned>(
    table: Table,
    key: &str,
    value: &[u8],
) -> Result<T, StoreError> {
    let bad = |source| StoreError::Decode { table, key: key.to_owned(), source: Arc::new(source) };
    let Version { version } = serde_json::from_slice(value).map_err(bad)?;
    if version > VERSION {
        return Err(StoreError::NewerRecord { table, key: key.to_owned(), found: version });
    }
    let Read { record } = serde_json::from_slice(value).map_err(bad)?;
    Ok(record)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_of_a_newer_engine_is_refused_and_not_guessed_at() {
        let value = br#"{"version":2,"record":"x"}"#;
        let refused = read::<String>(Table::Tenants, "a", value).unwrap_err();
        assert!(matches!(refused, StoreError::NewerRecord { found: 2, .. }), "{refused}");
    }

    #[test]
    fn a_record_reads_back_as_it_was_put() {
        let batch = Batch::default().put(Table::Tenants, "a", &("x", 7));
        let value = batch.changes[0].value.as_deref().unwrap();
        let record: (String, u8) = read(Table::Tenants, "a", value).unwrap();
        assert_eq!(record, ("x".to_owned(), 7));
    }
}
