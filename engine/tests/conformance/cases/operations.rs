//! Every operation of the description is answered: by what it promises or by a clear refusal.

use crate::{
    cases::cases,
    description::description,
    http::{Request, text},
    scene::{Scene, wait_for},
};
use serde_json::json;

cases! { "operations":
    all_of_them_are_known_by_the_engine,
    those_of_a_swarm_refuse_outside_of_one,
    those_of_plugins_know_of_none,
    things_of_buildkit_and_checkpoints_are_answered,
    a_login_and_a_look_into_a_registry_fail_in_words,
    old_versions_answer_in_their_shapes,
    a_container_lives_through_every_version,
    a_client_that_leaves_early_leaves_nothing_running,
    many_clients_at_once_are_answered,
}

/// With names of things that are not there, so that nothing is done.
fn all_of_them_are_known_by_the_engine(s: &Scene<'_>) {
    let mut wrong = Vec::new();
    for operation in &description().operations {
        // These never end, or would do something.
        let stays_away = [
            "SystemEvents",
            "SystemAuth",
            "ImageSearch",
            "PluginPull",
            "GetPluginPrivileges",
            "PluginUpgrade",
            "SwarmInit",
            "SwarmJoin",
        ];
        let prunes = operation.id.ends_with("Prune");
        if stays_away.contains(&operation.id.as_str()) || prunes {
            continue;
        }
        let (method, path) = (operation.method.as_str(), operation.example());
        let path = format!("/v1.51{path}");
        let body: &[u8] = if method == "POST" { b"{}" } else { b"" };
        let headers: &[(&str, &str)] =
            &[("Content-Type", "application/json"), ("Connection", "close")];
        let mut open = s.open(&Request { method, path: &path, headers, body });
        let status = open.head.status;
        let body = text(&open.rest());
        let unknown = status == 404 && body.contains("page not found") || status == 405;
        if unknown {
            wrong.push(format!("{} {method} {path}: {status} {body}", operation.id));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

fn those_of_a_swarm_refuse_outside_of_one(s: &Scene<'_>) {
    let words = "This node is not a swarm manager";
    for path in [
        "/swarm",
        "/swarm/unlockkey",
        "/nodes",
        "/nodes/x",
        "/services",
        "/services/x",
        "/services/x/logs?stdout=1",
        "/tasks",
        "/tasks/x",
        "/tasks/x/logs?stdout=1",
        "/secrets",
        "/secrets/x",
        "/configs",
        "/configs/x",
    ] {
        s.get(path).refuses(503, words);
    }
    for path in ["/nodes/x", "/services/x", "/secrets/x", "/configs/x"] {
        s.delete(path).refuses(503, words);
    }
    for path in ["/services/create", "/secrets/create", "/configs/create"] {
        s.post(path, &json!({})).refuses(503, words);
    }
    for path in [
        "/swarm/update?version=1",
        "/nodes/x/update?version=1",
        "/secrets/x/update?version=1",
        "/configs/x/update?version=1",
    ] {
        s.post(path, &json!({})).refuses(503, words);
    }
    s.poke("/swarm/leave").refuses(503, "This node is not part of a swarm");
}

fn those_of_plugins_know_of_none(s: &Scene<'_>) {
    s.get("/plugins").expect(200);
    s.get("/plugins/x/json").refuses(404, "plugin \"x\" not found");
    s.delete("/plugins/x").refuses(404, "plugin \"x\" not found");
    s.poke("/plugins/x/disable").refuses(404, "plugin \"x\" not found");
    s.poke("/plugins/x/enable?timeout=0").refuses(404, "plugin \"x\" not found");
    s.post("/plugins/x/set", &json!([])).refuses(404, "plugin \"x\" not found");
    s.poke("/plugins/x/push").refuses(404, "plugin \"x\" not found");
}

fn things_of_buildkit_and_checkpoints_are_answered(s: &Scene<'_>) {
    let session = s.poke("/session");
    assert!(matches!(session.status(), 400 | 501), "{}", session.status());
    let checkpoints = s.get("/containers/nobody/checkpoints");
    assert!(matches!(checkpoints.status(), 404 | 500 | 501), "{}", checkpoints.status());
}

fn a_login_and_a_look_into_a_registry_fail_in_words(s: &Scene<'_>) {
    let look = s.get("/distribution/127.0.0.1:9/x/json");
    assert!(look.status() >= 400 && look.message().contains("127.0.0.1:9"), "{}", look.message());
    let err = s.fails(1, &["login", "-u", "u", "-p", "p", "127.0.0.1:9"]);
    assert!(err.contains("127.0.0.1:9"), "{err}");
}

fn old_versions_answer_in_their_shapes(s: &Scene<'_>) {
    let id = s.create("a", json!({}));
    let at = |version: &str, path: &str| s.get(&format!("/{version}{path}")).expect(200).json();
    let path = format!("/containers/{id}/json");
    let (old, new) = (at("v1.24", &path), at("v1.51", &path));
    assert_eq!((&old["Id"], &old["Name"]), (&new["Id"], &new["Name"]));
    let (old, new) = (at("v1.43", "/images/busybox/json"), at("v1.44", "/images/busybox/json"));
    assert!(old.get("VirtualSize").is_some() && new.get("VirtualSize").is_none());
    let (old, new) = (at("v1.24", "/images/json"), at("v1.51", "/images/json"));
    assert!(old[0].get("VirtualSize").is_some() && new[0].get("VirtualSize").is_none());
}

fn a_container_lives_through_every_version(s: &Scene<'_>) {
    for version in ["v1.24", "v1.32", "v1.40", "v1.44", "v1.51"] {
        let name = s.name(version);
        let body = json!({ "Image": "busybox", "Cmd": ["sh", "-c", "echo hi; exit 2"] });
        let create = format!("/{version}/containers/create?name={name}");
        let id = s.post(&create, &body).expect(201).json()["Id"].as_str().unwrap().to_owned();
        s.poke(&format!("/{version}/containers/{id}/start")).expect(204);
        let wait = s.poke(&format!("/{version}/containers/{id}/wait")).expect(200).json();
        assert_eq!(wait["StatusCode"], 2, "{version}");
        let logs = s.get(&format!("/{version}/containers/{id}/logs?stdout=1")).expect(200);
        assert_eq!(logs.body, b"\x01\0\0\0\0\0\0\x03hi\n", "{version}");
        s.delete(&format!("/{version}/containers/{id}")).expect(204);
    }
}

fn a_client_that_leaves_early_leaves_nothing_running(s: &Scene<'_>) {
    let id = s.run("a", "while :; do echo tick; sleep 0.02; done");
    for _ in 0..10 {
        for path in
            [format!("/v1.51/containers/{id}/logs?follow=1&stdout=1"), "/v1.51/events".to_owned()]
        {
            drop(s.follow(&path));
        }
        drop(s.hijack(&format!("/v1.51/containers/{id}/attach?stream=1&stdout=1&stdin=1"), None));
        let path = format!("/v1.51/containers/{id}/wait");
        drop(s.open(&Request { method: "POST", path: &path, headers: &[], body: &[] }));
    }
    let lines = || s.ok(&["logs", "--tail", "all", &id]).lines().count();
    let before = lines();
    wait_for("the container to go on", || lines() > before);
}

fn many_clients_at_once_are_answered(s: &Scene<'_>) {
    let id = s.idle("a");
    let path = format!("/v1.51/containers/{id}/json");
    let socket = &s.host.socket;
    std::thread::scope(|scope| {
        for _ in 0..50 {
            scope.spawn(|| {
                for _ in 0..5 {
                    let request = Request {
                        method: "GET",
                        path: &path,
                        headers: &[("Connection", "close")],
                        body: &[],
                    };
                    let mut open = request.send(socket).unwrap();
                    assert_eq!(open.head.status, 200);
                    open.rest();
                }
            });
        }
    });
}
