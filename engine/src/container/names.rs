//! What a container is called on its networks, and who answers what it asks.
//!
//! Networks that users made know their containers by name: an endpoint on one
//! is in the resolvers' directory while the container runs, which has a resolver
//! in its network namespace from before its first instruction on.

use super::{Record, Tools, driver::Driver, files, networking::link_parts};
use crate::{
    error::{Error, chain},
    network::{
        Endpoint,
        dns::{Membership, Served},
    },
};
use std::{fs::File, os::fd::OwnedFd};

impl Record {
    /// Whether the engine answers what it asks: it is on a network with names.
    pub(super) fn has_resolver(&self) -> bool {
        let mut there = self.endpoints.iter().filter(|(_, it)| it.endpoint.is_some());
        there.any(|(name, _)| self.dns_names(name).is_some())
    }
}

/// Tells the others on its networks what it is called there. For all that run
/// when the engine starts, before any of them has a resolver again.
pub fn announce_names(record: &Record, tools: &Tools) {
    for entry in record.endpoints.values() {
        entry.endpoint.iter().for_each(|endpoint| announce(record, tools, endpoint));
    }
}

/// The same for one network.
pub(super) fn announce(record: &Record, tools: &Tools, endpoint: &Endpoint) {
    let network = &endpoint.network;
    let (Some(names), Some(entry)) = (record.dns_names(network), record.endpoints.get(network))
    else {
        return;
    };
    let link = |link: &String| {
        let (target, alias) = link_parts(link);
        let other = tools.registry.find(&record.tenant, target);
        let name = other.map(|other| other.snapshot().record.name.clone());
        (alias.to_owned(), name.unwrap_or_else(|_| target.to_owned()))
    };
    let membership = Membership {
        network: endpoint.network_id,
        network_name: network.clone(),
        internal: endpoint.internal,
        gateway_priority: endpoint.priority,
        names,
        addresses: endpoint.addresses().collect(),
        links: entry.asked.links.iter().flatten().map(link).collect(),
    };
    tools.dns.join(record.id, membership);
}

/// Answers what a container asks that outlived the last engine. Without, it runs
/// on all the same.
pub async fn resume_names(record: &Record, pid: i32, tools: &Tools) {
    if !record.has_resolver() {
        return;
    }
    let netns = File::open(format!("/proc/{pid}/ns/net"));
    let netns = netns.map_err(|error| Error::internal("cannot open its network namespace", error));
    let served = match netns {
        Ok(netns) => serve(record, netns.into(), tools).await,
        Err(error) => Err(error),
    };
    if let Err(error) = served {
        let error = chain(&error);
        tracing::error!(container = %record.id, error, "it cannot look up names");
    }
}

async fn serve(record: &Record, netns: OwnedFd, tools: &Tools) -> Result<(), Error> {
    let settings = files::resolver(record.clone()).await?;
    let (container, tenant) = (record.id, record.tenant.clone());
    Ok(tools.dns.serve(Served { container, tenant, netns, settings }).await?)
}

impl Driver {
    /// It is about to run: the others find it, and what it asks is answered.
    pub(super) async fn bring_up_names(&self) -> Result<(), Error> {
        announce_names(&self.record, &self.tools);
        self.serve_names().await
    }

    /// Answers what the container asks, if it is on a network with names.
    async fn serve_names(&self) -> Result<(), Error> {
        let Some(netns) = self.netns.as_ref().filter(|_| self.record.has_resolver()) else {
            return Ok(());
        };
        let netns = netns.try_clone();
        let netns = netns.map_err(|error| Error::internal("cannot copy a descriptor", error))?;
        serve(&self.record, netns, &self.tools).await
    }

    /// It runs and has joined its first network with names; `before`: its record.
    /// The user's own changes to its `resolv.conf` stay.
    pub(super) async fn begin_names(&self, before: &Record) -> Result<(), Error> {
        if before.has_resolver() || !self.record.has_resolver() {
            return Ok(());
        }
        self.serve_names().await?;
        let path = self.tools.directory(self.record.id).join("resolv.conf");
        files::rewrite_resolv_conf(path, before.clone(), self.record.clone()).await
    }
}
