//! Guard and trace against the running kernel. Needs root, BTF and a cgroup v2 tree.
#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod actor;
mod bench;
mod guard;
mod house;
mod trace;
