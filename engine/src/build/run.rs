//! `RUN`: what is run, and who runs it.

use super::{
    parse,
    report::Report,
    stage::{Key, Stage},
};
use crate::{error::Error, image::Image, storage::Upper};
use futures_util::future::BoxFuture;
use std::{path::PathBuf, sync::Arc};
use tokio_util::sync::CancellationToken;

/// Where scripts of here-documents are seen.
const SCRIPTS: &str = "/dev/pipes";

pub use parse::Network;

/// A file of the engine's that the container sees, to be executed.
#[derive(Debug, Clone)]
pub struct Script {
    pub source: PathBuf,
    pub destination: String,
}

/// One command to be run over an image that nobody has named.
#[derive(Debug)]
pub struct RunStep {
    pub image: Image,
    pub command: Vec<String>,
    /// The whole environment, with the build's arguments.
    pub env: Vec<String>,
    pub network: Network,
    pub script: Option<Script>,
    pub report: Report,
    pub cancel: CancellationToken,
}

/// Runs a command in a container, to its end; what it has written is the
/// answer, and the container is gone. Nothing of it is left after an error,
/// but what the user has asked to be left.
pub type Run = dyn Fn(RunStep) -> BoxFuture<'static, Result<Upper, Error>> + Send + Sync;

impl Stage<'_> {
    pub(super) async fn run(&mut self, run: &parse::Run) -> Result<(), Error> {
        let env = self.state.config.config.env.clone();
        let (command, script) = self.command(run);
        let recorded = self.state.args.recorded(&env);
        let mut by = command.join(" ");
        if !recorded.is_empty() {
            by = format!("|{} {} {by}", recorded.len(), recorded.join(" "));
        }
        let key = Key::of("run")
            .and(&format!("{run:?}"))
            .and(&format!("{command:?}"))
            .and(&format!("{recorded:?}"));
        let key = key.over(self.state.id);
        if self.found(key, &by).await? {
            return Ok(());
        }
        // Kept to the end of the step, by being here.
        let staged = match script {
            Some(text) => Some(self.stage_script(text).await?),
            None => None,
        };
        let visible = self.state.args.visible(&env).into_iter();
        let step = RunStep {
            image: self.state.image(),
            command,
            env: env.into_iter().chain(visible.map(|(k, v)| format!("{k}={v}"))).collect(),
            network: run.network,
            script: staged.as_ref().map(|staged| Script {
                source: staged.path().join("script"),
                destination: format!("{SCRIPTS}/{}", name_of(run)),
            }),
            report: self.report.clone(),
            cancel: self.job.cancel.clone(),
        };
        let upper = (self.job.run)(step).await?;
        let layer = self.job.blocking(move |_| Ok(upper.publish()?)).await?;
        self.made(key, by, layer.map(Arc::new))
    }

    /// What is executed, and the text of a script that is to be there.
    fn command(&self, run: &parse::Run) -> (Vec<String>, Option<String>) {
        let parse::Command { words, shell } = &run.command;
        if !shell {
            return (words.clone(), None);
        }
        let mut line = words.concat();
        let alone = line.split_whitespace().count() == 1 && line.starts_with("<<");
        match run.heredocs.as_slice() {
            [] => {}
            [document] if alone => {
                let text = document.content();
                if text.starts_with("#!") {
                    return (vec![format!("{SCRIPTS}/{}", document.name)], Some(text));
                }
                line = text;
            }
            documents => {
                for document in documents {
                    line.push('\n');
                    line.push_str(&document.text);
                    line.push_str(&document.name);
                }
            }
        }
        let mut command = self.state.shell();
        command.push(line);
        (command, None)
    }

    async fn stage_script(&self, text: String) -> Result<crate::storage::Staged, Error> {
        self.job
            .blocking(move |job| {
                let staged = job.builder.store.stage_layer()?;
                write_script(&staged.path().join("script"), &text)
                    .map_err(|error| Error::internal("cannot write a script", error))?;
                Ok(staged)
            })
            .await
    }
}

fn name_of(run: &parse::Run) -> &str {
    run.heredocs.first().map_or("script", |document| document.name.as_str())
}

fn write_script(path: &std::path::Path, text: &str) -> std::io::Result<()> {
    use std::{io::Write, os::unix::fs::OpenOptionsExt};
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o755).open(path)?;
    file.write_all(text.as_bytes())
}
