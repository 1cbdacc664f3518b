//! Tritium as a user meets it: the real docker CLI against a real engine.
//!
//! Needs root, a kernel, and the programs that `make test` builds; each test
//! starts an engine of its own and leaves nothing behind (its `Drop` counts).
#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
#![expect(clippy::disallowed_methods, reason = "files of a test need not survive a crash")]
#![expect(clippy::string_slice, reason = "ids are ASCII")]
#![expect(clippy::print_stdout, reason = "an asker tells the test what it was answered")]

mod asker;
mod bad_input;
mod build;
mod cp;
mod crash;
mod dns;
mod engine;
mod exec;
#[path = "../../../probes/tests/kernel/frames.rs"]
mod frames;
mod health;
mod images;
mod lifecycle;
mod logs;
mod macvlan;
mod metrics;
mod network;
mod overlap;
mod run;
mod spoof;
mod stats;
mod streams;
#[path = "../../../probes/tests/kernel/tap.rs"]
mod tap;
mod tenants;
mod traffic;
mod usage;
mod volumes;
