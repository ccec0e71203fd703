//! SVIDs from CSRs and tokens, over gRPC, each with its durable records.

use std::sync::Arc;

use anyhow::{Context as _, ensure};
use prost::bytes::Bytes;
use rcgen::{CertificateParams, KeyPair, SanType};

use super::channel::Channel;
use super::protocol::{
    BATCH_X509, BatchX509, BatchedX509, FETCH_JWT, Id, JwtAnswer, JwtQuestion, MINT_JWT, MINT_X509,
    MintJwt, MintX509, MintedJwt, MintedX509, NEW_JWT, NewJwt, NewX509, Svid,
};
use super::report::{Unit, median};
use super::server::Server;
use super::{ENTRY, Measuring, TRUST_DOMAIN};
use crate::load::{Caller, Requests, full};

/// Connections, and calls at once on each.
const LOAD: (usize, usize) = (32, 2);
/// CSRs, each of a key of its own.
const CSRS: usize = 4096;
/// CSRs of one batch, calls at once.
const BATCH: (usize, usize) = (100, 4);

/// What is asked for.
#[derive(Clone, Copy, Debug)]
enum What {
    MintX509,
    BatchX509,
    MintJwt,
    NewJwt,
    FetchJwt,
}

#[derive(Clone)]
struct Asking {
    channel: Channel,
    what: What,
    csrs: Arc<[Bytes]>,
}

impl Asking {
    fn csr(&self, number: u64) -> anyhow::Result<Bytes> {
        let place = usize::try_from(number)? % self.csrs.len();
        self.csrs.get(place).cloned().context("a CSR")
    }
}

fn whole(svid: Option<Svid>) -> anyhow::Result<()> {
    let chain = svid.context("no SVID")?.chain;
    ensure!(
        chain.first().is_some_and(|leaf| leaf.len() > 200),
        "no certificate"
    );
    Ok(())
}

fn token(text: &str) -> anyhow::Result<()> {
    ensure!(text.split('.').count() == 3, "no token: `{text}`");
    Ok(())
}

impl Caller for Asking {
    async fn ask(&self, number: Option<u64>) -> anyhow::Result<()> {
        let number = number.unwrap_or(0);
        let audience = || vec![format!("service-{}", number % 100)];
        match self.what {
            What::MintX509 => {
                let request = MintX509 {
                    csr: self.csr(number)?,
                };
                let answer: MintedX509 = self.channel.unary(MINT_X509, &request).await?;
                whole(answer.svid)
            }
            What::BatchX509 => {
                let mut params = Vec::with_capacity(BATCH.0);
                for place in 0..BATCH.0 as u64 {
                    let csr = self.csr(number * BATCH.0 as u64 + place)?;
                    params.push(NewX509 {
                        entry_id: ENTRY.to_owned(),
                        csr,
                    });
                }
                let answer: BatchedX509 = self
                    .channel
                    .unary(BATCH_X509, &BatchX509 { params })
                    .await?;
                ensure!(answer.results.len() == BATCH.0, "not all of the batch");
                answer
                    .results
                    .into_iter()
                    .try_for_each(|result| whole(result.svid))
            }
            What::MintJwt => {
                let id = Id {
                    trust_domain: TRUST_DOMAIN.to_owned(),
                    path: "/minted".to_owned(),
                };
                let request = MintJwt {
                    id: Some(id),
                    audience: audience(),
                };
                let answer: MintedJwt = self.channel.unary(MINT_JWT, &request).await?;
                token(&answer.svid.context("no token")?.token)
            }
            What::NewJwt => {
                let request = NewJwt {
                    entry_id: ENTRY.to_owned(),
                    audience: audience(),
                };
                let answer: MintedJwt = self.channel.unary(NEW_JWT, &request).await?;
                token(&answer.svid.context("no token")?.token)
            }
            What::FetchJwt => {
                let request = JwtQuestion {
                    audience: audience(),
                };
                let answer: JwtAnswer = self.channel.unary(FETCH_JWT, &request).await?;
                token(&answer.svids.first().context("no token")?.svid)
            }
        }
    }
}

/// CSRs for `spiffe://TD/minted/NUMBER`.
fn csrs() -> anyhow::Result<Arc<[Bytes]>> {
    let csr = |number: usize| {
        let mut params = CertificateParams::default();
        let uri = format!("spiffe://{TRUST_DOMAIN}/minted/{number}");
        params.subject_alt_names = vec![SanType::URI(uri.try_into()?)];
        let csr = params.serialize_request(&KeyPair::generate()?)?;
        anyhow::Ok(Bytes::from(csr.der().to_vec()))
    };
    (0..CSRS).map(csr).collect()
}

/// Every kind, one after the other, round after round.
pub async fn run(measuring: &mut Measuring, server: &Server) -> anyhow::Result<()> {
    let csrs = csrs()?;
    let all = [
        ("MintX509SVID", What::MintX509),
        ("BatchNewX509SVID, 100 CSRs each", What::BatchX509),
        ("MintJWTSVID", What::MintJwt),
        ("NewJWTSVID", What::NewJwt),
        ("FetchJWTSVID of the Workload API", What::FetchJwt),
    ];
    for (name, what) in all {
        let of_one = if matches!(what, What::BatchX509) {
            BATCH.0 as f64
        } else {
            1.0
        };
        let (connections, at_once) = match what {
            What::BatchX509 => (BATCH.1, 1),
            _ => LOAD,
        };
        let mut callers = Vec::new();
        for _ in 0..connections {
            let channel = match what {
                What::FetchJwt => server.workload().await?,
                _ => server.admin().await?,
            };
            callers.push(Asking {
                channel,
                what,
                csrs: Arc::clone(&csrs),
            });
        }
        let (mut rates, mut costs, mut waits) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..measuring.rounds {
            let measured = full(
                &server.process,
                &callers,
                at_once,
                Requests::Fresh,
                measuring.length,
            )
            .await?;
            rates.push(measured.rate * of_one);
            costs.push(measured.cpu.as_secs_f64() / of_one);
            waits.push(measured.p99.as_secs_f64());
        }
        let report = &mut measuring.report;
        report.at_least(
            &format!("{name}, recorded durably"),
            Unit::Rate,
            8_000.0,
            median(&rates),
        );
        report.at_most("server CPU of each", Unit::Micros, 150e-6, median(&costs));
        report.tell("time to the answer, p99", Unit::Millis, median(&waits));
    }
    Ok(())
}
