//! Between threads that work on archives and bodies that are sent or come.

use super::pack::PackError;
use bytes::{Bytes, BytesMut};
use futures_util::Stream;
use std::io::{self, Read, Write};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    sync::{mpsc, oneshot},
};
use tokio_util::task::TaskTracker;

/// What goes from the thread to the client at once.
const CHUNK: usize = 256 << 10;
/// How many chunks may wait for a slow client.
const WAITING: usize = 4;

/// Runs `work` on a thread of its own; what it writes comes out of the stream.
/// A reader that leaves makes the next write fail; a failure of `work` is the
/// stream's last item.
pub fn stream<F>(
    tracker: &TaskTracker,
    work: F,
) -> impl Stream<Item = io::Result<Bytes>> + Send + use<F>
where
    F: FnOnce(&mut dyn Write) -> Result<(), PackError> + Send + 'static,
{
    let (sender, receiver) = mpsc::channel(WAITING);
    let told = sender.clone();
    let mut chunks = Chunks { sender, filling: BytesMut::with_capacity(CHUNK) };
    let begun = on_a_thread(tracker, move || {
        let outcome = work(&mut chunks).and_then(|()| chunks.flush().map_err(PackError::Out));
        match outcome {
            // Nobody reads any more, so nobody is to be told.
            Ok(()) | Err(PackError::Out(_)) => {}
            Err(error) => {
                tracing::warn!(error = %crate::error::chain(&error), "an archive breaks off");
                drop(chunks.sender.blocking_send(Err(io::Error::other(error))));
            }
        }
    });
    if let Err(error) = begun {
        // There is room: nothing has been sent.
        drop(told.try_send(Err(error)));
    }
    futures_util::stream::unfold(receiver, async |mut receiver| {
        let chunk = receiver.recv().await?;
        Some((chunk, receiver))
    })
}

/// What is read ahead of a thread that works on it: so the bytes are fetched
/// while those before them are unpacked. It stops when the reader is dropped.
/// The end is reached only where the source has come to its own.
pub fn ahead<R: AsyncRead + Send + Unpin + 'static>(
    tracker: &TaskTracker,
    mut source: R,
) -> impl Read + Send + use<R> {
    let (sender, receiver) = mpsc::channel(WAITING);
    tracker.spawn(async move {
        loop {
            let filled = tokio::select! {
                // Nobody wants the rest, and the source may never say more.
                () = sender.closed() => return,
                filled = fill(&mut source) => filled,
            };
            let last = filled.as_ref().map_or(true, Bytes::is_empty);
            if sender.send(filled).await.is_err() || last {
                return;
            }
        }
    });
    Ahead { receiver, now: Bytes::new(), ended: false }
}

/// Empty at the end.
async fn fill(source: &mut (impl AsyncRead + Unpin)) -> io::Result<Bytes> {
    let mut bytes = BytesMut::with_capacity(CHUNK);
    while bytes.len() < CHUNK {
        let room = CHUNK - bytes.len();
        if (&mut *source).take(room as u64).read_buf(&mut bytes).await? == 0 {
            break;
        }
    }
    Ok(bytes.freeze())
}

struct Ahead {
    receiver: mpsc::Receiver<io::Result<Bytes>>,
    now: Bytes,
    ended: bool,
}

impl Read for Ahead {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.now.is_empty() && !self.ended {
            // Without a last word, the task was taken down.
            let gone = || Err(io::ErrorKind::UnexpectedEof.into());
            self.now = self.receiver.blocking_recv().unwrap_or_else(gone)?;
            self.ended = self.now.is_empty();
        }
        let bytes = self.now.split_to(buffer.len().min(self.now.len()));
        if let Some(place) = buffer.get_mut(..bytes.len()) {
            place.copy_from_slice(&bytes);
        }
        Ok(bytes.len())
    }
}

/// Runs work whose end a client decides over on a thread of its own: who does
/// not read, or does not send, must not keep one of the threads that all
/// tenants share. The daemon waits for it when it stops.
///
/// # Errors
/// There are too many threads.
pub fn on_a_thread<T: Send + 'static>(
    tracker: &TaskTracker,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<oneshot::Receiver<T>> {
    let (done, outcome) = oneshot::channel();
    let token = tracker.token();
    let work = move || {
        let _running = token;
        // Nobody may wait any more.
        drop(done.send(work()));
    };
    std::thread::Builder::new().name("archive".to_owned()).spawn(work)?;
    Ok(outcome)
}

struct Chunks {
    sender: mpsc::Sender<io::Result<Bytes>>,
    filling: BytesMut,
}

impl Write for Chunks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = CHUNK - self.filling.len();
        let (now, _) = bytes.split_at(room.min(bytes.len()));
        self.filling.extend_from_slice(now);
        if self.filling.len() == CHUNK {
            self.flush()?;
        }
        Ok(now.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.filling.is_empty() {
            return Ok(());
        }
        let full = std::mem::replace(&mut self.filling, BytesMut::with_capacity(CHUNK));
        let sent = self.sender.blocking_send(Ok(full.freeze()));
        sent.map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test]
    async fn what_is_read_ahead_is_whole_or_an_error() {
        let tracker = TaskTracker::new();
        let bytes: Vec<u8> = (0..=250).cycle().take(3 * CHUNK + 7).collect();
        let expected = bytes.clone();
        let mut whole = ahead(&tracker, io::Cursor::new(bytes));
        let mut broken = ahead(&tracker, breaks_off());
        let read = tracker.spawn_blocking(move || {
            let (mut read, mut part) = (Vec::new(), Vec::new());
            whole.read_to_end(&mut read).unwrap();
            (read, broken.read_to_end(&mut part).map_err(|error| error.to_string()))
        });
        let (read, broken) = read.await.unwrap();
        assert!(read == expected);
        assert_eq!(broken, Err("it broke off".to_owned()));
    }

    /// Something, and then an error.
    fn breaks_off() -> impl AsyncRead + Send + Unpin {
        let parts = [Ok(Bytes::from_static(b"some")), Err(io::Error::other("it broke off"))];
        tokio_util::io::StreamReader::new(futures_util::stream::iter(parts))
    }

    #[tokio::test]
    async fn who_leaves_early_stops_the_reading_of_a_silent_source() {
        let tracker = TaskTracker::new();
        let (_silent, source) = tokio::io::duplex(1);
        drop(ahead(&tracker, source));
        tracker.close();
        tokio::time::timeout(Duration::from_secs(5), tracker.wait()).await.unwrap();
    }
}
