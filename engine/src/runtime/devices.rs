//! Which device files a container gets, and which it may open.

use crate::{error::Error, spec::HostConfig};

/// One device that a container may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceRule {
    pub block: bool,
    /// `None`: any.
    pub major: Option<u32>,
    /// `None`: any.
    pub minor: Option<u32>,
    /// Of `r`, `w` and `m` (mknod).
    pub access: String,
}

/// What a container may open: Docker's defaults and what was asked for.
///
/// # Errors
/// `Invalid` in Docker's words: the host has no such device.
pub fn devices(host: &HostConfig) -> Result<Vec<DeviceRule>, Error> {
    let _ = host;
    unimplemented!()
}
