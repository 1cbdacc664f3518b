//! An image to pull: ten layers of about 100 MB each, like an application's:
//! many small files of text, some large ones of which half are hard to
//! compress. The same bytes every time.

use anyhow::{Context, Result};
use flate2::{Compression, write::GzEncoder};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::{
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::Path,
    thread,
};

const LAYERS: u64 = 10;
/// Of an archive, before compression.
const LAYER: usize = 100 << 20;

/// Writes it to `dir` as an OCI layout.
pub(super) fn write(dir: &Path) -> Result<()> {
    let blobs = dir.join("blobs/sha256");
    fs::create_dir_all(&blobs)?;
    // Two at a time: compressing takes its time.
    let halves = thread::scope(|scope| {
        let half = |from| {
            let blobs = &blobs;
            scope.spawn(move || {
                (from..LAYERS).step_by(2).map(|number| layer(blobs, number)).collect::<Result<_>>()
            })
        };
        let work = [half(0), half(1)];
        work.map(|it| it.join().map_err(|_| anyhow::anyhow!("whoever packed has panicked"))?)
    });
    let [even, odd]: [Result<Vec<Layer>>; 2] = halves;
    let layers: Vec<Layer> =
        even?.into_iter().zip(odd?).flat_map(|(even, odd)| [even, odd]).collect();
    let diff_ids: Vec<&str> = layers.iter().map(|layer| layer.diff_id.as_str()).collect();
    let config = json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
        "os": "linux",
        "config": { "Cmd": ["true"] },
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    });
    let kind = |of: &str| format!("application/vnd.oci.image.{of}");
    let config = blob(&blobs, &config, &kind("config.v1+json"))?;
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": kind("manifest.v1+json"),
        "config": config,
        "layers": layers.iter().map(|layer| json!({
            "mediaType": kind("layer.v1.tar+gzip"), "digest": layer.digest, "size": layer.size,
        })).collect::<Vec<_>>(),
    });
    let manifest = blob(&blobs, &manifest, &kind("manifest.v1+json"))?;
    let index = json!({ "schemaVersion": 2, "manifests": [manifest] });
    put(&dir.join("index.json"), index.to_string().as_bytes())?;
    put(&dir.join("oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#)
}

fn put(path: &Path, bytes: &[u8]) -> Result<()> {
    let made = File::create(path).and_then(|mut file| file.write_all(bytes));
    made.with_context(|| format!("cannot write {}", path.display()))
}

/// A document as a blob: its descriptor.
fn blob(blobs: &Path, document: &Value, kind: &str) -> Result<Value> {
    let bytes = document.to_string();
    let digest = hex(Sha256::digest(bytes.as_bytes()).as_slice());
    put(&blobs.join(&digest), bytes.as_bytes())?;
    Ok(json!({ "mediaType": kind, "digest": format!("sha256:{digest}"), "size": bytes.len() }))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

struct Layer {
    digest: String,
    diff_id: String,
    size: u64,
}

fn layer(blobs: &Path, number: u64) -> Result<Layer> {
    let path = blobs.join(format!("layer-{number}"));
    let file = Hashed::new(BufWriter::new(File::create(&path)?));
    let mut archive = tar::Builder::new(Hashed::new(GzEncoder::new(file, Compression::default())));
    let mut source = Source(number + 1);
    let mut left = LAYER;
    let mut count = 0;
    while left > 0 {
        // Sixteen small files, then a large one.
        let large = count % 17 == 16;
        let size = if large { 1_500_000 } else { 2000 + source.below(20_000) };
        let bytes = if large && count % 34 == 33 { source.noise(size) } else { source.text(size) };
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        header.set_mtime(1_700_000_000);
        let name = format!("opt/layer-{number}/{}/{count}", count / 100);
        archive.append_data(&mut header, &name, bytes.as_slice())?;
        left = left.saturating_sub(bytes.len());
        count += 1;
    }
    let archive = archive.into_inner()?;
    let diff_id = hex(archive.hash.finalize().as_slice());
    let packed = archive.to.finish()?;
    let digest = hex(packed.hash.finalize().as_slice());
    packed.to.into_inner().context("cannot write a layer")?;
    fs::rename(&path, blobs.join(&digest))?;
    let prefixed = |hex| format!("sha256:{hex}");
    Ok(Layer { digest: prefixed(digest), diff_id: prefixed(diff_id), size: packed.count })
}

/// What is written, hashed on its way.
struct Hashed<W> {
    to: W,
    hash: Sha256,
    count: u64,
}

impl<W> Hashed<W> {
    fn new(to: W) -> Self {
        Self { to, hash: Sha256::new(), count: 0 }
    }
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.to.write(bytes)?;
        self.hash.update(&bytes[..count]);
        self.count += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// Numbers without an end (xorshift64).
struct Source(u64);

impl Source {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() >> 33).unwrap_or(0) % limit
    }

    fn noise(&mut self, size: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(size + 8);
        while bytes.len() < size {
            bytes.extend(self.next().to_le_bytes());
        }
        bytes.truncate(size);
        bytes
    }

    /// Words of four syllables at most, in lines.
    fn text(&mut self, size: usize) -> Vec<u8> {
        const SYLLABLES: &[u8] = b"tarimolesunidaketopavirosentalubemigoraxifunozedu";
        let mut bytes = Vec::with_capacity(size + 16);
        while bytes.len() < size {
            for _ in 0..=self.below(4) {
                let at = self.below(SYLLABLES.len() / 2) * 2;
                bytes.extend(&SYLLABLES[at..at + 2]);
            }
            bytes.push(if self.below(12) == 0 { b'\n' } else { b' ' });
        }
        bytes.truncate(size);
        bytes
    }
}
