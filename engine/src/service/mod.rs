//! What Tritium promises: tenancy, policy, the order of steps.
//!
//! No method exists without a tenant: [`Engine::tenant`] gives a [`Scope`],
//! and a scope sees its own tenant's things only. Another tenant's container
//! is "No such container", never "not yours".
//!
//! Used by `api` only.

mod containers;

pub use containers::{CreateContainer, Created};

use crate::{events::Events, ids::TenantName};

/// The engine as a whole; cheap to clone.
#[derive(Debug, Clone)]
pub struct Engine {
    pub(crate) events: Events,
}

impl Engine {
    /// What one tenant may see and do.
    #[must_use]
    pub fn tenant(&self, tenant: TenantName) -> Scope {
        Scope { engine: self.clone(), tenant }
    }
}

/// One tenant's private Docker host; cheap to clone.
#[derive(Debug, Clone)]
pub struct Scope {
    pub(crate) engine: Engine,
    pub(crate) tenant: TenantName,
}
