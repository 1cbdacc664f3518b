//! What a new container is to be: the request, the image's defaults and
//! Docker's own, merged and checked.

use super::{CreateContainer, Scope, endpoints, policy};
use crate::{
    container::{Record, State, Update, ports},
    error::Error,
    events,
    ids::{self, ContainerId},
    image::{self, Image},
    network::Network,
    runtime,
    spec::{self, Config, Empty, Healthcheck, HostConfig, RestartPolicy},
};
use std::collections::BTreeMap;

/// Docker's default size of /dev/shm, in bytes.
const SHM_SIZE: i64 = 64 * 1024 * 1024;
/// Docker refuses shorter times in health checks, in nanoseconds.
const SHORTEST: i64 = 1_000_000;
/// Docker refuses less memory than that, in bytes.
const LEAST_MEMORY: i64 = 6 * 1024 * 1024;

/// Everything about the container but its place in the lists.
pub(super) struct Plan {
    pub(super) record: Record,
    pub(super) warnings: Vec<String>,
    /// That must be there for it.
    pub(super) volumes: Vec<crate::storage::Volume>,
}

/// Decides everything that can be decided without touching the host.
pub(super) fn plan(
    scope: &Scope,
    request: CreateContainer,
    name: String,
    image: &Image,
    networks: &[Network],
) -> Result<Plan, Error> {
    let CreateContainer { mut config, mut host, networking, .. } = request;
    super::conflicts::check(&config, &host)?;
    merge_image(&mut config, image);
    let id = ContainerId::of(ids::random());
    let args = args(&config)?;
    let mut warnings = Vec::new();
    defaults(id, &mut config, &mut host);
    check_config(&config)?;
    check_resources(&mut host, &mut warnings)?;
    super::modes::check(&host)?;
    check_modes(&host)?;
    let tenant = &scope.tenant;
    policy::allow(tenant, &host)?;
    ports::publish(&config, &host)?;
    runtime::check(&host)?;
    let mounts = super::mounts::plan(scope, &config, &host)?;
    let endpoints = endpoints::plan(&config, &host, &networking, networks)?;
    let record = Record {
        version: Record::VERSION,
        id,
        tenant: tenant.clone(),
        name,
        created: events::now(),
        image: image.id,
        layers: image.layers.clone(),
        config,
        host,
        args,
        mounts: mounts.points,
        endpoints,
        published: Vec::new(),
        restart_count: 0,
        stopped_by_user: false,
        begun: None,
        build: false,
        state: State::Created { code: 0, error: String::new() },
        health: None,
    };
    Ok(Plan { record, warnings, volumes: mounts.volumes })
}

/// What the image says where the user says nothing (moby's `daemon/commit.go`, merge).
fn merge_image(config: &mut Config, image: &Image) {
    let from = &image.config.config;
    if config.user.is_empty() {
        config.user.clone_from(&from.user);
    }
    if config.cmd.as_ref().is_none_or(Vec::is_empty)
        && config.entrypoint.as_ref().is_none_or(Vec::is_empty)
    {
        config.cmd.clone_from(&from.cmd);
    }
    if config.entrypoint.is_none() {
        config.entrypoint.clone_from(&from.entrypoint);
    }
    // `--entrypoint ""`
    if config.entrypoint.as_deref() == Some(&[String::new()]) {
        config.entrypoint = None;
    }
    let env = config.env.get_or_insert_default();
    for entry in &from.env {
        let key = entry.split('=').next();
        if !env.iter().any(|own| own.split('=').next() == key) {
            env.push(entry.clone());
        }
    }
    if config.working_dir.is_empty() {
        config.working_dir.clone_from(&from.working_dir);
    }
    let labels = config.labels.get_or_insert_default();
    for (key, value) in &from.labels {
        labels.entry(key.clone()).or_insert_with(|| value.clone());
    }
    add_missing(&mut config.exposed_ports, &from.exposed_ports);
    add_missing(&mut config.volumes, &from.volumes);
    if config.stop_signal.is_none() && !from.stop_signal.is_empty() {
        config.stop_signal = Some(from.stop_signal.clone());
    }
    if config.stop_timeout.is_none() {
        config.stop_timeout = from.stop_timeout;
    }
    if config.shell.is_none() && !from.shell.is_empty() {
        config.shell = Some(from.shell.clone());
    }
    if let Some(health) = &from.healthcheck {
        merge_health(&mut config.healthcheck, health);
    }
}

fn add_missing(set: &mut Option<spec::Set>, from: &BTreeMap<String, Empty>) {
    for key in from.keys() {
        set.get_or_insert_default().entry(key.clone()).or_insert(Empty {});
    }
}

fn merge_health(own: &mut Option<Healthcheck>, from: &image::Healthcheck) {
    let own = own.get_or_insert_default();
    let some = |value: i64| (value != 0).then_some(value);
    if own.test.as_ref().is_none_or(Vec::is_empty) {
        own.test = Some(from.test.clone());
    }
    own.interval = own.interval.or(some(from.interval));
    own.timeout = own.timeout.or(some(from.timeout));
    own.start_period = own.start_period.or(some(from.start_period));
    own.start_interval = own.start_interval.or(some(from.start_interval));
    own.retries = own.retries.or(some(from.retries));
}

fn args(config: &Config) -> Result<Vec<String>, Error> {
    let entrypoint = config.entrypoint.iter().flatten();
    let args: Vec<String> = entrypoint.chain(config.cmd.iter().flatten()).cloned().collect();
    if args.is_empty() {
        return Err(Error::Invalid("no command specified".into()));
    }
    Ok(args)
}

/// What Docker fills in, so that `inspect` shows it.
fn defaults(id: ContainerId, config: &mut Config, host: &mut HostConfig) {
    if host.network_mode.is_empty() || host.network_mode == "default" {
        host.network_mode = "bridge".into();
    }
    if config.hostname.is_empty() && host.network_mode != "host" && host.uts_mode != "host" {
        config.hostname = id.short();
    }
    if host.network_mode == "host" && config.hostname.is_empty() {
        // A name that cannot be read is none: the kernel's own default then.
        config.hostname = nix::unistd::gethostname()
            .ok()
            .and_then(|name| name.into_string().ok())
            .unwrap_or_default();
    }
    // Docker shows what says nothing as absent.
    config.env.take_if(|env| env.is_empty());
    config.volumes.take_if(|volumes| volumes.is_empty());
    host.memory_swappiness.take_if(|value| *value == -1);
    host.oom_kill_disable.get_or_insert(false);
    if host.shm_size == 0 {
        host.shm_size = SHM_SIZE;
    }
    for (mode, default) in [
        (&mut host.ipc_mode, "private"),
        (&mut host.cgroupns_mode, "private"),
        (&mut host.log_config.kind, "json-file"),
        (&mut host.restart_policy.name, "no"),
        (&mut host.runtime, "tritium"),
    ] {
        if mode.is_empty() {
            default.clone_into(mode);
        }
    }
    if host.memory > 0 && host.memory_swap == 0 {
        host.memory_swap = host.memory.saturating_mul(2);
    }
    if host.privileged {
        host.masked_paths = None;
        host.readonly_paths = None;
    } else {
        let list = |paths: &[&str]| Some(paths.iter().map(|path| (*path).to_owned()).collect());
        host.masked_paths = host.masked_paths.take().or_else(|| list(runtime::MASKED_PATHS));
        host.readonly_paths = host.readonly_paths.take().or_else(|| list(runtime::READONLY_PATHS));
    }
}

fn check_config(config: &Config) -> Result<(), Error> {
    if !config.working_dir.is_empty() && !config.working_dir.starts_with('/') {
        return Err(Error::Invalid(format!(
            "the working directory '{}' is invalid, it needs to be an absolute path",
            config.working_dir
        )));
    }
    for entry in config.env.iter().flatten() {
        if entry.is_empty() || entry.starts_with('=') {
            return Err(Error::Invalid(format!("invalid environment variable: {entry}")));
        }
        if entry.contains('\0') {
            return Err(Error::Invalid("invalid environment variable: it has a NUL byte".into()));
        }
    }
    if let Some(signal) = config.stop_signal.as_deref().filter(|signal| !signal.is_empty()) {
        crate::signal::parse(signal).map_err(|error| Error::Invalid(error.to_string()))?;
    }
    config.healthcheck.as_ref().map_or(Ok(()), check_health)?;
    let texts = config.entrypoint.iter().chain(&config.cmd).flatten();
    if texts.chain([&config.user, &config.hostname]).any(|text| text.contains('\0')) {
        return Err(Error::Invalid("the command, user or host name has a NUL byte".into()));
    }
    if config.hostname.len() > 63 {
        return Err(Error::Invalid(format!("invalid hostname format: {}", config.hostname)));
    }
    Ok(())
}

fn check_health(check: &Healthcheck) -> Result<(), Error> {
    let short = |nanos: Option<i64>| nanos.is_some_and(|it| it != 0 && it < SHORTEST);
    let named = [
        ("Interval", check.interval),
        ("Timeout", check.timeout),
        ("StartPeriod", check.start_period),
        ("StartInterval", check.start_interval),
    ];
    if let Some((name, _)) = named.into_iter().find(|(_, nanos)| short(*nanos)) {
        return Err(Error::Invalid(format!("{name} in Healthcheck cannot be less than 1ms")));
    }
    if check.retries.is_some_and(|retries| retries < 0) {
        return Err(Error::Invalid("Retries in Healthcheck cannot be negative".into()));
    }
    Ok(())
}

fn check_resources(host: &mut HostConfig, warnings: &mut Vec<String>) -> Result<(), Error> {
    let invalid = |text: &str| Err(Error::Invalid(text.to_owned()));
    if host.memory != 0 && host.memory < LEAST_MEMORY {
        return invalid("Minimum memory limit allowed is 6MB");
    }
    if host.memory_swap > 0 && host.memory == 0 {
        return invalid(
            "You should always set the Memory limit when using Memoryswap limit, see usage",
        );
    }
    if host.memory > 0 && host.memory_swap > 0 && host.memory_swap < host.memory {
        return invalid("Minimum memoryswap limit should be larger than memory limit, see usage");
    }
    if host.memory > 0 && host.memory_reservation > host.memory {
        return invalid(
            "Minimum memory limit can not be less than memory reservation limit, see usage",
        );
    }
    if host.nano_cpus != 0 && host.cpu_period != 0 {
        return invalid("Conflicting options: Nano CPUs and CPU Period cannot both be set");
    }
    if host.nano_cpus != 0 && host.cpu_quota != 0 {
        return invalid("Conflicting options: Nano CPUs and CPU Quota cannot both be set");
    }
    if host.nano_cpus != 0 {
        // Read from half a dozen files each time: only where it matters.
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let most = i64::try_from(cpus).unwrap_or(i64::MAX).saturating_mul(1_000_000_000);
        if host.nano_cpus < 0 || host.nano_cpus > most {
            return Err(Error::Invalid(format!(
                "range of CPUs is from 0.01 to {cpus}.00, as there are only {cpus} CPUs available"
            )));
        }
    }
    if host.cpu_period != 0 && !(1000..=1_000_000).contains(&host.cpu_period) {
        return invalid(
            "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)",
        );
    }
    if host.cpu_quota > 0 && host.cpu_quota < 1000 {
        return invalid("CPU cfs quota can not be less than 1ms (i.e. 1000)");
    }
    if !(-1000..=1000).contains(&host.oom_score_adj) {
        return Err(Error::Invalid(format!(
            "Invalid value {}, range for oom score adj is [-1000, 1000]",
            host.oom_score_adj
        )));
    }
    if host.oom_kill_disable == Some(true) && host.memory == 0 {
        warnings.push(
            "OOM killer is disabled for the container, but no memory limit is set, this can \
             result in the system running out of resources."
                .into(),
        );
    }
    if host.pids_limit.is_some_and(|limit| limit <= 0) {
        host.pids_limit = None;
    }
    Ok(())
}

/// The same rules for what `docker update` makes of it.
pub(super) fn check_update(record: &Record, change: &Update) -> Result<Vec<String>, Error> {
    let mut asked = HostConfig::default();
    change.clone().apply(&mut asked);
    if asked.memory == 0 {
        // Its memory limit may have been set before.
        asked.memory_swap = 0;
    }
    let mut warnings = Vec::new();
    check_resources(&mut asked, &mut warnings)?;
    let mut host = record.host.clone();
    if let Some(why) = change.conflict(&host) {
        return Err(Error::Conflict(format!("Cannot update container {}: {why}", record.id)));
    }
    change.clone().apply(&mut host);
    check_restart_policy(&host.restart_policy)?;
    runtime::check(&host)?;
    if host.auto_remove && host.restart_policy.name != "no" {
        return Err(Error::Invalid(
            "Restart policy cannot be updated because AutoRemove is enabled for the container"
                .into(),
        ));
    }
    Ok(warnings)
}

fn check_restart_policy(policy: &RestartPolicy) -> Result<(), Error> {
    let wrong = match (policy.name.as_str(), policy.maximum_retry_count) {
        ("no" | "always" | "unless-stopped", 0) | ("on-failure", 0..) => return Ok(()),
        ("no" | "always" | "unless-stopped", _) => {
            "maximum retry count can only be used with 'on-failure'".to_owned()
        }
        ("on-failure", _) => "maximum retry count cannot be negative".to_owned(),
        (other, _) => format!(
            "unknown policy '{other}'; use one of 'no', 'always', 'on-failure', or \
             'unless-stopped'"
        ),
    };
    Err(Error::Invalid(format!("invalid restart policy: {wrong}")))
}

fn check_modes(host: &HostConfig) -> Result<(), Error> {
    let policy = &host.restart_policy;
    check_restart_policy(policy)?;
    if host.auto_remove && policy.name != "no" {
        return Err(Error::Invalid(
            "can't create 'AutoRemove' container with restart policy".into(),
        ));
    }
    if host.network_mode.starts_with("container:")
        && host.port_bindings.as_ref().is_some_and(|it| !it.is_empty())
    {
        return Err(Error::Invalid(
            "conflicting options: port publishing and the container type network mode".into(),
        ));
    }
    if !matches!(host.userns_mode.as_str(), "" | "host") {
        return Err(Error::Invalid("invalid USER namespace mode".into()));
    }
    check_storage(host)
}

/// Docker knows one option, which needs a file system with project quotas.
fn check_storage(host: &HostConfig) -> Result<(), Error> {
    let refused = |message: String| Err(Error::NotStarted { code: 128, message });
    match host.storage_opt.iter().flatten().next() {
        Some((key, _)) if key.eq_ignore_ascii_case("size") => refused(
            "--storage-opt is supported only for overlay over xfs with 'pquota' mount option"
                .into(),
        ),
        Some((key, _)) => refused(format!("Unknown option {key}")),
        None => Ok(()),
    }
}
