//! Archives (tar): a stream into a directory, a directory into a stream.
//!
//! Why here: a layer, a build context, `docker cp`, `export` and `commit` all
//! need the same two walks, and both need the same care: names are resolved by
//! the kernel below a descriptor, links are never followed, and what is read
//! may change under the reader's hands.
//!
//! What must stay true: neither walk ever touches anything outside of the
//! directory it was given, whoever else writes there meanwhile.

mod compression;
pub mod pack;
mod stream;
pub mod unpack;

pub use compression::decompress;
pub use stream::{ahead, on_a_thread, stream};

/// What the engine puts below a container's mounts. An empty file or a directory
/// here is no part of a layer; Docker keeps these in a layer of their own.
pub const MOUNT_POINTS: [&str; 9] = [
    "dev",
    "dev/console",
    "dev/pts",
    "dev/shm",
    "etc/hostname",
    "etc/hosts",
    "etc/resolv.conf",
    "proc",
    "sys",
];

/// Attributes that go into archives and come out of them. Labels of security
/// modules are the host's business; overlayfs's own would let a layer reach
/// into others.
fn is_portable(name: &str) -> bool {
    name == "security.capability"
        || (name.starts_with("user.") && !name.starts_with("user.overlay."))
        || name.starts_with("system.posix_acl_")
}
