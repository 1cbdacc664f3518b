//! How a layer's archive is made again from its directory.
//!
//! A layer's archive is not kept beside what was unpacked from it, but its
//! exact bytes are wanted again: `docker save` and `docker push` must give
//! archives with the layer's digest. So, while an archive is unpacked,
//! everything of it that is no file's content (headers, padding, order) is
//! written to a recipe, compressed, and a file's content is a reference to
//! the file in the layer.
//!
//! ```text
//! recipes/NAME/archive   the recipe of layers/NAME
//! recipes/NAME/7         the content of the archive's eighth file, where a
//!                        later entry of the archive has replaced that file
//! ```
//!
//! A layer that never was an archive (a build made it) gets its recipe when
//! somebody wants the archive for the first time: see [`learn`].
//!
//! What must stay true: who reads an archive to its end without an error has
//! got the bytes of the layer's digest; that is checked each time, since a
//! directory may have been changed by hand or by a bad disk.

mod learn;
mod read;
mod write;

pub use read::LayerArchive;
pub use write::RecipeWriter;
pub(super) use write::{Noted, Shared};

/// The recipe's own file.
const FILE: &str = "archive";

/// First in it; another number would be another format.
const MAGIC: &[u8; 8] = b"tritium1";

/// `length: u32`, bytes.
const BYTES: u8 = 0;
/// `size: u64`, `length: u16`, path.
const CONTENT: u8 = 1;
/// `total: u64`: nothing is missing.
const END: u8 = 2;
