//! One client's connection: HTTP until a handler takes it over.
//!
//! Docker hijacks: after an attach, the same socket carries a process's raw
//! input and output, whether or not the client asked for an upgrade. So a
//! handler that wants the socket does not answer; it hands a [`Session`] to
//! the connection's task, which drops HTTP and runs it.

use axum::{Router, extract::Request};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::{
    convert::Infallible,
    io,
    os::fd::AsFd,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf},
    net::UnixStream,
    sync::oneshot,
};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

/// How long a client may take to send its headers.
const HEADERS_TIME: Duration = Duration::from_secs(60);
/// How often it is asked whether a client that has shut down its side is still
/// there at all.
const LOOK: Duration = Duration::from_millis(500);
/// How long a client may take to read an answer's head before the stream begins,
/// and how often it is asked whether it has.
const READ_TIME: Duration = Duration::from_millis(100);
const LOOK_AGAIN: Duration = Duration::from_millis(1);
/// How long answers may still take when the engine stops.
const GRACE: Duration = Duration::from_secs(1);

/// What goes on with the socket after HTTP: gets it, and what the client has
/// sent already.
pub(super) type Session = Box<dyn FnOnce(Socket, Bytes) -> BoxFuture<'static, ()> + Send>;

/// Where a handler hands its session to; among the request's extensions.
#[derive(Debug, Clone)]
pub(super) struct TakeOver(Arc<Mutex<Option<oneshot::Sender<Taken>>>>);

struct Taken(Session);

impl std::fmt::Debug for Taken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Taken")
    }
}

impl TakeOver {
    /// Ends HTTP on this connection. The handler's future is dropped soon.
    pub(super) async fn take(&self, session: Session) -> Infallible {
        let sender = self.0.lock().expect("no panic happens under this lock").take();
        if let Some(sender) = sender {
            // Fails when the connection has ended; then this future is dropped too.
            drop(sender.send(Taken(session)));
        }
        std::future::pending().await
    }
}

/// The client's socket, shared by those who read, write and watch it.
#[derive(Debug, Clone)]
pub(super) struct Socket(Arc<UnixStream>);

/// Serves one client until it leaves or the engine stops.
pub(super) async fn serve(stream: UnixStream, router: Router, stopping: CancellationToken) {
    let socket = Socket(Arc::new(stream));
    let (sender, mut taken) = oneshot::channel();
    let take_over = TakeOver(Arc::new(Mutex::new(Some(sender))));
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let (mut parts, body) = request.into_parts();
        parts.extensions.insert(take_over.clone());
        router.clone().oneshot(Request::from_parts(parts, axum::body::Body::new(body)))
    });
    let mut http = http1::Builder::new();
    // A client that has no more to say (`printf … | nc -N`) still wants its answer.
    http.half_close(true).timer(TokioTimer::new()).header_read_timeout(HEADERS_TIME);
    http.title_case_headers(true);
    let mut connection = Box::pin(http.serve_connection(TokioIo::new(socket.clone()), service));
    let session = tokio::select! {
        biased;
        Ok(Taken(session)) = &mut taken => session,
        outcome = connection.as_mut() => {
            if let Err(error) = outcome {
                tracing::debug!(error = %crate::error::chain(&error), "a connection broke");
            }
            return;
        }
        () = gone(&socket) => return,
        () = stopping.cancelled() => {
            connection.as_mut().graceful_shutdown();
            // Answers that never end (events, wait) are cut off here.
            drop(tokio::time::timeout(GRACE, connection).await);
            return;
        }
    };
    let already = Pin::into_inner(connection).into_parts().read_buf;
    tokio::select! {
        () = session(socket, already) => {}
        // The container goes on; its clients come again.
        () = stopping.cancelled() => {}
    }
}

/// Ends when the client has closed its socket, not only its writing side: the
/// answer it waited for is then nobody's.
async fn gone(socket: &Socket) {
    loop {
        match socket.0.ready(Interest::READABLE | Interest::WRITABLE).await {
            Ok(ready) if ready.is_write_closed() => return,
            Ok(_) => {}
            // The reactor has gone: the engine has stopped.
            Err(_) => return,
        }
        // Either it has shut down its side, or there is more than hyper wants
        // to read now, or there is nothing to read.
        match socket.0.ready(Interest::READABLE).await {
            Ok(ready) if ready.is_write_closed() => return,
            Ok(_) => tokio::time::sleep(LOOK).await,
            Err(_) => return,
        }
    }
}

impl Socket {
    /// No more output comes.
    pub(super) fn finish(&self) {
        // Fails when the client has gone, which is as good.
        rustix::net::shutdown(&*self.0, rustix::net::Shutdown::Write).ok();
    }

    /// Ends when the client has read all that was sent, or had long enough for it.
    pub(super) async fn read_by_the_client(&self) {
        let wait = async {
            while tritium_sys::socket::unread(self.0.as_fd()).is_ok_and(|waiting| waiting > 0) {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        };
        // Too late is no failure: a slow client only gets all at once.
        tokio::time::timeout(READ_TIME, wait).await.ok();
    }

    /// Ends when the client has closed its socket.
    pub(super) async fn gone(&self) {
        gone(self).await;
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            ready!(self.0.poll_read_ready(cx))?;
            // As it is: what is read into need not be zeroed first.
            match self.0.try_read_buf(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                outcome => return Poll::Ready(outcome.map(drop)),
            }
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.0.poll_write_ready(cx))?;
            match self.0.try_write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                outcome => return Poll::Ready(outcome),
            }
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.0.poll_write_ready(cx))?;
            match self.0.try_write_vectored(pieces) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                outcome => return Poll::Ready(outcome),
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.finish();
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::{Extension, routing::post};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio_util::task::TaskTracker;

    /// Takes the socket over and says everything twice.
    async fn twice(Extension(take_over): Extension<TakeOver>, body: String) {
        let session: Session = Box::new(move |mut socket, already| {
            Box::pin(async move {
                let mut text = already.to_vec();
                socket.read_to_end(&mut text).await.unwrap();
                let text = String::from_utf8(text).unwrap();
                socket.write_all(format!("{body}|{text}|{text}").as_bytes()).await.unwrap();
                socket.finish();
            })
        });
        match take_over.take(session).await {}
    }

    fn client(router: Router, stopping: &CancellationToken) -> (UnixStream, TaskTracker) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let tracker = TaskTracker::new();
        tracker.spawn(serve(theirs, router, stopping.clone()));
        tracker.close();
        (ours, tracker)
    }

    #[tokio::test]
    async fn what_follows_the_body_belongs_to_who_takes_the_socket_over() {
        let router = Router::new().route("/", post(twice));
        let (mut client, done) = client(router, &CancellationToken::new());
        let request = "POST / HTTP/1.1\r\nHost: d\r\nContent-Length: 4\r\n\r\nbodyraw";
        client.write_all(request.as_bytes()).await.unwrap();
        client.write_all(b" input").await.unwrap();
        client.shutdown().await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "body|raw input|raw input");
        done.wait().await;
    }

    #[tokio::test]
    async fn a_client_that_has_shut_down_its_side_still_gets_its_answer() {
        let router = Router::new().route("/", post(async |body: String| body));
        let (mut client, _done) = client(router, &CancellationToken::new());
        let request = "POST / HTTP/1.1\r\nHost: d\r\nContent-Length: 2\r\n\r\nok";
        client.write_all(request.as_bytes()).await.unwrap();
        client.shutdown().await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(answer.ends_with("ok"), "{answer}");
    }

    #[tokio::test]
    async fn an_answer_nobody_waits_for_is_dropped() {
        let (dropped, told) = oneshot::channel::<()>();
        let held = Arc::new(Mutex::new(Some(dropped)));
        let router = Router::new().route(
            "/",
            post(async move || {
                let _held = held.lock().unwrap().take();
                std::future::pending::<String>().await
            }),
        );
        let (mut client, done) = client(router, &CancellationToken::new());
        client.write_all(b"POST / HTTP/1.1\r\nHost: d\r\n\r\n").await.unwrap();
        drop(client);
        assert!(told.await.is_err(), "the handler has been dropped");
        done.wait().await;
    }

    #[tokio::test]
    async fn an_idle_client_does_not_keep_the_engine() {
        let stopping = CancellationToken::new();
        let (_client, done) = client(Router::new(), &stopping);
        stopping.cancel();
        done.wait().await;
    }
}
