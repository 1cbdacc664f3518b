//! Needs root, as unpacking does (owners, devices, `trusted.` attributes).

use super::*;
use proptest::prelude::*;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use tar::{Builder, EntryType, Header};

/// An archive, entry by entry, with names that the `tar` crate would refuse.
#[derive(Default)]
struct Tar(Vec<u8>);

impl Tar {
    fn header(kind: EntryType, name: &str, size: usize) -> Header {
        let mut header = Header::new_gnu();
        header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(kind);
        header.set_size(size as u64);
        header.set_mode(0o644);
        header.set_mtime(1_700_000_000);
        header.set_uid(0);
        header.set_gid(0);
        header
    }

    fn put(mut self, mut header: Header, bytes: &[u8]) -> Self {
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(bytes);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn file(self, name: &str, bytes: &[u8]) -> Self {
        self.put(Self::header(EntryType::Regular, name, bytes.len()), bytes)
    }

    fn directory(self, name: &str) -> Self {
        let mut header = Self::header(EntryType::Directory, name, 0);
        header.set_mode(0o755);
        self.put(header, b"")
    }

    fn link(self, kind: EntryType, name: &str, target: &str) -> Self {
        let mut header = Self::header(kind, name, 0);
        header.as_gnu_mut().unwrap().linkname[..target.len()].copy_from_slice(target.as_bytes());
        self.put(header, b"")
    }

    fn device(self, kind: EntryType, name: &str, major: u32, minor: u32) -> Self {
        let mut header = Self::header(kind, name, 0);
        header.set_device_major(major).unwrap();
        header.set_device_minor(minor).unwrap();
        self.put(header, b"")
    }

    fn extended(self, pairs: &[(&str, &[u8])]) -> Self {
        let mut builder = Builder::new(Vec::new());
        builder.append_pax_extensions(pairs.iter().copied()).unwrap();
        let mut bytes = builder.into_inner().unwrap();
        bytes.truncate(bytes.len() - 1024);
        Self([self.0, bytes].concat())
    }

    fn end(self) -> Vec<u8> {
        [self.0, vec![0; 1024]].concat()
    }
}

fn unpacked(archive: &[u8]) -> (tempfile::TempDir, Result<Unpacked, UnpackError>) {
    let dir = tempfile::tempdir().unwrap();
    let layer = dir.path().join("layer");
    std::fs::create_dir(&layer).unwrap();
    let aside = tempfile::tempdir().unwrap();
    let place = aside.path().join("recipe");
    let recipe = RecipeWriter::create(&place).unwrap();
    let outcome = unpack(archive, &layer, Some(recipe), Limits { bytes: 1 << 20, entries: 100 });
    if let Ok(Unpacked { diff_id, archive: Some(size), .. }) = &outcome {
        made_again((*diff_id, *size), &layer, &place, archive);
    }
    (dir, outcome)
}

/// Whatever was unpacked comes out again, byte for byte.
fn made_again((diff_id, size): (Digest, u64), layer: &Path, recipe: &Path, archive: &[u8]) {
    let mut plain = Vec::new();
    let mut stream = crate::storage::archive::decompress(archive).unwrap();
    stream.read_to_end(&mut plain).unwrap();
    let mut again = Vec::new();
    let made = crate::storage::LayerArchive::open(diff_id, size, layer, recipe);
    made.unwrap().read_to_end(&mut again).unwrap();
    assert!(again == plain);
}

#[test]
fn every_kind_of_file_arrives_as_it_was() {
    let mut owned = Tar::header(EntryType::Regular, "d/setuid", 2);
    owned.set_mode(0o4711);
    owned.set_uid(1000);
    owned.set_gid(2000);
    // VFS_CAP_REVISION_2 with CAP_NET_RAW permitted.
    let capability = [[1, 0, 0, 2], [0, 0x20, 0, 0], [0; 4], [0; 4], [0; 4]].concat();
    let long = "n".repeat(150);
    let archive = Tar::default()
        .directory("./")
        .directory("d/")
        .put(owned, b"hi")
        .link(EntryType::Link, "hard", "d/setuid")
        .link(EntryType::Symlink, "soft", "/etc/passwd")
        .device(EntryType::Char, "null", 1, 3)
        .device(EntryType::Block, "disk", 8, 0)
        .device(EntryType::Fifo, "pipe", 0, 0)
        .extended(&[
            ("path", long.as_bytes()),
            ("mtime", b"1700000000.25"),
            ("SCHILY.xattr.security.capability", &capability),
            ("SCHILY.xattr.user.note", b"x"),
        ])
        .file("short", b"long")
        .file("missing/parents/file", b"")
        .end();
    let (dir, outcome) = unpacked(&archive);
    let outcome = outcome.unwrap();
    assert_eq!(outcome.diff_id, Digest::of(Sha256::digest(&archive).into()));
    assert_eq!((outcome.size, outcome.root), (6, true));
    let layer = dir.path().join("layer");
    let look = |name: &str| std::fs::symlink_metadata(layer.join(name)).unwrap();
    let setuid = look("d/setuid");
    assert_eq!((setuid.mode() & 0o7777, setuid.uid(), setuid.gid()), (0o4711, 1000, 2000));
    assert_eq!(setuid.ino(), look("hard").ino());
    assert_eq!(setuid.mtime(), 1_700_000_000);
    assert_eq!(look("d").mtime(), 1_700_000_000);
    assert_eq!(std::fs::read_link(layer.join("soft")).unwrap(), Path::new("/etc/passwd"));
    assert!(look("null").file_type().is_char_device());
    assert_eq!(look("null").rdev(), rustix::fs::makedev(1, 3));
    assert!(look("disk").file_type().is_block_device());
    assert!(look("pipe").file_type().is_fifo());
    assert_eq!(look(&long).mtime_nsec(), 250_000_000);
    assert_eq!(look("missing/parents").mode() & 0o7777, 0o755);
    let mut value = [0; 20];
    let found = rustix::fs::getxattr(layer.join(&long), "security.capability", &mut value);
    assert_eq!((found, value.as_slice()), (Ok(20), capability.as_slice()));
}

#[test]
fn whiteouts_become_overlays_own() {
    let archive = Tar::default()
        .file("gone/.wh.file", b"")
        .file("hidden/.wh..wh..opq", b"")
        .file(".wh..wh.plnk", b"")
        .directory("anew/")
        .file(".wh.anew", b"")
        .file(".wh.later", b"")
        .directory("later/")
        .file(".wh.kept", b"")
        .file("kept", b"here")
        .end();
    let (dir, outcome) = unpacked(&archive);
    outcome.unwrap();
    let layer = dir.path().join("layer");
    let whiteout = std::fs::symlink_metadata(layer.join("gone/file")).unwrap();
    assert!(whiteout.file_type().is_char_device() && whiteout.rdev() == 0);
    for opaque in ["hidden", "anew", "later"] {
        let mut value = [0; 8];
        let found = rustix::fs::getxattr(layer.join(opaque), "trusted.overlay.opaque", &mut value);
        assert_eq!((found, value[0]), (Ok(1), b'y'), "{opaque}");
    }
    assert_eq!(std::fs::read(layer.join("kept")).unwrap(), b"here");
    assert_eq!(std::fs::read_dir(layer).unwrap().count(), 5);
}

fn evil() -> Vec<(&'static str, Tar)> {
    let dir = |tar: Tar| tar.directory("d/");
    let symlink = |target| Tar::default().link(EntryType::Symlink, "out", target);
    vec![
        ("dots", Tar::default().file("../escaped", b"x")),
        ("dots inside", dir(Tar::default()).file("d/../../escaped", b"x")),
        ("dots as a directory", Tar::default().directory("../escaped/")),
        ("through a relative link", symlink("..").file("out/escaped", b"x")),
        ("through an absolute link", symlink("/tmp").file("out/escaped", b"x")),
        (
            "through a link to a link",
            symlink("two").link(EntryType::Symlink, "two", "..").file("out/escaped", b"x"),
        ),
        (
            "through a link below",
            dir(Tar::default())
                .link(EntryType::Symlink, "d/up", "../..")
                .file("d/up/escaped", b"x"),
        ),
        ("a directory through a link", symlink("..").directory("out/escaped/")),
        ("a whiteout through a link", symlink("..").file("out/.wh.escaped", b"")),
        ("opaque through a link", symlink("..").file("out/.wh..wh..opq", b"")),
        ("a whiteout of the parent", Tar::default().file(".wh...", b"")),
        ("a whiteout of itself", Tar::default().file("d/.wh..", b"")),
        ("a device through a link", symlink("..").device(EntryType::Char, "out/escaped", 1, 3)),
        ("a hard link to outside", Tar::default().link(EntryType::Link, "h", "../secret")),
        ("a hard link to an absolute name", Tar::default().link(EntryType::Link, "h", "/secret")),
        ("a hard link through a link", symlink("..").link(EntryType::Link, "h", "out/secret")),
        ("a hard link to a directory", dir(Tar::default()).link(EntryType::Link, "h", "d")),
        (
            "a link in place of a directory",
            dir(Tar::default()).link(EntryType::Symlink, "d", "..").file("d/escaped", b"x"),
        ),
        (
            "a file as the root",
            Tar::default().file("./", b"").file(".", b"x").link(EntryType::Symlink, "/", ".."),
        ),
        ("a loop of links", symlink("out").file("out/escaped", b"x")),
        (
            "overlay's attributes",
            Tar::default()
                .extended(&[("SCHILY.xattr.trusted.overlay.redirect", b"/x")])
                .file("f", b"x"),
        ),
        (
            "overlay's user attributes",
            Tar::default().extended(&[("SCHILY.xattr.user.overlay.opaque", b"y")]).file("f", b"x"),
        ),
        (
            "dots in an extended name",
            Tar::default().extended(&[("path", b"../escaped")]).file("f", b"x"),
        ),
        ("an unknown kind", Tar::default().put(Tar::header(EntryType::new(b'Q'), "f", 0), b"")),
    ]
}

#[test]
fn an_archive_that_leaves_its_root_is_refused_and_nothing_is_outside() {
    for (what, archive) in evil() {
        let (outer, outcome) = {
            let dir = tempfile::tempdir().unwrap();
            let layer = dir.path().join("layer");
            std::fs::create_dir(&layer).unwrap();
            std::fs::File::create(dir.path().join("secret")).unwrap();
            let outcome = unpack(archive.end().as_slice(), &layer, None, Limits::default());
            (dir, outcome)
        };
        assert!(outcome.is_err(), "{what}");
        let names = std::fs::read_dir(outer.path()).unwrap();
        let mut names = names.map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>();
        names.sort();
        assert_eq!(names, ["layer", "secret"], "{what}");
        let secret = std::fs::metadata(outer.path().join("secret")).unwrap();
        assert_eq!(secret.nlink(), 1, "{what}");
        let mut value = [0; 8];
        let opaque = rustix::fs::getxattr(outer.path(), "trusted.overlay.opaque", &mut value);
        assert!(opaque.is_err(), "{what}");
    }
    assert!(!Path::new("/tmp/escaped").exists());
}

#[test]
fn a_later_entry_replaces_an_earlier_one() {
    let archive = Tar::default()
        .file("a", b"first")
        .file("a", b"second")
        .file("b", b"file")
        .link(EntryType::Symlink, "b", "a")
        .directory("d/")
        .file("d/kept", b"")
        .directory("d/")
        .end();
    let (dir, outcome) = unpacked(&archive);
    outcome.unwrap();
    let layer = dir.path().join("layer");
    assert_eq!(std::fs::read(layer.join("a")).unwrap(), b"second");
    assert_eq!(std::fs::read(layer.join("b")).unwrap(), b"second");
    assert!(layer.join("d/kept").exists());
}

#[test]
fn an_archive_that_ends_too_early_is_refused() {
    let whole = Tar::default().file("a", &[7; 3000]).file("b", &[8; 100]).end();
    for end in (1..3072).step_by(37).filter(|end| *end != 512) {
        assert!(unpacked(&whole[..end]).1.is_err(), "{end}");
    }
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    io::Write::write_all(&mut packed, &whole).unwrap();
    let packed = packed.finish().unwrap();
    for end in 1..packed.len() {
        assert!(unpacked(&packed[..end]).1.is_err(), "{end} of {}", packed.len());
    }
}

#[test]
fn a_bomb_is_refused_before_it_fills_anything() {
    let many = (0..200).fold(Tar::default(), |tar, n| tar.file(&n.to_string(), b"")).end();
    assert!(matches!(unpacked(&many).1, Err(UnpackError::TooManyEntries { .. })));
    let announced = Tar::default().put(Tar::header(EntryType::Regular, "big", 1 << 32), b"").end();
    assert!(matches!(unpacked(&announced).1, Err(UnpackError::TooManyBytes { .. })));
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    let padded = [Tar::default().end(), vec![0; 4 << 20]].concat();
    io::Write::write_all(&mut packed, &padded).unwrap();
    let packed = packed.finish().unwrap();
    assert!(packed.len() < 1 << 14);
    assert!(matches!(unpacked(&packed).1, Err(UnpackError::TooManyBytes { .. })));
}

#[test]
fn a_name_of_many_megabytes_is_not_taken_into_memory() {
    let long = vec![b'a'; 6 << 20];
    let archive = Tar::default()
        .put(Tar::header(EntryType::GNULongName, "././@LongLink", long.len()), &long)
        .file("f", b"x")
        .end();
    let dir = tempfile::tempdir().unwrap();
    let refused = unpack(archive.as_slice(), dir.path(), None, Limits::default()).unwrap_err();
    assert!(refused.to_string().contains("longer than 4 MiB"), "{refused}");
}

#[test]
fn gzip_and_zstd_give_the_same_layer() {
    let plain = Tar::default().file("a", &[7; 3000]).end();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    io::Write::write_all(&mut gzip, &plain).unwrap();
    let gzip = gzip.finish().unwrap();
    let zstd = zstd::encode_all(plain.as_slice(), 1).unwrap();
    let [one, two, three] = [&plain, &gzip, &zstd].map(|bytes| unpacked(bytes).1.unwrap());
    assert_eq!((one, one), (two, three));
    let xz = unpacked(b"\xfd7zXZ\0rest").1.unwrap_err();
    assert!(xz.to_string().starts_with("cannot read the archive"), "{xz}");
}

#[test]
fn a_sparse_file_keeps_its_holes() {
    let mut header = Tar::header(EntryType::GNUSparse, "holes", 512);
    let gnu = header.as_gnu_mut().unwrap();
    gnu.sparse[0].offset[..11].copy_from_slice(b"00000000000");
    gnu.sparse[0].numbytes[..11].copy_from_slice(b"00000001000");
    gnu.sparse[1].offset[..11].copy_from_slice(b"00002000000");
    gnu.sparse[1].numbytes[..11].copy_from_slice(b"00000000000");
    gnu.realsize[..11].copy_from_slice(b"00002000000");
    let (dir, outcome) = unpacked(&Tar::default().put(header, &[9; 512]).end());
    assert_eq!(outcome.unwrap().size, 0o2_000_000);
    let found = std::fs::metadata(dir.path().join("layer/holes")).unwrap();
    assert_eq!(found.len(), 0o2_000_000);
    assert!(found.blocks() * 512 < found.len());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever stands in a header, nothing panics and nothing gets out.
    #[test]
    fn a_mangled_archive_is_unpacked_or_refused(
        changes in proptest::collection::vec((0..4096_usize, any::<u8>()), 1..20),
    ) {
        let mut archive = Tar::default()
            .directory("d/")
            .link(EntryType::Symlink, "d/l", "../x")
            .file("d/l2", &[1; 600])
            .end();
        for (at, byte) in changes {
            let at = at % archive.len();
            archive[at] = byte;
        }
        // Past the checksum, or nothing but checksums is tested.
        for start in (0..archive.len()).step_by(512) {
            let mut header = Header::new_old();
            header.as_mut_bytes().copy_from_slice(&archive[start..start + 512]);
            header.set_cksum();
            if archive[start..start + 512].iter().any(|byte| *byte != 0) {
                archive[start + 148..start + 156].copy_from_slice(&header.as_bytes()[148..156]);
            }
        }
        let (dir, _) = unpacked(&archive);
        prop_assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    /// Names that come again, through links, over links: the archive is made
    /// again from what is left of it (see `unpacked`).
    #[test]
    fn any_order_of_entries_makes_its_archive_again(
        entries in proptest::collection::vec((0..6_u8, 0..5_usize, 0..5_usize, 0..900_usize), 1..24),
    ) {
        const NAMES: [&str; 5] = ["a", "b", "d/a", "l/a", "l"];
        let archive = entries.into_iter().fold(Tar::default().directory("d/"), |tar, entry| {
            let (kind, name, target, size) = entry;
            let (name, target) = (NAMES[name], NAMES[target]);
            match kind {
                0..=2 => tar.file(name, &vec![u8::try_from(size % 251).unwrap(); size]),
                3 => tar.link(EntryType::Link, name, target),
                4 => tar.link(EntryType::Symlink, "l", "d"),
                _ => tar.file(&format!(".wh.{target}").replace('/', "-"), b""),
            }
        });
        drop(unpacked(&archive.end()));
    }
}

/// A tree that archives go into, and what is outside of it.
fn tree() -> (tempfile::TempDir, PathBuf) {
    let top = tempfile::tempdir().unwrap();
    let root = top.path().join("root");
    std::fs::create_dir_all(root.join("data")).unwrap();
    std::fs::create_dir_all(top.path().join("outside")).unwrap();
    (top, root)
}

fn extracted(archive: &[u8], root: &Path, keep_kinds: bool) -> Result<(), UnpackError> {
    let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY;
    let open = rustix::fs::open(root, flags, rustix::fs::Mode::empty()).unwrap();
    let how = Extract { keep_kinds, owner: Some((7, 8)), ..Extract::default() };
    extract(archive, open, Path::new("/data"), how)
}

#[test]
fn into_a_tree_links_lead_where_they_lead_inside_it_and_whiteouts_are_files() {
    let (top, root) = tree();
    // As a container might have made it while the archive was on its way.
    std::os::unix::fs::symlink("../../outside", root.join("data/out")).unwrap();
    std::fs::create_dir(root.join("outside")).unwrap();
    let archive = Tar::default().file("out/file", b"x").file(".wh.name", b"").0;
    extracted(&archive, &root, false).unwrap();
    assert_eq!(std::fs::read_dir(top.path().join("outside")).unwrap().count(), 0);
    let file = std::fs::metadata(root.join("outside/file")).unwrap();
    assert_eq!((file.uid(), file.gid()), (7, 8));
    assert!(root.join("data/.wh.name").is_file());
    let climbs = Tar::default().file("../../outside/file", b"x").0;
    assert!(matches!(extracted(&climbs, &root, false), Err(UnpackError::Outside { .. })));
}

#[test]
fn into_a_tree_kinds_are_kept_only_if_that_is_asked_for() {
    let (_top, root) = tree();
    std::fs::create_dir_all(root.join("data/dir/full")).unwrap();
    let file_over_directory = Tar::default().file("dir", b"x").0;
    let refused = extracted(&file_over_directory, &root, true).unwrap_err();
    assert!(matches!(refused, UnpackError::OverDirectory { .. }));
    extracted(&file_over_directory, &root, false).unwrap();
    assert!(root.join("data/dir").is_file());
    let directory_over_file = Tar::default().directory("dir").0;
    let refused = extracted(&directory_over_file, &root, true).unwrap_err();
    assert!(matches!(refused, UnpackError::OverFile { .. }));
    extracted(&directory_over_file, &root, false).unwrap();
    assert!(root.join("data/dir").is_dir());
}
