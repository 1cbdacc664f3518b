//! An engine under test: where it listens, and the docker CLI that talks to it.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::Mutex,
};
use tempfile::TempDir;

#[derive(Debug)]
pub(crate) struct Host {
    /// What its column is called.
    pub(crate) name: String,
    pub(crate) socket: PathBuf,
    /// It is a real Docker Engine, which the cases are held against.
    pub(crate) is_reference: bool,
    docker: PathBuf,
    config: TempDir,
    /// Operations of the description that were asked for, and what they answered.
    pub(crate) asked: Mutex<BTreeMap<String, Vec<u16>>>,
}

/// What a command said.
#[derive(Debug, Clone)]
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        Self {
            code: output.status.code().unwrap_or(-1),
            out: text(&output.stdout),
            err: text(&output.stderr),
        }
    }
}

/// Where the compose plugin is, if it is anywhere.
fn compose(docker: &Path) -> Option<PathBuf> {
    const PLUGIN: &str = "libexec/docker/cli-plugins/docker-compose";
    let unpacked = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools/docker/usr");
    let roots = [docker.parent()?.parent()?.to_owned(), "/usr".into(), unpacked];
    roots.iter().map(|root| root.join(PLUGIN)).find(|path| path.exists())
}

impl Host {
    pub(crate) fn with_reference(self, is_reference: bool) -> Self {
        Self { is_reference, ..self }
    }

    pub(crate) fn new(name: &str, socket: PathBuf) -> Self {
        let docker: PathBuf = std::env::var_os("TRITIUM_DOCKER").unwrap_or("docker".into()).into();
        let config = TempDir::new().unwrap();
        let plugins = config.path().join("cli-plugins");
        fs::create_dir(&plugins).unwrap();
        // Only this one: with buildx there, `docker build` would be another program's.
        if let Some(compose) = compose(&docker) {
            std::os::unix::fs::symlink(compose, plugins.join("docker-compose")).unwrap();
        }
        Self {
            name: name.to_owned(),
            socket,
            is_reference: false,
            docker,
            config,
            asked: Mutex::default(),
        }
    }

    pub(crate) fn has_compose(&self) -> bool {
        self.config.path().join("cli-plugins/docker-compose").exists()
    }

    /// The docker CLI; stopped after a minute, for then it hangs.
    pub(crate) fn command<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Command {
        let mut command = Command::new("timeout");
        command
            .args(["--kill-after=1", "60"])
            .arg(&self.docker)
            .args(arguments)
            .env("DOCKER_HOST", format!("unix://{}", self.socket.display()))
            .env("DOCKER_CONFIG", self.config.path())
            .env("DOCKER_BUILDKIT", "0")
            .env_remove("DOCKER_CONTEXT")
            .env_remove("DOCKER_API_VERSION")
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn said<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Said {
        self.command(arguments).output().unwrap().into()
    }

    /// Runs it with that on its standard input.
    pub(crate) fn fed<A: AsRef<OsStr>>(&self, arguments: &[A], input: &[u8]) -> Said {
        let mut child = self
            .command(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_vec();
        // A program that never reads its input may have ended before.
        let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
        let said = child.wait_with_output().unwrap().into();
        writer.join().unwrap();
        said
    }
}
