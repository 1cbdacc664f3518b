//! The supervisor as the engine drives it: real containers of busybox.
#![expect(clippy::disallowed_methods, reason = "files of a test need not survive a crash")]
#![expect(clippy::wildcard_enum_match_arm, reason = "any other event fails the test")]

mod harness;
mod inside;
mod life;
mod streams;
