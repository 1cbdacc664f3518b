//! tritiumd: the Docker Engine API on bare metal.
//!
//! One request walks down this list; nothing calls up.
//!
//! | room | what it is for | may use |
//! |---|---|---|
//! | [`api`] | Docker's HTTP, and only that | `service` |
//! | [`service`] | what Tritium promises: tenancy, policy, order of steps | `build`, `container`, `image`, `network`, `storage` |
//! | [`build`] | images from Dockerfiles | `image`, `storage` |
//! | [`container`] | one container's life | `runtime`, `network`, `storage` |
//! | [`image`] | names and bytes of images | `storage` |
//! | [`network`], [`runtime`], [`storage`] | the kernel's side of things | only the base |
//!
//! The base is `ids`, `signal`, `spec`, `error`, `events`, `config`, `telemetry`, and may be used by
//! all. `tests/layers.rs` is this table as a test.
#![forbid(unsafe_code)]

pub mod api;
pub mod build;
pub mod config;
pub mod container;
pub mod daemon;
pub mod error;
pub mod events;
pub mod ids;
pub mod image;
pub mod network;
pub mod runtime;
pub mod service;
pub mod signal;
pub mod spec;
pub mod storage;
pub mod telemetry;
