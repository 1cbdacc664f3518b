//! Many who ask at once: lists of many containers, and single ones.

use crate::{
    bar::Bar,
    http::Client,
    rounds::{each, rows},
    subject::{Subject, VERSION},
    table::{Line, Table, Unit, milliseconds},
};
use anyhow::{Context, Result, anyhow};
use serde_json::json;
use std::{io::sink, path::Path, sync::Barrier, thread, time::Instant};

const CLIENTS: usize = 100;
const ROUNDS: usize = 3;
/// Questions of each client per round.
const LISTS: usize = 2;
const INSPECTS: usize = 100;

pub(crate) fn measure(count: usize, subjects: &mut [Subject], table: &mut Table) -> Result<()> {
    let none = json!({ "HostConfig": { "NetworkMode": "none" } });
    let mut ids: Vec<Vec<String>> = Vec::new();
    for subject in &mut *subjects {
        let made = (0..count).map(|_| subject.create(&["true"], &none)).collect::<Result<_>>();
        ids.push(made.context(subject.name)?);
    }
    let (mut lists, mut inspects) = (rows(subjects), rows(subjects));
    each(subjects, ROUNDS, |subject, index| {
        let list = |_| format!("{VERSION}/containers/json?all=1");
        lists[index].extend(ask(&subject.socket, LISTS, &list)?);
        let ids = &ids[index];
        let inspect = |number| format!("{VERSION}/containers/{}/json", ids[number % ids.len()]);
        inspects[index].extend(ask(&subject.socket, INSPECTS, &inspect)?);
        Ok(())
    })?;
    for (subject, ids) in subjects.iter_mut().zip(&ids) {
        for id in ids {
            subject.remove(id)?;
        }
    }
    let mut add = |what: &str, rows| {
        let what = format!("{what}, {CLIENTS} clients");
        table.add(Line::new(&what, Unit::Milliseconds, rows).bar(Bar::DockerWorst(0.2)));
    };
    add(&format!("list of {count} containers"), lists);
    add(&format!("inspect of one of {count} containers"), inspects);
    Ok(())
}

/// All clients at once, each with a connection of its own: the milliseconds of
/// every answer.
fn ask(socket: &Path, times: usize, path: &(dyn Fn(usize) -> String + Sync)) -> Result<Vec<f64>> {
    let start = Barrier::new(CLIENTS);
    let client = |number: usize| -> Result<Vec<f64>> {
        // Accepted, too: what is measured is the asking.
        let connected = Client::connect(socket).and_then(|mut client| {
            client.download("/_ping", &mut sink())?;
            Ok(client)
        });
        // Before any error: the others wait for this one.
        start.wait();
        let mut connected = connected?;
        let one = |turn: usize| {
            let since = Instant::now();
            connected.download(&path(number + turn * CLIENTS), &mut sink())?;
            Ok(milliseconds(since.elapsed()))
        };
        (0..times).map(one).collect()
    };
    let answers = thread::scope(|scope| {
        let client = &client;
        let clients: Vec<_> =
            (0..CLIENTS).map(|number| scope.spawn(move || client(number))).collect();
        let joined = clients
            .into_iter()
            .map(|it| it.join().unwrap_or_else(|_| Err(anyhow!("a client has panicked"))));
        joined.collect::<Result<Vec<_>>>()
    })?;
    Ok(answers.into_iter().flatten().collect())
}
