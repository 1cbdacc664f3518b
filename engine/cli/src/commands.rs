//! Everything but `doctor`: ask, shape, print.

use crate::{
    client::{Client, escaped},
    table::{self, Side},
    units,
};
use hyper::Method;
use serde::Deserialize;
use serde_json::json;
use std::{
    io::{IsTerminal, Write},
    time::Duration,
};

/// A watch redraws that often.
pub(crate) const REDRAW: Duration = Duration::from_secs(1);
/// Clears a terminal: cursor home, erase below (ECMA-48).
const CLEAR: &str = "\x1b[H\x1b[2J";

#[derive(Debug, Deserialize)]
struct Tenant {
    name: String,
    containers: u64,
    images: u64,
}

#[derive(Debug, Deserialize)]
struct Table {
    container: String,
    name: String,
    tenant: String,
    watched: u64,
    lost: u64,
    rows: Vec<Row>,
}

#[derive(Debug, Deserialize)]
struct Row {
    name: String,
    calls: u64,
    errors: u64,
    errnos: Vec<(String, u64)>,
    p50: Option<u64>,
    p90: Option<u64>,
    p99: Option<u64>,
    p999: Option<u64>,
    max: Option<u64>,
}

#[derive(Debug, Deserialize)]
struct Denial {
    tenant: String,
    container: String,
    name: String,
    rule: String,
    count: u64,
}

/// What is written before a page that replaces the last one.
pub(crate) fn clear() -> &'static str {
    if std::io::stdout().is_terminal() { CLEAR } else { "" }
}

pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

pub(crate) async fn create(client: &Client, name: &str) -> anyhow::Result<()> {
    let body = json!({ "name": name });
    client.tell(Method::POST, "/tritium/tenants", Some(body)).await?;
    print(&format!("{name}\n"))
}

pub(crate) async fn remove(client: &Client, name: &str) -> anyhow::Result<()> {
    let path = format!("/tritium/tenants/{}", escaped(name));
    client.tell(Method::DELETE, &path, None).await?;
    print(&format!("{name}\n"))
}

pub(crate) async fn list(client: &Client) -> anyhow::Result<()> {
    let tenants: Vec<Tenant> = client.get("/tritium/tenants").await?;
    let rows = tenants
        .into_iter()
        .map(|tenant| vec![tenant.name, tenant.containers.to_string(), tenant.images.to_string()]);
    let columns = [("TENANT", Side::Left), ("CONTAINERS", Side::Right), ("IMAGES", Side::Right)];
    print(&table::render(&columns, &rows.collect::<Vec<_>>()))
}

pub(crate) async fn denials(client: &Client) -> anyhow::Result<()> {
    let denials: Vec<Denial> = client.get("/tritium/denials").await?;
    let rows = denials.into_iter().map(|denial| {
        let id = denial.container.chars().take(12).collect();
        vec![denial.tenant, id, denial.name, denial.rule, denial.count.to_string()]
    });
    let columns = [
        ("TENANT", Side::Left),
        ("CONTAINER", Side::Left),
        ("NAME", Side::Left),
        ("RULE", Side::Left),
        ("DENIED", Side::Right),
    ];
    print(&table::render(&columns, &rows.collect::<Vec<_>>()))
}

/// Of one container, or of all.
pub(crate) async fn syscalls(
    client: &Client,
    container: Option<&str>,
    watch: bool,
    seconds: u64,
) -> anyhow::Result<()> {
    let tables = look(client, container).await?;
    // Who has just begun to count knows nothing yet.
    let fresh = tables.iter().any(|table| table.watched < 1_000_000_000);
    let mut tables =
        if fresh && !watch { count_for(client, container, seconds).await? } else { tables };
    loop {
        let clear = if watch { clear() } else { "" };
        print(&format!("{clear}{}", shown(&tables, container.is_none())))?;
        if !watch {
            return Ok(());
        }
        tokio::time::sleep(REDRAW).await;
        tables = look(client, container).await?;
    }
}

/// Asks again and again: the engine stops to count when nobody asks for long.
async fn count_for(
    client: &Client,
    container: Option<&str>,
    seconds: u64,
) -> anyhow::Result<Vec<Table>> {
    let end = tokio::time::Instant::now() + Duration::from_secs(seconds);
    loop {
        let left = end.saturating_duration_since(tokio::time::Instant::now());
        tokio::time::sleep(left.min(Duration::from_secs(5))).await;
        let tables = look(client, container).await?;
        if tokio::time::Instant::now() >= end {
            return Ok(tables);
        }
    }
}

async fn look(client: &Client, container: Option<&str>) -> anyhow::Result<Vec<Table>> {
    match container {
        Some(container) => {
            let path = format!("/tritium/syscalls?container={}", escaped(container));
            Ok(vec![client.get(&path).await?])
        }
        None => client.get("/tritium/top").await,
    }
}

fn shown(tables: &[Table], all: bool) -> String {
    let mut columns = vec![
        ("SYSCALL", Side::Left),
        ("CALLS", Side::Right),
        ("CALLS/S", Side::Right),
        ("ERRORS/S", Side::Right),
        ("P50", Side::Right),
        ("P90", Side::Right),
        ("P99", Side::Right),
        ("P99.9", Side::Right),
        ("MAX", Side::Right),
        ("ERRORS", Side::Left),
    ];
    if all {
        columns.splice(0..0, [("TENANT", Side::Left), ("CONTAINER", Side::Left)]);
    }
    let mut rows: Vec<(u64, Vec<String>)> = Vec::new();
    let mut text = String::new();
    for table in tables {
        if !all {
            let id: String = table.container.chars().take(12).collect();
            let time = units::duration(table.watched);
            text.push_str(&format!("{} ({id}), watched for {time}\n", table.name));
        }
        if table.lost > 0 {
            text.push_str(&format!("{}: {} calls were not counted\n", table.name, table.lost));
        }
        for row in &table.rows {
            let mut cells = cells(row, table.watched);
            if all {
                cells.splice(0..0, [table.tenant.clone(), table.name.clone()]);
            }
            rows.push((row.calls, cells));
        }
    }
    rows.sort_by_key(|(calls, _)| std::cmp::Reverse(*calls));
    let rows: Vec<_> = rows.into_iter().map(|(_, row)| row).collect();
    text.push_str(&table::render(&columns, &rows));
    text
}

fn cells(row: &Row, watched: u64) -> Vec<String> {
    let time = |nanos: Option<u64>| nanos.map_or_else(|| "-".into(), units::duration);
    let errnos = row.errnos.iter().map(|(name, count)| format!("{name} {count}"));
    vec![
        row.name.clone(),
        row.calls.to_string(),
        units::rate(row.calls, watched),
        units::rate(row.errors, watched),
        time(row.p50),
        time(row.p90),
        time(row.p99),
        time(row.p999),
        time(row.max),
        errnos.collect::<Vec<_>>().join(", "),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(name: &str, calls: u64) -> Table {
        serde_json::from_value(json!({
            "container": "ab".repeat(32), "name": name, "tenant": "default",
            "watched": 2_000_000_000_u64, "lost": 0,
            "rows": [{
                "name": "read", "calls": calls, "errors": 4, "errnos": [["EAGAIN", 4]],
                "p50": 1200, "p90": 1300, "p99": 1400, "p999": 1500, "max": null,
            }],
        }))
        .unwrap()
    }

    #[test]
    fn one_container_has_a_headline_and_its_rows() {
        let text = shown(&[table("web", 10)], false);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "web (abababababab), watched for 2.00s");
        let words: Vec<_> = lines[2].split_whitespace().collect();
        let wanted = [
            "read", "10", "5.00", "2.00", "1.20µs", "1.30µs", "1.40µs", "1.50µs", "-", "EAGAIN",
            "4",
        ];
        assert_eq!(words, wanted);
    }

    #[test]
    fn all_containers_are_one_list_with_the_busiest_call_first() {
        let text = shown(&[table("idle", 1), table("busy", 100)], true);
        let second = text.lines().nth(1).unwrap();
        assert!(second.starts_with("default  busy"), "{text}");
    }
}
