//! What the engine shares with its supervisors: the protocol that they speak,
//! and how a container's root is mounted and walked.
#![forbid(unsafe_code)]
pub mod inside;
pub mod overlay;
pub mod protocol;
