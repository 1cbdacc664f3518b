//! Attaching over a websocket: `GET /containers/{id}/attach/ws`.
//!
//! Docker never frames the output here: both streams come as they are, in
//! binary messages. `tokio-tungstenite` speaks the protocol, on the socket that
//! the connection hands over.

use super::{
    Shared,
    attach::{self, Attached},
    connection::{Session, Socket, TakeOver},
    detach::Escape,
    error::{Answer, invalid},
    extract::Params,
    version::{self, Version},
};
use crate::service::seen::{Input, Output};
use axum::{
    Extension, Router,
    extract::{Path, Request, State},
    response::Response,
    routing::get,
};
use bytes::{Buf, Bytes, BytesMut};
use futures_util::{Sink, SinkExt, Stream, StreamExt};
use http::{HeaderMap, header};
use tokio::io::AsyncWriteExt;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Error as Broken, Message,
        handshake::derive_accept_key,
        protocol::{Role, WebSocketConfig},
    },
};

/// No message of a client is longer, in bytes.
const LONGEST: usize = 1 << 20;

pub(super) fn routes() -> Router<Shared> {
    Router::new().route("/containers/{id}/attach/ws", get(attach))
}

async fn attach(
    State(shared): State<Shared>,
    Path(id): Path<String>,
    params: Params,
    version: Option<Extension<Version>>,
    request: Request,
) -> Answer<Response> {
    let (parts, _) = request.into_parts();
    let attached = attach::attached(&shared, &id, &params).await?;
    let key = key(&parts.headers).ok_or_else(|| invalid("this is no websocket handshake"))?;
    let take_over = parts.extensions.get::<TakeOver>().cloned();
    let take_over = take_over.ok_or_else(|| invalid("this connection cannot be hijacked"))?;
    let version = version.map_or(version::NEWEST, |Extension(version)| version);
    let head = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {}\r\n\r\n",
        derive_accept_key(key.as_bytes())
    );
    let binary = version >= Version::one(28);
    let session: Session =
        Box::new(move |socket, already| Box::pin(talk(socket, head, already, attached, binary)));
    match take_over.take(session).await {}
}

/// RFC 6455, 4.2.1.
fn key(headers: &HeaderMap) -> Option<&str> {
    let text = |name| headers.get(name).and_then(|value: &http::HeaderValue| value.to_str().ok());
    let upgrade = text(header::UPGRADE)?.eq_ignore_ascii_case("websocket");
    let version = text(header::SEC_WEBSOCKET_VERSION)? == "13";
    text(header::SEC_WEBSOCKET_KEY).filter(|_| upgrade && version)
}

async fn talk(mut socket: Socket, head: String, already: Bytes, attached: Attached, binary: bool) {
    if socket.write_all(head.as_bytes()).await.is_err() {
        return;
    }
    let config =
        WebSocketConfig::default().max_message_size(Some(LONGEST)).max_frame_size(Some(LONGEST));
    let watched = socket.clone();
    let stream =
        WebSocketStream::from_partially_read(socket, already.to_vec(), Role::Server, Some(config));
    let (mut sink, messages) = stream.await.split();
    let Attached { attachment, keys } = attached;
    let escape = attachment.terminal.then(|| Escape::new(keys));
    let frames = (!attachment.terminal).then(Frames::default);
    let incoming = listen(messages, attachment.input, escape);
    tokio::pin!(incoming);
    match attachment.output {
        None => incoming.await,
        Some(output) => tokio::select! {
            () = say(&mut sink, output, frames, binary) => {}
            // The client has left, or typed the detach keys.
            () = &mut incoming => {}
        },
    }
    // Fails when the client has gone, which is as good.
    drop(sink.close().await);
    watched.finish();
}

async fn say(
    sink: &mut (impl Sink<Message, Error = Broken> + Unpin),
    mut output: Output,
    mut frames: Option<Frames>,
    binary: bool,
) {
    while let Some(piece) = output.next().await {
        let bytes = match (piece, &mut frames) {
            (Ok(bytes), Some(frames)) => frames.payload(&bytes),
            (Ok(bytes), None) => bytes,
            (Err(error), _) => {
                tracing::warn!(error = %error, "an attached stream broke");
                return;
            }
        };
        if bytes.is_empty() {
            continue;
        }
        let message = if binary {
            Message::binary(bytes)
        } else {
            Message::text(String::from_utf8_lossy(&bytes).into_owned())
        };
        if sink.send(message).await.is_err() {
            return;
        }
    }
}

/// Ends when the client does, or wants to leave.
async fn listen(
    mut messages: impl Stream<Item = Result<Message, Broken>> + Unpin,
    mut input: Option<Input>,
    mut escape: Option<Escape>,
) {
    while let Some(Ok(message)) = messages.next().await {
        if message.is_close() {
            break;
        }
        let wanted = message.is_binary() || message.is_text();
        let Some(open) = input.as_mut().filter(|_| wanted) else { continue };
        let bytes = message.into_data();
        let (bytes, detached) = match &mut escape {
            Some(escape) => {
                let passed = escape.pass(&bytes);
                (Bytes::from(passed.bytes), passed.detached)
            }
            None => (bytes, false),
        };
        if !bytes.is_empty() && open.write_all(&bytes).await.is_err() {
            // The process does not read any more; the output goes on.
            input = None;
        }
        if detached {
            return;
        }
    }
    if let Some(mut input) = input {
        // Fails when the process has gone, which is as good.
        drop(input.shutdown().await);
    }
}

/// Takes Docker's 8-byte heads away, wherever a piece was cut.
#[derive(Debug, Default)]
struct Frames {
    head: BytesMut,
    /// Bytes of the current frame that are still to come.
    left: usize,
}

impl Frames {
    fn payload(&mut self, mut piece: &[u8]) -> Bytes {
        let mut payload = BytesMut::with_capacity(piece.len());
        while !piece.is_empty() {
            if self.left == 0 {
                let (head, rest) = piece.split_at((8 - self.head.len()).min(piece.len()));
                self.head.extend_from_slice(head);
                piece = rest;
                if self.head.len() == 8 {
                    self.head.advance(4);
                    self.left = self.head.get_u32() as usize;
                    self.head.clear();
                }
                continue;
            }
            let (now, rest) = piece.split_at(self.left.min(piece.len()));
            payload.extend_from_slice(now);
            self.left -= now.len();
            piece = rest;
        }
        payload.freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_taken_away_wherever_they_were_cut() {
        let stream = b"\x01\0\0\0\0\0\0\x03abc\x02\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\x02de";
        for at in 0..=stream.len() {
            let mut frames = Frames::default();
            let (one, two) = stream.split_at(at);
            assert_eq!([frames.payload(one), frames.payload(two)].concat(), b"abcde");
        }
    }
}
