//! A build's events as the text and objects of Docker's builder; what its
//! cache holds, as BuildKit tells of it.

use crate::{
    api::{human, progress::line},
    error::Error,
    ids::ImageId,
    service::seen::{BuildEvent, CacheUse},
};
use bytes::Bytes;
use serde::Serialize;
use serde_json::json;

fn said(text: impl Into<String>) -> Bytes {
    line(&json!({ "stream": text.into() }))
}

fn arrow(text: impl std::fmt::Display) -> Bytes {
    said(format!(" ---> {text}\n"))
}

/// What a client is told of an event. `quiet`: only the image's id.
pub(in crate::api) fn lines(event: BuildEvent, quiet: bool) -> Vec<Bytes> {
    match (event, quiet) {
        (BuildEvent::Built(id), true) => vec![said(format!("{id}\n"))],
        (_, true) => Vec::new(),
        (BuildEvent::Step { number, of, text }, _) => {
            vec![said(format!("Step {number}/{of} : {text}")), said("\n")]
        }
        (BuildEvent::Cached, _) => vec![arrow("Using cache")],
        (BuildEvent::Runs { container }, _) => vec![arrow(format!("Running in {container}"))],
        (BuildEvent::Removed { container }, _) => {
            vec![arrow(format!("Removed intermediate container {container}"))]
        }
        (BuildEvent::Said { text, complains: false }, _) => vec![said(text)],
        // In red, as Docker's own.
        (BuildEvent::Said { text, complains: true } | BuildEvent::Warning(text), _) => {
            vec![said(format!("\u{1b}[91m{text}\u{1b}[0m"))]
        }
        (BuildEvent::Became(id), _) => {
            vec![arrow(id.as_ref().map(ImageId::short).unwrap_or_default())]
        }
        (BuildEvent::Stage(id), _) => vec![line(&json!({ "aux": { "ID": id.to_string() } }))],
        (BuildEvent::Note(text), _) => vec![said(text)],
        (BuildEvent::Pull(_), _) => Vec::new(),
        (BuildEvent::Built(id), _) => vec![said(format!("Successfully built {}\n", id.short()))],
        (BuildEvent::Tagged(name), _) => vec![said(format!("Successfully tagged {name}\n"))],
    }
}

/// How a build that has begun to speak says that it has failed.
pub(in crate::api) fn failure(error: &Error, told: impl Fn(&Error) -> String) -> Bytes {
    let message = told(error);
    let detail = match error.start_code() {
        Some(code) => json!({ "code": code, "message": message }),
        None => json!({ "message": message }),
    };
    line(&json!({ "errorDetail": detail, "error": message }))
}

/// One line of `docker system df -v`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(in crate::api) struct BuildCache<'a> {
    #[serde(rename = "ID")]
    id: &'a str,
    #[serde(rename = "Type")]
    kind: &'static str,
    description: &'a str,
    in_use: bool,
    shared: bool,
    size: u64,
    created_at: String,
    last_used_at: String,
    usage_count: u64,
}

impl<'a> From<&'a CacheUse> for BuildCache<'a> {
    fn from(entry: &'a CacheUse) -> Self {
        Self {
            id: &entry.id,
            kind: "regular",
            description: &entry.description,
            in_use: entry.in_use,
            shared: entry.shared,
            size: entry.size,
            created_at: human::moment(Some(entry.made)),
            last_used_at: human::moment(Some(entry.used)),
            usage_count: entry.uses,
        }
    }
}
