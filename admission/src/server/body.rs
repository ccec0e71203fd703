//! Bodies as they arrive, within one budget for all of them: whoever sends many long ones takes no more memory, and a
//! length that is only announced takes none.

use std::sync::Arc;

use axum::body::Body;
use http_body_util::BodyExt as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What all bodies may hold together, in longest ones.
const LONGEST_AT_ONCE: usize = 8;

/// The budget.
pub(super) struct Bodies {
    longest: usize,
    room: Arc<Semaphore>,
}

/// A body, and its share of the budget until it is dropped.
pub(super) struct Held {
    pub(super) bytes: Vec<u8>,
    pub(super) room: Option<OwnedSemaphorePermit>,
}

/// Why there is no body.
#[derive(Debug)]
pub(super) enum Unread {
    /// It is longer than the longest.
    TooLong,
    /// Others hold the budget.
    NoRoom,
    /// It ends early.
    Broken(axum::Error),
}

impl Bodies {
    /// None longer than `longest` bytes.
    pub(super) fn new(longest: usize) -> Self {
        let all = longest.saturating_mul(LONGEST_AT_ONCE);
        Self {
            longest,
            room: Arc::new(Semaphore::new(all.min(Semaphore::MAX_PERMITS))),
        }
    }

    /// The whole body.
    ///
    /// # Errors
    /// [`Unread`].
    pub(super) async fn read(&self, mut body: Body) -> Result<Held, Unread> {
        let mut held = Held {
            bytes: Vec::new(),
            room: None,
        };
        while let Some(frame) = body.frame().await {
            // Trailers are nobody's.
            let Ok(data) = frame.map_err(Unread::Broken)?.into_data() else {
                continue;
            };
            if data.len() > self.longest.saturating_sub(held.bytes.len()) {
                return Err(Unread::TooLong);
            }
            let more = u32::try_from(data.len()).map_err(|_| Unread::TooLong)?;
            let more = Arc::clone(&self.room).try_acquire_many_owned(more);
            let more = more.map_err(|_| Unread::NoRoom)?;
            match &mut held.room {
                Some(room) => room.merge(more),
                None => held.room = Some(more),
            }
            held.bytes.extend_from_slice(&data);
        }
        Ok(held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn all_bodies_share_one_budget_and_give_it_back() {
        let bodies = Bodies::new(10);
        let read = async |length: usize| bodies.read(Body::from(vec![0; length])).await;
        assert!(matches!(read(11).await, Err(Unread::TooLong)));
        let mut held = Vec::new();
        for _ in 0..LONGEST_AT_ONCE {
            held.push(read(10).await.ok().unwrap());
        }
        assert!(held.iter().all(|body| body.bytes.len() == 10));
        assert!(matches!(read(1).await, Err(Unread::NoRoom)));
        held.pop();
        assert!(read(10).await.is_ok());
        assert!(read(0).await.is_ok());
    }
}
