//! From a thread that writes to a body that is sent.

use super::pack::PackError;
use bytes::{Bytes, BytesMut};
use futures_util::Stream;
use std::io::{self, Write};
use tokio::sync::{mpsc, oneshot};
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
