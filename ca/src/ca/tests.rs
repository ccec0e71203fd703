use std::io::BufReader;
use std::sync::Mutex as StdMutex;

use super::*;
use crate::caller::Caller;
use crate::entry::Entry;
use crate::identities::{Identities as _, IssueError, X509Svid};
use crate::journal::read::verify;
use crate::spiffe_id::SpiffeId;

mod clocks;
mod crash;
mod crypto;
mod life;
mod revocation;
mod speed;
mod wit;

/// A clock that stands where a test put it.
#[derive(Debug)]
pub(crate) struct TestClock(StdMutex<SystemTime>);

impl TestClock {
    pub(crate) fn new() -> Arc<Self> {
        // The real time, because other verifiers look at their own clock.
        let now = crate::x509::certificate::whole_seconds(SystemTime::now());
        Arc::new(Self(StdMutex::new(now)))
    }

    pub(crate) fn advance(&self, by: Duration) {
        *self.0.lock().unwrap() += by;
    }

    pub(crate) fn set_back(&self, by: Duration) {
        *self.0.lock().unwrap() -= by;
    }
}

impl Clock for TestClock {
    fn now(&self) -> SystemTime {
        *self.0.lock().unwrap()
    }
}

pub(crate) fn options(data: &Path) -> Options {
    Options::new(TrustDomain::new("example.org").unwrap(), data.to_owned())
}

pub(crate) async fn open(options: Options, clock: &Arc<TestClock>) -> Ca {
    Ca::open(options, Arc::clone(clock) as Arc<dyn Clock>)
        .await
        .unwrap()
}

pub(crate) fn entry(path: &str, selectors: &[&str]) -> Entry {
    let trust_domain = TrustDomain::new("example.org").unwrap();
    Entry {
        id: String::new(),
        spiffe_id: SpiffeId::new(&trust_domain, path).unwrap(),
        parent_id: crate::registry::local_agent(&trust_domain),
        selectors: selectors.iter().map(|text| text.parse().unwrap()).collect(),
        x509_ttl: None,
        jwt_ttl: None,
        dns_names: Vec::new(),
        federates_with: Vec::new(),
        hint: String::new(),
        admin: false,
        downstream: false,
        store_svid: false,
        expires_at: None,
        revision_number: 0,
        created_at: SystemTime::UNIX_EPOCH,
    }
}

pub(crate) async fn create(ca: &Ca, entry: Entry) -> Arc<Entry> {
    let mut results = ca.registry().create(vec![entry], "test").await.unwrap();
    results.remove(0).unwrap()
}

pub(crate) fn caller(selectors: &[&str]) -> Caller {
    Caller::new(selectors.iter().map(|text| text.parse().unwrap()).collect())
}

async fn svid(ca: &Ca, selectors: &[&str]) -> Arc<X509Svid> {
    let context = ca.x509_context(&caller(selectors)).await.unwrap();
    Arc::clone(&context.svids[0])
}

/// The events of the journal, in order; its chain is right.
fn events(ca: &Ca) -> Vec<serde_json::Value> {
    let file = File::open(ca.journal().path()).unwrap();
    let mut events = Vec::new();
    verify(BufReader::new(file), |line, _| {
        events.push(line.record.clone())
    })
    .unwrap();
    events
}

fn count(events: &[serde_json::Value], event: &str) -> usize {
    events
        .iter()
        .filter(|record| record["event"] == event)
        .count()
}
