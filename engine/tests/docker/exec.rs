//! `docker exec`.

use crate::engine::Engine;

fn with_sleeper() -> Engine {
    let engine = Engine::start();
    engine.ok(&["run", "-d", "--name", "cc", "-e", "A=1", "busybox", "sleep", "1000"]);
    engine
}

#[test]
fn a_process_joins_the_container_and_its_exit_code_comes_back() {
    let engine = with_sleeper();
    assert_eq!(engine.ok(&["exec", "cc", "echo", "hi"]), "hi");
    engine.fails(5, &["exec", "cc", "sh", "-c", "exit 5"]);
    engine.fails(137, &["exec", "cc", "sh", "-c", "kill -9 $$"]);
    let said = engine.ok(&[
        "exec",
        "-e",
        "B=2",
        "-w",
        "/etc",
        "-u",
        "nobody",
        "cc",
        "sh",
        "-c",
        "echo $A$B $PWD $(id -un)",
    ]);
    assert_eq!(said, "12 /etc nobody");
    let said = engine.said(&["exec", "cc", "sh", "-c", "echo out; echo err >&2"]);
    assert_eq!((said.out.as_str(), said.err.as_str()), ("out\n", "err\n"));
    let processes = engine.ok(&["exec", "cc", "ps", "-o", "pid,args"]);
    assert!(processes.contains("1 sleep 1000"), "{processes}");
}

#[test]
fn what_cannot_be_executed_is_named() {
    let engine = with_sleeper();
    let error = engine.said(&["exec", "cc", "nope"]);
    assert_eq!(error.code, 127);
    let text = format!("{}{}", error.out, error.err);
    assert!(text.contains("exec: \"nope\": executable file not found in $PATH"), "{text}");
    assert_eq!(engine.said(&["exec", "cc", "/etc/passwd"]).code, 126);
    engine.ok(&["stop", "-t", "0", "cc"]);
    let error = engine.fails(1, &["exec", "cc", "true"]);
    assert!(error.contains("is not running"), "{error}");
}

#[test]
fn input_reaches_it_and_ends_with_the_clients() {
    let engine = with_sleeper();
    let said = engine.fed(&["exec", "-i", "cc", "wc", "-c"], &vec![b'x'; 1 << 20]);
    assert_eq!(said.out.trim(), (1 << 20).to_string());
}

#[test]
fn a_terminal_in_an_exec_is_one() {
    let engine = with_sleeper();
    assert_eq!(
        engine.ok(&["exec", "-t", "cc", "sh", "-c", "tty; stty size"]),
        "/dev/pts/0\r\n0 0\r"
    );
}

#[test]
fn detached_processes_go_on_and_are_inside_the_limits() {
    let engine = with_sleeper();
    engine.ok(&["exec", "-d", "cc", "sleep", "777"]);
    crate::engine::wait_for("the detached process", || {
        engine.ok(&["top", "cc"]).contains("sleep 777")
    });
}

#[test]
fn exec_of_a_privileged_process_has_what_it_asks_for() {
    let engine = with_sleeper();
    let effective = |options: &[&str]| {
        let mut arguments = vec!["exec"];
        arguments.extend(options);
        arguments.extend(["cc", "sh", "-c", "grep CapEff /proc/self/status | cut -f2"]);
        u64::from_str_radix(&engine.ok(&arguments), 16).unwrap()
    };
    assert_eq!(effective(&[]), 0xa804_25fb);
    assert!(effective(&["--privileged"]).count_ones() > 30);
}
