//! `docker cp`, `export` and `diff`: a container's files, running or not.
//!
//! While somebody looks at them, the container is not started (as with
//! Docker): overlayfs must not be mounted twice over the same directories.

use super::{Handle, Output, users::user};
use crate::{
    error::{Error, chain},
    runtime::{Files, View},
    storage::{
        self, FileChange,
        archive::{
            self,
            pack::{Pack, PackError, Style},
            unpack,
        },
    },
};
use flate2::{Compression, write::GzEncoder};
use rustix::{
    fd::AsFd,
    fs::{AtFlags, FileType, OFlags, Stat},
    io::Errno,
};
use std::{
    ffi::OsStr,
    io::Write,
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio::{io::AsyncRead, sync::OwnedRwLockReadGuard};

/// Links on the way to a file; after as many the kernel gives up, too.
const LINKS: usize = 40;

/// What stands at a path, itself: links are not followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathStat {
    pub name: String,
    pub size: i64,
    /// As `st_mode` of stat(2).
    pub mode: u32,
    /// Nanoseconds since 1970.
    pub modified: i128,
    /// Where a link leads in the end, in the container.
    pub target: String,
}

/// How an archive goes into a container.
#[derive(Debug, Clone, Copy, Default)]
pub struct Extraction {
    /// A directory stays one, and what is none does not become one.
    pub keep_kinds: bool,
    /// What comes belongs to the container's user.
    pub to_user: bool,
}

/// The files, and what keeps the container from being started.
pub(super) struct Look {
    pub(super) view: View,
    _stays_down: OwnedRwLockReadGuard<()>,
}

impl Handle {
    /// What stands at `path`. `called`: how the user named the container.
    ///
    /// # Errors
    /// `NotFound` if nothing does.
    pub async fn stat_path(&self, path: &str, called: &str) -> Result<PathStat, Error> {
        let look = self.look().await?;
        let (path, called) = (path.to_owned(), called.to_owned());
        blocking(move || stat(&look, &Asked::parse(&path), &called).map(|(found, _)| found)).await
    }

    /// The same, and an archive of it; `zipped`: by gzip.
    ///
    /// # Errors
    /// `NotFound` if nothing is there.
    pub async fn archive(
        &self,
        path: &str,
        called: &str,
        zipped: bool,
    ) -> Result<(PathStat, Output), Error> {
        let look = self.look().await?;
        let asked = Asked::parse(path);
        let called = called.to_owned();
        let opened = blocking(move || {
            let (found, kind) = stat(&look, &asked, &called)?;
            // What the archive is of: the directory itself, or a name in one.
            let (directory, name) = match (kind, asked.path.rsplit_once('/')) {
                (FileType::Directory, _) | (_, None) => (asked.path.clone(), ".".to_owned()),
                (_, Some((directory, name))) => (format!("{directory}/"), name.to_owned()),
            };
            let flags = OFlags::RDONLY | OFlags::DIRECTORY;
            let open = look.view.open(&directory, flags);
            let open = open.map_err(|errno| missing(errno, &asked, &called))?;
            Ok((look, found, open, name))
        });
        let (look, found, open, name) = opened.await?;
        let shown = if found.name == "/" { String::new() } else { found.name.clone() };
        let archive = archive::stream(&self.tools().tracker, move |out| {
            let _until_done = look;
            let pack = |out: &mut dyn Write| {
                let mut pack = Pack::new(out, Style::Plain);
                pack.one(open.as_fd(), OsStr::new(&name), shown.as_bytes())?;
                pack.finish()
            };
            if !zipped {
                return pack(out);
            }
            let mut zip = GzEncoder::new(out, Compression::fast());
            pack(&mut zip)?;
            zip.finish().map(drop).map_err(PackError::Out)
        });
        self.say("archive-path");
        Ok((found, Box::pin(archive)))
    }

    /// Unpacks an archive into the directory at `path`. It goes on to its end
    /// if the caller does not wait, or to where the archive breaks off.
    ///
    /// # Errors
    /// `NotFound`; `Invalid` for what is no directory, may not be written to,
    /// or is no archive.
    pub async fn extract(
        &self,
        path: &str,
        called: &str,
        how: Extraction,
        sent: impl AsyncRead + Send + Unpin + 'static,
    ) -> Result<(), Error> {
        let look = self.look().await?;
        let snapshot = self.snapshot();
        let asked = Asked::parse(path);
        let called = called.to_owned();
        let sent = archive::ahead(&self.tools().tracker, sent);
        let work = move || -> Result<(), Error> {
            let record = &snapshot.record;
            let open = look.view.open(&asked.path, OFlags::PATH | OFlags::DIRECTORY);
            open.map_err(|errno| match errno {
                Errno::NOTDIR => Error::Invalid("extraction point is not a directory".into()),
                errno => missing(errno, &asked, &called),
            })?;
            let place = follow(&look.view, &asked.path);
            may_write(record, &place)?;
            let owner = match how.to_user && !record.config.user.is_empty() {
                true => Some(user(&look.view, &record.config.user)?),
                false => None,
            };
            let limits = unpack::Limits { bytes: u64::MAX, entries: u64::MAX };
            let extract = unpack::Extract { keep_kinds: how.keep_kinds, owner, limits };
            let failed = |error| Error::internal("cannot open the container's root", error);
            let root = look.view.root_again().map_err(failed)?;
            unpack::extract(sent, root, Path::new(&place), extract).map_err(refused)?;
            Ok(())
        };
        let failed = "cannot unpack the archive";
        let task = archive::on_a_thread(&self.tools().tracker, work);
        let task = task.map_err(|error| Error::internal(failed, error))?;
        task.await.map_err(|error| Error::internal(failed, error))??;
        self.say("extract-to-dir");
        Ok(())
    }

    /// An archive of all of it but what is mounted.
    ///
    /// # Errors
    /// The files cannot be looked at.
    pub async fn export(&self) -> Result<Output, Error> {
        let stays_down = self.views().clone().read_owned().await;
        let view = match self.running() {
            Some(running) => running.bare_view().await?,
            None => {
                let rootfs = self.tools().rootfs(&self.snapshot().record)?;
                self.tools().runtime.view(rootfs, Vec::new(), None).await?
            }
        };
        let archive = archive::stream(&self.tools().tracker, move |out| {
            let look = Look { view, _stays_down: stays_down };
            let flags = OFlags::RDONLY | OFlags::DIRECTORY;
            let top = look.view.open(".", flags).map_err(|errno| PackError::Read {
                doing: "open",
                path: "/".into(),
                source: errno.into(),
            })?;
            let mut pack = Pack::new(out, Style::Plain);
            pack.tree(top.as_fd(), b"")?;
            pack.finish()
        });
        self.say("export");
        Ok(Box::pin(archive))
    }

    /// What it has changed of its image.
    ///
    /// # Errors
    /// Its directories cannot be read.
    pub async fn changes(&self) -> Result<Vec<FileChange>, Error> {
        let record = self.snapshot().record.clone();
        let store = self.tools().store.clone();
        let failed = |error| Error::internal("cannot compare the container with its image", error);
        blocking(move || {
            let rootfs = store.rootfs(record.id, &record.layers).map_err(failed)?;
            storage::changes(&rootfs).map_err(failed)
        })
        .await
    }

    fn say(&self, action: &str) {
        self.tools().announce(&self.snapshot().record, action, &[]);
    }

    pub(super) async fn look(&self) -> Result<Look, Error> {
        let stays_down = self.views().clone().read_owned().await;
        if let Some(running) = self.running() {
            match running.view().await {
                Ok(view) => return Ok(Look { view, _stays_down: stays_down }),
                // It has just ended.
                Err(error) if self.running().is_none() => {
                    tracing::debug!(container = %self.id(), error = %chain(&error), "looks again");
                }
                Err(error) => return Err(error),
            }
        }
        let record = self.snapshot().record.clone();
        let tools = self.tools();
        let directory = tools.directory(record.id);
        let files = Files {
            hosts: directory.join("hosts"),
            hostname: directory.join("hostname"),
            resolv_conf: directory.join("resolv.conf"),
        };
        // To its end, whoever waits: what is mounted for it is unmounted.
        let (tools, rootfs) = (tools.clone(), tools.rootfs(&record)?);
        let work = async move {
            let view = match tools.seen(&record).await {
                Ok(mounts) => tools.runtime.view(rootfs, mounts, Some(files)).await,
                Err(error) => Err(error),
            };
            tools.unsee(&record).await;
            view.map(|view| Look { view, _stays_down: stays_down })
        };
        let done = self.tools().tracker.spawn(work).await;
        done.map_err(|error| Error::internal("looking at the container's files failed", error))?
    }
}

pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Error::internal("looking at the container's files failed", error))?
}

/// A path as a client wrote it, made absolute and cleaned as Go does; `/` and
/// `/.` at the end stay, for they say that a link is to be followed.
struct Asked {
    text: String,
    path: String,
}

impl Asked {
    fn parse(text: &str) -> Self {
        let clean = tritium_supervisor::inside::cleaned(text);
        let mut path = format!("/{clean}");
        if text.ends_with("/.") || text == "." {
            path.push_str(if clean.is_empty() { "." } else { "/." });
        } else if text.ends_with('/') && !clean.is_empty() {
            path.push('/');
        }
        Self { text: text.to_owned(), path }
    }

    /// Go's `filepath.Base`.
    fn name(&self) -> &str {
        let bare = self.path.trim_end_matches('/');
        bare.rsplit('/').next().filter(|name| !name.is_empty()).unwrap_or("/")
    }
}

fn missing(errno: Errno, asked: &Asked, called: &str) -> Error {
    match errno {
        Errno::NOENT => {
            Error::NotFound(format!("Could not find the file {} in container {called}", asked.text))
        }
        Errno::NOTDIR => Error::Invalid(format!("lstat {}: not a directory", asked.path)),
        errno => Error::internal(format!("cannot open {}", asked.path), errno),
    }
}

fn stat(look: &Look, asked: &Asked, called: &str) -> Result<(PathStat, FileType), Error> {
    let failed = |errno| missing(errno, asked, called);
    let open = look.view.open(&asked.path, OFlags::PATH | OFlags::NOFOLLOW).map_err(failed)?;
    let stat: Stat = rustix::fs::statat(&open, "", AtFlags::EMPTY_PATH).map_err(failed)?;
    let kind = FileType::from_raw_mode(stat.st_mode);
    let target =
        if kind == FileType::Symlink { follow(&look.view, &asked.path) } else { String::new() };
    let found = PathStat {
        name: asked.name().to_owned(),
        size: stat.st_size,
        mode: stat.st_mode,
        modified: i128::from(stat.st_mtime) * 1_000_000_000 + i128::from(stat.st_mtime_nsec),
        target,
    };
    Ok((found, kind))
}

/// Where a path leads, all links followed as far as there are any. A text to
/// show and to compare: what is opened is opened by the kernel.
fn follow(view: &View, path: &str) -> String {
    let mut done = PathBuf::from("/");
    let mut rest: Vec<String> = path.split('/').rev().map(str::to_owned).collect();
    let mut links = 0;
    while let Some(component) = rest.pop() {
        match component.as_str() {
            "" | "." => continue,
            ".." => {
                done.pop();
                continue;
            }
            name => done.push(name),
        }
        let here = done.to_string_lossy().into_owned();
        let open = view.open(&here, OFlags::PATH | OFlags::NOFOLLOW);
        let target = open.ok().and_then(|open| rustix::fs::readlinkat(open, "", Vec::new()).ok());
        let Some(target) = target.filter(|target| !target.is_empty() && links < LINKS) else {
            continue;
        };
        links += 1;
        done.pop();
        let target = target.to_string_lossy().into_owned();
        if target.starts_with('/') {
            done = PathBuf::from("/");
        }
        rest.extend(target.split('/').rev().map(str::to_owned));
    }
    done.to_string_lossy().into_owned()
}

/// Docker's rule: into a mount that is writable, or a root that is.
fn may_write(record: &Arc<super::Record>, place: &str) -> Result<(), Error> {
    let mount = record.mounts.iter().find(|it| Path::new(place).starts_with(&it.destination));
    match mount {
        Some(mount) if !mount.writable => {
            Err(Error::Invalid("mounted volume is marked read-only".into()))
        }
        None if record.host.readonly_rootfs => {
            Err(Error::Invalid("container rootfs is marked read-only".into()))
        }
        _ => Ok(()),
    }
}

/// What the client sent is what is wrong, but for a full disk.
fn refused(error: unpack::UnpackError) -> Error {
    let full = std::io::ErrorKind::StorageFull;
    if let unpack::UnpackError::Write { source, .. } = &error
        && source.kind() == full
    {
        return Error::internal("cannot unpack the archive: no space left on device", error);
    }
    Error::Invalid(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned_but_for_their_end() {
        let parsed = |text: &str| {
            let asked = Asked::parse(text);
            (asked.path.clone(), asked.name().to_owned())
        };
        let pair = |path: &str, name: &str| (path.to_owned(), name.to_owned());
        assert_eq!(parsed("/"), pair("/", "/"));
        assert_eq!(parsed("etc"), pair("/etc", "etc"));
        assert_eq!(parsed("/a/../etc//x/"), pair("/etc/x/", "x"));
        assert_eq!(parsed("/etc/."), pair("/etc/.", "."));
        assert_eq!(parsed("../../x"), pair("/x", "x"));
        assert_eq!(parsed("/."), pair("/.", "."));
    }
}
