//! Between work that blocks (archives, compression, disks) and work that must
//! not (the network): bytes in a channel that holds only so many.

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, stream};
use std::io::{self, Read, Write};
use tokio::sync::mpsc;

/// Bytes in one message.
const BLOCK: usize = 128 << 10;
/// Messages under way.
const BLOCKS: usize = 6;

/// The end that blocks, written to.
#[derive(Debug)]
pub(super) struct Outflow {
    blocks: mpsc::Sender<io::Result<Bytes>>,
    pending: BytesMut,
}

/// The other end of it.
#[derive(Debug)]
pub struct Flow(mpsc::Receiver<io::Result<Bytes>>);

/// A pipe from a thread that blocks.
pub(super) fn outwards() -> (Outflow, Flow) {
    let (blocks, received) = mpsc::channel(BLOCKS);
    (Outflow { blocks, pending: BytesMut::with_capacity(BLOCK) }, Flow(received))
}

impl Flow {
    /// The bytes. An error is the last item, and means that they are not whole.
    pub fn into_stream(self) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
        stream::unfold(self.0, |mut blocks| async move { Some((blocks.recv().await?, blocks)) })
    }
}

impl Outflow {
    /// That was all of it, or it broke off: then the reader is told why.
    pub(super) fn end(mut self, outcome: io::Result<()>) {
        let outcome = outcome.and_then(|()| self.flush());
        if let Err(error) = outcome {
            // Fails where the reader has gone, and that was the error.
            drop(self.blocks.blocking_send(Err(error)));
        }
    }
}

impl Write for Outflow {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(BLOCK - self.pending.len());
        self.pending.extend_from_slice(bytes.get(..count).unwrap_or_default());
        if self.pending.len() == BLOCK {
            self.flush()?;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let block = std::mem::replace(&mut self.pending, BytesMut::with_capacity(BLOCK));
        let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        self.blocks.blocking_send(Ok(block.freeze())).map_err(gone)
    }
}

/// The end that blocks, read from. What comes out is whole only if the sender
/// said so; see [`inwards`].
#[derive(Debug)]
pub(super) struct Inflow {
    blocks: mpsc::Receiver<Option<Bytes>>,
    now: Bytes,
    whole: bool,
}

/// A pipe to a thread that blocks. The sender ends it with `None`: a sender
/// that is dropped before is a stream that broke off.
pub(super) fn inwards() -> (mpsc::Sender<Option<Bytes>>, Inflow) {
    let (sender, blocks) = mpsc::channel(BLOCKS);
    (sender, Inflow { blocks, now: Bytes::new(), whole: false })
}

impl Read for Inflow {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.now.is_empty() && !self.whole {
            match self.blocks.blocking_recv() {
                Some(Some(bytes)) => self.now = bytes,
                Some(None) => self.whole = true,
                None => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
        let bytes = self.now.split_to(buffer.len().min(self.now.len()));
        if let Some(place) = buffer.get_mut(..bytes.len()) {
            place.copy_from_slice(&bytes);
        }
        Ok(bytes.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::StreamExt;

    #[tokio::test]
    async fn what_is_written_comes_out_and_an_error_ends_it() {
        let (mut out, flow) = outwards();
        let tracker = tokio_util::task::TaskTracker::new();
        tracker.spawn_blocking(move || {
            out.write_all(&vec![7; 3 * BLOCK + 1]).unwrap();
            out.end(Err(io::Error::other("the disk is gone")));
        });
        let mut stream = std::pin::pin!(flow.into_stream());
        let mut length = 0;
        let failed = loop {
            match stream.next().await.unwrap() {
                Ok(block) => length += block.len(),
                Err(error) => break error.to_string(),
            }
        };
        assert_eq!((length, failed.as_str()), (3 * BLOCK, "the disk is gone"));
        assert!(stream.next().await.is_none());
    }

    #[tokio::test]
    async fn a_stream_that_breaks_off_is_no_whole_one() {
        let tracker = tokio_util::task::TaskTracker::new();
        for whole in [true, false] {
            let (sender, mut inflow) = inwards();
            let read = tracker.spawn_blocking(move || {
                let mut bytes = Vec::new();
                inflow.read_to_end(&mut bytes).map(|_| bytes)
            });
            sender.send(Some(Bytes::from_static(b"some"))).await.unwrap();
            if whole {
                sender.send(None).await.unwrap();
            }
            drop(sender);
            assert_eq!(read.await.unwrap().is_ok(), whole);
        }
    }
}
