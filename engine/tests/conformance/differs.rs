//! Where Tritium is known to answer otherwise than Docker, and why.
//!
//! Such a case is counted apart while it fails; one that passes is counted as passed, and is to be
//! taken off this list.

/// A case's name as its function has it, and the reason.
pub(crate) const DIFFERS: &[(&str, &str)] = &[
    (
        "info_tells_of_tcp_limits_where_the_machine_has_them",
        "a limit on a container's TCP buffers (KernelMemoryTCP, control groups of version 1) is not honoured",
    ),
    (
        "a_plain_container_may_ping",
        "a raw socket wants `--cap-add NET_RAW` by name, so that nobody can be spoofed unasked",
    ),
];

/// Why that engine is known to differ in that case.
pub(crate) fn reason(engine: &str, case: &str) -> Option<&'static str> {
    let known = DIFFERS.iter().find(|(name, _)| engine == "tritium" && *name == case);
    known.map(|(_, why)| *why)
}
