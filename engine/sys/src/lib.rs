//! The system-call fence: what nix and rustix lack, made safe.

pub mod bpf;
