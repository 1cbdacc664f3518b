//! Which fields an answer of Docker Engine 28.5 has, and of what types: recorded from it
//! (`make conformance` with `--record`), so that an engine can be held against it without one there.

use serde_json::{Map, Value};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    sync::{Mutex, OnceLock},
};

const RECORDED: &str = include_str!("shapes.json");

/// Objects whose keys are names that a user chose, or things of the machine.
const BY_NAME: &[&str] = &[
    "Annotations",
    "AuxiliaryAddresses",
    "Containers",
    "DriverOpts",
    "ExposedPorts",
    "GraphDriver.Data",
    "IndexConfigs",
    "Labels",
    "LogConfig.Config",
    "Networks",
    "Options",
    "PortBindings",
    "Ports",
    "Runtimes",
    "Sysctls",
    "Tmpfs",
    "Volumes",
    "memory_stats.stats",
    "networks",
];

type Shape = BTreeMap<String, BTreeSet<String>>;

/// What to write when recording: name → shape.
pub(crate) static RECORDING: OnceLock<Mutex<BTreeMap<String, Shape>>> = OnceLock::new();

/// Every place in the value, and the types found there.
fn shape_of(value: &Value) -> Shape {
    let mut shape = Shape::new();
    walk(value, "", &mut shape);
    shape
}

fn walk(value: &Value, at: &str, shape: &mut Shape) {
    let mut note = |kind: &str| {
        shape.entry(at.to_owned()).or_default().insert(kind.to_owned());
    };
    match value {
        Value::Null => note("null"),
        Value::Bool(_) => note("boolean"),
        Value::Number(_) => note("number"),
        Value::String(_) => note("string"),
        Value::Array(items) => {
            note("array");
            items.iter().for_each(|item| walk(item, &format!("{at}[]"), shape));
        }
        Value::Object(fields) => {
            note("object");
            let by_name = BY_NAME.iter().any(|name| at.ends_with(&format!(".{name}")));
            for (name, field) in fields {
                let name = if by_name { "*" } else { name };
                walk(field, &format!("{at}.{name}"), shape);
            }
        }
    }
}

fn recorded() -> &'static BTreeMap<String, Shape> {
    static READ: OnceLock<BTreeMap<String, Shape>> = OnceLock::new();
    READ.get_or_init(|| {
        let read: Map<String, Value> = serde_json::from_str(RECORDED).unwrap();
        read.into_iter().map(|(name, shape)| (name, unpacked(&shape))).collect()
    })
}

fn unpacked(shape: &Value) -> Shape {
    let places = shape.as_object().unwrap().iter();
    let kinds = |text: &Value| text.as_str().unwrap().split('|').map(str::to_owned).collect();
    places.map(|(place, text)| (place.clone(), kinds(text))).collect()
}

/// Places below something that is empty or null here cannot be compared.
fn is_below_nothing(place: &str, shape: &Shape) -> bool {
    let dots = place.char_indices().filter(|(at, c)| *at > 0 && matches!(c, '.' | '['));
    let mut parents = dots.map(|(at, _)| place.split_at(at).0);
    let array_item_absent = place.ends_with("[]") || place.ends_with(".*");
    array_item_absent || parents.any(|parent| !shape.contains_key(parent))
}

/// Fails if the value's shape is not what was recorded under that name.
#[track_caller]
pub(crate) fn compare(host: &str, name: &str, value: &Value) {
    let shape = shape_of(value);
    if let Some(recording) = RECORDING.get() {
        recording.lock().unwrap().insert(name.to_owned(), shape);
        return;
    }
    let Some(docker) = recorded().get(name) else { panic!("no shape of {name:?} is recorded") };
    let mut wrong = Vec::new();
    for (place, kinds) in docker {
        match shape.get(place) {
            Some(here) if here.is_subset(kinds) => {}
            Some(here) => wrong.push(format!("{place} is {here:?}, not {kinds:?}")),
            None if is_below_nothing(place, &shape) => {}
            None => wrong.push(format!("{place} is missing")),
        }
    }
    for place in shape.keys() {
        if !docker.contains_key(place) && !is_below_nothing(place, docker) {
            wrong.push(format!("{place} is not Docker's"));
        }
    }
    assert!(wrong.is_empty(), "{name} at {host} has not Docker's shape: {wrong:#?}");
}

/// Writes what was recorded, in place of what was known.
pub(crate) fn write() {
    let Some(recording) = RECORDING.get() else { return };
    let packed = |shape: &Shape| -> Value {
        let text = |kinds: &BTreeSet<String>| kinds.iter().cloned().collect::<Vec<_>>().join("|");
        shape.iter().map(|(place, kinds)| (place.clone(), Value::from(text(kinds)))).collect()
    };
    let recording = recording.lock().unwrap();
    let mut all: BTreeMap<String, Shape> = recorded().clone();
    all.extend(recording.clone());
    let all: Map<String, Value> =
        all.iter().map(|(name, shape)| (name.clone(), packed(shape))).collect();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance/shapes.json");
    fs::write(path, serde_json::to_string_pretty(&all).unwrap() + "\n").unwrap();
}
