//! Hijacked connections: a process's raw input and output on the client's socket.

use super::{
    connection::{Session, Socket, TakeOver},
    detach::{DetachKeys, Escape},
    error,
    version::{self, Version},
};
use crate::{
    error::Error,
    service::seen::{Attachment, Input, Output},
};
use axum::{body::Body, response::Response};
use bytes::{BufMut, Bytes, BytesMut};
use futures_util::StreamExt;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header, request::Parts};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// How much is moved at once.
const CHUNK: usize = 128 * 1024;
const RAW: &str = "application/vnd.docker.raw-stream";
const FRAMED: &str = "application/vnd.docker.multiplexed-stream";

/// How the client wants its connection to be taken over.
#[derive(Debug)]
pub(super) struct Hijack {
    take_over: Option<TakeOver>,
    upgrade: bool,
    version: Version,
}

impl Hijack {
    pub(super) fn of(parts: &Parts) -> Self {
        let version = parts.extensions.get().copied().unwrap_or(version::NEWEST);
        let upgrade = parts.headers.contains_key(header::UPGRADE) && parts.method == Method::POST;
        Self { take_over: parts.extensions.get().cloned(), upgrade, version }
    }

    /// The first lines of the answer, as Docker writes them.
    fn head(&self, terminal: bool) -> String {
        let mut head = if self.upgrade {
            let kind = content_type(self.version, terminal);
            format!(
                "HTTP/1.1 101 UPGRADED\r\nContent-Type: {kind}\r\nConnection: Upgrade\r\nUpgrade: \
                 tcp\r\n"
            )
        } else {
            format!("HTTP/1.1 200 OK\r\nContent-Type: {RAW}\r\n")
        };
        for (name, value) in version::headers() {
            let value = String::from_utf8_lossy(value.as_bytes());
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        head
    }

    /// Takes the connection over and copies until the output ends. Returns
    /// only when that cannot be.
    pub(super) async fn run(self, attachment: Attachment, keys: DetachKeys) -> Response {
        let head = self.head(attachment.terminal);
        let Some(take_over) = &self.take_over else {
            let error = Error::Unsupported("this connection cannot be hijacked".into());
            return error::message(error::status(&error), &error::told(&error));
        };
        let session: Session = Box::new(move |socket, already| {
            Box::pin(copy(socket, head, already, attachment, keys))
        });
        match take_over.take(session).await {}
    }
}

/// What `Attachment`s and logs are sent as.
pub(super) fn content_type(version: Version, terminal: bool) -> &'static str {
    if terminal || version < Version::one(42) { RAW } else { FRAMED }
}

/// An error before the hijack, which Docker writes as plain text.
pub(super) fn refusal(error: &Error) -> Response {
    let mut response = Response::new(Body::from(format!("{}\r\n", error::told(error))));
    *response.status_mut() = error::status(error);
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(RAW));
    response.headers_mut().extend(headers);
    response
}

/// An answer that is output only, in chunks: logs.
pub(super) fn answer(output: Output, version: Version, terminal: bool) -> Response {
    let mut response = Response::new(Body::from_stream(output));
    *response.status_mut() = StatusCode::OK;
    let kind = HeaderValue::from_static(content_type(version, terminal));
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

/// What a process that could not be started would have said.
pub(super) fn last_words(text: &str, terminal: bool) -> Attachment {
    let text = format!("{text}\r\n");
    let mut frame = BytesMut::with_capacity(8 + text.len());
    if !terminal {
        frame.put_u32(1 << 24);
        frame.put_u32(u32::try_from(text.len()).unwrap_or(u32::MAX));
    }
    frame.put_slice(text.as_bytes());
    let output: Output = Box::pin(futures_util::stream::iter([Ok(frame.freeze())]));
    Attachment { output: Some(output), input: None, terminal }
}

async fn copy(
    mut socket: Socket,
    head: String,
    already: Bytes,
    attachment: Attachment,
    keys: DetachKeys,
) {
    if socket.write_all(head.as_bytes()).await.is_err() {
        return;
    }
    let Attachment { output, input, terminal } = attachment;
    let escape = terminal.then(|| Escape::new(keys));
    let reading = socket.clone();
    let incoming = async move {
        match input {
            Some(input) => take_input(reading, already, input, escape).await,
            // Nothing to read, but somebody to miss.
            None => {
                reading.gone().await;
                Left::Gone
            }
        }
    };
    tokio::pin!(incoming);
    let Some(output) = output else {
        // Input only: it is over when the client says so.
        incoming.await;
        socket.finish();
        return;
    };
    let writing = socket.clone();
    let outgoing = give_output(writing, output);
    tokio::pin!(outgoing);
    tokio::select! {
        () = &mut outgoing => {}
        left = &mut incoming => if matches!(left, Left::EndOfInput) {
            tokio::select! {
                () = &mut outgoing => {}
                () = socket.gone() => {}
            }
        },
    }
    socket.finish();
}

/// Why no more input comes.
enum Left {
    /// The client has no more to say, but may listen.
    EndOfInput,
    /// It has gone, or typed the detach keys.
    Gone,
}

async fn take_input(
    mut socket: Socket,
    already: Bytes,
    mut input: Input,
    mut escape: Option<Escape>,
) -> Left {
    let mut buffer = BytesMut::from(already);
    loop {
        let (bytes, detached) = match &mut escape {
            Some(escape) => {
                let passed = escape.pass(&buffer);
                (Bytes::from(passed.bytes), passed.detached)
            }
            None => (buffer.split().freeze(), false),
        };
        if !bytes.is_empty() && input.write_all(&bytes).await.is_err() {
            // The process does not read any more: what comes is thrown away,
            // as a pipe without a reader would, but the output goes on.
            return discard(socket).await;
        }
        if detached {
            return Left::Gone;
        }
        drop(bytes);
        buffer.clear();
        buffer.reserve(CHUNK);
        match socket.read_buf(&mut buffer).await {
            Ok(0) => {
                // Fails when the process has gone, which is as good.
                drop(input.shutdown().await);
                return Left::EndOfInput;
            }
            Ok(_) => {}
            Err(_) => return Left::Gone,
        }
    }
}

async fn discard(mut socket: Socket) -> Left {
    let mut nowhere = tokio::io::sink();
    match tokio::io::copy(&mut socket, &mut nowhere).await {
        Ok(_) => Left::EndOfInput,
        Err(_) => Left::Gone,
    }
}

async fn give_output(mut socket: Socket, mut output: Output) {
    let mut begun = false;
    while let Some(piece) = output.next().await {
        // Some clients (docker-py) read the head through a buffer and the stream past it: of what
        // comes with the head in one read they lose all. No Docker is quick enough for that.
        if !std::mem::replace(&mut begun, true) {
            socket.read_by_the_client().await;
        }
        match piece {
            Ok(bytes) => {
                if socket.write_all(&bytes).await.is_err() {
                    // The client has gone.
                    return;
                }
            }
            Err(error) => {
                tracing::warn!(error = %error, "an attached stream broke");
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_new_clients_without_a_terminal_are_told_of_frames() {
        assert_eq!(content_type(Version::one(42), false), FRAMED);
        assert_eq!(content_type(Version::one(41), false), RAW);
        assert_eq!(content_type(Version::one(51), true), RAW);
    }

    #[test]
    fn a_client_that_asks_for_an_upgrade_gets_one_and_another_does_not() {
        let hijack = |upgrade| Hijack { take_over: None, upgrade, version: version::NEWEST };
        let head = hijack(true).head(false);
        let first = "HTTP/1.1 101 UPGRADED\r\nContent-Type: \
                     application/vnd.docker.multiplexed-stream\r\nConnection: Upgrade\r\nUpgrade: \
                     tcp\r\n";
        assert!(head.starts_with(first), "{head}");
        assert!(head.ends_with("\r\n\r\n"));
        let head = hijack(false).head(false);
        assert!(head.starts_with("HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw"));
    }
}
