//! What Tritium promises: tenancy, policy, the order of steps.
//!
//! No method exists without a tenant: [`Engine::tenant`] gives a [`Scope`],
//! and a scope sees its own tenant's things only. Another tenant's container
//! is "No such container", never "not yours".
//!
//! Used by `api` only (and by `daemon`, which builds the engine).

mod build;
mod commit;
mod conflicts;
mod containers;
mod create;
mod endpoints;
mod images;
mod metrics;
mod modes;
mod mounts;
mod names;
mod network_plan;
mod networks;
pub mod operator;
mod policy;
mod prune;
pub mod seen;
mod start;
mod system;
mod tenants;
mod usage;
mod volumes;

pub use build::BuildImage;
pub use commit::CommitContainer;
pub use containers::{CreateContainer, Created};
pub use metrics::Requests;
pub use network_plan::{CreateNetwork, IpamPool};
pub use networks::{Member, NetworkView, networks_on_record};
pub use prune::Pruned;
pub use start::{Found, find, known, restore};
pub use system::{Counts, Host, LayerPlaces, Places};
pub use tenants::Tenants;
pub use usage::{ContainerSize, ImageUsage};
pub use volumes::{CreateVolume, VolumeView};

use crate::{build::Builder, container::Tools, ids::TenantName, image::Images};
use std::sync::Arc;

/// The engine as a whole; cheap to clone.
#[derive(Debug, Clone)]
pub struct Engine {
    pub(crate) tools: Tools,
    pub(crate) images: Images,
    pub(crate) builder: Builder,
    pub(crate) tenants: Tenants,
    /// How many were answered, for the exporters.
    pub(crate) requests: Requests,
    /// What this engine is and where it runs: for `info` and `version`.
    pub(crate) about: Arc<About>,
}

/// What `docker info` says of the engine itself.
#[derive(Debug, Clone)]
pub struct About {
    pub state_dir: std::path::PathBuf,
    /// Stable over restarts.
    pub id: String,
    pub started: jiff::Timestamp,
}

impl Engine {
    /// The rooms, put together.
    #[must_use]
    pub fn new(
        tools: Tools,
        (images, builder): (Images, Builder),
        tenants: Tenants,
        about: About,
    ) -> Self {
        Self {
            tools,
            images,
            builder,
            tenants,
            requests: Requests::default(),
            about: Arc::new(about),
        }
    }

    /// What one tenant may see and do.
    #[must_use]
    pub fn tenant(&self, tenant: TenantName) -> Scope {
        Scope { engine: Arc::new(self.clone()), tenant }
    }
}

/// One tenant's private Docker host; cheap to clone.
#[derive(Debug, Clone)]
pub struct Scope {
    /// Counted once: every request clones a scope.
    pub(crate) engine: Arc<Engine>,
    pub(crate) tenant: TenantName,
}
