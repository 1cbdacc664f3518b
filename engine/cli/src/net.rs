//! `tritium net`: who talks with whom.

use crate::{
    client::Client,
    commands::{REDRAW, clear, print},
    table::{self, Side},
    units,
};
use serde::Deserialize;

#[derive(Debug, Deserialize)]
struct Traffic {
    tenant: String,
    name: String,
    peer: String,
    received_bytes: u64,
    sent_bytes: u64,
    dropped: u64,
    opened: u64,
    accepted: u64,
    retransmits: u64,
    rtt_p50: Option<u64>,
    rtt_p99: Option<u64>,
}

pub(crate) async fn show(client: &Client, watch: bool) -> anyhow::Result<()> {
    loop {
        let all: Vec<Traffic> = client.get("/tritium/net").await?;
        print(&format!("{}{}", if watch { clear() } else { "" }, shown(&all)))?;
        if !watch {
            return Ok(());
        }
        tokio::time::sleep(REDRAW).await;
    }
}

fn shown(all: &[Traffic]) -> String {
    let columns = [
        ("TENANT", Side::Left),
        ("CONTAINER", Side::Left),
        ("PEER", Side::Left),
        ("RECEIVED", Side::Right),
        ("SENT", Side::Right),
        ("DROPPED", Side::Right),
        ("OPENED", Side::Right),
        ("ACCEPTED", Side::Right),
        ("SENT AGAIN", Side::Right),
        ("RTT P50", Side::Right),
        ("RTT P99", Side::Right),
    ];
    let time = |nanos: Option<u64>| nanos.map_or_else(|| "-".into(), units::duration);
    let rows = all.iter().map(|it| {
        vec![
            it.tenant.clone(),
            it.name.clone(),
            it.peer.clone(),
            units::bytes(it.received_bytes),
            units::bytes(it.sent_bytes),
            it.dropped.to_string(),
            it.opened.to_string(),
            it.accepted.to_string(),
            it.retransmits.to_string(),
            time(it.rtt_p50),
            time(it.rtt_p99),
        ]
    });
    table::render(&columns, &rows.collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_is_a_row() {
        let row: Traffic = serde_json::from_value(serde_json::json!({
            "tenant": "default", "container": "ab", "name": "web", "peer": "db",
            "received_bytes": 1_500_000, "received_packets": 1000, "sent_bytes": 90,
            "sent_packets": 1, "dropped": 0, "opened": 3, "accepted": 0, "retransmits": 2,
            "rtt_p50": 120_000, "rtt_p99": null,
        }))
        .unwrap();
        let text = shown(&[row]);
        let words: Vec<_> = text.lines().nth(1).unwrap().split_whitespace().collect();
        let wanted = ["default", "web", "db", "1.50MB", "90B", "0", "3", "0", "2", "120µs", "-"];
        assert_eq!(words, wanted);
    }
}
