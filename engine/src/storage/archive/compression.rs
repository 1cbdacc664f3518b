//! Which compression a stream has, by its first bytes, and reading through it.

use std::io::{self, BufRead, BufReader, Read};

/// zstd frames may ask for this many bits of window; `zstd --long` and Go's
/// writer stay below. More would let an image choose how much memory we need.
const ZSTD_WINDOW_LOG: u32 = 27;
/// For xz the same, in KiB: `xz -9` needs a quarter of it.
const XZ_MEMORY: u32 = 256 << 10;
const BUFFER: usize = 128 << 10;

/// The bytes of `stream`, uncompressed: gzip, bzip2, xz (each also several
/// members), zstd, or as they are.
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
        [b'B', b'Z', b'h', ..] => Box::new(bzip2::bufread::MultiBzDecoder::new(whole)),
        [0xfd, b'7', b'z', b'X', b'Z', 0] => {
            Box::new(lzma_rust2::XzReader::new_mem_limit(whole, true, XZ_MEMORY))
        }
        _ => Box::new(whole),
    })
}

fn zstd<'a>(stream: impl BufRead + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut decoder = zstd::stream::read::Decoder::with_buffer(stream)?;
    decoder.window_log_max(ZSTD_WINDOW_LOG)?;
    Ok(Box::new(decoder))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_compression_is_known_by_its_first_bytes() {
        // `printf hi | xz`, and the same with bzip2.
        let xz: &[u8] = &[
            0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00, 0x00, 0x04, 0xe6, 0xd6, 0xb4, 0x46, 0x02, 0x00,
            0x21, 0x01, 0x16, 0x00, 0x00, 0x00, 0x74, 0x2f, 0xe5, 0xa3, 0x01, 0x00, 0x01, 0x68,
            0x69, 0x00, 0x00, 0x00, 0xfe, 0xa9, 0x38, 0x11, 0xbc, 0xca, 0xa5, 0x48, 0x00, 0x01,
            0x1a, 0x02, 0xdc, 0x2e, 0xa5, 0x7e, 0x1f, 0xb6, 0xf3, 0x7d, 0x01, 0x00, 0x00, 0x00,
            0x00, 0x04, 0x59, 0x5a,
        ];
        let bz: &[u8] = &[
            0x42, 0x5a, 0x68, 0x39, 0x31, 0x41, 0x59, 0x26, 0x53, 0x59, 0x9a, 0x89, 0xb4, 0x22,
            0x00, 0x00, 0x00, 0x01, 0x00, 0x00, 0x60, 0x20, 0x00, 0x21, 0x00, 0x82, 0xb1, 0x77,
            0x24, 0x53, 0x85, 0x09, 0x09, 0xa8, 0x9b, 0x42, 0x20,
        ];
        for archive in [xz, bz, b"hi"] {
            let mut text = String::new();
            decompress(archive).unwrap().read_to_string(&mut text).unwrap();
            assert_eq!(text, "hi");
        }
        assert!(decompress(&xz[..20]).unwrap().read_to_string(&mut String::new()).is_err());
    }
}
