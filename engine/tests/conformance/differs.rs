//! Where Tritium is known to answer otherwise than Docker, and why.
//!
//! Such a case is counted apart while it fails; one that passes is counted as passed, and is to be
//! taken off this list.

/// A case's name as its function has it, and the reason.
pub(crate) const DIFFERS: &[(&str, &str)] = &[(
    "exec_takes_user_environment_and_workdir",
    "a container's / has the owner and mode that its image gives it; Docker's is always root's, 0755, \
     and this image's is 0700",
)];

/// Why that engine is known to differ in that case.
pub(crate) fn reason(engine: &str, case: &str) -> Option<&'static str> {
    let known = DIFFERS.iter().find(|(name, _)| engine == "tritium" && *name == case);
    known.map(|(_, why)| *why)
}
