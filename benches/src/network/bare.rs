//! Namespaces and interfaces of the measurement's own: the floor, and a client
//! outside of the engine.

use super::{
    ECHO, IPERF, Path,
    place::{Place, Running},
};
use anyhow::{Context, Result, ensure};
use std::process::{Command, Stdio};

/// A network namespace, held by a process that does nothing.
struct Namespace(Running);

impl Namespace {
    fn new() -> Result<Self> {
        let mut command = Command::new("unshare");
        // It says when it is there: its namespace is new from then on.
        command.args(["--net", "sh", "-c", "ip link set lo up; echo; exec sleep 1000000"]);
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let mut running = Running(child);
        let mut said = [0];
        let mut out = running.0.stdout.take().context("no pipe")?;
        std::io::Read::read_exact(&mut out, &mut said).context("no network namespace")?;
        Ok(Self(running))
    }

    fn pid(&self) -> i32 {
        self.0.0.id().cast_signed()
    }

    fn place(&self) -> Place {
        Place::namespace(self.pid())
    }
}

/// `ip …` in the namespace of a process.
fn ip(pid: i32, arguments: &str) -> Result<()> {
    let mut command = Place::namespace(pid).command("ip");
    let output = command.args(arguments.split(' ')).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "ip {arguments}: {said}");
    Ok(())
}

/// Two namespaces and a veth pair, and two with a bridge between.
pub(super) struct Bare {
    pair: [Namespace; 2],
    bridged: [Namespace; 2],
    _bridge: Namespace,
}

impl Bare {
    pub(super) fn new() -> Result<Self> {
        let pair = [Namespace::new()?, Namespace::new()?];
        ip(
            pair[0].pid(),
            &format!("link add eth0 type veth peer name eth0 netns {}", pair[1].pid()),
        )?;
        let bridged = [Namespace::new()?, Namespace::new()?];
        let bridge = Namespace::new()?;
        ip(bridge.pid(), "link add br0 up type bridge")?;
        for (number, end) in bridged.iter().enumerate() {
            let to = end.pid();
            ip(bridge.pid(), &format!("link add v{number} type veth peer name eth0 netns {to}"))?;
            ip(bridge.pid(), &format!("link set v{number} up master br0"))?;
        }
        for ends in [&pair, &bridged] {
            for (number, end) in ends.iter().enumerate() {
                ip(end.pid(), &format!("addr add 198.18.0.{}/24 dev eth0", number + 1))?;
                ip(end.pid(), "link set eth0 up")?;
            }
        }
        Ok(Self { pair, bridged, _bridge: bridge })
    }

    pub(super) fn veth(&self) -> Path {
        path(&self.pair)
    }

    pub(super) fn bridged(&self) -> Path {
        path(&self.bridged)
    }
}

fn path([server, client]: &[Namespace; 2]) -> Path {
    Path {
        server: server.place(),
        client: client.place(),
        address: "198.18.0.1".to_owned(),
        iperf: IPERF,
        echo: ECHO,
    }
}

/// A client that is on the other end of a cable from the engine's host.
pub(super) struct Outside {
    namespace: Namespace,
    /// The engine's address on it.
    pub(super) engine: String,
}

impl Outside {
    /// `engine` is a process in the host's namespace of that engine.
    pub(super) fn new(engine: i32) -> Result<Self> {
        let namespace = Namespace::new()?;
        let to = namespace.pid();
        let name = format!("tb{to}");
        ip(engine, &format!("link add {name} type veth peer name eth0 netns {to}"))?;
        ip(engine, &format!("addr add 198.18.1.1/24 dev {name}"))?;
        ip(engine, &format!("link set {name} up"))?;
        ip(to, "addr add 198.18.1.2/24 dev eth0")?;
        ip(to, "link set eth0 up")?;
        Ok(Self { namespace, engine: "198.18.1.1".to_owned() })
    }

    pub(super) fn place(&self) -> Place {
        self.namespace.place()
    }
}
