//! Where Tritium is known to answer otherwise than Docker, and why.
//!
//! Such a case is counted apart, and one that passes after all has to be taken off this list: it only
//! ever says what is so.

/// A case's name as its function has it, and the reason.
pub(crate) const DIFFERS: &[(&str, &str)] = &[];

/// Why that engine is known to differ in that case.
pub(crate) fn reason(engine: &str, case: &str) -> Option<&'static str> {
    let known = DIFFERS.iter().find(|(name, _)| engine == "tritium" && *name == case);
    known.map(|(_, why)| *why)
}
