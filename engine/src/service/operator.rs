//! What Tritium has beside Docker: tenants, system calls, denials, the host's fitness.

use super::Scope;
use crate::{
    container::Handle,
    error::{Error, chain},
    ids::TenantName,
    image::Checked,
    network,
};
use serde::Serialize;
use std::time::{Duration, UNIX_EPOCH};
use tritium_probes::{PeerTraffic, SyscallStats, Trace, TraceSnapshot};

/// How long system calls are counted after somebody has looked: a client that
/// watches asks again before that.
const WATCH: Duration = Duration::from_secs(10);

/// One tenant.
#[derive(Debug, Clone, Serialize)]
pub struct TenantView {
    pub name: TenantName,
    pub containers: usize,
    pub images: usize,
}

/// The system calls of one container since its watch began.
#[derive(Debug, Clone, Serialize)]
pub struct SyscallTable {
    pub container: String,
    pub name: String,
    pub tenant: TenantName,
    /// How long the watch has lasted, in nanoseconds.
    pub watched: u64,
    /// Calls that found no row, or were lost in another way.
    pub lost: u64,
    /// Most frequent first.
    pub rows: Vec<SyscallRow>,
}

/// One system call. Durations in nanoseconds, none while no call has returned.
#[derive(Debug, Clone, Serialize)]
pub struct SyscallRow {
    pub name: String,
    pub calls: u64,
    pub errors: u64,
    /// By errno's name.
    pub errnos: Vec<(String, u64)>,
    pub p50: Option<u64>,
    pub p90: Option<u64>,
    pub p99: Option<u64>,
    pub p999: Option<u64>,
    pub max: Option<u64>,
}

/// What the guard has refused a container.
#[derive(Debug, Clone, Serialize)]
pub struct DenialRow {
    pub tenant: String,
    pub container: String,
    pub name: String,
    pub rule: String,
    pub count: u64,
}

/// What a container and one peer have exchanged. Times in nanoseconds, none without a connection.
#[derive(Debug, Clone, Serialize)]
pub struct TrafficRow {
    pub tenant: String,
    pub container: String,
    pub name: String,
    /// Another container's name, or in parentheses what is none.
    pub peer: String,
    pub received_bytes: u64,
    pub received_packets: u64,
    pub sent_bytes: u64,
    pub sent_packets: u64,
    pub dropped: u64,
    pub opened: u64,
    pub accepted: u64,
    pub retransmits: u64,
    pub rtt_p50: Option<u64>,
    pub rtt_p99: Option<u64>,
}

/// One need of the probes.
#[derive(Debug, Clone, Serialize)]
pub struct VerdictRow {
    pub need: String,
    pub have: bool,
    pub cost: String,
}

impl Scope {
    /// `tritium fsck`: whether all images are whole.
    ///
    /// # Errors
    /// `NotFound` for everybody but the operator.
    pub async fn check_images(&self, mend: bool) -> Result<Checked, Error> {
        self.operator_only()?;
        self.engine.images.check(mend).await
    }

    /// Whether this is the operator, who may see and do all.
    #[must_use]
    pub fn is_operator(&self) -> bool {
        self.tenant.is_operator()
    }

    /// Only the operator knows that there are others.
    fn operator_only(&self) -> Result<(), Error> {
        if self.is_operator() { Ok(()) } else { Err(Error::NotFound("page not found".into())) }
    }

    /// All tenants, the operator's own first.
    ///
    /// # Errors
    /// `NotFound` for everybody but the operator.
    pub fn tenants(&self) -> Result<Vec<TenantView>, Error> {
        self.operator_only()?;
        let names = [TenantName::operator()].into_iter().chain(self.engine.tenants.list());
        Ok(names
            .map(|name| {
                let scope = self.engine.tenant(name.clone());
                TenantView {
                    name,
                    containers: scope.engine.tools.registry.of(&scope.tenant).len(),
                    images: scope.images().len(),
                }
            })
            .collect())
    }

    /// Makes a tenant; its socket follows at once.
    ///
    /// # Errors
    /// `Conflict` if there is one of that name; `Invalid` if it cannot be one.
    pub async fn create_tenant(&self, name: &str) -> Result<(), Error> {
        self.operator_only()?;
        self.engine.tenants.create(&tenant_name(name)?).await
    }

    /// Removes a tenant that has nothing (any more).
    ///
    /// # Errors
    /// `NotFound`; `Conflict` if it has containers or images.
    pub async fn remove_tenant(&self, name: &str) -> Result<(), Error> {
        self.operator_only()?;
        let name = tenant_name(name)?;
        if name.is_operator() {
            return Err(Error::Conflict("the operator's own tenant cannot be removed".into()));
        }
        let scope = self.engine.tenant(name.clone());
        let (containers, images) = (scope.containers().len(), scope.images().len());
        let volumes = scope.volumes().len();
        if containers + images + volumes > 0 {
            return Err(Error::Conflict(format!(
                "tenant {name} still has {containers} containers, {images} images and {volumes} \
                 volumes: remove them first"
            )));
        }
        if self.engine.tenants.list().contains(&name) {
            scope.check_no_networks().await?;
        }
        self.engine.tenants.remove(&name).await?;
        // Its network `bridge`, which nobody made.
        let bridge = self.engine.tools.networks.id(&name, network::DEFAULT);
        Ok(self.engine.tools.networks.remove(bridge, true).await?)
    }

    /// The system calls of one container, from now on if nobody has asked
    /// lately; asked again within ten seconds, the same counts go on.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` if it does not run; `Unavailable` where the
    /// kernel does not let us count.
    pub async fn syscalls(&self, reference: &str) -> Result<SyscallTable, Error> {
        let handle = self.container(reference)?;
        self.count_calls(&handle)
            .await?
            .ok_or_else(|| Error::Conflict(format!("container {} is not running", handle.id())))
    }

    /// The same for all containers that run: the operator's view is everybody's.
    ///
    /// # Errors
    /// `Unavailable` where the kernel does not let us count.
    pub async fn all_syscalls(&self) -> Result<Vec<SyscallTable>, Error> {
        let registry = &self.engine.tools.registry;
        let handles = if self.is_operator() { registry.all() } else { registry.of(&self.tenant) };
        let mut tables = Vec::new();
        for handle in handles {
            tables.extend(self.count_calls(&handle).await?);
        }
        Ok(tables)
    }

    async fn count_calls(&self, handle: &Handle) -> Result<Option<SyscallTable>, Error> {
        let Some(running) = handle.running() else { return Ok(None) };
        let cgroup = running.cgroup_id();
        let trace = self.engine.tools.probes.trace().clone();
        // The first watch of all loads programs, for some ten milliseconds.
        let counted = tokio::task::spawn_blocking(move || count(&trace, cgroup)).await;
        let snapshot =
            counted.map_err(|error| Error::internal("cannot count system calls", error))??;
        let seen = handle.snapshot();
        Ok(Some(table(&snapshot, &seen.record)))
    }

    /// What the guard has refused: the operator's view is everybody's.
    ///
    /// # Errors
    /// The kernel refuses to read.
    pub fn denials(&self) -> Result<Vec<DenialRow>, Error> {
        let denials = self.engine.tools.probes.guard().denials();
        let denials = denials.map_err(|error| Error::internal("cannot read the denials", error))?;
        let own = |tenant: &str| self.is_operator() || tenant == self.tenant.as_str();
        Ok(denials
            .into_iter()
            .filter(|denial| own(&denial.labels.tenant))
            .map(|denial| DenialRow {
                tenant: denial.labels.tenant,
                container: denial.labels.id,
                name: denial.labels.name,
                rule: denial.rule.name().to_owned(),
                count: denial.count,
            })
            .collect())
    }

    /// Who has exchanged how much with whom: the operator's view is everybody's.
    ///
    /// # Errors
    /// The kernel refuses to read.
    pub async fn traffic(&self) -> Result<Vec<TrafficRow>, Error> {
        let guard = self.engine.tools.probes.guard().clone();
        // Two system calls for each pair and each bucket.
        let read = tokio::task::spawn_blocking(move || guard.traffic()).await;
        let read = read.map_err(|error| Error::internal("cannot read the traffic", error))?;
        let (all, _) = read.map_err(|error| Error::internal("cannot read the traffic", error))?;
        let own = |tenant: &str| self.is_operator() || tenant == self.tenant.as_str();
        Ok(all.into_iter().filter(|it| own(&it.labels.tenant)).map(traffic_row).collect())
    }

    /// What this kernel gives the probes, and what it refuses.
    #[must_use]
    pub fn verdicts(&self) -> Vec<VerdictRow> {
        let verdicts = self.engine.tools.probes.verdicts().iter();
        verdicts
            .map(|verdict| VerdictRow {
                need: verdict.need.clone(),
                have: verdict.have,
                cost: verdict.cost.clone(),
            })
            .collect()
    }
}

fn traffic_row(traffic: PeerTraffic) -> TrafficRow {
    let PeerTraffic { labels, peer, counts } = traffic;
    let quantiles = counts.round_trips();
    TrafficRow {
        tenant: labels.tenant,
        container: labels.id,
        name: labels.name,
        peer,
        received_bytes: counts.received_bytes,
        received_packets: counts.received_packets,
        sent_bytes: counts.sent_bytes,
        sent_packets: counts.sent_packets,
        dropped: counts.dropped,
        opened: counts.opened,
        accepted: counts.accepted,
        retransmits: counts.retransmits,
        rtt_p50: quantiles.map(|it| nanos(it.p50)),
        rtt_p99: quantiles.map(|it| nanos(it.p99)),
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn tenant_name(text: &str) -> Result<TenantName, Error> {
    text.parse().map_err(|error| Error::Invalid(format!("{text:?}: {error}")))
}

fn count(trace: &Trace, cgroup: u64) -> Result<TraceSnapshot, Error> {
    let unavailable = |error| Error::Unavailable(chain(&error));
    trace.watch_for(cgroup, WATCH).map_err(unavailable)?;
    trace.snapshot(cgroup).map_err(unavailable)
}

fn table(snapshot: &TraceSnapshot, record: &crate::container::Record) -> SyscallTable {
    let since = snapshot.since.duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = u128::try_from(crate::events::now()).unwrap_or_default();
    SyscallTable {
        container: record.id.hex(),
        name: record.name.clone(),
        tenant: record.tenant.clone(),
        watched: u64::try_from(now.saturating_sub(since.as_nanos())).unwrap_or(u64::MAX),
        lost: snapshot.overflowed + snapshot.lost,
        rows: snapshot.syscalls.iter().map(row).collect(),
    }
}

fn row(stats: &SyscallStats) -> SyscallRow {
    let quantiles = stats.percentiles();
    SyscallRow {
        name: stats.name.clone(),
        calls: stats.calls,
        errors: stats.errors.iter().map(|error| error.count).sum(),
        errnos: stats.errors.iter().map(|error| (error.name.clone(), error.count)).collect(),
        p50: quantiles.map(|it| nanos(it.p50)),
        p90: quantiles.map(|it| nanos(it.p90)),
        p99: quantiles.map(|it| nanos(it.p99)),
        p999: quantiles.map(|it| nanos(it.p999)),
        max: quantiles.map(|it| nanos(it.max)),
    }
}
