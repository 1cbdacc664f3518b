//! Images of a gigabyte: pulled, saved, loaded.

mod made;
mod registry;

use crate::{
    bar::Bar,
    rounds::{each, rows, timed},
    subject::{Subject, VERSION, proc_field},
    table::{Line, Table, Unit, milliseconds},
    tritiumd::Tritiumd,
};
use anyhow::{Context, Result, bail, ensure};
use registry::Registry;
use std::{
    fs::{self, File},
    io::{Write, sink},
    path::Path,
};

const ROUNDS: usize = 3;
const REPOSITORY: &str = "tritium-bench/big";

pub(crate) fn measure(
    dir: &Path,
    daemon: &Tritiumd,
    subjects: &mut [Subject],
    table: &mut Table,
) -> Result<()> {
    let layout = dir.join("layout");
    made::write(&layout)?;
    let registries: Vec<Registry> = subjects
        .iter()
        .map(|subject| Registry::start(dir, subject.client.listener()?))
        .collect::<Result<_>>()?;
    let first = registries.first().context("no engine")?;
    first.push(&layout, REPOSITORY)?;
    fs::remove_dir_all(&layout)?;
    let name = format!("{}/{REPOSITORY}", registry::ADDRESS);
    let archive = dir.join("big.tar");
    if let Some(last) = subjects.last_mut() {
        // What all of them load: dockerd's own archive, where there is one.
        pull(last, &name)?;
        let path = format!("{VERSION}/images/get?names={name}");
        last.client.download(&path, &mut File::create(&archive)?)?;
        last.remove_image(&name)?;
        daemon.settle()?;
    }
    let measured = rounds(daemon, subjects, &name, &archive);
    fs::remove_file(&archive)?;
    tell(measured?, table);
    Ok(())
}

#[derive(Default)]
struct Figures {
    pulls: Vec<crate::table::Row>,
    pull_peaks: Vec<crate::table::Row>,
    saves: Vec<crate::table::Row>,
    loads: Vec<crate::table::Row>,
    load_peaks: Vec<crate::table::Row>,
}

fn rounds(
    daemon: &Tritiumd,
    subjects: &mut [Subject],
    name: &str,
    archive: &Path,
) -> Result<Figures> {
    let (mut pulls, mut pull_peaks) = (rows(subjects), rows(subjects));
    let (mut loads, mut load_peaks) = (rows(subjects), rows(subjects));
    let mut saves = rows(subjects);
    each(subjects, ROUNDS, |subject, index| {
        let (took, peak) = watched(subject, |subject| pull(subject, name))?;
        pulls[index].push_figure(took);
        pull_peaks[index].push_figure(peak);
        daemon.settle()?;
        saves[index].push_figure(watched(subject, |subject| save(subject, name))?.0);
        subject.remove_image(name)?;
        daemon.settle()?;
        let (took, peak) = watched(subject, |subject| load(subject, archive))?;
        loads[index].push_figure(took);
        load_peaks[index].push_figure(peak);
        subject.remove_image(name)?;
        daemon.settle()
    })?;
    Ok(Figures { pulls, pull_peaks, saves, loads, load_peaks })
}

fn tell(figures: Figures, table: &mut Table) {
    let half = Bar::Docker(0.5);
    let memory = Bar::AtMost(100.0);
    let mut add = |what: &str, unit, rows, bar| table.add(Line::new(what, unit, rows).bar(bar));
    add("pull of 10 layers, 1 GB", Unit::Milliseconds, figures.pulls, half);
    add("engine's peak memory, pull", Unit::Mebibytes, figures.pull_peaks, memory);
    add("load of 1 GB", Unit::Milliseconds, figures.loads, half);
    add("engine's peak memory, load", Unit::Mebibytes, figures.load_peaks, memory);
    add("save of 1 GB", Unit::Milliseconds, figures.saves, half);
}

/// How many milliseconds it took, and the most memory in MiB that the engine
/// had meanwhile (proc(5): VmHWM, reset by clear_refs).
fn watched(
    subject: &mut Subject,
    work: impl FnOnce(&mut Subject) -> Result<()>,
) -> Result<(f64, f64)> {
    let pid = subject.client.listener()?;
    File::options().write(true).open(format!("/proc/{pid}/clear_refs"))?.write_all(b"5")?;
    let took = timed(|| work(subject))?;
    let peak = proc_field(&format!("/proc/{pid}/status"), "VmHWM:")?;
    Ok((milliseconds(took), peak / 1024.0))
}

fn pull(subject: &mut Subject, name: &str) -> Result<()> {
    let path = format!("{VERSION}/images/create?fromImage={name}&tag=latest");
    whole(&subject.client.call("POST", &path, "")?)
}

fn save(subject: &mut Subject, name: &str) -> Result<()> {
    let path = format!("{VERSION}/images/get?names={name}");
    let size = subject.client.download(&path, &mut sink())?;
    ensure!(size > 1_000_000_000, "only {size} bytes were saved");
    Ok(())
}

fn load(subject: &mut Subject, archive: &Path) -> Result<()> {
    whole(&subject.client.upload(&format!("{VERSION}/images/load?quiet=1"), archive)?)
}

/// Whether a stream of progress ended well.
pub(crate) fn whole(stream: &str) -> Result<()> {
    match stream.lines().find(|line| line.contains("\"errorDetail\"")) {
        Some(line) => bail!("{line}"),
        None => Ok(()),
    }
}
