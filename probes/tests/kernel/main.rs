//! Guard and trace against the running kernel. Needs root, BTF and a cgroup v2 tree.
#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
#![expect(clippy::print_stdout, reason = "the actor tells its parent how it went")]
#![expect(clippy::disallowed_methods, reason = "what is written is files of cgroups and of /proc")]

mod actor;
mod bench;
mod connections;
mod frames;
mod guard;
mod house;
mod names;
mod tap;
mod trace;
mod wire;
