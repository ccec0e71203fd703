//! When a stream asks again although nothing changed.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use crate::clock::Clock;

/// The wall clock may be set while a stream waits, so it is looked at now and then.
const LOOK: Duration = Duration::from_secs(30);
/// Rest after a renewal that failed or brought nothing; doubles up to `LOOK`.
const RETRY: Duration = Duration::from_millis(500);

/// When to ask again.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Renewal {
    at: Option<SystemTime>,
    /// Not before, whatever the wall clock says.
    rest: Option<(Instant, Duration)>,
}

impl Renewal {
    /// An answer came, and says when the next one is due.
    pub(crate) fn answered(&mut self, at: Option<SystemTime>, clock: &dyn Clock) {
        self.at = at;
        // Due at once: nothing new came of it, so do not ask in a circle.
        if at.is_some_and(|at| at <= clock.now()) {
            self.failed();
        } else {
            self.rest = None;
        }
    }

    /// No answer can be had now. Returns the rest until the next attempt.
    pub(crate) fn failed(&mut self) -> Duration {
        let rest = self.rest.map_or(RETRY, |(_, last)| LOOK.min(2 * last));
        self.rest = Some((Instant::now() + rest, rest));
        rest
    }

    /// When to look.
    pub(crate) fn look_at(&self, clock: &dyn Clock) -> Instant {
        match (self.rest, self.at) {
            (Some((until, _)), _) => until,
            (None, Some(at)) => {
                let left = at.duration_since(clock.now()).unwrap_or_default();
                Instant::now() + left.min(LOOK)
            }
            (None, None) => Instant::now() + LOOK,
        }
    }

    /// True when it is time to ask; otherwise it was but a look at the clock.
    pub(crate) fn is_due(&self, clock: &dyn Clock) -> bool {
        match self.rest {
            Some((until, _)) => until <= Instant::now(),
            None => self.at.is_some_and(|at| at <= clock.now()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[derive(Debug)]
    struct SetClock(Mutex<SystemTime>);

    impl Clock for SetClock {
        fn now(&self) -> SystemTime {
            *self.0.lock().unwrap()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn follows_the_wall_clock_through_steps() {
        let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let clock = SetClock(Mutex::new(start));
        let mut renewal = Renewal::default();
        renewal.answered(Some(start + Duration::from_secs(3600)), &clock);
        assert_eq!(renewal.look_at(&clock), Instant::now() + LOOK);
        assert!(!renewal.is_due(&clock));
        // The machine slept for two days.
        *clock.0.lock().unwrap() = start + Duration::from_secs(172_800);
        assert!(renewal.is_due(&clock));
        renewal.answered(Some(start + Duration::from_secs(176_400)), &clock);
        assert!(!renewal.is_due(&clock));
        // The clock is set back: what was issued lies in the future, nothing is due.
        *clock.0.lock().unwrap() = start;
        assert!(!renewal.is_due(&clock));
    }

    #[tokio::test(start_paused = true)]
    async fn does_not_ask_in_a_circle() {
        let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let clock = SetClock(Mutex::new(start));
        let mut renewal = Renewal::default();
        let mut rests = Vec::new();
        for _ in 0..8 {
            renewal.answered(Some(start), &clock);
            rests.push((renewal.look_at(&clock) - Instant::now()).as_millis());
            assert!(!renewal.is_due(&clock));
            tokio::time::sleep_until(renewal.look_at(&clock)).await;
            assert!(renewal.is_due(&clock));
        }
        assert_eq!(rests, [500, 1000, 2000, 4000, 8000, 16000, 30000, 30000]);
        renewal.answered(None, &clock);
        assert!(!renewal.is_due(&clock));
    }
}
