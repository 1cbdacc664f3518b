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
