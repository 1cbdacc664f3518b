//! `docker build` by the classic protocol, its cache, and `docker commit`.

use crate::engine::{Engine, Said, wait_for};
use std::{
    fs,
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::Stdio,
};

/// A context with these files.
fn context(engine: &Engine, name: &str, files: &[(&str, &str)]) -> PathBuf {
    let dir = engine.dir.join(name);
    for (path, text) in files {
        let path = dir.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    dir
}

fn build(engine: &Engine, dir: &Path, options: &[&str]) -> Said {
    let mut arguments = vec!["build"];
    arguments.extend(options);
    arguments.push(dir.to_str().unwrap());
    engine.docker(&arguments).env("DOCKER_BUILDKIT", "0").output().unwrap().into()
}

/// Builds that Dockerfile as `built`; what it printed.
#[track_caller]
fn built(engine: &Engine, dockerfile: &str, options: &[&str]) -> String {
    let dir = context(engine, "context", &[("Dockerfile", dockerfile)]);
    let said = build(engine, &dir, &[&["-t", "built"], options].concat());
    assert_eq!(said.code, 0, "{said:?}\n{}", engine.log());
    said.out
}

/// That Dockerfile cannot be built; why.
#[track_caller]
fn refused(engine: &Engine, dockerfile: &str) -> String {
    let dir = context(engine, "context", &[("Dockerfile", dockerfile)]);
    let said = build(engine, &dir, &["--force-rm"]);
    assert_ne!(said.code, 0, "{said:?}");
    said.err.lines().rfind(|line| !line.is_empty()).unwrap_or_default().to_owned()
}

fn run(engine: &Engine, script: &str) -> String {
    engine.ok(&["run", "--rm", "--user", "0", "--entrypoint", "sh", "built", "-c", script])
}

#[test]
fn every_instruction_is_in_the_image_that_comes_out() {
    let engine = Engine::start();
    let dockerfile = r#"
ARG V=latest
FROM busybox:$V
ARG NAME=nobody
ENV GREETING="hello ${NAME}" A=1
LABEL org.x=y "two words"='a b'
RUN echo said; echo complained >&2; echo $GREETING > /greeting
WORKDIR /app
WORKDIR below
COPY a.txt dir/ ./
ADD t.tar /t/
EXPOSE 80 90-91/udp
VOLUME /data
STOPSIGNAL SIGQUIT
HEALTHCHECK --interval=30s CMD true
USER 7:8
SHELL ["/bin/sh", "-ec"]
ENTRYPOINT ["echo"]
CMD ["x", "y z"]
"#;
    let files = [("Dockerfile", dockerfile), ("a.txt", "a"), ("dir/b.txt", "b")];
    let dir = context(&engine, "full", &files);
    let tar = std::process::Command::new("tar")
        .args(["-C", dir.to_str().unwrap(), "-czf", dir.join("t.tar").to_str().unwrap(), "a.txt"])
        .status();
    assert!(tar.unwrap().success());
    let said = build(&engine, &dir, &["-t", "built", "-t", "other:2", "--build-arg", "NAME=world"]);
    assert_eq!(said.code, 0, "{said:?}");
    for line in [
        "Step 1/18 : ARG V=latest\nStep 2/18 : FROM busybox:$V\n ---> ",
        "said\n",
        "complained\n",
        " ---> Removed intermediate container ",
        "Successfully built ",
        "Successfully tagged built:latest\nSuccessfully tagged other:2\n",
    ] {
        assert!(said.out.contains(line), "{line:?} is not in {}", said.out);
    }
    let shown = engine.ok(&[
        "inspect",
        "-f",
        "{{json .Config.Cmd}} {{json .Config.Entrypoint}} {{.Config.User}} {{.Config.WorkingDir}} \
         {{json .Config.ExposedPorts}} {{json .Config.Labels}} {{.Config.StopSignal}} \
         {{json .Config.Shell}} {{json .Config.Volumes}} {{json .Config.Healthcheck.Test}}",
        "built",
    ]);
    assert_eq!(
        shown,
        r#"["x","y z"] ["echo"] 7:8 /app/below {"80/tcp":{},"90/udp":{},"91/udp":{}} {"org.x":"y","two words":"a b"} SIGQUIT ["/bin/sh","-ec"] {"/data":{}} ["CMD-SHELL","true"]"#
    );
    let script = "cat /greeting a.txt b.txt /t/a.txt; id -u; stat -c %U:%a a.txt";
    assert_eq!(run(&engine, script), "hello world\naba0\nroot:644");
    let history = engine.ok(&["history", "--no-trunc", "--format", "{{.CreatedBy}}", "built"]);
    let newest =
        "/bin/sh -ec #(nop)  CMD [\"x\" \"y z\"]\n/bin/sh -ec #(nop)  ENTRYPOINT [\"echo\"]";
    assert!(history.starts_with(newest), "{history}");
    assert!(history.contains("|1 NAME=world /bin/sh -c echo said;"), "{history}");
    assert_eq!(engine.ok(&["ps", "-aq"]), "");
}

#[test]
fn stages_give_files_to_each_other_and_unneeded_ones_are_left_out() {
    let engine = Engine::start();
    let dockerfile = "FROM busybox AS make\nRUN mkdir -p /o/d && echo made > /o/d/f && ln -s d \
                      /o/l\nFROM busybox AS unneeded\nRUN exit 9\nFROM scratch AS base\nCOPY \
                      --from=busybox /bin /bin\nFROM base AS last\nCOPY --from=make --chown=3:4 \
                      --chmod=640 /o/l/f /here/\nCOPY --from=0 /o /all\nCMD [\"sh\"]\n";
    let said = built(&engine, dockerfile, &[]);
    assert!(!said.contains("RUN exit 9"), "{said}");
    let script = "cat /here/f /all/l/f; stat -c %u:%g:%a /here/f; ls /";
    let listed = "made\nmade\n3:4:640\nall\nbin\ndev\netc\nhere\nproc\nsys";
    assert_eq!(run(&engine, script), listed);
    built(&engine, dockerfile, &["--target", "make"]);
    assert_eq!(run(&engine, "readlink /o/l"), "d");
}

#[test]
fn a_second_build_is_the_same_image_out_of_the_cache() {
    let mut engine = Engine::start();
    let dockerfile = "FROM busybox AS a\nRUN date +%N > /when\nFROM busybox\nARG X\nCOPY f /\nCOPY \
                      --from=a /when /\nRUN echo $X\n";
    let files = [("Dockerfile", dockerfile), ("f", "1")];
    let dir = context(&engine, "cached", &files);
    let id = |engine: &Engine, options: &[&str]| {
        let said = build(engine, &dir, &[&["-t", "built"], options].concat());
        assert_eq!(said.code, 0, "{said:?}");
        (engine.ok(&["inspect", "-f", "{{.Id}}", "built"]), said.out.matches("Using cache").count())
    };
    let (first, none) = id(&engine, &[]);
    assert_eq!(none, 0);
    assert_eq!(id(&engine, &[]), (first.clone(), 5));
    // A time is no content; a mode is.
    fs::write(dir.join("f"), "1").unwrap();
    assert_eq!(id(&engine, &[]), (first.clone(), 5));
    assert_eq!(id(&engine, &["--build-arg", "X=1"]).1, 4);
    fs::write(dir.join("f"), "2").unwrap();
    assert_eq!(id(&engine, &[]).1, 2);
    fs::write(dir.join("f"), "1").unwrap();
    engine.crash_and_restart();
    assert_eq!(id(&engine, &[]), (first.clone(), 5));
    assert_ne!(id(&engine, &["--no-cache"]).0, first);
    let pruned = engine.ok(&["builder", "prune", "-af"]);
    assert!(pruned.contains("Total reclaimed space: "), "{pruned}");
    assert_eq!(id(&engine, &[]).1, 0);
    assert_eq!(run(&engine, "cat /f"), "1");
    // Without a cache, an image tells what has been done.
    engine.ok(&["builder", "prune", "-af"]);
    let (_, found) = id(&engine, &["--target", "a", "--cache-from", "built"]);
    assert_eq!(found, 0, "another stage's steps are not in it");
    engine.ok(&["builder", "prune", "-af"]);
    assert_eq!(id(&engine, &["--target", "a", "--cache-from", "built"]).1, 1);
}

#[test]
fn what_the_cache_takes_is_counted_and_won_back_to_the_byte() {
    let engine = Engine::start();
    let dockerfile = "FROM busybox\nRUN head -c 300000 /dev/zero > /a\nRUN head -c 500000 \
                      /dev/zero > /b\nENV A=1\n";
    built(&engine, dockerfile, &[]);
    let of_cache = || {
        let format = "{{.Type}}={{.TotalCount}},{{.Size}},{{.Reclaimable}}";
        let df = engine.ok(&["system", "df", "--format", format]);
        df.lines().find_map(|line| line.strip_prefix("Build Cache=")).unwrap().to_owned()
    };
    // An image has all of it.
    assert_eq!(of_cache(), "3,0B,0B");
    let pruned = engine.ok(&["builder", "prune", "-f", "--filter", "until=1h"]);
    assert!(pruned.contains("reclaimed space: 0B"), "{pruned}");
    engine.ok(&["run", "--name", "user", "built"]);
    engine.ok(&["rmi", "-f", "built"]);
    assert_eq!(of_cache(), "3,0B,0B", "a container stands on it");
    engine.ok(&["rm", "user"]);
    assert_eq!(of_cache(), "3,800kB,800kB");
    let verbose = engine.ok(&["system", "df", "-v"]);
    assert!(verbose.contains("Build cache usage: 800kB") && verbose.contains("300kB"), "{verbose}");
    let (_, df) = engine.api("GET", "/system/df?type=build-cache", "");
    let df: serde_json::Value = serde_json::from_str(&df).unwrap();
    let first = &df["BuildCache"][2];
    assert!(first["Description"].as_str().unwrap().contains("head -c 300000"), "{df}");
    assert!(first["Type"] == "regular" && first["Shared"] == false && first["InUse"] == false);
    let pruned = engine.ok(&["builder", "prune", "-af"]);
    assert!(pruned.contains("reclaimed space: 800kB"), "{pruned}");
    assert_eq!(of_cache(), "0,0B,0B");
}

#[test]
fn arguments_are_seen_where_they_are_declared() {
    let engine = Engine::start();
    let dockerfile = "ARG T=latest\nARG G=global\nFROM busybox:${T} AS a\nARG G\nARG A=${G}-a\nENV \
                      E=${A:+set}\nRUN echo \"$G $A $E $B\" > /a\nFROM busybox\nARG B=b\nCOPY \
                      --from=a /a /\nRUN echo \"$G$A$B\" >> /a; echo $TARGETARCH >> /a\nARG \
                      TARGETARCH\nRUN test -n $TARGETARCH\n";
    let said = built(&engine, dockerfile, &["--build-arg", "B=given", "--build-arg", "Z=1"]);
    assert!(said.contains("[Warning] One or more build-args [Z] were not consumed"), "{said}");
    assert_eq!(run(&engine, "cat /a"), "global global-a set \ngiven");
}

#[test]
fn here_documents_are_commands_and_files() {
    let engine = Engine::start();
    let dockerfile = "FROM busybox\nENV N=v\nRUN <<EOF\necho one > /one\necho $N >> /one\nEOF\nRUN \
                      cat <<A > /two && cat <<'B' >> /two\n$N\nA\n$N\nB\nCOPY <<x <<-'y' /d/\nx \
                      \"$N\"\nx\n\ty $N\ny\nRUN <<EOF\n#!/bin/sh\necho $0 > /three\nEOF\n";
    built(&engine, dockerfile, &[]);
    let said = run(&engine, "cat /one /two /d/x /d/y /three");
    assert_eq!(said, "one\nv\nv\n$N\nx \"v\"\ny $N\n/dev/pipes/EOF");
}

#[test]
fn triggers_run_in_the_image_that_is_built_on_theirs() {
    let engine = Engine::start();
    built(&engine, "FROM busybox\nONBUILD RUN echo triggered > /t\nONBUILD ENV O=1", &[]);
    engine.ok(&["tag", "built", "parent"]);
    let said = built(&engine, "FROM parent\nRUN echo $O >> /t\n", &[]);
    assert!(said.contains("# Executing 2 build triggers\n"), "{said}");
    assert_eq!(run(&engine, "cat /t"), "triggered\n1");
    assert_eq!(engine.ok(&["inspect", "-f", "{{.Config.OnBuild}}", "built"]), "[]");
}

#[test]
fn files_are_copied_as_docker_copies_them() {
    let engine = Engine::start();
    let dockerfile = "FROM busybox\nRUN mkdir -m 777 /ex && chown 5:5 /ex && ln -s /ex /lx && \
                      mkdir /over && touch /over/x\nCOPY dir /n1\nCOPY dir /ex\nCOPY a.txt \
                      /lx\nCOPY --chown=nobody:nogroup dir /n2/deep\nCOPY link /n4\nCOPY *.txt \
                      /glob/\nCOPY --parents dir/./b.txt dir/sub /par/\nCOPY --exclude=sub dir \
                      /but\nCOPY d2 /over\n";
    let files = [
        ("Dockerfile", dockerfile),
        (".dockerignore", "secret\n*.log\n!keep.log\n"),
        ("a.txt", "a"),
        ("secret", "s"),
        ("dir/b.txt", "b"),
        ("dir/sub/c", "c"),
        ("d2/x/y", "y"),
    ];
    let dir = context(&engine, "copies", &files);
    std::os::unix::fs::symlink("a.txt", dir.join("link")).unwrap();
    let said = build(&engine, &dir, &["-t", "built"]);
    assert_eq!(said.code, 0, "{said:?}");
    let script = "stat -c '%n %u:%g:%a' /n1 /ex /ex/b.txt /n2 /n2/deep /n2/deep/sub; cat /ex/a.txt \
                  /n4 /over/x/y; ls /glob /but; find /par | sort";
    assert_eq!(
        run(&engine, script),
        "/n1 0:0:755\n/ex 5:5:777\n/ex/b.txt 0:0:644\n/n2 0:0:755\n/n2/deep 65534:65534:755\n\
         /n2/deep/sub 65534:65534:755\naay/but:\nb.txt\n\n/glob:\na.txt\n/par\n/par/b.txt\n\
         /par/dir\n/par/dir/sub\n/par/dir/sub/c"
    );
    assert!(
        refused(&engine, "FROM busybox\nCOPY secret /\n").contains("excluded by .dockerignore")
    );
}

#[test]
fn what_cannot_be_built_is_said_in_dockers_words_and_leaves_nothing() {
    let engine = Engine::start();
    for (dockerfile, expected) in [
        ("FROM busybox\nRUN exit 3", "The command '/bin/sh -c exit 3' returned a non-zero code: 3"),
        (
            "FROM busybox\nCOPY nope /",
            "COPY failed: file not found in build context or excluded by .dockerignore: stat nope: file does not exist",
        ),
        (
            "FROM busybox\nCOPY ../x /",
            "COPY failed: forbidden path outside the build context: ../x ()",
        ),
        (
            "FROM busybox\nCOPY Docker* Docker* /y",
            "When using COPY with more than one source file, the destination must be a directory and end with a /",
        ),
        ("FROM busybox\nCOPY x* /y/", "COPY failed: no source files were specified"),
        (
            "FROM busybox\nCOPY --from=busybox /nope /",
            "COPY failed: stat nope: file does not exist",
        ),
        (
            "FROM busybox\nCOPY --from=0 /x /",
            "invalid from flag value 0: refers to current build stage",
        ),
        (
            "FROM busybox\nCOPY --chown=ghost Dockerfile /",
            "unable to convert uid/gid chown string to host mapping: can't find uid for user ghost: no such user: ghost",
        ),
        (
            "FROM busybox\nFOO",
            "dockerfile parse error on line 2: unknown instruction: FOO (did you mean FROM?)",
        ),
        (
            "FROM busybox\nENV A=${x:#a}",
            "failed to process \"${x:#a}\": unsupported modifier (:#) in substitution",
        ),
        ("FROM busybox\nSTOPSIGNAL FOO", "invalid signal: FOO"),
        ("FROM busybox\nEXPOSE abc", "Invalid containerPort: abc"),
        (
            "FROM busybox\nUSER ghost\nRUN true",
            "unable to find user ghost: no matching entries in passwd file",
        ),
        ("FROM busybox\nWORKDIR /bin/busybox", "Cannot mkdir: /bin/busybox is not a directory"),
        ("FROM busybox\nRUN --mount=type=cache,target=/x true", "requires BuildKit"),
        ("FROM scratch", "No image was generated. Is your Dockerfile empty?"),
        ("# nothing", "failed to parse Dockerfile: file with no instructions"),
    ] {
        let said = refused(&engine, dockerfile);
        assert!(said.contains(expected), "{dockerfile:?} said {said:?}");
    }
    assert_eq!(engine.ok(&["ps", "-aq"]), "");
    assert_eq!(engine.ok(&["images", "-q"]).lines().count(), 1);
    let traces = engine.traces();
    assert_eq!(traces, [""; 0], "left behind");
    let (status, said) = engine.api("POST", "/build?version=2", "");
    assert_eq!(status, 501, "{said}");
    let (status, said) = engine.api("POST", "/build?squash=1", "");
    assert_eq!((status, said.contains("squash is only supported")), (400, true), "{said}");
    let (status, said) = engine.api("POST", "/build", "this is no tar archive");
    assert_eq!(status, 400, "{said}");
}

#[test]
fn a_context_can_name_nothing_outside_of_itself() {
    let engine = Engine::start();
    fs::write(engine.dir.join("hostfile"), "host").unwrap();
    let outside = engine.dir.join("hostfile");
    let dir = context(
        &engine,
        "hostile",
        &[("Dockerfile", "FROM busybox\nCOPY d /d\nCOPY up/f /x\n"), ("d/x", "")],
    );
    std::os::unix::fs::symlink(&outside, dir.join("d/abs")).unwrap();
    std::os::unix::fs::symlink("../../../../../../..", dir.join("up")).unwrap();
    let said = build(&engine, &dir, &[]);
    assert!(said.err.contains("stat up/f: file does not exist"), "{said:?}");
    fs::write(dir.join("Dockerfile"), "FROM busybox\nCOPY d/abs /x\n").unwrap();
    let said = build(&engine, &dir, &[]);
    assert!(said.err.contains("file does not exist"), "{said:?}");
    // Links in the image lead nowhere but in the image.
    built(&engine, "FROM busybox\nRUN ln -s /../../../../tmp /l && ln -s /etc /e\n", &[]);
    engine.ok(&["tag", "built", "links"]);
    built(&engine, "FROM links\nCOPY Dockerfile /l/inside\nCOPY Dockerfile /e/new\n", &[]);
    assert_eq!(run(&engine, "ls /tmp/inside /etc/new"), "/etc/new\n/tmp/inside");
    assert!(!Path::new("/tmp/inside").exists());
}

#[test]
fn a_client_that_leaves_ends_its_build_and_nothing_is_left_of_it() {
    let engine = Engine::start();
    let dir = context(
        &engine,
        "long",
        &[("Dockerfile", "FROM busybox\nRUN echo first > /f\nRUN echo begun; sleep 1000\n")],
    );
    let mut child = engine
        .docker(&["build", "-t", "built", dir.to_str().unwrap()])
        .env("DOCKER_BUILDKIT", "0")
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_for("the command to run", || engine.ok(&["ps", "-q"]).lines().count() == 1);
    child.kill().unwrap();
    child.wait().unwrap();
    wait_for("its container to go", || engine.ok(&["ps", "-aq"]).is_empty());
    wait_for("its files to go", || engine.traces().is_empty());
    engine.fails(1, &["inspect", "built"]);
}

#[test]
fn a_build_that_a_crash_has_cut_off_leaves_no_container() {
    let mut engine = Engine::start();
    let dockerfile = "FROM busybox\nRUN --network=none sleep 1000\n";
    let dir = context(&engine, "cut", &[("Dockerfile", dockerfile)]);
    let mut child = engine
        .docker(&["build", "--network", "none", dir.to_str().unwrap()])
        .env("DOCKER_BUILDKIT", "0")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_for("the command to run", || engine.ok(&["ps", "-q"]).lines().count() == 1);
    engine.crash_and_restart();
    child.wait().unwrap();
    wait_for("its container to go", || engine.ok(&["ps", "-aq"]).is_empty());
}

#[test]
fn a_failed_command_leaves_its_container_to_be_looked_at_unless_told_otherwise() {
    let engine = Engine::start();
    let dir = context(&engine, "c", &[("Dockerfile", "FROM busybox\nRUN echo x > /x; exit 4\n")]);
    let said = build(&engine, &dir, &[]);
    assert_eq!(said.code, 4, "{said:?}");
    let left = engine.ok(&["ps", "-aq"]);
    engine.ok(&["commit", &left, "built"]);
    assert_eq!(run(&engine, "cat /x"), "x");
    engine.ok(&["rm", &left]);
    build(&engine, &dir, &["--force-rm"]);
    assert_eq!(engine.ok(&["ps", "-aq"]), "");
    let kept = built(&engine, "FROM busybox\nRUN echo y > /y\n", &["--rm=false"]);
    assert!(!kept.contains("Removed intermediate"), "{kept}");
    assert_eq!(engine.ok(&["ps", "-aq"]).lines().count(), 1);
    assert_eq!(run(&engine, "cat /y"), "y");
}

#[test]
fn a_tenants_build_has_the_tenants_images_and_limits() {
    let engine = Engine::start();
    assert_eq!(engine.tritium(&["tenant", "create", "team"]).code, 0);
    let socket = engine.dir.join("run/tenants/team.sock");
    wait_for("the tenant's socket", || socket.exists());
    let dir = context(&engine, "t", &[("Dockerfile", "FROM busybox\nRUN true\n")]);
    let of = |options: &[&str]| -> Said {
        let mut arguments = vec!["build"];
        arguments.extend(options);
        arguments.push(dir.to_str().unwrap());
        let mut docker = engine.docker_at(&socket, &arguments);
        docker.env("DOCKER_BUILDKIT", "0").output().unwrap().into()
    };
    // Another tenant's image is not there: it is looked for in a registry.
    assert!(!of(&[]).out.contains("Step 2/2 : RUN true"));
    let sample = std::env::var("TRITIUM_SAMPLE")
        .unwrap_or_else(|_| format!("{}/../target/sample.tar", env!("CARGO_MANIFEST_DIR")));
    let imported = engine.docker_at(&socket, &["import", &sample, "busybox"]).output().unwrap();
    assert!(imported.status.success());
    assert_eq!(of(&["-t", "mine"]).code, 0);
    assert!(of(&["--network", "host"]).err.contains("tenant team may not use --network host"));
    fs::write(dir.join("Dockerfile"), "FROM busybox\nRUN --network=host true\n").unwrap();
    assert!(of(&[]).err.contains("tenant team may not use --network host"));
    fs::write(dir.join("Dockerfile"), "FROM busybox\nADD http://127.0.0.1:1/x /\n").unwrap();
    let said = of(&[]);
    assert!(said.err.contains("a tenant's build may not fetch from 127.0.0.1"), "{said:?}");
    // Nor may its whole context come from there.
    let mut stream = UnixStream::connect(&socket).unwrap();
    let head = "POST /build?remote=http://127.0.0.1:1/x HTTP/1.1\r\nHost: d\r\nConnection: \
                close\r\nContent-Length: 0\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("a tenant's build may not fetch from 127.0.0.1"), "{answer}");
    engine.fails(1, &["inspect", "mine"]);
}

#[test]
fn a_container_is_committed_with_what_it_has_changed() {
    let engine = Engine::start();
    let script = "echo new > /new; rm /etc/group; mkdir -m 700 /d; sleep 1000";
    engine.ok(&["run", "-d", "--name", "cc", "-e", "A=1", "busybox", "sh", "-c", script]);
    wait_for("its files", || engine.said(&["exec", "cc", "ls", "/d"]).code == 0);
    let changes = ["-c", "CMD [\"cat\", \"/new\"]", "-c", "ENV B=2"];
    let id = engine
        .ok(&[&["commit", "-a", "me", "-m", "note"], &changes[..], &["cc", "com:1"]].concat());
    assert_eq!(engine.ok(&["inspect", "-f", "{{.State.Status}}", "cc"]), "running");
    assert_eq!(
        engine.ok(&["inspect", "-f", "{{.Id}} {{.Author}} {{.Comment}}", "com:1"]),
        format!("{id} me note")
    );
    assert_eq!(engine.ok(&["run", "--rm", "com:1"]), "new");
    let look = "ls /etc; stat -c %a /d; echo $A$B";
    assert_eq!(
        engine.ok(&["run", "--rm", "com:1", "sh", "-c", look]),
        "hostname\nhosts\npasswd\nresolv.conf\n700\n12"
    );
    engine.ok(&["rm", "-f", "cc"]);
    // Nothing has changed: no layer.
    engine.ok(&["create", "--name", "cc", "com:1"]);
    engine.ok(&["commit", "cc", "same"]);
    let layers = |image: &str| engine.ok(&["inspect", "-f", "{{len .RootFS.Layers}}", image]);
    assert_eq!((layers("com:1"), layers("same")), ("2".to_owned(), "2".to_owned()));
    let error = engine.fails(1, &["commit", "nope"]);
    assert!(error.contains("No such container: nope"), "{error}");
    let error = engine.fails(1, &["commit", "-c", "RUN x", "cc"]);
    assert!(error.contains("run is not a valid change command"), "{error}");
    let (status, _) = engine.api("POST", "/commit", "");
    assert_eq!(status, 400);
}

#[test]
fn a_web_servers_file_is_added_with_its_name_and_time() {
    let engine = Engine::start();
    // A server in the engine's own network namespace.
    let web = context(&engine, "www", &[("file.txt", "web")]);
    let touch = std::process::Command::new("touch")
        .args(["-d", "2001-01-01 00:00:00 UTC"])
        .arg(web.join("file.txt"))
        .status();
    assert!(touch.unwrap().success());
    let mut server = std::process::Command::new("nsenter")
        .arg(format!("--net=/proc/{}/ns/net", engine.pid()))
        .args(["busybox", "httpd", "-f", "-p", "127.0.0.1:8080", "-h"])
        .arg(&web)
        .spawn()
        .unwrap();
    wait_for("the server", || {
        engine.on_host(&["sh", "-c", "grep -q ':1F90 ' /proc/net/tcp"]).code == 0
    });
    let dir = context(
        &engine,
        "web",
        &[("Dockerfile", "FROM busybox\nADD http://127.0.0.1:8080/file.txt /w/\n")],
    );
    let said = build(&engine, &dir, &["-t", "built"]);
    // The whole context from there, without the CLI, which would fetch it itself.
    let remote = |name: &str| {
        let path = format!("/build?q=1&remote=http://127.0.0.1:8080/{name}&dockerfile=x");
        engine.api("POST", &path, "").1
    };
    fs::write(web.join("lone"), "FROM busybox\nLABEL lone=1\n").unwrap();
    assert!(remote("lone").contains("{\"stream\":\"sha256:"), "{}", remote("lone"));
    fs::write(web.join("x"), "FROM busybox\nCOPY file.txt /\n").unwrap();
    let mut tar = std::process::Command::new("tar");
    tar.arg("-C").arg(&web).arg("-czf").arg(web.join("all.tgz")).args(["x", "file.txt"]);
    assert!(tar.status().unwrap().success());
    assert!(remote("all.tgz").contains("{\"stream\":\"sha256:"), "{}", remote("all.tgz"));
    assert!(remote("nothing").contains("failed to GET http://127.0.0.1:8080/nothing"));
    fs::write(web.join("noise"), [0xff; 600]).unwrap();
    assert!(remote("noise").contains("unable to detect type"), "{}", remote("noise"));
    server.kill().unwrap();
    server.wait().unwrap();
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(run(&engine, "cat /w/file.txt; stat -c ' %a %Y' /w/file.txt"), "web 600 978307200");
}

#[test]
fn a_quiet_build_says_only_the_images_id() {
    let engine = Engine::start();
    let dir = context(&engine, "q", &[("Dockerfile", "FROM busybox\nRUN echo x\n")]);
    let said = build(&engine, &dir, &["-q", "-t", "built"]);
    assert_eq!(said.out.trim(), engine.ok(&["inspect", "-f", "{{.Id}}", "built"]));
    // A context may also come without the CLI, in pieces, with its end unknown.
    let mut archive = Vec::new();
    let mut tar = std::process::Command::new("tar")
        .args(["-C", dir.to_str().unwrap(), "-cf", "-", "."])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    tar.stdout.take().unwrap().read_to_end(&mut archive).unwrap();
    tar.wait().unwrap();
    let mut stream = UnixStream::connect(engine.socket()).unwrap();
    let head = "POST /v1.24/build?q=1 HTTP/1.1\r\nHost: d\r\nConnection: close\r\nTransfer-Encoding: \
                chunked\r\nContent-Type: application/x-tar\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    for piece in archive.chunks(700) {
        write!(stream, "{:x}\r\n", piece.len()).unwrap();
        stream.write_all(piece).unwrap();
        stream.write_all(b"\r\n").unwrap();
    }
    stream.write_all(b"0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("{\"stream\":\"sha256:"), "{answer}");
}
