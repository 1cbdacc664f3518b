//! From what was asked to what the supervisor is told.

use super::{
    Job, NetworkNamespace, devices, log_options, mounts,
    process::{self, Rights, Wanted},
};
use crate::error::Error;
use std::path::PathBuf;
use tritium_supervisor::protocol::{Launch, Namespace, Namespaces, VERSION};

/// Where the container's place on the host is.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) exit_file: PathBuf,
    pub(super) oom_file: Option<PathBuf>,
}

/// Everything it takes to make one container.
pub(super) fn launch(job: &Job, rights: &Rights, place: Place) -> Result<Launch, Error> {
    let (config, host) = (&*job.config, &*job.host);
    let size = Some((host.console_size[0], host.console_size[1]))
        .filter(|(rows, columns)| config.tty && *rows > 0 && *columns > 0);
    let wanted = Wanted {
        args: job.args.clone(),
        env: process::environment(config),
        cwd: &config.working_dir,
        user: &config.user,
        terminal: config.tty,
        size,
        privileged: false,
    };
    let namespaces = namespaces(job);
    let own_name = namespaces.uts == Namespace::New;
    let name = |name: &String| if own_name { name.clone() } else { String::new() };
    let list = |paths: &Option<Vec<String>>, default: &[&str]| match paths {
        _ if host.privileged => Vec::new(),
        Some(paths) => paths.clone(),
        None => default.iter().map(|path| (*path).to_owned()).collect(),
    };
    let mut rootfs = job.rootfs.clone();
    rootfs.readonly = host.readonly_rootfs;
    let subject = log_options::Subject { id: job.id, name: &job.name, image: job.image, config };
    Ok(Launch {
        version: VERSION,
        id: job.id.hex(),
        exit_file: place.exit_file,
        process: rights.process(wanted, host)?,
        hostname: name(&config.hostname),
        domainname: name(&config.domainname),
        rootfs,
        mounts: mounts::mounts(host, job.ipc, &job.files, &job.mounts)?,
        devices: devices::files(host)?,
        masked_paths: list(&host.masked_paths, mounts::MASKED_PATHS),
        readonly_paths: list(&host.readonly_paths, mounts::READONLY_PATHS),
        sysctls: sysctls(job, &namespaces),
        namespaces,
        init: host.init == Some(true),
        stdin: config.open_stdin,
        log: log_options::log(&host.log_config, &job.log_path, Some(subject))?,
        oom_file: place.oom_file,
    })
}

fn namespaces(job: &Job) -> Namespaces {
    let host = &job.host;
    let joined = |pid: Option<i32>, mode: &str| match (pid, mode) {
        (Some(pid), _) => Namespace::Of { pid },
        (None, "host") => Namespace::Host,
        (None, _) => Namespace::New,
    };
    Namespaces {
        pid: joined(job.pid, &host.pid_mode),
        network: match &job.network {
            NetworkNamespace::Given(_) => Namespace::Given,
            NetworkNamespace::Host => Namespace::Host,
            NetworkNamespace::Of(pid) => Namespace::Of { pid: *pid },
        },
        ipc: joined(job.ipc, &host.ipc_mode),
        uts: joined(None, &host.uts_mode),
        cgroup: joined(None, &host.cgroupns_mode),
    }
}

/// Docker's for a network of its own, then the user's.
fn sysctls(job: &Job, namespaces: &Namespaces) -> Vec<(String, String)> {
    let mut sysctls = Vec::new();
    if namespaces.network == Namespace::Given {
        sysctls.push(("net.ipv4.ip_unprivileged_port_start".to_owned(), "0".to_owned()));
        sysctls.push(("net.ipv4.ping_group_range".to_owned(), "0 2147483647".to_owned()));
    }
    for (name, value) in job.host.sysctls.iter().flatten() {
        match sysctls.iter_mut().find(|(known, _)| known == name) {
            Some((_, old)) => old.clone_from(value),
            None => sysctls.push((name.clone(), value.clone())),
        }
    }
    sysctls
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ids::ContainerId,
        runtime::{Files, capabilities, seccomp},
        spec::{Config, HostConfig},
    };
    use std::sync::Arc;
    use tritium_supervisor::protocol::Rootfs;

    fn job(config: Config, host: HostConfig) -> Job {
        let rootfs = Rootfs {
            lower: vec!["l".into()],
            layers_dir: "/layers".into(),
            upper: "/u".into(),
            work: "/w".into(),
            target: "/t".into(),
            readonly: false,
        };
        Job {
            id: ContainerId::of([7; 32]),
            name: "web".into(),
            image: crate::ids::Digest::of([8; 32]),
            args: vec!["true".into()],
            config: Arc::new(config),
            host: Arc::new(host),
            rootfs,
            files: Files { hosts: "/h".into(), hostname: "/n".into(), resolv_conf: "/r".into() },
            mounts: Vec::new(),
            network: NetworkNamespace::Host,
            pid: None,
            ipc: None,
            log_path: "/log".into(),
            attachments: Vec::new(),
        }
    }

    fn launched(config: Config, host: HostConfig) -> Launch {
        let rights =
            Rights { own: capabilities::own().unwrap(), programs: seccomp::Programs::default() };
        let place = Place { exit_file: "/exit".into(), oom_file: None };
        launch(&job(config, host), &rights, place).unwrap()
    }

    #[test]
    fn a_plain_container_is_confined_as_dockers() {
        let launch = launched(Config::default(), HostConfig::default());
        assert_eq!(launch.masked_paths, mounts::MASKED_PATHS);
        assert_eq!(launch.readonly_paths, mounts::READONLY_PATHS);
        assert_eq!(launch.process.seccomp.len(), 2, "Docker's, and no packet sockets");
        assert_eq!(launch.process.capabilities.effective, 0xa804_25fb);
        assert_eq!(launch.process.cwd, "/");
        assert!(launch.sysctls.is_empty(), "the host's network is not changed");
        assert_eq!(launch.namespaces.pid, Namespace::New);
    }

    #[test]
    fn a_privileged_container_is_not() {
        let host = HostConfig { privileged: true, ..HostConfig::default() };
        let launch = launched(Config::default(), host);
        assert!(launch.masked_paths.is_empty() && launch.readonly_paths.is_empty());
        assert!(launch.process.seccomp.is_empty());
        let sys = launch.mounts.iter().find(|mount| mount.destination == "/sys").unwrap();
        assert!(!sys.readonly);
    }

    #[test]
    fn a_container_in_the_hosts_uts_namespace_does_not_rename_the_host() {
        let config = Config { hostname: "h".into(), domainname: "d".into(), ..Config::default() };
        let host = HostConfig { uts_mode: "host".into(), ..HostConfig::default() };
        let launch = launched(config, host);
        assert_eq!((launch.hostname.as_str(), launch.domainname.as_str()), ("", ""));
    }
}
