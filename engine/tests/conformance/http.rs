//! As little HTTP as the tests need, so that every byte of an answer is seen as it came.

use std::{
    fmt::Write as _,
    io::{self, BufRead, BufReader, Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

/// How long an engine may say nothing before that is a hang.
pub(crate) const PATIENCE: Duration = Duration::from_secs(40);

/// Status and headers.
#[derive(Debug, Clone)]
pub(crate) struct Head {
    pub(crate) status: u16,
    pub(crate) reason: String,
    pub(crate) headers: Vec<(String, String)>,
}

impl Head {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let same = |(key, _): &&(String, String)| key.eq_ignore_ascii_case(name);
        self.headers.iter().find(same).map(|(_, value)| value.as_str())
    }
}

/// An answer of which only the head was read; the rest is read as a stream.
#[derive(Debug)]
pub(crate) struct Open {
    pub(crate) head: Head,
    socket: BufReader<UnixStream>,
    body: Body,
}

#[derive(Debug, Clone, Copy)]
enum Body {
    UntilClosed,
    Left(u64),
    /// What is left of this chunk.
    Chunk(u64),
    Ended,
}

/// Method, path, headers and body of a request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request<'a> {
    pub(crate) method: &'a str,
    pub(crate) path: &'a str,
    pub(crate) headers: &'a [(&'a str, &'a str)],
    pub(crate) body: &'a [u8],
}

impl Request<'_> {
    fn head(&self) -> String {
        let mut head = format!("{} {} HTTP/1.1\r\nHost: docker\r\n", self.method, self.path);
        for (name, value) in self.headers {
            write!(head, "{name}: {value}\r\n").unwrap();
        }
        let has = |name: &str| self.headers.iter().any(|(key, _)| key.eq_ignore_ascii_case(name));
        if !has("Content-Length") && !has("Transfer-Encoding") {
            write!(head, "Content-Length: {}\r\n", self.body.len()).unwrap();
        }
        head + "\r\n"
    }

    pub(crate) fn send(&self, socket: &Path) -> io::Result<Open> {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let whole = [self.head().as_bytes(), self.body].concat();
        match stream.write_all(&whole) {
            // Who answers before it has read all of a body may close: what did it answer?
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let mut socket = BufReader::new(stream);
        let head = read_head(&mut socket)?;
        let body = body_of(self.method, &head);
        Ok(Open { head, socket, body })
    }
}

fn broken(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

fn read_head(socket: &mut BufReader<UnixStream>) -> io::Result<Head> {
    let mut line = String::new();
    socket.read_line(&mut line)?;
    let mut parts = line.trim_end().splitn(3, ' ');
    let (Some(_), Some(status)) = (parts.next(), parts.next()) else {
        return Err(broken(&format!("no status line but {line:?}")));
    };
    let status = status.parse().map_err(|_| broken(&format!("no status in {line:?}")))?;
    let reason = parts.next().unwrap_or_default().to_owned();
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        socket.read_line(&mut line)?;
        let line = line.trim_end();
        if line.is_empty() {
            return Ok(Head { status, reason, headers });
        }
        let (name, value) = line.split_once(':').ok_or_else(|| broken("a header without colon"))?;
        headers.push((name.to_owned(), value.trim().to_owned()));
    }
}

fn body_of(method: &str, head: &Head) -> Body {
    if method == "HEAD" || matches!(head.status, 204 | 304) {
        return Body::Ended;
    }
    if head.status == 101 {
        return Body::UntilClosed;
    }
    if head.header("Transfer-Encoding").is_some_and(|coding| coding.contains("chunked")) {
        return Body::Chunk(0);
    }
    match head.header("Content-Length").and_then(|length| length.parse().ok()) {
        Some(0) => Body::Ended,
        Some(length) => Body::Left(length),
        None => Body::UntilClosed,
    }
}

impl Read for Open {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Body::Chunk(0) = self.body {
            self.body = next_chunk(&mut self.socket)?;
        }
        let left = match self.body {
            Body::Ended => return Ok(0),
            Body::UntilClosed => return self.socket.read(buffer),
            Body::Left(left) | Body::Chunk(left) => left,
        };
        let wanted = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let got = self.socket.read(&mut buffer[..wanted])?;
        if got == 0 && wanted > 0 {
            return Err(broken("the body was cut short"));
        }
        let left = left - got as u64;
        match self.body {
            Body::Chunk(_) => {
                self.body = Body::Chunk(left);
                if left == 0 {
                    self.socket.read_line(&mut String::new())?;
                }
            }
            Body::Left(_) if left == 0 => self.body = Body::Ended,
            Body::Left(_) | Body::UntilClosed | Body::Ended => self.body = Body::Left(left),
        }
        Ok(got)
    }
}

fn next_chunk(socket: &mut BufReader<UnixStream>) -> io::Result<Body> {
    let mut line = String::new();
    if socket.read_line(&mut line)? == 0 {
        return Err(broken("the body was cut short between two chunks"));
    }
    let size = line.trim_end().split(';').next().unwrap_or_default();
    match u64::from_str_radix(size, 16).map_err(|_| broken(&format!("no chunk size: {line:?}")))? {
        0 => {
            socket.read_line(&mut String::new())?;
            Ok(Body::Ended)
        }
        size => Ok(Body::Chunk(size)),
    }
}

impl Open {
    /// Whether more than the head came with it in one read.
    pub(crate) fn came_with_more(&self) -> bool {
        !self.socket.buffer().is_empty()
    }

    /// Sends raw bytes after the head: input of a hijacked connection.
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        self.socket.get_mut().write_all(bytes).unwrap();
    }

    /// Ends the input, and goes on reading.
    pub(crate) fn close_input(&self) {
        self.socket.get_ref().shutdown(std::net::Shutdown::Write).unwrap();
    }

    /// Everything until the engine ends the stream.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.read_to_end(&mut bytes).unwrap_or_else(|error| {
            panic!("the stream did not end well: {error}; until then came {:?}", text(&bytes))
        });
        bytes
    }

    /// Reads until that was among it, and gives all that came.
    pub(crate) fn until(&mut self, wanted: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut buffer = [0; 4096];
        while !bytes.windows(wanted.len()).any(|window| window == wanted) {
            let got = self.read(&mut buffer).unwrap_or(0);
            let wanted = text(wanted);
            assert!(got > 0, "never came: {wanted:?}; but {:?}", text(&bytes));
            bytes.extend_from_slice(&buffer[..got]);
        }
        bytes
    }

    /// Whether nothing arrives for a while: for what must not be said.
    pub(crate) fn is_silent_for(&mut self, time: Duration) -> bool {
        self.socket.get_ref().set_read_timeout(Some(time)).unwrap();
        let silent = self.socket.fill_buf().is_err();
        self.socket.get_ref().set_read_timeout(Some(PATIENCE)).unwrap();
        silent
    }
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A multiplexed stream taken apart: which stream, and what it said, neighbours joined.
pub(crate) fn frames(mut bytes: &[u8]) -> Vec<(u8, String)> {
    let mut found: Vec<(u8, String)> = Vec::new();
    while !bytes.is_empty() {
        assert!(bytes.len() >= 8, "half a frame: {:?}", text(bytes));
        assert_eq!(&bytes[1..4], &[0, 0, 0], "no frame: {:?}", text(bytes));
        let length = u32::from_be_bytes(bytes[4..8].try_into().unwrap()) as usize;
        assert!(bytes.len() >= 8 + length, "half a frame: {:?}", text(bytes));
        let said = text(&bytes[8..8 + length]);
        match found.last_mut() {
            Some((stream, before)) if *stream == bytes[0] => before.push_str(&said),
            Some(_) | None => found.push((bytes[0], said)),
        }
        bytes = &bytes[8 + length..];
    }
    found
}
