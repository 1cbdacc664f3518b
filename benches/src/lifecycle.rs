//! What a container's life costs: start to end, exec, names, memory, and an
//! engine that comes back.

use crate::{
    Arguments,
    bar::Bar,
    floor, names,
    rounds::{each, rows, timed},
    subject::Subject,
    table::{Line, Row, Table, Unit},
    tritiumd::Tritiumd,
};
use anyhow::{Context, Result};
use serde_json::json;

pub(crate) fn measure(
    arguments: &Arguments,
    daemon: &mut Tritiumd,
    subjects: &mut [Subject],
    table: &mut Table,
) -> Result<()> {
    let floor = floor::Floor::new(&arguments.dir, &arguments.sample)?;
    for (network, most) in [("none", 10.0), ("bridge", 15.0)] {
        let mut rows = rows(subjects);
        let mut floors = Row::default();
        let host = json!({ "HostConfig": { "NetworkMode": network } });
        let mut number = 0;
        each(subjects, arguments.rounds, |subject, index| {
            if index == 0 {
                number += 1;
                floors.push(timed(|| floor.run(number, true))?);
            }
            rows[index].push(timed(|| subject.lifecycle(&host))?);
            Ok(())
        })?;
        let what = format!("create+start+wait+remove, {network}");
        let line = Line::new(&what, Unit::Milliseconds, rows).floor(floors);
        table.add(line.bar(Bar::AtMost(most)).bar(Bar::Floor(3.0)));
    }
    idle(arguments, subjects, table)?;
    let what = format!("{} names looked up", names::MANY);
    table.add(Line::new(&what, Unit::Milliseconds, look_up(subjects)?));
    restarts(arguments, daemon, &mut subjects[0], table)
}

/// What is asked of a container that runs.
fn idle(arguments: &Arguments, subjects: &mut [Subject], table: &mut Table) -> Result<()> {
    let none = json!({ "HostConfig": { "NetworkMode": "none" } });
    let ids: Vec<String> =
        subjects.iter_mut().map(|subject| subject.idle(&none)).collect::<Result<_>>()?;
    let mut execs = rows(subjects);
    each(subjects, arguments.rounds, |subject, index| {
        execs[index].push(timed(|| subject.exec(&ids[index]))?);
        Ok(())
    })?;
    table.add(Line::new("exec round trip", Unit::Milliseconds, execs).bar(Bar::AtMost(5.0)));
    let mut memory = rows(subjects);
    for ((subject, id), row) in subjects.iter_mut().zip(&ids).zip(&mut memory) {
        row.push_figure(subject.supervisor_memory(id)?);
        subject.remove(id)?;
    }
    let what = "supervisor of an idle container, PSS";
    table.add(Line::new(what, Unit::Kibibytes, memory).bar(Bar::AtMost(512.0)));
    Ok(())
}

/// podman's resolver is a program of its own that not every installation has.
fn look_up(subjects: &mut [Subject]) -> Result<Vec<Row>> {
    let count = subjects.iter().filter(|subject| subject.name != "podman").count();
    let subjects = &mut subjects[..count];
    let network = "tritium-bench-names";
    let mut pids = Vec::new();
    let mut ids = Vec::new();
    for subject in &mut *subjects {
        subject.add_network(network)?;
        let endpoint = json!({ network: { "Aliases": [network] } });
        let id = subject.idle(&json!({
            "HostConfig": { "NetworkMode": network },
            "NetworkingConfig": { "EndpointsConfig": endpoint },
        }))?;
        pids.push(subject.pid(&id)?);
        ids.push(id);
    }
    let mut rows = rows(subjects);
    each(subjects, 10, |_, index| {
        rows[index].push(names::looked_up(pids[index], network)?);
        Ok(())
    })?;
    for (subject, id) in subjects.iter_mut().zip(&ids) {
        subject.remove(id).context(subject.name)?;
        subject.remove_network(network)?;
    }
    Ok(rows)
}

/// kill -9 while a crowd of containers runs.
fn restarts(
    arguments: &Arguments,
    daemon: &mut Tritiumd,
    subject: &mut Subject,
    table: &mut Table,
) -> Result<()> {
    let none = json!({ "HostConfig": { "NetworkMode": "none" } });
    let crowd: Vec<String> =
        (0..arguments.crowd).map(|_| subject.idle(&none)).collect::<Result<_>>()?;
    let mut restarts = Row::default();
    for _ in 0..5 {
        restarts.push(daemon.crash_and_restart()?);
    }
    subject.reconnect()?;
    let mut each = Row::default();
    if let Some(id) = crowd.first() {
        each.push_figure(subject.supervisor_memory(id)?);
    }
    for id in &crowd {
        subject.remove(id)?;
    }
    let what = format!("engine start with {} containers", crowd.len());
    table.add(Line::new(&what, Unit::Milliseconds, vec![restarts]).bar(Bar::AtMost(1000.0)));
    let what = format!("supervisor, one of {} running, PSS", crowd.len());
    table.add(Line::new(&what, Unit::Kibibytes, vec![each]));
    Ok(())
}
