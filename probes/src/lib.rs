//! Loads and pins the eBPF programs; guard and trace.
#![forbid(unsafe_code)]
