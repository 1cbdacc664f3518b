//! One engine per state directory.

use super::StoreError;
use rustix::fs::{FlockOperation, flock};
use std::{
    fs::{File, OpenOptions},
    io::{Read, Seek, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

/// How long a lock may outlive its holder. The children that a process was
/// making when it was killed have its descriptors until they come to `execve`.
const AFTERLIFE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(2);

/// Held for as long as one of these lives, and not a moment longer: the kernel lets go
/// of it when the process dies, however it dies.
#[derive(Debug, Clone)]
pub struct Lock(#[expect(dead_code, reason = "it is held, not looked at")] Arc<File>);

impl Lock {
    /// # Errors
    /// [`StoreError::InUse`] with the holder's pid.
    pub(super) fn take(dir: &Path) -> Result<Self, StoreError> {
        let path = dir.join("lock");
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(StoreError::io("open", &path))?;
        let deadline = Instant::now() + AFTERLIFE;
        while let Err(errno) = flock(&file, FlockOperation::NonBlockingLockExclusive) {
            if errno != rustix::io::Errno::WOULDBLOCK {
                return Err(StoreError::io("lock", &path)(errno.into()));
            }
            let mut pid = String::new();
            file.rewind()
                .and_then(|()| file.read_to_string(&mut pid))
                .map_err(StoreError::io("read", &path))?;
            let pid = pid.trim();
            // This process itself has let go of it, or will not: its children, too, may have it.
            let another = pid != std::process::id().to_string();
            let lives = another && Path::new("/proc").join(pid).exists();
            if lives || Instant::now() > deadline {
                return Err(StoreError::InUse { dir: dir.to_owned(), pid: pid.to_owned() });
            }
            thread::sleep(PAUSE);
        }
        let written = file
            .set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()));
        written.map_err(StoreError::io("write", &path))?;
        Ok(Self(Arc::new(file)))
    }
}
