//! The runtime room with the real supervisor and real containers of busybox.
//! Needs root, and the supervisor built (`make build`, or see `host.rs`).
#![expect(clippy::disallowed_methods, reason = "files of a test need not survive a crash")]
#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
#![expect(clippy::wildcard_enum_match_arm, reason = "any other answer fails the test")]

mod host;
mod leftovers;
mod life;
mod limits;
mod speed;
mod streams;
mod survival;
