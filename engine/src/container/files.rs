//! /etc/hosts, /etc/hostname and /etc/resolv.conf, as Docker fills them.

use super::{EndpointRecord, Record, driver::Driver, networking::read_some};
use crate::{
    error::Error,
    ids::ContainerId,
    network::{dns::Settings, files},
    runtime::Files,
};
use std::{
    fs::File,
    io::{self, Write},
    net::IpAddr,
    path::{Path, PathBuf},
};

impl Driver {
    /// Writes them anew for each start: the address may be another one. They
    /// need no fsync, for a start after a crash writes them again.
    pub(super) async fn write_files(&self) -> Result<Files, Error> {
        if let Some(other) = self.record.host.network_mode.strip_prefix("container:") {
            // Who shares a network shares what is said of it.
            let other = self.tools.registry.find(&self.record.tenant, other)?;
            return Ok(self.files_of(other.id()));
        }
        let files = self.files_of(self.record.id);
        let hostname = format!("{}\n", self.record.config.hostname);
        let record = self.record.clone();
        let targets = files.clone();
        let links = self.links()?;
        let host = self.host_gateway().await?;
        let written = tokio::task::spawn_blocking(move || -> Result<(), Error> {
            let texts = [
                (&targets.hosts, hosts(&record, &links, host)?),
                (&targets.hostname, hostname),
                (&targets.resolv_conf, resolv_conf(&record)?.0),
            ];
            for (path, text) in texts {
                let doing = || format!("cannot write {}", path.display());
                write(path, &text).map_err(|error| Error::internal(doing(), error))?;
            }
            Ok(())
        });
        written.await.map_err(|error| Error::internal("cannot write the hosts files", error))??;
        Ok(files)
    }

    fn files_of(&self, container: ContainerId) -> Files {
        let directory = self.tools.directory(container);
        Files {
            hosts: directory.join("hosts"),
            hostname: directory.join("hostname"),
            resolv_conf: directory.join("resolv.conf"),
        }
    }
}

/// In place: processes that joined this container's network see the same file.
fn write(path: &Path, text: &str) -> io::Result<()> {
    File::create(path)?.write_all(text.as_bytes())
}

/// `host`: where it is reached, if that is asked for.
fn hosts(
    record: &Record,
    links: &[(String, String)],
    host: Option<IpAddr>,
) -> Result<String, Error> {
    let config = &record.config;
    let mut endpoints: Vec<_> = record.endpoints.values().collect();
    endpoints.sort_by_key(|it: &&EndpointRecord| !it.first);
    let endpoints: Vec<_> = endpoints.into_iter().filter_map(|it| it.endpoint.as_ref()).collect();
    let mut extra = Vec::new();
    for entry in record.host.extra_hosts.iter().flatten() {
        let (name, address) = entry
            .split_once(':')
            .ok_or_else(|| Error::Invalid(format!("bad format for add-host: \"{entry}\"")))?;
        let address = match (address, host) {
            ("host-gateway", Some(host)) => host.to_string(),
            (address, _) => address.to_owned(),
        };
        extra.push((name.to_owned(), address));
    }
    if record.host.network_mode == "host" && extra.is_empty() {
        return read("/etc/hosts")
            .map_err(|error| Error::internal("cannot read /etc/hosts", error));
    }
    let addresses: Vec<IpAddr> = endpoints.iter().flat_map(|it| it.addresses()).collect();
    extra.extend(links.iter().cloned());
    Ok(files::hosts(&config.hostname, &config.domainname, &addresses, &extra))
}

/// Whom the engine's resolver asks on behalf of a container.
pub(super) async fn resolver(record: Record) -> Result<Settings, Error> {
    let read = tokio::task::spawn_blocking(move || resolv_conf(&record));
    let read = read.await.map_err(|error| Error::internal("cannot read resolv.conf", error))?;
    Ok(read?.1)
}

/// Writes a container's `resolv.conf` anew, unless it was changed inside.
pub(super) async fn rewrite_resolv_conf(
    path: PathBuf,
    before: Record,
    after: Record,
) -> Result<(), Error> {
    let written = tokio::task::spawn_blocking(move || -> Result<(), Error> {
        let doing = |error| Error::internal(format!("cannot write {}", path.display()), error);
        let (old, new) = (resolv_conf(&before)?.0, resolv_conf(&after)?.0);
        if read_some(&path).map_err(doing)? == old.as_bytes() {
            write(&path, &new).map_err(doing)?;
        }
        Ok(())
    });
    written.await.map_err(|error| Error::internal("cannot write resolv.conf", error))?
}

/// The text; and what the engine's resolver is to know, where that is named.
fn resolv_conf(record: &Record) -> Result<(String, Settings), Error> {
    let host = &record.host;
    let list = |list: &Option<Vec<String>>| list.clone().unwrap_or_default();
    let servers = host.dns.iter().flatten().map(|server| {
        let bad = |_| Error::Invalid(format!("bad nameserver address {server}"));
        server.parse::<IpAddr>().map_err(bad)
    });
    let servers: Vec<IpAddr> = servers.collect::<Result<_, _>>()?;
    let unreadable = |error| Error::internal("cannot read the host's resolv.conf", error);
    let mut path = files::RESOLV_CONF;
    let mut text = read(path).map_err(unreadable)?;
    if files::is_stub(&text) {
        path = files::RESOLVED_CONF;
        text = read(path).map_err(unreadable)?;
    }
    let (search, options) = (list(&host.dns_search), list(&host.dns_options));
    let overrides = files::DnsOverrides { servers: &servers, search: &search, options: &options };
    if record.has_resolver() {
        return Ok(files::internal_resolv_conf(path, &text, overrides));
    }
    let resolver =
        if host.network_mode == "host" { files::Resolver::Host } else { files::Resolver::Own };
    Ok((files::resolv_conf(path, &text, overrides, resolver), Settings::default()))
}

/// A file of the host's; one that is missing says nothing.
fn read(path: &str) -> io::Result<String> {
    match std::fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        outcome => outcome,
    }
}
