//! One open stream: the full state at once, and again on every change, for as long as its caller lives.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout_at};
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};

use super::message::Question;
use super::renewal::Renewal;
use super::{Messages, Workloads, call};
use crate::attest::AttestError;
use crate::caller::Caller;
use crate::delivery::Delivery;
use crate::identities::IssueError;
use crate::observe::metrics::OpenStream;
use crate::wire::latest::{Sender, latest};
use crate::wire::{Call, OnFlush, status};

/// Opens a stream about `Q`: an error here is the whole answer.
pub(super) async fn open<Q: Question>(
    workloads: &Workloads,
    request: &Request<impl Send>,
    question: Q,
) -> Result<Response<Messages<Q::Message>>, Status> {
    let call = call(request)?;
    // Both before the first look: what changes after it is noticed, and a bundle published from now on waits for us.
    let changes = workloads.identities.subscribe();
    let delivery = workloads.identities.deliveries().open();
    let hold = workloads
        .patience
        .hold
        .min(deadline(request.metadata()) / 2);
    let mut open = Open::<Q> {
        workloads: workloads.clone(),
        call,
        changes,
        delivery,
        counted: OpenStream::new(workloads.observer.metrics(), Q::API),
        question,
    };
    let state = open.first(Instant::now() + hold).await?;
    let (sender, receiver) = latest();
    let on_flush = OnFlush(receiver.on_flush());
    tokio::spawn(open.run(state, sender));
    let mut response = Response::new(Box::pin(receiver) as Messages<Q::Message>);
    response.extensions_mut().insert(on_flush);
    Ok(response)
}

/// How long the client will wait for its answer, as `grpc-timeout` says; without it, for ever.
fn deadline(metadata: &MetadataMap) -> Duration {
    let told = metadata.get("grpc-timeout").and_then(|v| v.to_str().ok());
    let parts = told.and_then(|text| text.split_at_checked(text.len().saturating_sub(1)));
    let Some((Ok(amount), unit)) = parts.map(|(amount, unit)| (amount.parse::<u64>(), unit)) else {
        return Duration::MAX;
    };
    match unit {
        "H" => Duration::from_secs(amount.saturating_mul(3600)),
        "M" => Duration::from_secs(amount.saturating_mul(60)),
        "S" => Duration::from_secs(amount),
        "m" => Duration::from_millis(amount),
        "u" => Duration::from_micros(amount),
        "n" => Duration::from_nanos(amount),
        _ => Duration::MAX,
    }
}

struct Open<Q: Question> {
    workloads: Workloads,
    call: Call,
    changes: watch::Receiver<u64>,
    delivery: Delivery,
    counted: OpenStream,
    question: Q,
}

/// What a stream waits for.
enum Event {
    /// Its reader has gone, or it cannot be served any more.
    Over(Option<Status>),
    /// What was put has been passed on.
    Drained,
    /// The wall clock was looked at, nothing is due.
    Looked,
    /// Ask again.
    Ask,
}

impl<Q: Question> Open<Q> {
    /// The first state. One without an identity waits a while for its entry, and is refused once.
    async fn first(&mut self, until: Instant) -> Result<Q::State, Status> {
        loop {
            self.changes.mark_unchanged();
            let caller = self.caller().await?;
            if self.workloads.identities.is_entitled(&caller) {
                match self.ask(&caller).await {
                    // Deleted in between.
                    Err(Refused::Issue(IssueError::NoIdentity)) => {}
                    answer => return Ok(answer?),
                }
            }
            if *self.workloads.stop.borrow() {
                return Err(status::shutting_down());
            }
            match timeout_at(until, self.changes.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Err(status::shutting_down()),
                Err(_) => return Ok(self.ask(&caller).await?),
            }
        }
    }

    async fn caller(&self) -> Result<Caller, Refused> {
        let attested = self.workloads.attested(self.call.session()).await;
        attested.map_err(Refused::Attest)
    }

    async fn ask(&self, caller: &Caller) -> Result<Q::State, Refused> {
        self.question
            .ask(&*self.workloads.identities, caller)
            .await
            .map_err(Refused::Issue)
    }

    async fn again(&self) -> Result<Q::State, Refused> {
        self.ask(&self.caller().await?).await
    }

    async fn run(mut self, mut state: Q::State, sender: Sender<Q::Message>) {
        let mut told = Told::default();
        told.put(&sender, Q::message(&state), Q::sequence(&state));
        self.counted.update();
        let mut renewal = Renewal::default();
        renewal.answered(Q::renew_at(&state), &*self.workloads.clock);
        loop {
            match self.event(&sender, &told, &renewal).await {
                Event::Over(status) => {
                    if let Some(status) = status {
                        sender.put(Err(status));
                    }
                    return;
                }
                Event::Drained => {
                    if let Some((sequence, _)) = told.waiting.take() {
                        self.delivery.delivered(sequence);
                    }
                    continue;
                }
                Event::Looked => continue,
                Event::Ask => {}
            }
            // Many changes at once are one message.
            if let Some(rest) =
                (told.last + self.workloads.patience.pause).checked_duration_since(Instant::now())
            {
                tokio::time::sleep(rest).await;
            }
            self.changes.mark_unchanged();
            // Boxed: it is large, and most of its life a stream asks nothing.
            match Box::pin(self.again()).await {
                Ok(now) => {
                    let sequence = Q::sequence(&now);
                    if !Q::is_same(&state, &now) {
                        told.put(&sender, Q::message(&now), sequence);
                        self.counted.update();
                    } else if let Some((waiting, _)) = &mut told.waiting {
                        *waiting = sequence;
                    } else {
                        self.delivery.delivered(sequence);
                    }
                    renewal.answered(Q::renew_at(&now), &*self.workloads.clock);
                    state = now;
                }
                // What it has stays good until it expires; it is told of nothing.
                Err(
                    Refused::Issue(IssueError::Unavailable(why))
                    | Refused::Attest(AttestError::Failed(why)),
                ) => {
                    let rest = renewal.failed();
                    tracing::warn!(
                        pid = self.pid(), %why, ?rest,
                        "a caller's identity cannot be renewed now; it keeps what it has"
                    );
                }
                Err(refused) => {
                    sender.put(Err(refused.into()));
                    return;
                }
            }
        }
    }

    async fn event(
        &mut self,
        sender: &Sender<Q::Message>,
        told: &Told,
        renewal: &Renewal,
    ) -> Event {
        let Ok(process) = self.call.session().peer().process().map(Arc::clone) else {
            return Event::Over(Some(Status::unavailable("the caller is not known")));
        };
        let look = renewal.look_at(&*self.workloads.clock);
        let stalled = told
            .waiting
            .as_ref()
            .map(|(_, since)| *since + self.workloads.patience.stalled);
        tokio::select! {
                () = sender.abandoned() => Event::Over(None),
                () = process.ended() => {
                    Event::Over(Some(Status::unavailable("the calling process has ended")))
                }
                () = self.workloads.stopped() => {
                    Event::Over(Some(status::shutting_down()))
                }
                () = sender.drained(), if stalled.is_some() => Event::Drained,
                () = sleep_until(stalled.unwrap_or(look)), if stalled.is_some() => {
                    tracing::warn!(
                        pid = self.pid(), after = ?self.workloads.patience.stalled,
                        "a reader takes nothing any more: its connection is cut"
                    );
                    self.counted.stalled();
                    self.call.session().cut();
                    Event::Over(None)
                }
                changed = self.changes.changed() => match changed {
                    Ok(()) => Event::Ask,
                    Err(_) => Event::Over(Some(status::shutting_down())),
                },
                () = sleep_until(look) => {
                    if renewal.is_due(&*self.workloads.clock) { Event::Ask } else { Event::Looked }
                }
        }
    }

    fn pid(&self) -> Option<u32> {
        let process = self.call.session().peer().process();
        process.ok().map(|process| process.pid())
    }
}

/// What the peer has been told.
struct Told {
    /// The bundle's sequence in what it has not taken yet, and since when.
    waiting: Option<(u64, Instant)>,
    last: Instant,
}

impl Default for Told {
    fn default() -> Self {
        Self {
            waiting: None,
            last: Instant::now(),
        }
    }
}

impl Told {
    fn put<T>(&mut self, sender: &Sender<T>, message: T, sequence: u64) {
        sender.put(Ok(message));
        self.last = Instant::now();
        // A newer message in the place of one that waits does not make the reader less late.
        let since = self.waiting.map_or(self.last, |(_, since)| since);
        self.waiting = Some((sequence, since));
    }
}

/// Why there is no state.
enum Refused {
    Attest(AttestError),
    Issue(IssueError),
}

impl From<Refused> for Status {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Attest(error) => status::unattested(&error),
            Refused::Issue(error) => status::not_issued(error),
        }
    }
}
