//! Versions, ping, info, headers: what every client asks first.

use crate::{
    cases::cases,
    http::{Request, text},
    scene::Scene,
};
use serde_json::json;

cases! { "basics":
    ping_answers_ok_and_names_the_builder_and_the_swarm,
    ping_by_head_has_no_body_and_a_length_of_nothing,
    every_answer_names_the_server_and_its_newest_version,
    version_has_dockers_fields,
    info_has_dockers_fields,
    versions_from_1_24_to_1_51_are_served,
    older_and_newer_versions_are_refused_in_dockers_words,
    paths_without_a_version_are_served,
    an_unknown_path_is_page_not_found,
    a_body_that_is_not_json_is_refused_by_its_type,
    a_body_with_something_behind_it_is_refused,
    an_empty_body_is_taken_where_all_is_optional,
    unknown_fields_are_ignored,
    the_cli_and_the_engine_agree_on_the_version,
    docker_info_shows_this_engine,
    info_tells_of_tcp_limits_where_the_machine_has_them,
    swarm_things_say_that_this_node_is_no_manager,
    there_are_no_plugins,
    a_login_at_nobodys_registry_is_an_error_and_no_hang,
}

fn ping_answers_ok_and_names_the_builder_and_the_swarm(s: &Scene<'_>) {
    let path = "/_ping";
    let answer = s.send(&Request { method: "GET", path, headers: &[], body: &[] }).expect(200);
    assert_eq!(text(&answer.body), "OK");
    let header = |name| answer.head.header(name).unwrap_or_default().to_owned();
    assert_eq!(header("Content-Type"), "text/plain; charset=utf-8");
    assert_eq!(header("Cache-Control"), "no-cache, no-store, must-revalidate");
    assert_eq!(header("Pragma"), "no-cache");
    assert_eq!(header("Swarm"), "inactive");
    assert_eq!(header("Api-Version"), "1.51");
    assert_eq!(header("Docker-Experimental"), "false");
    assert!(matches!(header("Builder-Version").as_str(), "1" | "2"));
}

fn ping_by_head_has_no_body_and_a_length_of_nothing(s: &Scene<'_>) {
    let path = "/_ping";
    let answer = s.send(&Request { method: "HEAD", path, headers: &[], body: &[] }).expect(200);
    assert_eq!(answer.head.header("Content-Length"), Some("0"));
    assert_eq!(answer.head.header("Api-Version"), Some("1.51"));
}

fn every_answer_names_the_server_and_its_newest_version(s: &Scene<'_>) {
    for path in ["/version", "/containers/nobody/json", "/v1.30/info"] {
        let answer = s.get(path);
        let server = answer.head.header("Server").unwrap_or_default().to_owned();
        assert!(server.contains('/') && server.ends_with(" (linux)"), "{server}");
        assert_eq!(answer.head.header("Api-Version"), Some("1.51"), "{path}");
        assert_eq!(answer.head.header("Ostype"), Some("linux"), "{path}");
        assert_eq!(answer.head.header("Content-Type"), Some("application/json"), "{path}");
    }
}

fn version_has_dockers_fields(s: &Scene<'_>) {
    let version = s.get("/version").expect(200).json();
    assert_eq!(version["ApiVersion"], "1.51");
    assert_eq!(version["MinAPIVersion"], "1.24");
    assert_eq!(version["Os"], "linux");
    assert_eq!(version["Components"][0]["Name"], "Engine");
    for field in ["Platform", "Version", "GitCommit", "GoVersion", "Arch", "KernelVersion"] {
        assert!(!version[field].is_null(), "{field}: {version}");
    }
    let engine = version["Components"][0]["Version"].as_str().unwrap();
    assert_eq!(version["Version"], engine);
    let parts: Vec<&str> = engine.split('.').collect();
    assert!(parts.len() >= 3 && parts[0].parse::<u32>().is_ok(), "{engine}");
}

fn info_has_dockers_fields(s: &Scene<'_>) {
    let mut info = s.get("/info").expect(200).json();
    assert_eq!(info["OSType"], "linux");
    assert_eq!(info["Swarm"]["LocalNodeState"], "inactive");
    assert_eq!(info["ServerVersion"], s.get("/version").json()["Version"]);
    assert!(info["NCPU"].as_u64().unwrap() >= 1 && info["MemTotal"].as_u64().unwrap() > 1 << 20);
    assert!(!info["ID"].as_str().unwrap().is_empty());
    assert!(info["Plugins"]["Network"].as_array().unwrap().contains(&json!("bridge")));
    assert!(info["Plugins"]["Volume"].as_array().unwrap().contains(&json!("local")));
    // These depend on the machine and on how the engine is built.
    let of_the_engine = [
        "DriverStatus",
        "Warnings",
        "FirewallBackend",
        "Containerd",
        "CDISpecDirs",
        "Runtimes",
        // A case of its own.
        "KernelMemoryTCP",
    ];
    for field in of_the_engine {
        info.as_object_mut().unwrap().remove(field);
    }
    s.same_shape("SystemInfo", &info);
}

fn versions_from_1_24_to_1_51_are_served(s: &Scene<'_>) {
    for minor in 24..=51 {
        let version = s.get(&format!("/v1.{minor}/version")).expect(200).json();
        assert_eq!(version["ApiVersion"], "1.51");
        s.get(&format!("/v1.{minor}/containers/json")).expect(200);
        s.get(&format!("/v1.{minor}/images/json")).expect(200);
        s.get(&format!("/v1.{minor}/networks")).expect(200);
    }
}

fn older_and_newer_versions_are_refused_in_dockers_words(s: &Scene<'_>) {
    // Docker says this in plain text, and nothing else does it so.
    let old = s.get("/v1.23/version").expect(400);
    let words = "client version 1.23 is too old. Minimum supported API version is 1.24, \
                 please upgrade your client to a newer version";
    assert!(text(&old.body).contains(words), "{:?}", text(&old.body));
    let new = s.get("/v1.52/version").expect(400);
    let words = "client version 1.52 is too new. Maximum supported API version is 1.51";
    assert!(text(&new.body).contains(words), "{:?}", text(&new.body));
}

fn paths_without_a_version_are_served(s: &Scene<'_>) {
    for path in ["/version", "/info", "/containers/json", "/networks", "/images/json"] {
        s.send(&Request { method: "GET", path, headers: &[], body: &[] }).expect(200);
    }
}

fn an_unknown_path_is_page_not_found(s: &Scene<'_>) {
    s.get("/nonsense").refuses(404, "page not found");
    s.get("/containers/a/b/c").refuses(404, "page not found");
}

fn a_body_that_is_not_json_is_refused_by_its_type(s: &Scene<'_>) {
    let headers: &[(&str, &str)] = &[("Content-Type", "text/plain")];
    let path = "/v1.51/containers/create";
    let request = Request { method: "POST", path, headers, body: b"{\"Image\":\"busybox\"}" };
    let words = "unsupported Content-Type header (text/plain): must be 'application/json'";
    s.send(&request).refuses(400, words);
}

fn a_body_with_something_behind_it_is_refused(s: &Scene<'_>) {
    let headers: &[(&str, &str)] = &[("Content-Type", "application/json")];
    let path = "/v1.51/containers/create";
    for (body, words) in [
        ("{\"Image\":\"busybox\"} x", "unexpected content after JSON"),
        ("{", "invalid JSON"),
        ("", "invalid JSON"),
        ("{\"Image\":7}", "invalid JSON"),
    ] {
        let request = Request { method: "POST", path, headers, body: body.as_bytes() };
        s.send(&request).refuses(400, words);
    }
}

fn an_empty_body_is_taken_where_all_is_optional(s: &Scene<'_>) {
    let id = s.create("a", json!({}));
    s.poke(&format!("/containers/{id}/start")).expect(204);
    let name = s.name("n");
    s.post(&format!("/containers/{id}/exec"), &json!({})).refuses(400, "No exec command specified");
    s.delete(&format!("/containers/{id}?force=1")).expect(204);
    s.get(&format!("/containers/{name}/json")).refuses(404, &format!("No such container: {name}"));
}

fn unknown_fields_are_ignored(s: &Scene<'_>) {
    s.create("a", json!({ "NoSuchField": { "x": [1, 2] }, "HostConfig": { "Neither": 1 } }));
}

fn the_cli_and_the_engine_agree_on_the_version(s: &Scene<'_>) {
    let said = s.ok(&["version", "-f", "{{.Client.APIVersion}} {{.Server.APIVersion}}"]);
    let (client, server) = said.split_once(' ').unwrap();
    assert_eq!(server, "1.51");
    // An older client speaks what it can.
    let minor = client.strip_prefix("1.").and_then(|minor| minor.parse::<u32>().ok());
    assert!(minor.is_some_and(|minor| (44..=51).contains(&minor)), "{said}");
}

fn info_tells_of_tcp_limits_where_the_machine_has_them(s: &Scene<'_>) {
    let file = "/sys/fs/cgroup/memory/memory.kmem.tcp.limit_in_bytes";
    let info = s.get("/info").expect(200).json();
    // Docker leaves it out where it is not so.
    assert_eq!(info["KernelMemoryTCP"] == true, std::path::Path::new(file).exists());
    let id = s.create("a", json!({ "HostConfig": { "KernelMemoryTCP": 1 << 20 } }));
    s.start(&id);
    assert_eq!(s.inspect(&id)["HostConfig"]["KernelMemoryTCP"], 1 << 20);
}

fn docker_info_shows_this_engine(s: &Scene<'_>) {
    let id = s.get("/info").json()["ID"].as_str().unwrap().to_owned();
    assert_eq!(s.ok(&["info", "-f", "{{.ID}}"]), id);
}

fn swarm_things_say_that_this_node_is_no_manager(s: &Scene<'_>) {
    for path in ["/swarm", "/nodes", "/services", "/tasks", "/secrets", "/configs", "/nodes/x"] {
        s.get(path).refuses(503, "This node is not a swarm manager.");
    }
}

fn there_are_no_plugins(s: &Scene<'_>) {
    assert_eq!(s.get("/plugins").expect(200).json(), json!([]));
    s.get("/plugins/none/json").refuses(404, "plugin \"none\" not found");
}

fn a_login_at_nobodys_registry_is_an_error_and_no_hang(s: &Scene<'_>) {
    let login = json!({ "username": "u", "password": "p", "serveraddress": "http://127.0.0.1:9" });
    let answer = s.post("/auth", &login);
    assert!(answer.status() >= 400, "{}", answer.status());
}
