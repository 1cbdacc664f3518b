//! `docker build` and its cache, `docker commit`.

use super::{
    Shared, credentials,
    error::{self, Answer, invalid, told},
    extract::{self, OptionalJson, Params},
    filters::Filters,
    progress::{self, Telling},
    transfer,
    wire::{build as wire, image::Told},
};
use crate::{
    error::Error,
    service::{
        BuildImage, CommitContainer, Scope,
        seen::{BuildEvent, BuildPrune, BuildRequest, Reference},
    },
    spec::{Config, HostConfig, Ulimit},
};
use axum::{Router, body::Body, extract::State, response::Response, routing::post};
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use serde_json::json;
use std::collections::BTreeMap;
use tokio::sync::mpsc;

/// Events that a client may lag behind before the build waits for it.
const AHEAD: usize = 256;
const PRUNE_FILTERS: &[&str] =
    &["description", "id", "inuse", "parent", "private", "shared", "type", "until", "unused-for"];

pub(super) fn routes() -> Router<Shared> {
    Router::new()
        .route("/build", post(build))
        .route("/build/prune", post(prune))
        .route("/build/cancel", post(cancel))
        .route("/commit", post(commit))
}

async fn build(
    State(shared): State<Shared>,
    params: Params,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let asked = asked(&params, &headers)?;
    let scope = shared.scope;
    let quiet = params.flag("q");
    let context = match params.text("remote") {
        "" | "client-session" => scope.build_context(extract::reader(body)).await?,
        remote => scope.remote_context(remote, &asked.dockerfile).await?,
    };
    let (report, events) = mpsc::channel(AHEAD);
    let work = Box::pin(async move { scope.build_image(context, asked, report).await });
    progress::tell(Classic { quiet }, work, events).await
}

/// # Errors
/// What cannot be understood, or is another builder's.
fn asked(params: &Params, headers: &HeaderMap) -> Answer<BuildImage> {
    if params.text("version") == "2" {
        return Err(error::unbuilt("docker build with BuildKit (set DOCKER_BUILDKIT=0)"));
    }
    if params.flag("squash") {
        return Err(invalid("squash is only supported with experimental mode"));
    }
    if params.some("outputs").is_some_and(|outputs| outputs != "null" && outputs != "[]") {
        return Err(error::unbuilt("docker build --output"));
    }
    let names = params.all("t").filter(|name| !name.is_empty()).map(|name| {
        let name = transfer::reference(name, "")?.or_latest();
        match name.digest() {
            Some(_) => Err(invalid("build tag cannot contain a digest")),
            None => Ok(name),
        }
    });
    let text = |name: &str| params.text(name).to_owned();
    Ok(BuildImage {
        request: BuildRequest {
            args: object(params, "buildargs")?,
            labels: object(params, "labels")?,
            target: text("target"),
            no_cache: params.flag("nocache"),
            cache_from: list(params, "cachefrom")?.unwrap_or_default(),
            pull: params.flag("pull"),
            platform: transfer::platform(params.text("platform"))?,
            auths: credentials::all_shown(headers),
            names: names.collect::<Answer<_>>()?,
            private_addresses: false,
        },
        dockerfile: params.some("dockerfile").unwrap_or("Dockerfile").to_owned(),
        host: host(params)?,
        force_remove: params.flag("forcerm"),
        keep: params.some("rm").is_some() && !params.flag("rm") && !params.flag("forcerm"),
    })
}

/// A JSON object of texts; null is none.
fn object<T: serde::de::DeserializeOwned>(
    params: &Params,
    name: &str,
) -> Answer<BTreeMap<String, T>> {
    let Some(text) = params.some(name) else { return Ok(BTreeMap::new()) };
    let read = serde_json::from_str::<Option<BTreeMap<String, T>>>(text);
    read.map(Option::unwrap_or_default)
        .map_err(|error| invalid(format!("error reading {name}: {error}")))
}

fn list<T: serde::de::DeserializeOwned>(params: &Params, name: &str) -> Answer<Option<Vec<T>>> {
    let Some(text) = params.some(name) else { return Ok(None) };
    serde_json::from_str(text).map_err(|error| invalid(format!("error reading {name}: {error}")))
}

fn host(params: &Params) -> Answer<HostConfig> {
    let number = |name: &str| params.number(name).map(|number| number.unwrap_or(0));
    let hosts = params.all("extrahosts").flat_map(|hosts| hosts.split(',')).map(str::to_owned);
    let hosts: Vec<String> = hosts.filter(|host| !host.is_empty()).collect();
    let options: Vec<String> = params.all("securityopt").map(str::to_owned).collect();
    let network = match params.text("networkmode") {
        "default" => "",
        mode => mode,
    };
    Ok(HostConfig {
        memory: number("memory")?,
        memory_swap: number("memswap")?,
        cpu_shares: number("cpushares")?,
        cpu_period: number("cpuperiod")?,
        cpu_quota: number("cpuquota")?,
        cpuset_cpus: params.text("cpusetcpus").to_owned(),
        cpuset_mems: params.text("cpusetmems").to_owned(),
        cgroup_parent: params.text("cgroupparent").to_owned(),
        shm_size: number("shmsize")?,
        network_mode: network.to_owned(),
        extra_hosts: Some(hosts).filter(|hosts| !hosts.is_empty()),
        security_opt: Some(options).filter(|options| !options.is_empty()),
        ulimits: list::<Ulimit>(params, "ulimits")?,
        ..HostConfig::default()
    })
}

/// In the words of Docker's builder.
struct Classic {
    quiet: bool,
}

impl Telling for Classic {
    type Message = BuildEvent;

    fn lines(&self, event: BuildEvent) -> Vec<Bytes> {
        match (event, self.quiet) {
            (BuildEvent::Pull(message), false) => vec![progress::line(&Told::from(message))],
            (event, quiet) => wire::lines(event, quiet),
        }
    }

    fn failure(&self, error: &Error) -> Bytes {
        wire::failure(error, told)
    }
}

async fn prune(State(shared): State<Shared>, params: Params) -> Answer {
    let filters = Filters::of(&params, PRUNE_FILTERS)?;
    let given = |name: &str| filters.values(name).next().map(str::to_owned);
    for name in PRUNE_FILTERS.iter().filter(|name| !matches!(**name, "until" | "unused-for")) {
        if given(name).is_some() {
            return Err(error::unbuilt(&format!("pruning builds by {name}")));
        }
    }
    let until = given("until").or(given("unused-for")).map(|text| before(&text)).transpose()?;
    let sizes = ["reserved-space", "keep-storage"].map(|name| params.number(name));
    let [reserved, keep] = sizes;
    let keep = reserved?.or(keep?).unwrap_or(0);
    let keep = u64::try_from(keep).unwrap_or(0);
    let how = BuildPrune { all: params.flag("all"), until, keep };
    let (gone, reclaimed) = shared.scope.prune_builds(how).await?;
    let deleted = Some(gone).filter(|gone| !gone.is_empty());
    let pruned = json!({ "CachesDeleted": deleted, "SpaceReclaimed": reclaimed });
    Ok(error::json(StatusCode::OK, &pruned))
}

/// `24h`: so long ago; else a moment.
fn before(text: &str) -> Answer<i64> {
    let ago = text.parse::<jiff::SignedDuration>().ok();
    if let Some(ago) = ago {
        let nanos = i64::try_from(ago.as_nanos()).unwrap_or(i64::MAX);
        return Ok(crate::events::now().saturating_sub(nanos));
    }
    let moment = Params::parse(&format!("t={text}")).moment("t")?;
    moment.ok_or_else(|| invalid("an empty until filter"))
}

/// A build ends when its client leaves; there is nothing that this could name.
async fn cancel(State(_): State<Shared>, params: Params) -> Answer {
    if params.some("id").is_none() {
        return Err(invalid("build ID not provided"));
    }
    Ok(Response::new(Body::empty()))
}

async fn commit(
    State(shared): State<Shared>,
    params: Params,
    OptionalJson(config): OptionalJson<Config>,
) -> Answer {
    let container = params.text("container").to_owned();
    if container.is_empty() {
        return Err(invalid("invalid name or ID supplied: \"\""));
    }
    let name = params.some("repo").map(|repo| transfer::reference(repo, params.text("tag")));
    let name = name.map(|name| name.map(Reference::or_latest));
    let asked = CommitContainer {
        container,
        name: name.transpose()?,
        comment: params.text("comment").to_owned(),
        author: params.text("author").to_owned(),
        changes: params.all("changes").map(str::to_owned).collect(),
        // Old clients said nothing, and meant yes.
        pause: params.given("pause").is_none() || params.flag("pause"),
        config,
    };
    let scope: &Scope = &shared.scope;
    let id = scope.commit_container(asked).await?;
    Ok(error::json(StatusCode::CREATED, &json!({ "Id": id.to_string() })))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(query: &str) -> Answer<BuildImage> {
        asked(&Params::parse(query), &HeaderMap::new())
    }

    #[test]
    fn a_build_is_read_from_its_query() {
        let args = "%7B%22a%22%3A%22b%22%2C%22c%22%3Anull%7D";
        let asked =
            of(&format!("t=x&t=y:1&buildargs={args}&memory=7&networkmode=default")).unwrap();
        let names: Vec<String> = asked.request.names.iter().map(|name| name.familiar()).collect();
        assert_eq!(names, ["x:latest", "y:1"]);
        assert_eq!(asked.request.args["a"].as_deref(), Some("b"));
        assert_eq!(asked.request.args["c"], None);
        assert_eq!((asked.host.memory, asked.host.network_mode.as_str()), (7, ""));
        assert_eq!(asked.dockerfile, "Dockerfile");
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for query in
            ["version=2", "squash=1", "t=BAD", "buildargs=%5B1%5D", "memory=x", "ulimits=x"]
        {
            assert!(of(query).is_err(), "{query}");
        }
    }
}
