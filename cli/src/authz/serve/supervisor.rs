//! A running server and whoever supervises it: signals in, systemd's notifications (`sd_notify(3)`) out.

use std::time::Duration;

use anyhow::bail;
use portcullis_authz::reload::{ReloadOrder, ReloadStatus};
use portcullis_authz::server::Server;
use sd_notify::NotifyState;
use tokio::sync::{oneshot, watch};

use crate::shutdown::{Hangups, Signals, Stops};

/// Longest time that a reload is waited for before the supervisor is told that it ended.
const RELOAD: Duration = Duration::from_secs(60);

/// Runs `server` until a signal stops it, and tells the supervisor what happens.
///
/// # Errors
/// The server's own; or a second signal came before open requests were answered.
pub async fn supervise(server: Server, signals: Signals) -> anyhow::Result<()> {
    let Signals { stop, reload } = signals;
    let (order, status) = (server.reload_order(), server.status());
    notify(&[NotifyState::Ready, NotifyState::Status(&words(&status))]);
    let (sender, stopped) = oneshot::channel();
    let serving = server.run(async {
        // An error means that the sender is gone, which is a stop, too.
        let _ = stopped.await;
    });
    tokio::select! {
        ended = serving => Ok(ended?),
        () = stop_twice(stop, sender) => {
            bail!("a second signal ended the server before every open request was answered")
        }
        () = reloads(reload, order, status) => Ok(()),
        () = watchdog() => Ok(()),
    }
}

/// Returns at the second signal.
async fn stop_twice(mut stops: Stops, first: oneshot::Sender<()>) {
    stops.next().await;
    tracing::info!("stopping; a second signal ends the server at once");
    notify(&[
        NotifyState::Stopping,
        NotifyState::Status("answering open requests"),
    ]);
    let _ = first.send(());
    stops.next().await;
}

/// Has policies read again at each signal; never returns.
async fn reloads(
    mut hangups: Hangups,
    order: ReloadOrder,
    mut status: watch::Receiver<ReloadStatus>,
) {
    loop {
        hangups.next().await;
        tracing::info!("reading the policies again, as a signal asks");
        match NotifyState::monotonic_usec_now() {
            Ok(now) => notify(&[NotifyState::Reloading, now]),
            Err(_) => notify(&[NotifyState::Reloading]),
        }
        let attempts = |status: &ReloadStatus| status.succeeded + status.failed;
        let before = attempts(&status.borrow_and_update());
        order.give();
        let ended = status.wait_for(|status| attempts(status) > before);
        let _ = tokio::time::timeout(RELOAD, ended).await;
        notify(&[NotifyState::Ready, NotifyState::Status(&words(&status))]);
    }
}

/// Says that the server lives, twice as often as is asked for; never returns.
async fn watchdog() {
    let mut microseconds = 0;
    if !sd_notify::watchdog_enabled(false, &mut microseconds) || microseconds == 0 {
        return std::future::pending().await;
    }
    let mut beat = tokio::time::interval(Duration::from_micros(microseconds) / 2);
    loop {
        beat.tick().await;
        notify(&[NotifyState::Watchdog]);
    }
}

/// One line for `systemctl status`.
fn words(status: &watch::Receiver<ReloadStatus>) -> String {
    let status = status.borrow();
    match (&status.revision, &status.last_error) {
        (Some(revision), None) => format!("{} policies, revision {revision}", status.policies),
        (Some(revision), Some(error)) => {
            format!("revision {revision} stays in force, the policies are refused: {error}")
        }
        (None, Some(error)) => format!("every request is denied: {error}"),
        (None, None) => "every request is denied: there are no policies yet".to_owned(),
    }
    // One line each is the protocol.
    .replace('\n', " ")
}

/// Without a supervisor nothing happens.
fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(false, state) {
        tracing::warn!(%error, "the service manager cannot be told");
    }
}
