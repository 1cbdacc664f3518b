//! The supervisor as the engine drives it: real containers of busybox.
#![expect(clippy::disallowed_methods, reason = "files of a test need not survive a crash")]
#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod figures;
mod harness;
mod inside;
mod life;
mod streams;
