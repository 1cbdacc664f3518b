//! Why the state directory could not be read or written.

use super::Table;
use crate::{error::Error, ids::Digest};
use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

/// What failed, and on what.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    #[error("the state directory {} is in use by the process {pid}", dir.display())]
    InUse { dir: PathBuf, pid: String },
    #[error("cannot {doing} {}", path.display())]
    Io {
        doing: &'static str,
        path: PathBuf,
        #[source]
        source: Arc<io::Error>,
    },
    #[error("cannot {doing} in {}", path.display())]
    Database {
        doing: &'static str,
        path: PathBuf,
        #[source]
        source: Arc<redb::Error>,
    },
    #[error(
        "there are volumes in {} but no state.redb that says whose they are: put it back, or move \
         the folder volumes away",
        dir.display()
    )]
    NoRecords { dir: PathBuf },
    #[error("{} was written by a newer engine (schema {found}, this one knows {known})", path.display())]
    NewerSchema { path: PathBuf, found: u64, known: u64 },
    #[error("cannot write the record {key} of {table:?} as JSON")]
    Encode {
        table: Table,
        key: String,
        #[source]
        source: Arc<serde_json::Error>,
    },
    #[error("cannot read the record {key} of {table:?}")]
    Decode {
        table: Table,
        key: String,
        #[source]
        source: Arc<serde_json::Error>,
    },
    #[error("the record {key} of {table:?} was written by a newer engine (version {found})")]
    NewerRecord { table: Table, key: String, found: u32 },
    #[error("there is no layer {0}")]
    NoLayer(Digest),
    #[error("an image may have {allowed} layers, this one has {found}")]
    TooManyLayers { found: usize, allowed: usize },
    #[error(
        "the archive of the layer {0} cannot be made again: it was unpacked by an older engine; \
         remove the image and pull or load it once more"
    )]
    NoArchive(Digest),
    #[error("expected {expected}, received {received}")]
    WrongDigest { expected: Digest, received: Digest },
    #[error(transparent)]
    Pack(Arc<super::archive::pack::PackError>),
    #[error("the engine is stopping")]
    Stopping,
}

impl StoreError {
    /// For `map_err`: what was being done, and to what.
    pub(crate) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Io { doing, path, source: Arc::new(source) }
    }

    /// The kernel's reason, where it is one that the operator can mend.
    #[must_use]
    pub fn kernel(&self) -> Option<&io::Error> {
        if let Self::Io { source, .. } = self {
            return Some(source);
        }
        if let Self::Database { source, .. } = self
            && let redb::Error::Io(source) = source.as_ref()
        {
            return Some(source);
        }
        None
    }
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        if let StoreError::Stopping = error {
            return Self::Unavailable(error.to_string());
        }
        if let StoreError::NoArchive(_) = error {
            return Self::Conflict(error.to_string());
        }
        // Everybody may know that the disk is full; where it is concerns only
        // the operator, who has the log.
        let doing = match error.kernel().map(io::Error::kind) {
            Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => {
                "the engine's state directory is full: no space left on device".to_owned()
            }
            Some(io::ErrorKind::ReadOnlyFilesystem) => {
                "the engine's state directory is on a read-only file system".to_owned()
            }
            _ => error.to_string(),
        };
        Self::internal(doing, error)
    }
}
