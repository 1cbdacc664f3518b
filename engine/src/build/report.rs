//! What a build tells while it goes on; a front door makes its protocol of it.

use crate::{error::Error, ids::ImageId};
use tokio::sync::mpsc;

/// One thing that happened, in the order of the Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A step begins.
    Step {
        number: usize,
        of: usize,
        text: String,
    },
    /// It was found in the cache.
    Cached,
    /// A container runs it.
    Runs {
        container: String,
    },
    Removed {
        container: String,
    },
    /// The container says something.
    Said {
        text: String,
        complains: bool,
    },
    /// What the step, or the base, has become.
    Became(Option<ImageId>),
    /// A stage is complete.
    Stage(ImageId),
    /// A line for the user.
    Note(String),
    /// A warning for the user.
    Warning(String),
    /// A base image is being pulled.
    Pull(crate::image::Message),
    Built(ImageId),
    Tagged(String),
}

/// Where it is told. Waits for a reader that is slow; one who has left ends
/// the build.
pub type Report = mpsc::Sender<Event>;

/// The reader has left.
pub(super) fn cancelled() -> Error {
    Error::Unavailable("Build cancelled".to_owned())
}

pub(super) async fn tell(report: &Report, event: Event) -> Result<(), Error> {
    report.send(event).await.map_err(|_| cancelled())
}
