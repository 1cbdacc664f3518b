//! Who is there: containers by id, names by tenant, execs by id.

use super::{ExecHandle, Handle};
use crate::{
    error::Error,
    ids::{ContainerId, ExecId, TenantName},
};
use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard},
};

/// A cheap handle on the list of all containers.
#[derive(Debug, Clone, Default)]
pub struct Registry {
    lists: Arc<Mutex<Lists>>,
}

#[derive(Debug, Default)]
struct Lists {
    containers: BTreeMap<ContainerId, Handle>,
    /// Taken before the container exists, so that two requests cannot both
    /// have a name.
    names: HashMap<(TenantName, String), ContainerId>,
    execs: HashMap<ExecId, ExecHandle>,
}

impl Registry {
    fn lists(&self) -> MutexGuard<'_, Lists> {
        self.lists.lock().expect("no panic happens under this lock")
    }

    /// Takes a name, or says who has it.
    ///
    /// # Errors
    /// Docker's words for a name that is in use.
    pub fn take_name(&self, tenant: &TenantName, name: &str, id: ContainerId) -> Result<(), Error> {
        match self.lists().names.entry((tenant.clone(), name.to_owned())) {
            std::collections::hash_map::Entry::Vacant(free) => {
                free.insert(id);
                Ok(())
            }
            std::collections::hash_map::Entry::Occupied(taken) => Err(Error::Conflict(format!(
                "Conflict. The container name \"/{name}\" is already in use by container \"{}\". \
                 You have to remove (or rename) that container to be able to reuse that name.",
                taken.get()
            ))),
        }
    }

    /// Gives a name back.
    pub fn free_name(&self, tenant: &TenantName, name: &str) {
        self.lists().names.remove(&(tenant.clone(), name.to_owned()));
    }

    pub(super) fn insert(&self, handle: Handle) {
        self.lists().containers.insert(handle.id(), handle);
    }

    pub(super) fn remove(&self, id: ContainerId) {
        let mut lists = self.lists();
        lists.containers.remove(&id);
        lists.names.retain(|_, owner| *owner != id);
        lists.execs.retain(|_, exec| exec.container() != id);
    }

    pub(super) fn insert_exec(&self, exec: ExecHandle) {
        self.lists().execs.insert(exec.id(), exec);
    }

    pub(super) fn remove_exec(&self, id: ExecId) {
        self.lists().execs.remove(&id);
    }

    /// The execs of a container that can still be asked for.
    #[must_use]
    pub fn execs_of(&self, id: ContainerId) -> Vec<ExecHandle> {
        self.lists().execs.values().filter(|exec| exec.container() == id).cloned().collect()
    }

    pub(super) fn get(&self, id: ContainerId) -> Option<Handle> {
        self.lists().containers.get(&id).cloned()
    }

    /// Every container of every tenant: for the engine's own needs.
    #[must_use]
    pub fn all(&self) -> Vec<Handle> {
        self.lists().containers.values().cloned().collect()
    }

    /// All of one tenant's.
    #[must_use]
    pub fn of(&self, tenant: &TenantName) -> Vec<Handle> {
        let lists = self.lists();
        lists.containers.values().filter(|handle| handle.tenant() == tenant).cloned().collect()
    }

    /// By full id, then by name, then by a prefix of an id that fits one only.
    ///
    /// # Errors
    /// Docker's words for what is not there, or is ambiguous.
    pub fn find(&self, tenant: &TenantName, reference: &str) -> Result<Handle, Error> {
        let lists = self.lists();
        let own = |handle: &&Handle| handle.tenant() == tenant;
        if let Ok(id) = reference.parse()
            && let Some(handle) = lists.containers.get(&id).filter(own)
        {
            return Ok(handle.clone());
        }
        let name = reference.strip_prefix('/').unwrap_or(reference);
        let named = lists.names.get(&(tenant.clone(), name.to_owned()));
        if let Some(handle) = named.and_then(|id| lists.containers.get(id)) {
            return Ok(handle.clone());
        }
        let not_found = || Error::NotFound(format!("No such container: {reference}"));
        if reference.is_empty() || !reference.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(not_found());
        }
        let mut fitting =
            lists.containers.values().filter(own).filter(|it| it.id().hex().starts_with(reference));
        match (fitting.next(), fitting.next()) {
            (Some(handle), None) => Ok(handle.clone()),
            (Some(_), Some(_)) => {
                Err(Error::Invalid(format!("Multiple IDs found with provided prefix: {reference}")))
            }
            (None, _) => Err(not_found()),
        }
    }

    /// One exec, by id or by a prefix of it.
    ///
    /// # Errors
    /// Docker's words for what is not there.
    pub fn find_exec(&self, tenant: &TenantName, reference: &str) -> Result<ExecHandle, Error> {
        let lists = self.lists();
        let id: Option<ExecId> = reference.parse().ok();
        let exec = id.and_then(|id| lists.execs.get(&id));
        let own = exec.filter(|exec| {
            let container = lists.containers.get(&exec.container());
            container.is_some_and(|container| container.tenant() == tenant)
        });
        own.cloned().ok_or_else(|| Error::NotFound(format!("No such exec instance: {reference}")))
    }
}
