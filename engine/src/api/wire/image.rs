//! `GET /images/json`, `/images/{name}/json`, `/images/{name}/history`.

use super::container::GraphDriver;
use crate::{
    api::human,
    service::{
        ImageUsage,
        seen::{Image, Message, Removed},
    },
};
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::{collections::BTreeMap, sync::Arc};

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(in crate::api) struct ImageSummary {
    containers: i64,
    created: i64,
    id: String,
    labels: Option<BTreeMap<String, String>>,
    parent_id: String,
    repo_digests: Vec<String>,
    repo_tags: Vec<String>,
    shared_size: i64,
    size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    virtual_size: Option<u64>,
}

impl ImageSummary {
    /// `containers`: how many use it, or -1 for not counted. `shared`: bytes of
    /// layers that other images have too, if that was asked for. `old`: for clients
    /// that still want to know a virtual size.
    pub(in crate::api) fn of(
        image: &Image,
        containers: i64,
        shared: Option<u64>,
        old: bool,
    ) -> Self {
        let labels = &image.config.config.labels;
        Self {
            containers,
            created: created(image).map_or(0, |at| at.as_second()),
            id: image.id.to_string(),
            labels: (!labels.is_empty()).then(|| labels.clone()),
            parent_id: image.parent.map(|id| id.to_string()).unwrap_or_default(),
            repo_digests: image.repo_digests.clone(),
            repo_tags: image.repo_tags.clone(),
            shared_size: shared.and_then(|bytes| i64::try_from(bytes).ok()).unwrap_or(-1),
            size: image.size,
            virtual_size: old.then_some(image.size),
        }
    }
}

impl ImageSummary {
    /// For `docker system df`, which counts what is shared.
    pub(in crate::api) fn of_usage(usage: &ImageUsage, old: bool) -> Self {
        let containers = i64::try_from(usage.containers).unwrap_or(-1);
        Self::of(&usage.image, containers, Some(usage.shared), old)
    }
}

/// When it was made, as its configuration says.
pub(in crate::api) fn created(image: &Image) -> Option<jiff::Timestamp> {
    image.config.created.as_deref()?.parse().ok()
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(in crate::api) struct ImageInspect {
    id: String,
    repo_tags: Vec<String>,
    repo_digests: Vec<String>,
    parent: String,
    comment: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    created: Option<String>,
    docker_version: String,
    author: String,
    architecture: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    variant: String,
    os: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    os_version: String,
    size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    virtual_size: Option<u64>,
    graph_driver: GraphDriver,
    #[serde(rename = "RootFS")]
    root_fs: RootFs,
    metadata: Metadata,
    config: Map<String, Value>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct RootFs {
    r#type: &'static str,
    layers: Vec<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Metadata {
    last_tag_time: String,
}

impl ImageInspect {
    pub(in crate::api) fn of(image: &Image, old: bool) -> Self {
        let config = &image.config;
        Self {
            id: image.id.to_string(),
            repo_tags: image.repo_tags.clone(),
            repo_digests: image.repo_digests.clone(),
            parent: image.parent.map(|id| id.to_string()).unwrap_or_default(),
            comment: config.comment.clone(),
            created: config.created.clone(),
            docker_version: config.docker_version.clone(),
            author: config.author.clone(),
            architecture: config.architecture.clone(),
            variant: config.variant.clone(),
            os: config.os.clone(),
            os_version: config.os_version.clone(),
            size: image.size,
            virtual_size: old.then_some(image.size),
            graph_driver: GraphDriver { data: BTreeMap::new(), name: "overlay2" },
            root_fs: RootFs {
                r#type: "layers",
                layers: image.layers.iter().map(ToString::to_string).collect(),
            },
            metadata: Metadata {
                last_tag_time: human::moment((image.tagged_at != 0).then_some(image.tagged_at)),
            },
            config: run_config(image),
        }
    }
}

/// What is not there is `null`, for clients that look before they ask.
fn run_config(image: &Image) -> Map<String, Value> {
    let mut config = Map::new();
    for name in ["Cmd", "Entrypoint", "Env", "Labels", "OnBuild", "Volumes"] {
        config.insert(name.into(), Value::Null);
    }
    for name in ["User", "WorkingDir"] {
        config.insert(name.into(), Value::String(String::new()));
    }
    if let Ok(Value::Object(own)) = serde_json::to_value(&image.config.config) {
        config.extend(own);
    }
    config
}

/// One step of an image's making.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(in crate::api) struct HistoryItem {
    comment: String,
    created: i64,
    created_by: String,
    id: String,
    size: u64,
    tags: Option<Vec<String>>,
}

/// Newest first. `sizes`: of the layers, lowest first. `line`: the image and
/// those that it was made from, newest first.
pub(in crate::api) fn history(
    image: &Image,
    sizes: &[u64],
    line: &[Arc<Image>],
) -> Vec<HistoryItem> {
    let mut sizes = sizes.iter().copied();
    let mut items: Vec<HistoryItem> = image
        .config
        .history
        .iter()
        .map(|step| {
            let at = step.created.as_deref().and_then(|at| at.parse::<jiff::Timestamp>().ok());
            HistoryItem {
                comment: step.comment.clone(),
                created: at.map_or(0, |at| at.as_second()),
                created_by: step.created_by.clone(),
                id: "<missing>".into(),
                size: if step.empty_layer { 0 } else { sizes.next().unwrap_or(0) },
                tags: None,
            }
        })
        .collect();
    items.reverse();
    for (item, image) in items.iter_mut().zip(line) {
        item.id = image.id.to_string();
        item.tags = (!image.repo_tags.is_empty()).then(|| image.repo_tags.clone());
    }
    items
}

/// One line of `docker rmi`'s answer.
pub(in crate::api) fn removed(line: &Removed) -> Value {
    match line {
        Removed::Untagged(name) => json!({ "Untagged": name }),
        Removed::Deleted(id) => json!({ "Deleted": id.to_string() }),
    }
}

/// One object of a progress stream.
#[derive(Debug, Default, Serialize)]
pub(in crate::api) struct Told {
    #[serde(skip_serializing_if = "Option::is_none")]
    stream: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<String>,
    #[serde(rename = "progressDetail", skip_serializing_if = "Option::is_none")]
    progress_detail: Option<Value>,
    /// The same as a picture, for old clients.
    #[serde(skip_serializing_if = "Option::is_none")]
    progress: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    aux: Option<Value>,
    #[serde(rename = "errorDetail", skip_serializing_if = "Option::is_none")]
    error_detail: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl From<Message> for Told {
    fn from(message: Message) -> Self {
        match message {
            Message::Status { id, status } => {
                // What is said of a layer has an empty detail, of a tag none.
                let layer = id.is_some() && !status.starts_with("Pulling from ");
                let progress_detail = layer.then(|| json!({}));
                Self { status: Some(status), id, progress_detail, ..Self::default() }
            }
            Message::Tick { id, status, detail } => Self {
                status: Some(status),
                progress: Some(human::bar(detail.current, detail.total)),
                progress_detail: serde_json::to_value(detail).ok(),
                id: Some(id),
                ..Self::default()
            },
            Message::Stream(text) => Self { stream: Some(text), ..Self::default() },
            Message::Aux(value) => {
                let progress_detail = Some(json!({}));
                Self { progress_detail, aux: Some(value), ..Self::default() }
            }
        }
    }
}

impl Told {
    /// How a stream ends that has begun well.
    pub(in crate::api) fn failure(text: &str) -> Self {
        Self {
            error_detail: Some(json!({ "message": text })),
            error: Some(text.to_owned()),
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(told: &Told) -> String {
        serde_json::to_string(told).unwrap()
    }

    #[test]
    fn progress_is_spelled_as_docker_spells_it() {
        let status = |id: Option<&str>, status: &str| {
            Told::from(Message::Status { id: id.map(str::to_owned), status: status.to_owned() })
        };
        assert_eq!(
            text(&status(Some("latest"), "Pulling from library/busybox")),
            r#"{"status":"Pulling from library/busybox","id":"latest"}"#
        );
        assert_eq!(
            text(&status(Some("1a2b"), "Pull complete")),
            r#"{"status":"Pull complete","progressDetail":{},"id":"1a2b"}"#
        );
        assert_eq!(text(&status(None, "Digest: sha256:00")), r#"{"status":"Digest: sha256:00"}"#);
    }

    #[test]
    fn a_failure_in_a_stream_is_said_twice() {
        assert_eq!(
            text(&Told::failure("no space")),
            r#"{"errorDetail":{"message":"no space"},"error":"no space"}"#
        );
    }
}
