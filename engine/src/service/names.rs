//! Names for containers that got none: two words, as Docker's.

/// Some name; two calls may answer the same.
pub(super) fn random() -> String {
    let name = petname::petname(2, "_");
    name.unwrap_or_else(|| crate::ids::ContainerId::of(crate::ids::random()).short())
}
