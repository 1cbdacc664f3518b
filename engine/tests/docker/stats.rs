//! `docker stats`: numbers that can be right or wrong.

use crate::engine::{Engine, wait_for};
use serde_json::Value;

fn sample(engine: &Engine, name: &str, query: &str) -> Value {
    let (status, body) = engine.api("GET", &format!("/containers/{name}/stats?{query}"), "");
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).unwrap()
}

fn number(value: &Value, path: &str) -> u64 {
    value.pointer(path).and_then(Value::as_u64).unwrap_or_else(|| panic!("no {path} in {value}"))
}

#[test]
fn a_container_that_works_is_seen_to_work() {
    let engine = Engine::start();
    engine.ok(&[
        "run",
        "-d",
        "--name",
        "busy",
        "-m",
        "64m",
        "--pids-limit",
        "50",
        "busybox",
        "sh",
        "-c",
        "head -c 20000000 /dev/zero > /dev/shm/x; echo ready; while :; do :; done",
    ]);
    wait_for("it to have its memory", || engine.ok(&["logs", "busy"]) == "ready");
    let stats = sample(&engine, "busy", "stream=false");
    let used = number(&stats, "/cpu_stats/cpu_usage/total_usage")
        - number(&stats, "/precpu_stats/cpu_usage/total_usage");
    let passed = number(&stats, "/cpu_stats/system_cpu_usage")
        - number(&stats, "/precpu_stats/system_cpu_usage");
    let cpus = number(&stats, "/cpu_stats/online_cpus");
    // What the CLI shows: a loop takes up to one processor, and never more.
    let percent = used * cpus * 100 / passed;
    assert!((5..=115).contains(&percent), "{percent} % of {stats}");
    // Idle time counts: a second of every processor has passed, to a tick or two.
    let millis = passed / 1_000_000;
    assert!((cpus * 900..cpus * 10_000).contains(&millis), "{millis} ms on {cpus} processors");
    assert!(number(&stats, "/memory_stats/usage") > 20_000_000);
    assert_eq!(number(&stats, "/memory_stats/limit"), 64 << 20);
    assert_eq!(number(&stats, "/pids_stats/current"), 1);
    assert_eq!(number(&stats, "/pids_stats/limit"), 50);
    assert!(number(&stats, "/networks/eth0/rx_bytes") < 1 << 20);
    assert!(stats["read"].as_str() > stats["preread"].as_str(), "{stats}");
    let shown = engine.ok(&["stats", "--no-stream", "--format", "{{.Name}} {{.PIDs}}", "busy"]);
    assert_eq!(shown, "busy 1");
}

#[test]
fn one_shot_answers_at_once_and_what_does_not_run_uses_nothing() {
    let engine = Engine::start();
    engine.ok(&["create", "--name", "still", "busybox", "true"]);
    let stats = sample(&engine, "still", "stream=false");
    assert_eq!(stats["name"], "/still");
    assert_eq!(stats["read"], "0001-01-01T00:00:00Z");
    assert_eq!(stats["pids_stats"], serde_json::json!({}));
    assert_eq!(stats["memory_stats"], serde_json::json!({}));
    assert!(stats.get("networks").is_none());
    engine.ok(&["run", "-d", "--name", "runs", "busybox", "sleep", "1000"]);
    let stats = sample(&engine, "runs", "stream=0&one-shot=1");
    assert_eq!(stats["preread"], "0001-01-01T00:00:00Z");
    assert!(number(&stats, "/cpu_stats/cpu_usage/total_usage") > 0);
    let (status, body) = engine.api("GET", "/containers/runs/stats?one-shot=1", "");
    assert_eq!(status, 400);
    assert!(body.contains("cannot have stream=true and one-shot=true"), "{body}");
    assert_eq!(engine.api("GET", "/containers/nope/stats", "").0, 404);
}

#[test]
fn a_stream_goes_on_until_the_container_is_removed() {
    let engine = Engine::start();
    engine.ok(&["create", "--name", "one", "busybox", "true"]);
    std::thread::scope(|scope| {
        let stream = scope.spawn(|| engine.api("GET", "/containers/one/stats", ""));
        // Also of a container that has never run, there is an object at once.
        engine.ok(&["rm", "one"]);
        let (status, body) = stream.join().unwrap();
        assert!(status == 200 || status == 404, "{body}");
    });
}
