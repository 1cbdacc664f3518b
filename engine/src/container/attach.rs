//! Connects clients to the first process's streams.

use super::{
    AttachOptions, Attachment, LogOptions, Output, State, driver::Driver, input::LateInput, logs,
};
use crate::{error::Error, runtime::Streams};
use futures_util::StreamExt;
use std::os::fd::OwnedFd;
use tokio::{net::UnixStream, sync::watch};
use tokio_util::io::ReaderStream;

/// How much of the output is moved at once.
const CHUNK: usize = 64 * 1024;

/// A client that attached before the start: the supervisor gets this end.
pub(super) type Waiting = (Streams, OwnedFd);

impl Driver {
    pub(super) async fn attach(&mut self, options: AttachOptions) -> Result<Attachment, Error> {
        if matches!(self.record.state, State::Paused { .. }) {
            return Err(Error::Conflict(format!(
                "container {} is paused, unpause the container before attach",
                self.record.id
            )));
        }
        let terminal = self.record.config.tty;
        let streams = Streams { stdout: options.stdout, stderr: options.stderr };
        let wants_output = streams.stdout || streams.stderr;
        let live =
            if options.stream && wants_output { Some(self.live(streams).await?) } else { None };
        let past = if options.logs && wants_output { Some(self.past(options)) } else { None };
        let output: Option<Output> = match (past, live) {
            (Some(past), Some(live)) => Some(Box::pin(past.chain(live))),
            // Neither was asked for: then it is over at once.
            (None, None) if !options.stream => Some(Box::pin(futures_util::stream::empty())),
            (past, live) => past.or(live),
        };
        let config = &self.record.config;
        let input = (options.stdin && options.stream && config.open_stdin).then(|| {
            let once = config.stdin_once && !config.tty;
            LateInput::new(self.running_seen.subscribe(), once, &self.tools.tracker)
        });
        self.tools.announce(&self.record, "attach", &[]);
        Ok(Attachment { output, input: input.map(|input| Box::pin(input) as _), terminal })
    }

    async fn live(&mut self, streams: Streams) -> Result<Output, Error> {
        let ours = match &self.running {
            Some(running) => running.attach(streams).await?,
            None => {
                let internal = |error| Error::internal("cannot make a socket pair", error);
                let (ours, theirs) = UnixStream::pair().map_err(internal)?;
                let theirs = theirs.into_std().map_err(internal)?;
                theirs.set_nonblocking(false).map_err(internal)?;
                self.waiting.push((streams, theirs.into()));
                ours
            }
        };
        Ok(Box::pin(ReaderStream::with_capacity(ours, CHUNK)))
    }

    fn past(&self, options: AttachOptions) -> Output {
        let reader = logs::Reader {
            path: self.tools.log_path(self.record.id),
            options: LogOptions {
                stdout: options.stdout,
                stderr: options.stderr,
                // What is said from here on comes live: it would come twice.
                until: Some(Self::now()),
                ..LogOptions::default()
            },
            terminal: self.record.config.tty,
        };
        logs::read(reader, watch::channel(false).1, &self.tools.tracker)
    }
}
