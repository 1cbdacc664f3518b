//! `tritium fsck`: whether what is recorded of images is there and whole.
//!
//! Every layer's archive is made again and hashed, so a file that was changed
//! or lost (by hand, by a bad disk) is found. Mended is what can be without
//! losing anything: records of images whose layers are gone, and of names of
//! images that are gone. A damaged layer is told, not taken away: containers
//! may stand on it, and they may be worth more than an order.

use super::{Images, ledger::Lost};
use crate::{
    error::{Error, chain},
    ids::Digest,
    storage::{Store, StoreError},
};
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use std::io::{self, Read};

const BUFFER: usize = 256 << 10;

/// Something that is not as it should be.
#[derive(Debug, Clone, Serialize)]
pub struct Problem {
    /// `layer sha256:…`, `image team/sha256:…`.
    pub subject: String,
    pub problem: String,
    pub mended: bool,
}

/// What was looked at, and found.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Checked {
    pub layers: usize,
    pub images: usize,
    /// Of layers' archives.
    pub bytes: u64,
    pub problems: Vec<Problem>,
}

pub(super) async fn check(images: &Images, mend: bool) -> Result<Checked, Error> {
    let mut checked = Checked::default();
    for digest in images.0.store.all_layers() {
        let store = images.0.store.clone();
        // One after the other: other work goes on meanwhile.
        let found = images.blocking(move || Ok(layer(&store, digest))).await?;
        match found {
            Ok(bytes) => checked.bytes += bytes,
            // It went away meanwhile: somebody has removed its image.
            Err(Found::Gone) => continue,
            Err(Found::Bad(problem)) => {
                let subject = format!("layer {digest}");
                checked.problems.push(Problem { subject, problem, mended: false });
            }
        }
        checked.layers += 1;
    }
    for (tenant, image) in images.0.ledger.all() {
        checked.images += 1;
        if Digest::of(Sha256::digest(image.raw.as_bytes()).into()).hex() != image.id.hex() {
            checked.problems.push(Problem {
                subject: format!("image {tenant}/{}", image.id),
                problem: "its configuration is not the one that it is named for".to_owned(),
                mended: false,
            });
        }
    }
    let lost = if mend { images.0.ledger.mend().await? } else { images.0.ledger.lost() };
    for Lost { kind, key, why } in lost {
        let subject = format!("{kind} {key}");
        checked.problems.push(Problem { subject, problem: why, mended: mend });
    }
    Ok(checked)
}

enum Found {
    Gone,
    Bad(String),
}

/// Bytes of the layer's archive. Blocks.
fn layer(store: &Store, digest: Digest) -> Result<u64, Found> {
    let Some(_pin) = store.pin_layer(digest) else { return Err(Found::Gone) };
    let opened = store.learn_recipe(digest).and_then(|()| store.layer_archive(digest));
    let mut archive = match opened {
        Ok(archive) => archive,
        Err(StoreError::NoArchive(_)) => {
            let why = "an engine before version 2 has unpacked it: it can be run, not saved or \
                       pushed (remove and pull it again)";
            return Err(Found::Bad(why.to_owned()));
        }
        Err(error) => return Err(Found::Bad(chain(&error))),
    };
    let mut buffer = vec![0; BUFFER];
    let read = std::iter::repeat_with(|| archive.read(&mut buffer));
    let mut total = 0;
    for count in read {
        match count {
            Ok(0) => break,
            Ok(count) => total += count as u64,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Found::Bad(error.to_string())),
        }
    }
    Ok(total)
}
