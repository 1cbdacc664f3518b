//! Images that come and go: save and load, push, pull and login.

use crate::engine::{Engine, wait_for};
use std::{
    fs,
    io::Write,
    process::{Child, Command, Stdio},
};

/// Debian's registry in the engine's network namespace; `user` has the
/// password `word`.
struct Registry {
    process: Child,
    log: std::path::PathBuf,
}

impl Registry {
    const ADDRESS: &str = "127.0.0.1:5000";

    fn start(engine: &Engine) -> Self {
        let dir = engine.dir.join("registry");
        fs::create_dir(&dir).unwrap();
        let config = format!(
            "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {0}/data\nhttp:\n  addr: {1}\n\
             auth:\n  htpasswd:\n    realm: here\n    path: {0}/passwords\n",
            dir.display(),
            Self::ADDRESS,
        );
        let hash = "$2b$04$/xTcwjIA8ZSjKzwBBRi56.qAnI92HmNRdLnO/DwH2tS9ZhLsE5hCq";
        fs::write(dir.join("passwords"), format!("user:{hash}\n")).unwrap();
        fs::write(dir.join("config.yml"), config).unwrap();
        let log = dir.join("log");
        let process = Command::new("nsenter")
            .arg(format!("--net=/proc/{}/ns/net", engine.pid()))
            .args(["docker-registry", "serve"])
            .arg(dir.join("config.yml"))
            .stdout(Stdio::null())
            .stderr(fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let registry = Self { process, log };
        wait_for("the registry to listen", || {
            fs::read_to_string(&registry.log).unwrap().contains("listening on")
        });
        registry
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

#[test]
fn an_image_that_was_saved_and_loaded_is_the_same_and_runs() {
    let engine = Engine::start();
    let id = engine.ok(&["image", "inspect", "-f", "{{.Id}}", "busybox"]);
    engine.ok(&["tag", "busybox", "team/box:2"]);
    let archive = engine.dir.join("saved.tar");
    let archive = archive.to_str().unwrap();
    engine.ok(&["save", "-o", archive, "busybox", "team/box:2"]);
    engine.ok(&["rmi", "busybox", "team/box:2"]);
    assert_eq!(engine.ok(&["images", "-q"]), "");
    let said = engine.ok(&["load", "-i", archive]);
    assert_eq!(said, "Loaded image: busybox:latest\nLoaded image: team/box:2");
    assert_eq!(engine.ok(&["image", "inspect", "-f", "{{.Id}}", "team/box:2"]), id);
    assert_eq!(engine.ok(&["run", "--rm", "busybox", "echo", "whole"]), "whole");
    // What comes through a pipe, by id, has no name.
    let nameless = engine.docker(&["save", &id]).output().unwrap().stdout;
    engine.ok(&["rmi", "busybox", "team/box:2"]);
    let said = engine.fed(&["load", "-q"], &nameless);
    assert_eq!(said.out, format!("Loaded image ID: {id}\n"), "{said:?}");
    let refused = engine.fails(1, &["save", "-o", archive, "nope"]);
    assert!(refused.contains("No such image: nope"), "{refused}");
}

#[test]
fn an_image_is_pushed_and_pulled_by_who_has_logged_in() {
    let engine = Engine::start();
    let registry = Registry::start(&engine);
    let name = format!("{}/team/box:1", Registry::ADDRESS);
    engine.ok(&["tag", "busybox", &name]);
    let refused = engine.fails(1, &["push", &name]);
    assert!(refused.contains("no basic auth credentials"), "{refused}");
    let login = |word: &str| {
        let login = ["login", "-u", "user", "--password-stdin", Registry::ADDRESS];
        engine.fed(&login, word.as_bytes())
    };
    let refused = login("wrong");
    assert!(refused.err.contains("401 Unauthorized"), "{refused:?}");
    assert!(login("word").out.contains("Login Succeeded"));
    let said = engine.ok(&["push", &name]);
    assert!(said.contains(": Pushed") && said.contains("1: digest: sha256:"), "{said}");
    let said = engine.ok(&["push", &name]);
    assert!(said.contains(": Layer already exists"), "{said}");
    let digest = engine.ok(&["image", "inspect", "-f", "{{index .RepoDigests 0}}", "busybox"]);
    let id = engine.ok(&["image", "inspect", "-f", "{{.Id}}", "busybox"]);
    engine.ok(&["rmi", "-f", &id]);
    assert_eq!(engine.ok(&["images", "-q"]), "");
    let said = engine.ok(&["pull", &digest]);
    assert!(said.contains("Status: Downloaded newer image"), "{said}");
    assert_eq!(engine.ok(&["run", "--rm", &digest, "echo", "back"]), "back");
    let said = engine.ok(&["pull", "-a", &format!("{}/team/box", Registry::ADDRESS)]);
    assert!(said.contains("Pulling from team/box"), "{said}");
    let (status, _) = engine.api("GET", &format!("/distribution/{name}/json"), "");
    assert_eq!(status, 401);
    engine.ok(&["logout", Registry::ADDRESS]);
    let refused = engine.fails(1, &["pull", &name]);
    let url = format!("http://{}/v2/team/box/manifests/1", Registry::ADDRESS);
    assert!(refused.contains(&format!("Head \"{url}\": no basic auth credentials")), "{refused}");
    drop(registry);
}

#[test]
fn a_tenant_may_not_ask_the_hosts_own_ports_by_way_of_a_registry() {
    let engine = Engine::start();
    let (status, _) = engine.api("POST", "/tritium/tenants", r#"{"name":"team"}"#);
    assert_eq!(status, 201);
    let socket = engine.dir.join("run/tenants/team.sock");
    wait_for("the tenant's socket", || socket.exists());
    let refused = |arguments: &[&str]| {
        let output = engine.docker_at(&socket, arguments).output().unwrap();
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    for arguments in [
        &["pull", "127.0.0.1:22/x"] as &[&str],
        &["pull", "localhost/x"],
        &["search", "127.0.0.1:80/x"],
        &["login", "-u", "a", "-p", "b", "localhost:1"],
    ] {
        let said = refused(arguments);
        assert!(said.contains("may not use a registry on the host"), "{arguments:?}: {said}");
    }
}

#[test]
fn damage_to_a_layer_is_found_and_a_damaged_layer_is_not_given_out() {
    let engine = Engine::start();
    let (status, whole) = engine.api("POST", "/tritium/fsck", "");
    assert_eq!(status, 200);
    assert!(whole.contains(r#""images":1"#) && whole.contains(r#""problems":[]"#), "{whole}");
    let layer = engine.dir.join("state/layers/1/etc/passwd");
    let mut file = fs::File::options().write(true).open(layer).unwrap();
    file.write_all(b"ROOT").unwrap();
    let (_, damaged) = engine.api("POST", "/tritium/fsck", "");
    assert!(damaged.contains("its files are not those that were unpacked"), "{damaged}");
    let archive = engine.dir.join("saved.tar");
    engine.fails(1, &["save", "-o", archive.to_str().unwrap(), "busybox"]);
}
