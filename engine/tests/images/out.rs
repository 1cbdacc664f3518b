//! Images that go out: save, push, and what is asked of a registry.

use crate::{
    load, pull, remove,
    setup::{Engine, Registry, config, digest, gzip, listening, noise, saved, tar, tenant, words},
};
use futures_util::TryStreamExt;
use std::{
    collections::BTreeMap,
    io::{Cursor, Read},
};
use tritium_engine::{
    error::{Error, chain},
    ids::TenantName,
    image::{Auth, Message, Platform, Progress, Reference},
    storage::StoreError,
};

async fn save(engine: &Engine, names: &[&str]) -> Vec<u8> {
    let names = Vec::from_iter(names.iter().map(|name| (*name).to_owned()));
    let saved = engine.images.save(&TenantName::operator(), &names, None).await.unwrap();
    let blocks: Vec<_> = saved.archive.into_stream().try_collect().await.unwrap();
    blocks.concat()
}

fn files(archive: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let mut archive = tar::Archive::new(archive);
    let entries = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        (entry.path().unwrap().to_str().unwrap().to_owned(), bytes)
    });
    entries.collect()
}

/// A layer with everything that makes its archive differ from what a plain
/// walk over its files would write.
fn odd_layer() -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut add = |name: &str, kind: tar::EntryType, link: &str, bytes: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(bytes.len() as u64);
        header.set_mode(0o640);
        header.set_mtime(1_700_000_000);
        if link.is_empty() {
            builder.append_data(&mut header, name, bytes).unwrap();
        } else {
            builder.append_link(&mut header, name, link).unwrap();
        }
    };
    use tar::EntryType as Kind;
    let long = format!("{}/{}", "d".repeat(90), "f".repeat(120));
    add("z-comes-first", Kind::Regular, "", b"zzz");
    add("dir", Kind::Directory, "", b"");
    add("dir/file", Kind::Regular, "", &noise(100_000));
    add("link", Kind::Symlink, "dir", b"");
    // Through a link, which is replaced later: the file is still `dir/through`.
    add("link/through", Kind::Regular, "", b"through");
    add("link", Kind::Regular, "", b"a file now");
    // Twice, with a hard link to the first one.
    add("twice", Kind::Regular, "", b"the first");
    add("hard", Kind::Link, "twice", b"");
    add("twice", Kind::Regular, "", b"the second");
    add("hard", Kind::Regular, "", b"another");
    add("lost", Kind::Regular, "", b"replaced by a link");
    add("lost", Kind::Symlink, "nowhere", b"");
    add(".wh.below", Kind::Regular, "", b"");
    add("dir/.wh..wh..opq", Kind::Regular, "", b"");
    add(&long, Kind::Regular, "", b"long");
    add("empty", Kind::Regular, "", b"");
    let mut bytes = builder.into_inner().unwrap();
    // What some writers leave behind the end.
    bytes.extend_from_slice(&[0; 10 * 512]);
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_saved_has_every_layer_byte_for_byte_and_loads_to_the_same_ids() {
    let engine = Engine::new().await;
    let layers = [odd_layer(), tar(&[("high", b"22")])];
    let lower = config(&layers[..1].iter().map(|l| &**l).collect::<Vec<_>>(), "amd64");
    let higher = config(&[&layers[0], &layers[1]], "amd64");
    load(&engine, saved(Some("low:1"), &lower, &layers[..1])).await.unwrap();
    load(&engine, saved(Some("team/high:2"), &higher, &layers)).await.unwrap();
    let operator = TenantName::operator();
    let second = "team/high:3".parse().unwrap();
    engine.images.tag(&operator, "team/high:2", &second).await.unwrap();

    let archive = save(&engine, &["low:1", "team/high"]).await;
    let files = files(&archive);
    for bytes in [&layers[0], &layers[1], &lower, &higher] {
        let name = format!("blobs/sha256/{}", digest(bytes).hex());
        assert!(files[&name] == *bytes, "{name}");
    }
    let manifest: serde_json::Value = serde_json::from_slice(&files["manifest.json"]).unwrap();
    assert_eq!(manifest[0]["RepoTags"], serde_json::json!(["low:1"]));
    assert_eq!(manifest[1]["RepoTags"], serde_json::json!(["team/high:2", "team/high:3"]));
    assert_eq!(manifest[1]["Layers"].as_array().unwrap().len(), 2);
    // Two configurations, two manifests, two layers: nothing twice.
    assert_eq!(files.keys().filter(|name| name.starts_with("blobs/sha256/")).count(), 7);

    let other = Engine::new().await;
    // As Docker's own archive, and as an OCI layout.
    let oci = files.iter().filter(|(name, _)| *name != "manifest.json" && !name.ends_with('/'));
    let oci = Vec::from_iter(oci.map(|(name, bytes)| (name.as_str(), bytes.as_slice())));
    for one in [archive.clone(), tar(&oci)] {
        load(&other, one).await.unwrap();
        for (name, config) in [("low:1", &lower), ("team/high:3", &higher)] {
            assert_eq!(other.images.resolve(&operator, name).unwrap().id, digest(config), "{name}");
        }
        assert!(save(&other, &["low:1", "team/high"]).await == archive);
        for name in ["low:1", "team/high:2", "team/high:3"] {
            remove(&other, name).await.unwrap();
        }
        other.has_only(0).await;
    }
    // By id there is no name in it.
    let nameless = save(&engine, &[&digest(&lower).hex()]).await;
    let nameless: serde_json::Value =
        serde_json::from_slice(&self::files(&nameless)["manifest.json"]).unwrap();
    assert_eq!(nameless[0]["RepoTags"], serde_json::Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_saved_is_refused_before_the_first_byte() {
    let engine = Engine::new().await;
    let layer = tar(&[("f", b"x")]);
    load(&engine, saved(Some("x:1"), &config(&[&layer], "amd64"), &[layer])).await.unwrap();
    let operator = TenantName::operator();
    let arm = Platform { os: "linux".into(), architecture: "arm64".into(), variant: None };
    let say = async |tenant: &TenantName, name: &str, platform: Option<&Platform>| {
        let refused = engine.images.save(tenant, &[name.to_owned()], platform).await;
        let refused = refused.map(|saved| saved.images.len()).unwrap_err();
        assert!(matches!(refused, Error::NotFound(_)), "{refused:?}");
        refused.to_string()
    };
    assert_eq!(say(&operator, "nope", None).await, "No such image: nope");
    assert_eq!(say(&operator, "nope:1", None).await, "reference does not exist");
    assert_eq!(say(&tenant("other"), "x:1", None).await, "reference does not exist");
    assert_eq!(
        say(&operator, "x:1", Some(&arm)).await,
        "no suitable export target found for platform linux/arm64"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_that_was_changed_by_hand_is_not_given_out_as_whole() {
    let engine = Engine::new().await;
    let layer = tar(&[("f", b"right")]);
    load(&engine, saved(Some("x:1"), &config(&[&layer], "amd64"), &[layer])).await.unwrap();
    tritium_engine::storage::atomic::write(&engine.dir.join("layers/1/f"), b"wrong", 0o600)
        .unwrap();
    let saved =
        engine.images.save(&TenantName::operator(), &["x:1".to_owned()], None).await.unwrap();
    let broken = saved.archive.into_stream().try_collect::<Vec<_>>().await.unwrap_err();
    assert_eq!(broken.to_string(), "its files are not those that were unpacked");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_directory_of_version_1_is_read_and_its_layers_get_their_recipes() {
    let dir = tempfile::tempdir().unwrap();
    let golden = std::fs::File::open("tests/images/golden/state-v1.tar.gz").unwrap();
    let mut golden = tar::Archive::new(flate2::read::GzDecoder::new(golden));
    golden.unpack(dir.path()).unwrap();
    let engine = Engine::at(dir.path()).await;
    let operator = TenantName::operator();
    let image = engine.images.resolve(&operator, "golden:1").unwrap();
    assert_eq!(image.repo_tags, ["golden:1", "team/golden:2"]);
    assert_eq!(image.config.config.labels["golden"], "1");
    let refused = engine.images.save(&operator, &["golden:1".to_owned()], None).await;
    assert!(matches!(refused, Err(Error::Conflict(_))), "{:?}", refused.map(|saved| saved.images));
    assert!(matches!(engine.store.layer_archive(image.layers[0]), Err(StoreError::NoArchive(_))));
    // Whoever shows the bytes again gives the layers what they lack.
    let layers = image.layers.iter().map(|layer| layer.to_string());
    assert_eq!(layers.collect::<Vec<_>>().len(), 2);
    let again = std::fs::read("tests/images/golden/image-v1.tar.gz").unwrap();
    assert_eq!(load(&engine, again).await.unwrap()[0].id, image.id);
    let archive = save(&engine, &["golden:1"]).await;
    engine.stop().await;
    let engine = Engine::at(dir.path()).await;
    assert!(save(&engine, &["golden:1"]).await == archive);
    engine.stop().await;
}

async fn push(
    engine: &Engine,
    name: &str,
    auth: Option<Auth>,
) -> (Result<(), Error>, Vec<Message>) {
    let name = name.parse::<Reference>().unwrap();
    let (progress, said) = listening();
    let operator = TenantName::operator();
    let pushed = engine.images.push(&operator, &name, None, auth, progress).await;
    (pushed.map(drop), said.await)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_pushed_with_dockers_words_and_pulled_again() {
    let (engine, registry) = (Engine::new().await, Registry::start());
    let layers = [odd_layer(), tar(&[("high", b"22")])];
    let config = config(&[&layers[0], &layers[1]], "amd64");
    load(&engine, saved(Some("box:1"), &config, &layers)).await.unwrap();
    let operator = TenantName::operator();
    let [first, second] = ["team/box:1", "other/box:2"].map(|name| registry.name(name));
    for name in [&first, &second] {
        engine.images.tag(&operator, "box:1", &name.parse().unwrap()).await.unwrap();
    }
    let [low, high] = layers.each_ref().map(|layer| digest(layer).short());
    let (pushed, said) = push(&engine, &first, None).await;
    pushed.unwrap();
    let spoken = words(&said);
    assert_eq!(spoken[0], format!("The push refers to repository [{}]", registry.name("team/box")));
    assert_eq!(spoken[1..3], [format!("{high}: Preparing"), format!("{low}: Preparing")]);
    for layer in [&low, &high] {
        assert!(spoken.contains(&format!("{layer}: Pushed")), "{spoken:?}");
    }
    let Some(Message::Aux(aux)) = said.last() else { panic!("{said:?}") };
    let end = format!("1: digest: {} size: {}", aux["Digest"].as_str().unwrap(), aux["Size"]);
    assert_eq!(spoken.last(), Some(&end));
    let image = engine.images.resolve(&operator, "box:1").unwrap();
    let whole = format!("{}@{}", registry.name("team/box"), aux["Digest"].as_str().unwrap());
    assert_eq!(image.repo_digests, [whole.as_str()]);
    // Nothing is sent that is there already, here or next door.
    let (pushed, said) = push(&engine, &first, None).await;
    pushed.unwrap();
    assert!(words(&said).contains(&format!("{low}: Layer already exists")));
    let (pushed, said) = push(&engine, &second, None).await;
    pushed.unwrap();
    assert!(words(&said).contains(&format!("{low}: Mounted from team/box")), "{said:?}");

    let other = Engine::new().await;
    let pulled = pull(&other, &whole).await.unwrap();
    assert_eq!(pulled.id, digest(&config));
    assert!(
        files(&save(&other, &[&pulled.id.to_string()]).await)
            .contains_key(&format!("blobs/sha256/{}", digest(&layers[0]).hex()))
    );
    // It was learned from the pull where the layers are.
    let third = registry.name("third:3");
    other.images.tag(&operator, &pulled.id.to_string(), &third.parse().unwrap()).await.unwrap();
    let (pushed, said) = push(&other, &third, None).await;
    pushed.unwrap();
    assert!(words(&said).contains(&format!("{low}: Mounted from team/box")), "{said:?}");
    let seen = other.images.distribution(&operator, &third.parse().unwrap(), None).await.unwrap();
    assert_eq!(Some(seen.digest.to_string().as_str()), aux["Digest"].as_str());
    assert_eq!(seen.platforms[0].to_string(), "linux/amd64");
}

#[tokio::test(flavor = "multi_thread")]
async fn all_tags_of_a_repository_are_pushed_and_pulled() {
    let (engine, registry) = (Engine::new().await, Registry::start());
    let operator = TenantName::operator();
    for tag in ["a", "b"] {
        let layer = tar(&[(tag, b"x")]);
        let archive = saved(Some(tag), &config(&[&layer], "amd64"), &[layer]);
        load(&engine, archive).await.unwrap();
        let name = registry.name(&format!("many:{tag}")).parse().unwrap();
        engine.images.tag(&operator, tag, &name).await.unwrap();
    }
    push(&engine, &registry.name("many"), None).await.0.unwrap();
    let other = Engine::new().await;
    let (progress, said) = listening();
    let name = registry.name("many").parse().unwrap();
    let pulled = other.images.pull(&operator, &name, None, None, progress).await.unwrap();
    assert_eq!(pulled.len(), 2);
    let end = format!("Status: Downloaded newer image for {}", registry.name("many"));
    assert_eq!(words(&said.await).last(), Some(&end));
    other.has_only(2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_with_a_password_lets_in_who_has_it() {
    let (engine, registry) = (Engine::new().await, Registry::with_password());
    let layer = tar(&[("f", b"x")]);
    load(&engine, saved(Some("x:1"), &config(&[&layer], "amd64"), &[layer])).await.unwrap();
    let name = registry.name("x:1");
    let operator = TenantName::operator();
    engine.images.tag(&operator, "x:1", &name.parse().unwrap()).await.unwrap();
    let basic = |password: &str| Auth::Basic { username: "user".into(), password: password.into() };
    let host = registry.address.to_string();
    for (auth, said) in
        [(None, "no basic auth credentials"), (Some(basic("bad")), "authentication required")]
    {
        let (refused, _) = push(&engine, &name, auth.clone()).await;
        let refused = refused.unwrap_err();
        assert!(matches!(refused, Error::Unauthorized(_)), "{refused:?}");
        assert!(refused.to_string().contains(said), "{refused}");
        let name = name.parse().unwrap();
        // Without any it is an error of the engine's, by Docker's status.
        let tried = auth.is_some();
        let refused = engine.images.pull(&operator, &name, None, auth, Progress::default()).await;
        let refused = refused.unwrap_err();
        assert_eq!(matches!(refused, Error::Unauthorized(_)), tried, "{refused:?}");
        assert!(tried || chain(&refused).contains(said), "{refused:?}");
    }
    let refused =
        engine.images.login(&TenantName::operator(), &host, basic("bad")).await.unwrap_err();
    let end = "failed with status: 401 Unauthorized";
    assert!(matches!(&refused, Error::Unauthorized(text) if text.ends_with(end)), "{refused:?}");
    assert_eq!(
        engine.images.login(&TenantName::operator(), &host, basic("word")).await.unwrap(),
        ""
    );
    push(&engine, &name, Some(basic("word"))).await.0.unwrap();
    let reference = name.parse().unwrap();
    let right = Some(basic("word"));
    let pulled = engine.images.pull(&operator, &reference, None, right, Progress::default()).await;
    assert_eq!(pulled.unwrap()[0].repo_tags, [name.as_str(), "x:1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_pushed_is_refused_in_dockers_words() {
    let (engine, registry) = (Engine::new().await, Registry::start());
    let name = registry.name("x");
    let (refused, said) = push(&engine, &format!("{name}:1"), None).await;
    let text = format!("An image does not exist locally with the tag: {name}");
    assert_eq!(refused.unwrap_err().to_string(), text);
    assert_eq!(words(&said), [format!("The push refers to repository [{name}]")]);
    let layer = tar(&[("f", b"x")]);
    let archive = saved(Some(&format!("{name}:1")), &config(&[&layer], "amd64"), &[layer]);
    let operator = TenantName::operator();
    engine
        .images
        .load(&operator, Cursor::new(gzip(&archive)), None, Progress::default())
        .await
        .unwrap();
    let (refused, _) = push(&engine, &format!("{name}:2"), None).await;
    assert_eq!(refused.unwrap_err().to_string(), format!("tag does not exist: {name}:2"));
    drop(registry);
    let (refused, _) = push(&engine, &format!("{name}:1"), None).await;
    assert!(refused.is_err());
}
