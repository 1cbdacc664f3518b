//! Compresses a log's rotated file, bit by bit: whenever something was written
//! to the log, a few times as much of the old file is compressed. It is done
//! long before the next file is full, without a thread or a process, and the
//! container never waits for the whole of it.

use flate2::{Compression, write::GzEncoder};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The least that is compressed at once: what is shorter is done in one go.
const STEP: u64 = 64 << 10;
/// So many times what was written to the log.
const FASTER: u64 = 4;

/// A file on its way from `PATH` to `PATH.gz`.
#[derive(Debug)]
pub(crate) struct Squeeze {
    plain: PathBuf,
    from: File,
    to: GzEncoder<File>,
}

impl Squeeze {
    /// Begins with what is at `plain`.
    ///
    /// # Errors
    ///
    /// Those of open(2).
    pub(crate) fn begin(plain: &Path) -> io::Result<Self> {
        let from = File::open(plain)?;
        let mut options = File::options();
        let to = options.write(true).create(true).truncate(true).mode(0o640).open(temp(plain))?;
        let to = GzEncoder::new(to, Compression::fast());
        Ok(Self { plain: plain.to_owned(), from, to })
    }

    /// Goes on, since so many bytes were written to the log. True: it is done,
    /// and the compressed file stands in the other's place.
    ///
    /// # Errors
    ///
    /// Those of read(2) and write(2).
    pub(crate) fn go_on(&mut self, written: u64) -> io::Result<bool> {
        let most = written.saturating_mul(FASTER).max(STEP);
        let done = io::copy(&mut (&self.from).take(most), &mut self.to)?;
        if done == most {
            return Ok(false);
        }
        self.to.try_finish()?;
        fs::rename(temp(&self.plain), packed(&self.plain))?;
        // There is no moment at which neither is there.
        fs::remove_file(&self.plain)?;
        Ok(true)
    }

    /// To the end.
    ///
    /// # Errors
    ///
    /// As [`go_on`](Self::go_on).
    pub(crate) fn finish(mut self) -> io::Result<()> {
        self.go_on(u64::MAX).map(drop)
    }
}

/// What was begun and never came to its end: the file itself is still there.
pub(crate) fn abandon(plain: &Path) -> io::Result<()> {
    if_there(fs::remove_file(temp(plain)))
}

/// One generation older: compressed or not, and nothing of what was there.
pub(crate) fn age(from: &Path, to: &Path) -> io::Result<()> {
    for (from, to) in [(from.to_owned(), to.to_owned()), (packed(from), packed(to))] {
        match fs::rename(&from, &to) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if_there(fs::remove_file(&to))?;
            }
            other => other?,
        }
    }
    Ok(())
}

fn packed(plain: &Path) -> PathBuf {
    with(plain, ".gz")
}

fn temp(plain: &Path) -> PathBuf {
    with(plain, ".gz.tmp")
}

fn with(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

fn if_there(outcome: io::Result<()>) -> io::Result<()> {
    match outcome {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
