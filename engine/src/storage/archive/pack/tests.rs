//! Needs root: owners, devices, `trusted.` attributes.

use super::*;
use crate::storage::archive::unpack;
use rustix::fs::{CWD, Timespec, Timestamps, XattrFlags, makedev};
use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, lchown, symlink},
};

fn packed(top: &Path, style: Style) -> Vec<u8> {
    let mut bytes = Vec::new();
    let open = rustix::fs::openat(CWD, top, DIRECTORY, Mode::empty()).unwrap();
    let mut pack = Pack::new(&mut bytes, style);
    pack.tree(open.as_fd(), b"").unwrap();
    pack.finish().unwrap();
    bytes
}

fn shown(archive: &[u8]) -> Vec<String> {
    let mut archive = tar::Archive::new(archive);
    let names = archive
        .entries()
        .unwrap()
        .map(|entry| String::from_utf8(entry.unwrap().path_bytes().into_owned()).unwrap());
    names.collect()
}

fn xattr(path: &Path, name: &str, value: &[u8]) {
    rustix::fs::lsetxattr(path, name, value, XattrFlags::empty()).unwrap();
}

fn write(path: &Path, bytes: &[u8]) {
    let mut file = fs::File::create(path).unwrap();
    file.write_all(bytes).unwrap();
}

#[test]
fn a_tree_comes_out_of_its_archive_as_it_went_in() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (a, b) = (from.path(), to.path());
    let long = "n".repeat(200);
    fs::create_dir_all(a.join("deep").join(&long)).unwrap();
    let file = a.join("deep").join(&long).join(&long);
    write(&file, b"content");
    lchown(&file, Some(3_000_000), Some(4_294_967_294)).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o4751)).unwrap();
    // A capability, as setcap(8) writes it; after the owner, which clears it.
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    xattr(&file, "security.capability", &capability);
    let time = Timespec { tv_sec: 1_700_000_000, tv_nsec: 123_456_789 };
    let times = Timestamps { last_access: time, last_modification: time };
    let open = fs::File::open(&file).unwrap();
    rustix::fs::futimens(&open, &times).unwrap();
    fs::hard_link(&file, a.join("second")).unwrap();
    symlink("/".to_owned() + &"t".repeat(300), a.join("symlink")).unwrap();
    rustix::fs::mknodat(
        CWD,
        a.join("null"),
        FileType::CharacterDevice,
        Mode::from(0o666),
        makedev(1, 3),
    )
    .unwrap();
    rustix::fs::mknodat(CWD, a.join("pipe"), FileType::Fifo, Mode::from(0o600), 0).unwrap();

    let archive = packed(a, Style::Plain);
    unpack::unpack(archive.as_slice(), b, None, unpack::Limits::default()).unwrap();

    let came = fs::metadata(b.join("second")).unwrap();
    assert_eq!(fs::read(b.join("second")).unwrap(), b"content");
    assert_eq!((came.uid(), came.gid(), came.mode() & 0o7777), (3_000_000, 4_294_967_294, 0o4751));
    assert_eq!((came.mtime(), came.mtime_nsec()), (1_700_000_000, 123_456_789));
    assert_eq!(came.ino(), fs::metadata(b.join("deep").join(&long).join(&long)).unwrap().ino());
    let mut value = [0; 64];
    let count = rustix::fs::lgetxattr(b.join("second"), "security.capability", &mut value).unwrap();
    assert_eq!(value[..count], capability);
    assert_eq!(fs::read_link(b.join("symlink")).unwrap().as_os_str().len(), 301);
    assert_eq!(fs::metadata(b.join("null")).unwrap().rdev(), makedev(1, 3));
    assert!(archive == packed(b, Style::Plain), "the same tree is the same archive");
}

#[test]
fn what_an_upper_directory_hides_becomes_whiteouts() {
    let upper = tempfile::tempdir().unwrap();
    let top = upper.path();
    fs::create_dir_all(top.join("etc/new")).unwrap();
    fs::create_dir_all(top.join("dev/pts")).unwrap();
    write(&top.join("etc/hosts"), b"");
    xattr(&top.join("etc/new"), "trusted.overlay.opaque", b"y");
    xattr(&top.join("etc"), "trusted.overlay.impure", b"y");
    write(&top.join("etc/new/file"), b"");
    rustix::fs::mknodat(CWD, top.join("etc/gone"), FileType::CharacterDevice, Mode::empty(), 0)
        .unwrap();
    let archive = packed(top, Style::Upper);
    let names = ["etc/", "etc/.wh.gone", "etc/new/", "etc/new/.wh..wh..opq", "etc/new/file"];
    assert_eq!(shown(&archive), names);
    let layer = tempfile::tempdir().unwrap();
    unpack::unpack(archive.as_slice(), layer.path(), None, unpack::Limits::default()).unwrap();
    assert_eq!(shown(&packed(layer.path(), Style::Upper)), names, "a layer packs as it was");
    // To others these are files and devices like any.
    assert!(shown(&packed(top, Style::Plain)).contains(&"etc/gone".to_owned()));
}

#[test]
fn a_directory_that_refers_to_a_lower_one_is_refused() {
    let upper = tempfile::tempdir().unwrap();
    fs::create_dir(upper.path().join("moved")).unwrap();
    xattr(&upper.path().join("moved"), "trusted.overlay.redirect", b"/old");
    let open = rustix::fs::openat(CWD, upper.path(), DIRECTORY, Mode::empty()).unwrap();
    let mut bytes = Vec::new();
    let refused = Pack::new(&mut bytes, Style::Upper).tree(open.as_fd(), b"").unwrap_err();
    assert!(matches!(refused, PackError::Redirected { .. }), "{refused}");
}

#[test]
fn links_are_entries_and_never_followed() {
    let outside = tempfile::tempdir().unwrap();
    write(&outside.path().join("secret"), b"secret");
    let tree = tempfile::tempdir().unwrap();
    symlink(outside.path(), tree.path().join("out")).unwrap();
    let archive = packed(tree.path(), Style::Plain);
    assert_eq!(shown(&archive), ["out"]);
    // Also not when it is the very thing that was asked for.
    let open = rustix::fs::openat(CWD, tree.path(), DIRECTORY, Mode::empty()).unwrap();
    let mut bytes = Vec::new();
    let mut pack = Pack::new(&mut bytes, Style::Plain);
    pack.one(open.as_fd(), OsStr::new("out"), b"renamed").unwrap();
    pack.finish().unwrap();
    assert_eq!(shown(&bytes), ["renamed"]);
}

#[test]
fn holes_are_sent_as_zeros_and_arrive_as_holes() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let path = from.path().join("sparse");
    let file = fs::File::create(&path).unwrap();
    rustix::io::pwrite(&file, b"end", 8 << 20).unwrap();
    rustix::io::pwrite(&file, b"middle", 3 << 20).unwrap();
    file.set_len((9 << 20) + 7).unwrap();
    let archive = packed(from.path(), Style::Plain);
    assert!(archive.len() > 9 << 20);
    unpack::unpack(archive.as_slice(), to.path(), None, unpack::Limits::default()).unwrap();
    let came = to.path().join("sparse");
    assert!(fs::read(&came).unwrap() == fs::read(&path).unwrap());
    assert!(fs::metadata(&came).unwrap().blocks() * 512 < 1 << 20);
}

#[test]
fn a_tree_deeper_than_the_kept_descriptors_is_whole() {
    let tree = tempfile::tempdir().unwrap();
    let mut path = tree.path().to_owned();
    for depth in 0..OPEN * 2 {
        path.push("d");
        fs::create_dir(&path).unwrap();
        write(&path.join("z"), depth.to_string().as_bytes());
    }
    let names = shown(&packed(tree.path(), Style::Plain));
    assert_eq!(names.len(), OPEN * 4);
}
