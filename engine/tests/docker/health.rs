//! Health checks: asked, recorded, told.

use crate::engine::{Engine, moment, wait_for};
use serde_json::Value;

fn health(engine: &Engine, name: &str) -> Value {
    let json = engine.ok(&["inspect", "-f", "{{json .State.Health}}", name]);
    serde_json::from_str(&json).unwrap()
}

fn is(engine: &Engine, name: &str, status: &str) -> bool {
    health(engine, name)["Status"] == status
}

#[test]
fn a_container_becomes_healthy_and_unhealthy_as_its_command_says() {
    let engine = Engine::start();
    engine.ok(&[
        "run",
        "-d",
        "--name",
        "one",
        "--health-cmd",
        "echo out; test -f /ok",
        "--health-interval",
        "250ms",
        "--health-retries",
        "2",
        "busybox",
        "sleep",
        "1000",
    ]);
    wait_for("it to be unhealthy", || is(&engine, "one", "unhealthy"));
    let found = health(&engine, "one");
    assert!(found["FailingStreak"].as_u64() >= Some(2), "{found}");
    assert_eq!(found["Log"][0]["ExitCode"], 1);
    assert_eq!(found["Log"][0]["Output"], "out\n");
    engine.ok(&["exec", "one", "touch", "/ok"]);
    wait_for("it to be healthy", || is(&engine, "one", "healthy"));
    assert!(engine.ok(&["ps"]).contains("(healthy)"));
    assert_eq!(engine.ok(&["ps", "--filter", "health=healthy", "--format", "{{.Names}}"]), "one");
    assert_eq!(engine.ok(&["ps", "-q", "--filter", "health=none"]), "");
    let events = engine.ok(&[
        "events",
        "--since",
        "0",
        "--until",
        &moment(),
        "--filter",
        "event=health_status",
        "--format",
        "{{.Action}}",
    ]);
    assert_eq!(events, "health_status: unhealthy\nhealth_status: healthy");
    let probes = engine.ok(&[
        "events",
        "--since",
        "0",
        "--until",
        &moment(),
        "--filter",
        "event=exec_create",
        "--format",
        "{{.Action}}",
    ]);
    assert!(probes.contains("exec_create: /bin/sh -c echo out; test -f /ok"), "{probes}");
    // Nobody asks while it is frozen; nobody can ask for the engine's own execs.
    engine.ok(&["pause", "one"]);
    assert!(!engine.ok(&["ps"]).contains("healthy"));
    engine.ok(&["unpause", "one"]);
    // The one above is the user's own.
    assert_eq!(engine.ok(&["inspect", "-f", "{{len .ExecIDs}}", "one"]), "1");
    engine.ok(&["stop", "-t", "0", "one"]);
    assert_eq!(health(&engine, "one")["Status"], "unhealthy");
}

#[test]
fn a_command_that_hangs_is_killed_and_counts_as_a_failure() {
    let engine = Engine::start();
    engine.ok(&[
        "run",
        "-d",
        "--name",
        "one",
        "--health-cmd",
        "echo partial; exec sleep 987654",
        "--health-interval",
        "50ms",
        "--health-timeout",
        "200ms",
        "--health-retries",
        "1",
        "busybox",
        "sleep",
        "1000",
    ]);
    wait_for("it to be unhealthy", || is(&engine, "one", "unhealthy"));
    let found = health(&engine, "one");
    assert_eq!(found["Log"][0]["ExitCode"], -1);
    assert_eq!(found["Log"][0]["Output"], "Health check exceeded timeout (200ms): partial\n");
    engine.ok(&["pause", "one"]);
    engine.ok(&["unpause", "one"]);
    engine.ok(&["stop", "-t", "0", "one"]);
}

#[test]
fn what_an_image_or_a_user_says_of_health_is_checked_and_none_is_none() {
    let engine = Engine::start();
    engine.ok(&["run", "-d", "--name", "none", "--no-healthcheck", "busybox", "sleep", "1000"]);
    assert_eq!(health(&engine, "none"), Value::Null);
    engine.ok(&["run", "-d", "--name", "slow", "--health-cmd", "true", "busybox", "sleep", "9"]);
    let found = health(&engine, "slow");
    assert_eq!((&found["Status"], &found["Log"]), (&"starting".into(), &Value::Array(vec![])));
    assert!(engine.ok(&["ps"]).contains("(health: starting)"));
    for (check, words) in [
        (
            r#"{"Test":["CMD","true"],"Interval":10}"#,
            "Interval in Healthcheck cannot be less than 1ms",
        ),
        (
            r#"{"Test":["CMD","true"],"Timeout":-5}"#,
            "Timeout in Healthcheck cannot be less than 1ms",
        ),
        (r#"{"Test":["CMD","true"],"Retries":-1}"#, "Retries in Healthcheck cannot be negative"),
    ] {
        let body = format!(r#"{{"Image":"busybox","Healthcheck":{check}}}"#);
        let (status, answer) = engine.api("POST", "/containers/create", &body);
        assert_eq!(status, 400);
        assert!(answer.contains(words), "{answer}");
    }
}

#[test]
fn health_is_on_record_when_the_engine_dies() {
    let mut engine = Engine::start();
    engine.ok(&[
        "run",
        "-d",
        "--network",
        "none",
        "--name",
        "one",
        "--health-cmd",
        "true",
        "--health-interval",
        "50ms",
        "busybox",
        "sleep",
        "1000",
    ]);
    wait_for("it to be healthy", || is(&engine, "one", "healthy"));
    engine.crash_and_restart();
    assert!(is(&engine, "one", "healthy"));
    let before = health(&engine, "one")["Log"].clone();
    wait_for("it to be asked again", || health(&engine, "one")["Log"] != before);
}
