//! Two tenants whose networks have the same names, subnets and addresses.

use crate::{
    engine::{Engine, Said, wait_for},
    tenants::{at, sample},
};
use nix::sched::{CloneFlags, setns};
use std::{
    fs::File,
    io::{Read, Write},
    net::{TcpListener, UdpSocket},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

const TENANTS: [&str; 2] = ["red", "blue"];
/// The host's addresses, one for each tenant to publish on; and the world's.
const HOSTS: [&str; 2] = ["198.51.100.1", "198.51.100.3"];
const WORLD: &str = "198.51.100.2";

/// An engine with two tenants, and behind a cable a world.
struct Scene {
    sockets: [PathBuf; 2],
    world: Child,
    before: String,
    engine: Engine,
}

impl Scene {
    fn new(pool: &str) -> Self {
        let engine = Engine::with(&["--address-pool", pool]);
        let world = Command::new("unshare").args(["--net", "sleep", "1000"]).spawn().unwrap();
        let pid = world.id().to_string();
        let own = std::fs::read_link("/proc/self/ns/net").unwrap();
        let there = format!("/proc/{pid}/ns/net");
        wait_for("the world", || std::fs::read_link(&there).is_ok_and(|it| it != own));
        let lay = format!(
            "ip link add up0 type veth peer name out0 && ip link set out0 netns {pid} &&
             ip addr add {}/24 dev up0 && ip addr add {}/24 dev up0 && ip link set up0 up &&
             ip route add default via {WORLD} &&
             nsenter --net={there} sh -c 'ip addr add {WORLD}/24 dev out0 && ip link set out0 up'",
            HOSTS[0], HOSTS[1]
        );
        let said = engine.on_host(&["sh", "-c", &lay]);
        assert_eq!(said.code, 0, "{said:?}");
        let sockets = TENANTS.map(|name| {
            let said = engine.tritium(&["tenant", "create", name]);
            assert_eq!(said.code, 0, "{said:?}");
            let socket = engine.dir.join(format!("run/tenants/{name}.sock"));
            wait_for("the tenant's socket", || socket.exists());
            sample(&engine, &socket);
            // So that its own network is there already.
            assert_eq!(at(&engine, &socket, &["network", "ls"]).code, 0);
            socket
        });
        let before = routing(&engine);
        Self { sockets, world, before, engine }
    }

    #[track_caller]
    fn ok(&self, nth: usize, arguments: &[&str]) -> String {
        let said = at(&self.engine, &self.sockets[nth], arguments);
        assert_eq!(said.code, 0, "{} {arguments:?}: {said:?}\n{}", TENANTS[nth], self.engine.log());
        said.out.trim().to_owned()
    }

    /// What a tenant's container hears at an address.
    fn hears(&self, nth: usize, container: &str, host: &str, port: &str) -> String {
        let ask = ["exec", container, "nc", "-w", "2", host, port];
        at(&self.engine, &self.sockets[nth], &ask).out.trim().to_owned()
    }

    fn world_hears(&self, host: &str, port: &str) -> String {
        let net = format!("--net=/proc/{}/ns/net", self.world.id());
        let ask = ["nsenter", &net, "busybox", "nc", "-w", "2", host, port];
        self.engine.on_host(&ask).out.trim().to_owned()
    }

    /// All is as it was before there were networks.
    fn nothing_is_left(&self) {
        assert_eq!(routing(&self.engine), self.before);
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        for socket in &self.sockets {
            let all = at(&self.engine, socket, &["ps", "-aq"]).out;
            let ids: Vec<&str> = all.split_whitespace().collect();
            at(&self.engine, socket, &[&["rm", "-f"], &ids[..]].concat());
            at(&self.engine, socket, &["network", "prune", "-f"]);
        }
        // It may have ended; then there is nothing to end.
        drop(self.world.kill());
        drop(self.world.wait());
    }
}

/// What shadowed networks add to the engine's host.
fn routing(engine: &Engine) -> String {
    let look = "ip rule; ip -6 rule; ip route show table all | grep ' table 19'; nft list tables;
                ip -o link show type bridge | wc -l";
    let said = engine.on_host(&["sh", "-c", look]);
    assert_eq!(said.code, 0, "{said:?}");
    said.out
}

/// Does something in another network namespace.
fn inside<T: Send>(pid: &str, what: impl FnOnce() -> T + Send) -> T {
    let namespace = File::open(format!("/proc/{pid}/ns/net")).unwrap();
    let there = || {
        setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
        what()
    };
    thread::scope(|scope| scope.spawn(there).join().unwrap())
}

/// A server that says whose it is, and a client, each at the same address for everybody.
fn furnish(scene: &Scene, nth: usize) {
    let who = TENANTS[nth];
    scene.ok(nth, &["network", "create", "--subnet", "10.9.0.0/24", "net"]);
    let serve = format!("while :; do echo {who} | nc -l -p 80; done");
    let publish = format!("{}:8080:80", HOSTS[nth]);
    let place = ["run", "-d", "--network", "net"];
    let server = ["--name", "server", "--ip", "10.9.0.3", "--network-alias", "db", "-p", &publish];
    scene.ok(nth, &[&place[..], &server, &["busybox", "sh", "-c", &serve]].concat());
    let client = ["--name", "client", "--ip", "10.9.0.2", "busybox", "sleep", "1000"];
    scene.ok(nth, &[&place[..], &client].concat());
}

#[test]
fn two_tenants_with_one_subnet_have_each_their_own_world() {
    let scene = Scene::new("10.216.0.0/16");
    (0..2).for_each(|nth| furnish(&scene, nth));
    let all = |nth: usize| {
        let who = TENANTS[nth];
        for host in ["server", "db", "10.9.0.3"] {
            wait_for("its own peer", || scene.hears(nth, "client", host, "80") == who);
        }
        wait_for("the world to hear", || scene.world_hears(HOSTS[nth], "8080") == who);
    };
    (0..2).for_each(all);
    for (nth, asks) in TENANTS.iter().enumerate() {
        for (host, tenant) in HOSTS.into_iter().zip(TENANTS) {
            assert_eq!(scene.hears(nth, "client", host, "8080"), tenant, "{asks} asks");
        }
        datagrams(&scene, nth);
    }
    at_once(&scene);
    let denials = scene.engine.tritium(&["denials"]).out;
    assert_eq!(denials.lines().count(), 1, "nobody was taken for another: {denials}");
    let names = at(&scene.engine, &scene.sockets[0], &["rm", "-f", "client", "server"]);
    assert_eq!(names.code, 0, "{names:?}");
    scene.ok(0, &["network", "rm", "net"]);
    all(1);
    assert_eq!(scene.world_hears(HOSTS[0], "8080"), "");
    scene.ok(1, &["rm", "-f", "client", "server"]);
    scene.ok(1, &["network", "rm", "net"]);
    scene.nothing_is_left();
}

/// The client sends datagrams to the address of both servers: its own gets them.
fn datagrams(scene: &Scene, nth: usize) {
    let sockets = [0, 1].map(|nth| {
        let pid = scene.ok(nth, &["inspect", "-f", "{{.State.Pid}}", "server"]);
        let socket = inside(&pid, || UdpSocket::bind("10.9.0.3:514").unwrap());
        socket.set_nonblocking(true).unwrap();
        socket
    });
    let send = "syslogd -R 10.9.0.3:514 && until [ -S /dev/log ]; do :; done";
    scene.ok(nth, &["exec", "client", "sh", "-c", send]);
    let mut got = [0; 512];
    wait_for("the datagram", || {
        scene.ok(nth, &["exec", "client", "logger", &format!("from {}", TENANTS[nth])]);
        sockets[nth].recv(&mut got).is_ok()
    });
    let text = String::from_utf8_lossy(&got).into_owned();
    assert!(text.contains(&format!("from {}", TENANTS[nth])), "{text}");
    assert!(sockets[1 - nth].recv(&mut got).is_err(), "the other's server got it");
}

/// Both clients talk from one address and port to one of the world's, at the same time.
fn at_once(scene: &Scene) {
    let listener =
        inside(&scene.world.id().to_string(), || TcpListener::bind((WORLD, 90)).unwrap());
    let mut streams = [0, 1].map(|nth| {
        let talk = format!("nc -p 4000 {WORLD} 90 > /heard");
        let own = format!("(echo {}; sleep 1000) | {talk}", TENANTS[nth]);
        scene.ok(nth, &["exec", "-d", "client", "sh", "-c", &own]);
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut said = vec![0; TENANTS[nth].len()];
        stream.read_exact(&mut said).unwrap();
        assert_eq!(String::from_utf8_lossy(&said), TENANTS[nth]);
        stream
    });
    for (stream, tenant) in streams.iter_mut().zip(TENANTS) {
        stream.write_all(format!("for {tenant}\n").as_bytes()).unwrap();
    }
    for (nth, tenant) in TENANTS.into_iter().enumerate() {
        wait_for("the answer", || {
            scene.ok(nth, &["exec", "client", "cat", "/heard"]) == format!("for {tenant}")
        });
    }
}

const FILE: &str = "
services:
  web:
    image: busybox
    environment: [WHO]
    command: sh -c 'while :; do echo $$WHO | nc -l -p 80; done'
    stop_signal: SIGKILL
    networks: { net: { ipv4_address: 10.9.0.3, aliases: [db] } }
    ports: [\"${HOST}:8080:80\"]
  client:
    image: busybox
    command: sleep 1000
    stop_signal: SIGKILL
    networks: [net]
networks:
  net: { ipam: { config: [{ subnet: 10.9.0.0/24 }] } }
";

/// Where the plugin is, beside the CLI or installed.
fn compose_plugin() -> PathBuf {
    const PLUGIN: &str = "libexec/docker/cli-plugins/docker-compose";
    let beside = std::env::var_os("TRITIUM_DOCKER").map(PathBuf::from);
    let beside = beside.as_deref().and_then(Path::parent).and_then(Path::parent);
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools/docker/usr");
    let roots = beside.into_iter().chain([Path::new("/usr"), &built]);
    let found = roots.map(|root| root.join(PLUGIN)).find(|path| path.exists());
    found.expect("the compose plugin is not installed")
}

fn compose(scene: &Scene, nth: usize, arguments: &[&str]) -> Command {
    let file = scene.engine.dir.join("compose.yaml").display().to_string();
    let flags = ["compose", "--progress", "plain", "-p", "same", "-f", &file];
    let all = [&flags, arguments].concat();
    let mut command = scene.engine.docker_at(&scene.sockets[nth], &all);
    command.env("WHO", TENANTS[nth]).env("HOST", HOSTS[nth]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Both tenants do it, at the same time.
#[track_caller]
fn both_compose(scene: &Scene, arguments: &[&str]) {
    let running = [0, 1].map(|nth| compose(scene, nth, arguments).spawn().unwrap());
    for child in running {
        let said: Said = child.wait_with_output().unwrap().into();
        assert_eq!(said.code, 0, "{arguments:?} {said:?}\n{}", scene.engine.log());
    }
}

#[test]
fn one_compose_file_is_up_for_two_tenants_at_once() {
    let scene = Scene::new("10.217.0.0/16");
    let plugins = scene.engine.dir.join("docker-config/cli-plugins");
    std::fs::create_dir_all(&plugins).unwrap();
    std::os::unix::fs::symlink(compose_plugin(), plugins.join("docker-compose")).unwrap();
    std::fs::write(scene.engine.dir.join("compose.yaml"), FILE).unwrap();
    both_compose(&scene, &["up", "-d", "--pull", "never"]);
    for nth in 0..2 {
        let who = TENANTS[nth];
        for host in ["web", "db", "10.9.0.3"] {
            wait_for("its own peer", || scene.hears(nth, "same-client-1", host, "80") == who);
        }
        wait_for("the world to hear", || scene.world_hears(HOSTS[nth], "8080") == who);
        assert_eq!(scene.hears(nth, "same-client-1", HOSTS[1 - nth], "8080"), TENANTS[1 - nth]);
    }
    both_compose(&scene, &["down", "-t", "0"]);
    scene.nothing_is_left();
}
