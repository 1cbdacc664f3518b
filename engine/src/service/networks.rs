//! Networks as one tenant sees them: Docker's three, until users can make more.

use super::Scope;
use crate::{
    error::Error,
    ids::{ContainerId, NetworkId},
    network::{Endpoint, Network},
};
use sha2::{Digest, Sha256};

/// One network.
#[derive(Debug, Clone)]
pub struct NetworkView {
    pub name: &'static str,
    pub driver: &'static str,
    pub id: NetworkId,
    /// What `bridge` is made of; the others need nothing.
    pub bridge: Option<Network>,
    /// Who is on it, by id and name.
    pub members: Vec<(ContainerId, String, Option<Endpoint>)>,
}

impl Scope {
    /// `bridge`, `none` and `host`, in Docker's order.
    ///
    /// # Errors
    /// The bridge cannot be made or looked at.
    pub async fn networks(&self) -> Result<Vec<NetworkView>, Error> {
        let bridge = self.engine.tools.networks.describe(&self.tenant).await?;
        let id = bridge.id;
        Ok(vec![
            self.view("bridge", "bridge", id, Some(bridge)),
            self.view("none", "null", self.stable_id("none"), None),
            self.view("host", "host", self.stable_id("host"), None),
        ])
    }

    /// By name, id or a prefix of an id that is one only.
    ///
    /// # Errors
    /// `NotFound`; `Invalid` for an ambiguous prefix.
    pub async fn network(&self, reference: &str) -> Result<NetworkView, Error> {
        let mut all = self.networks().await?;
        let exact =
            all.iter().position(|it| it.name == reference || it.id.to_string() == reference);
        if let Some(at) = exact {
            return Ok(all.swap_remove(at));
        }
        let missing = || Error::NotFound(format!("network {reference} not found"));
        if reference.is_empty() {
            return Err(missing());
        }
        all.retain(|network| network.id.to_string().starts_with(reference));
        match (all.pop(), all.pop()) {
            (Some(network), None) => Ok(network),
            (Some(_), Some(_)) => Err(Error::Invalid(format!("network {reference} is ambiguous"))),
            (None, _) => Err(missing()),
        }
    }

    fn view(
        &self,
        name: &'static str,
        driver: &'static str,
        id: NetworkId,
        bridge: Option<Network>,
    ) -> NetworkView {
        let containers = self.containers();
        let members = containers
            .iter()
            .filter(|container| container.state.is_up())
            .filter_map(|container| {
                let endpoint = container.record.endpoints.get(name)?;
                let record = &container.record;
                Some((record.id, record.name.clone(), endpoint.endpoint.clone()))
            })
            .collect();
        NetworkView { name, driver, id, bridge, members }
    }

    /// The id of a network that is nothing but a name: the same for ever, and
    /// another one for each tenant of each engine.
    fn stable_id(&self, name: &str) -> NetworkId {
        let text = format!("{}/{}/{name}", self.engine.about.id, self.tenant);
        NetworkId::of(Sha256::digest(text.as_bytes()).into())
    }
}
