//! Prometheus' text: exponential histograms as classic ones, whose bounds are bounds of the same grid.

use std::fmt::Write as _;

use crate::{
    histogram::upper_bound,
    metrics::{Family, Kind, Point, Value, families},
    sample::Snapshot,
};

/// Powers of two of a second that are bounds: 2^-23 s (119 ns) to 2^6 s. One per octave: a
/// series each, for each system call of each watched container.
const OCTAVES: std::ops::RangeInclusive<i32> = -23..=6;

/// The snapshot as Prometheus' text exposition format 0.0.4, to be served as
/// `text/plain; version=0.0.4; charset=utf-8`.
#[must_use]
pub fn prometheus_text(snapshot: &Snapshot) -> String {
    let mut text = String::new();
    for family in families(snapshot) {
        write_family(&mut text, &family).expect("writing to a String cannot fail");
    }
    text
}

fn write_family(text: &mut String, family: &Family) -> std::fmt::Result {
    let name = family.metric.prometheus_name();
    let kind = match family.metric.kind {
        Kind::Gauge => "gauge",
        Kind::Counter => "counter",
        Kind::Histogram => "histogram",
    };
    writeln!(text, "# HELP {name} {}", family.metric.help)?;
    writeln!(text, "# TYPE {name} {kind}")?;
    for point in &family.points {
        write_point(text, &name, point)?;
    }
    Ok(())
}

fn write_point(text: &mut String, name: &str, point: &Point) -> std::fmt::Result {
    let labels = labels(point);
    match &point.value {
        Value::Count(count) => writeln!(text, "{name}{} {count}", braced(&labels)),
        Value::Seconds(time) => writeln!(text, "{name}{} {}", braced(&labels), time.as_secs_f64()),
        Value::Durations { zero, buckets, sum } => {
            let comma = if labels.is_empty() { "" } else { "," };
            for octave in OCTAVES {
                let last = 16 * octave - 1;
                let within: u64 = buckets
                    .iter()
                    .filter(|(index, _)| *index <= last)
                    .map(|(_, count)| count)
                    .sum();
                let bound = upper_bound(last);
                writeln!(text, "{name}_bucket{{{labels}{comma}le=\"{bound}\"}} {}", zero + within)?;
            }
            let count = zero + buckets.iter().map(|(_, count)| count).sum::<u64>();
            writeln!(text, "{name}_bucket{{{labels}{comma}le=\"+Inf\"}} {count}")?;
            writeln!(text, "{name}_sum{} {}", braced(&labels), sum.as_secs_f64())?;
            writeln!(text, "{name}_count{} {count}", braced(&labels))
        }
    }
}

fn labels(point: &Point) -> String {
    let written: Vec<String> = point
        .labels
        .iter()
        .map(|(key, value)| format!("{}=\"{}\"", key.replace('.', "_"), escaped(value)))
        .collect();
    written.join(",")
}

fn braced(labels: &str) -> String {
    if labels.is_empty() { String::new() } else { format!("{{{labels}}}") }
}

/// Label values are hostile: names of images and containers come from users.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
