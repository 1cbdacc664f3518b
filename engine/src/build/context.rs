//! The files that come along with a build.
//!
//! A small context is kept in memory: hundreds of files that are made, read
//! once and removed again cost a disk's file system more than the whole rest of
//! a build that finds its steps in the cache. What is large, or does not fit,
//! goes to the disk.

use super::{
    Builder,
    fetch::{self, Fetched},
    files,
    ignore::Ignore,
    transfer,
};
use crate::{
    error::Error,
    storage::{Staged, archive, in_memory},
};
use rustix::{
    fd::OwnedFd,
    fs::{CWD, Mode, OFlags},
};
use std::{io::Read, path::Path, sync::Arc};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

/// Of a Dockerfile, in bytes.
const LONGEST: u64 = 4 << 20;
/// Of an archive that is kept in memory, in bytes.
const SMALL: u64 = 16 << 20;
/// So many times an archive's bytes is what its files may take in memory: each
/// file takes whole pages, and an archive may be compressed.
const ROOM: u64 = 4;
const MEGABYTE: u64 = 1 << 20;

/// The files that came along. Gone when this is dropped.
#[derive(Debug, Clone)]
pub struct Context {
    root: Arc<OwnedFd>,
    #[expect(dead_code, reason = "it is held, not looked at")]
    place: Arc<Place>,
}

/// Where they are.
#[derive(Debug)]
#[expect(dead_code, reason = "they are held, not looked at")]
enum Place {
    Disk(Staged),
    Memory(OwnedSemaphorePermit),
}

/// Memory for the contexts of all builds, in megabytes.
pub(super) fn memory() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(256))
}

impl Builder {
    /// Unpacks a context, compressed or not. Blocks.
    ///
    /// # Errors
    /// The archive is damaged, or tries something that is refused.
    pub fn context(&self, mut archive: impl Read + Send) -> Result<Context, Error> {
        let mut head = Vec::new();
        let read = archive.by_ref().take(SMALL + 1).read_to_end(&mut head);
        read.map_err(|error| Error::Invalid(format!("Error processing tar file: {error}")))?;
        if head.len() as u64 <= SMALL
            && let Some(context) = self.kept_in_memory(&head)
        {
            return Ok(context);
        }
        let staged = self.store.stage_layer()?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::openat(CWD, staged.path(), flags, Mode::empty())
            .map_err(|errno| Error::internal("cannot open the build context", errno))?;
        unpack(head.as_slice().chain(archive), &root)?;
        Ok(Context { root: Arc::new(root), place: Arc::new(Place::Disk(staged)) })
    }

    /// A context from a web server: an archive, or a lone Dockerfile, which is
    /// called `dockerfile` then. `private`: from addresses that are not public, too.
    ///
    /// # Errors
    /// It is not there, not allowed, or neither of the two.
    pub async fn remote_context(
        &self,
        url: &str,
        dockerfile: &str,
        private: bool,
    ) -> Result<Context, Error> {
        if is_git(url) {
            return Err(Error::Unsupported(
                "building from a git repository is not built yet".to_owned(),
            ));
        }
        if !fetch::is_url(url) {
            let why = format!("remoteURL ({url}) could not be recognized as URL");
            return Err(Error::Invalid(why));
        }
        // Whoever stops waiting drops this, and what has come so far.
        let fetched = fetch::fetch(&self.store, url, private, &CancellationToken::new()).await?;
        let (builder, dockerfile) = (self.clone(), dockerfile.to_owned());
        let read = self.tracker.spawn_blocking(move || builder.of_fetched(&fetched, &dockerfile));
        read.await.map_err(|error| Error::internal("cannot read the build context", error))?
    }

    fn of_fetched(&self, fetched: &Fetched, dockerfile: &str) -> Result<Context, Error> {
        if transfer::is_archive(fetched.open()?) {
            return self.context(fetched.open()?);
        }
        let bad = |error: std::io::Error| {
            Error::Invalid(format!("unable to detect type of the remote context: {error}"))
        };
        let mut text = String::new();
        fetched.open()?.take(LONGEST + 1).read_to_string(&mut text).map_err(bad)?;
        let mut archive = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o600);
        archive.append_data(&mut header, dockerfile, text.as_bytes()).map_err(bad)?;
        self.context(archive.into_inner().map_err(bad)?.as_slice())
    }

    /// None if there is no room, or whatever else is in the way: the disk has
    /// the last word, also about a damaged archive.
    fn kept_in_memory(&self, archive: &[u8]) -> Option<Context> {
        let megabytes = archive.len() as u64 * ROOM / MEGABYTE + 1;
        let permits = u32::try_from(megabytes).ok()?;
        let permit = self.memory.clone().try_acquire_many_owned(permits).ok()?;
        let root = in_memory(megabytes * MEGABYTE).ok()?;
        unpack(archive, &root).ok()?;
        Some(Context { root: Arc::new(root), place: Arc::new(Place::Memory(permit)) })
    }
}

/// As Docker tells them from other URLs.
fn is_git(url: &str) -> bool {
    let url = url.split('#').next().unwrap_or_default();
    ["git://", "git@", "github.com/"].iter().any(|start| url.starts_with(start))
        || fetch::is_url(url) && url.ends_with(".git")
}

fn unpack(archive: impl Read + Send, root: &OwnedFd) -> Result<(), Error> {
    let root = root.try_clone();
    let root = root.map_err(|error| Error::internal("cannot open the build context", error))?;
    let how = archive::unpack::Extract::default();
    let done = archive::unpack::extract(archive, root, Path::new(""), how);
    done.map(drop).map_err(|error| Error::Invalid(format!("Error processing tar file: {error}")))
}

impl Context {
    /// The directory that they are in.
    pub(super) fn root(&self) -> &OwnedFd {
        &self.root
    }

    /// The Dockerfile's text; then what `.dockerignore` hides is taken away.
    /// Blocks.
    ///
    /// # Errors
    /// There is none; it is empty, large, or not text.
    pub fn dockerfile(&self, name: &str) -> Result<String, Error> {
        let found = self.text(name)?;
        let lower = match &found {
            None if name == "Dockerfile" => self.text("dockerfile")?,
            _ => None,
        };
        let Some(text) = found.or(lower) else {
            return Err(Error::Invalid(format!("Cannot locate specified Dockerfile: {name}")));
        };
        if text.is_empty() {
            return Err(Error::Invalid(format!("the Dockerfile ({name}) cannot be empty")));
        }
        if let Some(ignore) = self.text(".dockerignore")? {
            let ignore = Ignore::parse(&ignore)
                .map_err(|why| Error::Invalid(format!("failed to read .dockerignore: {why}")))?;
            files::hide(self.root(), &ignore)?;
        }
        Ok(text)
    }

    fn text(&self, name: &str) -> Result<Option<String>, Error> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let opened = files::open(self.root(), Path::new(name.trim_start_matches('/')), flags);
        let file = match opened {
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => return Ok(None),
            opened => std::fs::File::from(opened.map_err(files::failed("open", Path::new(name)))?),
        };
        let bad = |why: String| Error::Invalid(format!("cannot read {name}: {why}"));
        let mut text = String::new();
        let read = file.take(LONGEST + 1).read_to_string(&mut text);
        read.map_err(|error| bad(error.to_string()))?;
        if text.len() as u64 > LONGEST {
            return Err(bad("it is too large".to_owned()));
        }
        Ok(Some(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{image::Images, storage::Store};
    use tokio_util::task::TaskTracker;

    fn archive(files: &[(&str, usize)]) -> Vec<u8> {
        let mut archive = tar::Builder::new(Vec::new());
        for (name, size) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(*size as u64);
            header.set_mode(0o644);
            let content = vec![b'x'; *size];
            archive.append_data(&mut header, name, content.as_slice()).unwrap();
        }
        archive.into_inner().unwrap()
    }

    #[tokio::test]
    async fn a_small_context_is_in_memory_a_large_one_on_the_disk_and_both_are_gone_after() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), TaskTracker::new()).await.unwrap();
        let images = Images::open(store.clone(), TaskTracker::new()).await.unwrap();
        let builder = Builder::open(store, images, TaskTracker::new()).await.unwrap();
        let staged = || std::fs::read_dir(dir.path().join("tmp")).unwrap().count();
        let many: Vec<String> = (0..3000).map(|number| format!("f{number}")).collect();
        let many: Vec<(&str, usize)> = many.iter().map(|name| (name.as_str(), 1)).collect();
        for (files, places) in [
            (archive(&[("Dockerfile", 5), ("dir/file", 300)]), 0),
            (archive(&many), 0),
            (archive(&[("Dockerfile", 17 << 20)]), 1),
        ] {
            let context = builder.context(files.as_slice()).unwrap();
            assert_eq!(staged(), places);
            drop(context);
            assert_eq!(staged(), 0);
            assert_eq!(builder.memory.available_permits(), 256);
        }
        let small = archive(&[("Dockerfile", 5)]);
        let full = builder.memory.clone().try_acquire_many_owned(256).unwrap();
        let context = builder.context(small.as_slice()).unwrap();
        assert_eq!((staged(), context.dockerfile("Dockerfile").unwrap().as_str()), (1, "xxxxx"));
        drop((full, context));
        // More than fits, once it is unpacked.
        let bomb = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        let mut bomb = bomb;
        std::io::Write::write_all(&mut bomb, &archive(&[("Dockerfile", 20 << 20)])).unwrap();
        let context = builder.context(bomb.finish().unwrap().as_slice()).unwrap();
        assert_eq!(staged(), 1);
        drop(context);
        assert!(builder.context(&b"no archive at all, but some text"[..]).is_err());
        assert_eq!(staged(), 0);
    }
}
