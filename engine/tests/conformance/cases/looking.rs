//! Lists, filters and events.

use crate::{
    cases::cases,
    http::text,
    scene::{Scene, encoded, wait_for},
};
use serde_json::{Value, json};
use std::time::Duration;

cases! { "lists and events":
    the_list_has_dockers_fields,
    only_running_ones_are_listed_unless_all_are_asked_for,
    containers_are_filtered_by_name_id_label_and_status,
    containers_are_filtered_by_what_they_are_made_of,
    containers_are_filtered_by_exit_code_before_and_since,
    both_encodings_of_filters_are_taken,
    an_unknown_filter_is_refused,
    an_unknown_status_is_refused,
    limit_gives_the_newest,
    ps_shows_ports_command_and_status,
    the_status_is_told_in_words,
    events_tell_a_containers_life_in_order,
    events_are_filtered,
    events_of_the_past_are_kept,
    events_flow_while_they_happen,
    events_of_exec_name_the_command,
    events_have_dockers_fields,
    old_clients_get_the_old_fields_of_events,
}

fn listed(s: &Scene<'_>, filters: &Value) -> Vec<String> {
    let path = format!("/containers/json?all=1&filters={}", encoded(&filters.to_string()));
    let list = s.get(&path).expect(200).json();
    let prefix = format!("/{}", s.name(""));
    let names = list.as_array().unwrap().iter().map(|entry| entry["Names"][0].as_str().unwrap());
    let mut mine: Vec<String> =
        names.filter_map(|name| name.strip_prefix(&prefix)).map(str::to_owned).collect();
    mine.sort();
    mine
}

fn the_list_has_dockers_fields(s: &Scene<'_>) {
    let id = s.idle("a");
    let list =
        s.get(&format!("/containers/json?filters={}", encoded(&format!("{{\"id\":[\"{id}\"]}}"))));
    let list = list.expect(200).json();
    let entry = list[0].clone();
    assert_eq!(entry["Id"], id);
    assert_eq!(entry["Names"], json!([format!("/{}", s.name("a"))]));
    assert_eq!(entry["Image"], "busybox");
    assert_eq!(entry["Command"], "sh -c 'exec sleep 1000'");
    assert_eq!((&entry["State"], &entry["Ports"]), (&json!("running"), &json!([])));
    assert_eq!((&entry["Labels"], &entry["Mounts"]), (&json!({}), &json!([])));
    assert!(entry["Created"].is_i64() && entry["Status"].as_str().unwrap().starts_with("Up "));
    s.same_shape("ContainerList", &entry);
}

fn only_running_ones_are_listed_unless_all_are_asked_for(s: &Scene<'_>) {
    let (running, created) = (s.idle("a"), s.create("b", json!({})));
    let ids = |path: &str| text(&s.get(path).expect(200).body);
    let few = ids("/containers/json");
    assert!(few.contains(&running) && !few.contains(&created));
    for path in ["/containers/json?all=1", "/containers/json?all=true"] {
        let all = ids(path);
        assert!(all.contains(&running) && all.contains(&created), "{path}");
    }
}

fn containers_are_filtered_by_name_id_label_and_status(s: &Scene<'_>) {
    let label = s.name("label");
    let running = s.create("run", json!({ "Cmd": ["sleep", "1000"], "Labels": { &label: "1" } }));
    s.start(&running);
    s.create("new", json!({ "Labels": { &label: "2" } }));
    let ended = s.run("end", "true");
    s.wait(&ended);
    assert_eq!(listed(s, &json!({ "name": [s.name("new")] })), ["new"]);
    assert_eq!(listed(s, &json!({ "name": [format!("^/{}$", s.name("run"))] })), ["run"]);
    assert_eq!(listed(s, &json!({ "id": [running] })), ["run"]);
    assert_eq!(listed(s, &json!({ "label": [label] })), ["new", "run"]);
    assert_eq!(listed(s, &json!({ "label": [format!("{label}=2")] })), ["new"]);
    assert_eq!(listed(s, &json!({ "status": ["created"] })), ["new"]);
    assert_eq!(listed(s, &json!({ "status": ["running", "exited"] })), ["end", "run"]);
    for status in ["paused", "restarting", "removing", "dead"] {
        assert_eq!(listed(s, &json!({ "status": [status] })), [""; 0], "{status}");
    }
    assert_eq!(listed(s, &json!({ "label": [label], "status": ["running"] })), ["run"]);
}

fn containers_are_filtered_by_what_they_are_made_of(s: &Scene<'_>) {
    let image = s.image("img");
    s.create("other", json!({ "Image": image, "Cmd": ["x"] }));
    let ports = json!({ "8123/tcp": [{ "HostIp": "127.0.0.1", "HostPort": "18435" }] });
    let config = json!({
        "Cmd": ["sleep", "1000"], "ExposedPorts": { "7123/udp": {}, "8123/tcp": {} },
        "HostConfig": { "PortBindings": ports, "Binds": ["/tmp:/in"] },
    });
    let id = s.create("port", config);
    s.start(&id);
    assert_eq!(listed(s, &json!({ "ancestor": [image] })), ["other"]);
    assert!(listed(s, &json!({ "ancestor": ["busybox"] })).contains(&"port".to_owned()));
    assert_eq!(listed(s, &json!({ "ancestor": ["nobodys"] })), [""; 0]);
    assert_eq!(listed(s, &json!({ "publish": ["18435"] })), ["port"]);
    assert_eq!(listed(s, &json!({ "publish": ["18435/udp"] })), [""; 0]);
    assert_eq!(listed(s, &json!({ "expose": ["7123/udp"] })), ["port"]);
    assert_eq!(listed(s, &json!({ "volume": ["/in"] })), ["port"]);
    assert_eq!(listed(s, &json!({ "volume": ["/tmp"] })), ["port"]);
    assert!(listed(s, &json!({ "network": ["bridge"] })).contains(&"port".to_owned()));
    assert_eq!(listed(s, &json!({ "network": ["none"] })), [""; 0]);
    assert_eq!(listed(s, &json!({ "health": ["none"] })), ["other", "port"]);
    assert_eq!(listed(s, &json!({ "is-task": ["true"] })), [""; 0]);
}

fn containers_are_filtered_by_exit_code_before_and_since(s: &Scene<'_>) {
    let first = s.run("a", "exit 9");
    s.wait(&first);
    let second = s.create("b", json!({}));
    s.create("c", json!({}));
    assert_eq!(listed(s, &json!({ "exited": ["9"] })), ["a"]);
    assert_eq!(listed(s, &json!({ "before": [second] })), ["a"]);
    assert_eq!(listed(s, &json!({ "since": [second] })), ["c"]);
    assert_eq!(listed(s, &json!({ "since": [s.name("a")], "before": [s.name("c")] })), ["b"]);
    let bad = encoded("{\"exited\":[\"x\"]}");
    s.get(&format!("/containers/json?all=1&filters={bad}")).refuses(400, "x");
    let nobody = encoded("{\"before\":[\"nobody\"]}");
    s.get(&format!("/containers/json?all=1&filters={nobody}"))
        .refuses(404, "No such container: nobody");
}

fn both_encodings_of_filters_are_taken(s: &Scene<'_>) {
    let label = s.name("label");
    s.create("a", json!({ "Labels": { &label: "x" } }));
    s.create("b", json!({ "Labels": { &label: "y" } }));
    assert_eq!(listed(s, &json!({ "label": { &label: true } })), ["a", "b"]);
    assert_eq!(listed(s, &json!({ "label": { format!("{label}=x"): true } })), ["a"]);
    assert_eq!(listed(s, &json!({ "name": { s.name("a"): true, s.name("b"): true } })), ["a", "b"]);
    s.get("/containers/json?filters=nonsense").refuses(400, "invalid");
    s.get(&format!("/containers/json?filters={}", encoded("{\"label\":7}")))
        .refuses(400, "invalid");
}

fn an_unknown_filter_is_refused(s: &Scene<'_>) {
    let filters = encoded("{\"nonsense\":[\"x\"]}");
    s.get(&format!("/containers/json?filters={filters}")).refuses(400, "invalid filter 'nonsense'");
    s.get(&format!("/images/json?filters={filters}")).refuses(400, "invalid filter 'nonsense'");
    s.get(&format!("/networks?filters={filters}")).refuses(400, "invalid filter 'nonsense'");
    s.get(&format!("/volumes?filters={filters}")).refuses(400, "invalid filter 'nonsense'");
    s.poke(&format!("/containers/prune?filters={filters}"))
        .refuses(400, "invalid filter 'nonsense'");
}

fn an_unknown_status_is_refused(s: &Scene<'_>) {
    let filters = encoded("{\"status\":[\"nonsense\"]}");
    s.get(&format!("/containers/json?filters={filters}"))
        .refuses(400, "invalid filter 'status=nonsense'");
}

fn limit_gives_the_newest(s: &Scene<'_>) {
    let label = s.name("label");
    for part in ["a", "b", "c"] {
        s.create(part, json!({ "Labels": { &label: "" } }));
    }
    let filters = encoded(&json!({ "label": [label] }).to_string());
    let names = |limit: &str| -> Vec<String> {
        let list =
            s.get(&format!("/containers/json?limit={limit}&filters={filters}")).expect(200).json();
        list.as_array().unwrap().iter().map(|entry| entry["Names"][0].to_string()).collect()
    };
    let two = names("2");
    assert_eq!(two.len(), 2);
    assert!(two[0].contains("-c") && two[1].contains("-b"), "{two:?}");
    assert_eq!(names("-1").len(), 0, "no limit is no reason to show what does not run");
    assert!(s.get("/containers/json?limit=x").status() >= 400);
}

fn ps_shows_ports_command_and_status(s: &Scene<'_>) {
    let name = s.name("a");
    s.ok(&[
        "run",
        "-d",
        "--name",
        &name,
        "--stop-signal",
        "KILL",
        "-p",
        "127.0.0.1:18431:80",
        "--expose",
        "90",
        "busybox",
        "sleep",
        "1000",
    ]);
    let filter = format!("name={name}");
    let format = "{{.Names}} {{.Image}} {{.Command}} {{.Ports}} {{.State}}";
    let line = s.ok(&["ps", "--filter", &filter, "--format", format]);
    assert_eq!(
        line,
        format!("{name} busybox \"sleep 1000\" 90/tcp, 127.0.0.1:18431->80/tcp running")
    );
}

fn the_status_is_told_in_words(s: &Scene<'_>) {
    let status = |name: &str| {
        s.ok(&[
            "ps",
            "-a",
            "--filter",
            &format!("name=^{}$", s.name(name)),
            "--format",
            "{{.Status}}",
        ])
    };
    s.create("new", json!({}));
    assert_eq!(status("new"), "Created");
    let id = s.run("end", "exit 4");
    s.wait(&id);
    assert!(status("end").starts_with("Exited (4) "), "{}", status("end"));
    let paused = s.idle("paused");
    s.poke(&format!("/containers/{paused}/pause")).expect(204);
    assert!(status("paused").ends_with(" (Paused)"), "{}", status("paused"));
}

/// The events of something, from the beginning of the case to now.
fn events(s: &Scene<'_>, since: &str, filters: &Value) -> Vec<Value> {
    let until = now(s);
    let path =
        format!("/events?since={since}&until={until}&filters={}", encoded(&filters.to_string()));
    s.get(&path).expect(200).objects()
}

/// The engine's own time, as a query takes it.
fn now(s: &Scene<'_>) -> String {
    let time = s.get("/info").expect(200).json()["SystemTime"].as_str().unwrap().to_owned();
    let time: jiff::Timestamp = time.parse().unwrap();
    format!("{}.{:09}", time.as_second(), time.subsec_nanosecond())
}

fn actions(events: &[Value]) -> Vec<String> {
    events.iter().map(|event| event["Action"].as_str().unwrap().to_owned()).collect()
}

fn events_tell_a_containers_life_in_order(s: &Scene<'_>) {
    let since = now(s);
    let id = s.idle("a");
    s.poke(&format!("/containers/{id}/pause")).expect(204);
    s.poke(&format!("/containers/{id}/unpause")).expect(204);
    s.poke(&format!("/containers/{id}/rename?name={}", s.name("b"))).expect(204);
    s.post(&format!("/containers/{id}/update"), &json!({ "CpuShares": 100 })).expect(200);
    s.poke(&format!("/containers/{id}/stop")).expect(204);
    s.poke(&format!("/containers/{id}/start")).expect(204);
    s.poke(&format!("/containers/{id}/kill")).expect(204);
    s.wait(&id);
    s.delete(&format!("/containers/{id}")).expect(204);
    let told = events(s, &since, &json!({ "container": [id], "type": ["container"] }));
    let expected = [
        "create", "start", "pause", "unpause", "rename", "update", "kill", "die", "stop", "start",
        "kill", "die", "destroy",
    ];
    // Docker tells the stop before or after the death, as it happens.
    let without_stop =
        |all: Vec<String>| all.into_iter().filter(|a| a != "stop").collect::<Vec<_>>();
    let told = actions(&told);
    assert!(told.contains(&"stop".to_owned()), "{told:?}");
    assert_eq!(without_stop(told), without_stop(expected.map(str::to_owned).to_vec()));
}

fn events_are_filtered(s: &Scene<'_>) {
    let since = now(s);
    let label = s.name("label");
    let id = s.create("a", json!({ "Cmd": ["true"], "Labels": { &label: "x" } }));
    s.create("b", json!({}));
    s.start(&id);
    s.wait(&id);
    let told = |filters: Value| actions(&events(s, &since, &filters));
    assert_eq!(told(json!({ "label": [format!("{label}=x")], "event": ["create"] })), ["create"]);
    assert_eq!(
        told(json!({ "container": [s.name("a")], "event": ["create", "start"] })),
        ["create", "start"]
    );
    assert_eq!(told(json!({ "container": [id], "event": ["die"] })), ["die"]);
    assert_eq!(told(json!({ "container": [id], "type": ["volume"] })), [""; 0]);
    assert_eq!(told(json!({ "network": ["bridge"], "container": [id] })), [""; 0]);
}

fn events_of_the_past_are_kept(s: &Scene<'_>) {
    let since = now(s);
    let id = s.create("a", json!({}));
    let until = now(s);
    s.delete(&format!("/containers/{id}")).expect(204);
    let out = s.ok(&[
        "events",
        "--since",
        &since,
        "--until",
        &until,
        "--filter",
        &format!("container={id}"),
        "--format",
        "{{.Action}}",
    ]);
    assert_eq!(out, "create");
}

fn events_flow_while_they_happen(s: &Scene<'_>) {
    let filters =
        encoded(&json!({ "container": [s.name("a")], "type": ["container"] }).to_string());
    let mut stream = s.follow(&format!("/v1.51/events?filters={filters}"));
    assert_eq!(stream.head.header("Content-Type"), Some("application/json"));
    assert!(stream.is_silent_for(Duration::from_millis(30)));
    let id = s.create("a", json!({ "Cmd": ["true"] }));
    assert!(text(&stream.until(b"\n")).contains("\"Action\":\"create\""));
    s.start(&id);
    stream.until(b"\"die\"");
}

fn events_of_exec_name_the_command(s: &Scene<'_>) {
    let since = now(s);
    let id = s.idle("a");
    s.ok(&["exec", &id, "echo", "hi"]);
    let filters = json!({ "container": [id], "type": ["container"] });
    wait_for("the end of it", || {
        actions(&events(s, &since, &filters)).contains(&"exec_die".to_owned())
    });
    let told = events(s, &since, &filters);
    assert_eq!(actions(&told)[2..], ["exec_create: echo hi", "exec_start: echo hi", "exec_die"]);
    assert_eq!(told[4]["Actor"]["Attributes"]["exitCode"], "0");
    assert_eq!(told[4]["Actor"]["Attributes"]["execID"].as_str().unwrap().len(), 64);
}

fn events_have_dockers_fields(s: &Scene<'_>) {
    let since = now(s);
    let id = s.create("a", json!({ "Cmd": ["false"], "Labels": { "l": "v" } }));
    s.start(&id);
    s.wait(&id);
    let told = events(s, &since, &json!({ "container": [id], "type": ["container"] }));
    let die = told.iter().find(|event| event["Action"] == "die").unwrap();
    let attributes = &die["Actor"]["Attributes"];
    assert_eq!((&attributes["exitCode"], &attributes["l"]), (&json!("1"), &json!("v")));
    assert_eq!(
        (&attributes["image"], &attributes["name"]),
        (&json!("busybox"), &json!(s.name("a")))
    );
    assert_eq!((&die["scope"], &die["Actor"]["ID"]), (&json!("local"), &json!(id)));
    assert_eq!(die["timeNano"].as_i64().unwrap() / 1_000_000_000, die["time"].as_i64().unwrap());
    s.same_shape("event of a death", die);
    let network = events(s, &since, &json!({ "type": ["network"], "event": ["connect"] }));
    let mine = |event: &&Value| event["Actor"]["Attributes"]["container"] == id;
    s.same_shape("event of a connection", network.iter().find(mine).unwrap());
}

fn old_clients_get_the_old_fields_of_events(s: &Scene<'_>) {
    let since = now(s);
    let id = s.create("a", json!({}));
    let filters = encoded(&json!({ "container": [id] }).to_string());
    for version in ["v1.24", "v1.51"] {
        let path = format!("/{version}/events?since={since}&until={}&filters={filters}", now(s));
        let told = s.get(&path).expect(200).objects();
        assert_eq!(
            (&told[0]["status"], &told[0]["id"]),
            (&json!("create"), &json!(id)),
            "{version}"
        );
        assert_eq!(told[0]["from"], "busybox");
    }
}
