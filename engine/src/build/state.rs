//! What a stage has become so far: an image that nobody has named yet.

use super::args::Args;
use crate::{
    error::Error,
    ids::{Digest, ImageId},
    image::{History, Image, ImageConfig, Platform},
    storage::{Pin, Store},
};
use sha2::{Digest as _, Sha256};
use std::sync::Arc;

/// As in Docker, where an image says nothing.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Configuration, layers, and what the instructions to come must know.
#[derive(Debug, Clone)]
pub(super) struct State {
    /// None: `FROM scratch` with nothing done yet.
    pub(super) id: Option<ImageId>,
    pub(super) config: ImageConfig,
    /// The configuration's bytes; `id` is their digest.
    pub(super) raw: Arc<str>,
    /// They keep the layers for as long as somebody needs this.
    pub(super) pins: Vec<Arc<Pin>>,
    pub(super) args: Args,
    /// This stage has its own `CMD`, which an `ENTRYPOINT` leaves alone.
    pub(super) cmd_set: bool,
}

/// What one instruction has added.
#[derive(Debug)]
pub(super) struct Added {
    /// How history shows it.
    pub(super) by: String,
    /// RFC 3339.
    pub(super) at: String,
    pub(super) layer: Option<Arc<Pin>>,
}

impl State {
    pub(super) fn scratch(args: Args) -> Self {
        let host = Platform::host();
        let mut config =
            ImageConfig { architecture: host.architecture, os: host.os, ..ImageConfig::default() };
        config.rootfs.kind = "layers".to_owned();
        config.config.env.push(PATH.to_owned());
        Self { id: None, config, raw: "".into(), pins: Vec::new(), args, cmd_set: false }
    }

    /// # Errors
    /// The image has just been removed.
    pub(super) fn of_image(store: &Store, image: &Image, args: Args) -> Result<Self, Error> {
        let pin = |digest: &Digest| {
            let gone = || Error::NotFound(format!("No such image: {}", image.id));
            store.pin_layer(*digest).map(Arc::new).ok_or_else(gone)
        };
        let pins = image.layers.iter().map(pin).collect::<Result<_, _>>()?;
        let (config, raw) = (image.config.clone(), image.raw.clone());
        let mut state = Self { id: Some(image.id), config, raw, pins, args, cmd_set: false };
        state.begin_stage();
        Ok(state)
    }

    /// Another stage stands on this one.
    pub(super) fn next_stage(&self, args: Args) -> Self {
        let mut state = Self { args, cmd_set: false, ..self.clone() };
        state.begin_stage();
        state
    }

    fn begin_stage(&mut self) {
        let env = &mut self.config.config.env;
        if !env.iter().any(|entry| entry.starts_with("PATH=")) {
            env.insert(0, PATH.to_owned());
        }
    }

    pub(super) fn layers(&self) -> Vec<Digest> {
        self.pins.iter().map(|pin| pin.digest()).collect()
    }

    /// What a name in an instruction stands for: the environment before the
    /// build's arguments.
    pub(super) fn look(&self, name: &str) -> Option<String> {
        let env = &self.config.config.env;
        let set = env.iter().find_map(|entry| {
            entry.split_once('=').filter(|(key, _)| *key == name).map(|(_, value)| value.to_owned())
        });
        let args = || self.args.visible(env).into_iter().find(|(key, _)| key == name);
        set.or_else(|| args().map(|(_, value)| value))
    }

    pub(super) fn shell(&self) -> Vec<String> {
        match self.config.config.shell.as_slice() {
            [] => vec!["/bin/sh".to_owned(), "-c".to_owned()],
            shell => shell.to_vec(),
        }
    }

    /// How history shows what runs nothing.
    pub(super) fn nop(&self, what: &str) -> String {
        format!("{} #(nop) {what}", self.shell().join(" "))
    }

    /// Takes in what an instruction has done; its change of the configuration
    /// has been made.
    ///
    /// # Errors
    /// The image would have too many layers.
    pub(super) fn commit(&mut self, added: Added) -> Result<ImageId, Error> {
        let Added { by, at, layer } = added;
        let config = &mut self.config;
        config.created = Some(at.clone());
        config.comment.clear();
        config.docker_version.clear();
        config.history.push(History {
            created: Some(at),
            author: config.author.clone(),
            created_by: by,
            comment: String::new(),
            empty_layer: layer.is_none(),
        });
        if let Some(pin) = layer {
            if self.pins.len() == crate::storage::MOST_LAYERS {
                return Err(Error::Invalid("max depth exceeded".to_owned()));
            }
            config.rootfs.diff_ids.push(pin.digest());
            self.pins.push(pin);
        }
        let raw = serde_json::to_string(config)
            .map_err(|source| Error::internal("write the image's configuration", source))?;
        let id = Digest::of(Sha256::digest(&raw).into());
        self.raw = raw.into();
        self.id = Some(id);
        Ok(id)
    }

    /// As an image, for a container to run.
    pub(super) fn image(&self) -> Image {
        Image {
            id: self.id.unwrap_or_else(|| Digest::of([0; 32])),
            config: self.config.clone(),
            raw: self.raw.clone(),
            layers: self.layers(),
            size: 0,
            repo_tags: Vec::new(),
            repo_digests: Vec::new(),
            parent: None,
            tagged_at: 0,
        }
    }
}
