//! Networks as one tenant sees them: Docker's three, and those it makes.

use super::{CreateNetwork, Scope, endpoints, network_plan, policy};
use crate::{
    container::{Handle, Joining},
    error::Error,
    events::{self, Event},
    ids::ContainerId,
    network::{self, Definition, Driver, Endpoint, Network},
    spec::EndpointSettings,
    storage::{Batch, Store, Table},
};

/// One network, and who is on it.
#[derive(Debug, Clone)]
pub struct NetworkView {
    pub network: Network,
    pub members: Vec<Member>,
}

/// A container on a network.
#[derive(Debug, Clone)]
pub struct Member {
    pub id: ContainerId,
    pub name: String,
    /// None on `host` and `none`.
    pub endpoint: Option<Endpoint>,
}

/// Every network of every tenant that is on record.
///
/// # Errors
/// The store cannot be read.
pub async fn networks_on_record(store: &Store) -> Result<Vec<Definition>, Error> {
    let all = store.all::<Definition>(Table::Networks).await;
    let all = all.map_err(|error| Error::internal("cannot read the networks", error))?;
    Ok(all.into_iter().map(|(_, definition)| definition).collect())
}

fn key(definition: &Definition) -> String {
    format!("{}/{}", definition.tenant, definition.id)
}

impl Scope {
    /// All of them: `bridge`, `none` and `host` first.
    ///
    /// # Errors
    /// The bridge cannot be made or looked at.
    pub async fn networks(&self) -> Result<Vec<NetworkView>, Error> {
        let networks = self.engine.tools.networks.list(&self.tenant).await?;
        Ok(networks.into_iter().map(|network| self.view(network)).collect())
    }

    /// By name, id or a prefix of an id that is one only.
    ///
    /// # Errors
    /// `NotFound`; `Invalid` for an ambiguous prefix.
    pub async fn network(&self, reference: &str) -> Result<NetworkView, Error> {
        Ok(self.view(self.find_network(reference).await?))
    }

    async fn find_network(&self, reference: &str) -> Result<Network, Error> {
        let all = self.engine.tools.networks.list(&self.tenant).await?;
        let found = endpoints::find(&all, reference)?.cloned();
        found.ok_or_else(|| Error::NotFound(format!("network {reference} not found")))
    }

    fn view(&self, network: Network) -> NetworkView {
        let name = &network.definition.name;
        let containers = self.containers();
        let members = containers
            .iter()
            .filter(|container| container.state.is_up())
            .filter_map(|container| {
                let record = &container.record;
                let endpoint = record.endpoints.get(name)?.endpoint.clone();
                let bare = !network.definition.driver.is_joined();
                let there = bare || endpoint.is_some();
                there.then(|| Member { id: record.id, name: record.name.clone(), endpoint })
            })
            .collect();
        NetworkView { network, members }
    }

    /// Makes a network; it is on disk when this returns.
    ///
    /// # Errors
    /// `Conflict` for the name, `Invalid` and `Denied` for what is asked.
    pub async fn create_network(&self, request: CreateNetwork) -> Result<Definition, Error> {
        let scope = self.clone();
        // On a task of its own: a client that leaves now leaves nothing half made.
        let made =
            self.engine.tools.tracker.spawn(async move { scope.make_network(request).await });
        made.await.map_err(|error| Error::internal("the creation's task failed", error))?
    }

    async fn make_network(&self, request: CreateNetwork) -> Result<Definition, Error> {
        let tools = &self.engine.tools;
        let others = tools.networks.list(&self.tenant).await?;
        let definition = network_plan::plan(&self.tenant, request, &others)?;
        let own = others.iter().filter(|network| !self.is_predefined(&network.definition));
        policy::allow_network(&definition, own.count())?;
        let definition = tools.networks.create(definition).await?;
        let batch = Batch::default().put(Table::Networks, key(&definition), &definition);
        if let Err(error) = tools.store.commit(batch).await {
            tools.networks.remove(definition.id, true).await?;
            let doing = format!("cannot record network {}", definition.name);
            return Err(Error::internal(doing, error));
        }
        self.announce_network("create", &definition);
        Ok(definition)
    }

    /// Removes a network that nobody is on.
    ///
    /// # Errors
    /// `NotFound`; `Denied` if containers are on it.
    pub async fn remove_network(&self, reference: &str) -> Result<(), Error> {
        let network = self.find_network(reference).await?;
        let scope = self.clone();
        let gone = self.engine.tools.tracker.spawn(async move { scope.unmake(network).await });
        gone.await.map_err(|error| Error::internal("the removal's task failed", error))?
    }

    async fn unmake(&self, network: Network) -> Result<(), Error> {
        let tools = &self.engine.tools;
        let definition = network.definition;
        let name = &definition.name;
        if self.is_predefined(&definition) {
            return Err(Error::Denied(format!(
                "{name} is a pre-defined network and cannot be removed"
            )));
        }
        tools.networks.retire(definition.id).await.map_err(|error| self.still_used(error))?;
        let batch = Batch::default().remove(Table::Networks, key(&definition));
        let removed = tools.store.commit(batch).await;
        tools.networks.remove(definition.id, removed.is_ok()).await?;
        let doing = || format!("cannot remove the record of network {name}");
        removed.map_err(|error| Error::internal(doing(), error))?;
        self.announce_network("destroy", &definition);
        Ok(())
    }

    /// A tenant that is to go must have none of its own.
    pub(super) async fn check_no_networks(&self) -> Result<(), Error> {
        let all = self.engine.tools.networks.list(&self.tenant).await?;
        let own = all.iter().filter(|network| !self.is_predefined(&network.definition)).count();
        if own == 0 {
            return Ok(());
        }
        let tenant = &self.tenant;
        let said = format!("tenant {tenant} still has {own} networks: remove them first");
        Err(Error::Conflict(said))
    }

    /// Whether nobody has made it.
    #[must_use]
    pub fn is_predefined(&self, definition: &Definition) -> bool {
        definition.id == self.engine.tools.networks.id(&self.tenant, &definition.name)
    }

    /// Docker's words for who is on a network still.
    fn still_used(&self, error: network::Error) -> Error {
        let said = if let network::Error::Active { name, endpoints } = &error {
            let registry = &self.engine.tools.registry;
            let called = endpoints.iter().map(|(container, endpoint)| {
                let found = registry.find(&self.tenant, &container.hex());
                let name = found.map(|it| it.snapshot().record.name.clone());
                let name = name.unwrap_or_else(|_| container.short());
                format!("name:\"{name}\" id:\"{}\"", endpoint.short())
            });
            let called: Vec<String> = called.collect();
            format!("network {name} has active endpoints ({})", called.join(", "))
        } else if matches!(error, network::Error::ConfigurationInUse(_)) {
            error.to_string()
        } else {
            return error.into();
        };
        Error::Denied(format!("error while removing network: {said}"))
    }

    /// Removes every network that nobody is on and `wanted` is true of;
    /// answers their names.
    ///
    /// # Errors
    /// The store or the kernel refuses.
    pub async fn prune_networks(
        &self,
        wanted: impl Fn(&Definition) -> bool,
    ) -> Result<Vec<String>, Error> {
        let mut pruned = Vec::new();
        for network in self.engine.tools.networks.list(&self.tenant).await? {
            let definition = &network.definition;
            let used = !network.endpoints.is_empty();
            if used
                || definition.config_only
                || self.is_predefined(definition)
                || !wanted(definition)
            {
                continue;
            }
            let name = definition.name.clone();
            match self.remove_network(&definition.id.to_string()).await {
                Ok(()) => pruned.push(name),
                // Joined, or removed by somebody else, since we looked.
                Err(Error::Denied(_) | Error::NotFound(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(pruned)
    }

    /// Connects a container, running or not, to a network.
    ///
    /// # Errors
    /// `NotFound`; `Invalid` and `Denied` for what is asked.
    pub async fn connect_network(
        &self,
        reference: &str,
        container: &str,
        asked: EndpointSettings,
    ) -> Result<(), Error> {
        let handle = self.container(container)?;
        let Definition { id, name, .. } = self.checked(reference, &asked).await?;
        handle.join(Joining { id, name, asked }).await
    }

    async fn checked(
        &self,
        reference: &str,
        asked: &EndpointSettings,
    ) -> Result<Definition, Error> {
        let definition = self.find_network(reference).await?.definition;
        match definition.driver {
            Driver::Bridge | Driver::Macvlan => {}
            Driver::Host => {
                return Err(Error::Invalid(
                    "cannot connect container to host network - container must be created in \
                     host network mode"
                        .into(),
                ));
            }
            Driver::Null if definition.config_only => {
                return Err(Error::Denied(format!(
                    "cannot attach to configuration-only network {}",
                    definition.name
                )));
            }
            Driver::Null => {
                return Err(Error::Invalid(
                    "container cannot be connected to multiple networks with one of the networks \
                     in private (none) mode"
                        .into(),
                ));
            }
        }
        endpoints::check_built(asked)?;
        endpoints::check(&definition, asked).map_err(Error::Invalid)?;
        Ok(definition)
    }

    /// Takes a container from a network, by name if the network is no more.
    ///
    /// # Errors
    /// `NotFound`; it is not on it.
    pub async fn disconnect_network(
        &self,
        reference: &str,
        container: &str,
        force: bool,
    ) -> Result<(), Error> {
        let network = self.find_network(reference).await;
        let mut handle = self.container(container);
        if force && matches!(handle, Err(Error::NotFound(_))) {
            handle = Err(Error::NotFound(format!("endpoint {container} not found")));
        }
        let known = |handle: &Handle| handle.snapshot().record.endpoints.contains_key(reference);
        let name = match (network, &handle) {
            (Ok(network), _) => network.definition.name,
            (Err(Error::NotFound(_)), Ok(handle)) if known(handle) => reference.to_owned(),
            (Err(error), _) => return Err(error),
        };
        handle?.part(name).await
    }

    fn announce_network(&self, action: &str, definition: &Definition) {
        let attributes =
            [("name", definition.name.clone()), ("type", definition.driver.name().to_owned())];
        self.engine.tools.events.publish(Event {
            tenant: self.tenant.clone(),
            kind: "network",
            action: action.to_owned(),
            actor: definition.id.to_string(),
            attributes: attributes.map(|(key, value)| (key.to_owned(), value)).into(),
            at: events::now(),
        });
    }

    /// Docker tells that it has pruned, even nothing.
    pub fn announce_pruned_networks(&self) {
        self.engine.tools.events.publish(Event {
            tenant: self.tenant.clone(),
            kind: "network",
            action: "prune".to_owned(),
            actor: String::new(),
            attributes: [("reclaimed".to_owned(), "0".to_owned())].into(),
            at: events::now(),
        });
    }
}
