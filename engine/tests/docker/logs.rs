//! `docker logs`.

use crate::engine::Engine;
use std::{
    io::{BufRead, BufReader},
    process::Stdio,
};

#[test]
fn the_log_can_be_cut_and_dated() {
    let engine = Engine::start();
    engine.ok(&[
        "run",
        "--name",
        "ll",
        "busybox",
        "sh",
        "-c",
        "for i in 1 2 3 4; do echo $i; done; echo e >&2; printf tail",
    ]);
    let said = engine.said(&["logs", "ll"]);
    assert_eq!((said.out.as_str(), said.err.as_str()), ("1\n2\n3\n4\ntail", "e\n"));
    assert_eq!(engine.said(&["logs", "--tail", "2", "ll"]).out, "tail");
    let dated = engine.said(&["logs", "-t", "ll"]).out;
    let first = dated.lines().next().unwrap();
    let (time, text) = first.split_once(' ').unwrap();
    assert_eq!((time.len(), text), ("2026-01-01T00:00:00.000000000Z".len(), "1"));
    assert_eq!(engine.said(&["logs", "--since", "1h", "ll"]).out, "1\n2\n3\n4\ntail");
    assert_eq!(engine.said(&["logs", "--until", "1h", "ll"]).out, "");
    let error = engine.fails(1, &["logs", "nobody"]);
    assert!(error.contains("No such container: nobody"), "{error}");
}

#[test]
fn a_follower_sees_each_line_at_once_and_leaves_when_the_container_ends() {
    let engine = Engine::start();
    engine.ok(&[
        "run",
        "-d",
        "--name",
        "ff",
        "busybox",
        "sh",
        "-c",
        "echo one; while [ ! -e /go ]; do sleep 0.02; done; echo two",
    ]);
    let mut follower = engine.docker(&["logs", "-f", "ff"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(follower.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "one");
    engine.ok(&["exec", "ff", "touch", "/go"]);
    assert_eq!(lines.next().unwrap().unwrap(), "two");
    assert!(lines.next().is_none());
    assert!(follower.wait().unwrap().success());
}

#[test]
fn an_empty_followed_log_answers_its_headers_at_once() {
    let engine = Engine::start();
    engine.ok(&["run", "-d", "--name", "qq", "busybox", "sleep", "1000"]);
    use std::io::{Read, Write};
    let mut stream = std::os::unix::net::UnixStream::connect(engine.socket()).unwrap();
    stream.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
    stream
        .write_all(b"GET /v1.51/containers/qq/logs?follow=1&stdout=1 HTTP/1.1\r\nHost: d\r\n\r\n")
        .unwrap();
    let mut start = [0; 15];
    stream.read_exact(&mut start).unwrap();
    assert_eq!(&start, b"HTTP/1.1 200 OK");
}

#[test]
fn a_log_is_rotated_at_its_size_and_still_read_as_one() {
    let engine = Engine::start();
    const SAYS: &str = "i=0; while [ $i -lt 300 ]; do echo line $i; i=$((i+1)); done";
    for (name, compress, older) in [("rr", "compress=false", ""), ("zz", "compress=true", ".gz")] {
        let mut run = vec!["run", "--name", name];
        for option in ["max-size=10k", "max-file=3", compress] {
            run.extend(["--log-opt", option]);
        }
        engine.ok(&[&run[..], &["busybox", "sh", "-c", SAYS]].concat());
        let said = engine.ok(&["logs", name]);
        assert!(said.ends_with("line 299"), "{said}");
        let path = engine.ok(&["inspect", "-f", "{{.LogPath}}", name]);
        let there = |ending: String| std::fs::metadata(path.clone() + &ending).is_ok();
        assert!(there(format!(".1{older}")) && there(format!(".2{older}")));
        assert!(!there(".3".into()) && !there(".3.gz".into()));
        let lines: Vec<&str> = said.lines().collect();
        let first: u32 = lines[0].strip_prefix("line ").unwrap().parse().unwrap();
        assert_eq!(lines.len(), (300 - first) as usize);
        let tail = engine.ok(&["logs", "--tail", "150", name]);
        assert_eq!(tail.lines().collect::<Vec<_>>(), lines[lines.len() - 150..]);
    }
}

#[test]
fn without_a_log_driver_there_is_nothing_to_read() {
    let engine = Engine::start();
    assert_eq!(
        engine.ok(&["run", "--name", "nn", "--log-driver", "none", "busybox", "echo", "x"]),
        "x"
    );
    let error = engine.fails(1, &["logs", "nn"]);
    assert!(error.contains("configured logging driver does not support reading"), "{error}");
}

#[test]
fn every_line_tells_what_was_asked_for_of_its_container() {
    let engine = Engine::start();
    engine.ok(&[
        "run",
        "--name",
        "one",
        "--label",
        "l=1",
        "--label",
        "m=2",
        "-e",
        "E=3",
        "--log-opt",
        "labels=l",
        "--log-opt",
        "env=E",
        "--log-opt",
        "tag={{.Name}}/x",
        "busybox",
        "echo",
        "hello",
    ]);
    assert_eq!(engine.ok(&["logs", "one"]), "hello");
    assert_eq!(engine.ok(&["logs", "--details", "one"]), "E=3,l=1,tag=one%2Fx hello");
    engine.ok(&["run", "--name", "none", "--log-driver", "none", "busybox", "echo", "hi"]);
    let refused = engine.fails(1, &["logs", "none"]);
    assert!(refused.contains("configured logging driver does not support reading"), "{refused}");
    assert_eq!(engine.ok(&["inspect", "-f", "{{.LogPath}}", "none"]), "");
    engine.ok(&["run", "--name", "local", "--log-driver", "local", "busybox", "echo", "hi"]);
    assert_eq!(engine.ok(&["logs", "local"]), "hi");
    for (driver, option, words) in [
        ("json-file", "bla=1", "unknown log opt 'bla' for json-file log driver"),
        ("local", "labels=x", "unknown log opt 'labels' for log driver local"),
        ("json-file", "compress=1", "compress cannot be true when max-file is less than 2"),
        ("local", "max-file=1", "compression cannot be enabled when max file count is 1"),
        ("json-file", "mode=bla", "logger: logging mode not supported: bla"),
        ("json-file", "max-buffer-size=1m", "only supported with 'mode=non-blocking'"),
    ] {
        let arguments = ["create", "--log-driver", driver, "--log-opt", option, "busybox"];
        let refused = engine.fails(1, &arguments);
        assert!(refused.contains(words), "{refused}");
    }
}
