//! Statistics and health checks.

use crate::{
    cases::cases,
    http::text,
    scene::{Scene, wait_for},
};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};

cases! { "stats and health":
    stats_have_dockers_fields_and_sound_numbers,
    stats_of_a_stopped_container_are_empty,
    stats_flow_once_a_second,
    stats_by_the_cli_show_a_share_of_the_machine,
    a_healthy_container_is_told_so,
    an_unhealthy_container_is_told_so_after_its_tries,
    a_start_period_forgives,
    the_log_of_checks_keeps_output_and_code,
    health_is_told_in_lists_and_events,
    no_healthcheck_turns_the_images_off,
    bad_healthchecks_are_refused,
}

fn stats_have_dockers_fields_and_sound_numbers(s: &Scene<'_>) {
    let id = s.run("a", "while :; do :; done");
    let stats = s.get(&format!("/containers/{id}/stats?stream=0")).expect(200).json();
    assert_eq!((&stats["id"], &stats["name"]), (&json!(id), &json!(format!("/{}", s.name("a")))));
    let number = |place: &str| {
        stats.pointer(place).and_then(Value::as_u64).unwrap_or_else(|| panic!("{place}: {stats}"))
    };
    let used =
        number("/cpu_stats/cpu_usage/total_usage") - number("/precpu_stats/cpu_usage/total_usage");
    let passed = number("/cpu_stats/system_cpu_usage") - number("/precpu_stats/system_cpu_usage");
    let share = used as f64 / passed as f64 * number("/cpu_stats/online_cpus") as f64;
    assert!((0.01..1.3).contains(&share), "one busy process takes {share} of a processor");
    assert!(number("/memory_stats/usage") > 0 && number("/memory_stats/limit") > 1 << 20);
    assert!(number("/pids_stats/current") >= 1);
    assert!(stats["networks"]["eth0"]["rx_bytes"].is_u64(), "{stats}");
    let mut comparable = stats;
    // These depend on the kernel's control groups.
    for field in ["memory_stats", "blkio_stats"] {
        comparable.as_object_mut().unwrap().remove(field);
    }
    for field in ["percpu_usage"] {
        for stats in ["cpu_stats", "precpu_stats"] {
            comparable[stats]["cpu_usage"].as_object_mut().unwrap().remove(field);
        }
    }
    s.same_shape("ContainerStats", &comparable);
}

fn stats_of_a_stopped_container_are_empty(s: &Scene<'_>) {
    let id = s.create("a", json!({}));
    let stats = s.get(&format!("/containers/{id}/stats?stream=0")).expect(200).json();
    assert_eq!(stats["read"], "0001-01-01T00:00:00Z");
    assert_eq!(stats["cpu_stats"]["cpu_usage"]["total_usage"], 0);
    let once = s.get(&format!("/containers/{id}/stats?stream=0&one-shot=1")).expect(200).json();
    assert_eq!(once["id"], id);
}

fn stats_flow_once_a_second(s: &Scene<'_>) {
    let id = s.idle("a");
    let mut lines = BufReader::new(s.follow(&format!("/v1.51/containers/{id}/stats"))).lines();
    let mut next = || -> Value { serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap() };
    let (first, second) = (next(), next());
    assert_eq!(second["preread"], first["read"]);
    assert_eq!(second["precpu_stats"], first["cpu_stats"]);
    let one_shot = s.get(&format!("/containers/{id}/stats?stream=0&one-shot=1")).expect(200).json();
    assert_eq!(one_shot["preread"], "0001-01-01T00:00:00Z");
    s.get(&format!("/containers/{id}/stats?stream=1&one-shot=1"))
        .refuses(400, "cannot have stream=true and one-shot=true");
}

fn stats_by_the_cli_show_a_share_of_the_machine(s: &Scene<'_>) {
    let id = s.idle("a");
    let format = "{{.Name}} {{.CPUPerc}} {{.MemUsage}} {{.PIDs}}";
    let line = s.ok(&["stats", "--no-stream", "--format", format, &id]);
    let fields: Vec<&str> = line.split(' ').collect();
    assert_eq!((fields[0], *fields.last().unwrap()), (s.name("a").as_str(), "1"));
    assert!(fields[1].ends_with('%') && line.contains(" / "), "{line}");
    let usage = fields[2];
    assert!(usage.ends_with("KiB") || usage.ends_with("MiB"), "{line}");
}

const MILLI: u64 = 1_000_000;

fn checked(s: &Scene<'_>, part: &str, test: &str, retries: u64, period: u64) -> String {
    let check = json!({
        "Test": ["CMD-SHELL", test], "Interval": 200 * MILLI, "Timeout": 5000 * MILLI,
        "Retries": retries, "StartPeriod": period * MILLI, "StartInterval": 100 * MILLI,
    });
    let id = s.create(
        part,
        json!({ "Cmd": ["sleep", "1000"], "StopSignal": "KILL", "Healthcheck": check }),
    );
    s.start(&id);
    id
}

fn health(s: &Scene<'_>, id: &str) -> Value {
    s.inspect(id)["State"]["Health"].clone()
}

fn a_healthy_container_is_told_so(s: &Scene<'_>) {
    let id = checked(s, "a", "test -e /ok", 100, 0);
    assert_eq!(health(s, &id)["Status"], "starting");
    s.ok(&["exec", &id, "touch", "/ok"]);
    wait_for("its health", || health(s, &id)["Status"] == "healthy");
    assert_eq!(health(s, &id)["FailingStreak"], 0);
    let plain = s.idle("b");
    assert!(s.inspect(&plain)["State"].get("Health").is_none());
}

fn an_unhealthy_container_is_told_so_after_its_tries(s: &Scene<'_>) {
    let id = checked(s, "a", "exit 1", 2, 0);
    wait_for("its illness", || health(s, &id)["Status"] == "unhealthy");
    assert!(health(s, &id)["FailingStreak"].as_i64().unwrap() >= 2);
}

fn a_start_period_forgives(s: &Scene<'_>) {
    let id = checked(s, "a", "exit 1", 1, 60_000);
    wait_for("some checks", || health(s, &id)["Log"].as_array().is_some_and(|log| log.len() >= 3));
    assert_eq!(health(s, &id)["Status"], "starting");
    assert_eq!(health(s, &id)["FailingStreak"], 0);
}

fn the_log_of_checks_keeps_output_and_code(s: &Scene<'_>) {
    let id = checked(s, "a", "echo said; exit 3", 1, 0);
    wait_for("a check", || health(s, &id)["Log"].as_array().is_some_and(|log| !log.is_empty()));
    let entry = health(s, &id)["Log"][0].clone();
    assert_eq!((&entry["ExitCode"], &entry["Output"]), (&json!(3), &json!("said\n")));
    s.same_shape("Health", &health(s, &id));
    wait_for("five", || health(s, &id)["Log"].as_array().unwrap().len() == 5);
}

fn health_is_told_in_lists_and_events(s: &Scene<'_>) {
    let since = s.get("/info").json()["SystemTime"].as_str().unwrap().to_owned();
    let id = checked(s, "a", "true", 1, 0);
    wait_for("its health", || health(s, &id)["Status"] == "healthy");
    let line = s.ok(&[
        "ps",
        "--filter",
        &format!("id={id}"),
        "--filter",
        "health=healthy",
        "--format",
        "{{.Status}}",
    ]);
    assert!(line.ends_with("(healthy)"), "{line}");
    let until = s.get("/info").json()["SystemTime"].as_str().unwrap().to_owned();
    let filter = format!("container={id}");
    let out = s.ok(&[
        "events",
        "--since",
        &since,
        "--until",
        &until,
        "--filter",
        &filter,
        "--format",
        "{{.Action}}",
    ]);
    assert!(out.contains("health_status: healthy"), "{out}");
}

fn no_healthcheck_turns_the_images_off(s: &Scene<'_>) {
    let image = s.name("image");
    let change = crate::scene::encoded("HEALTHCHECK --interval=1s CMD true");
    let path = format!("/v1.51/images/create?fromSrc=-&repo={image}&changes={change}");
    let headers: &[(&str, &str)] = &[("Content-Type", "application/x-tar")];
    let tar = crate::scene::tar_of(&[("f", b"x")]);
    let made = s.send(&crate::http::Request { method: "POST", path: &path, headers, body: &tar });
    assert_eq!(made.status(), 200, "{}", text(&made.body));
    let with = s.create("a", json!({ "Image": image, "Cmd": ["x"] }));
    assert_eq!(s.inspect(&with)["Config"]["Healthcheck"]["Test"], json!(["CMD-SHELL", "true"]));
    let off =
        s.create("b", json!({ "Image": image, "Cmd": ["x"], "Healthcheck": { "Test": ["NONE"] } }));
    assert_eq!(s.inspect(&off)["Config"]["Healthcheck"]["Test"], json!(["NONE"]));
}

fn bad_healthchecks_are_refused(s: &Scene<'_>) {
    let create = |check: Value| {
        s.post(
            &format!("/containers/create?name={}", s.name("x")),
            &json!({ "Image": "busybox", "Healthcheck": check }),
        )
    };
    create(json!({ "Test": ["CMD-SHELL", "true"], "Interval": 5 }))
        .refuses(400, "Interval in Healthcheck cannot be less than 1ms");
    create(json!({ "Test": ["CMD-SHELL", "true"], "Timeout": 5 }))
        .refuses(400, "Timeout in Healthcheck cannot be less than 1ms");
    create(json!({ "Test": ["CMD-SHELL", "true"], "Retries": -1 }))
        .refuses(400, "Retries in Healthcheck cannot be negative");
    create(json!({ "Test": ["CMD-SHELL", "true"], "StartPeriod": 5 }))
        .refuses(400, "StartPeriod in Healthcheck cannot be less than 1ms");
}
