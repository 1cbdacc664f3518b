//! Images by load, import, and pull from a real registry. Needs root.
#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod out;
mod setup;

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use setup::{
    Cutter, Engine, INDEX, Registry, config, digest, gzip, listening, noise, saved, tar, tenant,
    until, words,
};
use std::{
    io::Cursor,
    sync::{Arc, atomic::Ordering},
};
use tritium_engine::{
    error::{Error, chain},
    ids::TenantName,
    image::{Auth, Image, Import, Progress, Reference, Removal, Removed},
};

async fn load(engine: &Engine, archive: Vec<u8>) -> Result<Vec<Arc<Image>>, Error> {
    engine
        .images
        .load(&TenantName::operator(), Cursor::new(archive), None, Progress::default())
        .await
}

async fn pull(engine: &Engine, name: &str) -> Result<Arc<Image>, Error> {
    let name = name.parse::<Reference>().unwrap();
    let name = name.or_latest();
    let operator = TenantName::operator();
    let pulled = engine.images.pull(&operator, &name, None, None, Progress::default()).await?;
    Ok(pulled.into_iter().next().unwrap())
}

async fn remove(engine: &Engine, name: &str) -> Result<Vec<Removed>, Error> {
    let nobody = Arc::new(|_: &_| None);
    engine.images.remove(&TenantName::operator(), name, Removal::default(), nobody).await
}

/// A tmpfs of 8 MiB, gone with the value also when the test fails.
struct Small(tempfile::TempDir);

impl Small {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        mount("tmpfs", dir.path(), "tmpfs", MountFlags::empty(), c"size=8m").unwrap();
        Self(dir)
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        unmount(self.0.path(), UnmountFlags::DETACH).unwrap();
    }
}

/// The bytes of a file in the image's uppermost layer.
async fn file(engine: &Engine, image: &Image, name: &str) -> Vec<u8> {
    let id = tritium_engine::ids::ContainerId::of(tritium_engine::ids::random());
    let rootfs = engine.store.create_rootfs(id, &image.layers).await.unwrap();
    let bytes = std::fs::read(rootfs.layers_dir.join(&rootfs.lower[0]).join(name)).unwrap();
    engine.store.remove_rootfs(id).await.unwrap();
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn a_saved_image_is_loaded_listed_tagged_removed_and_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::at(dir.path()).await;
    let layers = [tar(&[("low", b"1")]), tar(&[("etc/high", b"22")])];
    let config = config(&[&layers[0], &layers[1]], "amd64");
    let (progress, said) = listening();
    let archive = Cursor::new(gzip(&saved(Some("box:1"), &config, &layers)));
    let operator = TenantName::operator();
    let loaded = engine.images.load(&operator, archive, None, progress).await.unwrap();
    assert!(words(&said.await).contains(&"Loaded image: box:1\n".to_owned()));
    let image = &loaded[0];
    assert_eq!(
        (image.id, image.size, &*image.raw),
        (digest(&config), 3, str::from_utf8(&config).unwrap())
    );
    assert_eq!(image.config.config.cmd.as_deref(), Some(&["sh".to_owned()][..]));
    assert_eq!(file(&engine, image, "etc/high").await, b"22");
    let again = "other/box".parse().unwrap();
    engine.images.tag(&operator, "box:1", &again).await.unwrap();
    drop(loaded);
    engine.stop().await;
    let engine = Engine::at(dir.path()).await;
    let hex = digest(&config).hex();
    for name in [
        "box:1",
        "other/box:latest",
        "other/box",
        &hex,
        hex.get(..12).unwrap(),
        hex.get(..4).unwrap(),
        &digest(&config).to_string(),
    ] {
        assert_eq!(engine.images.resolve(&operator, name).unwrap().id, digest(&config), "{name}");
    }
    assert_eq!(engine.images.list(&operator)[0].repo_tags, ["box:1", "other/box:latest"]);
    for (name, said) in [("box", "No such image: box:latest"), ("box:2", "No such image: box:2")] {
        assert_eq!(engine.images.resolve(&operator, name).unwrap_err().to_string(), said);
    }
    assert!(engine.images.resolve(&tenant("other"), "box:1").is_err());
    assert_eq!(remove(&engine, "box:1").await.unwrap(), [Removed::Untagged("box:1".into())]);
    engine.has_only(2).await;
    let told = remove(&engine, hex.get(..12).unwrap()).await.unwrap();
    assert_eq!(told.len(), 4, "{told:?}");
    engine.has_only(0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_oci_layout_is_loaded() {
    let engine = Engine::new().await;
    let layer = tar(&[("f", b"oci")]);
    let (packed, config) =
        (zstd::encode_all(layer.as_slice(), 1).unwrap(), config(&[&layer], "amd64"));
    let path = |bytes: &[u8]| format!("blobs/sha256/{}", digest(bytes).hex());
    let describe = |bytes: &[u8]| serde_json::json!({"digest": digest(bytes).to_string(), "size": bytes.len()});
    let manifest = serde_json::json!({"schemaVersion": 2, "config": describe(&config), "layers": [describe(&packed)]});
    let manifest = serde_json::to_vec(&manifest).unwrap();
    let mut entry = describe(&manifest);
    entry["annotations"] =
        serde_json::json!({"io.containerd.image.name": "docker.io/library/oci:x"});
    let index =
        serde_json::to_vec(&serde_json::json!({"schemaVersion": 2, "manifests": [entry]})).unwrap();
    let (layer_path, config_path, manifest_path) = (path(&packed), path(&config), path(&manifest));
    let files: [(&str, &[u8]); 5] = [
        ("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#),
        ("index.json", &index),
        (&manifest_path, &manifest),
        (&config_path, &config),
        (&layer_path, &packed),
    ];
    let loaded = load(&engine, tar(&files)).await.unwrap();
    assert_eq!(loaded[0].repo_tags, ["oci:x"]);
    assert_eq!(file(&engine, &loaded[0], "f").await, b"oci");
    engine.has_only(1).await;
    // A blob that is not what its name says.
    let mut wrong = files;
    wrong[4].1 = b"something else";
    let refused = load(&engine, tar(&wrong)).await.unwrap_err();
    assert!(refused.to_string().contains("expected sha256:"), "{refused}");
    engine.has_only(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_archive_is_refused_and_nothing_of_it_is_left() {
    let engine = Engine::new().await;
    let layer = tar(&[("f", &noise(100_000))]);
    let other = tar(&[("g", b"2")]);
    let good = config(&[&layer], "amd64");
    let whole = saved(Some("x:1"), &good, std::slice::from_ref(&layer));
    let mut evil = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.as_gnu_mut().unwrap().name[..9].copy_from_slice(b"../escape");
    header.set_size(0);
    header.set_cksum();
    evil.append(&header, &b""[..]).unwrap();
    let evil = evil.into_inner().unwrap();
    for (what, archive) in [
        ("nothing", Vec::new()),
        ("not an archive", noise(5000)),
        ("no manifest", tar(&[("x", b"y")])),
        ("a manifest that is no JSON", tar(&[("manifest.json", b"{")])),
        ("a manifest of the wrong type", tar(&[("manifest.json", br#"{"Config":7}"#)])),
        ("cut in the layer", whole[..50_000].to_vec()),
        ("cut and packed", gzip(&whole)[..50_000].to_vec()),
        ("a layer with another diff id", saved(Some("x:1"), &good, std::slice::from_ref(&other))),
        ("too few layers", saved(Some("x:1"), &good, &[])),
        ("a name that is none", saved(Some("X"), &good, std::slice::from_ref(&layer))),
        (
            "a path that leaves the root",
            saved(Some("x:1"), &config(&[&evil], "amd64"), std::slice::from_ref(&evil)),
        ),
        (
            "one good layer and one bad",
            saved(Some("x:1"), &config(&[&layer, &evil], "amd64"), &[layer.clone(), evil.clone()]),
        ),
        ("a bomb", saved(Some("x:1"), &good, &[gzip(&vec![0; 20 << 20])])),
    ] {
        let refused = load(&engine, archive).await;
        assert!(matches!(refused, Err(Error::Invalid(_))), "{what}: {refused:?}");
        assert!(engine.images.list(&TenantName::operator()).is_empty(), "{what}");
        engine.has_only(0).await;
    }
    load(&engine, whole).await.unwrap();
    engine.has_only(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_hangs_up_leaves_nothing() {
    let engine = Engine::new().await;
    let layer = tar(&[("f", &noise(3 << 20))]);
    let whole = saved(Some("x:1"), &config(&[&layer], "amd64"), &[layer]);
    let (mut client, server) = tokio::io::duplex(64 << 10);
    let operator = TenantName::operator();
    let loading = engine.images.load(&operator, server, None, Progress::default());
    let sending = async {
        tokio::io::AsyncWriteExt::write_all(&mut client, &whole[..1 << 20]).await.unwrap();
    };
    // The request is dropped, as axum does, and then the connection.
    tokio::select! { _ = loading => unreachable!(), () = sending => {} }
    drop(client);
    engine.has_only(0).await;
    assert!(engine.images.list(&operator).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_filesystem_is_imported() {
    let engine = Engine::new().await;
    let operator = TenantName::operator();
    let how = Import {
        reference: Some("mine:1".parse().unwrap()),
        message: "by hand".to_owned(),
        changes: vec!["CMD [\"/f\"]".to_owned(), "ENV A=b".to_owned()],
        platform: None,
    };
    let (progress, said) = listening();
    let archive = Cursor::new(gzip(&tar(&[("f", b"x")])));
    let image = engine.images.import(&operator, archive, how, progress).await.unwrap();
    assert_eq!(words(&said.await), [image.id.to_string()]);
    assert_eq!(image.config.config.cmd.as_deref(), Some(&["/f".to_owned()][..]));
    assert_eq!(
        (image.config.comment.as_str(), &image.repo_tags[..]),
        ("by hand", &["mine:1".to_owned()][..])
    );
    let how = Import { changes: vec!["RUN x".to_owned()], ..Import::default() };
    let refused = engine.images.import(&operator, Cursor::new(tar(&[])), how, Progress::default());
    assert_eq!(refused.await.unwrap_err().to_string(), "run is not a valid change command");
    engine.has_only(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_pulled_with_dockers_words() {
    let (engine, registry) = (Engine::new().await, Registry::start());
    let layers = [tar(&[("low", b"1")]), tar(&[("high", b"22")])];
    let packed = [gzip(&layers[0]), zstd::encode_all(layers[1].as_slice(), 1).unwrap()];
    let config = config(&[&layers[0], &layers[1]], "amd64");
    let manifest = registry.push(("team/box", "1"), &config, &packed).await;
    let name = registry.name("team/box:1");
    let reference = name.parse::<Reference>().unwrap();
    let operator = TenantName::operator();
    let (progress, said) = listening();
    let image = engine.images.pull(&operator, &reference, None, None, progress).await.unwrap();
    let image = image[0].clone();
    let said = words(&said.await);
    let [low, high] = packed.each_ref().map(|bytes| digest(bytes).short());
    assert_eq!(
        said[..3],
        [
            "1: Pulling from team/box".to_owned(),
            format!("{low}: Pulling fs layer"),
            format!("{high}: Pulling fs layer")
        ]
    );
    for layer in [&low, &high] {
        let at =
            |word: &str| said.iter().position(|one| *one == format!("{layer}: {word}")).unwrap();
        assert!(at("Download complete") < at("Pull complete"));
    }
    let end = [
        format!("Digest: {}", digest(manifest.as_bytes())),
        format!("Status: Downloaded newer image for {name}"),
    ];
    assert_eq!(said[said.len() - 2..], end);
    assert_eq!(file(&engine, &image, "high").await, b"22");
    let whole = format!("{}@{}", registry.name("team/box"), digest(manifest.as_bytes()));
    assert_eq!(
        (&image.repo_tags, &image.repo_digests),
        (&vec![name.clone()], &vec![whole.clone()])
    );
    let (progress, said) = listening();
    engine.images.pull(&operator, &reference, None, None, progress).await.unwrap();
    let said = words(&said.await);
    assert_eq!(said.last().unwrap(), &format!("Status: Image is up to date for {name}"));
    assert!(said.contains(&format!("{low}: Already exists")));
    assert_eq!(pull(&engine, &whole).await.unwrap().id, image.id);
    engine.has_only(2).await;
    let told = remove(&engine, &name).await.unwrap();
    assert_eq!(told[..2], [Removed::Untagged(name), Removed::Untagged(whole)]);
    engine.has_only(0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_image_for_this_machine_is_chosen_from_an_index() {
    let (engine, registry) = (Engine::new().await, Registry::start());
    let layer = tar(&[("f", b"x")]);
    let mut entries = Vec::new();
    for architecture in ["amd64", "arm64"] {
        let config = config(&[&layer], architecture);
        let manifest = registry.push(("multi", architecture), &config, &[gzip(&layer)]).await;
        entries.push(serde_json::json!({
            "mediaType": setup::MANIFEST, "size": manifest.len(),
            "digest": digest(manifest.as_bytes()).to_string(),
            "platform": {"os": "linux", "architecture": architecture},
        }));
    }
    let index = serde_json::json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries});
    registry.put_manifest("multi", "latest", INDEX, index.to_string()).await;
    let image = pull(&engine, &registry.name("multi")).await.unwrap();
    assert_eq!(image.config.architecture, tritium_engine::image::Platform::host().architecture);
    let other = tritium_engine::image::Platform {
        os: "linux".into(),
        architecture: "s390x".into(),
        variant: None,
    };
    let reference = registry.name("multi:latest").parse().unwrap();
    let operator = TenantName::operator();
    let refused = engine.images.pull(&operator, &reference, Some(other), None, Progress::default());
    assert_eq!(
        refused.await.unwrap_err().to_string(),
        "no matching manifest for linux/s390x in the manifest list entries"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_in_the_registry_is_not_found_in_dockers_words() {
    let (engine, registry) = (Engine::new().await, Registry::start());
    let name = registry.name("none:1");
    let refused = pull(&engine, &name).await.unwrap_err();
    assert!(matches!(refused, Error::NotFound(_)));
    assert_eq!(
        refused.to_string(),
        format!("manifest for {name} not found: manifest unknown: manifest unknown")
    );
    let gone = registry.name("x");
    drop(registry);
    let refused = chain(&pull(&engine, &gone).await.unwrap_err());
    assert!(refused.contains("Connection refused"), "{refused}");
    engine.has_only(0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_that_is_not_what_its_manifest_says_is_refused() {
    let (engine, registry) = (Engine::new().await, Registry::start());
    let [layer, other] = [tar(&[("f", b"x")]), tar(&[("g", b"y")])];
    registry.push(("x", "diff"), &config(&[&other], "amd64"), &[gzip(&layer)]).await;
    let refused = pull(&engine, &registry.name("x:diff")).await.unwrap_err();
    assert!(refused.to_string().contains("the configuration says"), "{refused}");
    registry.push(("x", "count"), &config(&[&layer, &other], "amd64"), &[gzip(&layer)]).await;
    let refused = pull(&engine, &registry.name("x:count")).await.unwrap_err();
    assert!(refused.to_string().contains("layers length mismatch"), "{refused}");
    engine.has_only(0).await;
}

/// Every byte comes from a server that lies about one blob.
#[tokio::test(flavor = "multi_thread")]
async fn a_blob_with_another_digest_is_refused() {
    let engine = Engine::new().await;
    let layer = tar(&[("f", b"x")]);
    let (packed, config) = (gzip(&layer), config(&[&layer], "amd64"));
    let describe = |bytes: &[u8]| serde_json::json!({"digest": digest(bytes).to_string(), "size": bytes.len()});
    let manifest = serde_json::json!({"schemaVersion": 2, "config": describe(&config), "layers": [describe(&packed)]});
    let mut wrong = packed.clone();
    *wrong.last_mut().unwrap() ^= 1;
    let (manifest, blob) = (manifest.to_string(), digest(&config).to_string());
    let answer = move |axum::extract::Path(path): axum::extract::Path<String>| {
        let bytes = match path.rsplit_once('/').unwrap_or(("", "")) {
            (kind, _) if kind.ends_with("manifests") => manifest.clone().into_bytes(),
            (_, name) if name == blob => config.clone(),
            _ => wrong.clone(),
        };
        async move { bytes }
    };
    let router = axum::Router::new().route("/v2/{*path}", axum::routing::get(answer));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let tracker = tokio_util::task::TaskTracker::new();
    tracker.spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let service = hyper_util::service::TowerToHyperService::new(router.clone());
            let served = hyper::server::conn::http1::Builder::new()
                .serve_connection(hyper_util::rt::TokioIo::new(stream), service);
            // The engine may hang up first.
            drop(served.await);
        }
    });
    let refused = chain(&pull(&engine, &format!("{address}/x")).await.unwrap_err());
    assert!(refused.contains("the registry sent sha256:"), "{refused}");
    engine.has_only(0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_goes_on_over_a_connection_that_breaks() {
    let (engine, registry) = (Engine::new().await, Registry::start());
    let layer = tar(&[("f", &noise(3 << 20))]);
    registry.push(("big", "latest"), &config(&[&layer], "amd64"), &[gzip(&layer)]).await;
    let cutter = Cutter::start(registry.address, 1 << 20, u64::MAX).await;
    let image = pull(&engine, &format!("{}/big", cutter.address)).await.unwrap();
    assert!(cutter.connections.load(Ordering::SeqCst) >= 4);
    assert_eq!(file(&engine, &image, "f").await, noise(3 << 20));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_dies_half_way_leaves_nothing() {
    let (engine, registry) = (Engine::new().await, Registry::start());
    let layers = [tar(&[("f", b"small")]), tar(&[("f", &noise(3 << 20))])];
    let packed = layers.each_ref().map(|layer| gzip(layer));
    registry.push(("big", "latest"), &config(&[&layers[0], &layers[1]], "amd64"), &packed).await;
    let cutter = Cutter::start(registry.address, 1 << 20, 1).await;
    let refused = pull(&engine, &format!("{}/big", cutter.address)).await;
    assert!(refused.is_err());
    assert_eq!(cutter.lives.load(Ordering::SeqCst), 0);
    engine.has_only(0).await;
    assert!(engine.images.list(&TenantName::operator()).is_empty());
    pull(&engine, &registry.name("big")).await.unwrap();
    engine.has_only(2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_who_pull_the_same_share_one_pull_and_one_may_leave() {
    let (engine, registry) = (Engine::new().await, Registry::start());
    let layer = tar(&[("f", &noise(3 << 20))]);
    registry.push(("big", "latest"), &config(&[&layer], "amd64"), &[gzip(&layer)]).await;
    // How many connections one pull takes.
    let alone = Cutter::start(registry.address, u64::MAX, 1).await;
    pull(&Engine::new().await, &format!("{}/big", alone.address)).await.unwrap();
    let shared = Cutter::start(registry.address, u64::MAX, 1).await;
    let name = format!("{}/big", shared.address);
    {
        let first = pull(&engine, &name);
        let begun =
            until("the first pull has begun", || shared.connections.load(Ordering::SeqCst) > 0);
        tokio::select! { _ = first => {}, () = begun => {} }
    }
    let pulls = futures_util::future::join_all((0..5).map(|_| pull(&engine, &name))).await;
    let id = pulls[0].as_ref().unwrap().id;
    assert!(pulls.iter().all(|pulled| pulled.as_ref().unwrap().id == id));
    let count = |cutter: &Cutter| cutter.connections.load(Ordering::SeqCst);
    assert!(count(&shared) <= count(&alone), "{} and {}", count(&shared), count(&alone));
    engine.has_only(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_gets_no_layer_by_naming_it() {
    let (engine, registry) = (Engine::new().await, Registry::start());
    let secret = tar(&[("secret", b"x")]);
    let archive = saved(Some("own:1"), &config(&[&secret], "amd64"), std::slice::from_ref(&secret));
    load(&engine, archive).await.unwrap();
    // Another tenant knows the diff id, and has other bytes.
    registry
        .push(("thief", "1"), &config(&[&secret], "amd64"), &[gzip(&tar(&[("f", b"y")]))])
        .await;
    let reference = registry.name("thief:1").parse().unwrap();
    let other = tenant("other");
    let refused = engine.images.pull(&other, &reference, None, None, Progress::default()).await;
    assert!(matches!(refused, Err(Error::Invalid(_))), "{refused:?}");
    assert!(engine.images.list(&other).is_empty());
    // With the bytes it shares the directory.
    registry.push(("friend", "1"), &config(&[&secret], "arm64"), &[gzip(&secret)]).await;
    let reference = registry.name("friend:1").parse().unwrap();
    engine.images.pull(&other, &reference, None, None, Progress::default()).await.unwrap();
    engine.has_only(1).await;
    remove(&engine, "own:1").await.unwrap();
    engine.has_only(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_an_image_and_takes_a_smaller_one() {
    let small = Small::new();
    let engine = Engine::at(small.0.path()).await;
    let registry = Registry::start();
    let large = tar(&[("f", &noise(9 << 20))]);
    registry.push(("large", "latest"), &config(&[&large], "amd64"), &[gzip(&large)]).await;
    let archive = saved(Some("x:1"), &config(&[&large], "amd64"), &[large]);
    for refused in [
        load(&engine, archive).await,
        pull(&engine, &registry.name("large")).await.map(|i| vec![i]),
    ] {
        let refused = refused.unwrap_err().to_string();
        assert!(refused.contains("no space left on device"), "{refused}");
        engine.has_only(0).await;
    }
    let small = tar(&[("f", b"x")]);
    let small = saved(Some("x:2"), &config(&[&small], "amd64"), &[small]);
    // A child that another test is making may have our descriptors, and so what
    // was deleted, until it comes to `execve`.
    let begun = std::time::Instant::now();
    while let Err(error) = load(&engine, small.clone()).await {
        assert!(error.to_string().contains("no space left on device"), "{error}");
        assert!(begun.elapsed() < std::time::Duration::from_secs(20), "{error}");
    }
    engine.has_only(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_asked_for_with_the_users_password() {
    let engine = Engine::new().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let answer = move |request: axum::extract::Request| async move {
        use axum::response::IntoResponse;
        let header =
            |name: &str| request.headers().get(name).map(|v| v.to_str().unwrap().to_owned());
        let realm = format!(
            "Bearer realm=\"http://{address}/token\",service=\"s\",scope=\"repository:x:pull\""
        );
        match (request.uri().path(), header("authorization").as_deref()) {
            // user:word
            ("/token", Some("Basic dXNlcjp3b3Jk")) => r#"{"access_token":"abc"}"#.into_response(),
            ("/token", _) => (
                http::StatusCode::UNAUTHORIZED,
                r#"{"errors":[{"code":"UNAUTHORIZED","message":"bad"}]}"#,
            )
                .into_response(),
            (_, Some("Bearer abc")) => (
                http::StatusCode::NOT_FOUND,
                r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"in"}]}"#,
            )
                .into_response(),
            _ => (http::StatusCode::UNAUTHORIZED, [("www-authenticate", realm)], "{}")
                .into_response(),
        }
    };
    let router = axum::Router::new().fallback(answer);
    let tracker = tokio_util::task::TaskTracker::new();
    let spawn = tracker.clone();
    tracker.spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let service = hyper_util::service::TowerToHyperService::new(router.clone());
            let served = hyper::server::conn::http1::Builder::new()
                .serve_connection(hyper_util::rt::TokioIo::new(stream), service);
            // The engine may hang up first.
            spawn.spawn(async move { drop(served.await) });
        }
    });
    let name = format!("{address}/x:1").parse::<Reference>().unwrap();
    for (password, said) in
        [("word", "not found: manifest unknown: in"), ("wrong", "unauthorized: bad")]
    {
        let auth = Auth::Basic { username: "user".into(), password: password.into() };
        let operator = TenantName::operator();
        let pulled = engine.images.pull(&operator, &name, None, Some(auth), Progress::default());
        let refused = pulled.await.unwrap_err().to_string();
        assert!(refused.contains(said), "{refused}");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement: cargo test --release --test images measure -- --ignored --nocapture"]
async fn measure_unpacking() {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let engine = Engine::at(dir.path()).await;
    // 120 files of 100 KiB, half of them compressible: below the limit of 16 MiB.
    let text = b"all work and no play makes jack a dull boy\n".repeat(2400);
    let noise = noise(100 << 10);
    let names = Vec::from_iter((0..120).map(|n| format!("usr/share/d{}/f{n}", n % 10)));
    let bytes = [text.as_slice(), noise.as_slice()];
    let files = Vec::from_iter(names.iter().enumerate().map(|(n, name)| (&**name, bytes[n % 2])));
    let plain = tar(&files);
    let packed = [plain.clone(), gzip(&plain), zstd::encode_all(plain.as_slice(), 3).unwrap()];
    for (kind, archive) in ["plain", "gzip", "zstd"].iter().zip(packed) {
        let mut took = Vec::new();
        for round in 0..9 {
            let how = Import { message: round.to_string(), ..Import::default() };
            let archive = Cursor::new(archive.clone());
            let begun = std::time::Instant::now();
            let operator = TenantName::operator();
            let imported = engine.images.import(&operator, archive, how, Progress::default()).await;
            took.push(begun.elapsed());
            remove(&engine, &imported.unwrap().id.to_string()).await.unwrap();
            engine.has_only(0).await;
        }
        took.sort();
        let rate = plain.len() as f64 / 1e6 / took[4].as_secs_f64();
        println!("{kind}: {} bytes, import p50 {:?}, {rate:.0} MB/s", plain.len(), took[4]);
    }
}
