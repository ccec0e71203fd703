//! Issuers whose key sets are slow, huge, redirected, rotated, gone.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::signer::Signer;
use super::*;

/// What an issuer does when it is asked.
#[derive(Clone)]
enum Behaviour {
    /// Answers this document at every path that ends so, else 404.
    Serve(Vec<(&'static str, String)>),
    Status(u16),
    Redirect(String),
    /// Sends a byte of a header now and then.
    Drip,
    /// Says nothing.
    Silent,
    /// Sends without end.
    Endless,
    /// Closes at once.
    Close,
}

struct Issuer {
    address: String,
    behaviour: Arc<Mutex<Behaviour>>,
    asked: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl Issuer {
    fn behaves(&self, behaviour: Behaviour) {
        *self.behaviour.lock().unwrap() = behaviour;
    }

    async fn start(behaviour: Behaviour) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let behaviour = Arc::new(Mutex::new(behaviour));
        let asked = Arc::new(AtomicUsize::new(0));
        let (shared, count) = (Arc::clone(&behaviour), Arc::clone(&asked));
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                count.fetch_add(1, Ordering::SeqCst);
                let behaviour = shared
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .clone();
                tokio::spawn(behave(stream, behaviour));
            }
        });
        Self {
            address,
            behaviour,
            asked,
            task,
        }
    }

    fn become_(&self, behaviour: Behaviour) {
        *self.behaviour.lock().unwrap() = behaviour;
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
}

impl Drop for Issuer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn behave(mut stream: TcpStream, behaviour: Behaviour) {
    let mut request = vec![0; 4096];
    let length = stream.read(&mut request).await.unwrap_or_default();
    let head = String::from_utf8_lossy(&request[..length]).into_owned();
    let path = head.split(' ').nth(1).unwrap_or_default();
    let answer = |status: &str, extra: &str, body: &str| {
        format!(
            "HTTP/1.1 {status}\r\n{extra}content-length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    let text = match behaviour {
        Behaviour::Serve(documents) => {
            match documents.iter().find(|(end, _)| path.ends_with(end)) {
                Some((_, document)) => answer("200 OK", "", document),
                None => answer("404 Not Found", "", ""),
            }
        }
        Behaviour::Status(status) => answer(&format!("{status} x"), "", "{}"),
        Behaviour::Redirect(to) => answer("302 Found", &format!("location: {to}\r\n"), ""),
        Behaviour::Drip => loop {
            if stream.write_all(b"H").await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        },
        Behaviour::Silent => {
            tokio::time::sleep(Duration::from_secs(60)).await;
            return;
        }
        Behaviour::Endless => {
            let _ = stream
                .write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
                .await;
            let chunk = format!("10000\r\n{}\r\n", " ".repeat(0x10000));
            while stream.write_all(chunk.as_bytes()).await.is_ok() {}
            return;
        }
        Behaviour::Close => return,
    };
    let _ = stream.write_all(text.as_bytes()).await;
}

fn keys_of(signer: &Signer) -> Behaviour {
    Behaviour::Serve(vec![("/keys", signer.jwks())])
}

fn quick() -> Lifetimes {
    Lifetimes {
        refresh: Duration::from_secs(300),
        keep: Duration::from_secs(3600),
        refetch: Duration::from_millis(100),
        wait: Duration::from_secs(5),
    }
}

fn token(signer: &Signer) -> Http {
    bearer(&signer.sign(&json!({"iss": "me", "sub": "a", "exp": NOW + 60})))
}

fn rule(url: &str) -> TokenRules {
    rules(&json!([{"issuer": "me", "jwksUri": url, "timeout": "0.5s"}]))
}

async fn valid(verifier: &Verifier, rules: &TokenRules, http: &Http) -> bool {
    matches!(verifier.verify(rules, http).await, Outcome::Valid(_))
}

#[tokio::test]
async fn keys_are_fetched_once_and_kept() {
    let signer = Signer::p256("one");
    let issuer = Issuer::start(keys_of(&signer)).await;
    let verifier = verifier(std::slice::from_ref(&issuer.address), quick());
    let rules = rule(&issuer.url("/keys"));
    for _ in 0..10 {
        assert!(valid(&verifier, &rules, &token(&signer)).await);
    }
    assert_eq!(issuer.asked(), 1);
    let status = verifier.keys().status();
    assert_eq!(
        (status[0].keys, status[0].succeeded, status[0].failed),
        (1, 1, 0)
    );
}

#[tokio::test]
async fn the_background_fetches_before_anybody_asks() {
    let signer = Signer::p256("one");
    let issuer = Issuer::start(keys_of(&signer)).await;
    let jwt_rules = json!([{"issuer": "me", "jwksUri": issuer.url("/keys")}]);
    let verifier = verifier(std::slice::from_ref(&issuer.address), quick());
    let live = crate::live::Live::default();
    let running = tokio::spawn(verifier.keys().clone().run(live.subscribe()));
    live.publish(snapshot(&jwt_rules));
    let fetched = async {
        while verifier
            .keys()
            .status()
            .first()
            .is_none_or(|status| status.keys == 0)
        {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), fetched)
        .await
        .unwrap();
    assert!(valid(&verifier, &rules(&jwt_rules), &token(&signer)).await);
    assert_eq!(issuer.asked(), 1);
    // A snapshot without the issuer forgets it.
    live.publish(snapshot(
        &json!([{"issuer": "other", "jwks": signer.jwks()}]),
    ));
    let forgotten = async {
        while verifier
            .keys()
            .status()
            .iter()
            .any(|status| status.origin != "inline")
        {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), forgotten)
        .await
        .unwrap();
    running.abort();
}

#[tokio::test]
async fn a_failed_fetch_is_tried_again_soon_and_keys_come_back() {
    let signer = Signer::p256("one");
    let issuer = Issuer::start(Behaviour::Status(503)).await;
    let jwt_rules = json!([{"issuer": "me", "jwksUri": issuer.url("/keys")}]);
    let verifier = verifier(std::slice::from_ref(&issuer.address), quick());
    let live = crate::live::Live::default();
    live.publish(snapshot(&jwt_rules));
    let running = tokio::spawn(verifier.keys().clone().run(live.subscribe()));
    let until = |wanted: fn(&super::super::keys::SourceStatus) -> bool| {
        let keys = verifier.keys().clone();
        async move {
            let seen = async {
                while !keys.status().iter().any(wanted) {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            tokio::time::timeout(Duration::from_secs(10), seen)
                .await
                .unwrap();
        }
    };
    until(|status| status.failed > 0).await;
    issuer.become_(keys_of(&signer));
    until(|status| status.keys == 1 && status.last_error.is_none()).await;
    assert!(valid(&verifier, &rules(&jwt_rules), &token(&signer)).await);
    running.abort();
}

#[tokio::test]
async fn rotated_keys_are_fetched_when_a_token_names_one_at_a_bounded_rate() {
    let (old, new) = (Signer::p256("one"), Signer::p256("two"));
    let issuer = Issuer::start(keys_of(&old)).await;
    let verifier = verifier(std::slice::from_ref(&issuer.address), quick());
    let rules = rule(&issuer.url("/keys"));
    assert!(valid(&verifier, &rules, &token(&old)).await);
    issuer.become_(keys_of(&new));
    tokio::time::sleep(Duration::from_millis(120)).await;
    assert!(valid(&verifier, &rules, &token(&new)).await);
    assert!(!valid(&verifier, &rules, &token(&old)).await);
    let before = issuer.asked();
    // Made-up key names, as fast as they come: at most one fetch per `refetch`.
    let started = std::time::Instant::now();
    let mut asked = 0u32;
    while started.elapsed() < Duration::from_millis(350) {
        let made_up = Signer::p256(&format!("kid-{asked}"));
        assert!(!valid(&verifier, &rules, &token(&made_up)).await);
        asked += 1;
    }
    let fetched = issuer.asked() - before;
    let windows = usize::try_from(started.elapsed().as_millis() / 100 + 2).unwrap();
    assert!(
        asked > 10 && fetched <= windows,
        "{fetched} fetches for {asked} tokens"
    );
}

#[tokio::test]
async fn at_once_many_tokens_wait_for_one_fetch() {
    let signer = Signer::p256("one");
    let issuer = Issuer::start(keys_of(&signer)).await;
    let verifier = verifier(std::slice::from_ref(&issuer.address), quick());
    let rules = Arc::new(rule(&issuer.url("/keys")));
    let http = Arc::new(token(&signer));
    let mut all = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let (verifier, rules, http) = (verifier.clone(), Arc::clone(&rules), Arc::clone(&http));
        all.spawn(async move { valid(&verifier, &rules, &http).await });
    }
    while let Some(valid) = all.join_next().await {
        assert!(valid.unwrap());
    }
    assert_eq!(issuer.asked(), 1);
}

#[tokio::test]
async fn an_outage_keeps_the_last_keys_until_they_are_too_old() {
    let signer = Signer::p256("one");
    let issuer = Issuer::start(keys_of(&signer)).await;
    let lifetimes = Lifetimes {
        keep: Duration::from_millis(400),
        ..quick()
    };
    let verifier = verifier(std::slice::from_ref(&issuer.address), lifetimes);
    let rules = rule(&issuer.url("/keys"));
    assert!(valid(&verifier, &rules, &token(&signer)).await);
    issuer.become_(Behaviour::Close);
    tokio::time::sleep(Duration::from_millis(150)).await;
    // A token with another key makes a fetch that fails; the old keys stay.
    assert!(!valid(&verifier, &rules, &token(&Signer::p256("two"))).await);
    assert_eq!(verifier.keys().status()[0].failed, 1);
    assert!(valid(&verifier, &rules, &token(&signer)).await);
    tokio::time::sleep(Duration::from_millis(350)).await;
    let outcome = verifier.verify(&rules, &token(&signer)).await;
    assert_eq!(error(outcome), TokenError::NoKeys);
}

#[tokio::test]
async fn no_answer_is_waited_for_longer_than_allowed() {
    let signer = Signer::p256("one");
    for behaviour in [
        Behaviour::Silent,
        Behaviour::Drip,
        Behaviour::Endless,
        Behaviour::Close,
    ] {
        let issuer = Issuer::start(behaviour).await;
        let verifier = verifier(std::slice::from_ref(&issuer.address), quick());
        let rules = rule(&issuer.url("/keys"));
        let started = std::time::Instant::now();
        let outcome = verifier.verify(&rules, &token(&signer)).await;
        assert_eq!(error(outcome), TokenError::NoKeys);
        assert!(
            started.elapsed() < Duration::from_secs(2),
            "{:?}",
            started.elapsed()
        );
        assert!(verifier.keys().status()[0].last_error.is_some());
    }
    // A request waits no longer than `wait`, however long the rule lets a fetch take.
    let issuer = Issuer::start(Behaviour::Silent).await;
    let lifetimes = Lifetimes {
        wait: Duration::from_millis(100),
        ..quick()
    };
    let verifier = verifier(std::slice::from_ref(&issuer.address), lifetimes);
    let rules = rules(&json!([{"issuer": "me", "jwksUri": issuer.url("/keys"), "timeout": "20s"}]));
    let started = std::time::Instant::now();
    assert!(!valid(&verifier, &rules, &token(&signer)).await);
    assert!(started.elapsed() < Duration::from_secs(1));
}

#[tokio::test]
async fn what_is_no_key_set_is_none() {
    let signer = Signer::p256("one");
    let twice = format!(r#"{{"keys":[],"keys":[{}]}}"#, signer.jwk());
    for behaviour in [
        Behaviour::Status(404),
        Behaviour::Status(500),
        Behaviour::Status(204),
        Behaviour::Serve(vec![("/keys", String::new())]),
        Behaviour::Serve(vec![("/keys", "<html>".to_owned())]),
        Behaviour::Serve(vec![("/keys", twice)]),
        Behaviour::Serve(vec![("/keys", " ".repeat(2 << 20) + &signer.jwks())]),
    ] {
        let issuer = Issuer::start(behaviour).await;
        let verifier = verifier(std::slice::from_ref(&issuer.address), quick());
        let outcome = verifier
            .verify(&rule(&issuer.url("/keys")), &token(&signer))
            .await;
        assert_eq!(error(outcome), TokenError::NoKeys);
    }
}

#[tokio::test]
async fn an_empty_set_revokes_every_key() {
    let signer = Signer::p256("one");
    let issuer = Issuer::start(keys_of(&signer)).await;
    let lifetimes = Lifetimes {
        refetch: Duration::ZERO,
        ..quick()
    };
    let verifier = verifier(std::slice::from_ref(&issuer.address), lifetimes);
    let rules = rule(&issuer.url("/keys"));
    assert!(valid(&verifier, &rules, &token(&signer)).await);
    for empty in [r#"{"keys":[]}"#, r#"{"keys":[{"kty":"oct","k":"AA"}]}"#] {
        issuer.behaves(Behaviour::Serve(vec![("/keys", empty.to_owned())]));
        // A token with another key asks for the set once more.
        assert!(!valid(&verifier, &rules, &token(&Signer::p256("two"))).await);
        assert!(!valid(&verifier, &rules, &token(&signer)).await, "{empty}");
        issuer.behaves(keys_of(&signer));
        assert!(valid(&verifier, &rules, &token(&signer)).await);
    }
    // Many keys of other kinds are no reason to refuse the one that counts, nor is a byte order mark.
    let mut keys = vec![json!({"kty": "oct", "k": "AA"}); 100];
    keys.push(signer.jwk());
    let many = format!("\u{feff}{}", json!({ "keys": keys }));
    issuer.behaves(Behaviour::Serve(vec![("/keys", many)]));
    assert!(!valid(&verifier, &rules, &token(&Signer::p256("two"))).await);
    assert!(valid(&verifier, &rules, &token(&signer)).await);
}

#[tokio::test]
async fn one_rule_does_not_shorten_the_time_of_another() {
    let signer = Signer::p256("one");
    let issuer = Issuer::start(keys_of(&signer)).await;
    let verifier = verifier(std::slice::from_ref(&issuer.address), quick());
    let url = issuer.url("/keys");
    let hasty = snapshot(&json!([{"issuer": "me", "jwksUri": url, "timeout": "0.001s"}]));
    let patient = snapshot(&json!([{"issuer": "me", "jwksUri": url}]));
    for (snapshot, expected) in [(&hasty, 1), (&patient, 5000), (&hasty, 5000)] {
        let mut policies = snapshot.policies().request_authentications();
        let rule = &policies.next().unwrap().jwt_rules[0];
        let timeout = verifier.keys().source(rule).timeout();
        assert_eq!(timeout, Duration::from_millis(expected));
    }
}

#[tokio::test]
async fn redirects_are_held_to_the_same_rules() {
    let signer = Signer::p256("one");
    let good = Issuer::start(keys_of(&signer)).await;
    let check = |to: String, hosts: Vec<String>, expected: bool| {
        let signer = &signer;
        async move {
            let issuer = Issuer::start(Behaviour::Redirect(to.clone())).await;
            let mut allowed = vec![issuer.address.clone()];
            allowed.extend(hosts);
            let verifier = verifier(&allowed, quick());
            let rules = rule(&issuer.url("/keys"));
            assert_eq!(
                valid(&verifier, &rules, &token(signer)).await,
                expected,
                "{to}"
            );
            issuer.asked()
        }
    };
    check(good.url("/keys"), vec![good.address.clone()], true).await;
    let reached = good.asked();
    check(good.url("/keys"), vec![], false).await;
    assert_eq!(
        good.asked(),
        reached,
        "a host that is not allowed was asked"
    );
    check(
        "http://169.254.169.254/keys".to_owned(),
        vec!["169.254.169.254".to_owned()],
        false,
    )
    .await;
    check("file:///etc/passwd".to_owned(), vec![], false).await;
    // To itself, without end.
    assert_eq!(check("/again".to_owned(), vec![], false).await, 4);
}

#[tokio::test]
async fn hosts_that_are_not_configured_are_never_asked() {
    let signer = Signer::p256("one");
    let issuer = Issuer::start(keys_of(&signer)).await;
    let verifier = verifier(&["login.example.com".to_owned()], quick());
    assert!(!valid(&verifier, &rule(&issuer.url("/keys")), &token(&signer)).await);
    assert_eq!(issuer.asked(), 0);
}

#[tokio::test]
async fn an_issuer_without_jwks_is_discovered() {
    let signer = Signer::p256("one");
    let issuer = Issuer::start(Behaviour::Silent).await;
    let url = issuer.url("/realm");
    let serve = |of: &str, keys: &str| {
        let document = json!({"issuer": of, "jwks_uri": keys}).to_string();
        Behaviour::Serve(vec![
            ("/realm/.well-known/openid-configuration", document),
            ("/keys", signer.jwks()),
        ])
    };
    let elsewhere = Issuer::start(keys_of(&signer)).await;
    for (behaviour, expected) in [
        (serve(&url, &issuer.url("/keys")), true),
        (serve(&format!("{url}/"), &issuer.url("/keys")), true),
        (serve("https://another", &issuer.url("/keys")), false),
        (serve(&url, &elsewhere.url("/keys")), false),
        (serve(&url, "file:///etc/passwd"), false),
        (
            Behaviour::Serve(vec![("/openid-configuration", "{}".to_owned())]),
            false,
        ),
        (Behaviour::Status(404), false),
    ] {
        issuer.become_(behaviour);
        let verifier = verifier(std::slice::from_ref(&issuer.address), quick());
        let rules = rules(&json!([{"issuer": url}]));
        let http = bearer(&signer.sign(&json!({"iss": url, "sub": "a"})));
        assert_eq!(valid(&verifier, &rules, &http).await, expected);
    }
    assert_eq!(elsewhere.asked(), 0);
}
