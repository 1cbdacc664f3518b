//! One process: environment, user, rights.

use super::{capabilities, options, seccomp};
use crate::{
    error::Error,
    spec::{self, Config, HostConfig},
};
use capabilities::Set;
use tritium_supervisor::protocol::Process;

/// Docker's, where neither the image nor the user has one.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What decides over rights, once per engine.
#[derive(Debug)]
pub(super) struct Rights {
    /// The engine's own capabilities: it cannot give more.
    pub(super) own: Set,
    pub(super) programs: seccomp::Programs,
}

/// What a process is to be, before its rights.
#[derive(Debug)]
pub(super) struct Wanted<'a> {
    pub(super) args: Vec<String>,
    pub(super) env: Vec<String>,
    pub(super) cwd: &'a str,
    pub(super) user: &'a str,
    pub(super) terminal: bool,
    pub(super) size: Option<(u16, u16)>,
    /// All capabilities that the engine has (`docker exec --privileged`).
    pub(super) privileged: bool,
}

impl Rights {
    /// Gives a process what its container's configuration says.
    pub(super) fn process(&self, wanted: Wanted<'_>, host: &HostConfig) -> Result<Process, Error> {
        let container = capabilities::asked(host, self.own)?;
        let capabilities = if wanted.privileged { self.own } else { container };
        let security = options::security(host)?;
        // The container's set decides over its calls, also those of a
        // privileged exec, as with Docker.
        let program =
            self.programs.get(&security.seccomp, container).map_err(|error| match error {
                seccomp::Failed::Profile(error) => Error::Invalid(error.to_string()),
                error @ seccomp::Failed::Compile(_) => {
                    Error::internal("cannot make the seccomp filter", error)
                }
            })?;
        let packet_filter =
            (!host.wants_raw_sockets()).then(|| seccomp::NO_PACKET_SOCKETS.as_str().into());
        let score = i32::try_from(host.oom_score_adj).unwrap_or(0);
        Ok(Process {
            args: wanted.args,
            env: wanted.env,
            cwd: if wanted.cwd.is_empty() { "/".into() } else { wanted.cwd.to_owned() },
            user: wanted.user.to_owned(),
            groups: host.group_add.clone().unwrap_or_default(),
            terminal: wanted.terminal,
            size: wanted.size,
            capabilities: capabilities.for_process(),
            no_new_privileges: security.no_new_privileges,
            seccomp: packet_filter
                .into_iter()
                .chain(program)
                .map(|text| text.to_string())
                .collect(),
            rlimits: options::rlimits(host)?,
            oom_score_adj: Some(score),
        })
    }
}

/// Docker's variables, then the container's.
pub(super) fn environment(config: &Config) -> Vec<String> {
    let mut env = vec![PATH.to_owned(), format!("HOSTNAME={}", config.hostname)];
    if config.tty {
        env.push("TERM=xterm".into());
    }
    spec::merge_env(&mut env, config.env.as_deref().unwrap_or_default());
    env
}

/// The same for an exec, whose variables are complete but for these.
pub(super) fn exec_environment(given: &[String], terminal: bool) -> Vec<String> {
    let mut env = vec![PATH.to_owned()];
    if terminal {
        env.push("TERM=xterm".into());
    }
    spec::merge_env(&mut env, given);
    env
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_begins_with_dockers_variables() {
        let config = Config {
            hostname: "h".into(),
            tty: true,
            env: Some(vec!["A=b".into(), "PATH=/x".into()]),
            ..Config::default()
        };
        assert_eq!(environment(&config), ["PATH=/x", "HOSTNAME=h", "TERM=xterm", "A=b"]);
        let image = Config { tty: false, env: None, ..config };
        assert_eq!(environment(&image), [PATH, "HOSTNAME=h"]);
    }
}
