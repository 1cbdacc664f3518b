//! A registry on the loopback of each engine's network namespace, all of the
//! same directory.

use crate::network::Place;
use anyhow::{Context, Result, ensure};
use std::{fs::File, io::Write, path::Path};

/// The same for all: each engine has a namespace of its own.
pub(super) const ADDRESS: &str = "127.0.0.1:5900";
const PORT: u16 = 5900;

pub(super) struct Registry {
    place: Place,
    _process: crate::network::Running,
}

impl Registry {
    /// For the engine that is the process `pid`.
    pub(super) fn start(dir: &Path, pid: i32) -> Result<Self> {
        let config = dir.join(format!("registry-{pid}.yml"));
        let root = dir.join("registry");
        let text = format!(
            "version: 0.1\nlog: {{level: error}}\nhttp: {{addr: '{ADDRESS}'}}\n\
             storage: {{filesystem: {{rootdirectory: '{}'}}}}\n",
            root.display()
        );
        File::create(&config)?.write_all(text.as_bytes())?;
        let place = Place::namespace(pid);
        let log = File::create(dir.join(format!("registry-{pid}.log")))?;
        let mut command = place.command("docker-registry");
        command.arg("serve").arg(&config).stderr(log);
        let process = place.serve(&mut command, PORT).context("docker-registry")?;
        Ok(Self { place, _process: process })
    }

    /// Puts an OCI layout there.
    pub(super) fn push(&self, layout: &Path, name: &str) -> Result<()> {
        let output = self
            .place
            .command("skopeo")
            .args(["copy", "--quiet", "--dest-tls-verify=false"])
            .arg(format!("oci:{}", layout.display()))
            .arg(format!("docker://{ADDRESS}/{name}:latest"))
            .output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "skopeo: {said}");
        Ok(())
    }
}
