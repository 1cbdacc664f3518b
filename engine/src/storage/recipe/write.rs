//! Writing a recipe while an archive goes by.

use super::{BYTES, CONTENT, END, FILE, MAGIC};
use crate::storage::StoreError;
use std::{
    cell::RefCell,
    collections::HashMap,
    fs::{File, OpenOptions},
    io::{self, BufWriter, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    rc::Rc,
};

/// Fast, and headers are mostly zeros.
const LEVEL: i32 = 1;
/// Bytes of an archive that are put into one record.
const RECORD: usize = 64 << 10;

/// Takes note of an archive's bytes as they go by.
pub struct RecipeWriter {
    dir: PathBuf,
    out: zstd::Encoder<'static, BufWriter<File>>,
    /// Seen, and not in a record yet.
    pending: Vec<u8>,
    /// Bytes of a file's content that are still to come.
    content: u64,
    total: u64,
    /// Which file of the archive each inode was made from.
    files: HashMap<u64, u32>,
    next: u32,
    /// The first failure: told at the end, as the archive is not to blame.
    failed: Option<io::Error>,
}

impl std::fmt::Debug for RecipeWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RecipeWriter").field("dir", &self.dir).finish_non_exhaustive()
    }
}

impl RecipeWriter {
    /// Makes the directory `dir` and begins the recipe in it. Blocks.
    pub(in crate::storage) fn create(dir: &Path) -> Result<Self, StoreError> {
        std::fs::DirBuilder::new()
            .mode(0o700)
            .create(dir)
            .map_err(StoreError::io("create", dir))?;
        let path = dir.join(FILE);
        let begun = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        let begun = begun.and_then(|file| {
            let mut out = zstd::Encoder::new(BufWriter::new(file), LEVEL)?;
            out.include_checksum(true)?;
            out.write_all(MAGIC)?;
            Ok(out)
        });
        Ok(Self {
            dir: dir.to_owned(),
            out: begun.map_err(StoreError::io("create", &path))?,
            pending: Vec::with_capacity(RECORD),
            content: 0,
            total: 0,
            files: HashMap::new(),
            next: 0,
            failed: None,
        })
    }

    /// The next bytes of the archive.
    pub(crate) fn saw(&mut self, bytes: &[u8]) {
        self.total += bytes.len() as u64;
        let skipped = usize::try_from(self.content).unwrap_or(usize::MAX).min(bytes.len());
        self.content -= skipped as u64;
        self.pending.extend_from_slice(bytes.get(skipped..).unwrap_or_default());
        if self.pending.len() >= RECORD {
            self.flush();
        }
    }

    /// The next `size` bytes are the content of the file at `path` (its real
    /// one: no links on the way), which has the number `inode`.
    pub(crate) fn content(&mut self, path: &Path, size: u64, inode: u64) {
        use std::os::unix::ffi::OsStrExt;
        let path = path.as_os_str().as_bytes();
        // Longer than any that the kernel takes: its bytes go into the recipe.
        let Ok(length) = u16::try_from(path.len()) else { return };
        if size == 0 {
            return;
        }
        self.flush();
        self.note(&[&[CONTENT], &size.to_le_bytes(), &length.to_le_bytes(), path]);
        self.content = size;
        self.files.insert(inode, self.next);
        self.next += 1;
    }

    /// Where a file is to be moved that another entry replaces. None if its
    /// content is not needed, or kept under another name already.
    pub(crate) fn keep(&self, inode: u64) -> Option<PathBuf> {
        let path = self.dir.join(self.files.get(&inode)?.to_string());
        (!path.exists()).then_some(path)
    }

    /// The archive has come to its end; how many bytes it had. Not durable yet.
    pub(crate) fn finish(mut self) -> Result<u64, StoreError> {
        let path = self.dir.join(FILE);
        self.flush();
        let total = self.total.to_le_bytes();
        self.note(&[&[END], &total]);
        let ended = match self.failed.take() {
            Some(failed) => Err(failed),
            None => self.out.finish().and_then(|mut file| file.flush()),
        };
        ended.map_err(StoreError::io("write", &path))?;
        Ok(self.total)
    }

    fn flush(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        let pending = std::mem::take(&mut self.pending);
        for bytes in pending.chunks(RECORD) {
            let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes();
            self.note(&[&[BYTES], &length, bytes]);
        }
        self.pending = pending;
        self.pending.clear();
    }

    fn note(&mut self, parts: &[&[u8]]) {
        if self.failed.is_none() {
            let written = parts.iter().try_for_each(|part| self.out.write_all(part));
            self.failed = written.err();
        }
    }
}

/// What one thread reads for and writes to by turns.
pub(crate) type Shared = Rc<RefCell<RecipeWriter>>;

/// Shows the recipe what is read.
pub(crate) struct Noted<R> {
    pub(crate) stream: R,
    pub(crate) recipe: Option<Shared>,
}

impl<R: Read> Read for Noted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.stream.read(buffer)?;
        if let Some(recipe) = &self.recipe {
            recipe.borrow_mut().saw(buffer.get(..count).unwrap_or_default());
        }
        Ok(count)
    }
}
