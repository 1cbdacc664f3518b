//! As much of HTTP/1.1 over a unix socket as a measurement needs: blocking, so
//! that nothing but the engine's own time is in the figure.

use anyhow::{Context, Result, bail, ensure};
use std::{
    io::{BufRead, BufReader, Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
};

/// A kept-alive connection.
#[derive(Debug)]
pub(crate) struct Client {
    socket: PathBuf,
    stream: BufReader<UnixStream>,
}

impl Client {
    pub(crate) fn connect(socket: &Path) -> Result<Self> {
        let stream = UnixStream::connect(socket)
            .with_context(|| format!("cannot connect to {}", socket.display()))?;
        Ok(Self { socket: socket.to_owned(), stream: BufReader::new(stream) })
    }

    /// A request with a JSON body; the answer's body. Other statuses than 2xx
    /// are errors.
    pub(crate) fn call(&mut self, method: &str, path: &str, body: &str) -> Result<String> {
        self.send(method, path, "application/json", body.as_bytes())
    }

    pub(crate) fn send(
        &mut self,
        method: &str,
        path: &str,
        kind: &str,
        body: &[u8],
    ) -> Result<String> {
        let length = body.len();
        let mut request = format!(
            "{method} {path} HTTP/1.1\r\nHost: d\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n"
        )
        .into_bytes();
        request.extend_from_slice(body);
        self.stream.get_mut().write_all(&request)?;
        let head = self.head()?;
        let body = self.body(&head)?;
        ensure!(head.status / 100 == 2, "{method} {path}: {} {body}", head.status);
        Ok(body)
    }

    /// Starts an exec, and reads its output to the end.
    pub(crate) fn hijack(&self, path: &str, body: &str) -> Result<Vec<u8>> {
        let mut client = Self::connect(&self.socket)?;
        let length = body.len();
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\nConnection: Upgrade\r\n\
             Upgrade: tcp\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        client.stream.get_mut().write_all(request.as_bytes())?;
        let head = client.head()?;
        ensure!(matches!(head.status, 101 | 200), "{path}: {}", head.status);
        let mut output = Vec::new();
        client.stream.read_to_end(&mut output)?;
        Ok(output)
    }

    fn head(&mut self) -> Result<Head> {
        let mut head = Head::default();
        loop {
            let mut line = String::new();
            ensure!(self.stream.read_line(&mut line)? > 0, "the engine closed the connection");
            let line = line.trim_end();
            if line.is_empty() && head.status != 0 {
                return Ok(head);
            }
            if let Some(rest) = line.strip_prefix("HTTP/1.") {
                let code = rest.split(' ').nth(1).unwrap_or_default();
                head.status = code.parse().with_context(|| format!("no status in {line:?}"))?;
            } else if let Some((name, value)) = line.split_once(':') {
                match name.to_ascii_lowercase().as_str() {
                    "content-length" => head.length = Some(value.trim().parse()?),
                    "transfer-encoding" => head.chunked = value.trim() == "chunked",
                    _ => {}
                }
            }
        }
    }

    fn body(&mut self, head: &Head) -> Result<String> {
        let mut body = Vec::new();
        if head.chunked {
            loop {
                let mut line = String::new();
                self.stream.read_line(&mut line)?;
                let size = u64::from_str_radix(line.trim(), 16)
                    .with_context(|| format!("no chunk size in {line:?}"))?;
                (&mut self.stream).take(size).read_to_end(&mut body)?;
                self.stream.read_line(&mut line)?;
                if size == 0 {
                    break;
                }
            }
        } else if let Some(length) = head.length {
            (&mut self.stream).take(length).read_to_end(&mut body)?;
        } else if !matches!(head.status, 204 | 304) {
            bail!("an answer without a length");
        }
        Ok(String::from_utf8(body)?)
    }
}

#[derive(Debug, Default)]
struct Head {
    status: u16,
    length: Option<u64>,
    chunked: bool,
}
