//! Docker's JSON, in Docker's spelling and order; one file per resource.
//!
//! `null`, `[]` and an absent field differ in Docker's answers, and clients
//! rely on it: hence the `Option`s and the attributes.

pub(super) mod archive;
pub(super) mod container;
pub(super) mod exec;
pub(super) mod image;
pub(super) mod network;
pub(super) mod stats;
pub(super) mod summary;
pub(super) mod system;
