//! Files in and out: cp, export, diff.

use crate::engine::{Engine, wait_for};
use std::{
    fs,
    io::Read,
    os::unix::fs::{MetadataExt, symlink},
    path::Path,
};

fn names(archive: &[u8]) -> Vec<String> {
    let mut archive = tar::Archive::new(archive);
    let entries = archive.entries().unwrap();
    entries
        .map(|entry| String::from_utf8(entry.unwrap().path_bytes().into_owned()).unwrap())
        .collect()
}

fn archive(name: &str, text: &[u8]) -> Vec<u8> {
    let mut header = tar::Header::new_ustar();
    header.set_size(text.len() as u64);
    header.set_mode(0o644);
    let mut builder = tar::Builder::new(Vec::new());
    builder.append_data(&mut header, name, text).unwrap();
    builder.into_inner().unwrap()
}

/// PUT of an archive: status and body.
fn put(engine: &Engine, path: &str, archive: &[u8]) -> (u16, String) {
    let head = format!(
        "PUT {path} HTTP/1.1\r\nHost: d\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        archive.len()
    );
    let answer = engine.http_bytes(&[head.as_bytes(), archive].concat());
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    (status, answer.split_once("\r\n\r\n").unwrap().1.to_owned())
}

#[test]
fn files_go_in_and_out_of_containers_that_run_and_that_do_not() {
    let engine = Engine::start();
    let host = engine.dir.join("files");
    fs::create_dir_all(host.join("tree/sub")).unwrap();
    fs::write(host.join("tree/sub/file"), "content").unwrap();
    symlink("sub/file", host.join("tree/link")).unwrap();
    let host = host.to_str().unwrap();
    engine.ok(&["create", "--name", "still", "busybox", "cat", "/etc/tree/sub/file"]);
    engine.ok(&["run", "-d", "--name", "runs", "--tmpfs", "/mem", "busybox", "sleep", "1000"]);
    for name in ["still", "runs"] {
        engine.ok(&["cp", &format!("{host}/tree"), &format!("{name}:/etc")]);
        engine.ok(&["cp", &format!("{name}:/etc/tree"), &format!("{host}/{name}")]);
        let came = Path::new(host).join(name);
        assert_eq!(fs::read_to_string(came.join("sub/file")).unwrap(), "content");
        assert_eq!(fs::read_link(came.join("link")).unwrap(), Path::new("sub/file"));
        // A link is followed when it is asked for with -L, else copied as it is.
        engine.ok(&["cp", "-L", &format!("{name}:/etc/tree/link"), &format!("{host}/{name}-f")]);
        assert_eq!(fs::read_to_string(format!("{host}/{name}-f")).unwrap(), "content");
        let missing = engine.fails(1, &["cp", &format!("{name}:/nope"), host]);
        assert!(missing.contains(&format!("Could not find the file /nope in container {name}")));
    }
    assert_eq!(engine.ok(&["start", "-a", "still"]), "content");
    assert_eq!(engine.ok(&["exec", "runs", "cat", "/etc/tree/link"]), "content");
    // Also what only the running container has mounted; never the kernel's own.
    engine.ok(&["exec", "runs", "sh", "-c", "echo here > /mem/file"]);
    engine.ok(&["cp", "runs:/mem/file", &format!("{host}/mem")]);
    assert_eq!(fs::read_to_string(format!("{host}/mem")).unwrap(), "here\n");
    let proc = engine.fed(&["cp", "runs:/proc", "-"], b"");
    assert_eq!(names(&proc.raw), ["proc/"]);
}

#[test]
fn copying_keeps_owners_holes_and_links_of_the_tree() {
    let engine = Engine::start();
    engine.ok(&[
        "run",
        "--name",
        "from",
        "busybox",
        "sh",
        "-c",
        "mkdir /t && cd /t && echo x > a && ln a b && chown 7:8 a && chmod 4751 a && \
         dd if=/dev/zero of=hole bs=1 count=1 seek=67108864 2>/dev/null && mkfifo pipe",
    ]);
    let out = engine.fed(&["cp", "-a", "from:/t", "-"], b"").raw;
    assert_eq!(names(&out), ["t/", "t/a", "t/b", "t/hole", "t/pipe"]);
    engine.ok(&[
        "create",
        "--name",
        "to",
        "busybox",
        "sh",
        "-c",
        "cd /t && stat -c '%u %g %a %h' a && stat -c '%s' hole && test -p pipe && \
         test $(du -k hole | cut -f1) -lt 1024 && echo sparse",
    ]);
    assert_eq!(engine.fed(&["cp", "-a", "-", "to:/"], &out).code, 0);
    assert_eq!(engine.ok(&["start", "-a", "to"]), "7 8 4751 2\n67108865\nsparse");
}

#[test]
fn a_path_is_described_as_docker_describes_it() {
    let engine = Engine::start();
    engine.ok(&["run", "--name", "one", "busybox", "ln", "-s", "etc", "/lnk"]);
    let head = |path: &str| {
        let answer = engine.http(&format!(
            "HEAD /containers/one/archive?path={path} HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n"
        ));
        let status: u16 = answer.split(' ').nth(1).unwrap().parse().unwrap();
        let stat = answer.lines().find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            name.eq_ignore_ascii_case("x-docker-container-path-stat").then(|| value.to_owned())
        });
        use base64::{Engine as _, prelude::BASE64_STANDARD};
        let stat = stat.map(|text| BASE64_STANDARD.decode(text).unwrap());
        (status, stat.map(|json| serde_json::from_slice::<serde_json::Value>(&json).unwrap()))
    };
    let (status, stat) = head("/lnk");
    let stat = stat.unwrap();
    assert_eq!((status, &stat["name"], &stat["linkTarget"]), (200, &"lnk".into(), &"/etc".into()));
    assert_eq!(stat["mode"], 134_218_239_u32);
    // A slash at the end follows it.
    assert_eq!(head("/lnk/").1.unwrap()["linkTarget"], "");
    assert_eq!(head("/etc/.").1.unwrap()["name"], ".");
    assert_eq!(head("/../../etc").1.unwrap()["name"], "etc");
    assert_eq!(head("/nope").0, 404);
    assert_eq!(head("").0, 400);
    let (status, body) = engine.api("GET", "/containers/one/archive", "");
    assert_eq!(
        (status, body.as_str()),
        (400, "{\"message\":\"bad parameter: pathcannot be empty\"}\n")
    );
    assert_eq!(engine.api("GET", "/containers/nope/archive?path=/", "").0, 404);
}

#[test]
fn archives_that_may_not_come_in_are_refused_in_dockers_words() {
    let engine = Engine::start();
    let dir = engine.dir.join("bound");
    fs::create_dir_all(&dir).unwrap();
    let bind = format!("{}:/ro:ro", dir.display());
    engine.ok(&["create", "--name", "one", "--read-only", "-v", &bind, "busybox"]);
    engine.ok(&["create", "--name", "two", "busybox", "cat", "/opt"]);
    let at = |name: &str, rest: &str| format!("/containers/{name}/archive?path={rest}");
    let file = archive("opt", b"x");
    let refused = |path: String, archive: &[u8], status: u16, text: &str| {
        let (code, body) = put(&engine, &path, archive);
        assert_eq!(code, status, "{path}: {body}");
        assert!(body.contains(text), "{path}: {body}");
    };
    refused(at("one", "/etc"), &file, 400, "container rootfs is marked read-only");
    refused(at("one", "/ro"), &file, 400, "mounted volume is marked read-only");
    refused(at("two", "/nope"), &file, 404, "Could not find the file /nope in container two");
    refused(at("two", "/etc/passwd"), &file, 400, "extraction point is not a directory");
    refused(
        at("two", "/&noOverwriteDirNonDir=1"),
        &archive("etc", b"x"),
        400,
        "cannot overwrite directory",
    );
    refused(at("two", "/opt"), b"no archive at all", 404, "Could not find");
    refused(at("two", "/etc"), &[7; 2048], 400, "cannot read the archive");
    assert_eq!(put(&engine, &at("two", "/"), &file).0, 200);
    assert_eq!(engine.ok(&["start", "-a", "two"]), "x");
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
}

#[test]
fn no_link_leads_a_copy_out_of_the_container() {
    let engine = Engine::start();
    let secret = engine.dir.join("secret");
    fs::create_dir_all(&secret).unwrap();
    fs::write(secret.join("key"), "secret").unwrap();
    let path = secret.to_str().unwrap();
    engine.ok(&["run", "--name", "one", "busybox", "ln", "-s", path, "/out"]);
    let missing = engine.fails(1, &["cp", "one:/out/key", "-"]);
    assert!(missing.contains("Could not find the file"), "{missing}");
    let (status, _) = put(&engine, "/containers/one/archive?path=/out", &archive("key", b"mine"));
    assert_eq!(status, 404);
    // By the archive's own link, through a directory that is there in the container.
    engine.ok(&["create", "--name", "two", "busybox"]);
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_size(0);
    builder.append_link(&mut header, "link", path).unwrap();
    let mut header = tar::Header::new_ustar();
    header.set_size(4);
    header.set_mode(0o644);
    builder.append_data(&mut header, "link/key", &b"mine"[..]).unwrap();
    let hostile = builder.into_inner().unwrap();
    assert_ne!(put(&engine, "/containers/two/archive?path=/", &hostile).0, 200);
    assert_eq!(fs::read_to_string(secret.join("key")).unwrap(), "secret");
}

#[test]
fn an_export_is_all_of_it_and_a_diff_what_it_changed() {
    let engine = Engine::start();
    engine.ok(&["create", "--name", "fresh", "busybox", "true"]);
    assert_eq!(engine.ok(&["diff", "fresh"]), "");
    engine.ok(&["start", "-a", "fresh"]);
    assert_eq!(engine.ok(&["diff", "fresh"]), "", "having been started is no change");
    engine.ok(&[
        "run",
        "-d",
        "--name",
        "one",
        "--tmpfs",
        "/mem",
        "busybox",
        "sh",
        "-c",
        "echo x > /etc/new; rm /bin/vi; mkdir -p /srv/x; echo y > /mem/z; echo done; sleep 1000",
    ]);
    wait_for("it to change its files", || engine.ok(&["logs", "one"]) == "done");
    let diff = engine.ok(&["diff", "one"]);
    for line in ["C /etc", "A /etc/new", "C /bin", "D /bin/vi", "A /srv", "A /srv/x"] {
        assert!(diff.lines().any(|it| it == line), "{line} in {diff}");
    }
    assert!(!diff.contains("hosts") && !diff.contains("/proc"), "{diff}");
    let file = engine.dir.join("export.tar");
    engine.ok(&["export", "-o", file.to_str().unwrap(), "one"]);
    let mut bytes = Vec::new();
    fs::File::open(&file).unwrap().read_to_end(&mut bytes).unwrap();
    let names = names(&bytes);
    assert!(names.contains(&"etc/new".to_owned()) && names.contains(&"bin/busybox".to_owned()));
    assert!(!names.contains(&"bin/vi".to_owned()) && !names.contains(&"mem/z".to_owned()));
    engine.ok(&["import", file.to_str().unwrap(), "again"]);
    assert_eq!(engine.ok(&["run", "--rm", "again", "cat", "/etc/new"]), "x");
    assert!(fs::metadata(&file).unwrap().size() > 1 << 20);
}
