//! Answers that tell how far a pull, a load or an import is.

use super::{
    error::{self, Answer},
    wire::image::Told,
};
use crate::{error::Error, service::seen::Message};
use axum::{body::Body, response::Response};
use bytes::Bytes;
use futures_util::{future::BoxFuture, stream};
use http::{HeaderValue, header};
use std::io;
use tokio::sync::mpsc;

/// The work and what it says; dropped with the answer, when the client leaves.
struct Telling {
    first: Option<Message>,
    messages: mpsc::Receiver<Message>,
    work: Option<BoxFuture<'static, Result<(), Error>>>,
    failed: Option<Error>,
}

/// Does `work` and tells what it says meanwhile. What fails before the first
/// word is an HTTP status; after it, it is said in the stream.
pub(super) async fn answer(
    work: BoxFuture<'static, Result<(), Error>>,
    messages: mpsc::Receiver<Message>,
) -> Answer {
    let mut telling = Telling { first: None, messages, work: Some(work), failed: None };
    match telling.next().await {
        None => {
            if let Some(error) = telling.failed.take() {
                return Err(error.into());
            }
        }
        first => telling.first = first,
    }
    let lines = stream::unfold(telling, |mut telling| async move {
        telling.line().await.map(|line| (line, telling))
    });
    let mut response = Response::new(Body::from_stream(lines));
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    Ok(response)
}

impl Telling {
    async fn line(&mut self) -> Option<io::Result<Bytes>> {
        let told = match self.next().await {
            Some(message) => Told::from(message),
            None => Told::failure(&error::told(&self.failed.take()?)),
        };
        let mut text = match serde_json::to_vec(&told) {
            Ok(text) => text,
            Err(error) => return Some(Err(error.into())),
        };
        text.extend_from_slice(b"\r\n");
        Some(Ok(text.into()))
    }

    /// The next message. At the end, `failed` says how it went.
    async fn next(&mut self) -> Option<Message> {
        if let Some(first) = self.first.take() {
            return Some(first);
        }
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
