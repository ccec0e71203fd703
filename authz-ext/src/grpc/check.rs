//! The method Check.
//!
//! Every request gets an answer in ext_authz's own terms. A message that is no `CheckRequest` is
//! denied as `invalid_request`, one over a limit as `overloaded`; a gRPC error would instead be subject to
//! the proxy's failure mode.

use std::future::{Future as _, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use envoy_types::ext_authz::v3::pb::CheckRequest;
use portcullis_policy::decision::Reason;
use prost::Message as _;
use prost::bytes::Bytes;
use tokio::time::Instant;
use tonic::codegen::http::HeaderMap;
use tonic::metadata::MetadataMap;

use super::answers::Answers;
use super::message::{Reader, Unread};
use super::timeout;
use crate::check::{Answer, Checker, Refusal};
use crate::limits::{Limits, Load, Overrun};
use crate::{decide, facts, respond};

/// One listener's Authorization service.
#[derive(Debug)]
pub(crate) struct Authorization {
    checker: Checker,
    facts: facts::Options,
    answers: Answers,
    longest_message: usize,
    load: Load,
}

/// The client took its request back: there is nobody to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Gone;

/// A check whose head was read.
#[derive(Debug)]
pub(super) struct Asked {
    metadata: MetadataMap,
    reader: Reader,
    received: Instant,
}

impl Authorization {
    /// A service that decides by `checker`, within the limits of `load`, and reads messages of at most
    /// `longest_message` bytes.
    pub(crate) fn new(
        checker: Checker,
        facts: facts::Options,
        respond: respond::Options,
        longest_message: usize,
        load: Load,
    ) -> Self {
        Self {
            checker,
            facts,
            answers: Answers::new(respond),
            longest_message,
            load,
        }
    }

    /// What is taken on at once.
    pub(super) fn limits(&self) -> &Limits {
        self.load.limits()
    }

    /// A check with these headers, whose message arrives in `body`.
    pub(super) fn asked(&self, headers: HeaderMap, body: h2::RecvStream) -> Asked {
        Asked {
            metadata: MetadataMap::from_headers(headers),
            reader: Reader::new(body, self.longest_message),
            received: Instant::now(),
        }
    }

    /// The answer, if nothing has to be waited for. `None`: ask [`Self::answer`].
    pub(super) fn answer_at_once(&self, asked: &mut Asked) -> Option<Result<Bytes, Gone>> {
        if self.checker.may_wait() {
            return None;
        }
        // What the check leaves unfinished when it is dropped is a message that has not all come.
        let mut answering = pin!(self.answer(asked));
        match answering
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
        {
            Poll::Ready(answer) => Some(answer),
            Poll::Pending => None,
        }
    }

    /// Reads and decides one check. The answer is always one in ext_authz's own terms: should the check
    /// panic, which nothing is known to make it do, one request is denied and the others of its connection
    /// go on, and nothing is left to the proxy's failure mode.
    pub(super) async fn answer(&self, asked: &mut Asked) -> Result<Bytes, Gone> {
        let answered = {
            let mut answering = pin!(self.read_and_decided(asked));
            poll_fn(|cx| {
                let poll = AssertUnwindSafe(|| answering.as_mut().poll(cx));
                catch_unwind(poll).map_or(Poll::Ready(None), |polled| polled.map(Some))
            })
            .await
        };
        answered.unwrap_or_else(|| {
            tracing::error!("request denied: its check panicked");
            Ok(self.refused(asked, Reason::EvaluationError))
        })
    }

    async fn read_and_decided(&self, asked: &mut Asked) -> Result<Bytes, Gone> {
        let headers = asked.metadata.as_ref();
        let reason = if is_over(headers, self.limits()) {
            self.load.over(Overrun::Overloaded).reason()
        } else {
            let client_timeout = timeout::of(headers);
            let read_and_decided = async {
                let message = asked.reader.read().await?;
                Ok(self.check(message, &asked.metadata).await)
            };
            let checked = self
                .load
                .run(asked.received, client_timeout, read_and_decided);
            match checked.await {
                Ok(Ok(answer)) => return Ok(self.answers.frame(&answer)),
                Ok(Err(Unread::Gone)) => return Err(Gone),
                Ok(Err(Unread::TooLong)) => self.load.over(Overrun::Overloaded).reason(),
                Ok(Err(Unread::Malformed)) => Reason::InvalidRequest,
                Err(overrun) => overrun.reason(),
            }
        };
        Ok(self.refused(asked, reason))
    }

    async fn check(&self, message: Bytes, metadata: &MetadataMap) -> Answer {
        let headers = metadata.as_ref();
        let facts = |snapshot: &_| {
            if self.checker.is_own_question(headers) {
                return Err(crate::custom::led_back());
            }
            match CheckRequest::decode(message) {
                Ok(check) => decide::request(snapshot, check, metadata, &self.facts),
                Err(error) => Err(Refusal::new(
                    Reason::InvalidRequest,
                    format!("not a `CheckRequest`: {error}"),
                )),
            }
        };
        self.checker.check(headers, facts).await
    }

    /// The denial of a check that was not read.
    fn refused(&self, asked: &Asked, reason: Reason) -> Bytes {
        let received = asked.received.into_std();
        let answer = self
            .checker
            .refuse(asked.metadata.as_ref(), reason, received);
        tracing::debug!(
            listener = self.checker.listener(),
            reason = reason.as_str(),
            "a check was denied unread"
        );
        self.answers.frame(&answer)
    }
}

/// More or longer headers than the limits say.
fn is_over(headers: &HeaderMap, limits: &Limits) -> bool {
    let octets = headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len());
    headers.len() > limits.headers || octets.sum::<usize>() > limits.header_bytes
}
