//! What an operator can turn, as flags: one flat struct, complete once parsed.

use clap::Parser;
use std::{path::PathBuf, time::Duration};

/// How long what is kept ready for the next container stays short of one after
/// somebody took it: about a start, which needs the processors more.
pub(crate) const REFILL_AFTER: Duration = Duration::from_millis(6);

/// The Docker Engine API on bare metal.
#[derive(Debug, Clone, Parser)]
#[command(name = "tritiumd", version)]
pub struct Config {
    /// The operator's socket. Tenants' are beside it in `tenants/NAME.sock`.
    #[arg(long, default_value = "/run/tritium/tritium.sock")]
    pub socket: PathBuf,
    /// Images, layers, records of containers.
    #[arg(long, default_value = "/var/lib/tritium")]
    pub state_dir: PathBuf,
    /// What need not survive a reboot: sockets of supervisors, exit files.
    #[arg(long, default_value = "/run/tritium")]
    pub run_dir: PathBuf,
    /// Name of the engine's control group, below each hierarchy's root. Two
    /// engines on one host need two names.
    #[arg(long, default_value = "tritium")]
    pub cgroup: String,
    /// Name of the default network's bridge; a tenant's is derived from it.
    #[arg(long, default_value = "tritium0")]
    pub bridge: String,
    /// Where bridges' subnets are cut from.
    #[arg(long, default_value = "172.17.0.0/12")]
    pub address_pool: ipnet::Ipv4Net,
    /// The program that runs beside each container. Default: beside tritiumd.
    #[arg(long)]
    pub supervisor: Option<PathBuf>,
    /// Supervisors kept ready for the next container.
    #[arg(long, default_value_t = 4)]
    pub ready: usize,
    /// The largest layer that is taken, unpacked, in GiB: what an image can fill
    /// the disk with.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    pub layer_limit: u64,
    /// Trace every container for its whole life, not only those labelled
    /// `tritium.trace=syscalls`.
    #[arg(long, value_enum, default_value_t = TraceAll::Off)]
    pub trace: TraceAll,
    /// Where Prometheus may scrape (`127.0.0.1:9323`). Default: nowhere.
    #[arg(long)]
    pub metrics: Option<std::net::SocketAddr>,
    /// What to log, in tracing's directives.
    #[arg(long, default_value = "info")]
    pub log: String,
}

/// What is traced of containers that do not ask for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum TraceAll {
    Off,
    Syscalls,
}
