//! A build of twelve steps in two stages: with nothing known, and with all.

use crate::{
    bar::Bar,
    cli::Cli,
    images::whole,
    rounds::{each, rows, timed, timed_each},
    subject::{NAME, Subject, VERSION},
    table::{Line, Table, Unit},
};
use anyhow::{Context, Result};
use std::{
    fs::{self, File},
    io::Write,
    path::Path,
};

const COLD: usize = 5;
const CACHED: usize = 10;
const DOCKERFILE: &str = "\
FROM tritium-bench AS tools
WORKDIR /src
COPY lib lib
RUN cat lib/* | sort -u >/words
RUN mkdir -p /out/bin && cp /bin/busybox /out/bin/tool && md5sum lib/* >/out/sums
FROM tritium-bench
LABEL tritium-bench=
ENV APP=/app
COPY --from=tools /out /usr/local
COPY app /app
RUN chown -R nobody /app && wc -c /usr/local/sums >/app/size
CMD [\"/usr/local/bin/tool\", \"true\"]
";

pub(crate) fn measure(
    dir: &Path,
    cli: Option<&Cli>,
    subjects: &mut [Subject],
    table: &mut Table,
) -> Result<()> {
    let context = dir.join("context");
    write(&context)?;
    let mut archive = tar::Builder::new(Vec::new());
    archive.append_dir_all(".", &context)?;
    let archive = archive.into_inner()?;
    let bars = [
        ("cold", true, COLD, Bar::Docker(2.0 / 3.0)),
        ("cached", false, CACHED, Bar::Docker(1.0 / 3.0)),
    ];
    for (what, cold, rounds, bar) in bars {
        let rows = timed_each(subjects, rounds, |subject| classic(subject, &archive, cold))?;
        let what = format!("build of 12 steps, {what}, both classic");
        table.add(Line::new(&what, Unit::Milliseconds, rows).bar(bar));
    }
    let Some(cli) = cli else { return Ok(()) };
    // Without buildx there is no BuildKit to compare with.
    let count = if cli.buildx { subjects.len() } else { 1 };
    let subjects = &mut subjects[..count];
    for (what, cold, rounds, bar) in bars {
        let mut took = rows(subjects);
        each(subjects, rounds, |subject, index| {
            took[index].push(timed(|| by_cli(cli, subject, &context, cold))?);
            Ok(())
        })?;
        let what = format!("build of 12 steps, {what}, CLI, dockerd by BuildKit");
        table.add(Line::new(&what, Unit::Milliseconds, took).bar(bar));
    }
    Ok(())
}

/// Some 200 files, 4 MB.
fn write(context: &Path) -> Result<()> {
    let put = |path: &Path, text: &str| -> Result<()> {
        let written = File::create(path).and_then(|mut file| file.write_all(text.as_bytes()));
        written.with_context(|| format!("cannot write {}", path.display()))
    };
    for (folder, count, lines) in [("lib", 40, 200), ("app", 160, 2000)] {
        let folder = context.join(folder);
        fs::create_dir_all(&folder)?;
        for number in 0..count {
            let lines = (0..lines).map(|line| format!("{number} {}\n", line * 7919 % 1000));
            put(&folder.join(format!("part-{number}")), &lines.collect::<String>())?;
        }
    }
    put(&context.join("Dockerfile"), DOCKERFILE)
}

fn classic(subject: &mut Subject, context: &[u8], cold: bool) -> Result<()> {
    let path = format!(
        "{VERSION}/build?version=1&t={NAME}-built&rm=1&forcerm=1&nocache={}",
        u8::from(cold)
    );
    whole(&subject.client.send("POST", &path, "application/x-tar", context)?)
}

fn by_cli(cli: &Cli, subject: &Subject, context: &Path, cold: bool) -> Result<()> {
    let kit = if subject.name == "dockerd" { "1" } else { "0" };
    let context = context.to_str().context("the directory's name is not text")?;
    let name = format!("{NAME}-built");
    let mut arguments = vec!["build", "--quiet", "--tag", &name];
    if cold {
        arguments.push("--no-cache");
    }
    arguments.push(context);
    cli.run(subject, &arguments, &[("DOCKER_BUILDKIT", kit)])
}
