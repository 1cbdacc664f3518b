//! Docker's `json-file` log, byte for byte as dockerd writes it, at the speed
//! of a pipe.
//!
//! One JSON object a line; a line of output longer than 16 KiB becomes several
//! objects, of which only the last one's text ends in a newline; so does not
//! the text of a last line that ended without one.

use crate::squeeze::{self, Squeeze};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use tritium_supervisor::protocol::Log;

/// Longest text in one object: dockerd's `defaultBufSize`, daemon/logger/copier.go.
const LONGEST: usize = 16 << 10;
/// Formatted bytes that are held before they are written.
const HELD: usize = 64 << 10;

/// Which output a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// The open log of one container.
#[derive(Debug)]
pub(crate) struct JsonLog {
    config: Log,
    file: File,
    /// Bytes in `file`, without those held.
    size: u64,
    held: Vec<u8>,
    /// The beginnings of lines, of stdout and of stderr.
    begun: [Vec<u8>; 2],
    /// The last file that was rotated, while it is being compressed.
    squeeze: Option<Squeeze>,
}

impl JsonLog {
    /// Opens the log to append to it.
    ///
    /// # Errors
    ///
    /// Those of open(2).
    pub(crate) fn open(config: Log) -> io::Result<Self> {
        let file = append_to(&config.path)?;
        let size = file.metadata()?.len();
        squeeze::abandon(&aged(&config.path, 1))?;
        let begun = [Vec::new(), Vec::new()];
        Ok(Self { config, file, size, held: Vec::new(), begun, squeeze: None })
    }

    /// Adds `bytes` of output that came just now.
    ///
    /// # Errors
    ///
    /// Those of write(2). What could not be written is lost; the file ends
    /// with a whole line all the same.
    pub(crate) fn record(&mut self, stream: Stream, bytes: &[u8]) -> io::Result<()> {
        let tail = self.tail(stream);
        let mut rest = bytes;
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let (line, after) = rest.split_at(end);
            self.line(stream, line, &tail)?;
            rest = &after[1..];
        }
        let mut begun = std::mem::take(&mut self.begun[stream as usize]);
        begun.extend_from_slice(rest);
        let mut done = 0;
        while begun.len() - done >= LONGEST {
            let end = done + boundary(&begun[done..]);
            self.entry(&begun[done..end], false, &tail)?;
            done = end;
        }
        begun.drain(..done);
        self.begun[stream as usize] = begun;
        self.write()
    }

    /// Adds the line that `stream` ended in the middle of.
    ///
    /// # Errors
    ///
    /// As [`record`](Self::record).
    pub(crate) fn finish(&mut self, stream: Stream) -> io::Result<()> {
        let begun = std::mem::take(&mut self.begun[stream as usize]);
        if begun.is_empty() {
            return Ok(());
        }
        let tail = self.tail(stream);
        self.entry(&begun, false, &tail)?;
        self.write()
    }

    fn tail(&self, stream: Stream) -> String {
        tail(stream, self.config.attributes.as_deref(), SystemTime::now())
    }

    /// Frees what a quiet container does not need.
    pub(crate) fn rest(&mut self) {
        self.held = Vec::new();
        self.begun.iter_mut().for_each(Vec::shrink_to_fit);
    }

    fn line(&mut self, stream: Stream, line: &[u8], tail: &str) -> io::Result<()> {
        let begun = std::mem::take(&mut self.begun[stream as usize]);
        if begun.is_empty() {
            return self.pieces(line, tail);
        }
        let whole = [begun.as_slice(), line].concat();
        self.pieces(&whole, tail)
    }

    fn pieces(&mut self, mut line: &[u8], tail: &str) -> io::Result<()> {
        while line.len() >= LONGEST {
            let (piece, rest) = line.split_at(boundary(line));
            self.entry(piece, false, tail)?;
            line = rest;
        }
        self.entry(line, true, tail)
    }

    fn entry(&mut self, text: &[u8], newline: bool, tail: &str) -> io::Result<()> {
        if self.config.max_size.is_some_and(|max| self.size + self.held.len() as u64 >= max) {
            self.write()?;
            self.rotate()?;
        }
        self.held.extend_from_slice(b"{\"log\":\"");
        escape(&mut self.held, text);
        if newline {
            self.held.extend_from_slice(b"\\n");
        }
        self.held.extend_from_slice(tail.as_bytes());
        if self.held.len() >= HELD { self.write() } else { Ok(()) }
    }

    fn write(&mut self) -> io::Result<()> {
        let written = self.file.write_all(&self.held);
        let length = self.held.len() as u64;
        self.held.clear();
        match written {
            Ok(()) => self.size += length,
            // A full disk must not leave half a line behind.
            Err(error) => {
                self.file.set_len(self.size)?;
                return Err(error);
            }
        }
        if let Some(squeeze) = &mut self.squeeze {
            let outcome = squeeze.go_on(length);
            self.squeezed(&outcome)?;
        }
        Ok(())
    }

    /// What cannot be compressed stays as it is, and is read as it is.
    fn squeezed(&mut self, outcome: &io::Result<bool>) -> io::Result<()> {
        if !matches!(outcome, Ok(false)) {
            self.squeeze = None;
        }
        if outcome.is_err() {
            squeeze::abandon(&aged(&self.config.path, 1))?;
        }
        Ok(())
    }

    /// `path` becomes `path.1`, that `path.2`, and so on.
    fn rotate(&mut self) -> io::Result<()> {
        let path = self.config.path.clone();
        let kept = self.config.max_file.unwrap_or(1).max(1);
        if kept == 1 {
            self.file.set_len(0)?;
        } else {
            if let Some(squeeze) = self.squeeze.take() {
                let outcome = squeeze.finish().map(|()| true);
                self.squeezed(&outcome)?;
            }
            for age in (1..kept - 1).rev() {
                squeeze::age(&aged(&path, age), &aged(&path, age + 1))?;
            }
            squeeze::age(&path, &aged(&path, 1))?;
            self.file = append_to(&path)?;
            if self.config.compress {
                let begun = Squeeze::begin(&aged(&path, 1));
                let outcome = begun.map(|begun| self.squeeze = Some(begun)).map(|()| false);
                self.squeezed(&outcome)?;
            }
        }
        self.size = 0;
        Ok(())
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    OpenOptions::new().append(true).create(true).mode(0o640).open(path)
}

fn aged(path: &Path, age: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{age}"));
    name.into()
}

/// At most [`LONGEST`], less where that would cut a character in two.
fn boundary(text: &[u8]) -> usize {
    let is_inside = |at: &usize| text.get(*at).is_some_and(|byte| byte & 0xc0 == 0x80);
    (LONGEST - 3..=LONGEST).rev().find(|at| !is_inside(at)).unwrap_or(LONGEST)
}

/// What stands behind the text in every object.
fn tail(stream: Stream, attributes: Option<&str>, now: SystemTime) -> String {
    let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let attributes = attributes.map(|attributes| format!(",\"attrs\":{attributes}"));
    let attributes = attributes.unwrap_or_default();
    let (stream, time) = (stream.name(), rfc3339(since));
    format!("\",\"stream\":\"{stream}\"{attributes},\"time\":\"{time}\"}}\n")
}

/// RFC 3339 in UTC, as Go's `RFC3339Nano` prints it: no zeros at the end of
/// the fraction. The date is Howard Hinnant's `civil_from_days`.
fn rfc3339(since_1970: Duration) -> String {
    let seconds = since_1970.as_secs();
    let (days, second) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    let mut text = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}");
    if since_1970.subsec_nanos() > 0 {
        text.push_str(format!(".{:09}", since_1970.subsec_nanos()).trim_end_matches('0'));
    }
    text.push('Z');
    text
}

/// Bytes that stand for themselves in dockerd's JSON
/// (daemon/logger/jsonfilelog/jsonlog/jsonlogbytes.go).
const PLAIN: [bool; 256] = {
    let mut plain = [false; 256];
    let mut byte = 0x20_u8;
    while byte < 0x80 {
        plain[byte as usize] = !matches!(byte, b'"' | b'\\' | b'<' | b'>' | b'&');
        byte += 1;
    }
    plain
};

fn escape(out: &mut Vec<u8>, mut text: &[u8]) {
    loop {
        let plain = text.iter().position(|byte| !PLAIN[usize::from(*byte)]).unwrap_or(text.len());
        out.extend_from_slice(&text[..plain]);
        text = &text[plain..];
        let Some(first) = text.first() else { return };
        let taken = match first {
            b'"' | b'\\' => {
                out.extend_from_slice(&[b'\\', *first]);
                1
            }
            b'\n' => {
                out.extend_from_slice(b"\\n");
                1
            }
            b'\r' => {
                out.extend_from_slice(b"\\r");
                1
            }
            0..0x80 => {
                out.extend_from_slice(format!("\\u{first:04x}").as_bytes());
                1
            }
            0x80.. => character(out, text),
        };
        text = &text[taken..];
    }
}

/// One character beyond ASCII; answers how many bytes it took.
fn character(out: &mut Vec<u8>, text: &[u8]) -> usize {
    let near = &text[..text.len().min(4)];
    let valid = match std::str::from_utf8(near) {
        Ok(valid) => valid,
        Err(error) => std::str::from_utf8(&near[..error.valid_up_to()]).unwrap_or(""),
    };
    match valid.chars().next() {
        None => {
            out.extend_from_slice(b"\\ufffd");
            1
        }
        Some(character @ ('\u{2028}' | '\u{2029}')) => {
            out.extend_from_slice(format!("\\u{:04x}", u32::from(character)).as_bytes());
            3
        }
        Some(character) => {
            out.extend_from_slice(&near[..character.len_utf8()]);
            character.len_utf8()
        }
    }
}

#[cfg(test)]
#[path = "log_tests.rs"]
mod tests;
