//! A registry, an engine's storage and images, and content to put in.

use axum::body::Bytes;
use sha2::{Digest as _, Sha256};
use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::task::TaskTracker;
use tritium_engine::{
    ids::{Digest, TenantName},
    image::{Images, Limits, Message, Progress},
    storage::Store,
};

/// What is under test, in a directory of its own.
pub(crate) struct Engine {
    pub(crate) store: Store,
    pub(crate) images: Images,
    pub(crate) dir: PathBuf,
    tracker: TaskTracker,
    _own: Option<tempfile::TempDir>,
}

impl Engine {
    pub(crate) async fn new() -> Self {
        let own = tempfile::tempdir().unwrap();
        let mut engine = Self::at(own.path()).await;
        engine._own = Some(own);
        engine
    }

    pub(crate) async fn at(dir: &Path) -> Self {
        let tracker = TaskTracker::new();
        let store = Store::open(dir, tracker.clone()).await.unwrap();
        let limits = Limits { bytes: 16 << 20, entries: 1000 };
        let images = Images::with_limits(store.clone(), tracker.clone(), limits).await.unwrap();
        Self { store, images, dir: dir.to_owned(), tracker, _own: None }
    }

    /// Stops it as the daemon does: every task has ended.
    pub(crate) async fn stop(self) {
        let Self { store, images, tracker, .. } = self;
        drop((store, images));
        tracker.close();
        tracker.wait().await;
    }

    /// Waits until nothing is left but these many layers.
    pub(crate) async fn has_only(&self, layers: usize) {
        let count = |name: &str| std::fs::read_dir(self.dir.join(name)).unwrap().count();
        until("nothing half done is left", || {
            let rest = ["tmp", "trash", "blobs/sha256"].map(count);
            // Beside the empty one and the one of mount points.
            rest == [0; 3] && count("layers") == layers + 2 && count("recipes") == layers
        })
        .await;
    }
}

/// Waits for a state.
pub(crate) async fn until(what: &str, mut is: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is() {
        assert!(begun.elapsed() < Duration::from_secs(20), "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub(crate) fn tenant(name: &str) -> TenantName {
    name.parse().unwrap()
}

/// A progress, and what has been said when all is done.
pub(crate) fn listening() -> (Progress, impl Future<Output = Vec<Message>>) {
    let (progress, mut receiver) = Progress::channel();
    let said = async move {
        let mut said = Vec::new();
        while let Some(message) = receiver.recv().await {
            said.push(message);
        }
        said
    };
    (progress, said)
}

/// The words only: no bars.
pub(crate) fn words(said: &[Message]) -> Vec<String> {
    let word = |message: &Message| match message {
        Message::Status { id: Some(id), status } => Some(format!("{id}: {status}")),
        Message::Status { id: None, status } => Some(status.clone()),
        Message::Stream(text) => Some(text.clone()),
        Message::Tick { .. } | Message::Aux(_) => None,
    };
    said.iter().filter_map(word).collect()
}

pub(crate) fn digest(bytes: &[u8]) -> Digest {
    Digest::of(Sha256::digest(bytes).into())
}

/// An archive of files.
pub(crate) fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, *bytes).unwrap();
    }
    builder.into_inner().unwrap()
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut encoder, bytes).unwrap();
    encoder.finish().unwrap()
}

/// Bytes that do not compress.
pub(crate) fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[0]
    };
    (0..len).map(|_| next()).collect()
}

pub(crate) fn config(layers: &[&[u8]], architecture: &str) -> Vec<u8> {
    let diff_ids = Vec::from_iter(layers.iter().map(|layer| digest(layer).to_string()));
    let config = serde_json::json!({
        "architecture": architecture, "os": "linux",
        "config": {"Cmd": ["sh"], "Env": ["PATH=/bin"], "Labels": null},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    serde_json::to_vec(&config).unwrap()
}

/// As `docker save` writes it.
pub(crate) fn saved(name: Option<&str>, config: &[u8], layers: &[Vec<u8>]) -> Vec<u8> {
    let file = |index: usize| format!("layer{index}/layer.tar");
    let manifest = serde_json::json!([{
        "Config": "config.json",
        "RepoTags": name.map(|name| vec![name]),
        "Layers": Vec::from_iter((0..layers.len()).map(file)),
    }]);
    let manifest = serde_json::to_vec(&manifest).unwrap();
    let names = Vec::from_iter((0..layers.len()).map(file));
    let mut files =
        Vec::from_iter(names.iter().map(String::as_str).zip(layers.iter().map(|l| &**l)));
    files.push(("config.json", config));
    files.push(("manifest.json", &manifest));
    tar(&files)
}

/// Debian's registry on a port of its own.
pub(crate) struct Registry {
    process: Child,
    pub(crate) address: SocketAddr,
    _dir: tempfile::TempDir,
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Registry {
    pub(crate) fn start() -> Self {
        Self::with("")
    }

    /// That lets in the user `user` with the password `word` only.
    pub(crate) fn with_password() -> Self {
        Self::with("auth:\n  htpasswd:\n    realm: here\n    path: DIR/passwords\n")
    }

    fn with(more: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("config.yml");
        let text = format!(
            "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: DIR/data\nhttp:\n  addr: \
             127.0.0.1:0\n{more}"
        );
        let text = text.replace("DIR", dir.path().to_str().unwrap());
        let passwords = "user:$2b$04$/xTcwjIA8ZSjKzwBBRi56.qAnI92HmNRdLnO/DwH2tS9ZhLsE5hCq\n";
        let place = dir.path().join("passwords");
        tritium_engine::storage::atomic::write(&place, passwords.as_bytes(), 0o600).unwrap();
        tritium_engine::storage::atomic::write(&config, text.as_bytes(), 0o600).unwrap();
        let mut process = Command::new("docker-registry")
            .arg("serve")
            .arg(config)
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("the Debian package docker-registry is installed");
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines().map(Result::unwrap);
        let address = lines.find_map(|line| {
            let (_, rest) = line.split_once("listening on ")?;
            rest.split('"').next()?.parse().ok()
        });
        // Its log is read on, or it stops at a full pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Self { process, address: address.unwrap(), _dir: dir }
    }

    pub(crate) fn name(&self, rest: &str) -> String {
        format!("{}/{rest}", self.address)
    }

    async fn put_blob(&self, repository: &str, bytes: &[u8]) {
        let client = client();
        let url = format!("http://{}/v2/{repository}/blobs/uploads/", self.address);
        let begun = client.post(url).send().await.unwrap();
        let place = begun.headers()["location"].to_str().unwrap().to_owned();
        let place = format!("{place}&digest={}", digest(bytes));
        let put = client.put(place).body(Bytes::copy_from_slice(bytes)).send().await.unwrap();
        assert_eq!(put.status(), 201);
    }

    pub(crate) async fn put_manifest(&self, repository: &str, tag: &str, kind: &str, text: String) {
        let url = format!("http://{}/v2/{repository}/manifests/{tag}", self.address);
        let put = client().put(url).header("content-type", kind).body(text).send().await.unwrap();
        let status = put.status();
        assert_eq!(status, 201, "{}", put.text().await.unwrap());
    }

    /// An image whose layers are as given; the manifest.
    pub(crate) async fn push(
        &self,
        name: (&str, &str),
        config: &[u8],
        layers: &[Vec<u8>],
    ) -> String {
        for blob in layers.iter().map(Vec::as_slice).chain([config]) {
            self.put_blob(name.0, blob).await;
        }
        let describe = |kind: &str, bytes: &[u8]| serde_json::json!({"mediaType": kind, "digest": digest(bytes).to_string(), "size": bytes.len()});
        let layer = "application/vnd.docker.image.rootfs.diff.tar.gzip";
        let manifest = serde_json::json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": describe("application/vnd.docker.container.image.v1+json", config),
            "layers": Vec::from_iter(layers.iter().map(|bytes| describe(layer, bytes))),
        });
        self.put_manifest(name.0, name.1, MANIFEST, manifest.to_string()).await;
        manifest.to_string()
    }
}

pub(crate) const MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";

fn client() -> reqwest::Client {
    drop(rustls::crypto::ring::default_provider().install_default());
    reqwest::Client::builder().no_proxy().tls_danger_accept_invalid_certs(true).build().unwrap()
}

/// Between an engine and a registry: cuts every connection after that many
/// bytes of answers, and takes no more connections once it has died.
pub(crate) struct Cutter {
    pub(crate) address: SocketAddr,
    pub(crate) connections: Arc<AtomicUsize>,
    /// Cuts until it dies.
    pub(crate) lives: Arc<AtomicU64>,
}

impl Cutter {
    pub(crate) async fn start(to: SocketAddr, after: u64, lives: u64) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (connections, lives) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicU64::new(lives)));
        let (counted, left) = (connections.clone(), lives.clone());
        let tracker = TaskTracker::new();
        let spawn = tracker.clone();
        tracker.spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if left.load(Ordering::SeqCst) == 0 {
                    return;
                }
                counted.fetch_add(1, Ordering::SeqCst);
                let left = left.clone();
                spawn.spawn(async move {
                    let server = tokio::net::TcpStream::connect(to).await.unwrap();
                    forward(client, server, after, &left).await;
                });
            }
        });
        Self { address, connections, lives }
    }
}

async fn forward(
    client: tokio::net::TcpStream,
    server: tokio::net::TcpStream,
    after: u64,
    lives: &AtomicU64,
) {
    let (mut asks, mut hears) = client.into_split();
    let (mut answers, mut asked) = server.into_split();
    let up = async {
        // Either side may hang up.
        drop(tokio::io::copy(&mut asks, &mut asked).await);
        std::future::pending::<()>().await;
    };
    let down = async {
        let mut left = after;
        let mut buffer = vec![0; 16 << 10];
        while let Ok(count) = answers.read(&mut buffer).await {
            if count == 0 || lives.load(Ordering::SeqCst) == 0 {
                return;
            }
            if count as u64 > left {
                lives.fetch_sub(1, Ordering::SeqCst);
                return;
            }
            left -= count as u64;
            if hears.write_all(&buffer[..count]).await.is_err() {
                return;
            }
        }
    };
    tokio::select! { () = down => {}, () = up => {} }
}
