//! Builds everything in order, waits for a signal, takes it down in reverse.
//!
//! Containers do not notice: their supervisors need no engine.

use crate::{
    api,
    build::Builder,
    config::Config,
    container::{Registry, Sockets, Tools},
    events::Events,
    ids::{self, TenantName},
    image::{Images, Limits},
    network::{NetworkConfig, Networks, dns::Dns},
    runtime::{self, Runtime, RuntimeConfig},
    service::{self, About, Engine, Tenants},
    storage::{Store, Volumes, atomic},
};
use anyhow::Context;
use std::{
    collections::HashMap,
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::{
    net::{TcpListener, UnixListener},
    signal::unix::{Signal, SignalKind, signal},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tritium_probes::{Probes, ProbesConfig, export::Exporter};

/// How long requests under way may take when the engine stops.
const GRACE: Duration = Duration::from_secs(5);
/// (container, system call) rows that the trace may fill at a time.
const TRACE_ROWS: u32 = 4096;

/// Serves until SIGTERM or SIGINT.
///
/// # Errors
/// Something that the engine cannot do without is missing; nothing is left behind then, either.
pub async fn run(config: Config) -> anyhow::Result<()> {
    let told = [signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?];
    let tracker = TaskTracker::new();
    let store = Store::open(&config.state_dir, tracker.clone()).await.with_context(|| {
        format!("cannot open the state directory {}", config.state_dir.display())
    })?;
    // The next engine begins when this one has taken away what both would have.
    let lock = store.lock();
    let outcome = operate(&config, store, &tracker, told).await;
    tracker.close();
    if tokio::time::timeout(GRACE, tracker.wait()).await.is_err() {
        tracing::warn!(left = tracker.len(), "requests were still under way");
    }
    leave(&config).await;
    drop(lock);
    outcome
}

/// The rooms, from their opening to their end: with the handles that are dropped here end the
/// tasks that serve them.
async fn operate(
    config: &Config,
    store: Store,
    tracker: &TaskTracker,
    told: [Signal; 2],
) -> anyhow::Result<()> {
    let stopping = CancellationToken::new();
    let _stop = stopping.clone().drop_guard();
    let engine = build(config, store, tracker, &stopping).await?;
    let outcome = attend(config, &engine, tracker, &stopping, told).await;
    stopping.cancel();
    engine.tools.networks.stop();
    engine.tools.dns.stop();
    engine.tools.runtime.stop();
    outcome
}

/// Serves everybody until told to stop.
async fn attend(
    config: &Config,
    engine: &Engine,
    tracker: &TaskTracker,
    stopping: &CancellationToken,
    [mut terminate, mut interrupt]: [Signal; 2],
) -> anyhow::Result<()> {
    serve(config, engine, tracker, stopping)?;
    export(config, engine, tracker, stopping).await?;
    let pid_file = config.run_dir.join("tritiumd.pid");
    atomic::write(&pid_file, format!("{}\n", std::process::id()).as_bytes(), 0o644)
        .context("cannot write the pid file")?;
    tracing::info!(socket = %config.socket.display(), "serving");
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("stopping; containers go on");
    for path in [&pid_file, &config.socket] {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(path = %path.display(), %error, "cannot remove");
            }
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

/// Takes away what no container needs.
async fn leave(config: &Config) {
    match runtime::leave(&config.cgroup).await {
        Ok(false) => {}
        // Nobody is left to be guarded.
        Ok(true) => {
            if let Err(error) = Probes::remove(&pins(config)) {
                tracing::warn!(error = crate::error::chain(&error), "cannot take the guard off");
            }
        }
        Err(error) => tracing::warn!(%error, "cannot remove the control groups"),
    }
}

/// What one layer may hold.
fn limits(config: &Config) -> Limits {
    Limits { bytes: config.layer_limit << 30, ..Limits::default() }
}

/// The rooms, from the ground up.
async fn build(
    config: &Config,
    store: Store,
    tracker: &TaskTracker,
    stopping: &CancellationToken,
) -> anyhow::Result<Engine> {
    make_private(&config.run_dir)?;
    let runtime = Runtime::start(
        RuntimeConfig {
            run_dir: config.run_dir.clone(),
            cgroup: config.cgroup.clone(),
            supervisor: supervisor(config)?,
            ready: config.ready,
        },
        tracker.clone(),
    )
    .await
    .context("cannot prepare the runtime")?;
    let found = service::find(&store, &runtime).await?;
    runtime.sweep(&service::known(&found)).await?;
    let running = found.iter().filter_map(|it| it.for_probes().transpose());
    let probes = start_probes(config, &runtime, running.collect::<Result<_, _>>()?);
    let networks = start_networks(config, &probes, tracker).await?;
    let attached = found.iter().filter_map(service::Found::for_network).collect();
    let made = service::networks_on_record(&store).await?;
    for (container, port) in networks.readopt(made, attached).await? {
        let port = port.host_port;
        tracing::warn!(%container, port, "somebody else took its port: no longer published");
    }
    let (images, builder) = open_images(&store, config, tracker).await?;
    let tenants = Tenants::open(store.clone()).await?;
    let dns =
        Dns::start(probes.resolvers().clone(), tracker).context("cannot prepare the resolvers")?;
    let tools = Tools {
        runtime,
        networks,
        dns,
        store: store.clone(),
        volumes: Volumes::open(store).await.context("cannot read the volumes")?,
        sockets: sockets(config),
        probes: probes.clone(),
        events: Events::default(),
        registry: Registry::default(),
        tracker: tracker.clone(),
        stopping: stopping.clone(),
        trace_all: config.trace == crate::config::TraceAll::Syscalls,
    };
    service::restore(found, &tools).await?;
    let watched = stopping.clone();
    tracker.spawn(async move { probes.run(watched).await });
    let about = About {
        state_dir: config.state_dir.clone(),
        id: engine_id(&config.state_dir)?,
        started: jiff::Timestamp::now(),
    };
    Ok(Engine::new(tools, (images, builder), tenants, about))
}

/// Images, and what makes them.
async fn open_images(
    store: &Store,
    config: &Config,
    tracker: &TaskTracker,
) -> anyhow::Result<(Images, Builder)> {
    let images = Images::with_limits(store.clone(), tracker.clone(), limits(config)).await?;
    let builder = Builder::open(store.clone(), images.clone(), tracker.clone()).await?;
    Ok((images, builder))
}

async fn start_networks(
    config: &Config,
    probes: &Probes,
    tracker: &TaskTracker,
) -> anyhow::Result<Networks> {
    let started = Networks::start(
        NetworkConfig {
            bridge: config.bridge.clone(),
            address_pool: config.address_pool,
            ready: config.ready,
            guard: probes.guard().clone(),
        },
        tracker,
    )
    .await;
    started.context("cannot prepare the network")
}

/// What a container that is given "the Docker socket" finds.
fn sockets(config: &Config) -> Sockets {
    Sockets { operator: config.socket.clone(), tenants: config.run_dir.join("tenants") }
}

/// Beside this very program, unless told otherwise.
fn supervisor(config: &Config) -> anyhow::Result<PathBuf> {
    let path = match &config.supervisor {
        Some(path) => path.clone(),
        None => std::env::current_exe()
            .context("cannot find this program's own file")?
            .with_file_name("tritium-supervisor"),
    };
    anyhow::ensure!(path.is_file(), "there is no supervisor at {}", path.display());
    Ok(path)
}

/// Where the guard's and the trace's programs are pinned.
fn pins(config: &Config) -> PathBuf {
    Path::new("/sys/fs/bpf").join(&config.cgroup)
}

/// Without them the engine runs, and says in `docker info` what is missing.
fn start_probes(
    config: &Config,
    runtime: &Runtime,
    running: Vec<tritium_probes::Running>,
) -> Probes {
    let started = Probes::start(&ProbesConfig {
        cgroup_root: runtime.cgroup_root(),
        cgroup: config.cgroup.clone(),
        pin_dir: pins(config),
        running,
        trace_rows: TRACE_ROWS,
    });
    started.unwrap_or_else(|error| {
        let error = crate::error::chain(&error);
        tracing::error!(error, "no guard and no trace on this host");
        Probes::off(&error)
    })
}

/// `docker info`'s ID: the same over restarts.
fn engine_id(state_dir: &Path) -> anyhow::Result<String> {
    let path = state_dir.join("engine-id");
    match fs::read_to_string(&path) {
        Ok(id) => Ok(id.trim().to_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let id = ids::ContainerId::of(ids::random()).hex();
            let parts = [8, 12, 16, 20, 32].map({
                let mut from = 0;
                move |to| {
                    let part = id.get(from..to).unwrap_or_default().to_owned();
                    from = to;
                    part
                }
            });
            let id = parts.join("-");
            atomic::write(&path, id.as_bytes(), 0o600).context("cannot write the engine's id")?;
            Ok(id)
        }
        Err(error) => Err(error).context("cannot read the engine's id"),
    }
}

/// Numbers to a collector, and for Prometheus, where asked for.
async fn export(
    config: &Config,
    engine: &Engine,
    tracker: &TaskTracker,
    stopping: &CancellationToken,
) -> anyhow::Result<()> {
    let version = env!("CARGO_PKG_VERSION");
    let exporter = Exporter::from_environment(version, |name| std::env::var(name).ok())?;
    if let Some(exporter) = exporter {
        let (engine, stopping) = (engine.clone(), stopping.clone());
        tracker.spawn(async move { exporter.run(|| engine.measure(), stopping).await });
    }
    if let Some(address) = config.metrics {
        let listener = TcpListener::bind(address).await;
        let listener = listener.with_context(|| format!("cannot listen on {address}"))?;
        tracing::info!(address = %listener.local_addr()?, "serving /metrics");
        tracker.spawn(api::serve_metrics(listener, engine.clone(), stopping.clone()));
    }
    Ok(())
}

/// The operator's socket, and one for each tenant, now and later.
fn serve(
    config: &Config,
    engine: &Engine,
    tracker: &TaskTracker,
    stopping: &CancellationToken,
) -> anyhow::Result<()> {
    let open = |path: &Path, tenant: TenantName, stopping: CancellationToken| {
        let listener = listen(path)?;
        tracker.spawn(api::serve(listener, tenant, engine.clone(), tracker.clone(), stopping));
        anyhow::Ok(())
    };
    let folder = config.run_dir.join("tenants");
    make_private(&folder)?;
    for entry in fs::read_dir(&folder)? {
        // Sockets of the last engine: those of today's tenants are made anew.
        fs::remove_file(entry?.path())?;
    }
    open(&config.socket, TenantName::operator(), stopping.clone())?;
    let tenants = Tenantry {
        engine: engine.clone(),
        folder,
        tracker: tracker.clone(),
        stopping: stopping.clone(),
    };
    let mut sockets = HashMap::new();
    tenants.follow(&mut sockets)?;
    tracker.spawn(tenants.keep_following(sockets));
    Ok(())
}

/// Serves a socket for each tenant that there is.
struct Tenantry {
    engine: Engine,
    folder: PathBuf,
    tracker: TaskTracker,
    stopping: CancellationToken,
}

impl Tenantry {
    async fn keep_following(self, mut sockets: HashMap<TenantName, CancellationToken>) {
        let mut changed = self.engine.tenants.watch();
        loop {
            tokio::select! {
                () = self.stopping.cancelled() => return,
                change = changed.changed() => if change.is_err() { return },
            }
            if let Err(error) = self.follow(&mut sockets) {
                let error = crate::error::chain(error.as_ref());
                tracing::error!(error, "cannot serve a tenant's socket");
            }
        }
    }

    fn follow(&self, sockets: &mut HashMap<TenantName, CancellationToken>) -> anyhow::Result<()> {
        let tenants = self.engine.tenants.list();
        for tenant in &tenants {
            if sockets.contains_key(tenant) {
                continue;
            }
            let listener = listen(&self.folder.join(format!("{tenant}.sock")))?;
            let stop = self.stopping.child_token();
            sockets.insert(tenant.clone(), stop.clone());
            let (engine, tracker) = (self.engine.clone(), self.tracker.clone());
            self.tracker.spawn(api::serve(listener, tenant.clone(), engine, tracker, stop));
        }
        sockets.retain(|tenant, stop| {
            let stays = tenants.contains(tenant);
            if !stays {
                stop.cancel();
                // The folder is private; nobody else removes it.
                drop(fs::remove_file(self.folder.join(format!("{tenant}.sock"))));
            }
            stays
        });
        Ok(())
    }
}

/// A socket that root alone may use; an operator gives a tenant's away by
/// changing its owner.
fn listen(path: &Path) -> anyhow::Result<UnixListener> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)
            .with_context(|| format!("cannot make the folder {}", folder.display()))?;
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot remove {}", path.display()));
        }
        Ok(()) | Err(_) => {}
    }
    let listener =
        UnixListener::bind(path).with_context(|| format!("cannot listen on {}", path.display()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o660))
        .with_context(|| format!("cannot set the mode of {}", path.display()))?;
    Ok(listener)
}

fn make_private(folder: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(folder)
        .with_context(|| format!("cannot make the folder {}", folder.display()))?;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o711))
        .with_context(|| format!("cannot set the mode of {}", folder.display()))
}
