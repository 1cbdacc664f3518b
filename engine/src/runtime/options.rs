//! Says at creation what would fail at start.

use crate::{error::Error, spec::HostConfig};

/// Capabilities, security options, seccomp profile, limits, tmpfs and log options.
///
/// # Errors
/// `Invalid` in Docker's words.
pub fn check(host: &HostConfig) -> Result<(), Error> {
    let _ = host;
    unimplemented!()
}
