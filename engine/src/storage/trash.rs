//! What is no longer wanted: out of sight at once by a rename, removed later.

use super::StoreError;
use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
};

/// A thread that removes directory trees, one after the other. What it has not
/// removed when the engine ends, the next engine's start does.
#[derive(Debug)]
pub(super) struct Trash {
    dir: PathBuf,
    next: AtomicU64,
    full: mpsc::Sender<PathBuf>,
}

impl Trash {
    /// `dir` exists.
    pub(super) fn open(dir: PathBuf) -> Result<Self, StoreError> {
        let (full, trees) = mpsc::channel::<PathBuf>();
        std::thread::Builder::new()
            .name("trash".to_owned())
            .spawn(move || trees.iter().for_each(|tree| remove(&tree)))
            .map_err(StoreError::io("start a thread for", &dir))?;
        Ok(Self { dir, next: AtomicU64::new(0), full })
    }

    /// Takes away whatever is at `path`. True if there was something.
    pub(super) fn take(&self, path: &Path) -> Result<bool, StoreError> {
        // Names that the last engine left must not be in the way.
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let to = self.dir.join(format!("{}-{number}", std::process::id()));
        match std::fs::rename(path, &to) {
            Ok(()) => {
                self.remove(to);
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            // A directory of that name with something in it: a recycled pid.
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => self.take(path),
            Err(error) => Err(StoreError::io("move to the trash", path)(error)),
        }
    }

    /// Removes what is in the trash already.
    pub(super) fn remove(&self, tree: PathBuf) {
        // Fails if the thread has panicked; the next start sweeps.
        drop(self.full.send(tree));
    }
}

fn remove(tree: &Path) {
    let removed = match std::fs::symlink_metadata(tree) {
        Ok(found) if found.is_dir() => std::fs::remove_dir_all(tree),
        Ok(_) => std::fs::remove_file(tree),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(error = %error, path = %tree.display(), "cannot empty the trash");
        }
        _ => {}
    }
}
