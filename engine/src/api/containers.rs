//! Containers: list, make, look at, rename, change, remove.

use super::{
    Shared,
    error::{self, Answer, invalid, unbuilt},
    extract::{Json, Params},
    filters::Filters,
    version::{self, Version},
    wire::{container::Inspect, summary::Summary},
};
use crate::{
    error::Error,
    service::{
        CreateContainer, Scope,
        seen::{Snapshot, Update},
    },
    spec::{Config, HostConfig, NetworkingConfig},
};
use axum::{
    Extension, Router,
    extract::{Path, State},
    routing::{delete, get, post},
};
use http::StatusCode;
use serde::Deserialize;
use serde_json::json;
use std::sync::Arc;

const LIST_FILTERS: &[&str] = &[
    "ancestor",
    "before",
    "exited",
    "expose",
    "health",
    "id",
    "is-task",
    "isolation",
    "label",
    "name",
    "network",
    "publish",
    "since",
    "status",
    "volume",
];
const STATES: &[&str] =
    &["created", "restarting", "running", "removing", "paused", "exited", "dead"];

const HEALTH: &[&str] = &["none", "starting", "healthy", "unhealthy"];

pub(super) fn routes() -> Router<Shared> {
    Router::new()
        .route("/containers/json", get(list))
        .route("/containers/create", post(create))
        .route("/containers/prune", post(prune))
        .route("/containers/{id}/json", get(inspect))
        .route("/containers/{id}/top", get(top))
        .route("/containers/{id}/rename", post(rename))
        .route("/containers/{id}/update", post(update))
        .route("/containers/{id}", delete(remove))
}

async fn list(State(shared): State<Shared>, params: Params) -> Answer {
    let filters = Filters::of(&params, LIST_FILTERS)?;
    let scope = &shared.scope;
    let query = Query::of(&filters, scope)?;
    let limit = params.number("limit")?.and_then(|limit| usize::try_from(limit).ok());
    let limit = limit.filter(|limit| *limit > 0);
    let all = params.flag("all")
        || limit.is_some()
        || ["status", "exited", "before", "since"].iter().any(|name| filters.has(name));
    let size = params.flag("size");
    let now = crate::events::now();
    let wanted = scope.containers().into_iter().filter(|it| all || is_running(it));
    let wanted = wanted.filter(|it| query.fits(it)).take(limit.unwrap_or(usize::MAX));
    let summaries: Vec<_> = wanted
        .map(|snapshot| {
            let image = scope.image(&snapshot.record.config.image).ok();
            let same = image.filter(|image| image.id == snapshot.record.image);
            let name = match &same {
                Some(_) => snapshot.record.config.image.clone(),
                None => snapshot.record.image.to_string(),
            };
            let size = size.then(|| same.map_or(0, |image| image.size));
            Summary::of(&snapshot, name, size, now)
        })
        .collect();
    Ok(error::json(StatusCode::OK, &summaries))
}

/// As Docker sees it: also while it waits to be restarted.
fn is_running(snapshot: &Snapshot) -> bool {
    snapshot.state.is_up() || snapshot.state.name() == "restarting"
}

/// The filters of a list, resolved.
struct Query<'a> {
    filters: &'a Filters,
    names: Vec<regex_lite::Regex>,
    exited: Vec<i32>,
    before: Option<i64>,
    since: Option<i64>,
    ancestors: Vec<crate::ids::ImageId>,
}

impl<'a> Query<'a> {
    fn of(filters: &'a Filters, scope: &Scope) -> Answer<Self> {
        let wrong = |name: &str, value: &str| invalid(format!("invalid filter '{name}={value}'"));
        if let Some(state) = filters.values("status").find(|state| !STATES.contains(state)) {
            return Err(wrong("status", state));
        }
        let exited = filters.values("exited");
        let exited = exited.map(|code| {
            code.parse().map_err(|_| {
                let why = format!("strconv.Atoi: parsing {code:?}: invalid syntax");
                invalid(format!("invalid filter 'exited={code}': {why}"))
            })
        });
        if let Some(health) = filters.values("health").find(|health| !HEALTH.contains(health)) {
            return Err(invalid(format!(
                "invalid filter 'health={health}': invalid value for health ({health}): must be \
                 one of none, starting, healthy, unhealthy"
            )));
        }
        for name in ["publish", "expose"] {
            if let Some(wanted) = filters.values(name).find(|wanted| !is_port(wanted)) {
                return Err(invalid(format!(
                    "error while looking up for {name} {wanted}: strconv.ParseUint: parsing \
                     {wanted:?}: invalid syntax"
                )));
            }
        }
        filters.flag("is-task")?;
        let names = filters
            .values("name")
            .map(|name| regex_lite::Regex::new(name).map_err(|_| wrong("name", name)));
        let created = |name: &str| -> Answer<Option<i64>> {
            let reference = filters.values(name).next();
            let handle = reference.map(|reference| scope.container(reference)).transpose()?;
            Ok(handle.map(|handle| handle.snapshot().record.created))
        };
        let ancestors = filters.values("ancestor").filter_map(|name| scope.image(name).ok());
        Ok(Self {
            filters,
            names: names.collect::<Answer<_>>()?,
            exited: exited.collect::<Answer<_>>()?,
            before: created("before")?,
            since: created("since")?,
            ancestors: ancestors.map(|image| image.id).collect(),
        })
    }

    fn fits(&self, snapshot: &Snapshot) -> bool {
        let (filters, record) = (self.filters, &snapshot.record);
        let slashed = format!("/{}", record.name);
        let named =
            |name: &regex_lite::Regex| name.is_match(&record.name) || name.is_match(&slashed);
        let exited =
            snapshot.state.name() == "exited" && self.exited.contains(&snapshot.state.exit_code());
        let labels = record.config.labels.clone().unwrap_or_default();
        (self.names.is_empty() || self.names.iter().any(named))
            && (self.exited.is_empty() || exited)
            && self.before.is_none_or(|before| record.created < before)
            && self.since.is_none_or(|since| record.created > since)
            && (!filters.has("ancestor") || self.ancestors.contains(&record.image))
            && filters.prefix("id", &record.id.hex())
            && filters.exact("status", snapshot.state.name())
            && filters.labels("label", &labels)
            && filters.flag("is-task").is_ok_and(|wanted| wanted != Some(true))
            && filters.exact("health", record.health.as_ref().map_or("none", |it| it.status.name()))
            && self.connected(snapshot)
    }

    fn connected(&self, snapshot: &Snapshot) -> bool {
        let (filters, record) = (self.filters, &snapshot.record);
        let on = |wanted: &str| {
            record.endpoints.iter().any(|(name, endpoint)| {
                let id = endpoint.endpoint.as_ref().map(|it| it.network_id.to_string());
                name == wanted || id.is_some_and(|id| id.starts_with(wanted))
            })
        };
        let published = |wanted: &str| {
            record.published.iter().any(|it| port(wanted, it.host_port, &it.proto.to_string()))
        };
        let offered = |wanted: &str| {
            record.published.iter().any(|it| port(wanted, it.container_port, &it.proto.to_string()))
        };
        let exposed = |wanted: &str| {
            record.config.exposed_ports.iter().flatten().any(|(text, _)| {
                let (number, proto) = text.split_once('/').unwrap_or((text, "tcp"));
                number.parse().is_ok_and(|number| port(wanted, number, proto))
            })
        };
        let mounted = |wanted: &str| {
            let mut mounts = record.mounts.iter();
            mounts.any(|it| it.destination == wanted || it.source.to_str() == Some(wanted))
        };
        filters.any("network", on)
            && filters.any("publish", published)
            && filters.any("expose", |wanted| exposed(wanted) || offered(wanted))
            && filters.any("volume", mounted)
    }
}

/// Whether it is one port or a range.
fn is_port(wanted: &str) -> bool {
    let range = wanted.split('/').next().unwrap_or(wanted);
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    first.parse::<u16>().is_ok() && last.parse::<u16>().is_ok()
}

/// `80`, `80/tcp`, `80-90/udp`.
fn port(wanted: &str, number: u16, proto: &str) -> bool {
    let (range, wanted_proto) = wanted.split_once('/').unwrap_or((wanted, "tcp"));
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let within = |first: u16, last: u16| (first..=last).contains(&number);
    wanted_proto == proto
        && first.parse().is_ok_and(|first| last.parse().is_ok_and(|last| within(first, last)))
}

/// The body of a creation: three objects in one.
#[derive(Debug, Deserialize)]
struct CreateBody {
    #[serde(flatten)]
    config: Config,
    #[serde(rename = "HostConfig", default)]
    host: Option<HostConfig>,
    #[serde(rename = "NetworkingConfig", default)]
    networking: Option<NetworkingConfig>,
}

impl CreateBody {
    /// What came with a later version of the API than the client speaks is not
    /// meant (moby's `postContainersCreate`).
    fn as_of(&mut self, version: Version) {
        let host = self.host.get_or_insert_default();
        if version < Version::one(40) && host.ipc_mode.is_empty() {
            host.ipc_mode = "shareable".into();
        }
        if version < Version::one(42) {
            host.console_size = [0, 0];
        }
        if version < Version::one(43) {
            host.annotations = None;
        }
        if version < Version::one(44)
            && let Some(check) = &mut self.config.healthcheck
        {
            check.start_interval = None;
        }
    }
}

async fn create(
    State(shared): State<Shared>,
    params: Params,
    version: Option<Extension<Version>>,
    Json(body): Json<Option<CreateBody>>,
) -> Answer {
    let Some(mut body) = body else {
        return Err(invalid("config cannot be empty in order to create a container"));
    };
    body.as_of(version.map_or(version::NEWEST, |Extension(version)| version));
    let request = CreateContainer {
        name: params.some("name").map(str::to_owned),
        platform: params.some("platform").map(str::to_owned),
        config: body.config,
        host: body.host.unwrap_or_default(),
        networking: body.networking.unwrap_or_default(),
    };
    let created = shared.scope.create_container(request).await?;
    let answer = json!({ "Id": created.id.hex(), "Warnings": created.warnings });
    Ok(error::json(StatusCode::CREATED, &answer))
}

async fn inspect(State(shared): State<Shared>, Path(id): Path<String>) -> Answer {
    let scope = &shared.scope;
    let snapshot = scope.container(&id)?.snapshot();
    let execs = scope.execs(snapshot.record.id).iter().map(|exec| exec.id().hex()).collect();
    let places = scope.places(&snapshot.record);
    Ok(error::json(StatusCode::OK, &Inspect::of(&snapshot, &places, execs)))
}

async fn top(State(shared): State<Shared>, Path(id): Path<String>, params: Params) -> Answer {
    let top = shared.scope.container(&id)?.top(params.text("ps_args")).await?;
    let answer = json!({ "Processes": top.processes, "Titles": top.titles });
    Ok(error::json(StatusCode::OK, &answer))
}

async fn rename(
    State(shared): State<Shared>,
    Path(id): Path<String>,
    params: Params,
) -> Answer<StatusCode> {
    shared.scope.rename_container(&id, params.text("name")).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn update(
    State(shared): State<Shared>,
    Path(id): Path<String>,
    Json(change): Json<Update>,
) -> Answer {
    let warnings = shared.scope.update_container(&id, change).await?;
    let warnings = (!warnings.is_empty()).then_some(warnings);
    Ok(error::json(StatusCode::OK, &json!({ "Warnings": warnings })))
}

async fn remove(
    State(shared): State<Shared>,
    Path(id): Path<String>,
    params: Params,
) -> Answer<StatusCode> {
    if params.flag("link") {
        return Err(unbuilt("removing a link"));
    }
    shared.scope.container(&id)?.remove(params.flag("force"), &id).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn prune(State(shared): State<Shared>, params: Params) -> Answer {
    let filters = Filters::of(&params, &["label", "label!", "until"])?;
    let now = crate::events::now();
    let until = filters.values("until").map(|text| until(text, now)).collect::<Answer<Vec<_>>>()?;
    let wanted = |snapshot: &Arc<Snapshot>| {
        let labels = snapshot.record.config.labels.clone().unwrap_or_default();
        filters.labels("label", &labels)
            && !(filters.has("label!") && filters.labels("label!", &labels))
            && until.iter().all(|until| snapshot.record.created < *until)
    };
    let mut deleted = Vec::new();
    for snapshot in shared.scope.containers().iter().filter(|it| !is_running(it)) {
        if !wanted(snapshot) {
            continue;
        }
        let id = snapshot.record.id.hex();
        let Ok(handle) = shared.scope.container(&id) else { continue };
        match handle.remove(false, &handle.id().hex()).await {
            Ok(()) => deleted.push(id),
            // Started, or removed by somebody else, since we looked.
            Err(Error::Conflict(_) | Error::NotFound(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let deleted = (!deleted.is_empty()).then_some(deleted);
    let answer = json!({ "ContainersDeleted": deleted, "SpaceReclaimed": 0 });
    Ok(error::json(StatusCode::OK, &answer))
}

/// A moment, or a time before now: `10m`, `1h30m`, `24h`.
pub(super) fn until(text: &str, now: i64) -> Answer<i64> {
    if let Ok(ago) = text.parse::<jiff::SignedDuration>() {
        let ago = i64::try_from(ago.as_nanos()).unwrap_or(i64::MAX);
        return Ok(now.saturating_sub(ago));
    }
    let params = Params::parse(&format!("until={}", text.replace('+', "%2B")));
    Ok(params.moment("until")?.unwrap_or(now))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_body_of_a_creation_is_three_objects_in_one() {
        let body: CreateBody = super::super::extract::from_json(
            br#"{"Image":"busybox","Cmd":"ls","Env":null,"HostConfig":{"Memory":7000000},
                "NetworkingConfig":{"EndpointsConfig":{"bridge":null}},"Unknown":1}"#,
        )
        .unwrap();
        assert_eq!(body.config.image, "busybox");
        assert_eq!(body.config.cmd, Some(vec!["ls".to_owned()]));
        assert_eq!(body.host.unwrap().memory, 7_000_000);
        assert!(body.networking.unwrap().endpoints_config.contains_key("bridge"));
    }

    #[test]
    fn what_a_client_is_too_old_to_know_it_does_not_mean() {
        let json = br#"{"Healthcheck":{"StartInterval":5000000},
            "HostConfig":{"Annotations":{"a":"b"},"ConsoleSize":[1,2]}}"#;
        let of = |minor| {
            let mut body: CreateBody = super::super::extract::from_json(json).unwrap();
            body.as_of(Version::one(minor));
            (body.config.healthcheck.unwrap().start_interval, body.host.unwrap())
        };
        let (interval, host) = of(44);
        assert_eq!((interval, host.console_size), (Some(5_000_000), [1, 2]));
        assert!(host.annotations.is_some() && host.ipc_mode.is_empty());
        let (interval, host) = of(39);
        assert_eq!((interval, host.console_size), (None, [0, 0]));
        assert!(host.annotations.is_none() && host.ipc_mode == "shareable");
    }

    #[test]
    fn ports_are_found_by_number_range_and_protocol() {
        assert!(port("80", 80, "tcp"));
        assert!(port("80-90/udp", 85, "udp"));
        assert!(!port("80", 80, "udp"));
        assert!(!port("x", 80, "tcp"));
    }

    #[test]
    fn old_is_what_was_made_before_a_moment_or_that_long_ago() {
        let hour = 3_600_000_000_000;
        assert_eq!(until("1h", 5 * hour).unwrap(), 4 * hour);
        assert_eq!(until("1h30m", 5 * hour).unwrap(), 5 * hour - hour - hour / 2);
        assert_eq!(until("7", 0).unwrap(), 7_000_000_000);
        assert!(until("nope", 0).is_err());
    }
}
