//! Standard input, output, terminals, logs, and clients that do not read.

use crate::harness::*;
use rustix::process::{Signal, pidfd_send_signal};
use std::fs;
use std::io::Write;
use tritium_supervisor::protocol::*;

#[test]
fn standard_input_ends_when_the_engine_says_so() {
    let mut bench = Bench::with(&["wc", "-c"]);
    bench.launch.stdin = true;
    let (fds, attached) = bench.start();
    let mut input = fs::File::from(fds.into_iter().nth(1).unwrap());
    input.write_all(b"twelve bytes").unwrap();
    drop(input);
    bench.engine().ask(&Request::CloseStdin, &[]);
    assert_eq!(attached.demultiplexed().0, "12\n");
    assert_eq!(bench.engine().exited(None).code, 0);
}

#[test]
fn a_terminal_is_one_and_its_bytes_come_raw() {
    let mut bench = Bench::shell(
        "tty; stty size; test -t 0 && ls -l /dev/console | cut -c1; read line; echo got $line",
    );
    bench.launch.process.terminal = true;
    bench.launch.process.size = Some((33, 77));
    let (fds, attached) = bench.start();
    rustix::io::write(&fds[1], b"word\n").unwrap();
    let out = String::from_utf8(attached.raw()).unwrap().replace('\r', "");
    let lines: Vec<&str> = out.lines().filter(|line| *line != "word").collect();
    assert_eq!(lines, ["/dev/pts/0", "33 77", "c", "got word"]);
    assert_eq!(bench.engine().exited(None).code, 0);
}

#[test]
fn the_log_is_written_without_an_engine() {
    let mut bench = Bench::shell("echo one; printf two");
    bench.launch.log = Some(Log {
        path: bench.top.join("log"),
        max_size: None,
        max_file: None,
        compress: false,
        attributes: None,
    });
    bench.send_launch(Vec::new());
    bench.engine = None;
    bench.supervisor.wait().unwrap();
    let log = fs::read_to_string(bench.top.join("log")).unwrap();
    let lines: Vec<&str> = log.lines().collect();
    assert!(lines[0].starts_with(r#"{"log":"one\n","stream":"stdout","time":"2"#), "{log}");
    assert!(lines[1].starts_with(r#"{"log":"two","stream":"stdout","time":"2"#), "{log}");
}

#[test]
fn a_client_that_does_not_read_holds_the_container_and_none_else() {
    let mut bench = Bench::shell("dd if=/dev/zero bs=1M count=64 2>/dev/null; echo done >&2");
    let (slow, slow_end) = attached();
    let (errors, errors_end) = attached();
    let none = Streams { stdout: false, stderr: false };
    bench.send_launch(vec![
        (Streams { stdout: true, ..none }, slow_end),
        (Streams { stderr: true, ..none }, errors_end),
    ]);
    assert!(matches!(bench.engine().hear().0, Event::Started { .. }));
    // An exec goes through while the output stands still.
    assert_eq!(bench.exec(&process(&["echo", "alive"])).unwrap().0, "alive\n");
    let (out, _) = slow.demultiplexed();
    assert_eq!(out.len(), 64 << 20);
    assert_eq!(errors.demultiplexed().1, "done\n");
    assert_eq!(bench.engine().exited(None).code, 0);
}

#[test]
fn a_client_that_leaves_does_no_harm() {
    let mut bench = Bench::shell("dd if=/dev/zero bs=1M count=16 2>/dev/null; exit 4");
    let (_fds, leaver) = bench.start();
    drop(leaver);
    assert_eq!(bench.engine().exited(None).code, 4);
}

#[test]
fn output_that_nobody_wants_is_read_all_the_same() {
    let mut bench = Bench::shell("dd if=/dev/zero bs=1M count=16 2>/dev/null; exit 4");
    bench.send_launch(Vec::new());
    bench.engine().hear();
    assert_eq!(bench.engine().exited(None).code, 4);
}

#[test]
fn an_exec_with_a_terminal_gives_its_master() {
    let mut bench = Bench::with(&["sleep", "1000"]);
    let (fds, _attached) = bench.start();
    let wanted = Process {
        terminal: true,
        size: Some((5, 6)),
        ..process(&["sh", "-c", "tty; stty size; read x"])
    };
    bench.engine().ask(&Request::Exec { id: "t".to_owned() }, &[memfd(&wanted)]);
    let (_, given) = bench.engine().hear();
    let master = fs::File::from(given.into_iter().nth(1).unwrap());
    rustix::io::ioctl_fionbio(&master, false).unwrap();
    let text = Attached(master.try_clone().unwrap()).until("5 6");
    assert_eq!(text.replace('\r', ""), "/dev/pts/0\n5 6");
    rustix::io::write(&master, b"\n").unwrap();
    assert_eq!(bench.engine().exited(Some("t")).code, 0);
    pidfd_send_signal(&fds[0], Signal::KILL).unwrap();
    bench.engine().exited(None);
}
