//! /etc/hosts, /etc/hostname and /etc/resolv.conf, as Docker fills them.

use super::{EndpointRecord, Record, driver::Driver};
use crate::{error::Error, network, runtime::Files};
use std::{fs::File, io::{self, Write}, path::Path};

/// The host's resolver, as containers without names of their own get it.
const HOST_RESOLV_CONF: &str = "/etc/resolv.conf";

impl Driver {
    /// Writes them anew for each start: the address may be another one. They
    /// need no fsync, for a start after a crash writes them again.
    pub(super) async fn write_files(&self) -> Result<Files, Error> {
        let directory = self.tools.directory(self.record.id);
        let files = Files {
            hosts: directory.join("hosts"),
            hostname: directory.join("hostname"),
            resolv_conf: directory.join("resolv.conf"),
        };
        let hosts = hosts(&self.record);
        let hostname = format!("{}\n", self.record.config.hostname);
        let record = self.record.clone();
        let targets = files.clone();
        let written = tokio::task::spawn_blocking(move || -> io::Result<()> {
            let resolv_conf = resolv_conf(&record)?;
            write(&targets.hosts, &hosts)?;
            write(&targets.hostname, &hostname)?;
            write(&targets.resolv_conf, &resolv_conf)
        });
        let failed =
            |error: io::Error| Error::internal("cannot write the container's hosts files", error);
        written.await.map_err(io::Error::other).and_then(|outcome| outcome).map_err(failed)?;
        Ok(files)
    }
}

/// In place: processes that joined this container's network see the same file.
fn write(path: &Path, text: &str) -> io::Result<()> {
    File::create(path)?.write_all(text.as_bytes())
}

fn hosts(record: &Record) -> String {
    let address = record
        .endpoints
        .values()
        .filter_map(|EndpointRecord { endpoint, .. }| endpoint.as_ref())
        .map(|endpoint| endpoint.address)
        .next();
    let extra = record.host.extra_hosts.clone().unwrap_or_default();
    network::hosts_file(&record.config.hostname, &record.config.domainname, address, &extra)
}

fn resolv_conf(record: &Record) -> io::Result<String> {
    let host = &record.host;
    let text = match std::fs::read_to_string(Path::new(HOST_RESOLV_CONF)) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error),
    };
    let list = |list: &Option<Vec<String>>| list.clone().unwrap_or_default();
    Ok(network::resolv_conf(
        &text,
        &list(&host.dns),
        &list(&host.dns_search),
        &list(&host.dns_options),
    ))
}
