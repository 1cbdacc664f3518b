//! The drawing of the house: which room may use which. It fails when wrong.
#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Every room, and the rooms it may use; all may use the base.
const MAY_USE: [(&str, &[&str]); 8] = [
    ("api", &["service", "container"]),
    ("service", &["build", "container", "image", "network", "runtime", "storage"]),
    ("build", &["image", "storage"]),
    ("container", &["runtime", "network", "storage"]),
    ("image", &["storage"]),
    ("network", &[]),
    ("runtime", &[]),
    ("storage", &[]),
];
/// May be used by all, and uses no room.
const BASE: [&str; 7] =
    ["config.rs", "error.rs", "events.rs", "ids.rs", "signal.rs", "spec.rs", "telemetry.rs"];

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

/// Whether the code (not its documentation) names `crate::room`.
fn uses(file: &Path, room: &str) -> bool {
    let text = fs::read_to_string(file).unwrap();
    let code: Vec<&str> =
        text.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
    let code = code.join("\n");
    let grouped = code.split("use crate::{").skip(1).filter_map(|rest| rest.split("};").next());
    let mut names =
        grouped.flat_map(|group| group.split(|c: char| !c.is_alphanumeric() && c != '_'));
    code.contains(&format!("crate::{room}::"))
        || code.contains(&format!("crate::{room};"))
        || names.any(|name| name == room)
}

#[test]
fn rooms_use_only_what_the_drawing_allows() {
    let mut wrong = Vec::new();
    for (room, allowed) in MAY_USE {
        for (other, _) in MAY_USE {
            if other == room || allowed.contains(&other) {
                continue;
            }
            for file in files(&Path::new("src").join(room)) {
                if uses(&file, other) {
                    wrong.push(format!("{} uses {other}", file.display()));
                }
            }
        }
    }
    for file in BASE.map(|name| Path::new("src").join(name)) {
        for (room, _) in MAY_USE {
            if uses(&file, room) {
                wrong.push(format!("{} uses {room}", file.display()));
            }
        }
    }
    assert_eq!(wrong, [""; 0]);
}

#[test]
fn every_room_says_what_it_is_for() {
    for (room, _) in MAY_USE {
        let front = fs::read_to_string(Path::new("src").join(room).join("mod.rs")).unwrap();
        let words: usize = front.lines().take_while(|line| line.starts_with("//!")).count();
        assert!(words >= 4, "src/{room}/mod.rs says too little of itself");
    }
}

#[test]
fn user_space_without_the_fence_has_no_unsafe_code() {
    for root in [
        "src/lib.rs",
        "src/main.rs",
        "supervisor/src/main.rs",
        "supervisor/src/lib.rs",
        "cli/src/main.rs",
        "../probes/src/lib.rs",
        "../benches/src/main.rs",
    ] {
        let text = fs::read_to_string(root).unwrap();
        assert!(text.contains("#![forbid(unsafe_code)]"), "{root}");
    }
}

#[test]
fn architecture_names_only_files_that_exist() {
    let text = fs::read_to_string("../ARCHITECTURE.md").unwrap();
    for word in text.split('`').skip(1).step_by(2) {
        let is_path = word.ends_with(".rs") && word.contains('/') && !word.contains('*');
        assert!(!is_path || Path::new("..").join(word).exists(), "{word} is not there");
    }
}
