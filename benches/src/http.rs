//! As much of HTTP/1.1 over a unix socket as a measurement needs: blocking, so
//! that nothing but the engine's own time is in the figure.

use anyhow::{Context, Result, bail, ensure};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use std::{
    io::{self, BufRead, BufReader, Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// Engines close a connection that nobody has used for a while.
const FRESH: Duration = Duration::from_secs(5);

/// A kept-alive connection.
#[derive(Debug)]
pub(crate) struct Client {
    socket: PathBuf,
    stream: BufReader<UnixStream>,
    used: Instant,
}

impl Client {
    pub(crate) fn connect(socket: &Path) -> Result<Self> {
        let stream = UnixStream::connect(socket)
            .with_context(|| format!("cannot connect to {}", socket.display()))?;
        let stream = BufReader::with_capacity(1 << 16, stream);
        Ok(Self { socket: socket.to_owned(), stream, used: Instant::now() })
    }

    /// The process that listens.
    pub(crate) fn listener(&self) -> Result<i32> {
        Ok(getsockopt(self.stream.get_ref(), PeerCredentials)?.pid())
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
        self.request(method, path, kind, body.len() as u64)?;
        self.stream.get_mut().write_all(body)?;
        self.answer(method, path)
    }

    /// A request whose body is a whole file.
    pub(crate) fn upload(&mut self, path: &str, file: &Path) -> Result<String> {
        let mut body = std::fs::File::open(file)?;
        self.request("POST", path, "application/x-tar", body.metadata()?.len())?;
        io::copy(&mut body, self.stream.get_mut())?;
        self.answer("POST", path)
    }

    /// Reads an answer into `to`: how many bytes it had.
    pub(crate) fn download(&mut self, path: &str, to: &mut dyn Write) -> Result<u64> {
        self.request("GET", path, "application/json", 0)?;
        let head = self.head()?;
        ensure!(head.status / 100 == 2, "GET {path}: {}", head.status);
        self.body(&head, to)
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

    fn request(&mut self, method: &str, path: &str, kind: &str, length: u64) -> Result<()> {
        if self.used.elapsed() > FRESH {
            *self = Self::connect(&self.socket)?;
        }
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: d\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n"
        );
        Ok(self.stream.get_mut().write_all(head.as_bytes())?)
    }

    /// The whole answer.
    fn answer(&mut self, method: &str, path: &str) -> Result<String> {
        let head = self.head()?;
        let mut body = Vec::new();
        self.body(&head, &mut body)?;
        let body = String::from_utf8(body)?;
        ensure!(head.status / 100 == 2, "{method} {path}: {} {body}", head.status);
        Ok(body)
    }

    fn head(&mut self) -> Result<Head> {
        let mut head = Head::default();
        loop {
            let mut line = String::new();
            ensure!(self.stream.read_line(&mut line)? > 0, "the engine closed the connection");
            self.used = Instant::now();
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

    fn body(&mut self, head: &Head, to: &mut dyn Write) -> Result<u64> {
        if let (false, Some(length)) = (head.chunked, head.length) {
            return self.pass(length, to);
        }
        if !head.chunked {
            ensure!(matches!(head.status, 204 | 304), "an answer without a length");
            return Ok(0);
        }
        let mut whole = 0;
        loop {
            let mut line = String::new();
            self.stream.read_line(&mut line)?;
            let size = u64::from_str_radix(line.trim(), 16)
                .with_context(|| format!("no chunk size in {line:?}"))?;
            whole += self.pass(size, to)?;
            self.stream.read_line(&mut line)?;
            if size == 0 {
                return Ok(whole);
            }
        }
    }

    fn pass(&mut self, size: u64, to: &mut dyn Write) -> Result<u64> {
        let passed = io::copy(&mut (&mut self.stream).take(size), to)?;
        if passed != size {
            bail!("the answer ended after {passed} of {size} bytes");
        }
        Ok(passed)
    }
}

#[derive(Debug, Default)]
struct Head {
    status: u16,
    length: Option<u64>,
    chunked: bool,
}
