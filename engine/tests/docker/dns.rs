//! Names on networks that users made, asked from inside.

use crate::{
    asker,
    engine::{Engine, Said, wait_for},
};
use hickory_proto::{
    op::{Message, MessageType, OpCode, Query, ResponseCode},
    rr::{Name, RData, Record, RecordType},
};
use nix::sched::{CloneFlags, setns};
use std::{
    collections::BTreeSet,
    fs::File,
    io::{BufRead, BufReader, Write},
    net::{IpAddr, SocketAddr, TcpListener, UdpSocket},
    path::Path,
    process::Stdio,
    thread,
};

const RESOLVER: &str = "127.0.0.11:53";

/// Does something in the network namespace of a process.
fn in_network_of<T: Send>(pid: &str, what: impl FnOnce() -> T + Send) -> T {
    let netns = File::open(format!("/proc/{pid}/ns/net")).unwrap();
    let there = || {
        setns(&netns, CloneFlags::CLONE_NEWNET).unwrap();
        what()
    };
    thread::scope(|scope| scope.spawn(there).join()).unwrap()
}

fn question(name: &str, kind: RecordType) -> Message {
    let mut message = Message::new(0x1234, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(format!("{name}.")).unwrap(), kind));
    message
}

/// A container of one of the engine's tenants.
struct Container<'a> {
    engine: &'a Engine,
    socket: std::path::PathBuf,
    name: &'a str,
}

impl Container<'_> {
    fn inspect(&self, format: &str) -> String {
        let arguments = ["inspect", "-f", format, self.name];
        let said: Said = self.engine.docker_at(&self.socket, &arguments).output().unwrap().into();
        assert_eq!(said.code, 0, "{said:?}");
        said.out.trim().to_owned()
    }

    fn address(&self, network: &str) -> String {
        self.inspect(&format!("{{{{.NetworkSettings.Networks.{network}.IPAddress}}}}"))
    }

    fn pid(&self) -> String {
        self.inspect("{{.State.Pid}}")
    }

    fn ask(&self, name: &str, kind: RecordType) -> Message {
        self.ask_by(("datagram", RESOLVER), &question(name, kind))
    }

    /// The answer of whoever was asked.
    fn ask_by(&self, how: (&str, &str), message: &Message) -> Message {
        let (answer, from) = asker::ask(&self.pid(), how, &message.to_vec().unwrap());
        assert_eq!(from.to_string(), how.1);
        Message::from_vec(&answer).unwrap()
    }

    /// Its addresses in order; the code if there are none.
    fn looks_up(&self, name: &str) -> Result<Vec<String>, ResponseCode> {
        let answer = self.ask(name, RecordType::A);
        let addresses = answer.answers.iter().filter_map(|record| record.data.ip_addr());
        let addresses: Vec<String> = addresses.map(|address| address.to_string()).collect();
        if addresses.is_empty() { Err(answer.metadata.response_code) } else { Ok(addresses) }
    }
}

fn container<'a>(engine: &'a Engine, name: &'a str) -> Container<'a> {
    Container { engine, socket: engine.socket(), name }
}

fn run(engine: &Engine, socket: &Path, name: &str, options: &[&str]) {
    let arguments = [&["run", "-d", "--name", name], options, &["busybox", "sleep", "1000"]];
    let said: Said = engine.docker_at(socket, &arguments.concat()).output().unwrap().into();
    assert_eq!(said.code, 0, "{said:?}\n{}", engine.log());
}

#[test]
fn containers_find_each_other_by_name_alias_id_and_address() {
    let engine = Engine::with(&["--address-pool", "10.230.0.0/16"]);
    let here = engine.socket();
    engine.ok(&["network", "create", "n1"]);
    run(&engine, &here, "web", &["--network", "n1", "--network-alias", "app", "-h", "host1"]);
    run(&engine, &here, "db", &["--network", "n1", "--network-alias", "app", "--link", "web:w"]);
    let (web, db) = (container(&engine, "web"), container(&engine, "db"));
    let address = web.address("n1");
    let short = &engine.ok(&["inspect", "-f", "{{.Id}}", "web"])[..12];
    for name in ["web", "WEB", "web.n1", "host1", short, "w"] {
        assert_eq!(db.looks_up(name).unwrap(), [address.as_str()], "{name}");
    }
    let both = BTreeSet::from([address.clone(), db.address("n1")]);
    let mut first = BTreeSet::new();
    wait_for("each to be the first once", || {
        let found = db.looks_up("app").unwrap();
        first.insert(found[0].clone());
        assert_eq!(BTreeSet::from_iter(found), both);
        first == both
    });
    let six = db.ask("web", RecordType::AAAA);
    assert_eq!((six.metadata.response_code, six.answers.len()), (ResponseCode::NoError, 0));
    let [a, b, c, d] = address.parse::<std::net::Ipv4Addr>().unwrap().octets();
    let pointer = db.ask(&format!("{d}.{c}.{b}.{a}.in-addr.arpa"), RecordType::PTR);
    assert_eq!(pointer.answers[0].data.to_string(), "web.n1.");
    // What programs in it are told, and that they are answered.
    let conf = engine.ok(&["exec", "db", "cat", "/etc/resolv.conf"]);
    assert!(conf.contains("\nnameserver 127.0.0.11\n") && conf.contains(" ndots:0\n"), "{conf}");
    assert!(conf.contains("(internal resolver)\n"), "{conf}");
    let said = engine.ok(&["exec", "db", "nslookup", "-type=a", "web"]);
    assert!(said.contains(&format!("Address: {address}")), "{said}");
    let beside = ["run", "--rm", "--network", "container:db", "busybox", "nslookup", "web"];
    assert!(engine.said(&beside).out.contains(&format!("Address: {address}")), "who shares it");
}

#[test]
fn every_way_of_asking_leads_to_the_resolver_and_no_packet_is_translated_for_it() {
    let engine = Engine::with(&["--address-pool", "10.236.0.0/16"]);
    let here = engine.socket();
    engine.ok(&["network", "create", "n1"]);
    run(&engine, &here, "web", &["--network", "n1"]);
    run(&engine, &here, "cli", &["--network", "n1"]);
    let (web, cli) = (container(&engine, "web"), container(&engine, "cli"));
    let address: IpAddr = web.address("n1").parse().unwrap();
    // A server of names of the container's own.
    let own = in_network_of(&cli.pid(), || {
        authority("0.0.0.0".parse().unwrap(), "3.3.3.3");
        TcpListener::bind("0.0.0.0:53").unwrap()
    });
    let asked = question("web", RecordType::A);
    for place in [RESOLVER, "[::ffff:127.0.0.11]:53"] {
        for way in ["datagram", "connected", "stream"] {
            let answer = cli.ask_by((way, place), &asked);
            assert_eq!(answer.answers[0].data.ip_addr(), Some(address), "{way} {place}");
        }
    }
    let itself = cli.ask_by(("datagram", &format!("{}:53", cli.address("n1"))), &asked);
    assert_eq!(itself.answers[0].data.ip_addr(), Some([3, 3, 3, 3].into()));
    drop(own);
    let in_force = in_network_of(&cli.pid(), || {
        let rules = std::process::Command::new("nft").args(["list", "ruleset"]).output().unwrap();
        let followed = std::fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_count");
        (Said::from(rules).out, followed.unwrap())
    });
    assert_eq!(in_force, (String::new(), "0\n".to_owned()));
}

#[test]
fn names_follow_renames_joins_leaves_and_ends() {
    let engine = Engine::with(&["--address-pool", "10.231.0.0/16"]);
    let here = engine.socket();
    engine.ok(&["network", "create", "n1"]);
    engine.ok(&["network", "create", "--internal", "n2"]);
    run(&engine, &here, "aa", &["--network", "n1"]);
    run(&engine, &here, "bb", &["--network", "n2"]);
    run(&engine, &here, "cc", &[]);
    let (aa, bb, cc) =
        (container(&engine, "aa"), container(&engine, "bb"), container(&engine, "cc"));
    assert_eq!(bb.looks_up("aa"), Err(ResponseCode::ServFail), "and nobody outside is asked");
    engine.ok(&["network", "connect", "--alias", "both", "n2", "aa"]);
    assert_eq!(bb.looks_up("both").unwrap(), [aa.address("n2")]);
    assert_eq!(aa.looks_up("bb.n2").unwrap(), [bb.address("n2")]);
    let conf = || engine.ok(&["exec", "cc", "cat", "/etc/resolv.conf"]);
    assert!(!conf().contains("127.0.0.11"), "{}", conf());
    engine.ok(&["network", "connect", "n2", "cc"]);
    assert!(conf().contains("nameserver 127.0.0.11"), "{}", conf());
    assert_eq!(cc.looks_up("both").unwrap(), [aa.address("n2")]);
    engine.ok(&["rename", "bb", "dd"]);
    let dd = container(&engine, "dd");
    assert_eq!(aa.looks_up("dd").unwrap(), [dd.address("n2")]);
    assert_eq!(dd.looks_up("bb"), Err(ResponseCode::ServFail));
    engine.ok(&["network", "disconnect", "n2", "aa"]);
    assert_eq!(dd.looks_up("both"), Err(ResponseCode::ServFail));
    engine.ok(&["kill", "cc"]);
    wait_for("its end", || dd.looks_up("cc").is_err());
    engine.ok(&["start", "cc"]);
    assert_eq!(dd.looks_up("cc").unwrap(), [cc.address("n2")]);
}

#[test]
fn tenants_with_the_same_names_hear_of_their_own_only() {
    let engine = Engine::with(&["--address-pool", "10.232.0.0/16"]);
    assert_eq!(engine.tritium(&["tenant", "create", "team"]).code, 0);
    let theirs = engine.dir.join("run/tenants/team.sock");
    wait_for("the tenant's socket", || theirs.exists());
    crate::tenants::sample(&engine, &theirs);
    for socket in [&engine.socket(), &theirs] {
        let made = engine.docker_at(socket, &["network", "create", "--internal", "net"]);
        assert!({ made }.output().unwrap().status.success());
        run(&engine, socket, "web", &["--network", "net"]);
        run(&engine, socket, "cli", &["--network", "net"]);
    }
    run(&engine, &theirs, "secret", &["--network", "net"]);
    let of_team = |name| Container { socket: theirs.clone(), ..container(&engine, name) };
    let pairs =
        [(container(&engine, "cli"), container(&engine, "web")), (of_team("cli"), of_team("web"))];
    for (cli, web) in &pairs {
        assert_eq!(cli.looks_up("web").unwrap(), [web.address("net")]);
        assert_eq!(cli.looks_up("web.net").unwrap(), [web.address("net")]);
    }
    assert_ne!(pairs[0].1.address("net"), pairs[1].1.address("net"));
    for name in ["secret", "secret.net"] {
        assert_eq!(pairs[0].0.looks_up(name), Err(ResponseCode::ServFail));
    }
    let all = ["rm", "-f", "web", "cli", "secret"];
    assert!(engine.docker_at(&theirs, &all).output().unwrap().status.success());
}

#[test]
fn what_is_not_known_is_asked_where_the_host_asks_or_where_the_user_says() {
    let engine = Engine::with(&["--address-pool", "10.233.0.0/16"]);
    let here = engine.socket();
    engine.ok(&["network", "create", "n1"]);
    run(&engine, &here, "own", &["--network", "n1", "--dns", "127.0.0.9", "--dns-opt", "ndots:1"]);
    let own = container(&engine, "own");
    in_network_of(&own.pid(), || authority("127.0.0.9".parse().unwrap(), "2.2.2.2"));
    assert_eq!(own.looks_up("example.org").unwrap(), ["2.2.2.2"]);
    assert_eq!(own.looks_up("nx.example"), Err(ResponseCode::NXDomain));
    assert_eq!(own.looks_up("single"), Err(ResponseCode::NoError), "its search domains are tried");
    let conf = engine.ok(&["exec", "own", "cat", "/etc/resolv.conf"]);
    assert!(conf.contains("# ExtServers: [127.0.0.9]\n"), "{conf}");
    // Where the machine itself asks, which is at home in the engine's network here.
    run(&engine, &here, "host", &["--network", "n1"]);
    let conf = engine.ok(&["exec", "host", "cat", "/etc/resolv.conf"]);
    let server = conf.split_once("[host(").and_then(|(_, rest)| rest.split_once(')'));
    let Some((server, _)) = server else {
        assert!(conf.contains("# NO EXTERNAL NAMESERVERS DEFINED"), "{conf}");
        return;
    };
    let address: IpAddr = server.parse().unwrap();
    if !address.is_loopback() {
        assert_eq!(engine.on_host(&["ip", "addr", "add", server, "dev", "lo"]).code, 0);
    }
    in_network_of(&engine.pid().to_string(), || authority(address, "1.1.1.1"));
    let host = container(&engine, "host");
    assert_eq!(host.looks_up("example.org").unwrap(), ["1.1.1.1"]);
    assert_eq!(host.looks_up("single").unwrap(), ["1.1.1.1"], "as nobody has set ndots");
}

/// Answers every question with one address; `nx…` does not exist.
fn authority(at: IpAddr, address: &str) {
    let socket = UdpSocket::bind(SocketAddr::from((at, 53))).unwrap();
    let address = address.parse::<std::net::Ipv4Addr>().unwrap();
    thread::spawn(move || {
        let mut bytes = [0; 4096];
        while let Ok((length, peer)) = socket.recv_from(&mut bytes) {
            let question = Message::from_vec(&bytes[..length]).unwrap();
            let name = question.queries[0].name.clone();
            let mut answer = Message::response(question.metadata.id, OpCode::Query);
            answer.add_query(question.queries[0].clone());
            if name.to_ascii().starts_with("nx") {
                answer.metadata.response_code = ResponseCode::NXDomain;
            } else {
                answer.add_answer(Record::from_rdata(name, 60, RData::A(address.into())));
            }
            socket.send_to(&answer.to_vec().unwrap(), peer).unwrap();
        }
    });
}

#[test]
fn names_are_answered_again_after_the_engine_was_killed() {
    let mut engine = Engine::with(&["--address-pool", "10.234.0.0/16"]);
    let here = engine.socket();
    engine.ok(&["network", "create", "n1"]);
    run(&engine, &here, "web", &["--network", "n1", "--network-alias", "app"]);
    run(&engine, &here, "cli", &["--network", "n1"]);
    let address = container(&engine, "web").address("n1");
    let cli = container(&engine, "cli");
    let asked = question("web", RecordType::A).to_vec().unwrap();
    let mut asker = asker::asker(&cli.pid(), ("connected", RESOLVER), &asked);
    let mut asker = asker.stdin(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(asker.stdout.take().unwrap()).lines();
    let mut answered = || lines.find_map(|line| asker::told(&line.unwrap())).unwrap();
    let first = answered();
    engine.crash_and_restart();
    asker.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    assert_eq!(answered(), first, "on the same socket");
    assert!(asker.wait().unwrap().success());
    let cli = container(&engine, "cli");
    for name in ["web", "app", "web.n1"] {
        assert_eq!(cli.looks_up(name).unwrap(), [address.as_str()], "{name}");
    }
    engine.ok(&["rm", "-f", "web"]);
    assert!(cli.looks_up("web").is_err());
}
