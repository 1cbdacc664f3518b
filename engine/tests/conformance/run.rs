//! Runs the cases against an engine: several at a time, and those that concern all of it alone.

use crate::{
    Options,
    cases::{self, Case},
    host::Host,
    scene::Scene,
};
use std::{
    any::Any,
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    panic::{self, AssertUnwindSafe},
    sync::Mutex,
    time::{Duration, Instant},
};

/// What became of a case at an engine.
#[derive(Debug, Clone)]
pub(crate) enum Outcome {
    Passed,
    /// The engine says that it does not have this.
    Unbuilt,
    Failed(String),
}

type Row = (&'static Case, Outcome, Duration);

/// One engine's results, by the cases' order.
#[derive(Debug)]
pub(crate) struct Column {
    pub(crate) name: String,
    pub(crate) results: Vec<Row>,
    /// Operations of the description that were asked for.
    pub(crate) asked: usize,
    pub(crate) took: Duration,
    /// Things that were there afterwards and not before.
    pub(crate) left: Vec<String>,
    pub(crate) lost: usize,
}

thread_local! {
    /// Where the case of this thread panicked.
    static PLACE: RefCell<String> = const { RefCell::new(String::new()) };
}

pub(crate) fn all(hosts: &[Host], options: &Options) -> Vec<Column> {
    panic::set_hook(Box::new(|info| {
        let place = info.location().map(|at| format!("{}:{}", at.file(), at.line()));
        PLACE.with_borrow_mut(|known| *known = place.unwrap_or_default());
    }));
    let columns = hosts.iter().map(|host| against(host, options)).collect();
    drop(panic::take_hook());
    columns
}

fn against(host: &Host, options: &Options) -> Column {
    let began = Instant::now();
    let before = everything(host);
    let wanted = |case: &&Case| {
        options.only.is_empty() || options.only.iter().any(|part| case.full_name().contains(part))
    };
    let chosen: Vec<(usize, &'static Case)> = cases::all().filter(wanted).enumerate().collect();
    let (alone, together): (Vec<_>, Vec<_>) = chosen.into_iter().partition(|(_, c)| c.alone);
    let results = Mutex::new(BTreeMap::new());
    let work = |queue: &Mutex<Vec<(usize, &'static Case)>>| {
        loop {
            let next = queue.lock().unwrap().pop();
            let Some((number, case)) = next else { break };
            let began = Instant::now();
            let outcome = one(host, number, case);
            results.lock().unwrap().insert(number, (case, outcome, began.elapsed()));
        }
    };
    let queue = |cases: Vec<_>| Mutex::new(cases.into_iter().rev().collect::<Vec<_>>());
    let (alone, together) = (queue(alone), queue(together));
    std::thread::scope(|scope| {
        for _ in 0..options.jobs.max(1) {
            scope.spawn(|| work(&together));
        }
    });
    work(&alone);
    let mut results = results.into_inner().unwrap();
    if host.is_reference {
        again(host, &mut results);
    }
    let left = everything(host).difference(&before).cloned().collect();
    let results: Vec<_> = results.into_values().collect();
    let failed = |(_, outcome, _): &&Row| matches!(outcome, Outcome::Failed(_));
    Column {
        name: host.name.clone(),
        lost: results.iter().filter(failed).count(),
        results,
        asked: host.asked.lock().unwrap().len(),
        took: began.elapsed(),
        left,
    }
}

/// Docker Engine loses some news under load (that a container was killed for want of memory, an
/// event): a case that failed there has a second chance, alone.
fn again(host: &Host, results: &mut BTreeMap<usize, Row>) {
    let failed = results.iter_mut().filter(|(_, row)| matches!(row.1, Outcome::Failed(_)));
    for (number, (case, outcome, took)) in failed {
        let began = Instant::now();
        *outcome = one(host, *number + cases::all().count(), case);
        *took = began.elapsed();
    }
}

fn one(host: &Host, number: usize, case: &Case) -> Outcome {
    let scene = Scene::new(host, number);
    let ended = panic::catch_unwind(AssertUnwindSafe(|| (case.run)(&scene)));
    match ended {
        Ok(()) => Outcome::Passed,
        Err(_) if scene.unbuilt.get() => Outcome::Unbuilt,
        Err(payload) => {
            let place = PLACE.with_borrow(Clone::clone);
            Outcome::Failed(format!("{place}: {}", words(payload.as_ref())))
        }
    }
}

fn words(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<String>().cloned();
    text.or_else(|| payload.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .unwrap_or_else(|| "it panicked".to_owned())
}

/// What an engine has by kind and name, to be compared afterwards.
fn everything(host: &Host) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (kind, arguments) in [
        ("container", &["ps", "-aq"][..]),
        ("network", &["network", "ls", "-q"]),
        ("volume", &["volume", "ls", "-q"]),
        ("image", &["images", "-aq"]),
    ] {
        let said = host.said(arguments);
        found.extend(said.out.lines().map(|line| format!("{kind} {line}")));
    }
    found
}
