//! attach, exec and logs: byte for byte.

use crate::{
    cases::cases,
    http::{Request, frames, text},
    scene::{Scene, wait_for},
};
use serde_json::json;
use std::time::Duration;

cases! { "streams":
    attach_gives_both_streams_in_frames_and_ends_with_the_container,
    attach_to_a_tty_gives_raw_bytes,
    attach_passes_input_on_and_its_end_too,
    attach_without_a_stream_gives_only_the_past,
    attach_with_logs_gives_past_and_present,
    attach_names_the_stream_by_the_version,
    attach_without_upgrade_gives_bare_bytes,
    attach_without_asking_for_anything_gives_nothing,
    detach_keys_leave_it_running,
    stdin_once_ends_with_its_first_client,
    the_cli_passes_a_mebibyte_through_unharmed,
    exec_gives_streams_and_an_exit_code,
    the_head_of_a_stream_comes_alone,
    exec_json_has_dockers_fields,
    exec_with_a_tty_gives_raw_bytes,
    exec_in_a_stopped_container_is_refused,
    exec_of_nobody_is_no_such_exec_instance,
    exec_cannot_be_started_twice,
    exec_detached_answers_at_once,
    exec_of_an_unknown_command_fails_with_127,
    exec_takes_user_environment_and_workdir,
    exec_with_input_from_the_cli,
    exec_resize_is_seen_inside,
    a_tty_has_the_size_that_was_asked_for,
    logs_give_both_streams_in_frames,
    logs_of_a_tty_are_raw,
    logs_by_tail_since_until_and_timestamps,
    logs_without_any_stream_are_refused,
    logs_follow_until_the_end,
    logs_with_details_show_what_the_log_was_told_to,
    logs_that_are_compressed_are_read_as_one,
    logs_of_a_container_without_a_log_are_refused,
    logs_of_a_created_container_are_empty,
    a_line_without_an_end_and_bytes_that_are_no_text_survive,
    a_long_line_stays_one_line,
    attach_by_websocket_passes_bytes,
}

const BOTH: &str = "echo out; sleep 0.2; echo err >&2; sleep 0.2; printf end";

fn said() -> Vec<(u8, String)> {
    vec![(1, "out\n".to_owned()), (2, "err\n".to_owned()), (1, "end".to_owned())]
}

fn attach_gives_both_streams_in_frames_and_ends_with_the_container(s: &Scene<'_>) {
    let id = s.create("a", json!({ "Cmd": ["sh", "-c", BOTH] }));
    let mut stream =
        s.hijack(&format!("/v1.51/containers/{id}/attach?stream=1&stdout=1&stderr=1"), None);
    s.start(&id);
    assert_eq!(frames(&stream.rest()), said());
}

fn attach_to_a_tty_gives_raw_bytes(s: &Scene<'_>) {
    let id =
        s.create("a", json!({ "Cmd": ["sh", "-c", "echo x; test -t 1 && echo tty"], "Tty": true }));
    let mut stream =
        s.hijack(&format!("/v1.51/containers/{id}/attach?stream=1&stdout=1&stderr=1"), None);
    s.start(&id);
    assert_eq!(text(&stream.rest()), "x\r\ntty\r\n");
}

fn attach_passes_input_on_and_its_end_too(s: &Scene<'_>) {
    let config = json!({ "Cmd": ["sh", "-c", "cat; echo over"], "OpenStdin": true, "StdinOnce": true, "AttachStdin": true });
    let id = s.create("a", config);
    let mut stream =
        s.hijack(&format!("/v1.51/containers/{id}/attach?stream=1&stdin=1&stdout=1"), None);
    s.start(&id);
    stream.feed(b"a\0b\n");
    stream.until(b"a\0b\n");
    stream.close_input();
    assert_eq!(frames(&stream.rest()), [(1, "over\n".to_owned())]);
}

fn attach_without_a_stream_gives_only_the_past(s: &Scene<'_>) {
    let id = s.run("a", "echo past; exec sleep 1000");
    wait_for("the line", || s.ok(&["logs", &id]) == "past");
    let mut stream = s.hijack(&format!("/v1.51/containers/{id}/attach?logs=1&stdout=1"), None);
    assert_eq!(frames(&stream.rest()), [(1, "past\n".to_owned())]);
}

fn attach_with_logs_gives_past_and_present(s: &Scene<'_>) {
    let config = json!({ "Cmd": ["sh", "-c", "echo past; read x; echo $x"], "OpenStdin": true });
    let id = s.create("a", config);
    s.start(&id);
    wait_for("the line", || s.ok(&["logs", &id]) == "past");
    let path = format!("/v1.51/containers/{id}/attach?logs=1&stream=1&stdin=1&stdout=1");
    let mut stream = s.hijack(&path, None);
    stream.feed(b"present\n");
    assert_eq!(frames(&stream.rest()), [(1, "past\npresent\n".to_owned())]);
}

fn attach_names_the_stream_by_the_version(s: &Scene<'_>) {
    let plain = s.idle("a");
    let tty = s.create("b", json!({ "Cmd": ["sleep", "1000"], "Tty": true }));
    for (version, id, kind) in [
        ("v1.51", &plain, "multiplexed-stream"),
        ("v1.42", &plain, "multiplexed-stream"),
        ("v1.41", &plain, "raw-stream"),
        ("v1.24", &plain, "raw-stream"),
        ("v1.51", &tty, "raw-stream"),
    ] {
        let stream =
            s.hijack(&format!("/{version}/containers/{id}/attach?stream=1&stdout=1"), None);
        assert_eq!(stream.head.reason, "UPGRADED");
        assert_eq!(stream.head.header("Upgrade"), Some("tcp"));
        let kind = format!("application/vnd.docker.{kind}");
        assert_eq!(stream.head.header("Content-Type"), Some(kind.as_str()), "{version}");
    }
}

fn attach_without_upgrade_gives_bare_bytes(s: &Scene<'_>) {
    let id = s.create("a", json!({ "Cmd": ["echo", "x"] }));
    let path = format!("/v1.51/containers/{id}/attach?stream=1&stdout=1");
    let mut stream = s.open(&Request { method: "POST", path: &path, headers: &[], body: &[] });
    assert_eq!((stream.head.status, stream.head.reason.as_str()), (200, "OK"));
    assert_eq!(stream.head.header("Transfer-Encoding"), None);
    assert_eq!(stream.head.header("Content-Type"), Some("application/vnd.docker.raw-stream"));
    s.start(&id);
    assert_eq!(stream.rest(), b"\x01\0\0\0\0\0\0\x02x\n");
}

fn attach_without_asking_for_anything_gives_nothing(s: &Scene<'_>) {
    let id = s.run("a", "echo x; exec sleep 1000");
    let mut stream = s.hijack(&format!("/v1.51/containers/{id}/attach"), None);
    assert_eq!(text(&stream.rest()), "");
}

fn detach_keys_leave_it_running(s: &Scene<'_>) {
    let config = json!({ "Cmd": ["cat"], "Tty": true, "OpenStdin": true });
    let id = s.create("a", config);
    s.start(&id);
    for (query, keys) in [("", &b"\x10\x11"[..]), ("&detachKeys=ctrl-a,x", b"\x01x")] {
        let path = format!("/v1.51/containers/{id}/attach?stream=1&stdin=1&stdout=1{query}");
        let mut stream = s.hijack(&path, None);
        stream.feed(b"hello\n");
        stream.until(b"hello\r\nhello\r\n");
        stream.feed(keys);
        stream.rest();
        assert_eq!(s.inspect(&id)["State"]["Running"], true);
    }
    let bad = format!("/v1.51/containers/{id}/attach?stream=1&stdin=1&detachKeys=nonsense");
    let mut refused = s.open(&Request { method: "POST", path: &bad, headers: &[], body: &[] });
    assert_eq!(refused.head.status, 400);
    assert!(text(&refused.rest()).contains("Invalid detach keys (nonsense) provided"));
}

fn stdin_once_ends_with_its_first_client(s: &Scene<'_>) {
    let id = s.create("a", json!({ "Cmd": ["cat"], "OpenStdin": true, "StdinOnce": true }));
    let stream = s.hijack(&format!("/v1.51/containers/{id}/attach?stream=1&stdin=1"), None);
    s.start(&id);
    drop(stream);
    assert_eq!(s.wait(&id), 0);
}

fn the_cli_passes_a_mebibyte_through_unharmed(s: &Scene<'_>) {
    let input: String = (0..1 << 17).map(|number| format!("{:07}\n", number % 9_999_999)).collect();
    let said =
        s.fed(&["run", "-i", "--rm", "--name", &s.name("a"), "busybox", "cat"], input.as_bytes());
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(said.out == input, "of {} bytes came {}", input.len(), said.out.len());
}

fn exec_id(s: &Scene<'_>, container: &str, config: &serde_json::Value) -> String {
    let answer = s.post(&format!("/containers/{container}/exec"), config).expect(201);
    answer.json()["Id"].as_str().unwrap().to_owned()
}

fn exec_gives_streams_and_an_exit_code(s: &Scene<'_>) {
    let id = s.idle("a");
    let cmd = ["sh", "-c", "echo out; sleep 0.2; echo err >&2; exit 3"];
    let exec = exec_id(s, &id, &json!({ "Cmd": cmd, "AttachStdout": true, "AttachStderr": true }));
    let mut stream = s.hijack(&format!("/v1.51/exec/{exec}/start"), Some(&json!({})));
    assert_eq!(
        stream.head.header("Content-Type"),
        Some("application/vnd.docker.multiplexed-stream")
    );
    assert_eq!(frames(&stream.rest()), [(1, "out\n".to_owned()), (2, "err\n".to_owned())]);
    let after = s.get(&format!("/exec/{exec}/json")).expect(200).json();
    assert_eq!((&after["ExitCode"], &after["Running"]), (&json!(3), &json!(false)));
}

/// docker-py reads the head through a buffer, and the stream past it.
fn the_head_of_a_stream_comes_alone(s: &Scene<'_>) {
    let id = s.idle("a");
    for _ in 0..5 {
        let exec = exec_id(s, &id, &json!({ "Cmd": ["echo", "x"], "AttachStdout": true }));
        let mut stream = s.hijack(&format!("/v1.51/exec/{exec}/start"), Some(&json!({})));
        assert!(!stream.came_with_more());
        assert_eq!(frames(&stream.rest()), [(1, "x\n".to_owned())]);
    }
}

fn exec_json_has_dockers_fields(s: &Scene<'_>) {
    let id = s.idle("a");
    let exec = exec_id(s, &id, &json!({ "Cmd": ["sleep", "5"], "AttachStdout": true }));
    let before = s.get(&format!("/exec/{exec}/json")).expect(200).json();
    assert_eq!((&before["Running"], &before["ExitCode"]), (&json!(false), &json!(null)));
    assert_eq!(before["ContainerID"], id);
    assert_eq!(before["ProcessConfig"]["entrypoint"], "sleep");
    assert_eq!(before["ProcessConfig"]["arguments"], json!(["5"]));
    assert_eq!(s.inspect(&id)["ExecIDs"], json!([exec]));
    s.same_shape("ExecInspect", &before);
}

fn exec_with_a_tty_gives_raw_bytes(s: &Scene<'_>) {
    let id = s.idle("a");
    let config = json!({ "Cmd": ["sh", "-c", "tty; echo x"], "AttachStdout": true, "Tty": true });
    let exec = exec_id(s, &id, &config);
    let mut stream = s.hijack(&format!("/v1.51/exec/{exec}/start"), Some(&json!({ "Tty": true })));
    assert_eq!(stream.head.header("Content-Type"), Some("application/vnd.docker.raw-stream"));
    let out = text(&stream.rest());
    assert!(out.starts_with("/dev/pts/") && out.ends_with("\r\nx\r\n"), "{out:?}");
}

fn exec_in_a_stopped_container_is_refused(s: &Scene<'_>) {
    let id = s.create("a", json!({}));
    let answer = s.post(&format!("/containers/{id}/exec"), &json!({ "Cmd": ["true"] }));
    answer.refuses(409, &format!("container {id} is not running"));
    let running = s.idle("b");
    let exec = exec_id(s, &running, &json!({ "Cmd": ["true"] }));
    s.poke(&format!("/containers/{running}/stop?t=0")).expect(204);
    let late = s.post(&format!("/exec/{exec}/start"), &json!({ "Detach": true }));
    assert!(matches!(late.status(), 404 | 409), "{}", late.status());
}

fn exec_of_nobody_is_no_such_exec_instance(s: &Scene<'_>) {
    s.get("/exec/nobody/json").refuses(404, "No such exec instance: nobody");
    s.post("/exec/nobody/start", &json!({})).refuses(404, "No such exec instance: nobody");
    s.poke("/exec/nobody/resize?h=1&w=1").refuses(404, "No such exec instance: nobody");
}

fn exec_cannot_be_started_twice(s: &Scene<'_>) {
    let id = s.idle("a");
    let exec = exec_id(s, &id, &json!({ "Cmd": ["sleep", "100"] }));
    s.post(&format!("/exec/{exec}/start"), &json!({ "Detach": true })).expect(200);
    let again = s.post(&format!("/exec/{exec}/start"), &json!({ "Detach": true }));
    again.refuses(409, &format!("exec command {exec} is already running"));
}

fn exec_detached_answers_at_once(s: &Scene<'_>) {
    let id = s.idle("a");
    let exec = exec_id(s, &id, &json!({ "Cmd": ["sh", "-c", "sleep 0.2; touch /done"] }));
    let answer = s.post(&format!("/exec/{exec}/start"), &json!({ "Detach": true })).expect(200);
    assert_eq!(answer.body, b"");
    wait_for("its work", || s.said(&["exec", &id, "test", "-e", "/done"]).code == 0);
    assert_eq!(s.ok(&["exec", "-d", &id, "true"]), "");
}

fn exec_of_an_unknown_command_fails_with_127(s: &Scene<'_>) {
    let id = s.idle("a");
    let said = s.said(&["exec", &id, "no-such-command"]);
    assert_eq!(said.code, 127, "{said:?}");
    let all = said.out + &said.err;
    assert!(all.contains("exec: \"no-such-command\": executable file not found in $PATH"), "{all}");
    s.fails(126, &["exec", &id, "/etc"]);
    s.fails(1, &["exec", &s.name("nobody"), "true"]);
}

fn exec_takes_user_environment_and_workdir(s: &Scene<'_>) {
    let id = s.idle("a");
    let out = s.ok(&[
        "exec",
        "-u",
        "nobody:nogroup",
        "-e",
        "A=1",
        "-w",
        "/tmp",
        &id,
        "sh",
        "-c",
        "id -un; id -gn; echo $A; pwd",
    ]);
    assert_eq!(out, "nobody\nnogroup\n1\n/tmp");
    let err = s.fails(1, &["exec", "-u", "whoever", &id, "true"]);
    assert!(
        err.contains("unable to find user whoever: no matching entries in passwd file"),
        "{err}"
    );
    let asked = |user: &str| {
        s.post(&format!("/containers/{id}/exec"), &json!({ "Cmd": ["true"], "User": user }))
    };
    asked("whoever").refuses(400, "unable to find user whoever: no matching entries");
    asked("nobody:whoever").refuses(400, "unable to find group whoever: no matching entries");
    asked("99999999999").refuses(400, "uids and gids must be in range 0-2147483647");
    asked("77777:nogroup").expect(201);
}

fn exec_with_input_from_the_cli(s: &Scene<'_>) {
    let id = s.idle("a");
    assert_eq!(s.fed(&["exec", "-i", &id, "wc", "-c"], &[b'x'; 100_000]).out.trim(), "100000");
    assert_eq!(s.fed(&["exec", "-i", &id, "cat"], b"").out, "");
}

fn exec_resize_is_seen_inside(s: &Scene<'_>) {
    let id = s.idle("a");
    let config = json!({ "Cmd": ["sh", "-c", "read x; stty size"], "AttachStdin": true, "AttachStdout": true, "Tty": true });
    let exec = exec_id(s, &id, &config);
    let mut stream = s.hijack(
        &format!("/v1.51/exec/{exec}/start"),
        Some(&json!({ "Tty": true, "ConsoleSize": [20, 50] })),
    );
    s.poke(&format!("/exec/{exec}/resize?h=33&w=77")).expect(200);
    stream.feed(b"\n");
    let out = text(&stream.rest());
    assert!(out.contains("33 77"), "{out:?}");
    s.poke(&format!("/exec/{exec}/resize?h=x&w=77")).refuses(400, "x");
}

fn a_tty_has_the_size_that_was_asked_for(s: &Scene<'_>) {
    let config = json!({
        "Cmd": ["sh", "-c", "read x; stty size"], "Tty": true, "OpenStdin": true,
        "HostConfig": { "ConsoleSize": [31, 71] },
    });
    let id = s.create("a", config);
    let mut stream =
        s.hijack(&format!("/v1.51/containers/{id}/attach?stream=1&stdin=1&stdout=1"), None);
    s.start(&id);
    s.poke(&format!("/containers/{id}/resize?h=32&w=72")).expect(200);
    stream.feed(b"\n");
    let out = text(&stream.rest());
    assert!(out.contains("32 72"), "{out:?}");
}

fn logs_give_both_streams_in_frames(s: &Scene<'_>) {
    let id = s.run("a", BOTH);
    s.wait(&id);
    let logs = |query: &str| s.get(&format!("/containers/{id}/logs?{query}")).expect(200);
    let both = logs("stdout=1&stderr=1");
    assert_eq!(both.head.header("Content-Type"), Some("application/vnd.docker.multiplexed-stream"));
    assert_eq!(frames(&both.body), said());
    assert_eq!(frames(&logs("stderr=1").body), [(2, "err\n".to_owned())]);
    let old = s.get(&format!("/v1.41/containers/{id}/logs?stdout=1"));
    assert_eq!(old.head.header("Content-Type"), Some("application/vnd.docker.raw-stream"));
    assert_eq!(frames(&old.body), [(1, "out\nend".to_owned())]);
}

fn logs_of_a_tty_are_raw(s: &Scene<'_>) {
    let id = s.create("a", json!({ "Cmd": ["echo", "x"], "Tty": true }));
    s.start(&id);
    s.wait(&id);
    let answer = s.get(&format!("/containers/{id}/logs?stdout=1")).expect(200);
    assert_eq!(answer.head.header("Content-Type"), Some("application/vnd.docker.raw-stream"));
    assert_eq!(text(&answer.body), "x\r\n");
}

fn logs_by_tail_since_until_and_timestamps(s: &Scene<'_>) {
    let id = s.run("a", "echo one; echo two; sleep 1.1; echo three");
    s.wait(&id);
    let logs = |arguments: &[&str]| s.ok(&[&["logs"], arguments, &[id.as_str()]].concat());
    assert_eq!(logs(&["--tail", "1"]), "three");
    assert_eq!(logs(&["--tail", "0"]), "");
    assert_eq!(logs(&["-n", "2"]), "two\nthree");
    assert_eq!(logs(&["--tail", "all"]), "one\ntwo\nthree");
    let stamped = logs(&["-t"]);
    let stamps: Vec<&str> = stamped.lines().map(|line| line.split(' ').next().unwrap()).collect();
    assert!(stamps.iter().all(|stamp| stamp.len() == 30 && stamp.ends_with('Z')), "{stamped}");
    assert_eq!(logs(&["--since", stamps[2]]), "three");
    assert_eq!(logs(&["--until", stamps[1]]), "one\ntwo");
    assert_eq!(logs(&["--since", "1h"]), "one\ntwo\nthree");
    assert_eq!(logs(&["--since", "2100-01-01"]), "");
}

fn logs_without_any_stream_are_refused(s: &Scene<'_>) {
    let id = s.create("a", json!({}));
    s.get(&format!("/containers/{id}/logs"))
        .refuses(400, "Bad parameters: you must choose at least one stream");
    let bad = s.get(&format!("/containers/{id}/logs?stdout=1&since=x"));
    assert!(bad.status() >= 400, "{}", bad.status());
}

fn logs_follow_until_the_end(s: &Scene<'_>) {
    let id = s.run("a", "for i in 1 2 3; do echo $i; sleep 0.1; done");
    let mut stream = s.follow(&format!("/v1.51/containers/{id}/logs?stdout=1&follow=1"));
    assert_eq!(frames(&stream.rest()), [(1, "1\n2\n3\n".to_owned())]);
    let said = s.said(&["logs", "-f", &id]);
    assert_eq!((said.code, said.out.as_str()), (0, "1\n2\n3\n"));
}

fn logs_with_details_show_what_the_log_was_told_to(s: &Scene<'_>) {
    let name = s.name("a");
    s.ok(&[
        "run",
        "--name",
        &name,
        "-l",
        "shown=yes",
        "--log-opt",
        "labels=shown",
        "busybox",
        "echo",
        "x",
    ]);
    assert_eq!(s.ok(&["logs", "--details", &name]), "shown=yes x");
    assert_eq!(s.ok(&["logs", &name]), "x");
}

fn logs_that_are_compressed_are_read_as_one(s: &Scene<'_>) {
    let options = json!({ "max-size": "2k", "max-file": "3", "compress": "true" });
    let log = json!({ "Type": "json-file", "Config": options });
    let script = "for i in $(seq 100); do echo line $i; done";
    let config = json!({ "Cmd": ["sh", "-c", script], "HostConfig": { "LogConfig": log } });
    let id = s.create("a", config);
    s.start(&id);
    assert_eq!(s.wait(&id), 0);
    let said = s.ok(&["logs", &id]);
    let lines: Vec<&str> = said.lines().collect();
    let first = 101 - lines.len();
    assert!(first > 1 && lines.len() > 50, "{said}");
    for (number, line) in (first..).zip(&lines) {
        assert_eq!(*line, format!("line {number}"));
    }
    assert_eq!(s.ok(&["logs", "--tail", "40", &id]).lines().next(), Some("line 61"));
}

fn logs_of_a_container_without_a_log_are_refused(s: &Scene<'_>) {
    let config = json!({ "Cmd": ["echo", "x"], "HostConfig": { "LogConfig": { "Type": "none" } } });
    let id = s.create("a", config);
    s.start(&id);
    s.wait(&id);
    let err = s.fails(1, &["logs", &id]);
    assert!(err.contains("configured logging driver does not support reading"), "{err}");
    let unknown =
        json!({ "Image": "busybox", "HostConfig": { "LogConfig": { "Type": "nonsense" } } });
    s.post("/containers/create", &unknown)
        .refuses(400, "error looking up logging plugin nonsense: plugin \"nonsense\" not found");
}

fn logs_of_a_created_container_are_empty(s: &Scene<'_>) {
    let id = s.create("a", json!({}));
    assert_eq!(s.ok(&["logs", &id]), "");
}

fn a_line_without_an_end_and_bytes_that_are_no_text_survive(s: &Scene<'_>) {
    let id = s.run("a", r#"printf 'a\001b\tc\\\"d\n\303\244\nno end'"#);
    s.wait(&id);
    let answer = s.get(&format!("/containers/{id}/logs?stdout=1")).expect(200);
    assert_eq!(frames(&answer.body), [(1, "a\u{1}b\tc\\\\\"d\nä\nno end".to_owned())]);
}

fn a_long_line_stays_one_line(s: &Scene<'_>) {
    let id = s.run("a", "head -c 50000 /dev/zero | tr '\\0' x; echo; echo end");
    s.wait(&id);
    let out = s.ok(&["logs", &id]);
    assert_eq!(out.lines().map(str::len).collect::<Vec<_>>(), [50_000, 3]);
}

fn attach_by_websocket_passes_bytes(s: &Scene<'_>) {
    let id = s.create("a", json!({ "Cmd": ["cat"], "OpenStdin": true, "Tty": false }));
    s.start(&id);
    let path = format!("/v1.51/containers/{id}/attach/ws?stream=1&stdin=1&stdout=1");
    let headers = &[
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("Origin", "http://localhost"),
    ];
    let mut stream = s.open(&Request { method: "GET", path: &path, headers, body: &[] });
    assert_eq!(stream.head.status, 101, "{:?}", stream.head);
    assert_eq!(stream.head.header("Sec-WebSocket-Accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    // A final binary frame of six bytes, masked with zeros.
    stream.feed(b"\x82\x86\0\0\0\0hello\n");
    let got = stream.until(b"hello\n");
    assert!(got.starts_with(b"\x82\x06hello\n"), "{got:?}");
    assert!(stream.is_silent_for(Duration::from_millis(50)));
}
