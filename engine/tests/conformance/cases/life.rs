//! Starting, stopping, killing, pausing, restarting, renaming, removing, waiting, updating.

use crate::{
    cases::cases,
    http::Request,
    scene::{Scene, wait_for},
};
use serde_json::json;

cases! { "life of a container":
    start_is_204_and_the_second_time_304,
    stop_is_204_and_the_second_time_304,
    start_with_a_body_is_refused,
    kill_needs_a_running_container,
    kill_sends_the_signal_by_name_and_number,
    an_unknown_signal_is_refused,
    a_stopped_container_has_an_exit_code_and_a_time,
    stop_sends_the_stop_signal_first_and_kills_in_the_end,
    restart_starts_a_stopped_one_and_a_running_one,
    pause_and_unpause_refuse_what_is_not_so,
    a_paused_container_can_be_stopped,
    a_paused_container_cannot_be_restarted_or_executed_in,
    rename_gives_the_new_name_and_frees_the_old,
    remove_refuses_a_running_one_unless_forced,
    a_removed_container_is_gone,
    wait_gives_the_exit_code,
    wait_answers_at_once_if_it_has_ended,
    wait_for_nobody_is_no_such_container,
    an_unknown_command_is_127_and_a_folder_126,
    exit_codes_reach_the_cli,
    auto_remove_removes_when_it_ends,
    restart_on_failure_counts_its_tries,
    always_restarts_until_stopped,
    update_changes_limits_and_the_restart_policy,
    update_refuses_nonsense,
    top_lists_processes_with_their_columns,
    top_of_a_stopped_container_is_refused,
    every_verb_on_nobody_is_no_such_container,
    a_container_with_init_reaps_and_passes_signals,
    limits_are_in_force,
    hostname_user_workdir_and_environment_are_in_force,
    a_readonly_root_cannot_be_written,
    an_oom_kill_is_told,
}

fn start_is_204_and_the_second_time_304(s: &Scene<'_>) {
    let id = s.idle("a");
    s.poke(&format!("/containers/{id}/start")).expect(304);
}

fn stop_is_204_and_the_second_time_304(s: &Scene<'_>) {
    let id = s.idle("a");
    s.poke(&format!("/containers/{id}/stop")).expect(204);
    s.poke(&format!("/containers/{id}/stop")).expect(304);
}

fn start_with_a_body_is_refused(s: &Scene<'_>) {
    let id = s.create("a", json!({}));
    let answer = s.post(&format!("/containers/{id}/start"), &json!({ "Binds": ["/a:/b"] }));
    answer.refuses(400, "starting container with non-empty request body was deprecated since API v1.22 and removed in v1.24");
}

fn kill_needs_a_running_container(s: &Scene<'_>) {
    let id = s.create("a", json!({}));
    s.poke(&format!("/containers/{id}/kill"))
        .refuses(409, &format!("container {id} is not running"));
}

fn kill_sends_the_signal_by_name_and_number(s: &Scene<'_>) {
    let script =
        "trap 'echo usr1' USR1; trap 'echo hup' HUP; echo ready; while :; do sleep 0.05; done";
    let id = s.run("a", script);
    let says = |word: &str| wait_for(word, || s.ok(&["logs", &id]).contains(word));
    says("ready");
    for (signal, word) in [("SIGUSR1", "usr1"), ("1", "hup")] {
        s.poke(&format!("/containers/{id}/kill?signal={signal}")).expect(204);
        says(word);
    }
    s.poke(&format!("/containers/{id}/kill")).expect(204);
    assert_eq!(s.wait(&id), 137);
}

fn an_unknown_signal_is_refused(s: &Scene<'_>) {
    let id = s.idle("a");
    s.poke(&format!("/containers/{id}/kill?signal=NONSENSE"))
        .refuses(400, "invalid signal: NONSENSE");
    let stop = s.poke(&format!("/containers/{id}/stop?signal=NONSENSE"));
    assert!(stop.status() >= 400 && stop.message().contains("invalid signal: NONSENSE"));
}

fn a_stopped_container_has_an_exit_code_and_a_time(s: &Scene<'_>) {
    let id = s.run("a", "exit 3");
    assert_eq!(s.wait(&id), 3);
    let state = s.inspect(&id)["State"].clone();
    assert_eq!((&state["Status"], &state["ExitCode"]), (&json!("exited"), &json!(3)));
    assert_eq!((&state["Running"], &state["Pid"]), (&json!(false), &json!(0)));
    assert_ne!(state["FinishedAt"], "0001-01-01T00:00:00Z");
    assert!(state["StartedAt"].as_str() < state["FinishedAt"].as_str(), "{state}");
}

fn stop_sends_the_stop_signal_first_and_kills_in_the_end(s: &Scene<'_>) {
    let script = "trap 'exit 7' INT; echo ready; while :; do sleep 0.05; done";
    let id = s.create("a", json!({ "Cmd": ["sh", "-c", script], "StopSignal": "INT" }));
    s.start(&id);
    wait_for("the trap", || s.ok(&["logs", &id]).contains("ready"));
    s.poke(&format!("/containers/{id}/stop")).expect(204);
    assert_eq!(s.inspect(&id)["State"]["ExitCode"], 7);
    let deaf = s.create(
        "b",
        json!({ "Cmd": ["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 1; done"] }),
    );
    s.start(&deaf);
    wait_for("the trap", || s.ok(&["logs", &deaf]).contains("ready"));
    s.poke(&format!("/containers/{deaf}/stop?t=0")).expect(204);
    assert_eq!(s.inspect(&deaf)["State"]["ExitCode"], 137);
}

fn restart_starts_a_stopped_one_and_a_running_one(s: &Scene<'_>) {
    let id = s.idle("a");
    let pid = |id: &str| s.inspect(id)["State"]["Pid"].as_i64().unwrap();
    let first = pid(&id);
    s.poke(&format!("/containers/{id}/restart?t=0")).expect(204);
    let second = pid(&id);
    assert!(second > 0 && first != second);
    s.poke(&format!("/containers/{id}/stop?t=0")).expect(204);
    s.poke(&format!("/containers/{id}/restart")).expect(204);
    assert!(pid(&id) > 0);
    assert_eq!(s.inspect(&id)["RestartCount"], 0);
}

fn pause_and_unpause_refuse_what_is_not_so(s: &Scene<'_>) {
    let id = s.idle("a");
    let path = |verb: &str| format!("/containers/{id}/{verb}");
    // Docker says 500.
    let running = s.poke(&path("unpause"));
    assert!(
        running.status() >= 400 && running.message() == format!("Container {id} is not paused")
    );
    s.poke(&path("pause")).expect(204);
    let state = s.inspect(&id)["State"].clone();
    assert_eq!((&state["Status"], &state["Paused"]), (&json!("paused"), &json!(true)));
    assert_eq!(state["Running"], true);
    s.poke(&path("pause")).refuses(409, &format!("Container {id} is already paused"));
    s.poke(&path("unpause")).expect(204);
    assert_eq!(s.inspect(&id)["State"]["Status"], "running");
    let created = s.create("b", json!({}));
    s.poke(&format!("/containers/{created}/pause")).refuses(409, "is not running");
}

fn a_paused_container_can_be_stopped(s: &Scene<'_>) {
    let id = s.idle("a");
    s.poke(&format!("/containers/{id}/pause")).expect(204);
    s.poke(&format!("/containers/{id}/stop?t=1")).expect(204);
    assert_eq!(s.inspect(&id)["State"]["Status"], "exited");
}

fn a_paused_container_cannot_be_restarted_or_executed_in(s: &Scene<'_>) {
    let id = s.idle("a");
    s.poke(&format!("/containers/{id}/pause")).expect(204);
    s.poke(&format!("/containers/{id}/start"))
        .refuses(409, "cannot start a paused container, try unpause instead");
    let exec = s.post(&format!("/containers/{id}/exec"), &json!({ "Cmd": ["true"] }));
    exec.refuses(409, &format!("Container {id} is paused, unpause the container before exec"));
    s.poke(&format!("/containers/{id}/unpause")).expect(204);
}

fn rename_gives_the_new_name_and_frees_the_old(s: &Scene<'_>) {
    let id = s.idle("a");
    let (new, other) = (s.name("b"), s.name("c"));
    s.poke(&format!("/containers/{id}/rename?name={new}")).expect(204);
    assert_eq!(s.inspect(&new)["Id"], id);
    s.create("a", json!({}));
    s.create("c", json!({}));
    let taken = s.poke(&format!("/containers/{id}/rename?name={other}"));
    taken.refuses(
        409,
        &format!("Conflict. The container name \"/{other}\" is already in use by container"),
    );
    let same = s.poke(&format!("/containers/{id}/rename?name={new}"));
    same.refuses(400, "Renaming a container with the same name as its current name");
    s.poke(&format!("/containers/{id}/rename?name=a%2Fb"))
        .refuses(400, "Invalid container name (/a/b), only");
    s.poke(&format!("/containers/{id}/rename?name="))
        .refuses(400, "Neither old nor new names may be empty");
}

fn remove_refuses_a_running_one_unless_forced(s: &Scene<'_>) {
    let id = s.idle("a");
    let words = format!(
        "cannot remove container \"{id}\": container is running: stop the container before removing or force remove"
    );
    s.delete(&format!("/containers/{id}")).refuses(409, &words);
    s.poke(&format!("/containers/{id}/pause")).expect(204);
    s.delete(&format!("/containers/{id}"))
        .refuses(409, "container is paused and must be unpaused first");
    s.delete(&format!("/containers/{id}?force=true")).expect(204);
}

fn a_removed_container_is_gone(s: &Scene<'_>) {
    let id = s.create("a", json!({}));
    s.delete(&format!("/containers/{id}")).expect(204);
    s.get(&format!("/containers/{id}/json")).refuses(404, &format!("No such container: {id}"));
    s.delete(&format!("/containers/{id}?force=1"))
        .refuses(404, &format!("No such container: {id}"));
}

fn wait_gives_the_exit_code(s: &Scene<'_>) {
    let id = s.run("a", "sleep 0.3; exit 42");
    assert_eq!(
        s.poke(&format!("/containers/{id}/wait")).expect(200).json(),
        json!({ "StatusCode": 42 })
    );
}

fn wait_answers_at_once_if_it_has_ended(s: &Scene<'_>) {
    let id = s.run("a", "exit 5");
    s.wait(&id);
    for condition in ["", "?condition=not-running", "?condition="] {
        assert_eq!(
            s.poke(&format!("/containers/{id}/wait{condition}")).expect(200).json()["StatusCode"],
            5
        );
    }
    let created = s.create("b", json!({}));
    assert_eq!(s.wait(&created), 0);
}

fn wait_for_nobody_is_no_such_container(s: &Scene<'_>) {
    s.poke("/containers/nobody/wait").refuses(404, "No such container: nobody");
    let id = s.create("a", json!({}));
    s.poke(&format!("/containers/{id}/wait?condition=never"))
        .refuses(400, "invalid condition: \"never\"");
}

fn an_unknown_command_is_127_and_a_folder_126(s: &Scene<'_>) {
    let id = s.create("a", json!({ "Cmd": ["/no/such"] }));
    let answer = s.poke(&format!("/containers/{id}/start"));
    answer.refuses(400, "exec: \"/no/such\": stat /no/such: no such file or directory");
    let state = s.inspect(&id)["State"].clone();
    assert_eq!((&state["ExitCode"], &state["Status"]), (&json!(127), &json!("created")));
    assert!(state["Error"].as_str().unwrap().contains("/no/such"), "{state}");
    s.fails(127, &["run", "--rm", "--name", &s.name("b"), "busybox", "no-such"]);
    s.fails(126, &["run", "--rm", "--name", &s.name("c"), "busybox", "/etc"]);
    s.fails(126, &["run", "--rm", "--name", &s.name("d"), "busybox", "/etc/passwd"]);
}

fn exit_codes_reach_the_cli(s: &Scene<'_>) {
    for (script, code) in [("exit 0", 0), ("exit 77", 77), ("kill -9 $$", 137)] {
        let said = s.said(&[
            "run",
            "--rm",
            "--name",
            &s.name("a"),
            "--init",
            "busybox",
            "sh",
            "-c",
            script,
        ]);
        assert_eq!(said.code, code, "{script}: {said:?}");
    }
    s.fails(
        125,
        &["run", "--rm", "--name", &s.name("b"), "--network", "nonsense", "busybox", "true"],
    );
}

fn auto_remove_removes_when_it_ends(s: &Scene<'_>) {
    let id = s.create("a", json!({ "Cmd": ["true"], "HostConfig": { "AutoRemove": true } }));
    s.start(&id);
    wait_for("it to go", || s.get(&format!("/containers/{id}/json")).status() == 404);
}

fn restart_on_failure_counts_its_tries(s: &Scene<'_>) {
    let policy = json!({ "Name": "on-failure", "MaximumRetryCount": 2 });
    let id = s.create("a", json!({ "Cmd": ["false"], "HostConfig": { "RestartPolicy": policy } }));
    s.start(&id);
    wait_for("two more tries", || {
        let container = s.inspect(&id);
        container["RestartCount"] == 2 && container["State"]["Status"] == "exited"
    });
    assert_eq!(s.inspect(&id)["State"]["ExitCode"], 1);
}

fn always_restarts_until_stopped(s: &Scene<'_>) {
    let policy = json!({ "Name": "always" });
    let config =
        json!({ "Cmd": ["sh", "-c", "sleep 0.1"], "HostConfig": { "RestartPolicy": policy } });
    let id = s.create("a", config);
    s.start(&id);
    wait_for("a restart", || s.inspect(&id)["RestartCount"].as_i64() > Some(0));
    s.poke(&format!("/containers/{id}/stop?t=0"));
    wait_for("the end", || s.inspect(&id)["State"]["Status"] == "exited");
    let count = s.inspect(&id)["RestartCount"].clone();
    s.poke(&format!("/containers/{id}/wait")).expect(200);
    assert_eq!(s.inspect(&id)["RestartCount"], count);
}

fn update_changes_limits_and_the_restart_policy(s: &Scene<'_>) {
    let config = json!({ "Cmd": ["sleep", "1000"], "HostConfig": { "Memory": 64 << 20, "MemorySwap": 64 << 20 } });
    let id = s.create("a", config);
    s.start(&id);
    let change = json!({
        "Memory": 32 << 20, "MemorySwap": 32 << 20, "CpuShares": 100, "PidsLimit": 33,
        "RestartPolicy": { "Name": "on-failure", "MaximumRetryCount": 4 },
    });
    let answer = s.post(&format!("/containers/{id}/update"), &change).expect(200).json();
    assert!(answer["Warnings"].is_null() || answer["Warnings"] == json!([]), "{answer}");
    let kept = s.inspect(&id)["HostConfig"].clone();
    for (field, value) in change.as_object().unwrap() {
        assert_eq!(&kept[field], value, "{field}");
    }
    let limit = s.ok(&["exec", &id, "sh", "-c",
        "cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || cat /sys/fs/cgroup/memory.max"]);
    assert_eq!(limit, (32 << 20).to_string());
    assert_eq!(s.ok(&["update", "--cpu-shares", "200", &id]), id);
}

fn update_refuses_nonsense(s: &Scene<'_>) {
    let id = s.create("a", json!({}));
    let update = |body| s.post(&format!("/containers/{id}/update"), &body);
    update(json!({ "Memory": 5 })).refuses(400, "Minimum memory limit allowed is 6MB");
    update(json!({ "RestartPolicy": { "Name": "x" } })).refuses(400, "invalid restart policy");
    s.post("/containers/nobody/update", &json!({})).refuses(404, "No such container: nobody");
}

fn top_lists_processes_with_their_columns(s: &Scene<'_>) {
    let id = s.run("a", "sleep 999 & exec sleep 1000");
    wait_for("both", || s.ok(&["top", &id]).lines().count() == 3);
    let top = s.get(&format!("/containers/{id}/top")).expect(200).json();
    let titles = ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"];
    assert_eq!(top["Titles"], json!(titles));
    let aux = s.get(&format!("/containers/{id}/top?ps_args=aux")).expect(200).json();
    assert_eq!((&aux["Titles"][0], &aux["Titles"][10]), (&json!("USER"), &json!("COMMAND")));
    let pids = s.get(&format!("/containers/{id}/top?ps_args=-o%20pid,args")).expect(200).json();
    assert_eq!(pids["Titles"], json!(["PID", "COMMAND"]));
    assert_eq!(pids["Processes"].as_array().unwrap().len(), 2);
}

fn top_of_a_stopped_container_is_refused(s: &Scene<'_>) {
    let id = s.create("a", json!({}));
    s.get(&format!("/containers/{id}/top")).refuses(409, &format!("container {id} is not running"));
}

fn every_verb_on_nobody_is_no_such_container(s: &Scene<'_>) {
    let words = "No such container: nobody";
    for verb in [
        "start",
        "stop",
        "restart",
        "kill",
        "pause",
        "unpause",
        "wait",
        "rename?name=x",
        "resize?h=1&w=1",
    ] {
        s.poke(&format!("/containers/nobody/{verb}")).refuses(404, words);
    }
    for noun in
        ["json", "top", "logs?stdout=1", "changes", "export", "stats?stream=0", "archive?path=/"]
    {
        s.get(&format!("/containers/nobody/{noun}")).refuses(404, words);
    }
    // Of a connection that was to be hijacked, Docker says it in plain text.
    let path = "/v1.51/containers/nobody/attach?stream=1&stdout=1";
    let attach = s.open(&Request { method: "POST", path, headers: &[], body: &[] });
    assert_eq!(attach.head.status, 404);
    s.post("/containers/nobody/exec", &json!({ "Cmd": ["x"] })).refuses(404, words);
}

fn a_container_with_init_reaps_and_passes_signals(s: &Scene<'_>) {
    let config = json!({ "Cmd": ["sleep", "1000"], "HostConfig": { "Init": true } });
    let id = s.create("a", config);
    s.start(&id);
    let first = s.ok(&["exec", &id, "cat", "/proc/1/comm"]);
    assert!(first.contains("init"), "{first}");
    s.poke(&format!("/containers/{id}/stop?t=20")).expect(204);
    assert_eq!(s.inspect(&id)["State"]["ExitCode"], 143);
}

fn limits_are_in_force(s: &Scene<'_>) {
    let read = |path: &str| format!("cat /sys/fs/cgroup/{path} 2>/dev/null; ");
    let script = [
        read("memory/memory.limit_in_bytes"),
        read("memory.max"),
        "ulimit -n; ".to_owned(),
        "df -m /dev/shm | tail -n1 | tr -s ' ' | cut -d' ' -f2".to_owned(),
    ];
    let out = s.ok(&[
        "run",
        "--rm",
        "--name",
        &s.name("a"),
        "-m",
        "32m",
        "--ulimit",
        "nofile=33:44",
        "--shm-size",
        "3m",
        "busybox",
        "sh",
        "-c",
        &script.concat(),
    ]);
    assert_eq!(out, "33554432\n33\n3");
}

fn hostname_user_workdir_and_environment_are_in_force(s: &Scene<'_>) {
    let out = s.ok(&[
        "run",
        "--rm",
        "--name",
        &s.name("a"),
        "-h",
        "box",
        "-u",
        "nobody",
        "-w",
        "/made/here",
        "-e",
        "A=b c",
        "busybox",
        "sh",
        "-c",
        "hostname; id -u; pwd; echo $A; echo $HOME; echo $PATH",
    ]);
    let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    assert_eq!(out, format!("box\n65534\n/made/here\nb c\n/home\n{path}"));
    s.fails(125, &["run", "--rm", "--name", &s.name("b"), "-u", "whoever", "busybox", "true"]);
}

fn a_readonly_root_cannot_be_written(s: &Scene<'_>) {
    let err = s.fails(
        1,
        &[
            "run",
            "--rm",
            "--name",
            &s.name("a"),
            "--read-only",
            "--tmpfs",
            "/t",
            "busybox",
            "sh",
            "-c",
            "echo x >/t/f && echo x >/f",
        ],
    );
    assert!(err.contains("Read-only file system"), "{err}");
}

fn an_oom_kill_is_told(s: &Scene<'_>) {
    let config = json!({
        "Cmd": ["sh", "-c", "tail /dev/zero"],
        "HostConfig": { "Memory": 8 << 20, "MemorySwap": 8 << 20 },
    });
    let id = s.create("a", config);
    s.start(&id);
    assert_ne!(s.wait(&id), 0);
    wait_for("the news", || s.inspect(&id)["State"]["OOMKilled"] == true);
}
