//! The recipe of a layer that was packed here and not unpacked.
//!
//! Its digest is that of the archive which packing its directory gives, and
//! packing gives the same each time. So the archive is made once more, and its
//! recipe is written meanwhile. Of a layer that an engine without recipes has
//! unpacked, other bytes come out, in general; then there is no recipe.

use super::write::{Noted, RecipeWriter};
use crate::{
    ids::Digest,
    storage::{
        Store, StoreError,
        archive::pack::{Pack, Style},
    },
};
use rustix::{
    fd::AsFd,
    fs::{CWD, Mode, OFlags},
};
use sha2::{Digest as _, Sha256};
use std::{
    cell::RefCell,
    io::{self, BufReader, BufWriter, Read, Write},
    path::{Component, Path, PathBuf},
    rc::Rc,
};

const BUFFER: usize = 256 << 10;

impl Store {
    /// Sees to it that a layer, which must be pinned, has a recipe. Blocks.
    ///
    /// # Errors
    /// [`StoreError::NoArchive`]; the layer cannot be read.
    pub fn learn_recipe(&self, digest: Digest) -> Result<(), StoreError> {
        if self.has_archive(digest) {
            return Ok(());
        }
        let (layer, root) = self.place_of(digest)?;
        let place = self.temporary_path();
        let recipe = RecipeWriter::create(&place);
        let learned = recipe.and_then(|recipe| learn(&layer, root, recipe));
        let placed = match learned {
            Ok((found, size)) if found == digest => self.adopt_recipe(digest, &place, size),
            Ok(_) => Err(StoreError::NoArchive(digest)),
            Err(error) => Err(error),
        };
        // Gone already if all went well.
        let swept = self.trash().take(&place).map(drop);
        placed.and(swept)
    }
}

/// The digest and the size of the archive that the directory packs to.
fn learn(layer: &Path, root: bool, recipe: RecipeWriter) -> Result<(Digest, u64), StoreError> {
    let (reader, writer) = io::pipe().map_err(StoreError::io("make a pipe for", layer))?;
    std::thread::scope(|scope| {
        let packing = scope.spawn(move || pack(layer, root, writer));
        let noted = note(reader, recipe, layer);
        // What could not be packed cannot be noted either: it is the cause.
        match packing.join() {
            Ok(packed) => packed?,
            Err(_) => return Err(StoreError::Stopping),
        }
        noted
    })
}

fn pack(layer: &Path, root: bool, out: impl Write) -> Result<(), StoreError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let top = rustix::fs::openat(CWD, layer, flags, Mode::empty())
        .map_err(|errno| StoreError::io("open", layer)(errno.into()))?;
    let mut out = BufWriter::with_capacity(BUFFER, out);
    let mut pack = Pack::new(&mut out, Style::Upper);
    let packed = match root {
        true => pack.one(top.as_fd(), ".".as_ref(), b"."),
        false => pack.tree(top.as_fd(), b""),
    };
    let packed = packed.and_then(|()| pack.finish());
    packed.map_err(|error| StoreError::io("pack", layer)(io::Error::other(error)))
}

fn note(
    archive: impl Read,
    recipe: RecipeWriter,
    layer: &Path,
) -> Result<(Digest, u64), StoreError> {
    let failed = StoreError::io("read the archive of", layer);
    let recipe = Rc::new(RefCell::new(recipe));
    let hashed = Hashed { stream: archive, hash: Sha256::new() };
    let stream = BufReader::with_capacity(BUFFER, hashed);
    let mut noted = Noted { stream, recipe: Some(recipe.clone()) };
    let read = (|| {
        let mut archive = tar::Archive::new(&mut noted);
        for entry in archive.entries()? {
            let mut entry = entry?;
            if entry.header().entry_type().is_file() {
                let path = inside(&entry.path()?);
                // No entry replaces another one here: the inode is not needed.
                recipe.borrow_mut().content(&path, entry.size(), 0);
                io::copy(&mut entry, &mut io::sink())?;
            }
        }
        io::copy(&mut noted, &mut io::sink())
    })();
    read.map_err(failed)?;
    let Noted { stream, recipe: also } = noted;
    drop(also);
    let digest = Digest::of(stream.into_inner().hash.finalize().into());
    let recipe = Rc::into_inner(recipe).map(RefCell::into_inner);
    let size = recipe.map_or(Ok(0), RecipeWriter::finish)?;
    Ok((digest, size))
}

/// Without `.` and a leading slash.
fn inside(path: &Path) -> PathBuf {
    path.components().filter(|part| matches!(part, Component::Normal(_))).collect()
}

struct Hashed<R> {
    stream: R,
    hash: Sha256,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.stream.read(buffer)?;
        self.hash.update(buffer.get(..count).unwrap_or_default());
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_an_archive_are_names_in_the_layer() {
        for name in ["./a/b", "a/b", "/a/./b"] {
            assert_eq!(inside(Path::new(name)), Path::new("a/b"), "{name}");
        }
    }
}
