//! The files of a `docker save` archive, taken apart.
//!
//! `manifest.json` and `index.json` may stand at the end, so everything is
//! first put aside, by name. The names are only keys of a map; nothing here
//! makes a path of them.

use super::Limits;
use crate::{
    error::Error,
    ids::Digest,
    storage::{Blob, Store, StoreError, archive::decompress},
};
use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read},
};

/// Of a manifest, an index or a configuration, in bytes.
pub(super) const DOCUMENT: u64 = 8 << 20;
/// Of the archive itself: an image has a few files per layer.
const FILES: usize = 65_536;
const BUFFER: usize = 256 << 10;

/// Put aside; gone when this is dropped.
#[derive(Debug, Default)]
pub(super) struct Files {
    files: HashMap<String, Blob>,
    /// Old archives have a link where two images share a layer.
    links: HashMap<String, String>,
}

impl Files {
    /// Reads an archive to its end. Blocks.
    pub(super) fn read(
        store: &Store,
        archive: impl Read + Send,
        limits: Limits,
    ) -> Result<Self, Error> {
        let bad = |source: io::Error| Error::Invalid(format!("cannot read the archive: {source}"));
        let mut files = Self::default();
        let mut left = limits.bytes;
        let mut archive = tar::Archive::new(decompress(archive).map_err(bad)?);
        for entry in archive.entries().map_err(bad)?.raw(false) {
            let mut entry = entry.map_err(bad)?;
            if entry.size() > left || files.files.len() + files.links.len() >= FILES {
                return Err(Error::Invalid("the archive is too large".to_owned()));
            }
            left -= entry.size();
            let name = normal(&String::from_utf8_lossy(&entry.path_bytes()));
            let kind = entry.header().entry_type();
            if kind.is_symlink() || kind.is_hard_link() {
                let target = entry.link_name_bytes().unwrap_or_default();
                let target = String::from_utf8_lossy(&target).into_owned();
                let directory = name.rsplit_once('/').map_or("", |(directory, _)| directory);
                let from = if kind.is_symlink() { directory } else { "" };
                let target = normal(&format!("{from}/{target}"));
                files.links.insert(name, target);
            } else if kind.is_file() {
                let blob = put_aside(store, &mut entry, digest_in(&name))?;
                files.files.insert(name, blob);
            }
        }
        // To its end, or the client is told of a broken connection.
        io::copy(&mut archive.into_inner(), &mut io::sink()).map_err(bad)?;
        Ok(files)
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.blob(name).is_some()
    }

    fn blob(&self, name: &str) -> Option<&Blob> {
        let name = normal(name);
        let name = self.links.get(&name).unwrap_or(&name);
        self.files.get(name)
    }

    /// # Errors
    /// The archive has no such file.
    pub(super) fn open(&self, name: &str) -> Result<File, Error> {
        let blob = self.blob(name).ok_or_else(|| absent(name))?;
        Ok(blob.open()?)
    }

    /// A small file as text.
    ///
    /// # Errors
    /// It is absent, large, or not text.
    pub(super) fn document(&self, name: &str) -> Result<String, Error> {
        let blob = self.blob(name).ok_or_else(|| absent(name))?;
        if blob.size() > DOCUMENT {
            return Err(Error::Invalid(format!("{name} in the archive is too large")));
        }
        let mut text = String::new();
        blob.open()?
            .read_to_string(&mut text)
            .map_err(|source| Error::Invalid(format!("cannot read {name}: {source}")))?;
        Ok(text)
    }
}

fn absent(name: &str) -> Error {
    Error::Invalid(format!("invalid archive: it does not contain {name}"))
}

/// Copies an entry into a blob, checking the digest if its name has one.
fn put_aside(
    store: &Store,
    entry: &mut impl Read,
    expected: Option<Digest>,
) -> Result<Blob, Error> {
    let mut blob = store.write_blob()?;
    let mut buffer = vec![0; BUFFER];
    loop {
        let count = entry
            .read(&mut buffer)
            .map_err(|source| Error::Invalid(format!("cannot read the archive: {source}")))?;
        match buffer.get(..count) {
            None | Some([]) => break,
            Some(bytes) => blob.write(bytes)?,
        }
    }
    blob.finish(expected).map_err(|error| {
        if let StoreError::WrongDigest { .. } = error {
            return Error::Invalid(format!("invalid archive: {error}"));
        }
        error.into()
    })
}

fn digest_in(name: &str) -> Option<Digest> {
    format!("sha256:{}", name.strip_prefix("blobs/sha256/")?).parse().ok()
}

/// Without `.`, `..` and doubled slashes.
fn normal(name: &str) -> String {
    let mut parts = Vec::new();
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}
