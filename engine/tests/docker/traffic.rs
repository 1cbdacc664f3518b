//! Who talks with whom, as `tritium net` tells it.

use crate::engine::{Engine, wait_for};

/// Takes one connection, and does not end it.
const LISTEN: &str = "sleep 1000 | nc -l -p 80 > /got";

/// Columns of the row of a container and a peer: received, sent, dropped, opened, accepted, sent
/// again, round trips.
fn row(engine: &Engine, container: &str, peer: &str) -> Vec<String> {
    let (status, body) = engine.api("GET", "/tritium/net", "");
    assert_eq!(status, 200, "{body}");
    let rows: serde_json::Value = serde_json::from_str(&body).unwrap();
    let found =
        rows.as_array().unwrap().iter().find(|it| it["name"] == container && it["peer"] == peer);
    let Some(found) = found else { return Vec::new() };
    let columns =
        ["received_bytes", "sent_bytes", "dropped", "opened", "accepted", "retransmits", "rtt_p50"];
    columns.map(|column| found[column].to_string()).to_vec()
}

#[test]
fn what_one_container_sends_another_is_counted_on_both_sides() {
    let engine = Engine::with(&["--address-pool", "10.213.0.0/16"]);
    engine.ok(&["run", "-d", "--name", "aa", "busybox", "sh", "-c", LISTEN]);
    let address = engine.ok(&["inspect", "-f", "{{.NetworkSettings.IPAddress}}", "aa"]);
    wait_for("the server to listen", || {
        engine.ok(&["exec", "aa", "netstat", "-ltn"]).contains(":80")
    });
    let give = format!("(head -c 1000000 /dev/zero; sleep 1000) | nc {address} 80");
    engine.ok(&["run", "-d", "--name", "bb", "busybox", "sh", "-c", &give]);
    wait_for("all of it to arrive", || {
        engine.ok(&["exec", "aa", "wc", "-c", "/got"]) == "1000000 /got"
    });
    let both = || (row(&engine, "aa", "bb"), row(&engine, "bb", "aa"));
    // What one sent the other has received, once the last acknowledgement is there.
    wait_for("the counts to agree", || {
        let (taken, given) = both();
        taken[0] == given[1] && taken[1] == given[0]
    });
    let (taken, given) = both();
    assert!(given[1].parse::<u64>().unwrap() > 1_000_000, "{given:?}");
    assert_eq!((taken[3].as_str(), taken[4].as_str()), ("0", "1"), "accepted: {taken:?}");
    assert_eq!((given[3].as_str(), given[4].as_str()), ("1", "0"), "opened: {given:?}");
    assert_ne!(given[6], "null", "no round trip was measured: {given:?}");
    let table = engine.tritium(&["net"]);
    let wanted = ["default", "bb", "aa"];
    let lines = table.out.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let found = lines.filter(|words| words.starts_with(&wanted)).collect::<Vec<_>>();
    assert!(found.len() == 1 && found[0][4].ends_with("MB"), "{table:?}");
}

#[test]
fn segments_that_were_lost_are_counted_and_the_loopback_is_not() {
    let engine = Engine::with(&["--address-pool", "10.214.0.0/16"]);
    engine.ok(&["run", "-d", "--name", "aa", "busybox", "sh", "-c", LISTEN]);
    let address = engine.ok(&["inspect", "-f", "{{.NetworkSettings.IPAddress}}", "aa"]);
    let talk = format!("(while :; do echo x; sleep 0.05; done) | nc {address} 80");
    engine.ok(&["run", "-d", "--name", "bb", "busybox", "sh", "-c", &talk]);
    wait_for("the connection", || row(&engine, "bb", "aa").get(3).is_some_and(|it| it == "1"));
    // A program of one instruction on the way to each container: `return TC_ACT_SHOT`.
    let cables = "ip -o link show type veth | sed 's/^[0-9]*: \\([^@:]*\\).*/\\1/'";
    let all = |what: &str| {
        let script = format!("for cable in $({cables}); do tc filter {what} || exit; done");
        let said = engine.on_host(&["sh", "-c", &script]);
        assert_eq!(said.code, 0, "{said:?}");
    };
    all("add dev $cable egress bpf da bytecode '1,6 0 0 2,'");
    wait_for("a segment to be sent again", || row(&engine, "bb", "aa")[5] != "0");
    all("del dev $cable egress");
    let inside = "(nc -l -p 81 > /dev/null &) ; sleep 0.2; echo x | nc 127.0.0.1 81";
    engine.ok(&["run", "--name", "cc", "--dns", "127.0.0.1", "busybox", "sh", "-c", inside]);
    assert_eq!(row(&engine, "cc", "(outside)"), Vec::<String>::new());
    assert_eq!(row(&engine, "cc", "cc"), Vec::<String>::new());
}

/// What the host's interfaces have sent, in bytes.
fn sent_by_the_host(engine: &Engine) -> u64 {
    let table = engine.on_host(&["cat", "/proc/net/dev"]).out;
    let columns = table.lines().filter_map(|line| line.split_once(':')).map(|(_, rest)| rest);
    columns.map(|rest| rest.split_whitespace().nth(8).unwrap().parse::<u64>().unwrap()).sum()
}

/// Where an interface does not count what is put into it directly, the bridge carries it.
fn has_a_direct_way() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    (numbers.next().unwrap(), numbers.next().unwrap()) >= (6, 8)
}

#[test]
fn neighbours_talk_past_the_bridge_unless_they_may_not_talk() {
    let engine = Engine::with(&["--address-pool", "10.215.0.0/16"]);
    let icc = "com.docker.network.bridge.enable_icc=false";
    engine.ok(&["network", "create", "open"]);
    engine.ok(&["network", "create", "-o", icc, "shut"]);
    for network in ["open", "shut"] {
        let [one, two] = [format!("{network}-1"), format!("{network}-2")];
        engine.ok(&["run", "-d", "--name", &one, "--net", network, "busybox", "sh", "-c", LISTEN]);
        engine.ok(&[
            "run",
            "-d",
            "--cap-add",
            "NET_RAW",
            "--name",
            &two,
            "--net",
            network,
            "busybox",
            "sleep",
            "1000",
        ]);
        wait_for("the server to listen", || {
            engine.ok(&["exec", &one, "netstat", "-ltn"]).contains(":80")
        });
    }
    let give = |to: &str| format!("head -c 3000000 /dev/zero | nc -w 1 {to} 80");
    let before = sent_by_the_host(&engine);
    engine.ok(&["exec", "open-2", "sh", "-c", &give("open-1")]);
    wait_for("all of it to arrive", || {
        engine.ok(&["exec", "open-1", "wc", "-c", "/got"]) == "3000000 /got"
    });
    let carried = sent_by_the_host(&engine) - before;
    assert_eq!(carried < 1_000_000, has_a_direct_way(), "{carried}");
    let seen = engine.ok(&["stats", "--no-stream", "--format", "{{.NetIO}}", "open-1"]);
    assert!(seen.starts_with("3.") && seen.contains("MB /"), "{seen}");
    engine.fails(1, &["exec", "shut-2", "sh", "-c", &give("shut-1")]);
    // One that has left is no neighbour any more.
    engine.ok(&["network", "disconnect", "open", "open-1"]);
    engine.ok(&["network", "connect", "open", "open-1"]);
    engine.ok(&["exec", "open-2", "ping", "-c", "1", "-W", "5", "open-1"]);
}
