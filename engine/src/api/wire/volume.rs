//! `GET /volumes`, `GET /volumes/{name}`.

use crate::{api::human, service::VolumeView};
use serde::Serialize;
use std::collections::BTreeMap;

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(in crate::api) struct Volume {
    created_at: String,
    driver: &'static str,
    labels: Option<BTreeMap<String, String>>,
    mountpoint: String,
    name: String,
    options: Option<BTreeMap<String, String>>,
    scope: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage_data: Option<Usage>,
}

/// What `docker system df` adds.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Usage {
    ref_count: usize,
    size: u64,
}

/// Docker asks the file system when a volume was made, and says no more.
fn whole_second(nanos: i64) -> i64 {
    nanos - nanos.rem_euclid(1_000_000_000)
}

impl Volume {
    /// `size`: bytes in it, if that was asked for.
    pub(in crate::api) fn of(view: &VolumeView, size: Option<u64>) -> Self {
        let volume = &view.used.volume;
        let options = volume.options.clone();
        let ref_count = view.used.users.len();
        Self {
            created_at: human::moment(Some(whole_second(volume.created))),
            driver: "local",
            labels: volume.labels.clone(),
            mountpoint: view.path.to_string_lossy().into_owned(),
            name: volume.name.to_string(),
            options: (!options.is_empty()).then_some(options),
            scope: "local",
            usage_data: size.map(|size| Usage { ref_count, size }),
        }
    }
}
