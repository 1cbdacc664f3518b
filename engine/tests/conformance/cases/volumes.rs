//! Volumes and mounts.

use crate::{
    cases::cases,
    scene::{Scene, encoded},
};
use serde_json::{Value, json};

cases! { "volumes and mounts":
    a_volume_has_dockers_fields,
    making_it_again_gives_the_same_one,
    a_volume_without_a_name_is_anonymous,
    names_and_drivers_out_of_order_are_refused,
    options_of_the_local_driver_are_checked,
    an_unknown_volume_is_told_in_dockers_words,
    a_volume_in_use_is_not_removed,
    volumes_are_filtered,
    what_one_container_writes_another_reads,
    an_empty_volume_takes_the_images_files,
    nocopy_leaves_it_empty,
    a_volume_can_be_read_only,
    mounts_are_inspected_as_docker_shows_them,
    volumes_from_gives_the_same_mounts,
    auto_remove_takes_anonymous_volumes_along_but_no_named_ones,
    remove_with_v_takes_anonymous_volumes,
    an_images_volume_becomes_an_anonymous_one,
    a_bind_mount_shows_the_hosts_files,
    a_tmpfs_has_its_size_and_mode,
    a_volume_on_tmpfs_is_mounted,
    a_subpath_of_a_volume_is_mounted,
    volumes_tell_what_happened_to_them,
    cluster_volumes_need_a_swarm,
}

fn volume(s: &Scene<'_>, part: &str, mut body: Value) -> Value {
    body["Name"] = json!(s.name(part));
    s.post("/volumes/create", &body).expect(201).json()
}

fn a_volume_has_dockers_fields(s: &Scene<'_>) {
    let made = volume(s, "v", json!({ "Labels": { "a": "b" } }));
    assert_eq!((&made["Name"], &made["Driver"]), (&json!(s.name("v")), &json!("local")));
    assert_eq!((&made["Scope"], &made["Labels"]), (&json!("local"), &json!({ "a": "b" })));
    assert_eq!(made["Options"], json!(null));
    assert!(made["Mountpoint"].as_str().unwrap().ends_with("/_data"));
    assert_eq!(s.get(&format!("/volumes/{}", s.name("v"))).expect(200).json(), made);
    s.same_shape("VolumeInspect", &made);
}

fn making_it_again_gives_the_same_one(s: &Scene<'_>) {
    let first = volume(s, "v", json!({ "Labels": { "a": "b" } }));
    assert_eq!(volume(s, "v", json!({})), first);
    assert_eq!(s.ok(&["volume", "create", &s.name("v")]), s.name("v"));
}

fn a_volume_without_a_name_is_anonymous(s: &Scene<'_>) {
    let made = s.post("/volumes/create", &json!({})).expect(201).json();
    let name = made["Name"].as_str().unwrap();
    s.delete(&format!("/volumes/{name}")).expect(204);
    assert!(name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit()), "{name}");
    assert_eq!(made["Labels"], json!({ "com.docker.volume.anonymous": "" }));
}

fn names_and_drivers_out_of_order_are_refused(s: &Scene<'_>) {
    let make = |body: Value| s.post("/volumes/create", &body);
    let words = "create a/b: \"a/b\" includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use absolute path";
    make(json!({ "Name": "a/b" })).refuses(400, words);
    make(json!({ "Name": "../x" })).refuses(400, "includes invalid characters");
    let name = s.name("v");
    make(json!({ "Name": name, "Driver": "nope" }))
        .refuses(404, "error looking up volume plugin nope: plugin \"nope\" not found");
}

fn options_of_the_local_driver_are_checked(s: &Scene<'_>) {
    let make = |options: Value| {
        s.post("/volumes/create", &json!({ "Name": s.name("v"), "DriverOpts": options }))
    };
    make(json!({ "type": "tmpfs" })).refuses(400, "missing required option: \"device\"");
    make(json!({ "nonsense": "x" })).refuses(400, "invalid option: \"nonsense\"");
    s.get(&format!("/volumes/{}", s.name("v"))).refuses(404, "no such volume");
}

fn an_unknown_volume_is_told_in_dockers_words(s: &Scene<'_>) {
    s.get("/volumes/nobody").refuses(404, "get nobody: no such volume");
    s.delete("/volumes/nobody").refuses(404, "get nobody: no such volume");
    s.delete("/volumes/nobody?force=1").expect(204);
}

fn a_volume_in_use_is_not_removed(s: &Scene<'_>) {
    volume(s, "v", json!({}));
    let name = s.name("v");
    let id = s.create("c", json!({ "HostConfig": { "Binds": [format!("{name}:/v")] } }));
    let words = format!("remove {name}: volume is in use - [{id}]");
    s.delete(&format!("/volumes/{name}")).refuses(409, &words);
    s.delete(&format!("/volumes/{name}?force=1")).refuses(409, &words);
    s.delete(&format!("/containers/{id}?v=1")).expect(204);
    s.delete(&format!("/volumes/{name}")).expect(204);
}

fn volumes_are_filtered(s: &Scene<'_>) {
    volume(s, "used", json!({ "Labels": { "k": "1" } }));
    volume(s, "free", json!({ "Labels": { "k": "2" } }));
    s.create("c", json!({ "HostConfig": { "Binds": [format!("{}:/v", s.name("used"))] } }));
    let listed = |filters: Value| -> Vec<String> {
        let path = format!("/volumes?filters={}", encoded(&filters.to_string()));
        let list = s.get(&path).expect(200).json();
        let prefix = s.name("");
        let names = list["Volumes"].as_array().cloned().unwrap_or_default();
        let names =
            names.iter().filter_map(|volume| volume["Name"].as_str()?.strip_prefix(&prefix));
        let mut names: Vec<String> = names.map(str::to_owned).collect();
        names.sort();
        names
    };
    assert_eq!(listed(json!({ "name": [s.name("")] })), ["free", "used"]);
    assert_eq!(listed(json!({ "name": [s.name("")], "label": ["k=2"] })), ["free"]);
    assert_eq!(listed(json!({ "name": [s.name("")], "dangling": ["true"] })), ["free"]);
    assert_eq!(listed(json!({ "name": [s.name("")], "dangling": ["false"] })), ["used"]);
    assert_eq!(listed(json!({ "driver": ["none"] })), [""; 0]);
    assert_eq!(listed(json!({ "name": [s.name("")], "driver": ["local"] })), ["free", "used"]);
}

/// Runs a script with these flags, and must succeed.
fn run(s: &Scene<'_>, flags: &[&str], script: &str) -> String {
    let name = s.name("run");
    s.ok(&[&["run", "--rm", "--name", &name], flags, &["busybox", "sh", "-c", script]].concat())
}

fn what_one_container_writes_another_reads(s: &Scene<'_>) {
    let mount = format!("{}:/v", s.name("v"));
    run(s, &["-v", &mount], "echo kept >/v/file");
    assert_eq!(run(s, &["-v", &mount], "cat /v/file"), "kept");
    let long = format!("type=volume,source={},target=/w", s.name("v"));
    assert_eq!(run(s, &["--mount", &long], "cat /w/file"), "kept");
}

fn an_empty_volume_takes_the_images_files(s: &Scene<'_>) {
    let mount = format!("{}:/etc", s.name("v"));
    assert!(run(s, &["-v", &mount], "cat /etc/passwd").contains("nobody"));
    run(s, &["-v", &mount], "echo mine >/etc/passwd");
    assert_eq!(run(s, &["-v", &mount], "cat /etc/passwd"), "mine");
    let onto = format!("{}:/root", s.name("w"));
    assert_eq!(run(s, &["-v", &onto], "stat -c %a /root"), "700");
}

fn nocopy_leaves_it_empty(s: &Scene<'_>) {
    let mount = format!("{}:/bin2:nocopy", s.name("v"));
    assert_eq!(run(s, &["-v", &mount], "ls /bin2"), "");
    let long = format!("type=volume,source={},target=/home,volume-nocopy", s.name("w"));
    assert_eq!(run(s, &["--mount", &long], "ls /home"), "");
}

fn a_volume_can_be_read_only(s: &Scene<'_>) {
    let mount = format!("{}:/v:ro", s.name("v"));
    let err = s.fails(
        1,
        &["run", "--rm", "--name", &s.name("c"), "-v", &mount, "busybox", "touch", "/v/x"],
    );
    assert!(err.contains("Read-only file system"), "{err}");
}

fn mounts_are_inspected_as_docker_shows_them(s: &Scene<'_>) {
    let name = s.name("v");
    let id = s.create("c", json!({
        "HostConfig": { "Binds": [format!("{name}:/named"), "/usr:/bound:ro"], "Tmpfs": { "/t": "" } },
        "Volumes": { "/anonymous": {} },
    }));
    let container = s.inspect(&id);
    let mounts = container["Mounts"].as_array().unwrap();
    let at = |place: &str| mounts.iter().find(|mount| mount["Destination"] == place).unwrap();
    let named = at("/named");
    assert_eq!((&named["Type"], &named["Name"]), (&json!("volume"), &json!(name)));
    assert_eq!((&named["Driver"], &named["Mode"]), (&json!("local"), &json!("z")));
    assert_eq!((&named["RW"], &named["Propagation"]), (&json!(true), &json!("")));
    let bound = at("/bound");
    assert_eq!((&bound["Type"], &bound["Source"]), (&json!("bind"), &json!("/usr")));
    assert_eq!((&bound["RW"], &bound["Mode"]), (&json!(false), &json!("ro")));
    assert_eq!(bound["Propagation"], "rprivate");
    assert_eq!(at("/anonymous")["Name"].as_str().unwrap().len(), 64);
    assert_eq!(mounts.len(), 3, "a tmpfs of HostConfig is not among them");
    s.same_shape("mount of a volume", named);
    s.same_shape("mount of a host's folder", bound);
}

fn volumes_from_gives_the_same_mounts(s: &Scene<'_>) {
    let mount = format!("{}:/v", s.name("v"));
    let first = s.name("first");
    s.ok(&[
        "run",
        "--name",
        &first,
        "-v",
        &mount,
        "-v",
        "/a",
        "busybox",
        "sh",
        "-c",
        "echo 1 >/v/f; echo 2 >/a/f",
    ]);
    assert_eq!(run(s, &["--volumes-from", &first], "cat /v/f /a/f"), "1\n2");
    let readonly = format!("{first}:ro");
    let err = s.fails(
        1,
        &[
            "run",
            "--rm",
            "--name",
            &s.name("c"),
            "--volumes-from",
            &readonly,
            "busybox",
            "touch",
            "/v/x",
        ],
    );
    assert!(err.contains("Read-only file system"), "{err}");
}

fn volumes_now(s: &Scene<'_>, id: &str) -> Vec<String> {
    let mounts = s.inspect(id)["Mounts"].as_array().unwrap().clone();
    mounts.iter().filter_map(|mount| mount["Name"].as_str().map(str::to_owned)).collect()
}

fn auto_remove_takes_anonymous_volumes_along_but_no_named_ones(s: &Scene<'_>) {
    let name = s.name("v");
    let id = s.create(
        "c",
        json!({
            "Cmd": ["sleep", "1000"], "StopSignal": "KILL", "Volumes": { "/a": {} },
            "HostConfig": { "AutoRemove": true, "Binds": [format!("{name}:/v")] },
        }),
    );
    s.start(&id);
    let names = volumes_now(s, &id);
    assert_eq!(names.len(), 2);
    let removed = s.command(&["wait", &id]).spawn();
    s.poke(&format!("/containers/{id}/stop")).expect(204);
    drop(removed.map(|mut child| child.wait()));
    crate::scene::wait_for("it to go", || s.get(&format!("/containers/{id}/json")).status() == 404);
    for volume in names {
        let there = s.get(&format!("/volumes/{volume}")).status() == 200;
        assert_eq!(there, volume == name, "{volume}");
    }
}

fn remove_with_v_takes_anonymous_volumes(s: &Scene<'_>) {
    let id = s.create("c", json!({ "Volumes": { "/a": {} } }));
    let kept = s.create("d", json!({ "Volumes": { "/a": {} } }));
    let (gone, stays) = (volumes_now(s, &id), volumes_now(s, &kept));
    s.delete(&format!("/containers/{id}?v=1")).expect(204);
    s.delete(&format!("/containers/{kept}")).expect(204);
    s.get(&format!("/volumes/{}", gone[0])).refuses(404, "no such volume");
    s.delete(&format!("/volumes/{}", stays[0])).expect(204);
}

fn an_images_volume_becomes_an_anonymous_one(s: &Scene<'_>) {
    let image = s.name("image");
    let changes = encoded("VOLUME /data");
    let tar = crate::scene::tar_of(&[("data/file", b"of the image")]);
    let path = format!("/v1.51/images/create?fromSrc=-&repo={image}&changes={changes}");
    let headers: &[(&str, &str)] = &[("Content-Type", "application/x-tar")];
    s.send(&crate::http::Request { method: "POST", path: &path, headers, body: &tar }).expect(200);
    let id = s.create("c", json!({ "Image": image, "Cmd": ["x"] }));
    let names = volumes_now(s, &id);
    assert_eq!(names.len(), 1);
    assert_eq!(s.inspect(&id)["Mounts"][0]["Destination"], "/data");
    let mount = format!("{}:/data", names[0]);
    assert_eq!(run(s, &["-v", &mount], "cat /data/file"), "of the image");
}

fn a_bind_mount_shows_the_hosts_files(s: &Scene<'_>) {
    let folder = tempfile::TempDir::new().unwrap();
    std::fs::write(folder.path().join("file"), "of the host").unwrap();
    let path = folder.path().display();
    let mount = format!("{path}:/host");
    assert_eq!(run(s, &["-v", &mount], "cat /host/file; echo back >/host/answer"), "of the host");
    assert_eq!(std::fs::read_to_string(folder.path().join("answer")).unwrap(), "back\n");
    let file = format!("{path}/file:/file:ro");
    assert_eq!(run(s, &["-v", &file], "cat /file"), "of the host");
    let new = format!("{path}/made/by/it:/new");
    run(s, &["-v", &new], "touch /new/x");
    assert!(folder.path().join("made/by/it/x").exists());
    let words = s.fails(
        125,
        &[
            "run",
            "--rm",
            "--mount",
            &format!("type=bind,source={path}/not,target=/x"),
            "busybox",
            "true",
        ],
    );
    assert!(words.contains("bind source path does not exist"), "{words}");
}

fn a_tmpfs_has_its_size_and_mode(s: &Scene<'_>) {
    let script = "stat -c %a /t; df -m /t | tail -n1 | tr -s ' ' | cut -d' ' -f2";
    assert_eq!(run(s, &["--tmpfs", "/t:size=2m,mode=1700"], script), "1700\n2");
    let long = "type=tmpfs,target=/t,tmpfs-size=3m,tmpfs-mode=711";
    assert_eq!(run(s, &["--mount", long], script), "711\n3");
}

fn a_volume_on_tmpfs_is_mounted(s: &Scene<'_>) {
    let options = json!({ "type": "tmpfs", "device": "tmpfs", "o": "size=2m" });
    volume(s, "v", json!({ "DriverOpts": options }));
    let mount = format!("{}:/v", s.name("v"));
    let script = "df -m /v | tail -n1 | tr -s ' ' | cut -d' ' -f2";
    assert_eq!(run(s, &["-v", &mount], script), "2");
}

fn a_subpath_of_a_volume_is_mounted(s: &Scene<'_>) {
    let mount = format!("{}:/v", s.name("v"));
    run(s, &["-v", &mount], "mkdir /v/sub; echo x >/v/sub/f; ln -s / /v/out");
    let sub = format!("type=volume,source={},target=/s,volume-subpath=sub", s.name("v"));
    assert_eq!(run(s, &["--mount", &sub], "cat /s/f"), "x");
    for path in ["none", "../..", "out/etc"] {
        let sub = format!("type=volume,source={},target=/s,volume-subpath={path}", s.name("v"));
        let (name, mount) = (s.name("c"), ["--mount", &sub]);
        let said =
            s.said(&[&["run", "--rm", "--name", &name], &mount[..], &["busybox", "true"]].concat());
        assert!((125..=127).contains(&said.code), "{path}: {said:?}");
    }
}

fn volumes_tell_what_happened_to_them(s: &Scene<'_>) {
    let now = || s.get("/info").expect(200).json()["SystemTime"].as_str().unwrap().to_owned();
    let (since, name) = (now(), s.name("v"));
    run(s, &["-v", &format!("{name}:/v")], "true");
    s.delete(&format!("/volumes/{name}")).expect(204);
    let filter = format!("volume={name}");
    let out = s.ok(&[
        "events",
        "--since",
        &since,
        "--until",
        &now(),
        "--filter",
        &filter,
        "--format",
        "{{.Action}}",
    ]);
    assert_eq!(out, "create\nmount\nunmount\ndestroy");
}

fn cluster_volumes_need_a_swarm(s: &Scene<'_>) {
    let answer = s.ask("PUT", "/volumes/x?version=1", Some(&json!({})));
    assert!(matches!(answer.status(), 501 | 503), "{}", answer.status());
}
