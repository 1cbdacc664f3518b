//! What is asked of every engine alike, over its Docker API.

use crate::http::Client;
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// An engine under measurement.
pub(crate) struct Subject {
    pub(crate) name: &'static str,
    client: Client,
}

const IMAGE: &str = "tritium-bench";

impl Subject {
    /// Connects, and imports the sample image.
    pub(crate) fn new(name: &'static str, socket: &Path, sample: &Path) -> Result<Self> {
        let mut client = Client::connect(socket)?;
        let tar = fs::read(sample).with_context(|| format!("cannot read {}", sample.display()))?;
        let path = format!("/v1.41/images/create?fromSrc=-&repo={IMAGE}&tag=latest");
        client.send("POST", &path, "application/x-tar", &tar)?;
        Ok(Self { name, client })
    }

    fn json(&mut self, method: &str, path: &str, body: &Value) -> Result<Value> {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let answer = self.client.call(method, path, &body)?;
        Ok(if answer.is_empty() { Value::Null } else { serde_json::from_str(&answer)? })
    }

    fn create(&mut self, command: &[&str], network: &str) -> Result<String> {
        let body = json!({
            "Image": format!("{IMAGE}:latest"),
            "Cmd": command,
            "HostConfig": { "NetworkMode": network },
        });
        let answer = self.json("POST", "/v1.41/containers/create", &body)?;
        Ok(answer["Id"].as_str().context("no id")?.to_owned())
    }

    fn post(&mut self, id: &str, verb: &str) -> Result<()> {
        self.json("POST", &format!("/v1.41/containers/{id}/{verb}"), &Value::Null).map(drop)
    }

    pub(crate) fn remove(&mut self, id: &str) -> Result<()> {
        self.json("DELETE", &format!("/v1.41/containers/{id}?force=1"), &Value::Null).map(drop)
    }

    /// create → start → wait → remove.
    pub(crate) fn lifecycle(&mut self, network: &str) -> Result<()> {
        let id = self.create(&["true"], network)?;
        self.post(&id, "start")?;
        self.post(&id, "wait")?;
        self.remove(&id)
    }

    /// A container that does nothing.
    pub(crate) fn idle(&mut self) -> Result<String> {
        let id = self.create(&["sleep", "1000000"], "none")?;
        self.post(&id, "start")?;
        Ok(id)
    }

    /// A container that does nothing on a network of its own, both called that:
    /// its id, and its process.
    pub(crate) fn named(&mut self, name: &str) -> Result<(String, u64)> {
        self.json("POST", "/v1.41/networks/create", &json!({ "Name": name }))?;
        let body = json!({
            "Image": format!("{IMAGE}:latest"),
            "Cmd": ["sleep", "1000000"],
            "HostConfig": { "NetworkMode": name },
        });
        let path = format!("/v1.41/containers/create?name={name}");
        let answer = self.json("POST", &path, &body)?;
        let id = answer["Id"].as_str().context("no id")?.to_owned();
        self.post(&id, "start")?;
        let pid = self.pid(&id)?;
        Ok((id, pid))
    }

    pub(crate) fn remove_network(&mut self, name: &str) -> Result<()> {
        self.json("DELETE", &format!("/v1.41/networks/{name}"), &Value::Null).map(drop)
    }

    fn pid(&mut self, id: &str) -> Result<u64> {
        let seen = self.json("GET", &format!("/v1.41/containers/{id}/json"), &Value::Null)?;
        seen["State"]["Pid"].as_u64().context("no pid")
    }

    /// create, start, output to its end, exit code.
    pub(crate) fn exec(&mut self, id: &str) -> Result<()> {
        let body = json!({ "Cmd": ["true"], "AttachStdout": true, "AttachStderr": true });
        let made = self.json("POST", &format!("/v1.41/containers/{id}/exec"), &body)?;
        let exec = made["Id"].as_str().context("no exec id")?.to_owned();
        self.client.hijack(&format!("/v1.41/exec/{exec}/start"), "{}")?;
        let ended = self.json("GET", &format!("/v1.41/exec/{exec}/json"), &Value::Null)?;
        anyhow::ensure!(ended["ExitCode"] == 0, "the exec ended with {}", ended["ExitCode"]);
        Ok(())
    }

    /// PSS in KiB (proc(5), smaps_rollup) of the process that stands over the
    /// container: supervisor, containerd-shim, conmon.
    pub(crate) fn supervisor_memory(&mut self, id: &str) -> Result<u64> {
        let pid = self.pid(id)?;
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"));
        let parent = parent.context("no parent")?.trim();
        let rollup = PathBuf::from(format!("/proc/{parent}/smaps_rollup"));
        let text = fs::read_to_string(&rollup)?;
        let pss = text.lines().find_map(|line| line.strip_prefix("Pss:")).context("no PSS")?;
        Ok(pss.trim().trim_end_matches(" kB").parse()?)
    }
}
