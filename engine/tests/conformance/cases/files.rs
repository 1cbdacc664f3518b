//! `docker cp`, `diff` and `export`.

use crate::{
    cases::cases,
    http::{Request, text},
    scene::{Answer, Scene, tar_of},
};
use base64::Engine as _;
use serde_json::{Value, json};
use std::io::Read;

cases! { "files of a container":
    the_head_of_a_path_tells_its_stat,
    a_file_comes_as_a_tar_of_its_name,
    a_folder_comes_with_all_below_it,
    a_tar_is_unpacked_where_it_was_sent,
    what_is_not_there_is_told_in_dockers_words,
    a_file_does_not_become_a_folder_and_back,
    a_read_only_root_is_not_written,
    a_link_does_not_lead_out_of_the_container,
    a_tar_cannot_leave_the_container,
    cp_goes_into_volumes_and_binds,
    cp_copies_files_and_folders_both_ways,
    cp_works_on_stopped_and_running_containers,
    diff_tells_what_was_added_changed_and_deleted,
    export_is_the_whole_root,
}

fn stat(answer: &Answer) -> Value {
    let header = answer.head.header("X-Docker-Container-Path-Stat").unwrap();
    serde_json::from_slice(&base64::prelude::BASE64_STANDARD.decode(header).unwrap()).unwrap()
}

fn head(s: &Scene<'_>, path: &str) -> Answer {
    s.send(&Request { method: "HEAD", path, headers: &[], body: &[] })
}

fn put(s: &Scene<'_>, id: &str, query: &str, tar: &[u8]) -> Answer {
    let path = format!("/v1.51/containers/{id}/archive?{query}");
    let headers: &[(&str, &str)] = &[("Content-Type", "application/x-tar")];
    s.send(&Request { method: "PUT", path: &path, headers, body: tar })
}

fn unpacked(tar: &[u8]) -> Vec<(String, String)> {
    let mut archive = tar::Archive::new(tar);
    let read = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().display().to_string();
        let mut content = String::new();
        entry.read_to_string(&mut content).unwrap();
        (name.trim_end_matches('/').to_owned(), content)
    });
    read.collect()
}

fn the_head_of_a_path_tells_its_stat(s: &Scene<'_>) {
    let id = s.create("a", json!({}));
    let answer = head(s, &format!("/v1.51/containers/{id}/archive?path=/etc/passwd")).expect(200);
    let found = stat(&answer);
    assert_eq!((&found["name"], &found["linkTarget"]), (&json!("passwd"), &json!("")));
    assert!(found["size"].as_i64().unwrap() > 10 && found["mode"].as_i64().unwrap() == 0o644);
    s.same_shape("X-Docker-Container-Path-Stat", &found);
    let folder = stat(&head(s, &format!("/v1.51/containers/{id}/archive?path=/etc/")).expect(200));
    assert_eq!(folder["mode"].as_u64().unwrap() >> 31, 1, "Go's mark of a folder: {folder}");
}

fn a_file_comes_as_a_tar_of_its_name(s: &Scene<'_>) {
    let id = s.run("a", "echo hello >/tmp/file");
    s.wait(&id);
    let answer = s.get(&format!("/containers/{id}/archive?path=/tmp/file")).expect(200);
    assert_eq!(answer.head.header("Content-Type"), Some("application/x-tar"));
    assert_eq!(stat(&answer)["name"], "file");
    assert_eq!(unpacked(&answer.body), [("file".to_owned(), "hello\n".to_owned())]);
}

fn a_folder_comes_with_all_below_it(s: &Scene<'_>) {
    let id = s.run("a", "mkdir -p /d/e && echo 1 >/d/f && echo 2 >/d/e/g");
    s.wait(&id);
    let mut files = unpacked(&s.get(&format!("/containers/{id}/archive?path=/d")).expect(200).body);
    files.sort();
    let names: Vec<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["d", "d/e", "d/e/g", "d/f"]);
    let dot = unpacked(&s.get(&format!("/containers/{id}/archive?path=/d/.")).expect(200).body);
    assert!(dot.iter().any(|(name, _)| name.trim_start_matches("./") == "f"), "{dot:?}");
}

fn a_tar_is_unpacked_where_it_was_sent(s: &Scene<'_>) {
    let id = s.create("a", json!({ "Cmd": ["cat", "/tmp/x", "/tmp/y/z"] }));
    put(s, &id, "path=/tmp", &tar_of(&[("x", b"1"), ("y/z", b"2")])).expect(200);
    s.start(&id);
    assert_eq!(s.wait(&id), 0);
    assert_eq!(s.ok(&["logs", &id]), "12");
}

fn what_is_not_there_is_told_in_dockers_words(s: &Scene<'_>) {
    let id = s.create("a", json!({}));
    let words = format!("Could not find the file /nope in container {id}");
    s.get(&format!("/containers/{id}/archive?path=/nope")).refuses(404, &words);
    put(s, &id, "path=/nope", &tar_of(&[("x", b"1")])).refuses(404, &words);
    s.get(&format!("/containers/{id}/archive")).refuses(400, "");
    put(s, &id, "path=/etc/passwd", &tar_of(&[("x", b"1")]))
        .refuses(400, "extraction point is not a directory");
    let answer = head(s, &format!("/v1.51/containers/{id}/archive?path=/nope"));
    assert_eq!(answer.status(), 404);
}

fn a_file_does_not_become_a_folder_and_back(s: &Scene<'_>) {
    let id = s.create("a", json!({}));
    let onto = tar_of(&[("tmp", b"a file where a folder is")]);
    let answer = put(s, &id, "path=/&noOverwriteDirNonDir=1", &onto);
    assert!(answer.status() >= 400, "{}", answer.status());
    assert!(answer.message().contains("annot overwrite"), "{}", answer.message());
}

fn a_read_only_root_is_not_written(s: &Scene<'_>) {
    let id = s.create("a", json!({ "HostConfig": { "ReadonlyRootfs": true } }));
    let answer = put(s, &id, "path=/tmp", &tar_of(&[("x", b"1")]));
    answer.refuses(400, "container rootfs is marked read-only");
}

fn a_link_does_not_lead_out_of_the_container(s: &Scene<'_>) {
    let id = s.run(
        "a",
        "ln -s /etc /tmp/link; ln -s ../../../../../etc/passwd /tmp/up; echo inside >/etc/mark",
    );
    s.wait(&id);
    let through = s.get(&format!("/containers/{id}/archive?path=/tmp/link/mark")).expect(200);
    assert_eq!(unpacked(&through.body), [("mark".to_owned(), "inside\n".to_owned())]);
    let link = stat(&head(s, &format!("/v1.51/containers/{id}/archive?path=/tmp/up")));
    assert_eq!(link["linkTarget"], "/etc/passwd");
    put(s, &id, "path=/tmp/link", &tar_of(&[("new", b"1")])).expect(200);
    s.get(&format!("/containers/{id}/archive?path=/etc/new")).expect(200);
    assert!(!std::path::Path::new("/etc/new").exists());
}

fn a_tar_cannot_leave_the_container(s: &Scene<'_>) {
    let id = s.create("a", json!({}));
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(1);
    let name = b"../../../../../../tmp/cf-escaped";
    header.as_old_mut().name[..name.len()].copy_from_slice(name);
    header.set_cksum();
    tar.append(&header, &b"x"[..]).unwrap();
    put(s, &id, "path=/tmp", &tar.into_inner().unwrap());
    assert!(!std::path::Path::new("/tmp/cf-escaped").exists());
}

fn cp_goes_into_volumes_and_binds(s: &Scene<'_>) {
    let folder = tempfile::TempDir::new().unwrap();
    let binds = [format!("{}:/v", s.name("v")), format!("{}:/b", folder.path().display())];
    let id = s.create("a", json!({ "Cmd": ["cat", "/v/x"], "HostConfig": { "Binds": binds } }));
    for place in ["/v", "/b"] {
        put(s, &id, &format!("path={place}"), &tar_of(&[("x", b"1")])).expect(200);
        s.get(&format!("/containers/{id}/archive?path={place}/x")).expect(200);
    }
    assert_eq!(std::fs::read_to_string(folder.path().join("x")).unwrap(), "1");
    s.start(&id);
    s.wait(&id);
    assert_eq!(s.ok(&["logs", &id]), "1");
}

fn cp_copies_files_and_folders_both_ways(s: &Scene<'_>) {
    let folder = tempfile::TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    std::fs::create_dir(at("d")).unwrap();
    std::fs::write(at("d/f"), "1").unwrap();
    let id = s.create("a", json!({}));
    s.ok(&["cp", &at("d/f"), &format!("{id}:/tmp/g")]);
    s.ok(&["cp", &at("d"), &format!("{id}:/tmp/e")]);
    s.ok(&["cp", &at("d"), &format!("{id}:/tmp")]);
    for (from, to) in [("/tmp/g", "o1"), ("/tmp/e/f", "o2"), ("/tmp/d/f", "o3")] {
        s.ok(&["cp", &format!("{id}:{from}"), &at(to)]);
        assert_eq!(std::fs::read_to_string(at(to)).unwrap(), "1", "{from}");
    }
    s.ok(&["cp", &format!("{id}:/tmp/."), &at("whole")]);
    assert!(folder.path().join("whole/d/f").exists());
    let err = s.fails(1, &["cp", &format!("{id}:/nope"), &at("x")]);
    assert!(err.contains("Could not find the file /nope in container"), "{err}");
    let piped = s.fed(&["cp", "-", &format!("{id}:/tmp")], &tar_of(&[("piped", b"2")]));
    assert_eq!(piped.code, 0, "{piped:?}");
    let err = s.fails(1, &["cp", &at("d"), &format!("{id}:/etc/passwd")]);
    assert!(err.contains("cannot copy directory"), "{err}");
}

fn cp_works_on_stopped_and_running_containers(s: &Scene<'_>) {
    let id = s.idle("a");
    put(s, &id, "path=/tmp", &tar_of(&[("x", b"now")])).expect(200);
    assert_eq!(s.ok(&["exec", &id, "cat", "/tmp/x"]), "now");
    s.ok(&["exec", &id, "sh", "-c", "echo more >/tmp/y"]);
    s.poke(&format!("/containers/{id}/stop?t=0")).expect(204);
    let answer = s.get(&format!("/containers/{id}/archive?path=/tmp/y")).expect(200);
    assert!(text(&answer.body).contains("more\n"));
}

fn diff_tells_what_was_added_changed_and_deleted(s: &Scene<'_>) {
    let id =
        s.run("a", "echo x >/new; echo y >>/etc/passwd; rm /etc/group; mkdir /d && touch /d/e");
    s.wait(&id);
    let mut lines: Vec<String> = s.ok(&["diff", &id]).lines().map(str::to_owned).collect();
    lines.sort();
    assert_eq!(lines, ["A /d", "A /d/e", "A /new", "C /etc", "C /etc/passwd", "D /etc/group"]);
    let changes = s.get(&format!("/containers/{id}/changes")).expect(200).json();
    s.same_shape("ContainerChanges", &changes);
    let untouched = s.create("b", json!({}));
    assert_eq!(s.get(&format!("/containers/{untouched}/changes")).expect(200).json(), json!(null));
}

fn export_is_the_whole_root(s: &Scene<'_>) {
    let id = s.run("a", "echo x >/new; rm /etc/group; ln -s new /link");
    s.wait(&id);
    let answer = s.get(&format!("/containers/{id}/export")).expect(200);
    let mut archive = tar::Archive::new(&answer.body[..]);
    let names: Vec<String> = archive
        .entries()
        .unwrap()
        .map(|entry| entry.unwrap().path().unwrap().display().to_string())
        .collect();
    let has = |name: &str| names.iter().any(|path| path.trim_end_matches('/') == name);
    assert!(has("new") && has("link") && has("bin/busybox") && has("etc/passwd"), "{names:?}");
    assert!(!has("etc/group") && !names.iter().any(|name| name.contains(".wh.")));
}
