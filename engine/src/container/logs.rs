//! Reads the json-file log that the supervisor writes: tail, range, follow.
//!
//! A log is `PATH`, with `PATH.1` (newer) … `PATH.N` (older) behind it when it
//! has been rotated, or `PATH.N.gz`. Every line is one JSON object; a line that cannot be read
//! (the host went down while it was written) is passed over.

use super::{LogOptions, Output};
use bytes::{BufMut, Bytes, BytesMut};
use futures_util::{StreamExt, stream};
use inotify::{EventStream, Inotify, WatchMask};
use rustix::fs::{Mode, OFlags};
use serde::Deserialize;
use std::{
    borrow::Cow,
    collections::BTreeMap,
    fs::File,
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};
use tokio::sync::{mpsc, watch};
use tokio_util::task::TaskTracker;

/// How much is handed to a client at once.
const BATCH: usize = 64 * 1024;

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow)]
    log: Cow<'a, str>,
    #[serde(borrow)]
    stream: Cow<'a, str>,
    #[serde(borrow)]
    time: Cow<'a, str>,
    #[serde(borrow, default)]
    attrs: BTreeMap<Cow<'a, str>, Cow<'a, str>>,
}

/// What one reader wants of the log, and how it wants it dressed.
#[derive(Debug, Clone)]
pub(super) struct Reader {
    pub(super) path: PathBuf,
    pub(super) options: LogOptions,
    /// No frames.
    pub(super) terminal: bool,
}

/// Starts reading. `alive` says whether more may come: a follower leaves when
/// it turns false and the file has been read to its end.
pub(super) fn read(reader: Reader, alive: watch::Receiver<bool>, tracker: &TaskTracker) -> Output {
    let (sender, receiver) = mpsc::channel::<io::Result<Bytes>>(4);
    tracker.spawn(async move {
        if let Err(error) = pump(reader, alive, &sender).await {
            // The client has gone if this fails; there is nobody to tell.
            drop(sender.send(Err(error)).await);
        }
    });
    Box::pin(stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|item| (item, receiver))
    }))
}

async fn pump(
    reader: Reader,
    mut alive: watch::Receiver<bool>,
    sender: &mpsc::Sender<io::Result<Bytes>>,
) -> io::Result<()> {
    let follow = reader.options.follow;
    // Watched before it is read, so that nothing falls between.
    let mut notices = if follow { Some(Notices::of(&reader.path)?) } else { None };
    let mut cursor = blocking(move || Cursor::open(reader)).await?;
    loop {
        // Asked before reading: what was written before the end is still read.
        let more_may_come = follow && *alive.borrow_and_update();
        loop {
            let (back, batch) = blocking(move || cursor.next_batch()).await?;
            cursor = back;
            match batch {
                Batch::End => break,
                Batch::Bytes(bytes) => {
                    if sender.send(Ok(bytes)).await.is_err() {
                        return Ok(());
                    }
                }
                Batch::PastUntil => return Ok(()),
            }
        }
        let Some(notices) = notices.as_mut().filter(|_| more_may_come) else { return Ok(()) };
        tokio::select! {
            () = sender.closed() => return Ok(()),
            changed = notices.changed() => changed?,
            // An error says that the container is gone: one last look.
            _ = alive.changed() => {}
        }
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

/// inotify(7) on the log's directory: it sees writes and rotation.
struct Notices(EventStream<[u8; 4096]>);

impl Notices {
    fn of(log: &Path) -> io::Result<Self> {
        let notices = Inotify::init()?;
        let directory = log.parent().unwrap_or(Path::new("/"));
        let what = WatchMask::MODIFY | WatchMask::CREATE | WatchMask::MOVED_TO;
        notices.watches().add(directory, what)?;
        Ok(Self(notices.into_event_stream([0; 4096])?))
    }

    async fn changed(&mut self) -> io::Result<()> {
        // What happened does not matter: the file is looked at anyway.
        self.0.next().await.transpose().map(drop)
    }
}

enum Batch {
    Bytes(Bytes),
    End,
    PastUntil,
}

/// A place in the log.
struct Cursor {
    reader: Reader,
    /// Files still to read, the next one last.
    rest: Vec<Older>,
    current: Option<BufReader<File>>,
    /// A line that its writer has not ended yet.
    partial: Vec<u8>,
}

impl Cursor {
    fn open(reader: Reader) -> io::Result<Self> {
        // Newest first, as `rest` wants it.
        let mut rest = Vec::new();
        let mut missing = reader.options.tail;
        for age in 0.. {
            let Some(mut file) = Older::open(&reader.path, age)? else { break };
            if let Some(lines) = &mut missing {
                let mut plain = file.plain(&reader.path)?;
                let at = start_of_tail(&mut plain, lines)?;
                plain.seek(SeekFrom::Start(at))?;
                file = Older::Plain(plain);
            }
            rest.push(file);
            if missing == Some(0) {
                break;
            }
        }
        let mut cursor = Self { reader, rest, current: None, partial: Vec::new() };
        cursor.next_older()?;
        Ok(cursor)
    }

    fn next_older(&mut self) -> io::Result<bool> {
        let Some(next) = self.rest.pop() else { return Ok(false) };
        self.partial.clear();
        let next = next.plain(&self.reader.path)?;
        self.current = Some(BufReader::with_capacity(BATCH, next));
        Ok(true)
    }

    fn next_batch(mut self) -> io::Result<(Self, Batch)> {
        let mut out = BytesMut::new();
        while out.len() < BATCH {
            let Some(file) = self.current.as_mut() else {
                self.current = self.reopen()?;
                if self.current.is_some() {
                    continue;
                }
                break;
            };
            let read = file.read_until(b'\n', &mut self.partial)?;
            if read > 0 && self.partial.ends_with(b"\n") {
                let past = self.take_line(&mut out);
                self.partial.clear();
                if past {
                    let batch =
                        if out.is_empty() { Batch::PastUntil } else { Batch::Bytes(out.freeze()) };
                    return Ok((self, batch));
                }
            } else if read == 0 && !self.next_file()? {
                break;
            }
        }
        let batch = if out.is_empty() { Batch::End } else { Batch::Bytes(out.freeze()) };
        Ok((self, batch))
    }

    /// At the end of a file: goes on with the next, if there is one.
    fn next_file(&mut self) -> io::Result<bool> {
        if self.next_older()? {
            return Ok(true);
        }
        let Some(current) = self.current.as_ref() else { return Ok(false) };
        let here = current.get_ref().metadata()?.ino();
        match std::fs::metadata(&self.reader.path) {
            Ok(newest) if newest.ino() != here => {
                self.partial.clear();
                self.current = self.reopen()?;
                Ok(self.current.is_some())
            }
            Ok(_) => Ok(false),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn reopen(&self) -> io::Result<Option<BufReader<File>>> {
        match File::open(&self.reader.path) {
            Ok(file) => Ok(Some(BufReader::with_capacity(BATCH, file))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Adds the line to `out` if it is wanted. True: it and all that follow
    /// are later than asked for.
    fn take_line(&self, out: &mut BytesMut) -> bool {
        let Ok(line) = serde_json::from_slice::<Line<'_>>(&self.partial) else { return false };
        let options = &self.reader.options;
        let (number, wanted) = match &*line.stream {
            "stderr" => (2, options.stderr),
            _ => (1, options.stdout),
        };
        if options.since.is_some() || options.until.is_some() {
            let Ok(time) = line.time.parse::<jiff::Timestamp>() else { return false };
            let time = time.as_nanosecond();
            if options.until.is_some_and(|until| time > i128::from(until)) {
                return true;
            }
            if options.since.is_some_and(|since| time < i128::from(since)) {
                return false;
            }
        }
        if !wanted {
            return false;
        }
        let mut prefix = String::new();
        if options.timestamps {
            prefix.push_str(&fixed_nanos(&line.time));
            prefix.push(' ');
        }
        if options.details {
            prefix.push_str(&details(&line.attrs));
            prefix.push(' ');
        }
        if !self.reader.terminal {
            let length = u32::try_from(prefix.len() + line.log.len()).unwrap_or(u32::MAX);
            out.put_u32(number << 24);
            out.put_u32(length);
        }
        out.put_slice(prefix.as_bytes());
        out.put_slice(line.log.as_bytes());
        false
    }
}

/// `key=value,…`, each escaped as in a URL.
fn details(attributes: &BTreeMap<Cow<'_, str>, Cow<'_, str>>) -> String {
    let pairs = attributes.iter().map(|(key, value)| format!("{}={}", escape(key), escape(value)));
    pairs.collect::<Vec<_>>().join(",")
}

/// Go's `url.QueryEscape`.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' ' => escaped.push('+'),
            b'-' | b'_' | b'.' | b'~' => escaped.push(char::from(byte)),
            _ if byte.is_ascii_alphanumeric() => escaped.push(char::from(byte)),
            _ => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

/// One of a log's files, its beginning not read yet.
enum Older {
    Plain(File),
    Packed(File),
}

impl Older {
    /// `PATH`, `PATH.1`, …; none where there is none.
    fn open(log: &Path, age: u32) -> io::Result<Option<Self>> {
        let ending = if age == 0 { String::new() } else { format!(".{age}") };
        let open = |ending: &str| {
            let mut name = log.to_owned().into_os_string();
            name.push(ending);
            match File::open(name) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                opened => opened.map(Some),
            }
        };
        // The one is taken away when the other is there already.
        if let Some(plain) = open(&ending)? {
            return Ok(Some(Self::Plain(plain)));
        }
        Ok(open(&format!("{ending}.gz"))?.map(Self::Packed))
    }

    /// To be read at any place: a copy that has no name, if it is compressed.
    fn plain(self, log: &Path) -> io::Result<File> {
        let packed = match self {
            Self::Plain(file) => return Ok(file),
            Self::Packed(file) => file,
        };
        let directory = log.parent().unwrap_or(Path::new("/"));
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        let mut plain = File::from(rustix::fs::open(directory, flags, Mode::RUSR)?);
        io::copy(&mut flate2::read::GzDecoder::new(BufReader::new(packed)), &mut plain)?;
        plain.rewind()?;
        Ok(plain)
    }
}

/// `2026-01-02T03:04:05.6Z` → nine digits behind the point, as Docker prints.
fn fixed_nanos(time: &str) -> String {
    let (seconds, fraction) = time
        .strip_suffix('Z')
        .and_then(|time| time.split_once('.'))
        .unwrap_or((time.trim_end_matches('Z'), ""));
    format!("{seconds}.{fraction:0<9}Z")
}

/// Where the last `lines` lines of the file begin; `lines` becomes how many
/// are still missing.
fn start_of_tail(file: &mut File, lines: &mut u64) -> io::Result<u64> {
    let end = file.metadata()?.len();
    if *lines == 0 {
        return Ok(end);
    }
    let mut at = end;
    let mut block = vec![0; 16 * 1024];
    while at > 0 {
        let size = at.min(block.len() as u64);
        at -= size;
        let part = &mut block[..usize::try_from(size).map_err(io::Error::other)?];
        file.seek(SeekFrom::Start(at))?;
        file.read_exact(part)?;
        for (offset, byte) in part.iter().enumerate().rev() {
            let next = at + offset as u64 + 1;
            // The newline at the very end closes the last line.
            if *byte == b'\n' && next != end {
                *lines -= 1;
                if *lines == 0 {
                    return Ok(next);
                }
            }
        }
    }
    // The first line has no newline before it.
    *lines -= u64::from(end > 0);
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn entry(number: u32, stream: &str) -> String {
        format!(
            "{{\"log\":\"line {number}\\n\",\"stream\":\"{stream}\",\"time\":\"2026-01-01T00:00:{number:02}.5Z\"}}\n"
        )
    }

    fn log_of(text: &str) -> (PathBuf, PathBuf) {
        let directory = std::env::temp_dir()
            .join(format!("log-{}", crate::ids::ExecId::of(crate::ids::random())));
        std::fs::create_dir(&directory).unwrap();
        let path = directory.join("x-json.log");
        File::create(&path).unwrap().write_all(text.as_bytes()).unwrap();
        (directory, path)
    }

    async fn text_of(path: &Path, options: LogOptions) -> String {
        let (_keep, alive) = watch::channel(false);
        let reader = Reader { path: path.to_owned(), options, terminal: true };
        let mut output = read(reader, alive, &TaskTracker::new());
        let mut text = Vec::new();
        while let Some(bytes) = output.next().await {
            text.extend_from_slice(&bytes.unwrap());
        }
        String::from_utf8(text).unwrap()
    }

    const BOTH: LogOptions = LogOptions {
        stdout: true,
        stderr: true,
        follow: false,
        timestamps: false,
        tail: None,
        since: None,
        until: None,
        details: false,
    };

    #[tokio::test]
    async fn tail_counts_lines_from_the_end_over_rotated_files() {
        let (directory, path) = log_of(&(entry(3, "stdout") + &entry(4, "stderr")));
        let older = directory.join("x-json.log.1");
        File::create(older)
            .unwrap()
            .write_all((entry(1, "stdout") + &entry(2, "stdout")).as_bytes())
            .unwrap();
        let tail = |tail| LogOptions { tail: Some(tail), ..BOTH };
        assert_eq!(text_of(&path, tail(0)).await, "");
        assert_eq!(text_of(&path, tail(1)).await, "line 4\n");
        assert_eq!(text_of(&path, tail(3)).await, "line 2\nline 3\nline 4\n");
        assert_eq!(text_of(&path, tail(9)).await, "line 1\nline 2\nline 3\nline 4\n");
        assert_eq!(text_of(&path, BOTH).await, "line 1\nline 2\nline 3\nline 4\n");
        std::fs::remove_dir_all(directory).unwrap();
    }

    #[tokio::test]
    async fn compressed_files_are_read_through() {
        let (directory, path) = log_of(&(entry(5, "stdout") + &entry(6, "stderr")));
        let older = |name: &str, text: String| {
            let to = File::create(directory.join(name)).unwrap();
            let mut to = flate2::write::GzEncoder::new(to, flate2::Compression::fast());
            to.write_all(text.as_bytes()).unwrap();
            to.finish().unwrap();
        };
        older("x-json.log.1.gz", entry(3, "stdout") + &entry(4, "stdout"));
        older("x-json.log.2.gz", entry(1, "stdout") + &entry(2, "stdout"));
        let tail = |tail| LogOptions { tail: Some(tail), ..BOTH };
        assert_eq!(text_of(&path, tail(3)).await, "line 4\nline 5\nline 6\n");
        let all = "line 1\nline 2\nline 3\nline 4\nline 5\nline 6\n";
        assert_eq!(text_of(&path, tail(9)).await, all);
        assert_eq!(text_of(&path, BOTH).await, all);
        assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 3);
        std::fs::remove_dir_all(directory).unwrap();
    }

    #[tokio::test]
    async fn streams_times_and_broken_lines_are_told_apart() {
        let text =
            entry(1, "stdout") + "{\"log\":\"torn\n" + &entry(2, "stderr") + &entry(3, "stdout");
        let (directory, path) = log_of(&text);
        let stderr = LogOptions { stdout: false, ..BOTH };
        assert_eq!(text_of(&path, stderr).await, "line 2\n");
        let second: jiff::Timestamp = "2026-01-01T00:00:02Z".parse().unwrap();
        let third: jiff::Timestamp = "2026-01-01T00:00:03Z".parse().unwrap();
        let nanos = |time: jiff::Timestamp| i64::try_from(time.as_nanosecond()).ok();
        let range =
            LogOptions { since: nanos(second), until: nanos(third), timestamps: true, ..BOTH };
        assert_eq!(text_of(&path, range).await, "2026-01-01T00:00:02.500000000Z line 2\n");
        std::fs::remove_dir_all(directory).unwrap();
    }

    #[tokio::test]
    async fn a_follower_sees_what_is_written_later_and_leaves_when_the_container_does() {
        let (directory, path) = log_of(&entry(1, "stdout"));
        let (life, alive) = watch::channel(true);
        let options = LogOptions { follow: true, ..BOTH };
        let reader = Reader { path: path.clone(), options, terminal: false };
        let mut output = read(reader, alive, &TaskTracker::new());
        assert_eq!(&output.next().await.unwrap().unwrap()[..], b"\x01\0\0\0\0\0\0\x07line 1\n");
        let mut file = File::options().append(true).open(&path).unwrap();
        file.write_all(entry(2, "stderr").as_bytes()).unwrap();
        assert_eq!(&output.next().await.unwrap().unwrap()[..], b"\x02\0\0\0\0\0\0\x07line 2\n");
        std::fs::rename(&path, directory.join("x-json.log.1")).unwrap();
        File::create(&path).unwrap().write_all(entry(3, "stdout").as_bytes()).unwrap();
        assert_eq!(&output.next().await.unwrap().unwrap()[..], b"\x01\0\0\0\0\0\0\x07line 3\n");
        life.send_replace(false);
        assert!(output.next().await.is_none());
        std::fs::remove_dir_all(directory).unwrap();
    }

    #[tokio::test]
    async fn a_container_that_never_ran_has_an_empty_log() {
        let path = std::env::temp_dir().join("no-such-folder").join("x-json.log");
        assert_eq!(text_of(&path, BOTH).await, "");
    }
}
