//! Standard input of a container that may not run yet.
//!
//! `docker run -i` attaches before it starts; what the client sends meanwhile
//! waits in its socket.

use crate::runtime::{Running, Stdin};
use std::{
    fmt, io,
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio::{io::AsyncWrite, sync::watch};
use tokio_util::task::TaskTracker;

/// Becomes the container's standard input once that exists.
pub(super) struct LateInput {
    stage: Stage,
    /// Docker's `StdinOnce`: the first client's end-of-file is the container's.
    once: Option<Closer>,
}

enum Stage {
    Waiting(Pin<Box<dyn Future<Output = Option<Stdin>> + Send>>),
    Ready(Stdin),
    /// The container ended first, or has no standard input.
    Gone,
}

/// Tells the supervisor that no more input comes.
struct Closer {
    running: watch::Receiver<Option<Running>>,
    tracker: TaskTracker,
}

impl fmt::Debug for LateInput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LateInput").field("once", &self.once.is_some()).finish_non_exhaustive()
    }
}

impl LateInput {
    pub(super) fn new(
        running: watch::Receiver<Option<Running>>,
        once: bool,
        tracker: &TaskTracker,
    ) -> Self {
        let mut awaited = running.clone();
        let waiting = async move {
            let running = awaited.wait_for(Option::is_some).await.ok()?;
            running.as_ref()?.stdin()
        };
        let closer = once.then(|| Closer { running, tracker: tracker.clone() });
        Self { stage: Stage::Waiting(Box::pin(waiting)), once: closer }
    }

    fn poll_stdin(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<&mut Stdin>> {
        if let Stage::Waiting(waiting) = &mut self.stage {
            self.stage = match ready!(waiting.as_mut().poll(cx)) {
                Some(stdin) => Stage::Ready(stdin),
                None => Stage::Gone,
            };
        }
        match &mut self.stage {
            Stage::Ready(stdin) => Poll::Ready(Ok(stdin)),
            Stage::Waiting(_) | Stage::Gone => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    fn close(&mut self) {
        let Some(Closer { mut running, tracker }) = self.once.take() else { return };
        tracker.spawn(async move {
            // Waits for the start: `echo | docker run -i` may be done before.
            let running = running.wait_for(Option::is_some).await.ok().and_then(|it| it.clone());
            if let Some(running) = running {
                running.close_stdin().await;
            }
        });
    }
}

impl AsyncWrite for LateInput {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let stdin = ready!(self.poll_stdin(cx))?;
        Pin::new(stdin).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let stdin = ready!(self.poll_stdin(cx))?;
        Pin::new(stdin).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Our own copy first: end-of-file comes with the last one.
        self.stage = Stage::Gone;
        self.close();
        Poll::Ready(Ok(()))
    }
}

impl Drop for LateInput {
    /// A client that just goes away has no more to say either.
    fn drop(&mut self) {
        self.stage = Stage::Gone;
        self.close();
    }
}
