//! Which system calls a container may make.
//!
//! `default.json` is the policy of Docker 28.5 as data, in the form that
//! `--security-opt seccomp=FILE` reads too: one parser, one compiler. Programs
//! are kept by profile and capabilities, since nearly all containers have the
//! same; the default one is compiled when the engine starts (about 5 ms).
//!
//! What must stay true: a profile that cannot be read or compiled stops the
//! container; it never runs with a weaker one.

mod compile;
mod packet;
mod profile;
mod shrink;

use super::capabilities::Set;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex},
};

pub(super) use packet::NO_PACKET_SOCKETS;
pub(super) use profile::{BadProfile, Profile};

/// Docker's own.
const DEFAULT: &str = include_str!("default.json");
/// Programs kept; the oldest goes first.
const KEPT: usize = 64;

/// What `--security-opt seccomp=` says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum Policy {
    #[default]
    Default,
    Unconfined,
    /// The profile's text.
    Custom(String),
}

/// Why there is no program.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failed {
    #[error(transparent)]
    Profile(#[from] BadProfile),
    #[error("cannot compile the seccomp profile")]
    Compile(#[source] compile::Failed),
}

/// Compiled programs.
#[derive(Debug, Default)]
pub(super) struct Programs {
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    by_policy: HashMap<(Option<String>, Set), Arc<str>>,
    order: VecDeque<(Option<String>, Set)>,
}

impl Programs {
    /// The program for a container with these capabilities, in base64;
    /// `None`: unconfined.
    pub(super) fn get(
        &self,
        policy: &Policy,
        capabilities: Set,
    ) -> Result<Option<Arc<str>>, Failed> {
        let custom = match policy {
            Policy::Unconfined => return Ok(None),
            Policy::Default => None,
            Policy::Custom(text) => Some(text.clone()),
        };
        let key = (custom, capabilities);
        let seen = self.lock().by_policy.get(&key).cloned();
        if seen.is_some() {
            return Ok(seen);
        }
        let profile = Profile::parse(key.0.as_deref().unwrap_or(DEFAULT))?;
        let program = compile::compile(&profile, capabilities).map_err(Failed::Compile)?;
        let text: Arc<str> = STANDARD.encode(program).into();
        let mut kept = self.lock();
        if kept.by_policy.insert(key.clone(), text.clone()).is_none() {
            kept.order.push_back(key);
        }
        if kept.order.len() > KEPT
            && let Some(oldest) = kept.order.pop_front()
        {
            kept.by_policy.remove(&oldest);
        }
        Ok(Some(text))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.kept.lock().expect("no panic happens under this lock")
    }
}

#[cfg(test)]
mod tests;
