//! An image's configuration, as OCI's image-spec and Docker write it.
//!
//! Read leniently, as Docker does: what is absent, null or unknown is no
//! error. The bytes themselves are kept beside it, since their digest is the
//! image's name.

use crate::spec::Empty;
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeMap;

/// The whole document.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ImageConfig {
    #[serde(deserialize_with = "or_default")]
    pub architecture: String,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub author: String,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub comment: String,
    #[serde(deserialize_with = "or_default")]
    pub config: RunConfig,
    /// RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub docker_version: String,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<History>,
    #[serde(deserialize_with = "or_default")]
    pub os: String,
    #[serde(
        rename = "os.version",
        deserialize_with = "or_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub os_version: String,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub parent: String,
    #[serde(deserialize_with = "or_default")]
    pub rootfs: RootFs,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub variant: String,
}

/// What a container of this image runs by default.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct RunConfig {
    #[serde(deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub user: String,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub exposed_ports: BTreeMap<String, Empty>,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cmd: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_false")]
    pub args_escaped: bool,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub volumes: BTreeMap<String, Empty>,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub working_dir: String,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub on_build: Vec<String>,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub stop_signal: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_timeout: Option<i64>,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub shell: Vec<String>,
}

/// How to find out whether a container is well. Durations in nanoseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Healthcheck {
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub test: Vec<String>,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_zero")]
    pub interval: i64,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_zero")]
    pub timeout: i64,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_zero")]
    pub start_period: i64,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_zero")]
    pub start_interval: i64,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_zero")]
    pub retries: i64,
}

/// The layers, by diff id.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RootFs {
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(deserialize_with = "or_default")]
    pub diff_ids: Vec<crate::ids::Digest>,
}

/// How one layer came to be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct History {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub author: String,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub created_by: String,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub comment: String,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_false")]
    pub empty_layer: bool,
}

/// Go's JSON reads null as the zero value, and images rely on it.
fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_false(value: &bool) -> bool {
    !value
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(value: &i64) -> bool {
    *value == 0
}
