//! One open SDS stream: what is asked, what has been answered, what is acknowledged.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tonic::{Request, Response, Status, Streaming};

use super::Answers;
use super::name::SecretNames;
use super::secret::{Secrets, Subscription};
use crate::attest::AttestError;
use crate::delivery::Delivery;
use crate::identities::{IssueError, X509Context};
use crate::observe::metrics::{Api, OpenStream};
use crate::wire::latest::{Sender, latest};
use crate::wire::{Call, OnFlush, status};
use crate::workload_api::{Renewal, Workloads, call};

/// How long an Envoy may take to acknowledge; its main thread does it, between two other things.
const ACKNOWLEDGE: Duration = Duration::from_secs(30);

/// One of the two forms of the protocol.
pub(super) trait Dialect: Send + 'static {
    type Request: Send + 'static;
    type Response: Send + 'static;

    /// Takes a request in.
    fn hear(&mut self, request: Self::Request) -> Result<Heard, Status>;

    /// What is asked for, once something is.
    fn subscription(&self) -> Option<&Subscription>;

    /// Names of secrets.
    fn names(&self) -> &SecretNames;

    /// The answer, or none where the peer has all of it.
    fn answer(&mut self, secrets: &Secrets) -> Option<Self::Response>;
}

/// What a request said.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// An answer to something older than what was sent last.
    Stale,
    /// The last answer is in use.
    Acknowledged,
    /// The last answer is not used, for this reason.
    Refused(String),
}

/// What a request said, and whether the set of names changed with it.
pub(super) async fn open<D: Dialect>(
    workloads: &Workloads,
    request: Request<Streaming<D::Request>>,
    dialect: D,
) -> Result<Response<Answers<D::Response>>, Status> {
    let call = call(&request)?;
    // An Envoy is told at once that it cannot be attested, before it says what it wants.
    workloads.caller(call.session()).await?;
    let conversation = Conversation {
        changes: workloads.identities.subscribe(),
        counted: OpenStream::new(workloads.observer.metrics(), Api::Sds),
        workloads: workloads.clone(),
        call,
        dialect,
        delivery: None,
        sent: None,
        unacknowledged: None,
        renewal: Renewal::default(),
        denied: false,
    };
    let (sender, receiver) = latest();
    let on_flush = OnFlush(receiver.on_flush());
    tokio::spawn(conversation.run(request.into_inner(), sender));
    let mut response = Response::new(Box::pin(receiver) as Answers<D::Response>);
    response.extensions_mut().insert(on_flush);
    Ok(response)
}

struct Conversation<D> {
    workloads: Workloads,
    call: Call,
    counted: OpenStream,
    changes: watch::Receiver<u64>,
    dialect: D,
    /// Only while our own bundle is asked for.
    delivery: Option<Delivery>,
    /// What the last answer was made of.
    sent: Option<(Subscription, X509Context)>,
    /// Our bundle's sequence in the last answer, and since when it waits for a word.
    unacknowledged: Option<(Option<u64>, Instant)>,
    renewal: Renewal,
    /// It has no identity yet.
    denied: bool,
}

impl<D: Dialect> Conversation<D> {
    async fn run(mut self, mut requests: Streaming<D::Request>, sender: Sender<D::Response>) {
        if let Err(status) = self.serve(&mut requests, &sender).await {
            sender.put(Err(status));
        }
    }

    /// Ends with the peer, or with the status that the peer is to be told.
    async fn serve(
        &mut self,
        requests: &mut Streaming<D::Request>,
        sender: &Sender<D::Response>,
    ) -> Result<(), Status> {
        let process = self
            .call
            .session()
            .peer()
            .process()
            .map_err(|error| status::unattested(&error))?
            .clone();
        // An answer that the transport has not passed on yet. No other is made meanwhile: what comes of all
        // changes until then is one answer.
        let mut in_hand: Option<Instant> = None;
        let mut last = Instant::now();
        let mut ask = false;
        loop {
            if ask && in_hand.is_none() {
                ask = false;
                self.changes.mark_unchanged();
                if let Some(response) = self.answer().await? {
                    sender.put(Ok(response));
                    self.counted.update();
                    last = Instant::now();
                    in_hand = Some(last);
                }
            }
            let clock = Arc::clone(&self.workloads.clock);
            let clock = &*clock;
            let look = self.renewal.look_at(clock);
            let stalled = in_hand.map(|since| since + self.workloads.patience.stalled);
            let silent = self
                .unacknowledged
                .map(|(_, since)| since + ACKNOWLEDGE)
                .filter(|_| in_hand.is_none());
            tokio::select! {
                () = sender.abandoned() => return Ok(()),
                () = process.ended() => return Err(status::unattested(&AttestError::Ended)),
                () = self.workloads.stopped() => return Err(status::shutting_down()),
                () = sender.drained(), if in_hand.is_some() => in_hand = None,
                () = at(stalled) => {
                    tracing::warn!(pid = process.pid(), "a reader takes nothing any more: its connection is cut");
                    self.counted.stalled();
                    self.call.session().cut();
                    return Ok(());
                }
                () = at(silent) => {
                    return Err(Status::aborted(format!(
                        "the last answer was not acknowledged within {ACKNOWLEDGE:?}"
                    )));
                }
                request = requests.message() => match request? {
                    Some(request) => {
                        self.hear(request, process.pid())?;
                        // A change of names is answered at once.
                        ask |= self.is_new_subscription();
                    }
                    None => return Ok(()),
                },
                changed = self.changes.changed() => {
                    changed.map_err(|_| status::shutting_down())?;
                    ask = true;
                    // Many changes at once are one answer.
                    tokio::time::sleep_until(last + self.workloads.patience.pause).await;
                }
                () = sleep_until(look) => ask |= self.renewal.is_due(clock),
            }
        }
    }

    fn hear(&mut self, request: D::Request, pid: u32) -> Result<(), Status> {
        match self.dialect.hear(request)? {
            Heard::Stale => {}
            Heard::Acknowledged => {
                if let Some((Some(sequence), _)) = self.unacknowledged.take()
                    && let Some(delivery) = &self.delivery
                {
                    delivery.delivered(sequence);
                }
            }
            Heard::Refused(why) => {
                tracing::error!(
                    pid, reason = %why,
                    "an Envoy refuses what it was sent and keeps what it has; its bundle is not waited for"
                );
                self.unacknowledged = None;
                self.delivery = None;
            }
        }
        Ok(())
    }

    fn is_new_subscription(&self) -> bool {
        let sent = self.sent.as_ref().map(|(subscription, _)| subscription);
        self.dialect.subscription().is_some() && self.dialect.subscription() != sent
    }

    /// The next answer: none where nothing is asked for, nothing is new, or nothing can be had yet.
    async fn answer(&mut self) -> Result<Option<D::Response>, Status> {
        let Some(subscription) = self.dialect.subscription().cloned() else {
            return Ok(None);
        };
        // Before the look: a bundle that is published from now on waits for this stream.
        let watching = match self.delivery.take() {
            Some(delivery) => delivery,
            None => self.workloads.identities.deliveries().open(),
        };
        let context = match self.ask().await {
            Ok(context) => context,
            Err(status) => {
                self.delivery = Some(watching).filter(|_| self.sent.is_some());
                return match status {
                    Some(status) => Err(status),
                    None => Ok(None),
                };
            }
        };
        let is_same = self
            .sent
            .as_ref()
            .is_some_and(|(told, sent)| *told == subscription && sent.is_same(&context));
        let secrets = subscription.secrets(&context, self.dialect.names())?;
        self.delivery = secrets.sequence.map(|_| watching);
        let response = if is_same {
            None
        } else {
            self.dialect.answer(&secrets)
        };
        match &response {
            Some(_) => self.unacknowledged = Some((secrets.sequence, Instant::now())),
            // What the peer has is what it would be told now.
            None => match (&mut self.unacknowledged, &self.delivery, secrets.sequence) {
                (Some((waiting, _)), _, sequence) => *waiting = sequence,
                (None, Some(delivery), Some(sequence)) => delivery.delivered(sequence),
                _ => {}
            },
        }
        self.sent = Some((subscription, context));
        Ok(response)
    }

    /// The caller's state; an error without a status means that there is none now, but may be later.
    async fn ask(&mut self) -> Result<X509Context, Option<Status>> {
        let attested = self.workloads.attested(self.call.session()).await;
        let caller = match attested {
            Ok(caller) => caller,
            Err(AttestError::Failed(why)) => return Err(self.later(&why)),
            Err(error) => return Err(Some(status::unattested(&error))),
        };
        // Denied already, and recorded so: a caller that waits is not denied again at every change.
        if self.denied && !self.workloads.identities.is_entitled(&caller) {
            return Err(None);
        }
        match self.workloads.identities.x509_context(&caller).await {
            Ok(context) => {
                let clock = &*self.workloads.clock;
                self.renewal.answered(Some(context.renew_at), clock);
                self.denied = false;
                Ok(context)
            }
            // An Envoy that starts before its entry waits for it: it is told on the next change.
            Err(IssueError::NoIdentity) if self.sent.is_none() => {
                self.denied = true;
                Err(None)
            }
            Err(IssueError::Unavailable(why)) => Err(self.later(&why)),
            Err(error) => Err(Some(status::not_issued(error))),
        }
    }

    fn later(&mut self, why: &str) -> Option<Status> {
        let rest = self.renewal.failed();
        tracing::warn!(%why, ?rest, "an Envoy's secrets cannot be had now; it keeps what it has");
        None
    }
}

/// Waits until `when`; for ever where there is no such time.
async fn at(when: Option<Instant>) {
    match when {
        Some(when) => sleep_until(when).await,
        None => std::future::pending().await,
    }
}
