//! Volumes and mounts.

use crate::engine::{Engine, Said, moment};
use std::path::Path;

/// An image with `/data` (owner, modes, links), a link to it, and a `VOLUME`.
fn with_content(engine: &Engine) {
    let root = engine.dir.join("content");
    let busybox = engine.dir.join("busybox.tar");
    engine.ok(&["create", "--name", "model", "busybox"]);
    std::fs::create_dir_all(root.join("data/sub")).unwrap();
    let sample = std::env::var("TRITIUM_SAMPLE")
        .unwrap_or_else(|_| concat!(env!("CARGO_MANIFEST_DIR"), "/../target/sample.tar").into());
    std::fs::copy(sample, &busybox).unwrap();
    let script = "cd \"$1\" && tar -xf \"$2\" && echo hi > data/f && chown 7:8 data/f && \
                  chmod 4755 data/f && chown 9:9 data && chmod 1770 data && ln -s f data/l && \
                  ln data/f data/h && mkfifo data/p && ln -s /data link && \
                  setfattr -n user.a -v b data/f; tar --xattrs -cf \"$3\" .";
    let output = std::process::Command::new("sh")
        .args(["-c", script, "sh"])
        .args([&root, &busybox, &engine.dir.join("content.tar")])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let tar = engine.dir.join("content.tar");
    let tar = tar.to_str().unwrap();
    engine.ok(&["import", "-c", "CMD [\"sh\"]", "-c", "VOLUME /data", tar, "content"]);
    engine.ok(&["rm", "model"]);
}

fn volumes(engine: &Engine) -> String {
    engine.ok(&["volume", "ls", "-q"])
}

#[test]
fn a_volume_is_made_once_and_removed_when_nobody_uses_it() {
    let engine = Engine::start();
    assert_eq!(engine.ok(&["volume", "create", "--label", "a=b", "data"]), "data");
    assert_eq!(engine.ok(&["volume", "create", "data"]), "data");
    let shown = "{{.Driver}} {{.Scope}} {{.Labels}} {{.Options}} {{.Mountpoint}}";
    let path = engine.dir.join("state/volumes/default/data/_data");
    assert_eq!(
        engine.ok(&["volume", "inspect", "-f", shown, "data"]),
        format!("local local map[a:b] map[] {}", path.display())
    );
    engine.ok(&["create", "--name", "user", "-v", "data:/x", "busybox"]);
    let id = engine.ok(&["inspect", "-f", "{{.Id}}", "user"]);
    for arguments in [["volume", "rm", "data"].as_slice(), &["volume", "rm", "-f", "data"]] {
        let error = engine.fails(1, arguments);
        assert!(error.contains(&format!("remove data: volume is in use - [{id}]")), "{error}");
    }
    engine.ok(&["rm", "-v", "user"]);
    assert_eq!(engine.ok(&["volume", "rm", "data"]), "data");
    let error = engine.fails(1, &["volume", "rm", "data"]);
    assert!(error.contains("get data: no such volume"), "{error}");
    assert_eq!(engine.api("DELETE", "/volumes/data?force=1", "").0, 204);
    assert!(!path.exists());
}

#[test]
fn what_is_no_volume_is_refused_in_dockers_words() {
    let engine = Engine::bare(&[]);
    for (body, status, words) in [
        (r#"{"Name":"x"}"#, 400, "create x: volume name is too short"),
        (r#"{"Name":"../x"}"#, 400, r#"create ../x: \"../x\" includes invalid characters"#),
        (r#"{"Name":"vv","Driver":"nope"}"#, 404, "error looking up volume plugin nope"),
        (r#"{"Name":"vv","DriverOpts":{"a":"b"}}"#, 400, r#"invalid option: \"a\""#),
        (r#"{"Name":"vv","DriverOpts":{"type":"none"}}"#, 400, "missing required option"),
        (r#"{"Name":7}"#, 400, "invalid JSON"),
        (r#"{"Name":"vv""#, 400, "invalid JSON"),
    ] {
        let (found, answer) = engine.api("POST", "/volumes/create", body);
        assert!(found == status && answer.contains(words), "{body}: {found} {answer}");
    }
    assert_eq!(engine.api("GET", "/volumes/..%2f..%2fcontainers", "").0, 404);
    assert_eq!(engine.api("DELETE", "/volumes/..", "").0, 404);
    let (status, answer) =
        engine.api("GET", "/volumes?filters=%7B%22dangling%22:%5B%22xx%22%5D%7D", "");
    assert!(status == 400 && answer.contains("invalid filter 'dangling=[xx]'"), "{answer}");
    assert_eq!(volumes(&engine), "");
}

#[test]
fn an_empty_volume_is_filled_with_what_the_image_has_there() {
    let engine = Engine::start();
    with_content(&engine);
    let look = "cd /data && stat -c '%n %u:%g %a %h %F' . f h l p sub && cat l";
    let said = engine.ok(&["run", "--rm", "-v", "one:/data", "content", "sh", "-c", look]);
    let expected = ". 9:9 1770 3 directory\nf 7:8 4755 2 regular file\nh 7:8 4755 2 regular file\n\
                    l 0:0 777 1 symbolic link\np 0:0 644 1 fifo\nsub 0:0 755 2 directory\nhi";
    assert_eq!(said, expected);
    // What is there already stays alone.
    engine.ok(&["run", "--rm", "-v", "two:/x", "busybox", "touch", "/x/mine"]);
    assert_eq!(engine.ok(&["run", "--rm", "-v", "two:/data", "content", "ls", "/data"]), "mine");
    assert_eq!(
        engine.ok(&["run", "--rm", "-v", "three:/data:nocopy", "content", "ls", "/data"]),
        ""
    );
    // By way of a link of the image's.
    assert_eq!(
        engine.ok(&["run", "--rm", "-v", "four:/link", "content", "ls", "/data"]),
        "f\nh\nl\np\nsub"
    );
    let error = engine.fails(125, &["run", "--rm", "-v", "five:/etc/passwd", "content"]);
    assert!(error.contains("source /etc/passwd is not directory"), "{error}");
    let error = engine.fails(125, &["run", "--rm", "-v", "/etc/passwd", "busybox"]);
    assert!(error.contains("cannot mount volume over existing file"), "{error}");
    // Nothing was left by those that failed, and by `--rm`.
    assert_eq!(volumes(&engine), "five\nfour\none\nthree\ntwo");
}

#[test]
fn anonymous_volumes_go_with_their_container_where_that_is_asked_for() {
    let engine = Engine::start();
    with_content(&engine);
    engine.ok(&["create", "--name", "aa", "-v", "/mine", "content"]);
    assert_eq!(volumes(&engine).lines().count(), 2);
    let shared =
        engine.ok(&["run", "--rm", "--volumes-from", "aa:ro", "busybox", "cat", "/data/f"]);
    assert_eq!(shared, "hi");
    let touch = ["run", "--rm", "--volumes-from", "aa:ro", "busybox", "touch", "/data/x"];
    assert!(engine.fails(1, &touch).contains("Read-only file system"));
    engine.ok(&["create", "--name", "bb", "--volumes-from", "aa", "busybox"]);
    engine.ok(&["rm", "-v", "aa"]);
    assert_eq!(volumes(&engine).lines().count(), 2, "another container uses them");
    engine.ok(&["rm", "bb"]);
    assert_eq!(volumes(&engine).lines().count(), 2, "nobody asked");
    engine.ok(&["volume", "create", "named"]);
    let pruned = engine.ok(&["volume", "prune", "-f"]);
    assert!(pruned.contains("Total reclaimed space: 4B"), "{pruned}");
    assert_eq!(volumes(&engine), "named");
    engine.ok(&["volume", "prune", "-af"]);
    assert_eq!(volumes(&engine), "");
    let error = engine.fails(125, &["run", "--rm", "--volumes-from", "zz", "busybox"]);
    assert!(error.contains("No such container: zz"), "{error}");
}

#[test]
fn inspect_and_events_tell_of_mounts_as_docker_does() {
    let engine = Engine::start();
    engine.ok(&["run", "--name", "aa", "-v", "data:/x:ro", "-v", "/an", "busybox", "true"]);
    let mount = "{{range .Mounts}}{{.Type}} {{.Destination}} {{.Driver}} {{.Mode}}/{{.RW}}/\
                 {{.Propagation}} {{if eq .Destination \"/x\"}}{{.Name}} {{.Source}}{{end}}\n{{end}}";
    let path = engine.dir.join("state/volumes/default/data/_data");
    assert_eq!(
        engine.ok(&["inspect", "-f", mount, "aa"]).trim(),
        format!("volume /x local ro/false/ data {}\nvolume /an local /true/", path.display())
    );
    engine.ok(&["rm", "aa"]);
    engine.ok(&["volume", "rm", "data"]);
    let events = engine.ok(&[
        "events",
        "--since",
        "1m",
        "--until",
        &moment(),
        "--filter",
        "volume=data",
        "--format",
        "{{.Action}} {{index .Actor.Attributes \"read/write\"}}",
    ]);
    assert_eq!(events, "create \nmount false\nunmount \ndestroy ");
    let by_volume = ["ps", "-aq", "--filter", "volume=data"];
    assert_eq!(engine.ok(&by_volume), "");
    for (options, words) in [
        (["-v", "vv:/x", "-v", "ww:/x"].as_slice(), "Duplicate mount point: /x"),
        (&["-v", "vv:/x:ro,rw"], "invalid mode: ro,rw"),
        (&["-v", "a/b:/x"], "includes invalid characters for a local volume name"),
        (&["-v", "/tmp:/x:rshared"], "but it is not a shared mount"),
        (&["--mount", "type=bind,src=/nonexistent,dst=/x"], "bind source path does not exist"),
        (&["--storage-opt", "size=1G"], "--storage-opt is supported only for overlay over xfs"),
        (&["--ipc", "zz"], "invalid IPC mode: zz"),
    ] {
        let mut arguments = vec!["run", "--rm"];
        arguments.extend(options);
        arguments.extend(["busybox", "true"]);
        let error = engine.fails(125, &arguments);
        assert!(error.contains(words), "{options:?}: {error}");
    }
}

#[test]
fn a_part_of_a_volume_is_never_outside_of_it() {
    let engine = Engine::start();
    let make = "mkdir -p /x/a/b; echo 1 > /x/a/f; ln -s /etc /x/out; ln -s a /x/in; ln -s .. /x/up";
    engine.ok(&["run", "--rm", "-v", "vv:/x", "busybox", "sh", "-c", make]);
    let part = |subpath: &str, command: &[&str]| -> Said {
        let mount = format!("type=volume,src=vv,dst=/y,volume-subpath={subpath}");
        let mut arguments = vec!["run", "--rm", "--mount", &mount, "busybox"];
        arguments.extend(command);
        engine.said(&arguments)
    };
    assert_eq!(part("a", &["ls", "/y"]).out, "b\nf\n");
    assert_eq!(part("in", &["ls", "/y"]).out, "b\nf\n");
    assert_eq!(part("a/f", &["cat", "/y"]).out, "1\n");
    for (subpath, words) in [
        ("out", "path concatenation escapes the base directory"),
        ("up/up", "path concatenation escapes the base directory"),
        ("nope", "no such file or directory"),
        ("../x", "subpath must be a relative path within the volume"),
        ("/etc", "subpath must be a relative path within the volume"),
    ] {
        let said = part(subpath, &["ls", "/y"]);
        assert!(said.code != 0 && said.err.contains(words), "{subpath}: {said:?}");
    }
}

#[test]
fn a_link_that_changes_all_the_time_never_leads_out_of_the_volume() {
    let engine = Engine::start();
    let flip = "mkdir -p /x/dir; while :; do ln -sfn dir /x/p; ln -sfn /etc /x/p; done";
    engine.ok(&["run", "-d", "--name", "flip", "-v", "vv:/x", "busybox", "sh", "-c", flip]);
    engine.ok(&["exec", "flip", "sh", "-c", "until [ -d /x/dir ]; do :; done; touch /x/dir/mine"]);
    for _ in 0..8 {
        let mount = "type=volume,src=vv,dst=/y,volume-subpath=p";
        let said = engine.said(&["run", "--rm", "--mount", mount, "busybox", "ls", "/y"]);
        assert!(said.out == "mine\n" || said.out.is_empty(), "{said:?}");
    }
}

#[test]
fn a_volume_that_is_a_mount_is_shared_while_it_is_used_and_gone_after() {
    let engine = Engine::start();
    let options = ["type=tmpfs", "device=tmpfs", "o=size=1m,uid=7"];
    let create = ["volume", "create", "-o", options[0], "-o", options[1], "-o", options[2], "mm"];
    engine.ok(&create);
    engine.ok(&["run", "-d", "--name", "aa", "-v", "mm:/x", "busybox", "sleep", "1000"]);
    engine.ok(&["exec", "aa", "sh", "-c", "echo shared > /x/f"]);
    let look = "cat /x/f; stat -c %u /x; mount | grep ' /x ' | grep -o size=1024k";
    let said = engine.ok(&["run", "--rm", "-v", "mm:/x", "busybox", "sh", "-c", look]);
    assert_eq!(said, "shared\n7\nsize=1024k");
    assert!(engine.traces().iter().any(|trace| trace.contains("/mm/_data tmpfs")));
    engine.ok(&["rm", "-f", "aa"]);
    assert_eq!(engine.traces(), [""; 0]);
    assert_eq!(engine.ok(&["run", "--rm", "-v", "mm:/x", "busybox", "ls", "/x"]), "");

    // A directory of the host's; what is in it outlives the volume.
    let host = engine.dir.join("host");
    std::fs::create_dir(&host).unwrap();
    std::fs::write(host.join("kept"), "x").unwrap();
    let device = format!("device={}", host.display());
    engine.ok(&["volume", "create", "-o", "type=none", "-o", "o=bind", "-o", &device, "bb"]);
    assert_eq!(engine.ok(&["run", "--rm", "-v", "bb:/x", "busybox", "ls", "/x"]), "kept");
    engine.ok(&["volume", "rm", "bb"]);
    assert!(host.join("kept").exists());
    engine.ok(&["volume", "create", "-o", "type=none", "-o", "o=bind", "-o", "device=/no", "cc"]);
    let error = engine.said(&["run", "--rm", "-v", "cc:/x", "busybox", "true"]).err;
    assert!(error.contains("failed to mount local volume: mount /no:"), "{error}");
    assert_eq!(engine.traces(), [""; 0]);
}

#[test]
fn an_image_can_be_mounted_and_only_read() {
    let engine = Engine::start();
    with_content(&engine);
    let whole = ["run", "--rm", "--mount", "type=image,src=content,dst=/i", "busybox"];
    let run = |command: &[&str]| engine.said(&[&whole[..], command].concat());
    assert_eq!(run(&["cat", "/i/data/f"]).out, "hi\n");
    assert!(run(&["touch", "/i/x"]).err.contains("Read-only file system"));
    let part = "type=image,src=content,dst=/i,image-subpath=data/sub";
    assert_eq!(engine.ok(&["run", "--rm", "--mount", part, "busybox", "ls", "/i"]), "");
    let out = "type=image,src=content,dst=/i,image-subpath=link";
    let said = engine.said(&["run", "--rm", "--mount", out, "busybox", "ls", "/i"]);
    assert!(said.err.contains("path concatenation escapes the base directory"), "{said:?}");
    // Its layers stay as long as the container does.
    engine.ok(&["create", "--name", "xx", whole[2], whole[3], "busybox", "cat", "/i/data/f"]);
    engine.ok(&["rmi", "content"]);
    assert_eq!(engine.ok(&["start", "-a", "xx"]), "hi");
}

#[test]
fn shared_memory_is_shared_with_those_who_ask_and_are_let() {
    let engine = Engine::start();
    let donor = ["run", "-d", "--name", "aa", "--ipc", "shareable", "--shm-size", "1m", "busybox"];
    engine.ok(&[&donor[..], &["sh", "-c", "echo hi > /dev/shm/f; sleep 1000"]].concat());
    engine.ok(&["exec", "aa", "sh", "-c", "until [ -s /dev/shm/f ]; do :; done"]);
    let look =
        "cat /dev/shm/f; df -k /dev/shm | tail -1 | awk '{print $2}'; readlink /proc/self/ns/ipc";
    let said = engine.ok(&["run", "--rm", "--ipc", "container:aa", "busybox", "sh", "-c", look]);
    let namespace = engine.ok(&["exec", "aa", "readlink", "/proc/self/ns/ipc"]);
    assert_eq!(said, format!("hi\n1024\n{namespace}"));
    engine.ok(&["run", "-d", "--name", "pp", "busybox", "sleep", "1000"]);
    let error = engine.fails(125, &["run", "--rm", "--ipc", "container:pp", "busybox", "true"]);
    assert!(error.contains("non-shareable IPC (hint: use IpcMode:shareable"), "{error}");
    engine.ok(&["stop", "-t", "0", "pp"]);
    let error = engine.fails(125, &["run", "--rm", "--ipc", "container:pp", "busybox", "true"]);
    assert!(error.contains("is not running"), "{error}");
    let error = engine.fails(125, &["run", "--rm", "--ipc", "container:zz", "busybox", "true"]);
    assert!(error.contains("No such container: zz"), "{error}");
    assert_eq!(
        engine.ok(&["run", "--rm", "--ipc", "none", "busybox", "ls", "-d", "/dev/pts"]),
        "/dev/pts"
    );
}

#[test]
fn volumes_survive_kill_9_and_so_do_the_mounts_in_use() {
    let mut engine = Engine::start();
    let net = ["--network", "none"];
    engine.ok(&["volume", "create", "--label", "a=b", "kept"]);
    let tmpfs = ["-o", "type=tmpfs", "-o", "device=tmpfs"];
    engine.ok(&[&["volume", "create"][..], &tmpfs, &["mm"]].concat());
    engine
        .ok(&[&["run", "--rm"][..], &net, &["-v", "kept:/x", "busybox", "touch", "/x/f"]].concat());
    let up = ["-v", "mm:/m", "-v", "/an", "--name", "up", "busybox", "sh", "-c"];
    engine.ok(&[&["run", "-d"][..], &net, &up, &["touch /m/f; sleep 1000"]].concat());
    let stray = engine.dir.join("state/volumes/default/stray");
    std::fs::create_dir_all(stray.join("_data")).unwrap();
    engine.crash_and_restart();
    assert_eq!(volumes(&engine).lines().filter(|name| name.len() < 64).count(), 2);
    assert!(!stray.exists(), "what has no record is swept");
    let run = |options: &[&str]| engine.ok(&[&["run", "--rm"][..], &net, options].concat());
    assert_eq!(run(&["-v", "kept:/x", "busybox", "ls", "/x"]), "f");
    assert_eq!(run(&["-v", "mm:/x", "busybox", "ls", "/x"]), "f", "the same tmpfs");
    let error = engine.fails(1, &["volume", "rm", "mm"]);
    assert!(error.contains("volume is in use"), "{error}");
    engine.ok(&["rm", "-f", "-v", "up"]);
    assert_eq!(volumes(&engine), "kept\nmm");
}

#[test]
fn a_mount_that_nobody_uses_any_more_is_taken_away_at_the_next_start() {
    let mut engine = Engine::start();
    let tmpfs = ["-o", "type=tmpfs", "-o", "device=tmpfs"];
    engine.ok(&[&["volume", "create"][..], &tmpfs, &["mm"]].concat());
    let up = ["run", "-d", "--network", "none", "--name", "up", "-v", "mm:/m", "busybox"];
    engine.ok(&[&up[..], &["sleep", "1000"]].concat());
    let pid: i32 = engine.ok(&["inspect", "-f", "{{.State.Pid}}", "up"]).parse().unwrap();
    let daemon = nix::unistd::Pid::from_raw(engine.pid().cast_signed());
    nix::sys::signal::kill(daemon, nix::sys::signal::Signal::SIGSTOP).unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL)
        .unwrap();
    crate::engine::wait_for("its end", || !Path::new(&format!("/proc/{pid}")).exists());
    engine.crash_and_restart();
    engine.ok(&["rm", "up"]);
    assert_eq!(engine.traces(), [""; 0]);
}

#[test]
fn a_state_directory_that_lost_its_records_keeps_its_volumes() {
    let engine = Engine::bare(&[]);
    let other = engine.dir.join("other");
    std::fs::create_dir_all(other.join("volumes/default/precious/_data")).unwrap();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_tritiumd"))
        .args(["--socket", "/nonexistent/x.sock", "--state-dir"])
        .arg(&other)
        .arg("--run-dir")
        .arg(engine.dir.join("run2"))
        .output()
        .unwrap();
    assert!(!output.status.success());
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("no state.redb that says whose they are"), "{text}");
    assert!(other.join("volumes/default/precious").exists());
}
