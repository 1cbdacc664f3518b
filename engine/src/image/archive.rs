//! The files of a `docker save` archive, taken apart.
//!
//! `manifest.json` and `index.json` may stand at the end, so everything before
//! them is taken in by name: what looks like a layer is unpacked at once (most
//! archives have nothing else in them), the rest is put aside. The names are
//! only keys of a map; nothing here makes a path of them.

use super::{
    Limits, Progress,
    layer::{LayerError, obtain},
    load::Bar,
};
use crate::{
    error::Error,
    ids::Digest,
    storage::{Blob, Pin, Store, StoreError, archive::decompress},
};
use sha2::{Digest as _, Sha256};
use std::{
    collections::HashMap,
    io::{self, Read},
};

/// Of a manifest, an index or a configuration, in bytes.
pub(super) const DOCUMENT: u64 = 8 << 20;
/// Of the archive itself: an image has a few files per layer.
const FILES: usize = 65_536;
const BUFFER: usize = 256 << 10;

/// Bytes at the start that tell a layer from the rest.
const START: usize = 512;

/// Taken in; gone when this is dropped.
#[derive(Debug)]
pub(super) struct Files<'a> {
    store: &'a Store,
    limits: Limits,
    progress: &'a Progress,
    files: HashMap<String, Held>,
    /// Old archives have a link where two images share a layer.
    links: HashMap<String, String>,
}

/// What became of a file.
#[derive(Debug)]
enum Held {
    Aside(Blob),
    Layer(Pin),
    /// It looked like a layer, and was none: told to who wants it as one.
    Refused(Option<LayerError>),
}

impl<'a> Files<'a> {
    /// Reads an archive to its end. Blocks.
    pub(super) fn read(
        store: &'a Store,
        archive: impl Read,
        limits: Limits,
        progress: &'a Progress,
    ) -> Result<Self, Error> {
        let (links, files) = (HashMap::new(), HashMap::new());
        let mut files = Self { store, limits, progress, files, links };
        let mut left = limits.bytes;
        let mut archive = tar::Archive::new(decompress(archive).map_err(|source| bad(&source))?);
        for entry in archive.entries().map_err(|source| bad(&source))?.raw(false) {
            let mut entry = entry.map_err(|source| bad(&source))?;
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
                let size = entry.size();
                let held = files.take(&name, size, &mut entry)?;
                files.files.insert(name, held);
            }
        }
        // To its end, or the client is told of a broken connection.
        io::copy(&mut archive.into_inner(), &mut io::sink()).map_err(|source| bad(&source))?;
        Ok(files)
    }

    fn take(&self, name: &str, size: u64, mut entry: impl Read) -> Result<Held, Error> {
        let expected = digest_in(name);
        let mut start = Vec::with_capacity(START);
        (&mut entry).take(START as u64).read_to_end(&mut start).map_err(|source| bad(&source))?;
        let packed = is_packed(&start);
        let mut whole = start.as_slice().chain(entry);
        if !packed && !is_tar(&start) {
            return Ok(Held::Aside(put_aside(self.store, &mut whole, expected)?));
        }
        let id = expected.map_or_else(|| name.chars().take(12).collect(), |it| it.short());
        let bar = Bar { progress: self.progress, id, status: "Loading layer", total: size };
        let mut hashed = Hashed { stream: bar.around(whole), hash: packed.then(Sha256::new) };
        // What is not compressed has its own name for a diff id.
        let diff_id = expected.filter(|_| !packed);
        let layer = obtain(self.store, &mut hashed, diff_id, self.limits);
        io::copy(&mut hashed, &mut io::sink()).map_err(|source| bad(&source))?;
        let received = hashed.hash.map(|hash| Digest::of(hash.finalize().into()));
        if let (Some(expected), Some(received)) = (expected, received)
            && expected != received
        {
            let wrong = StoreError::WrongDigest { expected, received };
            return Err(Error::Invalid(format!("invalid archive: {wrong}")));
        }
        match layer {
            Ok(pin) => Ok(Held::Layer(pin)),
            // The disk is full: nothing else will go better.
            Err(error @ LayerError::Store(_)) => Err(error.into()),
            Err(LayerError::WrongDiffId { expected, received }) => {
                let wrong = StoreError::WrongDigest { expected, received };
                Err(Error::Invalid(format!("invalid archive: {wrong}")))
            }
            Err(error @ LayerError::Unpack(_)) => Ok(Held::Refused(Some(error))),
        }
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.files.contains_key(&self.place(name))
    }

    fn place(&self, name: &str) -> String {
        let name = normal(name);
        self.links.get(&name).cloned().unwrap_or(name)
    }

    /// The file as a layer.
    ///
    /// # Errors
    /// The archive has no such file, or it is not the layer `diff_id`.
    pub(super) fn layer(&mut self, name: &str, diff_id: Digest) -> Result<Pin, Error> {
        let place = self.place(name);
        let received = match self.files.get_mut(&place).ok_or_else(|| absent(name))? {
            Held::Layer(pin) => pin.digest(),
            // Old archives of before POSIX, or an empty one.
            Held::Aside(blob) => {
                return Ok(obtain(self.store, blob.open()?, Some(diff_id), self.limits)?);
            }
            Held::Refused(error) => {
                let again = || Error::Invalid(format!("cannot use the layer {name}"));
                return Err(error.take().map_or_else(again, Error::from));
            }
        };
        if received != diff_id {
            return Err(LayerError::WrongDiffId { expected: diff_id, received }.into());
        }
        Ok(self.store.pin_layer(diff_id).ok_or(StoreError::NoLayer(diff_id))?)
    }

    /// A small file as text.
    ///
    /// # Errors
    /// It is absent, large, or not text.
    pub(super) fn document(&self, name: &str) -> Result<String, Error> {
        let Some(Held::Aside(blob)) = self.files.get(&self.place(name)) else {
            return Err(absent(name));
        };
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

fn bad(source: &io::Error) -> Error {
    Error::Invalid(format!("cannot read the archive: {source}"))
}

fn is_packed(start: &[u8]) -> bool {
    matches!(start, [0x1f, 0x8b, ..] | [0x28, 0xb5, 0x2f, 0xfd, ..])
}

/// POSIX's and GNU's magic: no document has that where an archive has it.
fn is_tar(start: &[u8]) -> bool {
    start.len() == START && start.get(257..262) == Some(b"ustar")
}

/// Hashes what is read, if asked to.
struct Hashed<R> {
    stream: R,
    hash: Option<Sha256>,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.stream.read(buffer)?;
        if let Some(hash) = &mut self.hash {
            hash.update(buffer.get(..count).unwrap_or_default());
        }
        Ok(count)
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
