//! One process per container: holds its stdio and its exit status.
#![forbid(unsafe_code)]
fn main() {}
