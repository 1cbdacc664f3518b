//! Frames in another's name, from a tenant's container with a raw socket, towards a neighbour of
//! its own tenant and towards another tenant's container.

use crate::{
    engine::{Engine, wait_for},
    frames::{End, Hostile, MARK, honest, hostile},
    tap::Tap,
    tenants::{at, sample_tar, with_tenant},
};
use nix::{
    errno::Errno,
    sched::{CloneFlags, setns},
    sys::socket::{
        AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, sendto, socket,
    },
};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    net::SocketAddrV4,
    os::fd::AsRawFd,
    path::Path,
    process::Command,
    thread,
};

/// What the sender is told: itself, its neighbour, the gateway, another tenant's container.
const ENDS: &str = "TRITIUM_TEST_ENDS";

/// The same for those who send and those who look.
struct Ends {
    me: End,
    neighbour: End,
    victim: End,
    gateway: End,
}

impl Ends {
    fn parse(text: &str) -> Self {
        let words: Vec<&str> = text.split_whitespace().collect();
        let [me, near, gateway, victim] = words.chunks(3).map(end).collect::<Vec<_>>()[..] else {
            panic!("four ends: {text:?}")
        };
        Self { me, neighbour: near, victim, gateway }
    }

    /// Every hostile frame, towards both, and what the guard calls it.
    fn hostile(&self) -> Vec<Hostile> {
        let mut all = hostile(self.me, self.neighbour, self.gateway);
        all.extend(hostile(self.me, self.victim, self.gateway));
        let (_, honest) = honest(self.me, self.victim).swap_remove(0);
        all.push(("IPv4 to another tenant", "packet", honest));
        all
    }
}

/// Ethernet address, IPv4, IPv6.
fn end(words: &[&str]) -> End {
    End { mac: mac(words[0]), v4: words[1].parse().unwrap(), v6: words[2].parse().unwrap() }
}

fn mac(text: &str) -> [u8; 6] {
    let bytes = text.split(':').map(|pair| u8::from_str_radix(pair, 16).unwrap());
    bytes.collect::<Vec<_>>().try_into().unwrap()
}

/// Not a test of its own: what runs inside the sender's container.
#[test]
fn sends() {
    let Ok(text) = std::env::var(ENDS) else { return };
    let ends = Ends::parse(&text);
    let cable = Tap::on("eth0");
    for (_, _, frame) in ends.hostile() {
        cable.send(&frame);
    }
    cable.send(&last(&ends));
}

/// Not a test of its own: what runs inside a container that may ping and send nothing else.
#[test]
fn forges() {
    let Ok(text) = std::env::var(ENDS) else { return };
    let raw = |protocol| socket(AddressFamily::Inet, SockType::Raw, SockFlag::empty(), protocol);
    assert_eq!(raw(SockProtocol::Udp).err(), Some(Errno::EPERM));
    let pings = raw(SockProtocol::Icmp).unwrap();
    // A redirect (RFC 792).
    let mut message = [0; 36];
    message[0] = 5;
    let to = SockaddrIn::from(SocketAddrV4::new(Ends::parse(&text).gateway.v4, 0));
    let sent = sendto(pings.as_raw_fd(), &message, &to, MsgFlags::empty());
    assert_eq!(sent.err(), Some(Errno::EPERM));
}

/// An honest frame, which must arrive where the others do not.
fn last(ends: &Ends) -> Vec<u8> {
    honest(ends.me, ends.neighbour).pop().unwrap().1
}

/// The sample image, and in its folder `sender` this very program with the libraries it needs.
fn sender_image(engine: &Engine, socket: &Path) {
    let folder = engine.dir.join("sender");
    fs::create_dir_all(&folder).unwrap();
    let program = std::env::current_exe().unwrap();
    let done = |command: &mut Command| assert!(command.status().unwrap().success(), "{command:?}");
    // Without its symbols it is a fifth.
    done(Command::new("strip").arg("-o").arg(folder.join("sender")).arg(&program));
    let needs = Command::new("ldd").arg(&program).output().unwrap();
    for path in String::from_utf8(needs.stdout).unwrap().split_whitespace() {
        if let Some(name) = path.strip_prefix('/').and_then(|path| path.rsplit('/').next()) {
            let to = if name.starts_with("ld-linux") { "loader" } else { name };
            fs::copy(path, folder.join(to)).unwrap();
        }
    }
    let tar = engine.dir.join("sender.tar");
    fs::copy(sample_tar(), &tar).unwrap();
    done(Command::new("tar").arg("-C").arg(&engine.dir).arg("-rf").arg(&tar).arg("sender"));
    let said = at(engine, socket, &["import", tar.to_str().unwrap(), "sender"]);
    assert_eq!(said.code, 0, "{said:?}");
}

/// A packet socket in somebody else's network namespace.
fn tap_in(pid: &str, interface: &'static str) -> Tap {
    let namespace = File::open(format!("/proc/{pid}/ns/net")).unwrap();
    let inside = move || {
        setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
        Tap::on(interface)
    };
    thread::spawn(inside).join().unwrap()
}

/// How often each rule refused that container something.
fn denials(engine: &Engine, container: &str) -> BTreeMap<String, usize> {
    let said = engine.tritium(&["denials"]);
    let rows = said.out.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    rows.filter(|row| row.get(2) == Some(&container))
        .map(|row| (row[3].to_owned(), row[4].parse().unwrap()))
        .collect()
}

/// A tenant, whose containers go with this.
struct Team<'a> {
    engine: &'a Engine,
    socket: &'a Path,
}

impl Team<'_> {
    #[track_caller]
    fn ok(&self, arguments: &[&str]) -> String {
        let said = at(self.engine, self.socket, arguments);
        assert_eq!(said.code, 0, "{arguments:?}: {said:?}\n{}", self.engine.log());
        said.out.trim().to_owned()
    }
}

impl Drop for Team<'_> {
    fn drop(&mut self) {
        let all = at(self.engine, self.socket, &["ps", "-aq"]).out;
        let ids: Vec<&str> = all.split_whitespace().collect();
        at(self.engine, self.socket, &[&["rm", "-f"], &ids[..]].concat());
        at(self.engine, self.socket, &["network", "prune", "-f"]);
    }
}

/// What became of every hostile frame, one line for each kind.
#[derive(Default)]
struct Table(Vec<(String, String, [usize; 3])>);

impl Table {
    /// One frame more of that name: how often it arrived, and how often it was counted.
    fn add(&mut self, name: &str, rule: &str, delivered: usize, counted: usize) {
        let known = self.0.iter_mut().find(|(known, ..)| known == name);
        let Some((.., numbers)) = known else {
            return self.0.push((name.to_owned(), rule.to_owned(), [1, delivered, counted]));
        };
        for (number, more) in numbers.iter_mut().zip([1, delivered, counted]) {
            *number += more;
        }
    }

    /// Also into the file that whoever runs the tests prints at their end.
    fn tell(&self) -> String {
        let head = format!("{:<46} {:>4} {:>9} {:>7}  by", "what", "sent", "delivered", "counted");
        let line = |(name, rule, [sent, delivered, counted]): &(String, String, [usize; 3])| {
            format!("{name:<46} {sent:>4} {delivered:>9} {counted:>7}  {rule}")
        };
        let lines: Vec<String> = [head].into_iter().chain(self.0.iter().map(line)).collect();
        let text = lines.join("\n") + "\n";
        if let Some(file) = std::env::var_os("TRITIUM_HOSTILE_TABLE") {
            fs::write(file, &text).unwrap();
        }
        text
    }
}

fn ends(engine: &Engine, team: &dyn Fn(&[&str]) -> String) -> String {
    let both = "{{with .NetworkSettings.Networks.both}}";
    let own = format!(
        "{both}{{{{.MacAddress}}}} {{{{.IPAddress}}}} {{{{.GlobalIPv6Address}}}}{{{{end}}}}"
    );
    let (me, near) =
        (team(&["inspect", "-f", &own, "mallory"]), team(&["inspect", "-f", &own, "near"]));
    let way = format!("{both}{{{{.Gateway}}}} {{{{.IPv6Gateway}}}}{{{{end}}}}");
    let gateway = team(&["inspect", "-f", &way, "mallory"]);
    // Another tenant's is behind the gateway.
    let (v4, _) = gateway.split_once(' ').unwrap();
    let find = format!("ip -o link show dev $(ip -o addr show to {v4} | cut -d' ' -f2)");
    let bridge = engine.on_host(&["sh", "-c", &find]).out;
    let mac = bridge.split_whitespace().skip_while(|word| *word != "link/ether").nth(1).unwrap();
    let victim = engine.ok(&["inspect", "-f", "{{.NetworkSettings.IPAddress}}", "victim"]);
    format!("{me} {near} {mac} {gateway} {mac} {victim} fd78::4")
}

#[test]
fn no_hostile_frame_is_delivered_and_each_is_counted() {
    let (engine, socket) = with_tenant("team", "10.211.0.0/16");
    sender_image(&engine, &socket);
    let theirs = Team { engine: &engine, socket: &socket };
    let team = |arguments: &[&str]| theirs.ok(arguments);
    engine.ok(&["run", "-d", "--name", "victim", "busybox", "sleep", "1000"]);
    let subnets = ["--ipv6", "--subnet", "10.211.200.0/24", "--subnet", "fd77:211::/64", "both"];
    team(&[&["network", "create"], &subnets[..]].concat());
    let run = ["run", "-d", "--network", "both", "--name"];
    team(&[&run[..], &["near", "sender", "sleep", "1000"]].concat());
    let raw = ["mallory", "--cap-add", "NET_RAW", "sender", "sleep", "1000"];
    team(&[&run[..], &raw[..]].concat());
    let text = ends(&engine, &team);
    let ends = Ends::parse(&text);
    let pid = "{{.State.Pid}}";
    let near = tap_in(&team(&["inspect", "-f", pid, "near"]), "eth0");
    let victim = tap_in(&engine.ok(&["inspect", "-f", pid, "victim"]), "eth0");

    // Each kernel's own questions, answers and reports pass.
    let near6 = ends.neighbour.v6.to_string();
    team(&["exec", "mallory", "ping", "-6", "-c", "1", "-W", "5", &near6]);
    assert!(denials(&engine, "mallory").is_empty(), "{:?}", denials(&engine, "mallory"));

    let frames = ends.hostile();
    let mut wanted: BTreeMap<String, usize> = BTreeMap::new();
    for (_, rule, _) in &frames {
        *wanted.entry((*rule).to_owned()).or_default() += 1;
    }
    let env = format!("{ENDS}={text}");
    let send = ["/sender/loader", "--library-path", "/sender", "/sender/sender"];
    let exact = ["--exact", "spoof::sends", "--test-threads=1"];
    team(&[&["exec", "-e", &env, "mallory"], &send[..], &exact[..]].concat());
    wait_for("all to be counted", || {
        let counted = denials(&engine, "mallory");
        assert!(counted.keys().all(|rule| wanted.contains_key(rule)), "{counted:?}");
        counted.values().sum::<usize>() >= frames.len()
    });
    assert_eq!(denials(&engine, "mallory"), wanted);

    // The honest one comes last, and so nothing is still under way.
    let mut delivered = victim.waiting();
    loop {
        let frame = near.receive();
        if frame == last(&ends) {
            break;
        }
        delivered.push(frame);
    }
    let is_hostile = |got: &Vec<u8>| {
        let marked = got.windows(MARK.len()).any(|part| part == MARK);
        marked || frames.iter().any(|(_, _, frame)| frame == got)
    };
    let count = |frame: &[u8]| delivered.iter().filter(|got| *got == frame).count();
    let mut table = Table::default();
    for (name, rule, frame) in &frames {
        // Once, since each rule has counted as many as it was to.
        table.add(name, rule, count(frame), 1);
    }
    // A raw socket is refused before it can send anything, but for one that pings.
    let exact = ["--exact", "spoof::forges", "--test-threads=1"];
    team(&[&["exec", "-e", &env, "near"], &send[..], &exact[..]].concat());
    let rule = "raw-socket";
    assert_eq!(denials(&engine, "near").get(rule), Some(&2));
    table.add("a raw socket that was not asked for", rule, 0, 1);
    table.add("ICMP redirect by a socket that may ping", rule, 0, 1);
    println!("{}", table.tell());
    assert!(!delivered.iter().any(is_hostile), "{delivered:?}");
}

#[test]
fn an_honest_container_loses_nothing_and_is_not_counted() {
    let engine = Engine::with(&["--address-pool", "10.212.0.0/16"]);
    let serve = "while :; do echo pong | nc -l -p 80; done";
    engine.ok(&["run", "-d", "--name", "aa", "busybox", "sh", "-c", serve]);
    let address = engine.ok(&["inspect", "-f", "{{.NetworkSettings.IPAddress}}", "aa"]);
    wait_for("an answer", || {
        engine.said(&["run", "--rm", "busybox", "nc", "-w", "2", &address, "80"]).out == "pong\n"
    });
    let given = "02:42:0a:d4:77:77";
    let ping = ["--cap-add", "NET_RAW", "busybox", "ping", "-c", "1", "-W", "5", &address];
    engine.ok(&[&["run", "--rm", "--mac-address", given], &ping[..]].concat());
    assert_eq!(engine.tritium(&["denials"]).out.lines().count(), 1, "only the headline");
    // Whoever takes an address that was not given has none.
    let take = "ip addr add 10.212.99.99/12 dev eth0 && ping -c 1 -W 1 -I 10.212.99.99 $0";
    let arguments = ["run", "--name", "bb", "--cap-add", "NET_ADMIN", "--cap-add", "NET_RAW"];
    let said = engine.said(&[&arguments[..], &["busybox", "sh", "-c", take, &address]].concat());
    assert_eq!(said.code, 1, "{said:?}");
    assert!(denials(&engine, "bb").contains_key("arp"), "{said:?}");
}
