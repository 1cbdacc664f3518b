//! The runtime room with the real supervisor and real containers of busybox.
//! Needs root, and the supervisor built (`make build`, or see `host.rs`).
#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
#![expect(clippy::wildcard_enum_match_arm, reason = "any other outcome fails the test")]
#![expect(clippy::disallowed_methods, reason = "files of a test need not survive a crash")]

mod host;
mod leftovers;
mod life;
mod limits;
mod speed;
mod streams;
mod survival;
