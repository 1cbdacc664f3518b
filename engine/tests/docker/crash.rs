//! kill -9 of the engine: what was acknowledged is there, what was half made
//! is gone, what ran runs on.

use crate::engine::{Engine, wait_for};

#[test]
fn containers_outlive_the_engine_and_are_found_again() {
    let mut engine = Engine::start();
    engine.ok(&[
        "run",
        "-d",
        "--name",
        "up",
        "--network",
        "none",
        "busybox",
        "sh",
        "-c",
        "i=0; while :; do echo $i; i=$((i+1)); sleep 0.01; done",
    ]);
    engine.ok(&["create", "--name", "made", "--network", "none", "busybox", "echo", "later"]);
    engine.said(&["run", "--name", "done", "--network", "none", "busybox", "sh", "-c", "exit 4"]);
    let begun = ["inspect", "-f", "{{.State.Pid}} {{.State.StartedAt}}", "up"];
    let before = engine.ok(&begun);
    engine.crash_and_restart();
    let states = engine.ok(&["ps", "-a", "--format", "{{.Names}} {{.State}}"]);
    assert_eq!(states, "done exited\nmade created\nup running");
    assert_eq!(engine.ok(&begun), before);
    assert_eq!(engine.ok(&["inspect", "-f", "{{.State.ExitCode}}", "done"]), "4");
    assert_eq!(engine.ok(&["exec", "up", "echo", "hi"]), "hi");
    // Nothing of its output is missing.
    let lines: Vec<u64> =
        engine.ok(&["logs", "up"]).lines().map(|line| line.parse().unwrap()).collect();
    assert!(lines.iter().copied().eq(0..lines.len() as u64), "{lines:?}");
    assert_eq!(engine.ok(&["start", "-a", "made"]), "later");
    engine.ok(&["stop", "-t", "0", "up"]);
    assert_eq!(engine.ok(&["inspect", "-f", "{{.State.ExitCode}}", "up"]), "137");
}

#[test]
fn an_end_that_no_engine_saw_is_known_afterwards() {
    let mut engine = Engine::start();
    engine.ok(&[
        "run",
        "-d",
        "--name",
        "xx",
        "--network",
        "none",
        "busybox",
        "sh",
        "-c",
        "sleep 0.3; exit 6",
    ]);
    engine.ok(&[
        "run",
        "-d",
        "--name",
        "rr",
        "--restart",
        "always",
        "--network",
        "none",
        "busybox",
        "sh",
        "-c",
        "sleep 0.3",
    ]);
    let pid = engine.ok(&["inspect", "-f", "{{.State.Pid}}", "xx"]);
    let other = engine.ok(&["inspect", "-f", "{{.State.Pid}}", "rr"]);
    // The engine is stopped, not asked: it cannot see the ends.
    let daemon = nix::unistd::Pid::from_raw(engine.pid().cast_signed());
    nix::sys::signal::kill(daemon, nix::sys::signal::Signal::SIGSTOP).unwrap();
    for pid in [pid, other] {
        wait_for("the container's end", || !std::path::Path::new(&format!("/proc/{pid}")).exists());
    }
    engine.crash_and_restart();
    assert_eq!(
        engine.ok(&["inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "xx"]),
        "exited 6"
    );
    wait_for("the restart", || !engine.ok(&["ps", "-q", "--filter", "name=rr"]).is_empty());
}

#[test]
fn an_end_that_was_told_is_known_after_a_crash_at_that_moment() {
    let mut engine = Engine::start();
    for round in 0..3 {
        let name = format!("ee-{round}");
        let run = ["create", "--name", &name, "--network", "none", "busybox", "sh", "-c", "exit 6"];
        engine.ok(&run);
        assert_eq!(engine.api("POST", &format!("/containers/{name}/start"), "").0, 204);
        let (status, told) = engine.api("POST", &format!("/containers/{name}/wait"), "");
        assert!(status == 200 && told.contains("\"StatusCode\":6"), "{status} {told}");
        // Before it went on record: that takes a moment, in case it is removed.
        engine.crash_and_restart();
        let state = engine.ok(&["inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", &name]);
        assert_eq!(state, "exited 6");
        engine.ok(&["rm", &name]);
    }
    wait_for("nothing to be left", || engine.traces().is_empty());
}

#[test]
fn a_crash_in_the_middle_of_everything_leaves_nothing_half_made() {
    let mut engine = Engine::start();
    for round in 0..4 {
        let mut children = Vec::new();
        for number in 0..6 {
            let name = format!("c{round}-{number}");
            let arguments = ["run", "--network", "none", "--name", &name, "busybox", "true"];
            children.push(
                engine
                    .docker(&arguments)
                    .stdout(std::process::Stdio::null())
                    .stderr(std::process::Stdio::null())
                    .spawn()
                    .unwrap(),
            );
        }
        // Some are created by now, some started, some gone.
        wait_for("some of them", || engine.said(&["ps", "-aq"]).out.lines().count() >= round);
        engine.crash_and_restart();
        for mut child in children {
            child.wait().unwrap();
        }
    }
    let ids = engine.ok(&["ps", "-aq"]);
    for id in ids.lines() {
        engine.said(&["rm", "-f", id]);
    }
    wait_for("all to be gone", || engine.ok(&["ps", "-aq"]).is_empty());
    wait_for("nothing to be left", || engine.traces().is_empty());
}

#[test]
fn two_engines_cannot_share_a_state_directory() {
    let engine = Engine::bare(&[]);
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_tritiumd"))
        .args(["--socket", "/nonexistent/x.sock", "--state-dir"])
        .arg(engine.dir.join("state"))
        .arg("--run-dir")
        .arg(engine.dir.join("run2"))
        .output()
        .unwrap();
    assert!(!output.status.success());
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains(&engine.pid().to_string()), "{text}");
}

#[test]
fn an_engine_that_cannot_serve_says_why_and_leaves_nothing() {
    // Nobody has this address (RFC 5737).
    let said = Engine::that_fails(&["--metrics", "192.0.2.1:9323"]);
    assert!(said.contains("cannot listen on 192.0.2.1:9323"), "{said}");
}
