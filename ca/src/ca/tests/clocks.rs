//! Clocks that jump: by a step of NTP, by hand, by a sleep.

use super::*;

const UID: &[&str] = &["unix:uid:7"];

/// What is served now is valid now, under an authority that is valid now and stands in the bundle.
async fn is_sound(ca: &Ca, clock: &TestClock, what: &str) {
    let now = clock.now();
    let svid = svid(ca, UID).await;
    let bundle = ca.bundle();
    crate::x509::chain::verify(&svid.chain, &bundle, now)
        .unwrap_or_else(|error| panic!("{what}: {error}"));
    let tokens = ca.jwt_svids(&caller(UID), &["a".to_owned()], None).await;
    let token = tokens.unwrap().remove(0).token;
    let valid = ca.validate_jwt_svid(&caller(UID), "a", &token).await;
    assert!(valid.is_ok(), "{what}: {valid:?}");
}

#[tokio::test]
async fn a_clock_that_jumps_forwards_or_backwards_leaves_nothing_invalid_served() {
    const HOUR: u64 = 3600;
    for steps in [
        &[10, -10][..],
        &[300, -300],
        &[48 * HOUR as i64, 10],
        &[-(48 * HOUR as i64), -10],
        &[48 * HOUR as i64, -(48 * HOUR as i64)],
        &[-10, -300, 20 * HOUR as i64, -(20 * HOUR as i64), 300],
    ] {
        let folder = tempfile::tempdir().unwrap();
        let clock = TestClock::new();
        let ca = open(options(folder.path()), &clock).await;
        create(&ca, entry("/web", UID)).await;
        is_sound(&ca, &clock, "at first").await;
        let mut sequence = ca.bundle().sequence;
        for step in steps {
            let by = Duration::from_secs(step.unsigned_abs());
            if *step < 0 {
                clock.set_back(by);
            } else {
                clock.advance(by);
            }
            // The rotation looks at the clock every ten seconds.
            ca.tick().await.unwrap();
            ca.tick().await.unwrap();
            is_sound(&ca, &clock, &format!("{steps:?} at {step}")).await;
            assert!(ca.bundle().sequence >= sequence, "{steps:?} at {step}");
            sequence = ca.bundle().sequence;
        }
        // Nothing of it is lost in a restart.
        drop(ca);
        let ca = open(options(folder.path()), &clock).await;
        is_sound(&ca, &clock, &format!("{steps:?} after a restart")).await;
        assert!(ca.bundle().sequence >= sequence);
    }
}
