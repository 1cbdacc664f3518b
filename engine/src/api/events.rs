//! `GET /events`: what happened, and what happens from now on.

use super::{
    Shared,
    error::{Answer, invalid},
    extract::Params,
    filters::Filters,
    wire::system::EventMessage,
};
use crate::{events::Event, service::Scope};
use axum::{Router, body::Body, extract::State, response::Response, routing::get};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{HeaderValue, header};
use std::{collections::VecDeque, io, sync::Arc, time::Duration};
use tokio::{sync::broadcast, time::Instant};

pub(super) fn routes() -> Router<Shared> {
    Router::new().route("/events", get(events))
}

async fn events(State(shared): State<Shared>, params: Params) -> Answer {
    let since = params.moment("since")?;
    let until = params.moment("until")?;
    if let (Some(since), Some(until)) = (since, until)
        && since > until
    {
        return Err(invalid(format!(
            "`since` time ({}) cannot be after `until` time ({})",
            since.div_euclid(1_000_000_000),
            until.div_euclid(1_000_000_000)
        )));
    }
    let filters = Filters::of(&params, &[])?;
    let (past, coming) = shared.scope.events();
    let in_range = |event: &Arc<Event>| {
        since.is_some_and(|since| event.at >= since) && until.is_none_or(|until| event.at <= until)
    };
    let past = past.into_iter().filter(|event| in_range(event) && fits(&filters, event)).collect();
    let listener = Listener { past, coming, filters, scope: shared.scope, end: until.map(instant) };
    let lines = stream::unfold(listener, |mut listener| async move {
        listener.next().await.map(|line| (line, listener))
    });
    // Headers go out with the first poll of the body, before any event.
    let mut response = Response::new(Body::from_stream(lines.fuse()));
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    Ok(response)
}

/// When to stop listening; at once for what is past.
fn instant(until: i64) -> Instant {
    let left = until.saturating_sub(crate::events::now());
    Instant::now() + Duration::from_nanos(u64::try_from(left).unwrap_or(0))
}

struct Listener {
    past: VecDeque<Arc<Event>>,
    coming: broadcast::Receiver<Arc<Event>>,
    filters: Filters,
    scope: Scope,
    end: Option<Instant>,
}

impl Listener {
    async fn next(&mut self) -> Option<io::Result<Bytes>> {
        if let Some(event) = self.past.pop_front() {
            return Some(line(&event));
        }
        let end = self.end;
        let over = async {
            match end {
                Some(end) => tokio::time::sleep_until(end).await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(over);
        loop {
            tokio::select! {
                () = &mut over => return None,
                event = self.coming.recv() => match event {
                    Ok(event) => {
                        if self.scope.sees(&event) && fits(&self.filters, &event) {
                            return Some(line(&event));
                        }
                    }
                    // One who cannot keep up must learn that something is missing.
                    Err(broadcast::error::RecvError::Lagged(missed)) => {
                        return Some(Err(io::Error::other(format!("{missed} events missed"))));
                    }
                    Err(broadcast::error::RecvError::Closed) => return None,
                }
            }
        }
    }
}

fn line(event: &Event) -> io::Result<Bytes> {
    let mut text = serde_json::to_vec(&EventMessage::from(event)).map_err(io::Error::other)?;
    text.push(b'\n');
    Ok(text.into())
}

/// moby's `daemon/events/filter.go`.
fn fits(filters: &Filters, event: &Event) -> bool {
    let name = event.attributes.get("name").map(String::as_str).unwrap_or_default();
    let of_kind = |kind: &str| {
        !filters.has(kind)
            || (event.kind == kind
                && (filters.prefix(kind, &event.actor) || filters.prefix(kind, name)))
    };
    let action = |wanted: &str| {
        let detailed = ["exec_create", "exec_start", "health_status"]
            .iter()
            .any(|word| event.action.starts_with(word));
        event.action == wanted || (detailed && event.action.starts_with(wanted))
    };
    filters.any("event", action)
        && filters.exact("type", event.kind)
        && filters.exact("scope", "local")
        && of_kind("container")
        && of_kind("network")
        && of_kind("volume")
        && of_kind("plugin")
        && image_fits(filters, event, name)
        && filters.labels("label", &event.attributes)
}

/// By the image's own name, or the name of a container's image; with or
/// without a tag.
fn image_fits(filters: &Filters, event: &Event, name: &str) -> bool {
    let image = match event.kind {
        "image" => name,
        "container" => event.attributes.get("image").map(String::as_str).unwrap_or_default(),
        _ => return !filters.has("image"),
    };
    let bare = match image.rsplit_once(':') {
        Some((bare, tag)) if !tag.contains('/') => bare,
        _ => image,
    };
    let id = event.kind == "image" && filters.exact("image", &event.actor);
    id || filters.any("image", |wanted| wanted == image || wanted == bare)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: &'static str, action: &str, image: &str) -> Event {
        Event {
            tenant: crate::ids::TenantName::operator(),
            kind,
            action: action.into(),
            actor: "abcdef".into(),
            attributes: [("name", "web"), ("image", image), ("a", "1")]
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into(),
            at: 0,
        }
    }

    fn matches(filters: &str, event: &Event) -> bool {
        let params = Params::parse(&format!("filters={filters}"));
        fits(&Filters::of(&params, &[]).unwrap(), event)
    }

    #[test]
    fn containers_are_found_by_name_or_a_prefix_of_the_id() {
        let start = event("container", "start", "busybox:latest");
        assert!(matches(r#"{"container":["web"]}"#, &start));
        assert!(matches(r#"{"container":["abc"]}"#, &start));
        assert!(!matches(r#"{"container":["x"]}"#, &start));
        assert!(!matches(r#"{"container":["web"]}"#, &event("image", "pull", "")));
    }

    #[test]
    fn actions_with_details_are_found_by_their_first_word() {
        let create = event("container", "exec_create: ls", "");
        assert!(matches(r#"{"event":["exec_create"]}"#, &create));
        assert!(!matches(r#"{"event":["star"]}"#, &event("container", "start", "")));
    }

    #[test]
    fn an_image_is_found_with_and_without_its_tag() {
        let start = event("container", "start", "localhost:5000/a:1");
        assert!(matches(r#"{"image":["localhost:5000/a"]}"#, &start));
        assert!(matches(r#"{"image":["localhost:5000/a:1"]}"#, &start));
        assert!(!matches(r#"{"image":["localhost"]}"#, &start));
        assert!(matches(r#"{"label":["a=1"],"type":["container"]}"#, &start));
    }
}
