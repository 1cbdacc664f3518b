//! What other engines that serve this API got wrong, each as a case; the issues are public.

use crate::{
    cases::cases,
    http::{Request, frames, text},
    scene::{Scene, encoded, tar_of, wait_for},
};
use serde_json::{Value, json};
use std::{
    io::{BufRead, BufReader},
    time::Duration,
};

cases! { "traps":
    trap_01_wait_flushes_its_header_before_it_waits,
    trap_02_an_exec_socket_is_closed_when_the_process_ends,
    trap_03_the_body_of_exec_start_is_not_its_input,
    trap_04_a_connection_is_upgraded_only_when_asked_for,
    trap_05_attach_does_not_echo_and_sees_the_end_of_input,
    trap_06_events_and_logs_send_their_headers_before_the_first_record,
    trap_07_stats_have_a_before_and_the_whole_machines_time,
    trap_08_top_is_a_list_of_lists,
    trap_09_a_failed_pull_is_no_200_and_a_local_one_is_told_in_known_words,
    trap_10_filters_come_as_lists_and_as_maps,
    trap_11_minus_one_slashes_and_prefixes_are_taken,
    trap_12_empty_is_not_null,
    trap_13_the_default_network_is_called_bridge,
    trap_14_a_network_without_more_said_is_a_bridge_with_dns,
    trap_15_health_is_kept_and_its_shell_is_not_doubled,
    trap_16_archive_fails_before_it_says_200,
    trap_17_version_and_info_are_shaped_as_dockers,
    trap_18_a_restart_policy_is_updated_and_obeyed,
    trap_19_sessions_of_buildkit_are_answered_clearly,
    trap_20_the_newest_version_is_spoken,
    trap_21_the_engines_socket_can_be_mounted_and_answers_inside,
    trap_22_an_error_has_a_whole_body,
}

/// containers/podman#9048, #25479, #18912, #24208, #28976; apocas/dockerode#582.
fn trap_01_wait_flushes_its_header_before_it_waits(s: &Scene<'_>) {
    let id = s.create(
        "a",
        json!({ "Cmd": ["sh", "-c", "exit 6"], "HostConfig": { "AutoRemove": true } }),
    );
    let path = |condition: &str| format!("/v1.51/containers/{id}/wait?condition={condition}");
    let wait = |condition| {
        s.open(&Request { method: "POST", path: &path(condition), headers: &[], body: &[] })
    };
    // That these return at all is the point: nothing runs yet.
    let (mut next, mut removed) = (wait("next-exit"), wait("removed"));
    assert_eq!((next.head.status, removed.head.status), (200, 200));
    assert!(next.is_silent_for(Duration::from_millis(30)));
    s.start(&id);
    for stream in [&mut next, &mut removed] {
        let answer: Value = serde_json::from_slice(&stream.rest()).unwrap();
        assert_eq!(answer["StatusCode"], 6);
    }
    s.get(&format!("/containers/{id}/json")).refuses(404, "No such container");
}

/// containers/podman#6853, #7360; ddev/ddev#8660.
fn trap_02_an_exec_socket_is_closed_when_the_process_ends(s: &Scene<'_>) {
    let id = s.idle("a");
    let body = json!({ "Cmd": ["true"], "AttachStdin": true, "AttachStdout": true });
    let exec = s.post(&format!("/containers/{id}/exec"), &body).expect(201).json();
    let path = format!("/v1.51/exec/{}/start", exec["Id"].as_str().unwrap());
    let mut stream = s.hijack(&path, Some(&json!({})));
    assert_eq!(stream.rest(), b"", "and the input was never closed by us");
    let attached = s.create("b", json!({ "Cmd": ["true"], "OpenStdin": true }));
    let path = format!("/v1.51/containers/{attached}/attach?stream=1&stdin=1&stdout=1");
    let mut stream = s.hijack(&path, None);
    s.start(&attached);
    assert_eq!(stream.rest(), b"");
}

/// socktainer/socktainer#21.
fn trap_03_the_body_of_exec_start_is_not_its_input(s: &Scene<'_>) {
    let id = s.idle("a");
    let body = json!({ "Cmd": ["cat"], "AttachStdin": true, "AttachStdout": true });
    let exec = s.post(&format!("/containers/{id}/exec"), &body).expect(201).json();
    let path = format!("/v1.51/exec/{}/start", exec["Id"].as_str().unwrap());
    let mut stream = s.hijack(&path, Some(&json!({ "Detach": false, "Tty": false })));
    stream.feed(b"only this\n");
    stream.close_input();
    assert_eq!(frames(&stream.rest()), [(1, "only this\n".to_owned())]);
}

/// containers/podman#6913, #19696; dotnet/Docker.DotNet#25.
fn trap_04_a_connection_is_upgraded_only_when_asked_for(s: &Scene<'_>) {
    let id = s.idle("a");
    let start = |headers: &[(&str, &str)]| {
        let body = json!({ "Cmd": ["echo", "x"], "AttachStdout": true });
        let exec = s.post(&format!("/containers/{id}/exec"), &body).expect(201).json();
        let path = format!("/v1.51/exec/{}/start", exec["Id"].as_str().unwrap());
        let mut all = vec![("Content-Type", "application/json")];
        all.extend(headers);
        s.open(&Request { method: "POST", path: &path, headers: &all, body: b"{}" })
    };
    let mut plain = start(&[]);
    assert_eq!((plain.head.status, plain.head.header("Upgrade")), (200, None));
    assert_eq!(plain.head.header("Transfer-Encoding"), None);
    assert_eq!(frames(&plain.rest()), [(1, "x\n".to_owned())]);
    let mut upgraded = start(&[("Connection", "Upgrade"), ("Upgrade", "tcp")]);
    assert_eq!((upgraded.head.status, upgraded.head.header("Upgrade")), (101, Some("tcp")));
    assert_eq!(upgraded.head.header("Connection"), Some("Upgrade"));
    let kind = upgraded.head.header("Content-Type");
    assert_eq!(kind, Some("application/vnd.docker.multiplexed-stream"));
    assert_eq!(frames(&upgraded.rest()), [(1, "x\n".to_owned())]);
}

/// containers/podman#19901.
fn trap_05_attach_does_not_echo_and_sees_the_end_of_input(s: &Scene<'_>) {
    let config = json!({ "Cmd": ["sh", "-c", "read x; echo got $x; cat >/dev/null; echo end"], "OpenStdin": true, "StdinOnce": true });
    let id = s.create("a", config);
    let path = format!("/v1.51/containers/{id}/attach?stream=1&stdin=1&stdout=1&stderr=1");
    let mut stream = s.hijack(&path, None);
    s.start(&id);
    stream.feed(b"this\n");
    stream.until(b"got this\n");
    stream.close_input();
    assert_eq!(frames(&stream.rest()), [(1, "end\n".to_owned())]);
}

/// containers/podman#23712.
fn trap_06_events_and_logs_send_their_headers_before_the_first_record(s: &Scene<'_>) {
    let filters = encoded(&json!({ "container": [s.name("nobody")] }).to_string());
    let mut events = s.follow(&format!("/v1.51/events?filters={filters}"));
    assert!(events.is_silent_for(Duration::from_millis(20)));
    let id = s.idle("a");
    let mut logs = s.follow(&format!("/v1.51/containers/{id}/logs?follow=1&stdout=1"));
    assert!(logs.is_silent_for(Duration::from_millis(20)));
}

/// containers/podman#24730, #25709, #28761, #15754, #16225, #16139.
fn trap_07_stats_have_a_before_and_the_whole_machines_time(s: &Scene<'_>) {
    let id = s.idle("a");
    let stats = s.get(&format!("/containers/{id}/stats?stream=0")).expect(200).json();
    let number = |place: &str| stats.pointer(place).and_then(Value::as_u64).unwrap();
    assert!(number("/precpu_stats/system_cpu_usage") > 0, "{stats}");
    let passed = number("/cpu_stats/system_cpu_usage") - number("/precpu_stats/system_cpu_usage");
    let cpus = number("/cpu_stats/online_cpus");
    // About a second of every processor, the idle ones too.
    assert!((cpus * 500_000_000..cpus * 10_000_000_000).contains(&passed), "{passed}");
    let created = s.create("b", json!({}));
    let mut lines = BufReader::new(s.follow(&format!("/v1.51/containers/{created}/stats"))).lines();
    let first: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
    assert_eq!(first["id"], created);
}

/// containers/podman#23981.
fn trap_08_top_is_a_list_of_lists(s: &Scene<'_>) {
    let id = s.idle("a");
    let top = s.get(&format!("/containers/{id}/top?ps_args=-ef")).expect(200).json();
    let process = top["Processes"][0].as_array().unwrap();
    assert_eq!(process.len(), top["Titles"].as_array().unwrap().len());
    assert!(process[7].as_str().unwrap().contains("sleep 1000"), "{top}");
}

/// containers/podman#10258, #10612, #28109; docker-java/docker-java#1658.
fn trap_09_a_failed_pull_is_no_200_and_a_local_one_is_told_in_known_words(s: &Scene<'_>) {
    let answer = s.poke("/images/create?fromImage=127.0.0.1:9/nobodys&tag=latest");
    assert!(answer.status() >= 400 && !answer.message().is_empty());
    let twice = s.poke("/images/create?fromImage=127.0.0.1:9%2Fnobodys&tag=sha256:00");
    assert!(twice.status() >= 400);
}

/// containers/podman#8860, #5230, #29366, #15306, #6797, #6899.
fn trap_10_filters_come_as_lists_and_as_maps(s: &Scene<'_>) {
    let label = s.name("label");
    s.create("a", json!({ "Labels": { &label: "true" } }));
    let count = |filters: Value| {
        let path = format!("/containers/json?all=1&filters={}", encoded(&filters.to_string()));
        s.get(&path).expect(200).json().as_array().unwrap().len()
    };
    let pair = format!("{label}=true");
    assert_eq!(count(json!({ "label": { &pair: true } })), 1);
    assert_eq!(count(json!({ "label": [pair] })), 1);
    assert_eq!(count(json!({ "label": [label, "another"] })), 0);
    assert_eq!(count(json!({ "label": [label], "status": ["dead"] })), 0);
    assert_eq!(count(json!({ "label": [label], "status": ["restarting"] })), 0);
    assert_eq!(count(json!({ "label": [label], "status": ["created", "dead"] })), 1);
    s.get("/containers/json?filters={}").expect(200);
    s.get("/containers/json?filters=").expect(200);
}

/// containers/podman#5553; testcontainers/testcontainers-java#2088.
fn trap_11_minus_one_slashes_and_prefixes_are_taken(s: &Scene<'_>) {
    let id = s.create("a", json!({}));
    s.get("/containers/json?all=1&limit=-1").expect(200);
    s.get("/containers/json?limit=0").expect(200);
    s.get("/networks/").expect(200);
    let short: String = id.chars().take(12).collect();
    assert_eq!(s.inspect(&short)["Id"], id);
    let slash = encoded(&json!({ "name": [format!("/{}", s.name("a"))] }).to_string());
    let list = s.get(&format!("/containers/json?all=1&filters={slash}")).expect(200).json();
    assert_eq!(list[0]["Id"], id);
    let path = format!("/containers/{short}/json");
    s.send(&Request { method: "GET", path: &path, headers: &[], body: &[] }).expect(200);
}

/// containers/podman#9466, #8329.
fn trap_12_empty_is_not_null(s: &Scene<'_>) {
    let id = s.create("a", json!({}));
    let container = s.inspect(&id);
    assert_eq!(container["Mounts"], json!([]));
    assert_eq!(container["Config"]["Labels"], json!({}));
    assert_eq!(container["NetworkSettings"]["Ports"], json!({}));
    let filters = encoded(&json!({ "id": [id] }).to_string());
    let list = s.get(&format!("/containers/json?all=1&filters={filters}")).expect(200).json();
    assert_eq!(
        (&list[0]["Ports"], &list[0]["Labels"], &list[0]["Mounts"]),
        (&json!([]), &json!({}), &json!([]))
    );
    let nobody = encoded(&json!({ "name": ["nobodys-at-all"] }).to_string());
    for path in ["/containers/json", "/images/json", "/networks"] {
        let path = if path == "/images/json" {
            format!("{path}?filters={}", encoded("{\"reference\":[\"nobodys\"]}"))
        } else {
            format!("{path}?filters={nobody}")
        };
        assert_eq!(s.get(&path).expect(200).json(), json!([]), "{path}");
    }
    let host = s.get("/networks/host").expect(200).json();
    assert_eq!(
        (&host["Options"], &host["Labels"], &host["Containers"].is_object()),
        (&json!({}), &json!({}), &true)
    );
}

/// containers/podman#23453.
fn trap_13_the_default_network_is_called_bridge(s: &Scene<'_>) {
    let id = s.idle("a");
    let container = s.inspect(&id);
    assert_eq!(container["HostConfig"]["NetworkMode"], "bridge");
    let networks = container["NetworkSettings"]["Networks"].as_object().unwrap();
    assert_eq!(networks.keys().collect::<Vec<_>>(), ["bridge"]);
    assert_eq!(s.get("/networks/bridge").expect(200).json()["Name"], "bridge");
    let old = s.create("b", json!({ "HostConfig": { "NetworkMode": "default" } }));
    assert_eq!(s.inspect(&old)["HostConfig"]["NetworkMode"], "bridge");
}

/// containers/podman#8104, #12972; containers/podman-compose#852.
fn trap_14_a_network_without_more_said_is_a_bridge_with_dns(s: &Scene<'_>) {
    let name = s.name("n");
    s.post("/networks/create", &json!({ "Name": name })).expect(201);
    let network = s.get(&format!("/networks/{name}")).expect(200).json();
    assert_eq!((&network["Driver"], &network["Scope"]), (&json!("bridge"), &json!("local")));
    assert_eq!(network["IPAM"]["Driver"], "default");
    assert_eq!(network["IPAM"]["Config"].as_array().unwrap().len(), 1);
    assert!(network["IPAM"]["Config"][0]["Gateway"].is_string(), "{network}");
    let run = |part: &str, flags: &[&str], command: &[&str]| {
        let part = s.name(part);
        let own = ["run", "-d", "--name", &part, "--network", &name];
        let start = [&own[..], &["--stop-signal", "KILL", "--cap-add", "NET_RAW"]].concat();
        s.ok(&[&start[..], flags, &["busybox"], command].concat())
    };
    run("server", &["--network-alias", "other"], &["sleep", "1000"]);
    let client = run("client", &[], &["ping", "-c1", "-W5", "other"]);
    assert_eq!(s.wait(&client), 0, "{}", s.ok(&["logs", &client]));
    let refused =
        s.said(&["run", "--rm", "--name", &s.name("x"), "--network-alias", "y", "busybox", "true"]);
    assert!(refused.code == 125 && refused.err.contains("network-scoped alias"), "{refused:?}");
}

/// containers/podman#10457, #10617; ddev/ddev#8650.
fn trap_15_health_is_kept_and_its_shell_is_not_doubled(s: &Scene<'_>) {
    let check = json!({ "Test": ["CMD-SHELL", "echo \"$0\"; test -e /etc/passwd"], "Interval": 100_000_000 });
    let id = s.create(
        "a",
        json!({ "Cmd": ["sleep", "1000"], "StopSignal": "KILL", "Healthcheck": check }),
    );
    assert_eq!(s.inspect(&id)["Config"]["Healthcheck"]["Test"], check["Test"]);
    s.start(&id);
    let health = || s.inspect(&id)["State"]["Health"].clone();
    wait_for("its health", || health()["Status"] == "healthy");
    assert_eq!(health()["Log"][0]["Output"], "/bin/sh\n");
}

/// containers/podman#9680, #12420, #12431.
fn trap_16_archive_fails_before_it_says_200(s: &Scene<'_>) {
    let id = s.create("a", json!({ "HostConfig": { "ReadonlyRootfs": true } }));
    let found = s.get(&format!("/containers/{id}/archive?path=/etc/passwd")).expect(200);
    assert!(found.head.header("X-Docker-Container-Path-Stat").is_some());
    s.get(&format!("/containers/{id}/archive?path=/nope"))
        .refuses(404, "Could not find the file /nope");
    let put = |path: &str| {
        let path = format!("/v1.51/containers/{id}/archive?path={path}");
        let headers: &[(&str, &str)] = &[("Content-Type", "application/x-tar")];
        s.send(&Request { method: "PUT", path: &path, headers, body: &tar_of(&[("x", b"1")]) })
    };
    put("/nope").refuses(404, "Could not find the file /nope");
    put("/etc/passwd").refuses(400, "extraction point is not a directory");
    put("/etc").refuses(400, "read-only");
}

/// containers/podman#7327, #23344, #16721.
fn trap_17_version_and_info_are_shaped_as_dockers(s: &Scene<'_>) {
    let version = s.get("/version").expect(200).json();
    let api: Vec<&str> = version["ApiVersion"].as_str().unwrap().split('.').collect();
    assert!(api.len() == 2 && api.iter().all(|part| part.parse::<u32>().is_ok()), "{api:?}");
    assert!(version["Platform"]["Name"].is_string());
    let details = &version["Components"][0]["Details"];
    assert_eq!(
        (&details["ApiVersion"], &details["MinAPIVersion"]),
        (&version["ApiVersion"], &version["MinAPIVersion"])
    );
    let info = s.get("/info").expect(200).json();
    for field in ["Containers", "Images", "NCPU", "MemTotal", "NFd", "NGoroutines"] {
        assert!(info[field].is_u64(), "{field}");
    }
    for field in [
        "ServerVersion",
        "OperatingSystem",
        "DockerRootDir",
        "Driver",
        "CgroupDriver",
        "DefaultRuntime",
        "IndexServerAddress",
    ] {
        assert!(info[field].as_str().is_some_and(|text| !text.is_empty()), "{field}");
    }
    assert!(
        info["RegistryConfig"]["IndexConfigs"].is_object() && info["SecurityOptions"].is_array()
    );
}

/// bnema/gordon#192; containers/podman#9579.
fn trap_18_a_restart_policy_is_updated_and_obeyed(s: &Scene<'_>) {
    let id = s.create("a", json!({ "Cmd": ["sh", "-c", "sleep 0.3; exit 1"] }));
    let policy = json!({ "RestartPolicy": { "Name": "on-failure", "MaximumRetryCount": 1 } });
    s.post(&format!("/containers/{id}/update"), &policy).expect(200);
    assert_eq!(s.inspect(&id)["HostConfig"]["RestartPolicy"], policy["RestartPolicy"]);
    s.start(&id);
    wait_for("one more try and the end", || {
        let container = s.inspect(&id);
        container["RestartCount"] == 1 && container["State"]["Status"] == "exited"
    });
}

/// containers/podman#17836, #26383; loft-sh/devpod#984.
fn trap_19_sessions_of_buildkit_are_answered_clearly(s: &Scene<'_>) {
    let session = s.open(&Request {
        method: "POST",
        path: "/v1.51/session",
        headers: &[
            ("Connection", "Upgrade"),
            ("Upgrade", "h2c"),
            ("X-Docker-Expose-Session-Uuid", "x"),
        ],
        body: &[],
    });
    let builder = s.get("/info").head.status;
    let ping = s.send(&Request { method: "GET", path: "/_ping", headers: &[], body: &[] });
    let speaks_buildkit = ping.head.header("Builder-Version") == Some("2");
    // Who does not speak it says so at the door, so that the CLI never comes here.
    assert_eq!(session.head.status, if speaks_buildkit { 101 } else { 501 });
    assert_eq!(builder, 200);
}

/// containers/podman#27890; containrrr/watchtower#2122.
fn trap_20_the_newest_version_is_spoken(s: &Scene<'_>) {
    let version = s.get("/version").expect(200).json();
    let minor: u32 =
        version["ApiVersion"].as_str().unwrap().trim_start_matches("1.").parse().unwrap();
    assert!(minor >= 51);
    s.get("/v1.44/containers/json").expect(200);
}

/// containers/podman#20204; testcontainers/testcontainers-go#2264.
fn trap_21_the_engines_socket_can_be_mounted_and_answers_inside(s: &Scene<'_>) {
    let mount = format!("{}:/var/run/docker.sock", s.host.socket.display());
    let request = "printf 'GET /_ping HTTP/1.0\\r\\n\\r\\n' | nc local:/var/run/docker.sock";
    let flags = ["run", "--rm", "--name", &s.name("a"), "-v", &mount, "busybox", "sh", "-c"];
    let socket = s.ok(&[&flags[..], &["test -S /var/run/docker.sock && echo there"]].concat());
    assert_eq!(socket, "there");
    let said = s.said(&[&flags[..], &[request]].concat());
    assert!(said.out.ends_with("OK") || said.err.contains("nc:"), "{said:?}");
}

/// docker/for-mac#5059.
fn trap_22_an_error_has_a_whole_body(s: &Scene<'_>) {
    for path in
        ["/containers/nobody/json", "/images/nobodys/json", "/networks/nobody", "/volumes/nobody"]
    {
        let answer = s.get(path);
        assert_eq!(answer.status(), 404, "{path}");
        let length = answer.head.header("Content-Length").map(str::to_owned);
        assert_eq!(length, Some(answer.body.len().to_string()), "{path}: {:?}", text(&answer.body));
    }
}
