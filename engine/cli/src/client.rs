//! Asks the engine over its socket.

use anyhow::{Context, bail};
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request, StatusCode, body::Bytes};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, de::DeserializeOwned};
use std::path::{Path, PathBuf};
use tokio::net::UnixStream;

/// One engine; a connection per request.
#[derive(Debug)]
pub(crate) struct Client {
    socket: PathBuf,
}

#[derive(Debug, Deserialize)]
struct Message {
    message: String,
}

impl Client {
    pub(crate) fn new(socket: &Path) -> Self {
        Self { socket: socket.to_owned() }
    }

    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        let body = self.ask(Method::GET, path, None).await?;
        serde_json::from_slice(&body).context("the engine's answer cannot be read")
    }

    pub(crate) async fn post<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        let body = self.ask(Method::POST, path, None).await?;
        serde_json::from_slice(&body).context("the engine's answer cannot be read")
    }

    /// Whatever the answer is, it says nothing.
    pub(crate) async fn tell(
        &self,
        method: Method,
        path: &str,
        body: Option<serde_json::Value>,
    ) -> anyhow::Result<()> {
        self.ask(method, path, body).await.map(drop)
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<serde_json::Value>,
    ) -> anyhow::Result<Bytes> {
        let away = || format!("no engine answers at {}", self.socket.display());
        let stream = UnixStream::connect(&self.socket).await.with_context(away)?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "tritium")
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(body)))?;
        let answer = async {
            let response = sender.send_request(request).await.with_context(away)?;
            let status = response.status();
            let body = response.into_body().collect().await?.to_bytes();
            anyhow::Ok((status, body))
        };
        tokio::pin!(answer);
        tokio::pin!(connection);
        let (status, body) = tokio::select! {
            answer = &mut answer => answer?,
            // All that was sent is in the answer's buffers then.
            _ = &mut connection => answer.await?,
        };
        if status.is_success() {
            return Ok(body);
        }
        match serde_json::from_slice::<Message>(&body) {
            Ok(Message { message }) if status != StatusCode::NOT_FOUND => bail!("{message}"),
            Ok(Message { message }) if message == "page not found" => {
                bail!("this socket does not answer that: is it the operator's, of a tritiumd?")
            }
            Ok(Message { message }) => bail!("{message}"),
            Err(_) => bail!("the engine answers {status}"),
        }
    }
}

/// Text as one part of a path or a value behind `?`.
pub(crate) fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_leave_its_place_in_the_path() {
        assert_eq!(escaped("a-b_1.c"), "a-b_1.c");
        assert_eq!(escaped("../x?a=b&c é"), "..%2Fx%3Fa%3Db%26c%20%C3%A9");
    }
}
