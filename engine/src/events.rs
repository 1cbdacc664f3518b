//! The broadcast of what happened; `docker events` listens.

use crate::ids::TenantName;
use serde::Serialize;
use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex},
};
use tokio::sync::broadcast;

/// How many past events `docker events --since` can still show (Docker keeps
/// as many).
const KEPT: usize = 256;

/// One thing that happened.
#[derive(Debug, Clone, Serialize)]
pub struct Event {
    #[serde(skip)]
    pub tenant: TenantName,
    /// `container`, `image`, `network`, `volume`, `daemon`.
    pub kind: &'static str,
    /// Docker's word: `create`, `die`, `exec_create: ls`.
    pub action: String,
    /// The id (container, network) or the name (image, volume).
    pub actor: String,
    pub attributes: BTreeMap<String, String>,
    /// Nanoseconds since 1970.
    pub at: i64,
}

/// A cheap handle on the broadcast.
#[derive(Debug, Clone)]
pub struct Events {
    sender: broadcast::Sender<Arc<Event>>,
    past: Arc<Mutex<VecDeque<Arc<Event>>>>,
}

impl Default for Events {
    fn default() -> Self {
        Self { sender: broadcast::channel(1024).0, past: Arc::default() }
    }
}

impl Events {
    /// Tells everybody who listens.
    pub fn publish(&self, event: Event) {
        let event = Arc::new(event);
        let mut past = self.past.lock().expect("no panic happens under this lock");
        if past.len() == KEPT {
            past.pop_front();
        }
        past.push_back(event.clone());
        // Sent under the lock, so that `subscribe` sees each event once.
        // An error only says that nobody listens.
        drop(self.sender.send(event));
    }

    /// What happened lately, and what happens from now on; no gap, no overlap.
    #[must_use]
    pub fn subscribe(&self) -> (Vec<Arc<Event>>, broadcast::Receiver<Arc<Event>>) {
        let past = self.past.lock().expect("no panic happens under this lock");
        (past.iter().cloned().collect(), self.sender.subscribe())
    }
}

/// Now, in nanoseconds since 1970.
#[must_use]
pub fn now() -> i64 {
    i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX)
}
