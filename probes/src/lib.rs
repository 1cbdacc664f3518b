//! The engine's eyes and fences in the kernel: loads and pins the eBPF
//! programs, and turns their maps into answers.
//!
//! Two rooms stand side by side. [`Guard`] is always in force: its programs
//! hang on the engine's parent cgroup once, and a container is let in by a map
//! write before its first instruction. [`Trace`] counts system calls and is
//! attached only while somebody watches. Both are pinned below
//! [`ProbesConfig::pin_dir`], so that they go on while no engine runs.
//!
//! The engine calls this crate; this crate never calls back.
#![forbid(unsafe_code)]

use std::{
    fmt, fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use tokio_util::sync::CancellationToken;
use tracing::warn;

pub mod dashboards;
pub mod export;
pub mod guard;
pub mod metrics;
pub mod resolvers;
pub mod rule;
pub mod sample;
pub mod trace;
pub mod traffic;
pub mod wire;

mod addresses;
mod admission;
mod btf;
mod denials;
mod histogram;
mod load;
mod ring;

pub use admission::{Admission, Device, DeviceKind, DevicePolicy};
pub use guard::{Denial, Guard};
pub use resolvers::{ResolverPorts, Resolvers};
pub use rule::Rule;
pub use sample::{ContainerLabels, ContainerSample, EngineSample, NetworkSample, Sample, Snapshot};
pub use trace::{ErrorCount, Percentiles, SyscallStats, Trace, TraceSnapshot};
pub use traffic::{Counts, PeerTraffic, Uncounted};
pub use wire::{Cable, Interface};

use crate::load::{GuardObject, Load, Place, TraceObject, remove_all, root_cause};

/// How often watches whose time is over are looked for.
const SWEEP: Duration = Duration::from_secs(1);

/// `BPF_FS_MAGIC` of linux/magic.h.
const BPF_FS: u64 = 0xcafe_4a11;

/// Where the programs go, and who already runs there.
#[derive(Debug, Clone)]
pub struct ProbesConfig {
    /// The cgroup v2 mount: `/sys/fs/cgroup`, or `/sys/fs/cgroup/unified` on a hybrid host.
    pub cgroup_root: PathBuf,
    /// The engine's group below it, as `tritium`. Made if it is missing; every
    /// container's cgroup is a child of it.
    pub cgroup: String,
    /// A directory of a bpffs, as `/sys/fs/bpf/tritium`. A bpffs is mounted
    /// on `/sys/fs/bpf` when the path is below it and none is there.
    pub pin_dir: PathBuf,
    /// Containers that run already (the engine was restarted): admitted before
    /// new programs are attached, so that no running container is refused
    /// for an instant.
    pub running: Vec<Running>,
    /// How many (container, system call) rows the trace may fill at a time;
    /// each costs 4 KiB times the CPUs (at most eight), and only while somebody watches.
    pub trace_rows: u32,
}

/// A container that was running when the probes started.
#[derive(Debug, Clone)]
pub struct Running {
    /// Id of its cgroup on the v2 tree (inode number of the directory).
    pub cgroup: u64,
    /// What it may do.
    pub admission: Admission,
    /// Its interfaces: bound and fenced anew.
    pub interfaces: Vec<Interface>,
    /// Whether its label asks for tracing: holds one watch from the start.
    pub traced: bool,
}

/// One thing the probes need of this kernel, and whether it is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// What is needed, as `cgroup/connect4` or `BTF`.
    pub need: String,
    /// Whether this kernel gave it.
    pub have: bool,
    /// What is lost without it, or why the kernel said no.
    pub cost: String,
}

/// The guard and the trace of one engine. Cheap to clone.
#[derive(Clone)]
pub struct Probes {
    guard: Guard,
    resolvers: Resolvers,
    trace: Trace,
    verdicts: Arc<[Verdict]>,
    in_force: Arc<[Rule]>,
    /// Taken by the one [`Probes::run`].
    ring: Arc<Mutex<Option<ring::Ring>>>,
}

impl fmt::Debug for Probes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Probes")
            .field("in_force", &self.in_force)
            .field("trace", &self.trace)
            .finish()
    }
}

/// Why the probes could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartProbes {
    /// The directory is not on a cgroup v2 mount.
    #[error("{} is no directory of a cgroup v2 tree", .0.display())]
    NoCgroup2(PathBuf),
    /// The pin directory is on no bpffs, and none could be mounted.
    #[error("{} is on no bpffs", .0.display())]
    NoBpffs(PathBuf),
    /// A file system call failed.
    #[error("cannot {doing} {}", path.display())]
    File {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel side could not be loaded.
    #[error("cannot put the guard in force")]
    Load(#[from] Load),
    /// A running container could not be admitted.
    #[error("cannot take over the running containers")]
    Guard(#[from] guard::GuardFault),
    /// A running container's trace could not be taken over.
    #[error("cannot take over the trace")]
    Trace(#[from] trace::TraceFault),
}

impl Probes {
    /// Puts the guard in force on the engine's cgroup, taking over what an
    /// engine of the same build left pinned, and replacing what another left
    /// after the new is in force.
    ///
    /// # Errors
    /// When the guard's maps cannot be made. That the kernel refuses single programs
    /// is no error: [`Probes::verdicts`] names them.
    pub fn start(config: &ProbesConfig) -> Result<Self, StartProbes> {
        let place = place(config)?;
        let mut object = GuardObject::load(&place)?;
        let guard = Guard::open(&mut object, &children(&place.cgroup)?)?;
        for running in &config.running {
            guard.admit(running.cgroup, &running.admission)?;
        }
        let mut verdicts = object.attach(&place)?;
        let guard = guard.with_wire(load::wire(&place)?);
        fence_running(&guard, &config.running);
        let resolvers = Resolvers::open(&mut object, &verdicts)?;
        let ring = object
            .take("DENIED")?
            .try_into()
            .map_err(|_other_kind: aya::maps::MapError| Load::Map("DENIED"))?;
        let trace = match TraceObject::check(&place) {
            Ok(()) => Trace::open(place.clone())?,
            Err(why) => Trace::off(&root_cause(&why)),
        };
        verdicts.push(trace.verdict());
        for running in config.running.iter().filter(|running| running.traced) {
            trace.watch(running.cgroup)?;
        }
        place.drop_others()?;
        Ok(Self {
            guard,
            resolvers,
            trace,
            in_force: rules_in_force(&verdicts).into(),
            verdicts: verdicts.into(),
            ring: Arc::new(Mutex::new(Some(ring))),
        })
    }

    /// Probes that do nothing, for a host where they cannot or shall not run.
    /// The guard admits all, and to watch fails with `why`.
    #[must_use]
    pub fn off(why: &str) -> Self {
        let verdict = Verdict { need: "probes".into(), have: false, cost: why.to_owned() };
        Self {
            guard: Guard::off(),
            resolvers: Resolvers::off(),
            trace: Trace::off(why),
            verdicts: Arc::new([verdict]),
            in_force: Arc::new([]),
            ring: Arc::new(Mutex::new(None)),
        }
    }

    /// Detaches and unpins all that is below `pin_dir`. A missing directory is no error.
    ///
    /// # Errors
    /// When a pin cannot be removed.
    pub fn remove(pin_dir: &Path) -> Result<(), StartProbes> {
        Ok(remove_all(pin_dir)?)
    }

    /// The fences round each container.
    #[must_use]
    pub fn guard(&self) -> &Guard {
        &self.guard
    }

    /// The way to each container's resolver.
    #[must_use]
    pub fn resolvers(&self) -> &Resolvers {
        &self.resolvers
    }

    /// The counting of system calls.
    #[must_use]
    pub fn trace(&self) -> &Trace {
        &self.trace
    }

    /// What this kernel takes and what it refuses.
    #[must_use]
    pub fn verdicts(&self) -> &[Verdict] {
        &self.verdicts
    }

    /// The rules really in force, each with every program it needs.
    #[must_use]
    pub fn in_force(&self) -> &[Rule] {
        &self.in_force
    }

    /// For `SecurityOptions` in `docker info`: names the rules that are in
    /// force; `None` when none is.
    #[must_use]
    pub fn security_option(&self) -> Option<String> {
        let names: Vec<&str> = self.in_force.iter().map(|rule| rule.name()).collect();
        (!names.is_empty()).then(|| format!("name=tritium-guard,profile={}", names.join("+")))
    }

    /// Logs denials as they happen and ends watches whose time is over, until
    /// `stop` is cancelled. To be spawned once.
    pub async fn run(&self, stop: CancellationToken) {
        let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner).take();
        let log = async {
            if let Some(ring) = ring
                && let Err(error) = ring::log_denials(ring, &self.guard).await
            {
                warn!(
                    error = &error as &dyn std::error::Error,
                    "denials are no longer logged, only counted"
                );
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = log => {}
            () = self.sweep_for_ever() => {}
        }
    }

    async fn sweep_for_ever(&self) {
        let mut tick = tokio::time::interval(SWEEP);
        loop {
            tick.tick().await;
            let now = Instant::now();
            self.guard.sweep(now);
            if let Err(error) = self.trace.sweep(now) {
                warn!(error = &error as &dyn std::error::Error, "cannot end a watch");
            }
        }
    }

    /// Adds what the kernel counted (system calls of watched containers,
    /// denials) to what the engine knows, for the exporters.
    #[must_use]
    pub fn collect(&self, sample: Sample) -> Snapshot {
        let labels = |cgroup| {
            let known = sample.containers.iter().find(|container| container.cgroup == cgroup);
            known.map_or_else(|| self.guard.labels(cgroup), |container| container.labels.clone())
        };
        let syscalls = self.trace.all(labels).unwrap_or_else(|error| {
            warn!(error = &error as &dyn std::error::Error, "cannot read the trace");
            Vec::new()
        });
        let denials = self.guard.denials().unwrap_or_else(|error| {
            warn!(error = &error as &dyn std::error::Error, "cannot read the denials");
            Vec::new()
        });
        let (traffic, uncounted) = self.guard.traffic().unwrap_or_else(|error| {
            warn!(error = &error as &dyn std::error::Error, "cannot read the traffic");
            (Vec::new(), Uncounted::default())
        });
        Snapshot {
            at: SystemTime::now(),
            in_force: self.in_force.clone(),
            sample,
            syscalls,
            denials,
            traffic,
            uncounted,
        }
    }
}

/// Bound first: from the moment that the new program is on it, an interface sends nothing that
/// is not its own. One that cannot be fenced is told and goes on under the program it has, as
/// does what has no end on the host.
fn fence_running(guard: &Guard, running: &[Running]) {
    for Running { cgroup, admission, interfaces, .. } in running {
        for interface in interfaces {
            let fenced = guard.bind(*cgroup, interface).and_then(|()| match &interface.cable {
                Cable::Veth(name) => guard.fence(name),
                Cable::Macvlan(_) => Ok(()),
            });
            if let Err(error) = fenced {
                warn!(
                    container = admission.container,
                    interface = %interface.cable,
                    error = root_cause(&error),
                    "the interface of a running container is not fenced anew"
                );
            }
        }
    }
}

/// A rule is in force when every program it needs is.
fn rules_in_force(verdicts: &[Verdict]) -> Vec<Rule> {
    let have = |need: &&str| verdicts.iter().any(|it| it.have && it.need.contains(*need));
    Rule::ALL.iter().copied().filter(|rule| rule.needs().iter().all(have)).collect()
}

/// Makes the engine's cgroup and the pin directory where they are missing.
fn place(config: &ProbesConfig) -> Result<Place, StartProbes> {
    let cgroup = config.cgroup_root.join(&config.cgroup);
    let failed = |doing, path: &Path| {
        let path = path.to_owned();
        move |source| StartProbes::File { doing, path, source }
    };
    fs::create_dir_all(&cgroup).map_err(failed("make", &cgroup))?;
    if !cgroup.join("cgroup.procs").exists() || !cgroup.join("cgroup.type").exists() {
        return Err(StartProbes::NoCgroup2(cgroup));
    }
    let cgroup_id = fs::metadata(&cgroup).map_err(failed("look at", &cgroup))?.ino();
    let depth = Path::new(&config.cgroup).components().count();
    mount_bpffs(&config.pin_dir)?;
    fs::create_dir_all(&config.pin_dir).map_err(failed("make", &config.pin_dir))?;
    Ok(Place {
        cgroup,
        cgroup_id,
        level: u32::try_from(depth + 1).unwrap_or(u32::MAX),
        pins: config.pin_dir.clone(),
        trace_rows: config.trace_rows.max(1),
    })
}

/// Mounts a bpffs on `/sys/fs/bpf` when the pins are to be below it and none is there.
fn mount_bpffs(pins: &Path) -> Result<(), StartProbes> {
    let is_bpffs = |path: &Path| {
        path.ancestors()
            .find(|path| path.exists())
            .and_then(|path| rustix::fs::statfs(path).ok())
            .is_some_and(|stat| u64::try_from(stat.f_type).is_ok_and(|kind| kind == BPF_FS))
    };
    let usual = Path::new("/sys/fs/bpf");
    if !is_bpffs(pins) && pins.starts_with(usual) {
        rustix::mount::mount("bpf", usual, "bpf", rustix::mount::MountFlags::empty(), None)
            .map_err(|error| StartProbes::File {
                doing: "mount a bpffs on",
                path: usual.to_owned(),
                source: error.into(),
            })?;
    }
    if is_bpffs(pins) { Ok(()) } else { Err(StartProbes::NoBpffs(pins.to_owned())) }
}

/// Ids of the cgroups right below the engine's.
fn children(engine: &Path) -> Result<Vec<u64>, StartProbes> {
    let failed = |source| StartProbes::File { doing: "list", path: engine.to_owned(), source };
    let mut ids = Vec::new();
    for entry in fs::read_dir(engine).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if entry.file_type().map_err(failed)?.is_dir() {
            // One that goes away meanwhile is not alive.
            ids.extend(entry.metadata().map(|meta| meta.ino()));
        }
    }
    Ok(ids)
}
