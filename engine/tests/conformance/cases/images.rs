//! Images: listed, inspected, tagged, removed, imported, saved, loaded, committed.

use crate::{
    cases::cases,
    http::{Request, text},
    scene::{Scene, encoded, tar_of},
};
use serde_json::{Value, json};
use std::io::Read;

cases! { "images":
    the_list_has_dockers_fields,
    inspect_has_dockers_fields,
    an_unknown_image_is_no_such_image,
    a_tag_is_another_name_for_the_same_image,
    a_tag_out_of_order_is_refused,
    removing_the_last_name_removes_the_image,
    an_image_in_use_is_kept_unless_forced,
    a_running_containers_image_is_kept_even_then,
    history_shows_what_was_done,
    images_are_filtered,
    import_takes_changes_and_a_message,
    import_tells_progress_and_the_id,
    a_broken_tar_is_refused_and_leaves_nothing,
    a_pull_from_nobody_is_an_error_by_status,
    a_push_of_nothing_is_told_in_the_stream,
    save_and_load_give_the_same_image_back,
    save_writes_a_layout_both_ways,
    save_of_several_images_holds_all_of_them,
    load_of_rubbish_is_refused,
    commit_makes_an_image_of_a_container,
    commit_takes_changes_author_and_message,
    commit_of_nobody_is_no_such_container,
    images_tell_what_happened_to_them,
    names_are_written_short_and_found_long,
}

fn the_list_has_dockers_fields(s: &Scene<'_>) {
    let image = s.image("a");
    let filters = encoded(&json!({ "reference": [image] }).to_string());
    let list = s.get(&format!("/images/json?filters={filters}")).expect(200).json();
    let entry = &list[0];
    assert_eq!(entry["RepoTags"], json!([format!("{image}:latest")]));
    assert_eq!((&entry["Containers"], &entry["SharedSize"]), (&json!(0), &json!(-1)));
    assert!(entry["Size"].as_i64().unwrap() > 0 && entry["Created"].as_i64().unwrap() > 0);
    s.same_shape("ImageList", entry);
    let sized = s.get(&format!("/images/json?shared-size=1&filters={filters}")).expect(200).json();
    assert_eq!(sized[0]["SharedSize"], 0);
}

fn inspect_has_dockers_fields(s: &Scene<'_>) {
    let image = s.image("a");
    let mut inspected = s.get(&format!("/images/{image}/json")).expect(200).json();
    assert_eq!(inspected["RepoTags"], json!([format!("{image}:latest")]));
    assert_eq!((&inspected["Os"], &inspected["Architecture"]), (&json!("linux"), &json!("amd64")));
    assert_eq!(inspected["RootFS"]["Type"], "layers");
    assert_eq!(inspected["RootFS"]["Layers"].as_array().unwrap().len(), 1);
    let id = inspected["Id"].as_str().unwrap().to_owned();
    let hex = id.strip_prefix("sha256:").unwrap();
    for key in [id.as_str(), hex, hex.split_at(12).0] {
        assert_eq!(s.get(&format!("/images/{key}/json")).expect(200).json()["Id"], id, "{key}");
    }
    inspected.as_object_mut().unwrap().remove("GraphDriver");
    s.same_shape("ImageInspect", &inspected);
}

fn an_unknown_image_is_no_such_image(s: &Scene<'_>) {
    s.get("/images/nobodys/json").refuses(404, "No such image: nobodys:latest");
    s.get("/images/nobodys/history").refuses(404, "No such image: nobodys:latest");
    s.get("/images/no/bo/dys:x/json").refuses(404, "No such image: no/bo/dys:x");
    s.poke("/images/nobodys/tag?repo=x").refuses(404, "No such image: nobodys:latest");
    s.delete("/images/nobodys").refuses(404, "No such image: nobodys:latest");
    s.get("/images/nobodys/get").refuses(404, "No such image: nobodys");
    s.get("/images/get?names=nobodys").refuses(404, "No such image: nobodys");
}

fn a_tag_is_another_name_for_the_same_image(s: &Scene<'_>) {
    let image = s.image("a");
    let other = s.name("b");
    s.poke(&format!("/images/{image}/tag?repo={other}&tag=v1")).expect(201);
    let inspected = s.get(&format!("/images/{other}:v1/json")).expect(200).json();
    let mut names: Vec<&str> =
        inspected["RepoTags"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, [format!("{image}:latest"), format!("{other}:v1")]);
    s.get(&format!("/images/{other}/json")).refuses(404, "No such image");
}

fn a_tag_out_of_order_is_refused(s: &Scene<'_>) {
    let image = s.image("a");
    let tag = |query: &str| s.poke(&format!("/images/{image}/tag?{query}"));
    tag("repo=UPPER").refuses(
        400,
        "invalid reference format: repository name (library/UPPER) must be lowercase",
    );
    tag("repo=a&tag=b%20c").refuses(400, "invalid");
}

fn removing_the_last_name_removes_the_image(s: &Scene<'_>) {
    let image = s.image("a");
    let id = s.get(&format!("/images/{image}/json")).json()["Id"].clone();
    let other = s.name("b");
    s.poke(&format!("/images/{image}/tag?repo={other}")).expect(201);
    let first = s.delete(&format!("/images/{image}")).expect(200).json();
    assert_eq!(first, json!([{ "Untagged": format!("{image}:latest") }]));
    let last = s.delete(&format!("/images/{other}")).expect(200).json();
    assert_eq!(last[0], json!({ "Untagged": format!("{other}:latest") }));
    assert_eq!(last[1], json!({ "Deleted": id }));
    assert!(last[2]["Deleted"].as_str().unwrap().starts_with("sha256:"), "{last}");
}

fn an_image_in_use_is_kept_unless_forced(s: &Scene<'_>) {
    let image = s.image("a");
    let container = s.create("c", json!({ "Image": image, "Cmd": ["x"] }));
    let short: String = container.chars().take(12).collect();
    let words = format!(
        "conflict: unable to remove repository reference \"{image}\" (must force) - container {short} is using its referenced image"
    );
    s.delete(&format!("/images/{image}")).refuses(409, &words);
    s.delete(&format!("/images/{image}?force=1")).expect(200);
    s.delete(&format!("/containers/{container}")).expect(204);
}

fn a_running_containers_image_is_kept_even_then(s: &Scene<'_>) {
    let image = s.name("a");
    s.poke(&format!("/images/busybox/tag?repo={image}")).expect(201);
    let container =
        s.create("c", json!({ "Image": image, "Cmd": ["sleep", "1000"], "StopSignal": "KILL" }));
    s.start(&container);
    let id = s.get(&format!("/images/{image}/json")).json()["Id"].as_str().unwrap().to_owned();
    let answer = s.delete(&format!("/images/{id}?force=1"));
    answer.refuses(409, "cannot be forced) - image is being used by running container");
}

fn history_shows_what_was_done(s: &Scene<'_>) {
    let image = s.image("a");
    let history = s.get(&format!("/images/{image}/history")).expect(200).json();
    let entry = &history[0];
    assert_eq!(entry["Tags"], json!([format!("{image}:latest")]));
    assert_eq!(entry["Id"], s.get(&format!("/images/{image}/json")).json()["Id"]);
    assert!(entry["Comment"].as_str().unwrap().starts_with("Imported from -"), "{entry}");
    s.same_shape("ImageHistory", entry);
    assert!(s.ok(&["history", &image]).contains("IMAGE"));
}

fn images_are_filtered(s: &Scene<'_>) {
    let image = s.image("a");
    s.poke(&format!("/images/{image}/tag?repo={image}&tag=v2")).expect(201);
    let listed = |filters: Value| -> Vec<Value> {
        let filters = encoded(&filters.to_string());
        let list = s.get(&format!("/images/json?filters={filters}")).expect(200).json();
        let has = |entry: &&Value| entry["RepoTags"].to_string().contains(&image);
        list.as_array().unwrap().iter().filter(has).cloned().collect()
    };
    assert_eq!(listed(json!({ "reference": [image] })).len(), 1);
    assert_eq!(
        listed(json!({ "reference": [format!("{image}:v2")] }))[0]["RepoTags"],
        json!([format!("{image}:v2")])
    );
    assert_eq!(listed(json!({ "reference": ["cf*"] })).len(), 1);
    assert_eq!(listed(json!({ "reference": ["nobody*"] })).len(), 0);
    assert_eq!(listed(json!({ "dangling": ["true"] })).len(), 0);
    assert_eq!(listed(json!({ "dangling": ["false"] })).len(), 1);
    assert_eq!(listed(json!({ "since": ["busybox"] })).len(), 1);
    assert_eq!(listed(json!({ "before": ["busybox"] })).len(), 0);
    assert_eq!(listed(json!({ "label": ["none"] })).len(), 0);
    assert_eq!(listed(json!({ "until": ["1h"] })).len(), 0);
}

fn import(s: &Scene<'_>, query: &str, tar: &[u8]) -> crate::scene::Answer {
    let path = format!("/v1.51/images/create?fromSrc=-&{query}");
    let headers: &[(&str, &str)] = &[("Content-Type", "application/x-tar")];
    s.send(&Request { method: "POST", path: &path, headers, body: tar })
}

fn import_takes_changes_and_a_message(s: &Scene<'_>) {
    let image = s.name("a");
    let changes = [
        "CMD [\"x\",\"y\"]",
        "ENV A=1",
        "LABEL l=m",
        "USER u",
        "WORKDIR /w",
        "EXPOSE 80",
        "VOLUME /v",
        "STOPSIGNAL INT",
    ];
    let changes: Vec<String> =
        changes.iter().map(|change| format!("&changes={}", encoded(change))).collect();
    let query = format!("repo={image}&message=hello{}", changes.concat());
    import(s, &query, &tar_of(&[("f", b"x")])).expect(200);
    let image = s.get(&format!("/images/{image}/json")).expect(200).json();
    let config = &image["Config"];
    assert_eq!(image["Comment"], "hello");
    assert_eq!((&config["Cmd"], &config["Env"]), (&json!(["x", "y"]), &json!(["A=1"])));
    assert_eq!((&config["User"], &config["WorkingDir"]), (&json!("u"), &json!("/w")));
    assert_eq!((&config["Labels"], &config["StopSignal"]), (&json!({ "l": "m" }), &json!("INT")));
    assert_eq!(
        (&config["ExposedPorts"], &config["Volumes"]),
        (&json!({ "80/tcp": {} }), &json!({ "/v": {} }))
    );
    let bad = format!("repo={}&changes={}", s.name("b"), encoded("NONSENSE x"));
    let refused = import(s, &bad, &tar_of(&[("f", b"x")])).expect(400);
    assert!(refused.message().to_uppercase().contains("NONSENSE"), "{}", refused.message());
}

fn import_tells_progress_and_the_id(s: &Scene<'_>) {
    let image = s.name("a");
    let answer = import(s, &format!("repo={image}"), &tar_of(&[("f", b"x")])).expect(200);
    let last = answer.objects().last().unwrap()["status"].as_str().unwrap().to_owned();
    assert_eq!(s.get(&format!("/images/{image}/json")).json()["Id"], last);
}

fn a_broken_tar_is_refused_and_leaves_nothing(s: &Scene<'_>) {
    let image = s.name("a");
    let tar = tar_of(&[("f", &[b'x'; 9000])]);
    let answer = import(s, &format!("repo={image}"), &tar[..5000]);
    let told = answer.status() >= 400 || text(&answer.body).contains("errorDetail");
    assert!(told, "{:?}", text(&answer.body));
    s.get(&format!("/images/{image}/json")).refuses(404, "No such image");
}

fn a_pull_from_nobody_is_an_error_by_status(s: &Scene<'_>) {
    let answer = s.poke("/images/create?fromImage=127.0.0.1:9/x&tag=y");
    assert!(matches!(answer.status(), 500 | 503), "{}", answer.status());
    assert!(answer.message().contains("127.0.0.1:9"), "{}", answer.message());
    s.poke("/images/create?fromImage=UPPER").refuses(400, "invalid reference format");
    let err = s.fails(1, &["pull", "127.0.0.1:9/x"]);
    assert!(err.contains("127.0.0.1:9"), "{err}");
}

fn a_push_of_nothing_is_told_in_the_stream(s: &Scene<'_>) {
    let answer = s.poke("/images/127.0.0.1:9/nobodys/push").expect(200);
    let objects = answer.objects();
    assert_eq!(objects[0]["status"], "The push refers to repository [127.0.0.1:9/nobodys]");
    let words = "An image does not exist locally with the tag: 127.0.0.1:9/nobodys";
    let last = objects.last().unwrap();
    assert_eq!((&last["error"], &last["errorDetail"]["message"]), (&json!(words), &json!(words)));
}

fn save_and_load_give_the_same_image_back(s: &Scene<'_>) {
    let image = s.image("a");
    let before = s.get(&format!("/images/{image}/json")).expect(200).json();
    let saved = s.get(&format!("/images/get?names={image}")).expect(200);
    assert_eq!(saved.head.header("Content-Type"), Some("application/x-tar"));
    s.delete(&format!("/images/{image}")).expect(200);
    let headers: &[(&str, &str)] = &[("Content-Type", "application/x-tar")];
    let path = "/v1.51/images/load?quiet=1";
    let loaded = s.send(&Request { method: "POST", path, headers, body: &saved.body }).expect(200);
    assert!(
        text(&loaded.body).contains(&format!("Loaded image: {image}:latest")),
        "{:?}",
        text(&loaded.body)
    );
    let after = s.get(&format!("/images/{image}/json")).expect(200).json();
    for field in ["Id", "RootFS", "RepoTags", "Config", "Created"] {
        assert_eq!(before[field], after[field], "{field}");
    }
}

fn entries(tar: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut archive = tar::Archive::new(tar);
    let read = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().display().to_string();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        (name, content)
    });
    read.collect()
}

fn save_writes_a_layout_both_ways(s: &Scene<'_>) {
    let image = s.image("a");
    let saved = s.get(&format!("/images/{image}/get")).expect(200);
    let files = entries(&saved.body);
    let file = |name: &str| -> Value {
        let (_, content) = files.iter().find(|(path, _)| path == name).unwrap();
        serde_json::from_slice(content).unwrap()
    };
    let manifest = file("manifest.json");
    assert_eq!(manifest[0]["RepoTags"], json!([format!("{image}:latest")]));
    let layer = manifest[0]["Layers"][0].as_str().unwrap().to_owned();
    assert!(files.iter().any(|(path, _)| *path == layer), "{layer}");
    let id = s.get(&format!("/images/{image}/json")).json()["Id"].as_str().unwrap().to_owned();
    let config = manifest[0]["Config"].as_str().unwrap().to_owned();
    assert_eq!(config, format!("blobs/sha256/{}", id.trim_start_matches("sha256:")));
    assert_eq!(file("oci-layout"), json!({ "imageLayoutVersion": "1.0.0" }));
    assert_eq!(file("index.json")["schemaVersion"], 2);
}

fn save_of_several_images_holds_all_of_them(s: &Scene<'_>) {
    let (a, b) = (s.image("a"), s.image("b"));
    let saved = s.get(&format!("/images/get?names={a}&names={b}")).expect(200);
    let files = entries(&saved.body);
    let (_, manifest) = files.iter().find(|(path, _)| path == "manifest.json").unwrap();
    let manifest: Value = serde_json::from_slice(manifest).unwrap();
    let tags: Vec<&str> = manifest
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|entry| entry["RepoTags"][0].as_str())
        .collect();
    assert!(
        tags.contains(&format!("{a}:latest").as_str())
            && tags.contains(&format!("{b}:latest").as_str())
    );
}

fn load_of_rubbish_is_refused(s: &Scene<'_>) {
    let headers: &[(&str, &str)] = &[("Content-Type", "application/x-tar")];
    for body in [&b"rubbish"[..], &tar_of(&[("no-manifest", b"x")])] {
        let request = Request { method: "POST", path: "/v1.51/images/load", headers, body };
        let answer = s.send(&request);
        let told = answer.status() >= 400 || text(&answer.body).contains("errorDetail");
        assert!(told, "{} {:?}", answer.status(), text(&answer.body));
    }
}

fn commit_makes_an_image_of_a_container(s: &Scene<'_>) {
    let id = s.run("a", "echo written >/file; rm /etc/group; ln -s file /link");
    s.wait(&id);
    let image = s.name("image");
    let answer = s.poke(&format!("/commit?container={id}&repo={image}&tag=v1")).expect(201).json();
    let made = s.get(&format!("/images/{image}:v1/json")).expect(200).json();
    assert_eq!(made["Id"], answer["Id"]);
    assert_eq!(made["RootFS"]["Layers"].as_array().unwrap().len(), 2);
    let script = "cat /link; test ! -e /etc/group && echo gone";
    let reference = format!("{image}:v1");
    let out = s.ok(&["run", "--rm", "--name", &s.name("b"), &reference, "sh", "-c", script]);
    assert_eq!(out, "written\ngone");
    s.delete(&format!("/images/{reference}")).expect(200);
}

fn commit_takes_changes_author_and_message(s: &Scene<'_>) {
    let id = s.idle("a");
    let image = s.name("image");
    s.ok(&[
        "commit",
        "-a",
        "me",
        "-m",
        "why",
        "-c",
        "CMD [\"echo\",\"committed\"]",
        "-c",
        "ENV A=1",
        &id,
        &image,
    ]);
    let made = s.get(&format!("/images/{image}/json")).expect(200).json();
    assert_eq!((&made["Author"], &made["Comment"]), (&json!("me"), &json!("why")));
    assert_eq!(made["Config"]["Cmd"], json!(["echo", "committed"]));
    assert_eq!(s.ok(&["run", "--rm", "--name", &s.name("b"), &image]), "committed");
    let history = s.get(&format!("/images/{image}/history")).expect(200).json();
    assert_eq!(history[0]["Comment"], "why");
}

fn commit_of_nobody_is_no_such_container(s: &Scene<'_>) {
    s.poke("/commit?container=nobody").refuses(404, "No such container: nobody");
    let id = s.create("a", json!({}));
    s.poke(&format!("/commit?container={id}&repo=UPPER")).refuses(400, "must be lowercase");
}

fn images_tell_what_happened_to_them(s: &Scene<'_>) {
    let time = s.get("/info").expect(200).json()["SystemTime"].as_str().unwrap().to_owned();
    let image = s.image("a");
    let other = s.name("b");
    s.poke(&format!("/images/{image}/tag?repo={other}")).expect(201);
    let id = s.get(&format!("/images/{image}/json")).json()["Id"].as_str().unwrap().to_owned();
    s.delete(&format!("/images/{image}")).expect(200);
    s.delete(&format!("/images/{other}")).expect(200);
    let until = s.get("/info").json()["SystemTime"].as_str().unwrap().to_owned();
    let out = s.ok(&[
        "events",
        "--since",
        &time,
        "--until",
        &until,
        "--filter",
        "type=image",
        "--format",
        "{{.Action}} {{.Actor.ID}}",
    ]);
    let mine: Vec<&str> =
        out.lines().filter_map(|line| line.strip_suffix(&id)).map(str::trim).collect();
    assert_eq!(mine, ["tag", "import", "tag", "untag", "untag", "delete"]);
}

fn names_are_written_short_and_found_long(s: &Scene<'_>) {
    for name in ["busybox", "busybox:latest", "library/busybox", "docker.io/library/busybox:latest"]
    {
        s.get(&format!("/images/{name}/json")).expect(200);
    }
    assert!(s.ok(&["images", "busybox"]).contains("busybox"));
}
