//! Which compression a stream has, by its first bytes, and reading through it.

use std::io::{self, BufRead, BufReader, Read};

/// zstd frames may ask for this many bits of window; `zstd --long` and Go's
/// writer stay below. More would let an image choose how much memory we need.
const ZSTD_WINDOW_LOG: u32 = 27;
const BUFFER: usize = 128 << 10;

/// The bytes of `stream`, uncompressed: gzip (also several members), zstd, or
/// as they are.
///
/// # Errors
/// The stream cannot be read, or has a compression that is not known here.
pub fn decompress<'a>(stream: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut stream = BufReader::with_capacity(BUFFER, stream);
    // One read may give less than a magic number.
    let mut start = Vec::with_capacity(6);
    (&mut stream).take(6).read_to_end(&mut start)?;
    let whole = BufReader::with_capacity(BUFFER, io::Cursor::new(start.clone()).chain(stream));
    Ok(match start.as_slice() {
        [0x1f, 0x8b, ..] => Box::new(flate2::bufread::MultiGzDecoder::new(whole)),
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => zstd(whole)?,
        [b'B', b'Z', b'h', ..] => return Err(unknown("bzip2")),
        [0xfd, b'7', b'z', b'X', b'Z', 0] => return Err(unknown("xz")),
        _ => Box::new(whole),
    })
}

fn zstd<'a>(stream: impl BufRead + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut decoder = zstd::stream::read::Decoder::with_buffer(stream)?;
    decoder.window_log_max(ZSTD_WINDOW_LOG)?;
    Ok(Box::new(decoder))
}

fn unknown(name: &str) -> io::Error {
    let text = format!("{name} compression is not supported; use gzip, zstd or none");
    io::Error::new(io::ErrorKind::Unsupported, text)
}
