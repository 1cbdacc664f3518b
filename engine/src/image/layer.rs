//! From an archive that is here to a layer that is pinned.

use crate::{
    error::Error,
    ids::Digest,
    storage::{
        Pin, Store, StoreError,
        archive::unpack::{self, Limits, UnpackError},
    },
};
use std::io::{self, Read};

/// Why a layer could not be had.
#[derive(Debug, thiserror::Error)]
pub(super) enum LayerError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Unpack(#[from] UnpackError),
    #[error("the layer has the diff id {received}, and the configuration says {expected}")]
    WrongDiffId { expected: Digest, received: Digest },
}

impl From<LayerError> for Error {
    fn from(error: LayerError) -> Self {
        match error {
            LayerError::Store(error) | LayerError::Unpack(UnpackError::Recipe(error)) => {
                error.into()
            }
            LayerError::Unpack(UnpackError::Write { source, .. })
                if source.kind() == io::ErrorKind::StorageFull =>
            {
                let doing = "unpack a layer: no space left on device";
                Self::internal(doing, source)
            }
            // The archive is what is wrong: whoever sent it should read how.
            LayerError::Unpack(_) | LayerError::WrongDiffId { .. } => {
                Self::Invalid(format!("cannot use the layer: {error}"))
            }
        }
    }
}

/// Unpacks an archive (compressed or not) whose diff id must be `expected`, if
/// given. Blocks.
///
/// A layer that is here already (with its recipe) is not unpacked again, but its archive is
/// still read: naming a digest is not having the bytes, and the layer may be
/// another tenant's.
pub(super) fn obtain(
    store: &Store,
    archive: impl Read,
    expected: Option<Digest>,
    limits: Limits,
) -> Result<Pin, LayerError> {
    let there = expected.filter(|expected| store.has_archive(*expected));
    let there = there.and_then(|expected| store.pin_layer(expected));
    let (pin, received) = match there {
        Some(pin) => (pin, unpack::diff_id(archive, limits)?),
        None => {
            let mut staged = store.stage_layer()?;
            let recipe = Some(staged.recipe()?);
            let unpacked = unpack::unpack(archive, staged.path(), recipe, limits)?;
            check(expected, unpacked.diff_id)?;
            unpacked.archive.into_iter().for_each(|bytes| staged.has_recipe(bytes));
            let pin = staged.publish(unpacked.diff_id, unpacked.size, unpacked.root)?;
            (pin, unpacked.diff_id)
        }
    };
    check(expected, received)?;
    Ok(pin)
}

fn check(expected: Option<Digest>, received: Digest) -> Result<(), LayerError> {
    match expected {
        Some(expected) if expected != received => {
            Err(LayerError::WrongDiffId { expected, received })
        }
        _ => Ok(()),
    }
}
