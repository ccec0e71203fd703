//! Whether the API server is there: a watch in which nothing happens says nothing, so it is asked.

use std::sync::Arc;
use std::time::Duration;

use kube::Client;

use crate::state::Board;

/// How often, and how long an answer may take.
const BEAT: Duration = Duration::from_secs(5);

/// Asks for ever.
pub(crate) async fn beat(client: Client, board: Arc<Board>) {
    let mut silent = false;
    loop {
        // Every authenticated client may ask for the version.
        let asked = tokio::time::timeout(BEAT, client.apiserver_version()).await;
        let answered = match asked {
            Ok(Ok(_) | Err(kube::Error::Api(_))) => {
                board.counters.touch();
                true
            }
            _ => false,
        };
        if answered == silent {
            silent = !answered;
            match silent {
                true => tracing::warn!(
                    "the API server does not answer; the last snapshot stays in force"
                ),
                false => tracing::info!("the API server answers again"),
            }
        }
        board.modify(|status| status.contact = board.counters.contact());
        tokio::time::sleep(BEAT).await;
    }
}
