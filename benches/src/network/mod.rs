//! What a network costs: to join it, to have ports published, and per byte and
//! per question on the wire, beside a bare veth pair.

mod bare;
mod iperf;
pub(crate) mod pingpong;
mod place;

use crate::{
    bar::Bar,
    rounds::{each, rows, timed},
    subject::{NAME, Subject},
    table::{Line, Row, Table, Unit},
};
use anyhow::{Context, Result};
use bare::{Bare, Outside};
pub(crate) use place::{Place, Running};
use serde_json::{Value, json};

/// Rounds of what is a difference of two lifecycles.
const JOINS: usize = 30;
/// Rounds on the wire, and the seconds that each takes.
const FLOWS: usize = 5;
const SECONDS: u32 = 2;
const MANY_PORTS: u16 = 200;
/// Ports inside, and where they are published.
const IPERF: u16 = 5201;
const ECHO: u16 = 5202;
const PUBLISHED: u16 = 10_000;

pub(crate) fn measure(subjects: &mut [Subject], table: &mut Table) -> Result<()> {
    joins(subjects, table)?;
    ports(subjects, table)?;
    wire(subjects, table)
}

/// What a lifecycle takes longer with a network, and with a second one.
fn joins(subjects: &mut [Subject], table: &mut Table) -> Result<()> {
    let (first, second) = ("tritium-bench-1", "tritium-bench-2");
    for subject in &mut *subjects {
        subject.add_network(first)?;
        subject.add_network(second)?;
    }
    let on = |network: &str| json!({ "HostConfig": { "NetworkMode": network } });
    let mut both = on(first);
    both["NetworkingConfig"] = json!({ "EndpointsConfig": { first: {}, second: {} } });
    let ways = [on("none"), on("bridge"), on(first), both];
    let mut took = [rows(subjects), rows(subjects), rows(subjects), rows(subjects)];
    each(subjects, JOINS, |subject, index| {
        for (way, rows) in ways.iter().zip(&mut took) {
            rows[index].push(timed(|| subject.lifecycle(way))?);
        }
        Ok(())
    })?;
    for subject in &mut *subjects {
        subject.remove_network(first)?;
        subject.remove_network(second)?;
    }
    let [none, bridge, own, both] = took;
    let more = |these: &[Row], those: &[Row]| {
        these.iter().zip(those).map(|(this, that)| this.minus(that)).collect()
    };
    let line = |what, rows| Line::new(what, Unit::Milliseconds, rows);
    let limit = Bar::AtMost(3.0);
    table.add(line("a network of one's own adds to none", more(&own, &none)).bar(limit));
    table.add(line("a network of one's own adds to bridge", more(&own, &bridge)).bar(limit));
    table.add(line("a second network adds", more(&both, &own)).bar(limit));
    table.add(line("create+start+wait+remove, own network", own));
    Ok(())
}

/// What a lifecycle takes longer with many published ports.
fn ports(subjects: &mut [Subject], table: &mut Table) -> Result<()> {
    let plain = json!({ "HostConfig": { "NetworkMode": "bridge" } });
    let range = PUBLISHED..PUBLISHED + MANY_PORTS;
    let mut many = plain.clone();
    many["HostConfig"]["PortBindings"] = published(range.clone().map(|port| (port, port)));
    many["ExposedPorts"] = range.map(|port| (format!("{port}/tcp"), json!({}))).collect();
    let (mut with, mut without) = (rows(subjects), rows(subjects));
    each(subjects, 3, |subject, index| {
        without[index].push(timed(|| subject.lifecycle(&plain))?);
        with[index].push(timed(|| subject.lifecycle(&many))?);
        Ok(())
    })?;
    let more = with.iter().zip(&without).map(|(with, without)| with.minus(without)).collect();
    let what = format!("{MANY_PORTS} published ports add");
    table.add(Line::new(&what, Unit::Milliseconds, more).bar(Bar::AtMost(50.0)));
    Ok(())
}

fn published(ports: impl Iterator<Item = (u16, u16)>) -> Value {
    let bind = |(inside, host): (u16, u16)| {
        (format!("{inside}/tcp"), json!([{ "HostPort": host.to_string() }]))
    };
    ports.map(bind).collect()
}

/// Who speaks with whom, and by which address.
struct Path {
    server: Place,
    client: Place,
    address: String,
    /// Where the ports are, from the client's side.
    iperf: u16,
    echo: u16,
}

/// Two containers on one network, and a client outside, of one engine.
struct Pair {
    ids: [String; 2],
    inside: Path,
    outside: Path,
    _client: Outside,
}

impl Pair {
    fn new(subject: &mut Subject) -> Result<Self> {
        subject.add_network(NAME)?;
        let ports = [(IPERF, PUBLISHED + IPERF), (ECHO, PUBLISHED + ECHO)];
        let host = json!({ "NetworkMode": NAME });
        let mut publishing = host.clone();
        publishing["PortBindings"] = published(ports.into_iter());
        let exposed = json!({ format!("{IPERF}/tcp"): {}, format!("{ECHO}/tcp"): {} });
        let server = subject.idle(&json!({ "HostConfig": publishing, "ExposedPorts": exposed }))?;
        let client = subject.idle(&json!({ "HostConfig": host }))?;
        let seen = subject.inspect(&server)?;
        let address = seen["NetworkSettings"]["Networks"][NAME]["IPAddress"].as_str();
        let address = address.context("the container has no address")?.to_owned();
        let place = Place::container(subject.pid(&server)?)?;
        let outside = Outside::new(subject.client.listener()?)?;
        Ok(Self {
            inside: Path {
                server: place.clone(),
                client: Place::container(subject.pid(&client)?)?,
                address,
                iperf: IPERF,
                echo: ECHO,
            },
            outside: Path {
                server: place,
                client: outside.place(),
                address: outside.engine.clone(),
                iperf: PUBLISHED + IPERF,
                echo: PUBLISHED + ECHO,
            },
            ids: [server, client],
            _client: outside,
        })
    }

    fn remove(self, subject: &mut Subject) -> Result<()> {
        for id in &self.ids {
            subject.remove(id)?;
        }
        subject.remove_network(NAME)
    }
}

/// Bytes per second and questions, from container to container and from
/// outside to a published port.
fn wire(subjects: &mut [Subject], table: &mut Table) -> Result<()> {
    let bare = Bare::new()?;
    let mut pairs = Vec::new();
    for subject in &mut *subjects {
        pairs.push(Pair::new(subject).context(subject.name)?);
    }
    let (veth, bridged) = (bare.veth(), bare.bridged());
    let inside: Vec<&Path> = pairs.iter().map(|pair| &pair.inside).collect();
    let outside: Vec<&Path> = pairs.iter().map(|pair| &pair.outside).collect();
    for (what, paths) in
        [("container to container", inside), ("outside to a published port", outside)]
    {
        let floors = [&veth, &bridged];
        let all: Vec<&Path> = paths.into_iter().chain(floors).collect();
        let (mut speed, bridged) = flows(&all)?;
        let floor = speed.remove(speed.len() - 1);
        let line = Line::new(&format!("TCP, {what}"), Unit::Speed, speed).floor(floor);
        table.add(line.bar(Bar::Docker(1.2)).bar(Bar::Floor(0.9)));
        let what_bare = format!("TCP, bare veth and bridge, while {what}");
        table.add(Line::new(&what_bare, Unit::Speed, Vec::new()).floor(bridged));
        let (mut times, bridged) = questions(&all)?;
        let floor = times.remove(times.len() - 1);
        let line = Line::new(&format!("TCP_RR, {what}"), Unit::Microseconds, times).floor(floor);
        table.add(line.bar(Bar::Docker(0.9)).bar(Bar::DockerWorst(0.9)));
        let what_bare = format!("TCP_RR, bare veth and bridge, while {what}");
        table.add(Line::new(&what_bare, Unit::Microseconds, Vec::new()).floor(bridged));
    }
    for (subject, pair) in subjects.iter_mut().zip(pairs) {
        pair.remove(subject)?;
    }
    Ok(())
}

/// Rows of all paths but the last, and the last one's.
fn flows(paths: &[&Path]) -> Result<(Vec<Row>, Row)> {
    turns(paths, |path| {
        Ok(vec![iperf::run(&path.server, &path.client, (&path.address, path.iperf), SECONDS)?])
    })
}

fn questions(paths: &[&Path]) -> Result<(Vec<Row>, Row)> {
    turns(paths, |path| {
        pingpong::run((&path.server, ECHO), &path.client, (&path.address, path.echo))
    })
}

fn turns(paths: &[&Path], measure: impl Fn(&Path) -> Result<Vec<f64>>) -> Result<(Vec<Row>, Row)> {
    let mut rows = vec![Row::default(); paths.len()];
    for round in 0..FLOWS {
        for turn in 0..paths.len() {
            let index = (round + turn) % paths.len();
            rows[index].extend(measure(paths[index])?);
        }
    }
    let last = rows.pop().context("no path was measured")?;
    Ok((rows, last))
}
