//! What is told while an image is pulled, loaded or imported.
//!
//! Telling never waits: a client that reads slowly (or not at all) must not
//! stop a pull that others share. So ticks of a progress bar are dropped when
//! half of the queue is full, and the rest is kept for what is said only once
//! (an image has at most 127 layers with seven statuses each).

use serde::Serialize;
use std::sync::{Arc, Mutex};
use tokio::sync::mpsc;

/// Messages a client may lag behind.
const QUEUE: usize = 4096;

/// How far a layer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Detail {
    pub current: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total: Option<u64>,
}

/// One object of Docker's progress stream, without its spelling.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// `{"status":…}`, with the `id` of a layer or tag if it concerns one.
    Status { id: Option<String>, status: String },
    /// `{"status":…,"progressDetail":{…},"id":…}`.
    Tick { id: String, status: String, detail: Detail },
    /// `{"stream":…}`.
    Stream(String),
    /// `{"progressDetail":{},"aux":…}`: for programs.
    Aux(serde_json::Value),
}

/// Where to tell it. Clones tell the same listeners.
#[derive(Debug, Clone, Default)]
pub struct Progress(Arc<Mutex<Told>>);

#[derive(Debug, Default)]
struct Told {
    /// What one who comes later must know: all but ticks.
    past: Vec<Message>,
    /// Whether bars are wanted.
    quiet: bool,
    listeners: Vec<mpsc::Sender<Message>>,
}

impl Progress {
    /// A progress and the one who listens to it.
    #[must_use]
    pub fn channel() -> (Self, mpsc::Receiver<Message>) {
        let progress = Self::default();
        let receiver = progress.listen();
        (progress, receiver)
    }

    /// No bars from now on.
    pub fn without_bars(&self) {
        self.told().quiet = true;
    }

    /// One more listener; hears first what was said so far.
    #[must_use]
    pub fn listen(&self) -> mpsc::Receiver<Message> {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let mut told = self.told();
        for message in &told.past {
            offer(&sender, message);
        }
        told.listeners.push(sender);
        receiver
    }

    /// Whoever listens to `other` hears this one's messages from now on, after
    /// what was said so far.
    pub(crate) fn join(&self, other: &Self) {
        if Arc::ptr_eq(&self.0, &other.0) {
            return;
        }
        let newcomers = std::mem::take(&mut other.told().listeners);
        let mut told = self.told();
        for sender in newcomers {
            for message in &told.past {
                offer(&sender, message);
            }
            told.listeners.push(sender);
        }
    }

    /// Says something about the whole.
    pub fn status(&self, status: impl Into<String>) {
        self.tell(Message::Status { id: None, status: status.into() });
    }

    /// Says something about one layer or tag.
    pub fn about(&self, id: &str, status: impl Into<String>) {
        self.tell(Message::Status { id: Some(id.to_owned()), status: status.into() });
    }

    /// A line for the user.
    pub fn line(&self, text: impl Into<String>) {
        self.tell(Message::Stream(text.into()));
    }

    /// A word for programs.
    pub fn aux(&self, value: serde_json::Value) {
        self.tell(Message::Aux(value));
    }

    /// Moves a bar.
    pub fn tick(&self, id: &str, status: &str, detail: Detail) {
        self.tell(Message::Tick { id: id.to_owned(), status: status.to_owned(), detail });
    }

    fn tell(&self, message: Message) {
        let mut told = self.told();
        if told.quiet && matches!(message, Message::Tick { .. }) {
            return;
        }
        told.listeners.retain(|sender| !sender.is_closed());
        for sender in &told.listeners {
            offer(sender, &message);
        }
        if !matches!(message, Message::Tick { .. }) && told.past.len() < QUEUE {
            told.past.push(message);
        }
    }

    fn told(&self) -> std::sync::MutexGuard<'_, Told> {
        self.0.lock().expect("no panic happens under this lock")
    }
}

fn offer(sender: &mpsc::Sender<Message>, message: &Message) {
    if matches!(message, Message::Tick { .. }) && sender.capacity() < QUEUE / 2 {
        return;
    }
    // Fails for a listener that has gone, or has read nothing of 4096.
    drop(sender.try_send(message.clone()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_reads_nothing_still_gets_what_is_said_once() {
        let (progress, mut receiver) = Progress::channel();
        for current in 0..10_000 {
            progress.tick("a", "Downloading", Detail { current, total: None });
        }
        progress.about("a", "Pull complete");
        let mut last = None;
        while let Ok(message) = receiver.try_recv() {
            last = Some(message);
        }
        let said = Message::Status { id: Some("a".into()), status: "Pull complete".into() };
        assert_eq!(last, Some(said));
    }

    #[test]
    fn one_who_joins_late_hears_what_was_said_before() {
        let (first, mut hears) = Progress::channel();
        first.status("Pulling from x");
        let (second, mut late) = Progress::channel();
        first.join(&second);
        first.status("Done");
        for receiver in [&mut hears, &mut late] {
            let said = std::iter::from_fn(|| receiver.try_recv().ok()).collect::<Vec<_>>();
            assert_eq!(said.len(), 2);
        }
    }

    #[test]
    fn the_stream_ends_when_the_last_teller_is_gone() {
        let (progress, mut receiver) = Progress::channel();
        drop(progress);
        assert_eq!(receiver.try_recv(), Err(mpsc::error::TryRecvError::Disconnected));
    }
}
