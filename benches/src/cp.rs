//! `docker cp` of a gigabyte, in and out, by the CLI.

use crate::{
    bar::Bar,
    cli::Cli,
    rounds::{each, rows, timed},
    subject::Subject,
    table::{Line, Table, Unit},
    tritiumd::Tritiumd,
};
use anyhow::{Context, Result};
use serde_json::json;
use std::{
    fs::{self, File},
    io::Write,
    path::Path,
};

const ROUNDS: usize = 3;
const SIZE: usize = 1 << 30;

pub(crate) fn measure(
    dir: &Path,
    cli: &Cli,
    daemon: &Tritiumd,
    subjects: &mut [Subject],
    table: &mut Table,
) -> Result<()> {
    let path = dir.join("gigabyte");
    write(&path).with_context(|| format!("cannot write {}", path.display()))?;
    let from = path.to_str().context("the directory's name is not text")?;
    let none = json!({ "HostConfig": { "NetworkMode": "none" } });
    let (mut inwards, mut outwards) = (rows(subjects), rows(subjects));
    each(subjects, ROUNDS, |subject, index| {
        let id = subject.idle(&none)?;
        daemon.settle()?;
        let inside = format!("{id}:/gigabyte");
        inwards[index].push(timed(|| cli.run(subject, &["cp", "--quiet", from, &inside], &[]))?);
        daemon.settle()?;
        // To a pipe that nobody keeps: how fast it comes, not how it is written.
        outwards[index].push(timed(|| cli.run(subject, &["cp", &inside, "-"], &[]))?);
        subject.remove(&id)?;
        daemon.settle()
    })?;
    fs::remove_file(&path)?;
    let mut add = |what, rows| {
        table.add(Line::new(what, Unit::Milliseconds, rows).bar(Bar::Docker(1.0)));
    };
    add("docker cp of 1 GB, in", inwards);
    add("docker cp of 1 GB, out", outwards);
    Ok(())
}

/// A gigabyte without holes.
fn write(path: &Path) -> std::io::Result<()> {
    let mut file = File::create(path)?;
    let block: Vec<u8> =
        (0..1u32 << 18).flat_map(|word| word.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    for _ in 0..SIZE / block.len() {
        file.write_all(&block)?;
    }
    Ok(())
}
