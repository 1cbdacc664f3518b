//! What makes no sense is refused in Docker's words, and leaves nothing.

use crate::engine::Engine;

#[test]
fn malformed_requests_get_docker_shaped_errors() {
    let engine = Engine::start();
    let create = "/v1.51/containers/create";
    let cases = [
        ("POST", create, "{", 400),
        ("POST", create, "[]", 400),
        ("POST", create, r#"{"Image":7}"#, 400),
        ("POST", create, r#"{"Image":"busybox"} trailing"#, 400),
        ("POST", create, r#"{"Image":"nope"}"#, 404),
        ("POST", create, r#"{"Image":"UPPER/case"}"#, 404),
        ("POST", create, r#"{"Image":"busybox","HostConfig":{"PortBindings":{"x":null}}}"#, 400),
        ("POST", create, r#"{"Image":"busybox","HostConfig":{"Memory":5}}"#, 400),
        ("POST", create, r#"{"Image":"busybox","HostConfig":{"RestartPolicy":{"Name":"x"}}}"#, 400),
        ("POST", create, r#"{"Image":"busybox","HostConfig":{"Binds":["/a:/b:/c:/d"]}}"#, 400),
        ("POST", create, r#"{"Image":"busybox","HostConfig":{"CapAdd":["x"]}}"#, 400),
        ("POST", "/v1.51/containers/create?name=a/b", r#"{"Image":"busybox"}"#, 400),
        ("GET", "/v1.51/containers/json?filters={", "", 400),
        ("GET", "/v1.51/containers/nobody/json", "", 404),
        ("POST", "/v1.51/containers/nobody/start", "", 404),
        ("POST", "/v1.51/exec/nobody/start", "{}", 404),
        ("GET", "/v1.23/version", "", 400),
        ("GET", "/v1.99/version", "", 400),
        ("GET", "/v1.51/nonsense", "", 404),
        ("POST", "/v1.51/containers/nobody/wait?condition=never", "", 400),
    ];
    for (method, path, body, status) in cases {
        let (got, answer) = engine.api(method, path, body);
        assert_eq!(got, status, "{method} {path} {body}: {answer}");
        // Of the version itself Docker complains in plain text.
        let shaped = answer.contains("{\"message\":\"") || answer.contains("client version");
        assert!(shaped, "{method} {path} {body}: {answer}");
    }
    assert_eq!(engine.ok(&["ps", "-aq"]), "");
}

#[test]
fn what_is_not_built_says_so() {
    let engine = Engine::bare(&[]);
    for (method, path) in [
        ("POST", "/v1.51/session"),
        ("POST", "/v1.51/grpc"),
        ("POST", "/v1.51/build?version=2"),
        ("POST", "/v1.51/swarm/init"),
        ("GET", "/v1.51/containers/x/checkpoints"),
    ] {
        let (status, answer) = engine.api(method, path, "{}");
        assert_eq!(status, 501, "{method} {path}: {answer}");
        assert!(answer.contains("\"message\""), "{answer}");
    }
    assert_eq!(engine.api("GET", "/v1.51/swarm", "").0, 503);
}

#[test]
fn a_mount_cannot_leave_the_container_by_a_link() {
    let engine = Engine::start();
    let host = engine.dir.join("host");
    std::fs::create_dir(&host).unwrap();
    // The image's own /escape points to the host's /etc.
    let context = engine.dir.join("evil.tar");
    let script = format!(
        "mkdir {0} && ln -s ../../../../etc {0}/escape && cp /bin/busybox {0}/sh && tar -C {0} -cf {1} .",
        engine.dir.join("evil").display(),
        context.display()
    );
    assert!(std::process::Command::new("sh").args(["-c", &script]).status().unwrap().success());
    engine.ok(&["import", context.to_str().unwrap(), "evil"]);
    let bind = format!("{}:/escape/tritium-test", host.display());
    engine.said(&["run", "--rm", "-v", &bind, "--entrypoint", "/sh", "evil", "true"]);
    assert!(!std::path::Path::new("/etc/tritium-test").exists());
}

#[test]
fn evil_images_are_refused_and_leave_nothing() {
    let engine = Engine::bare(&[]);
    let evil = |name: &str, python: &str| {
        let path = engine.dir.join(name);
        let program = format!(
            "import tarfile,io,sys\nt=tarfile.open(sys.argv[1],'w')\n\
             def add(name,kind=tarfile.REGTYPE,link='',data=b''):\n \
             i=tarfile.TarInfo(name); i.type=kind; i.linkname=link; i.size=len(data); t.addfile(i,io.BytesIO(data))\n{python}\nt.close()"
        );
        let status =
            std::process::Command::new("python3").args(["-c", &program]).arg(&path).status();
        assert!(status.unwrap().success());
        path.to_str().unwrap().to_owned()
    };
    for (name, python) in [
        ("dotdot.tar", "add('../../tritium-evil',data=b'x')"),
        ("linked.tar", "add('d',tarfile.SYMTYPE,'/tmp'); add('d/tritium-evil',data=b'x')"),
        ("hard.tar", "add('h',tarfile.LNKTYPE,'../../../../etc/passwd')"),
    ] {
        let tar = evil(name, python);
        let said = engine.said(&["import", &tar, "evil"]);
        let inside_only = said.code == 0;
        assert!(!std::path::Path::new("/tmp/tritium-evil").exists(), "{name}");
        // A link that stays below the root may be taken; one that leaves is refused.
        assert!(!inside_only || name == "linked.tar", "{name}: {said:?}");
    }
    let whole = evil("whole.tar", "add('f',data=b'x'*100000)");
    let cut = engine.dir.join("cut.tar");
    let bytes = std::fs::read(&whole).unwrap();
    std::fs::write(&cut, &bytes[..50_000]).unwrap();
    engine.fails(1, &["import", cut.to_str().unwrap(), "evil"]);
    engine.fails(1, &["load", "-i", cut.to_str().unwrap()]);
    let before = engine.ok(&["images", "-q"]).lines().count();
    assert!(before <= 1);
}
