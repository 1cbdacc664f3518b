//! Many clients of one engine on one thread, each with a connection of its own
//! and always with a question under way. A thread for each would wait for its
//! turn on a processor, and that would be in the figures.

use crate::table::milliseconds;
use anyhow::{Context, Result, bail, ensure};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::{
    io::{Read, Write},
    os::{fd::AsFd, unix::net::UnixStream},
    path::Path,
    time::Instant,
};

/// Longer than any answer should take.
const PATIENCE: u16 = 60_000;
const BUFFER: usize = 256 << 10;
/// The end of a chunked answer; JSON has no such bytes.
const LAST_CHUNK: &[u8] = b"\r\n0\r\n\r\n";

/// So many clients ask so many times each for what `path` says: the
/// milliseconds of every answer.
pub(crate) fn ask(
    socket: &Path,
    (clients, times): (usize, usize),
    path: &dyn Fn(usize) -> String,
) -> Result<Vec<f64>> {
    let mut asking = Vec::new();
    let mut buffer = vec![0; BUFFER];
    for _ in 0..clients {
        let stream = UnixStream::connect(socket)
            .with_context(|| format!("cannot connect to {}", socket.display()))?;
        let mut client = Asking { stream, since: Instant::now(), left: times, got: Got::default() };
        // Accepted, too: what is measured is the asking.
        client.send("/_ping")?;
        while !client.receive(&mut buffer)? {}
        asking.push(client);
    }
    let mut answers = Vec::with_capacity(clients * times);
    let mut number = 0;
    for client in &mut asking {
        client.send(&path(number))?;
        number += 1;
    }
    while !asking.is_empty() {
        let ready = ready(&asking)?;
        for (client, ready) in asking.iter_mut().zip(ready) {
            if !ready || !client.receive(&mut buffer)? {
                continue;
            }
            answers.push(milliseconds(client.since.elapsed()));
            client.left -= 1;
            if client.left > 0 {
                client.send(&path(number))?;
                number += 1;
            }
        }
        asking.retain(|client| client.left > 0);
    }
    Ok(answers)
}

/// Which of them have something to read; waits until one has.
fn ready(asking: &[Asking]) -> Result<Vec<bool>> {
    let interest = |client| PollFd::new(AsFd::as_fd(client), PollFlags::POLLIN);
    let mut polled: Vec<PollFd<'_>> = asking.iter().map(|it| interest(&it.stream)).collect();
    ensure!(poll(&mut polled, PollTimeout::from(PATIENCE))? > 0, "no answer in a minute");
    Ok(polled.iter().map(|it| it.any().unwrap_or(false)).collect())
}

struct Asking {
    stream: UnixStream,
    since: Instant,
    left: usize,
    got: Got,
}

impl Asking {
    fn send(&mut self, path: &str) -> Result<()> {
        self.got = Got::default();
        self.since = Instant::now();
        let request = format!("GET {path} HTTP/1.1\r\nHost: d\r\n\r\n");
        Ok(self.stream.write_all(request.as_bytes())?)
    }

    /// Reads what is there; whether that was the end of the answer.
    fn receive(&mut self, buffer: &mut [u8]) -> Result<bool> {
        let count = self.stream.read(buffer)?;
        ensure!(count > 0, "the engine closed the connection");
        self.got.take(&buffer[..count])
    }
}

/// What has come of an answer.
#[derive(Debug, Default)]
struct Got {
    /// Until the head is there, all of it; then the last bytes.
    kept: Vec<u8>,
    /// Bytes of the body, and how many there shall be, if that was said.
    body: Option<(usize, Option<usize>)>,
}

impl Got {
    fn take(&mut self, bytes: &[u8]) -> Result<bool> {
        self.kept.extend_from_slice(bytes);
        match &mut self.body {
            Some((have, _)) => *have += bytes.len(),
            None => {
                let mut windows = self.kept.windows(4);
                let Some(end) = windows.position(|it| it == b"\r\n\r\n") else { return Ok(false) };
                let head = std::str::from_utf8(&self.kept[..end])?.to_ascii_lowercase();
                ensure!(head.starts_with("http/1.1 200"), "the answer is {head}");
                let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
                let length = length.map(|length| length.trim().parse()).transpose()?;
                if length.is_none() && !head.contains("transfer-encoding: chunked") {
                    bail!("an answer without a length: {head}");
                }
                self.body = Some((self.kept.len() - end - 4, length));
            }
        }
        let whole = match self.body {
            Some((have, Some(length))) => have >= length,
            Some((_, None)) => self.kept.ends_with(LAST_CHUNK),
            None => false,
        };
        let old = self.kept.len().saturating_sub(LAST_CHUNK.len());
        self.kept.drain(..old);
        Ok(whole)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_ends_by_its_length_or_its_last_chunk() {
        let known = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfour";
        let chunked =
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nfour\r\n0\r\n\r\n";
        for answer in [known.as_slice(), chunked.as_slice()] {
            let mut got = Got::default();
            let ends: Vec<bool> = answer.iter().map(|byte| got.take(&[*byte]).unwrap()).collect();
            let first = ends.iter().position(|end| *end);
            assert_eq!(first, Some(answer.len() - 1), "{}", String::from_utf8_lossy(answer));
            assert!(Got::default().take(answer).unwrap());
        }
    }

    #[test]
    fn an_error_is_no_answer() {
        let error = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n";
        assert!(Got::default().take(error).is_err());
    }
}
