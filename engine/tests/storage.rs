//! The state directory, crashes and full disks included. Needs root.
#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use rustix::{
    fs::{IFlags, ioctl_getflags},
    mount::{MountFlags, UnmountFlags, mount, unmount},
};
use std::{
    collections::{HashMap, HashSet},
    io::{BufRead, BufReader, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};
use tokio_util::task::TaskTracker;
use tritium_engine::{
    error::Error,
    ids::{ContainerId, Digest, random},
    storage::{Batch, Rootfs, Staged, Store, StoreError, Table},
};

async fn open(dir: &Path) -> Result<Store, StoreError> {
    Store::open(dir, TaskTracker::new()).await
}

fn names(dir: PathBuf) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap();
    let mut names = Vec::from_iter(entries.map(|e| e.unwrap().file_name().into_string().unwrap()));
    names.sort();
    names
}

/// The layers that are there, but for the directory of mount points.
fn layers_of(dir: &Path) -> Vec<String> {
    let mut names = names(dir.join("layers"));
    names.retain(|name| name != "mount-points");
    names
}

/// Waits for a state.
async fn until(what: &str, mut is: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is() {
        assert!(begun.elapsed() < Duration::from_secs(20), "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A tmpfs, gone with the value.
struct Small(tempfile::TempDir);

impl Small {
    fn new(options: &str, flags: MountFlags) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let data = std::ffi::CString::new(options).unwrap();
        mount("tmpfs", dir.path(), "tmpfs", flags, data.as_c_str()).unwrap();
        Self(dir)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        unmount(self.path(), UnmountFlags::DETACH).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_made_is_spread_where_the_file_system_can() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()).await.unwrap());
    let tmp = std::fs::File::open(dir.path().join("tmp")).unwrap();
    // ext4's number is that of ext2.
    if rustix::fs::fstatfs(&tmp).unwrap().f_type == 0xef53 {
        assert!(ioctl_getflags(&tmp).unwrap().contains(IFlags::TOPDIR));
    }
    // A tmpfs cannot, and is as good.
    let small = Small::new("size=16m", MountFlags::empty());
    open(small.path()).await.unwrap();
}

fn stage(store: &Store, file: &str) -> Staged {
    let staged = store.stage_layer().unwrap();
    std::fs::File::create(staged.path().join(file)).unwrap();
    staged
}

#[tokio::test(flavor = "multi_thread")]
async fn records_are_there_after_a_restart_and_a_batch_is_all_or_none() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await.unwrap();
    let batch = Batch::default().put(Table::Tenants, "a", &1).put(Table::Networks, "b", &"two");
    store.commit(batch).await.unwrap();
    let unwritable = HashMap::from([((1, 2), 3)]);
    let bad = Batch::default().put(Table::Tenants, "c", &3).put(Table::Tenants, "d", &unwritable);
    assert!(matches!(store.commit(bad).await, Err(StoreError::Encode { .. })));
    drop(store);
    let store = open(dir.path()).await.unwrap();
    assert_eq!(store.all::<i32>(Table::Tenants).await.unwrap(), [("a".to_owned(), 1)]);
    store.commit(Batch::default().remove(Table::Tenants, "a")).await.unwrap();
    assert_eq!(store.all::<i32>(Table::Tenants).await.unwrap(), []);
    assert_eq!(store.all::<String>(Table::Networks).await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_engine_is_told_who_has_the_directory() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await.unwrap();
    let refused = open(dir.path()).await.unwrap_err().to_string();
    let holder = format!("in use by the process {}", std::process::id());
    assert!(refused.contains(&holder), "{refused}");
    drop(store);
    open(dir.path()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lock_of_a_dead_engine_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()).await.unwrap());
    // As a child has it that the engine was making when it was killed.
    let path = dir.path().join("lock");
    let mut held = std::fs::File::options().write(true).truncate(true).open(&path).unwrap();
    held.lock().unwrap();
    // No process has that id: it is above the kernel's PID_MAX_LIMIT.
    writeln!(held, "4194305").unwrap();
    let letting_go = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(50));
        drop(held);
    });
    open(dir.path()).await.unwrap();
    letting_go.join().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_but_root_looks_into_the_directory() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("new/state");
    let _store = open(&state).await.unwrap();
    assert_eq!(std::fs::metadata(&state).unwrap().mode() & 0o7777, 0o700);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_lives_as_long_as_an_image_or_a_container_has_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await.unwrap();
    let digest = Digest::of(random());
    let pin = stage(&store, "f").publish(digest, 7, false).unwrap();
    // The same layer from somebody else: one directory.
    let other = stage(&store, "f").publish(digest, 7, false).unwrap();
    let record = Batch::default().put(Table::Images, "default/x", &());
    store.commit_image(record, &[digest]).await.unwrap();
    drop((pin, other));
    assert_eq!(layers_of(dir.path()), ["0", "1"]);
    let id = ContainerId::of(random());
    store.create_rootfs(id, &[digest]).await.unwrap();
    store.release_layers(&[digest]);
    assert!(store.pin_layer(digest).is_some());
    store.remove_rootfs(id).await.unwrap();
    until("the layer goes", || layers_of(dir.path()) == ["0"]).await;
    until("the trash is emptied", || names(dir.path().join("trash")).is_empty()).await;
    assert!(matches!(store.create_rootfs(id, &[digest]).await, Err(StoreError::NoLayer(_))));
    assert_eq!(names(dir.path().join("containers")), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_filesystem_mounts_as_overlayfs() {
    // Not on an overlayfs, which cannot be overlayfs's upper directory.
    let small = Small::new("size=8m", MountFlags::empty());
    let store = open(small.path()).await.unwrap();
    let [low, high, none] = [(); 3].map(|()| Digest::of(random()));
    let staged = stage(&store, "low");
    std::os::unix::fs::chown(staged.path(), Some(5), Some(6)).unwrap();
    let _low = staged.publish(low, 0, true).unwrap();
    let _high = stage(&store, "high").publish(high, 0, false).unwrap();
    // A layer may be there twice, and an image may have none. What the runtime
    // mounts on is there in any case.
    for (layers, seen) in [
        (vec![high, low, high], vec!["dev", "etc", "high", "low", "proc", "sys"]),
        (vec![], vec!["dev", "etc", "proc", "sys"]),
    ] {
        let id = ContainerId::of(random());
        let rootfs = store.create_rootfs(id, &layers).await.unwrap();
        assert_eq!(store.rootfs(id, &layers).unwrap(), rootfs);
        let (found, owner) = mounted(&rootfs);
        assert_eq!(found, seen);
        // Root's, whosever it is in the image: as in Docker.
        assert_eq!(owner, (0, 0o755));
    }
    let refused = store.create_rootfs(ContainerId::of(random()), &[none]).await;
    assert!(matches!(refused, Err(StoreError::NoLayer(_))));
    let refused = store.create_rootfs(ContainerId::of(random()), &[low; 128]).await;
    assert!(matches!(refused, Err(StoreError::TooManyLayers { .. })));
}

/// What is seen in it, and its owner and mode.
fn mounted(rootfs: &Rootfs) -> (Vec<String>, (u32, u32)) {
    let Rootfs { lower, layers_dir, upper, work, target, .. } = rootfs;
    let lower = lower.iter().map(|name| layers_dir.join(name).display().to_string());
    let lower = Vec::from_iter(lower).join(":");
    let (upper, work) = (upper.display(), work.display());
    let options = format!("lowerdir={lower},upperdir={upper},workdir={work}");
    let options = std::ffi::CString::new(options).unwrap();
    mount("overlay", target, "overlay", MountFlags::empty(), options.as_c_str()).unwrap();
    let found = names(target.clone());
    let root = std::fs::metadata(target).unwrap();
    unmount(target, UnmountFlags::empty()).unwrap();
    (found, (root.uid(), root.mode() & 0o7777))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_crash_left_without_a_record_is_swept() {
    let dir = tempfile::tempdir().unwrap();
    let (kept, lost) = (ContainerId::of(random()), ContainerId::of(random()));
    let store = open(dir.path()).await.unwrap();
    store.commit(Batch::default().put(Table::Containers, kept.hex(), &())).await.unwrap();
    for id in [kept, lost] {
        store.create_rootfs(id, &[]).await.unwrap();
    }
    drop(store);
    for left in ["tmp/7/sub", "trash/1-1/sub", "layers/zz/etc"] {
        std::fs::create_dir_all(dir.path().join(left)).unwrap();
    }
    std::fs::File::create(dir.path().join("blobs/sha256/abc")).unwrap();
    let _store = open(dir.path()).await.unwrap();
    for empty in ["tmp", "blobs/sha256"] {
        assert_eq!(names(dir.path().join(empty)), [""; 0], "{empty}");
    }
    assert_eq!(layers_of(dir.path()), ["0"]);
    assert_eq!(names(dir.path().join("containers")), [kept.hex()]);
    until("the trash is emptied", || names(dir.path().join("trash")).is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_that_no_image_has_is_collected_after_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let digest = Digest::of(random());
    let store = open(dir.path()).await.unwrap();
    let pin = stage(&store, "f").publish(digest, 0, false).unwrap();
    store.commit_image(Batch::default(), &[digest]).await.unwrap();
    drop((pin, store));
    let store = open(dir.path()).await.unwrap();
    assert!(store.layer_size(digest).is_some());
    store.collect_layers();
    until("the layer goes", || layers_of(dir.path()) == ["0"]).await;
    assert!(store.layer_size(digest).is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_said_clearly_and_goes_by() {
    let small = Small::new("size=8m", MountFlags::empty());
    let store = open(small.path()).await.unwrap();
    store.commit(Batch::default().put(Table::Tenants, "before", &1)).await.unwrap();
    let ballast = small.path().join("ballast");
    let mut file = std::fs::File::create(&ballast).unwrap();
    while file.write_all(&[1; 4096]).is_ok() {}
    let large = "x".repeat(4 << 20);
    let refused = store.commit(Batch::default().put(Table::Tenants, "large", &large)).await;
    let error = Error::from(refused.unwrap_err());
    assert!(error.to_string().contains("no space left on device"), "{error}");
    let mut blob = store.write_blob().unwrap();
    assert!(blob.write(&[0; 1 << 20]).is_err());
    drop(blob);
    assert_eq!(names(small.path().join("tmp")), [""; 0]);
    std::fs::remove_file(ballast).unwrap();
    drop(file);
    store.commit(Batch::default().put(Table::Tenants, "after", &2)).await.unwrap();
    let rows = [("after".to_owned(), 2), ("before".to_owned(), 1)];
    assert_eq!(store.all::<i32>(Table::Tenants).await.unwrap(), rows);
    drop(store);
    let store = open(small.path()).await.unwrap();
    assert_eq!(store.all::<i32>(Table::Tenants).await.unwrap(), rows);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_directory_is_said_clearly() {
    let small = Small::new("size=1m", MountFlags::RDONLY);
    let error = Error::from(open(small.path()).await.unwrap_err());
    assert!(error.to_string().contains("read-only file system"), "{error}");
}

/// Commits until it is killed, and says what has been acknowledged.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "the child of the next test"]
async fn child_that_commits() {
    let Some(dir) = std::env::var_os("TRITIUM_TEST_STATE") else { return };
    let store = open(Path::new(&dir)).await.unwrap();
    let begin = store.all::<usize>(Table::Networks).await.unwrap().len();
    let writer = |lane: usize| {
        let store = store.clone();
        async move {
            for number in begin.. {
                let key = format!("{lane}-{number}");
                // Two records: never one without the other.
                let batch = Batch::default().put(Table::Networks, &*key, &number).put(
                    Table::Volumes,
                    &*key,
                    &number,
                );
                store.commit(batch).await.unwrap();
                writeln!(std::io::stdout(), "acknowledged {key}").unwrap();
            }
        }
    };
    futures_util::future::join_all((0..8).map(writer)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_survives_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    for round in 0..5 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_that_commits", "--ignored", "--nocapture"])
            .env("TRITIUM_TEST_STATE", dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let acknowledged = |line: String| line.strip_prefix("acknowledged ").map(str::to_owned);
        let first = lines.by_ref().filter_map(acknowledged).take(200 + round * 7);
        let mut keys = Vec::from_iter(first);
        child.kill().unwrap();
        child.wait().unwrap();
        // What it had said and we had not read. The last line may be half.
        let mut rest = Vec::from_iter(lines.filter_map(acknowledged));
        rest.pop();
        keys.extend(rest);
        assert!(keys.len() >= 200);
        let store = open(dir.path()).await.unwrap();
        let rows = store.all::<usize>(Table::Networks).await.unwrap();
        assert_eq!(rows, store.all::<usize>(Table::Volumes).await.unwrap());
        let found = HashSet::<String>::from_iter(rows.into_iter().map(|(key, _)| key));
        for key in keys {
            assert!(found.contains(&key), "{key} was acknowledged and is lost");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement: cargo test --release --test storage measure -- --ignored --nocapture"]
async fn measure_commits_and_root_filesystems() {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let store = open(dir.path()).await.unwrap();
    let record = "x".repeat(2000);
    let one = |key: String| store.commit(Batch::default().put(Table::Containers, key, &record));
    let mut single = Vec::new();
    for number in 0..200 {
        let begun = Instant::now();
        one(number.to_string()).await.unwrap();
        single.push(begun.elapsed());
    }
    single.sort();
    let mut group = Vec::new();
    for round in 0..20 {
        let begun = Instant::now();
        let all = (0..100).map(|number| one(format!("{round}-{number}")));
        futures_util::future::try_join_all(all).await.unwrap();
        group.push(begun.elapsed());
    }
    group.sort();
    let mut rootfs = Vec::new();
    for _ in 0..200 {
        let begun = Instant::now();
        let id = ContainerId::of(random());
        store.create_rootfs(id, &[]).await.unwrap();
        let made = begun.elapsed();
        let begun = Instant::now();
        store.remove_rootfs(id).await.unwrap();
        rootfs.push((made, begun.elapsed()));
    }
    rootfs.sort();
    println!("one commit: p50 {:?} p99 {:?}", single[100], single[198]);
    println!("100 concurrent commits: p50 {:?} max {:?}", group[10], group[19]);
    println!("create_rootfs, remove_rootfs: p50 {:?}", rootfs[100]);
}
