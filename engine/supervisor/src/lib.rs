//! The protocol that the engine speaks with its supervisors.
#![forbid(unsafe_code)]
pub mod protocol;
