//! create, start, stop, kill, restart, rename, wait, rm: and their refusals.

use crate::{
    engine::{Engine, wait_for},
    streams::read_head,
};
use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
};

#[test]
fn a_container_is_created_started_stopped_and_removed() {
    let engine = Engine::start();
    let id = engine.ok(&["create", "--name", "web", "busybox", "sleep", "1000"]);
    assert_eq!(id.len(), 64);
    let state = || engine.ok(&["inspect", "-f", "{{.State.Status}}", "web"]);
    assert_eq!(state(), "created");
    assert_eq!(engine.ok(&["start", "web"]), "web");
    assert_eq!(state(), "running");
    let up = engine.ok(&["ps", "--format", "{{.Names}} {{.Image}} {{.Status}}"]);
    assert!(up.starts_with("web busybox Up "), "{up}");
    engine.ok(&["stop", "-t", "0", "web"]);
    assert_eq!(
        engine.ok(&["inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "web"]),
        "exited 137"
    );
    engine.ok(&["start", "web"]);
    engine.ok(&["rename", "web", "shop"]);
    let error = engine.fails(1, &["rm", "shop"]);
    assert!(
        error.contains("container is running: stop the container before removing or force remove"),
        "{error}"
    );
    engine.ok(&["rm", "-f", "shop"]);
    let error = engine.fails(1, &["inspect", "--type", "container", "shop"]);
    assert!(error.contains("No such container: shop"), "{error}");
}

#[test]
fn names_are_unique_and_ids_may_be_shortened() {
    let engine = Engine::start();
    let id = engine.ok(&["create", "--name", "one", "busybox"]);
    let error = engine.fails(1, &["create", "--name", "one", "busybox"]);
    assert!(
        error.contains(&format!(
            "Conflict. The container name \"/one\" is already in use by container \"{id}\""
        )),
        "{error}"
    );
    assert_eq!(engine.ok(&["inspect", "-f", "{{.Id}}", &id[..10]]), id);
    assert_eq!(engine.ok(&["inspect", "-f", "{{.Name}}", "one"]), "/one");
    let other = engine.ok(&["create", "busybox"]);
    let name = engine.ok(&["inspect", "-f", "{{.Name}}", &other]);
    assert!(name.contains('_'), "{name}");
    let error = engine.fails(1, &["rename", &other, "one"]);
    assert!(error.contains("is already in use"), "{error}");
}

#[test]
fn wait_answers_with_the_exit_code_also_for_what_is_removed_at_its_end() {
    let engine = Engine::start();
    engine.ok(&[
        "run",
        "-d",
        "--rm",
        "--name",
        "ww",
        "busybox",
        "sh",
        "-c",
        "while [ ! -e /go ]; do sleep 0.02; done; exit 7",
    ]);
    let mut waiter = UnixStream::connect(engine.socket()).unwrap();
    let request = "POST /v1.51/containers/ww/wait?condition=removed HTTP/1.1\r\n\
                   Host: d\r\nConnection: close\r\n\r\n";
    waiter.write_all(request.as_bytes()).unwrap();
    // The head comes before the end: with it the wait is registered.
    let head = read_head(&mut waiter);
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    engine.ok(&["exec", "ww", "touch", "/go"]);
    let mut body = String::new();
    waiter.read_to_string(&mut body).unwrap();
    assert!(body.contains(r#"{"StatusCode":7}"#), "{body}");
    wait_for("its removal", || engine.ok(&["ps", "-aq"]).is_empty());
}

#[test]
fn a_signal_reaches_the_process_and_unknown_ones_are_refused() {
    let engine = Engine::start();
    let script = "trap 'echo got; exit 9' USR1; echo ready; while :; do sleep 0.02; done";
    engine.ok(&["run", "-d", "--name", "ss", "busybox", "sh", "-c", script]);
    wait_for("the trap", || engine.ok(&["logs", "ss"]).contains("ready"));
    engine.ok(&["kill", "-s", "SIGUSR1", "ss"]);
    assert_eq!(engine.ok(&["wait", "ss"]), "9");
    assert_eq!(engine.ok(&["logs", "ss"]), "ready\ngot");
    let error = engine.fails(1, &["kill", "ss"]);
    assert!(error.contains("is not running"), "{error}");
    engine.ok(&["start", "ss"]);
    let error = engine.fails(1, &["kill", "-s", "NOPE", "ss"]);
    assert!(error.contains("invalid signal: NOPE"), "{error}");
}

#[test]
fn a_restart_policy_starts_it_again_until_its_count_is_used_up() {
    let engine = Engine::start();
    engine.ok(&[
        "run",
        "-d",
        "--restart",
        "on-failure:2",
        "--name",
        "rr",
        "busybox",
        "sh",
        "-c",
        "echo x; exit 1",
    ]);
    wait_for("the last restart", || {
        engine.ok(&["inspect", "-f", "{{.RestartCount}} {{.State.Status}}", "rr"]) == "2 exited"
    });
    assert_eq!(engine.ok(&["logs", "rr"]), "x\nx\nx");
    engine.ok(&["run", "-d", "--restart", "always", "--name", "aa", "busybox", "sleep", "1000"]);
    let before = engine.ok(&["inspect", "-f", "{{.State.Pid}}", "aa"]);
    engine.ok(&["restart", "-t", "0", "aa"]);
    assert_ne!(engine.ok(&["inspect", "-f", "{{.State.Pid}}", "aa"]), before);
    engine.ok(&["stop", "-t", "0", "aa"]);
    assert_eq!(engine.ok(&["inspect", "-f", "{{.State.Status}}", "aa"]), "exited");
}

#[test]
fn pause_freezes_and_unpause_lets_go_on() {
    let engine = Engine::start();
    engine.ok(&[
        "run",
        "-d",
        "--name",
        "pp",
        "busybox",
        "sh",
        "-c",
        "while :; do echo x; sleep 0.01; done",
    ]);
    engine.ok(&["pause", "pp"]);
    assert_eq!(
        engine.ok(&["inspect", "-f", "{{.State.Status}} {{.State.Paused}}", "pp"]),
        "paused true"
    );
    let lines = engine.ok(&["logs", "pp"]).lines().count();
    let error = engine.fails(1, &["exec", "pp", "true"]);
    assert!(error.contains("is paused, unpause the container before exec"), "{error}");
    assert_eq!(engine.ok(&["logs", "pp"]).lines().count(), lines);
    engine.ok(&["unpause", "pp"]);
    wait_for("more output", || engine.ok(&["logs", "pp"]).lines().count() > lines);
    engine.ok(&["pause", "pp"]);
    engine.ok(&["rm", "-f", "pp"]);
}

#[test]
fn top_shows_the_containers_processes_and_nothing_else() {
    let engine = Engine::start();
    engine.ok(&["run", "-d", "--name", "tt", "busybox", "sleep", "1234"]);
    let said = engine.ok(&["top", "tt"]);
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.len(), 2, "{said}");
    assert!(lines[0].starts_with("UID") && lines[1].ends_with("sleep 1234"), "{said}");
    assert!(engine.ok(&["top", "tt", "-o", "pid,comm"]).contains("sleep"));
}

#[test]
fn events_tell_a_containers_life_in_dockers_words() {
    let engine = Engine::start();
    engine.ok(&["run", "--rm", "--name", "ee", "busybox", "true"]);
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let said = engine.ok(&[
        "events",
        "--since",
        "1700000000",
        "--until",
        &(now + 1).to_string(),
        "--filter",
        "container=ee",
        "--format",
        "{{.Action}}",
    ]);
    assert_eq!(said, "create\nattach\nstart\ndie\ndestroy");
}

#[test]
fn list_filters_find_what_they_name() {
    let engine = Engine::start();
    engine.ok(&["create", "--name", "aa", "--label", "tier=web", "busybox"]);
    engine.ok(&["run", "-d", "--name", "bb", "--label", "tier=db", "busybox", "sleep", "1000"]);
    let names =
        |filter: &str| engine.ok(&["ps", "-a", "--filter", filter, "--format", "{{.Names}}"]);
    assert_eq!(names("label=tier=web"), "aa");
    assert_eq!(names("label=tier"), "bb\naa");
    assert_eq!(names("status=running"), "bb");
    assert_eq!(names("status=created"), "aa");
    assert_eq!(names("name=^bb$"), "bb");
    assert_eq!(names("ancestor=busybox"), "bb\naa");
    engine.fails(1, &["ps", "--filter", "nonsense=1"]);
}

#[test]
fn limits_are_changed_while_it_runs_and_conflicts_are_refused() {
    let engine = Engine::start();
    engine.ok(&["run", "-d", "--name", "one", "--pids-limit", "20", "busybox", "sleep", "1000"]);
    let limit = |what: &str| {
        let (_, body) = engine.api("GET", "/containers/one/stats?stream=0&one-shot=1", "");
        let stats: serde_json::Value = serde_json::from_str(&body).unwrap();
        stats.pointer(what).cloned().unwrap_or_default()
    };
    assert_eq!(limit("/pids_stats/limit"), 20);
    engine.ok(&["update", "--pids-limit", "-1", "-m", "32m", "--memory-swap", "64m", "one"]);
    assert_eq!(limit("/pids_stats/limit"), serde_json::Value::Null);
    assert_eq!(limit("/memory_stats/limit"), 32 << 20);
    // Both at once, where either alone would be refused by the kernel.
    engine.ok(&["update", "-m", "128m", "--memory-swap", "256m", "one"]);
    assert_eq!(limit("/memory_stats/limit"), 128 << 20);
    let alone = engine.fails(1, &["update", "-m", "512m", "one"]);
    assert!(alone.contains("update the memoryswap at the same time"), "{alone}");
    engine.ok(&["update", "--restart", "on-failure:3", "--cpus", "0.5", "one"]);
    let policy = "{{.HostConfig.RestartPolicy.Name}} {{.HostConfig.NanoCpus}}";
    assert_eq!(engine.ok(&["inspect", "-f", policy, "one"]), "on-failure 500000000");
    for (body, words) in [
        (r#"{"RestartPolicy":{"Name":"bla"}}"#, "unknown policy 'bla'"),
        (r#"{"CpuPeriod":100000}"#, "CPU Period cannot be updated as NanoCPUs"),
        (r#"{"Memory":1}"#, "Minimum memory limit allowed is 6MB"),
        (r#"{"CpusetCpus":"4000"}"#, "Requested CPUs are not available"),
    ] {
        let (status, answer) = engine.api("POST", "/containers/one/update", body);
        assert!((400..500).contains(&status) && answer.contains(words), "{status} {answer}");
    }
}
