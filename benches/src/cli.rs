//! The docker CLI, as somebody has it who measures with a watch.

use crate::subject::Subject;
use anyhow::{Context, Result, ensure};
use serde_json::json;
use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

pub(crate) struct Cli {
    program: PathBuf,
    /// Its configuration: where its plugins are.
    config: PathBuf,
    /// Whether it has buildx.
    pub(crate) buildx: bool,
}

impl Cli {
    pub(crate) fn new(program: &Path, dir: &Path) -> Result<Self> {
        let config = dir.join("docker-config");
        fs::create_dir_all(&config)?;
        // Beside the program, where it is not installed but unpacked.
        let plugins = program.with_file_name("../libexec/docker/cli-plugins");
        let plugins = plugins.canonicalize().unwrap_or(plugins);
        let text = json!({ "cliPluginsExtraDirs": [plugins] }).to_string();
        fs::File::create(config.join("config.json"))?.write_all(text.as_bytes())?;
        let mut cli = Self { program: program.to_owned(), config, buildx: false };
        let asked = cli.command().args(["buildx", "version"]).output();
        cli.buildx = asked.context("cannot run the docker CLI")?.status.success();
        Ok(cli)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.env("DOCKER_CONFIG", &self.config).env_remove("DOCKER_CONTEXT");
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command
    }

    /// Runs it against an engine.
    pub(crate) fn run(
        &self,
        subject: &Subject,
        arguments: &[&str],
        variables: &[(&str, &str)],
    ) -> Result<()> {
        let mut command = self.command();
        command.env("DOCKER_HOST", format!("unix://{}", subject.socket.display()));
        let ended = command.envs(variables.iter().copied()).args(arguments);
        let output = ended.stderr(Stdio::piped()).output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "docker {}: {said}", arguments.join(" "));
        Ok(())
    }
}
