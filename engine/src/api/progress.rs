//! Answers that tell how far a pull, a load, an import or a build is.

use super::{
    error::{Answer, told},
    wire::image::Told,
};
use crate::{error::Error, service::seen::Message};
use axum::{body::Body, response::Response};
use bytes::Bytes;
use futures_util::{future::BoxFuture, stream};
use http::{HeaderValue, header};
use serde::Serialize;
use std::{collections::VecDeque, io};
use tokio::sync::mpsc;

/// How a kind of work is told of.
pub(super) trait Telling: Send + 'static {
    type Message: Send + 'static;

    /// One message as lines; none where the client is not to know.
    fn lines(&self, message: Self::Message) -> Vec<Bytes>;

    /// How it says that it has failed, once it has begun to speak.
    fn failure(&self, error: &Error) -> Bytes;
}

/// The work and what it says; dropped with the answer, when the client leaves.
struct Work<T: Telling> {
    telling: T,
    waiting: VecDeque<Bytes>,
    messages: mpsc::Receiver<T::Message>,
    work: Option<BoxFuture<'static, Result<(), Error>>>,
    failed: Option<Error>,
}

/// A pull's, a load's, an import's.
struct Transfer;

impl Telling for Transfer {
    type Message = Message;

    fn lines(&self, message: Message) -> Vec<Bytes> {
        vec![line(&Told::from(message))]
    }

    fn failure(&self, error: &Error) -> Bytes {
        line(&Told::failure(&told(error)))
    }
}

/// One object with its line end.
pub(super) fn line<T: Serialize>(object: &T) -> Bytes {
    // Only a map with keys that are no texts could fail, and there is none.
    let mut text = serde_json::to_vec(object).unwrap_or_default();
    text.extend_from_slice(b"\r\n");
    text.into()
}

/// Does `work` and tells what it says meanwhile.
pub(super) async fn answer(
    work: BoxFuture<'static, Result<(), Error>>,
    messages: mpsc::Receiver<Message>,
) -> Answer {
    tell(Transfer, work, messages).await
}

/// The same in the words of `telling`. What fails before the first word is an
/// HTTP status; after it, it is said in the stream.
pub(super) async fn tell<T: Telling>(
    telling: T,
    work: BoxFuture<'static, Result<(), Error>>,
    messages: mpsc::Receiver<T::Message>,
) -> Answer {
    let waiting = VecDeque::new();
    let mut work = Work { telling, waiting, messages, work: Some(work), failed: None };
    match work.line().await {
        Some(first) => work.waiting.push_front(first),
        None => {
            if let Some(error) = work.failed.take() {
                return Err(error.into());
            }
        }
    }
    let lines = stream::unfold(work, |mut work| async move {
        let line = match work.line().await {
            Some(line) => line,
            None => work.telling.failure(&work.failed.take()?),
        };
        Some((io::Result::Ok(line), work))
    });
    let mut response = Response::new(Body::from_stream(lines));
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    Ok(response)
}

impl<T: Telling> Work<T> {
    /// The next line. At the end, `failed` says how it went.
    async fn line(&mut self) -> Option<Bytes> {
        loop {
            if let Some(line) = self.waiting.pop_front() {
                return Some(line);
            }
            let message = self.message().await?;
            self.waiting.extend(self.telling.lines(message));
        }
    }

    async fn message(&mut self) -> Option<T::Message> {
        while let Some(work) = &mut self.work {
            tokio::select! {
                biased;
                message = self.messages.recv() => match message {
                    Some(message) => return Some(message),
                    None => {
                        self.failed = work.as_mut().await.err();
                        self.work = None;
                    }
                },
                outcome = work.as_mut() => {
                    self.failed = outcome.err();
                    self.work = None;
                }
            }
        }
        // What was said last, before the work ended.
        self.messages.try_recv().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::seen::Progress;

    async fn text(response: Response) -> String {
        let body = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
        String::from_utf8(body.to_vec()).unwrap()
    }

    #[tokio::test]
    async fn what_fails_before_the_first_word_is_a_status() {
        let (progress, messages) = Progress::channel();
        let work = Box::pin(async move {
            drop(progress);
            Err(Error::NotFound("no such thing".into()))
        });
        let failure = answer(work, messages).await.unwrap_err();
        assert_eq!(failure.0.to_string(), "no such thing");
    }

    #[tokio::test]
    async fn what_fails_after_it_is_the_last_object_of_the_stream() {
        let (progress, messages) = Progress::channel();
        let work = Box::pin(async move {
            progress.status("Pulling from a");
            Err(Error::Unavailable("gone".into()))
        });
        let response = answer(work, messages).await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(
            text(response).await,
            "{\"status\":\"Pulling from a\"}\r\n\
             {\"errorDetail\":{\"message\":\"gone\"},\"error\":\"gone\"}\r\n"
        );
    }

    #[tokio::test]
    async fn words_said_at_the_very_end_are_told_too() {
        let (progress, messages) = Progress::channel();
        let work = Box::pin(async move {
            progress.status("a");
            tokio::task::yield_now().await;
            progress.line("b");
            Ok(())
        });
        let told = text(answer(work, messages).await.unwrap()).await;
        assert_eq!(told, "{\"status\":\"a\"}\r\n{\"stream\":\"b\"}\r\n");
    }
}
