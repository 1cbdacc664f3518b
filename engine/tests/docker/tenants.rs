//! Two tenants on one host: each sees a Docker host of its own.

use crate::engine::{Engine, wait_for};
use std::path::{Path, PathBuf};

pub(crate) fn with_tenant(name: &str, pool: &str) -> (Engine, PathBuf) {
    let engine = Engine::with(&["--address-pool", pool]);
    let said = engine.tritium(&["tenant", "create", name]);
    assert_eq!(said.code, 0, "{said:?}");
    let socket = engine.dir.join(format!("run/tenants/{name}.sock"));
    wait_for("the tenant's socket", || socket.exists());
    (engine, socket)
}

pub(crate) fn at(engine: &Engine, socket: &Path, arguments: &[&str]) -> crate::engine::Said {
    engine.docker_at(socket, arguments).output().unwrap().into()
}

/// An image with a busybox.
pub(crate) fn sample_tar() -> String {
    std::env::var("TRITIUM_SAMPLE")
        .unwrap_or_else(|_| concat!(env!("CARGO_MANIFEST_DIR"), "/../target/sample.tar").into())
}

pub(crate) fn sample(engine: &Engine, socket: &Path) {
    let said = at(engine, socket, &["import", "-c", "CMD [\"sh\"]", &sample_tar(), "busybox"]);
    assert_eq!(said.code, 0, "{said:?}");
}

#[test]
fn a_tenant_sees_neither_the_others_containers_nor_its_images() {
    let (engine, socket) = with_tenant("team", "10.204.0.0/16");
    engine.ok(&["run", "-d", "--name", "web", "busybox", "sleep", "1000"]);
    let id = engine.ok(&["inspect", "-f", "{{.Id}}", "web"]);
    assert_eq!(at(&engine, &socket, &["ps", "-aq"]).out, "");
    assert_eq!(at(&engine, &socket, &["images", "-q"]).out, "");
    for reference in ["web", id.as_str(), &id[..12]] {
        for verb in ["inspect", "logs", "stop", "rm", "start", "kill", "top"] {
            let said = at(&engine, &socket, &[verb, reference]);
            assert_ne!(said.code, 0, "{verb}");
            let text = said.err.to_lowercase();
            assert!(text.contains("no such"), "{verb}: {said:?}");
        }
        for verb in ["diff", "export"] {
            let said = at(&engine, &socket, &[verb, reference]);
            assert!(said.err.contains("No such container"), "{said:?}");
        }
        let said = at(&engine, &socket, &["cp", &format!("{reference}:/etc/passwd"), "-"]);
        assert!(said.err.contains("No such container"), "{said:?}");
        let said = at(&engine, &socket, &["exec", reference, "true"]);
        assert!(said.err.contains("No such container"), "{said:?}");
    }
    sample(&engine, &socket);
    // The same name is free for every tenant.
    assert_eq!(
        at(&engine, &socket, &["run", "-d", "--name", "web", "busybox", "sleep", "1000"]).code,
        0
    );
    assert_eq!(engine.ok(&["ps", "-q"]).lines().count(), 1);
    assert_eq!(at(&engine, &socket, &["rm", "-f", "web"]).code, 0);
    assert_eq!(engine.ok(&["ps", "-q"]).lines().count(), 1);
}

#[test]
fn a_tenant_cannot_reach_out_of_its_containers() {
    let (engine, socket) = with_tenant("team", "10.205.0.0/16");
    sample(&engine, &socket);
    for option in [
        ["--privileged", "--rm"],
        ["--network=host", "--rm"],
        ["--pid=host", "--rm"],
        ["--cap-add=SYS_ADMIN", "--rm"],
        ["-v=/:/host", "--rm"],
        ["--device=/dev/null", "--rm"],
        ["--security-opt=seccomp=unconfined", "--rm"],
    ] {
        let said = at(&engine, &socket, &["run", option[0], option[1], "busybox", "true"]);
        assert_eq!(said.code, 125, "{option:?} {said:?}");
        assert!(said.err.contains("tenant team may not use"), "{option:?} {said:?}");
    }
    let said = at(&engine, &socket, &["run", "--rm", "busybox", "echo", "ok"]);
    assert_eq!(said.out, "ok\n", "{said:?}");
    at(&engine, &socket, &["run", "-d", "--name", "mine", "busybox", "sleep", "1000"]);
    let said = at(&engine, &socket, &["exec", "--privileged", "mine", "true"]);
    assert!(said.err.contains("tenant team may not use exec --privileged"), "{said:?}");
    at(&engine, &socket, &["rm", "-f", "mine"]);
}

#[test]
fn the_guard_keeps_tenants_apart_on_every_local_address() {
    let (engine, socket) = with_tenant("team", "10.206.0.0/16");
    sample(&engine, &socket);
    let serve = "while :; do echo pong | nc -l -p 80; done";
    engine.ok(&["run", "-d", "--name", "aa", "busybox", "sh", "-c", serve]);
    let address = engine.ok(&["inspect", "-f", "{{.NetworkSettings.IPAddress}}", "aa"]);
    let ask = ["nc", "-w", "2", address.as_str(), "80"];
    wait_for("an answer to its own tenant", || {
        engine.said(&[&["run", "--rm", "busybox"], &ask[..]].concat()).out == "pong\n"
    });
    let said =
        at(&engine, &socket, &[&["run", "--rm", "--name", "probe", "busybox"], &ask[..]].concat());
    assert_ne!(said.code, 0, "{said:?}");
    assert_eq!(said.out, "", "{said:?}");
    let denials = engine.tritium(&["denials"]);
    assert!(denials.out.contains("team") && denials.out.contains("connect"), "{denials:?}");
}

#[test]
fn tenants_use_the_same_names_of_networks_and_share_no_path() {
    let (engine, socket) = with_tenant("team", "10.208.0.0/16");
    sample(&engine, &socket);
    let id = engine.ok(&["network", "create", "--subnet", "10.6.0.0/24", "net"]);
    let own = at(&engine, &socket, &["network", "create", "net"]);
    assert_eq!(own.code, 0, "{own:?}");
    for reference in [&id, &id[..12]] {
        for verb in ["inspect", "rm"] {
            let said = at(&engine, &socket, &["network", verb, reference]);
            assert!(said.err.contains(&format!("network {reference} not found")), "{said:?}");
        }
    }
    let said = at(&engine, &socket, &["network", "create", "--subnet", "8.8.8.0/24", "more"]);
    assert_ne!(said.code, 0, "{said:?}");
    let name = ["-o", "com.docker.network.bridge.name=br0"];
    let said = at(&engine, &socket, &[&["network", "create"], &name[..], &["more"]].concat());
    assert!(said.err.contains("tenant team may not use"), "{said:?}");
    let serve = "while :; do echo pong | nc -l -p 80; done";
    let published = ["-p", "8080:80", "--network", "net", "--name", "aa"];
    engine.ok(&[&["run", "-d"], &published[..], &["busybox", "sh", "-c", serve]].concat());
    let ask = |host: &str, port: &str| {
        let run = ["run", "--rm", "--network", "net", "busybox", "nc", "-w", "2", host, port];
        at(&engine, &socket, &run).out
    };
    assert_eq!(ask("10.6.0.2", "80"), "");
    assert_eq!(ask("10.6.0.1", "8080"), "");
    // What is published is everybody's, by any address of the asker's own.
    let subnet = "{{(index .IPAM.Config 0).Gateway}}";
    let said = at(&engine, &socket, &["network", "inspect", "-f", subnet, "net"]);
    let gateway = said.out.trim().to_owned();
    wait_for("an answer on the published port", || ask(&gateway, "8080") == "pong\n");
    assert_ne!(engine.tritium(&["tenant", "rm", "team"]).code, 0);
    assert_eq!(at(&engine, &socket, &["network", "rm", "net"]).code, 0);
}

#[test]
fn raw_sockets_devices_and_sysctls_are_refused_unless_asked_for() {
    let engine = Engine::start();
    let raw = |options: &[&str]| {
        let mut arguments = vec!["run", "--rm", "--network", "none"];
        arguments.extend(options);
        // busybox arping opens a packet socket.
        arguments.extend(["busybox", "arping", "-c", "1", "-I", "lo", "127.0.0.1"]);
        engine.said(&arguments)
    };
    assert!(raw(&[]).err.contains("Operation not permitted"), "{:?}", raw(&[]));
    assert!(!raw(&["--cap-add", "NET_RAW"]).err.contains("Operation not permitted"));
    let node = "mknod /x b 7 0 && dd if=/x of=/dev/null count=1";
    let said = engine.said(&["run", "--rm", "busybox", "sh", "-c", node]);
    assert!(said.err.contains("Operation not permitted"), "{said:?}");
    engine.ok(&["run", "--rm", "busybox", "dd", "if=/dev/zero", "of=/dev/null", "count=1"]);
}

#[test]
fn security_options_name_what_is_in_force() {
    let engine = Engine::start();
    let options = engine.ok(&["info", "-f", "{{json .SecurityOptions}}"]);
    assert!(options.contains("name=seccomp,profile=builtin"), "{options}");
    assert!(options.contains("tritium"), "{options}");
}

#[test]
fn tenants_are_listed_removed_and_nobody_elses_business() {
    let (engine, socket) = with_tenant("team", "10.207.0.0/16");
    assert!(engine.tritium(&["tenant", "ls"]).out.contains("team"));
    assert_ne!(engine.tritium(&["tenant", "create", "team"]).code, 0);
    assert_ne!(engine.tritium(&["tenant", "create", "../evil"]).code, 0);
    sample(&engine, &socket);
    assert_eq!(at(&engine, &socket, &["create", "--name", "xx", "busybox"]).code, 0);
    assert_ne!(engine.tritium(&["tenant", "rm", "team"]).code, 0);
    assert_eq!(at(&engine, &socket, &["rm", "xx"]).code, 0);
    assert_ne!(engine.tritium(&["tenant", "rm", "team"]).code, 0);
    assert_eq!(at(&engine, &socket, &["rmi", "busybox"]).code, 0);
    assert_eq!(engine.tritium(&["tenant", "rm", "team"]).code, 0);
    wait_for("the socket to go", || !socket.exists());
}

#[test]
fn the_docker_socket_in_a_container_is_that_of_whoever_asked() {
    use std::os::unix::fs::MetadataExt;
    let (engine, socket) = with_tenant("team", "10.208.0.0/16");
    sample(&engine, &socket);
    let look = ["busybox", "stat", "-c", "%F %i", "/var/run/docker.sock"];
    let mount = ["run", "--rm", "-v", "/var/run/docker.sock:/var/run/docker.sock"];
    for host in [engine.socket(), socket.clone()] {
        let inode = std::fs::metadata(&host).unwrap().ino();
        let said = at(&engine, &host, &[&mount[..], &look].concat());
        assert_eq!(said.out, format!("socket {inode}\n"), "{said:?}");
    }
    for bind in ["/run/tritium:/x", "/var/run/docker.sock:/x:rshared", "/var/run:/x"] {
        let said = at(&engine, &socket, &["run", "--rm", "-v", bind, "busybox", "true"]);
        assert!(said.err.contains("tenant team may not use"), "{bind}: {said:?}");
    }
}

#[test]
fn a_tenants_volumes_are_its_own_and_nothing_of_the_hosts() {
    let (engine, socket) = with_tenant("team", "10.209.0.0/16");
    sample(&engine, &socket);
    engine.ok(&["run", "--rm", "-v", "data:/x", "busybox", "touch", "/x/operators"]);
    let run = |arguments: &[&str]| at(&engine, &socket, arguments);
    let said = run(&["volume", "inspect", "data"]);
    assert!(said.err.contains("get data: no such volume"), "{said:?}");
    assert_eq!(run(&["run", "--rm", "-v", "data:/x", "busybox", "ls", "/x"]).out, "");
    assert_eq!(run(&["volume", "ls", "-q"]).out, "data\n");
    assert_eq!(engine.ok(&["run", "--rm", "-v", "data:/x", "busybox", "ls", "/x"]), "operators");
    for options in [
        "type=none,volume-opt=o=bind,volume-opt=device=/",
        "type=ext4,volume-opt=device=/dev/vda",
        "type=nfs,volume-opt=o=addr=127.0.0.1,volume-opt=device=:/",
        "type=tmpfs,volume-opt=o=bind,volume-opt=device=/",
    ] {
        let mount = format!("type=volume,src=evil,dst=/x,\"volume-opt={options}\"");
        let mount = mount.replace('"', "");
        let said = run(&["run", "--rm", "--mount", &mount, "busybox", "ls", "/x"]);
        assert!(said.err.contains("tenant team may not use a volume"), "{options}: {said:?}");
    }
    let said =
        run(&["volume", "create", "-o", "type=none", "-o", "o=bind", "-o", "device=/", "vv"]);
    assert!(said.err.contains("tenant team may not use a volume"), "{said:?}");
    // Whether a file of the host exists is not told either.
    for source in ["/etc/passwd", "/nonexistent"] {
        let mount = format!("type=bind,src={source},dst=/x");
        let said = run(&["run", "--rm", "--mount", &mount, "busybox", "true"]);
        assert!(said.err.contains("tenant team may not use a bind mount"), "{said:?}");
    }
    assert_ne!(engine.tritium(&["tenant", "rm", "team"]).code, 0);
    assert_eq!(run(&["volume", "rm", "data"]).code, 0);
}
