//! Programs of the host's, run as if they were a container's: in its network
//! namespace, and in its control groups, for whatever an engine has hung there
//! belongs to the price.

use anyhow::{Context, Result, ensure};
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

/// Where a program is to run.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// Whose network namespace it is.
    pub(super) pid: i32,
    cgroups: Vec<PathBuf>,
}

/// A process that ends with this value.
#[derive(Debug)]
pub(crate) struct Running(pub(super) Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Fails where it has ended, and then waiting does not block.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

impl Place {
    /// Only the namespace.
    pub(crate) fn namespace(pid: i32) -> Self {
        Self { pid, cgroups: Vec::new() }
    }

    /// That of a container, by its process.
    pub(crate) fn container(pid: i32) -> Result<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo")?;
        let groups = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
        let cgroups = groups.lines().filter_map(|line| cgroup(&mounts, line)).collect();
        Ok(Self { pid, cgroups })
    }

    /// A command that runs there.
    pub(crate) fn command(&self, program: impl AsRef<Path>) -> Command {
        // The shell moves itself; what it becomes stays there.
        let script = r#"net=$1; shift
            while [ "$1" != -- ]; do echo $$ >"$1/cgroup.procs" || exit 1; shift; done
            shift; exec nsenter "--net=/proc/$net/ns/net" -- "$@""#;
        let mut command = Command::new("sh");
        command.args(["-c", script, "sh", &self.pid.to_string()]).args(&self.cgroups);
        command.arg("--").arg(program.as_ref()).stdin(Stdio::null());
        command
    }

    /// Starts a server there, and waits until it listens.
    pub(crate) fn serve(&self, command: &mut Command, port: u16) -> Result<Running> {
        let child = command.stdout(Stdio::null()).spawn().context("cannot start a server")?;
        let mut running = Running(child);
        let deadline = Instant::now() + Duration::from_secs(10);
        while !self.listens(port)? {
            let ended = running.0.try_wait()?;
            ensure!(ended.is_none(), "the server has ended: {ended:?}");
            ensure!(Instant::now() < deadline, "the server does not listen on {port}");
            sleep(Duration::from_millis(1));
        }
        Ok(running)
    }

    /// Whether anybody does (proc(5), /proc/net/tcp; 0A is LISTEN).
    fn listens(&self, port: u16) -> Result<bool> {
        let port = format!(":{port:04X}");
        let listens = |line: &str| {
            let mut fields = line.split_whitespace().skip(1);
            fields.next().is_some_and(|local| local.ends_with(&port)) && fields.nth(1) == Some("0A")
        };
        let mut any = false;
        for file in ["tcp", "tcp6"] {
            let text = fs::read_to_string(format!("/proc/{}/net/{file}", self.pid))?;
            any |= text.lines().any(listens);
        }
        Ok(any)
    }
}

/// The directory of a line of /proc/PID/cgroup, if it is mounted and is not
/// the hierarchy's root.
fn cgroup(mounts: &str, line: &str) -> Option<PathBuf> {
    let mut fields = line.splitn(3, ':').skip(1);
    let (controllers, path) = (fields.next()?, fields.next()?.trim_start_matches('/'));
    let mounted = mounts.lines().find_map(|mount| {
        let (fields, kind) = mount.split_once(" - ")?;
        let point = fields.split(' ').nth(4)?;
        let options = kind.rsplit(' ').next()?;
        let matches = match kind.split(' ').next()? {
            "cgroup2" => controllers.is_empty(),
            "cgroup" => {
                !controllers.is_empty() && controllers.split(',').all(|it| has(options, it))
            }
            _ => false,
        };
        matches.then(|| PathBuf::from(point))
    })?;
    (!path.is_empty()).then(|| mounted.join(path))
}

fn has(options: &str, controller: &str) -> bool {
    options.split(',').any(|option| option == controller)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_control_group_is_found_by_its_hierarchy() {
        let mounts = "30 29 0:26 / /cg/unified rw - cgroup2 cgroup2 rw\n\
                      31 29 0:27 / /cg/cpu rw - cgroup cgroup rw,cpu,cpuacct\n";
        let at = |line| cgroup(mounts, line);
        assert_eq!(at("0::/a/b"), Some(PathBuf::from("/cg/unified/a/b")));
        assert_eq!(at("3:cpu,cpuacct:/a"), Some(PathBuf::from("/cg/cpu/a")));
        assert_eq!(at("4:memory:/a"), None);
        assert_eq!(at("0::/"), None);
    }
}
