//! attach, stdin, hijacked connections, large streams.

use crate::engine::{Engine, slow, wait_for};
use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    process::Stdio,
    time::Duration,
};

#[test]
fn input_is_passed_on_and_its_end_too() {
    let engine = Engine::start();
    assert_eq!(
        engine.fed(&["run", "-i", "--rm", "busybox", "cat"], b"some\0bytes\n").out,
        "some\0bytes\n"
    );
    assert_eq!(engine.fed(&["run", "-i", "--rm", "busybox", "wc", "-c"], b"").out.trim(), "0");
}

#[test]
fn a_gibibyte_goes_through_unharmed() {
    let engine = Engine::start();
    // Under emulation a gibibyte takes minutes; the path is the same.
    let size: u64 = if slow() { 16 << 20 } else { 1 << 30 };
    let mut child = engine
        .docker(&["run", "-i", "--rm", "--log-driver", "none", "busybox", "cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let block: Vec<u8> = (0..1 << 16).map(|i: u32| (i % 251) as u8).collect();
    let sent = block.clone();
    let writer = std::thread::spawn(move || {
        for _ in 0..size / sent.len() as u64 {
            input.write_all(&sent).unwrap();
        }
    });
    let mut output = child.stdout.take().unwrap();
    let mut got = vec![0; block.len()];
    for _ in 0..size / block.len() as u64 {
        output.read_exact(&mut got).unwrap();
        assert!(got == block, "the bytes have changed on their way");
    }
    assert_eq!(output.read(&mut got).unwrap(), 0);
    writer.join().unwrap();
    assert!(child.wait().unwrap().success());
}

#[test]
fn attach_gives_back_what_is_typed_and_the_detach_keys_leave_it_running() {
    let engine = Engine::start();
    engine.ok(&["run", "-dit", "--name", "tt", "busybox", "cat"]);
    let request = "POST /v1.51/containers/tt/attach?stream=1&stdin=1&stdout=1&detachKeys=ctrl-a,x HTTP/1.1\r\n\
                   Host: d\r\nUpgrade: tcp\r\nConnection: Upgrade\r\n\r\n";
    let mut stream = UnixStream::connect(engine.socket()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let head = read_head(&mut stream);
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert!(head.contains("application/vnd.docker.raw-stream"), "{head}");
    stream.write_all(b"hello\n").unwrap();
    let mut echo = [0; 14];
    stream.read_exact(&mut echo).unwrap();
    assert_eq!(&echo, b"hello\r\nhello\r\n");
    stream.write_all(b"\x01x").unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    assert_eq!(engine.ok(&["inspect", "-f", "{{.State.Running}}", "tt"]), "true");
}

/// The answer's head, byte by byte, so that nothing of the stream is swallowed.
pub(crate) fn read_head(stream: &mut UnixStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

#[test]
fn both_framings_are_spoken() {
    let engine = Engine::start();
    for (version, kind) in [("v1.51", "multiplexed-stream"), ("v1.41", "raw-stream")] {
        engine.ok(&[
            "create",
            "--name",
            version,
            "busybox",
            "sh",
            "-c",
            "echo out; sleep 0.1; echo err >&2",
        ]);
        let request = format!(
            "POST /{version}/containers/{version}/attach?stream=1&stdout=1&stderr=1 HTTP/1.1\r\nHost: d\r\nUpgrade: tcp\r\nConnection: Upgrade\r\n\r\n"
        );
        let mut stream = UnixStream::connect(engine.socket()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let head = read_head(&mut stream);
        assert!(head.starts_with("HTTP/1.1 101 UPGRADED\r\n"), "{head}");
        assert!(head.contains(&format!("application/vnd.docker.{kind}")), "{head}");
        engine.ok(&["start", version]);
        let mut frames = Vec::new();
        stream.read_to_end(&mut frames).unwrap();
        assert_eq!(frames, b"\x01\0\0\0\0\0\0\x04out\n\x02\0\0\0\0\0\0\x04err\n");
    }
}

#[test]
fn an_old_client_without_upgrade_gets_the_bare_bytes() {
    let engine = Engine::start();
    engine.ok(&["create", "--name", "oo", "busybox", "echo", "x"]);
    let mut stream = UnixStream::connect(engine.socket()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
        .write_all(
            b"POST /v1.24/containers/oo/attach?stream=1&stdout=1 HTTP/1.1\r\nHost: d\r\n\r\n",
        )
        .unwrap();
    let head = read_head(&mut stream);
    assert!(head.contains(" 200 OK\r\n") && !head.to_lowercase().contains("chunked"), "{head}");
    engine.ok(&["start", "oo"]);
    let mut frames = Vec::new();
    stream.read_to_end(&mut frames).unwrap();
    assert_eq!(frames, b"\x01\0\0\0\0\0\0\x02x\n");
}

#[test]
fn a_client_that_hangs_up_harms_nobody() {
    let engine = Engine::start();
    engine.ok(&[
        "run",
        "-dit",
        "--name",
        "hh",
        "busybox",
        "sh",
        "-c",
        "while :; do echo tick; sleep 0.01; done",
    ]);
    for _ in 0..20 {
        let mut stream = UnixStream::connect(engine.socket()).unwrap();
        stream
            .write_all(b"POST /v1.51/containers/hh/attach?stream=1&stdin=1&stdout=1 HTTP/1.1\r\nHost: d\r\nUpgrade: tcp\r\nConnection: Upgrade\r\n\r\n")
            .unwrap();
        read_head(&mut stream);
    }
    let lines = || engine.ok(&["logs", "hh"]).lines().count();
    let before = lines();
    wait_for("the container to go on", || lines() > before + 10);
    let open = || std::fs::read_dir(format!("/proc/{}/fd", engine.pid())).unwrap().count();
    let idle = open();
    wait_for("the engine to close what the clients left", || open() <= idle);
}

#[test]
fn a_websocket_carries_both_ways_without_frames_of_dockers() {
    let engine = Engine::start();
    engine.ok(&["run", "-d", "-i", "--name", "one", "busybox", "cat"]);
    let mut socket = UnixStream::connect(engine.socket()).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let path = "/containers/one/attach/ws?stream=1&stdin=1&stdout=1&stderr=1";
    let head = format!(
        "GET {path} HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    socket.write_all(head.as_bytes()).unwrap();
    // A final binary frame of six bytes; its mask is zero.
    socket.write_all(b"\x82\x86\0\0\0\0hello\n").unwrap();
    let mut said = Vec::new();
    let mut buffer = [0; 4096];
    while !said.ends_with(b"\x82\x06hello\n") {
        let count = socket.read(&mut buffer).unwrap();
        assert!(count > 0, "{:?}", String::from_utf8_lossy(&said));
        said.extend_from_slice(&buffer[..count]);
    }
    let text = String::from_utf8_lossy(&said).into_owned();
    assert!(text.starts_with("HTTP/1.1 101 "), "{text}");
    // RFC 6455's own example.
    assert!(text.contains("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{text}");
    // The container's end is a close frame, and the end of the connection.
    engine.ok(&["kill", "one"]);
    let mut rest = Vec::new();
    socket.read_to_end(&mut rest).unwrap();
    assert_eq!(rest.first(), Some(&0x88));
    let (status, _) = engine.api("GET", path, "");
    assert_eq!(status, 400, "without a handshake");
}
