//! What is asked of every engine alike, over its Docker API.

use crate::http::Client;
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// An engine under measurement. What is made there is removed with it.
#[derive(Debug)]
pub(crate) struct Subject {
    pub(crate) name: &'static str,
    pub(crate) socket: PathBuf,
    pub(crate) client: Client,
}

/// The sample image, and the label of all that is made.
pub(crate) const NAME: &str = "tritium-bench";
pub(crate) const VERSION: &str = "/v1.44";
/// `{"label":["tritium-bench"]}`
const OURS: &str = "filters=%7B%22label%22%3A%5B%22tritium-bench%22%5D%7D";

impl Subject {
    /// Connects, and imports the sample image.
    pub(crate) fn new(name: &'static str, socket: &Path, sample: &Path) -> Result<Self> {
        let mut client = Client::connect(socket)?;
        let tar = fs::read(sample).with_context(|| format!("cannot read {}", sample.display()))?;
        let path = format!("{VERSION}/images/create?fromSrc=-&repo={NAME}&tag=latest");
        client.send("POST", &path, "application/x-tar", &tar)?;
        Ok(Self { name, socket: socket.to_owned(), client })
    }

    /// Connects anew: the engine has been restarted.
    pub(crate) fn reconnect(&mut self) -> Result<()> {
        self.client = Client::connect(&self.socket)?;
        Ok(())
    }

    pub(crate) fn json(&mut self, method: &str, path: &str, body: &Value) -> Result<Value> {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let answer = self.client.call(method, &format!("{VERSION}{path}"), &body)?;
        Ok(if answer.is_empty() { Value::Null } else { serde_json::from_str(&answer)? })
    }

    /// A container of the sample image; `more` are further fields.
    pub(crate) fn create(&mut self, command: &[&str], more: &Value) -> Result<String> {
        let mut body = json!({ "Image": NAME, "Cmd": command, "Labels": { NAME: "" } });
        for (name, value) in more.as_object().into_iter().flatten() {
            body[name] = value.clone();
        }
        let answer = self.json("POST", "/containers/create", &body)?;
        Ok(answer["Id"].as_str().context("no id")?.to_owned())
    }

    pub(crate) fn post(&mut self, id: &str, verb: &str) -> Result<()> {
        self.json("POST", &format!("/containers/{id}/{verb}"), &Value::Null).map(drop)
    }

    pub(crate) fn remove(&mut self, id: &str) -> Result<()> {
        self.json("DELETE", &format!("/containers/{id}?force=1"), &Value::Null).map(drop)
    }

    /// create → start → wait → remove.
    pub(crate) fn lifecycle(&mut self, more: &Value) -> Result<()> {
        let id = self.create(&["true"], more)?;
        self.post(&id, "start")?;
        self.post(&id, "wait")?;
        self.remove(&id)
    }

    /// A running container that does nothing.
    pub(crate) fn idle(&mut self, more: &Value) -> Result<String> {
        let id = self.create(&["sleep", "1000000"], more)?;
        self.post(&id, "start")?;
        Ok(id)
    }

    pub(crate) fn add_network(&mut self, name: &str) -> Result<()> {
        let body = json!({ "Name": name, "Labels": { NAME: "" } });
        self.json("POST", "/networks/create", &body).map(drop)
    }

    pub(crate) fn remove_network(&mut self, name: &str) -> Result<()> {
        self.json("DELETE", &format!("/networks/{name}"), &Value::Null).map(drop)
    }

    pub(crate) fn inspect(&mut self, id: &str) -> Result<Value> {
        self.json("GET", &format!("/containers/{id}/json"), &Value::Null)
    }

    pub(crate) fn pid(&mut self, id: &str) -> Result<i32> {
        let pid = self.inspect(id)?["State"]["Pid"].as_i64().context("no pid")?;
        Ok(pid.try_into()?)
    }

    /// create, start, output to its end, exit code.
    pub(crate) fn exec(&mut self, id: &str) -> Result<()> {
        let body = json!({ "Cmd": ["true"], "AttachStdout": true, "AttachStderr": true });
        let made = self.json("POST", &format!("/containers/{id}/exec"), &body)?;
        let exec = made["Id"].as_str().context("no exec id")?.to_owned();
        self.client.hijack(&format!("{VERSION}/exec/{exec}/start"), "{}")?;
        let ended = self.json("GET", &format!("/exec/{exec}/json"), &Value::Null)?;
        ensure!(ended["ExitCode"] == 0, "the exec ended with {}", ended["ExitCode"]);
        Ok(())
    }

    /// PSS in KiB (proc(5), smaps_rollup) of the process that stands over the
    /// container: supervisor, containerd-shim, conmon.
    pub(crate) fn supervisor_memory(&mut self, id: &str) -> Result<f64> {
        let pid = self.pid(id)?;
        let parent = proc_field(&format!("/proc/{pid}/status"), "PPid:")?;
        proc_field(&format!("/proc/{parent:.0}/smaps_rollup"), "Pss:")
    }

    /// Removes whatever a measurement has left, also where it failed.
    pub(crate) fn clean(&mut self) -> Result<()> {
        self.reconnect()?;
        let left = self.json("GET", &format!("/containers/json?all=1&{OURS}"), &Value::Null)?;
        for container in left.as_array().into_iter().flatten() {
            self.remove(container["Id"].as_str().context("a container without an id")?)?;
        }
        let left = self.json("GET", &format!("/networks?{OURS}"), &Value::Null)?;
        for network in left.as_array().into_iter().flatten() {
            self.remove_network(network["Id"].as_str().context("a network without an id")?)?;
        }
        let left = self.json("GET", "/images/json", &Value::Null)?;
        let images = left.as_array().into_iter().flatten();
        let tags = images.flat_map(|image| image["RepoTags"].as_array().into_iter().flatten());
        let tags = tags.filter_map(Value::as_str).filter(|tag| tag.contains(NAME));
        for tag in tags.map(str::to_owned).collect::<Vec<_>>() {
            self.remove_image(&tag)?;
        }
        self.json("POST", &format!("/images/prune?{OURS}"), &Value::Null).map(drop)
    }

    pub(crate) fn remove_image(&mut self, name: &str) -> Result<()> {
        self.json("DELETE", &format!("/images/{name}?force=1"), &Value::Null).map(drop)
    }
}

/// A number of a file below /proc.
pub(crate) fn proc_field(file: &str, field: &str) -> Result<f64> {
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {file}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(field));
    let value = line.with_context(|| format!("{file} has no {field}"))?.trim();
    Ok(value.trim_end_matches(" kB").parse()?)
}
