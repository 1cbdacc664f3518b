//! Many who ask at once: lists of many containers, and single ones.

use crate::{
    bar::Bar,
    crowd,
    rounds::{each, rows},
    subject::{Subject, VERSION},
    table::{Line, Table, Unit},
};
use anyhow::{Context, Result};
use serde_json::json;

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
        lists[index].extend(crowd::ask(&subject.socket, (CLIENTS, LISTS), &list)?);
        let ids = &ids[index];
        let inspect =
            |number: usize| format!("{VERSION}/containers/{}/json", ids[number % ids.len()]);
        inspects[index].extend(crowd::ask(&subject.socket, (CLIENTS, INSPECTS), &inspect)?);
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
