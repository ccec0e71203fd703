//! `spire.api.server.svid.v1.SVID`.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::{Admin, check_batch, convert};
use crate::ca::{IssuedJwt, IssuedX509, JwtRequest, Requester, X509Request, let_others};
use crate::clock::unix_seconds;
use crate::dns_name;
use crate::entry::Entry;
use crate::proto::spire::api::server::svid::v1 as api;
use crate::proto::types;
use crate::registry::validate::is_reserved;
use crate::spiffe_id::SpiffeId;
use crate::x509::csr::ProvenKey;
use crate::x509::profile::LeafRequest;

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl api::svid_server::Svid for Admin {
    async fn mint_x509svid(
        &self,
        request: Request<api::MintX509svidRequest>,
    ) -> Answer<api::MintX509svidResponse> {
        let requester = Requester::admin(&Self::actor(&request));
        let request = request.into_inner();
        let leaf = minted(&request.csr, request.ttl)?;
        let request = X509Request { leaf, entry: None };
        let svid = self.issue_one(request, &requester).await?;
        Ok(Response::new(api::MintX509svidResponse {
            svid: Some(to_x509(svid, "")),
        }))
    }

    async fn mint_jwtsvid(
        &self,
        request: Request<api::MintJwtsvidRequest>,
    ) -> Answer<api::MintJwtsvidResponse> {
        let requester = Requester::admin(&Self::actor(&request));
        let request = request.into_inner();
        let spiffe_id = convert::spiffe_id(request.id.as_ref(), "the SPIFFE ID")?;
        not_reserved(&spiffe_id)?;
        let request = JwtRequest {
            spiffe_id,
            audiences: request.audience,
            ttl: convert::ttl(request.ttl, "TTL")?,
            entry: None,
        };
        let svid = self.issue_jwt_one(request, &requester).await?;
        Ok(Response::new(api::MintJwtsvidResponse {
            svid: Some(to_jwt(svid, "")),
        }))
    }

    async fn batch_new_x509svid(
        &self,
        request: Request<api::BatchNewX509svidRequest>,
    ) -> Answer<api::BatchNewX509svidResponse> {
        let requester = Requester::admin(&Self::actor(&request));
        let params = request.into_inner().params;
        check_batch(params.len())?;
        let mut read: Vec<Result<X509Request, Status>> = Vec::with_capacity(params.len());
        for (place, params) in params.iter().enumerate() {
            let_others(place).await;
            read.push(self.for_entry(params));
        }
        let requests = read.iter().flatten().cloned().collect();
        let issued = self.ca.issue_x509(requests, &requester).await;
        let mut issued = issued.map_err(convert::not_issued)?.into_iter();
        let results = read.into_iter().map(|read| {
            let svid = read.and_then(|request| match issued.next() {
                Some(Ok(svid)) => {
                    let hint = request
                        .entry
                        .map(|entry| entry.hint.clone())
                        .unwrap_or_default();
                    Ok(to_x509(svid, &hint))
                }
                Some(Err(error)) => Err(convert::not_issued(error)),
                None => Err(Status::internal("no result")),
            });
            api::batch_new_x509svid_response::Result {
                status: Some(
                    svid.as_ref()
                        .map_or_else(convert::item_status, |_| convert::ok()),
                ),
                svid: svid.ok(),
            }
        });
        Ok(Response::new(api::BatchNewX509svidResponse {
            results: results.collect(),
        }))
    }

    async fn new_jwtsvid(
        &self,
        request: Request<api::NewJwtsvidRequest>,
    ) -> Answer<api::NewJwtsvidResponse> {
        let requester = Requester::admin(&Self::actor(&request));
        let request = request.into_inner();
        let entry = self.entry(&request.entry_id)?;
        let hint = entry.hint.clone();
        let request = JwtRequest {
            spiffe_id: entry.spiffe_id.clone(),
            audiences: request.audience,
            ttl: entry.jwt_ttl,
            entry: Some(entry),
        };
        let svid = self.issue_jwt_one(request, &requester).await?;
        Ok(Response::new(api::NewJwtsvidResponse {
            svid: Some(to_jwt(svid, &hint)),
        }))
    }

    async fn new_downstream_x509ca(
        &self,
        _: Request<api::NewDownstreamX509caRequest>,
    ) -> Answer<api::NewDownstreamX509caResponse> {
        Err(Status::permission_denied(
            "this call is for downstream servers, and the caller is the operator",
        ))
    }
}

impl Admin {
    async fn issue_one(
        &self,
        request: X509Request,
        requester: &Requester,
    ) -> Result<IssuedX509, Status> {
        let issued = self.ca.issue_x509(vec![request], requester).await;
        let first = issued.map_err(convert::not_issued)?.into_iter().next();
        first
            .ok_or_else(|| Status::internal("no result"))?
            .map_err(convert::not_issued)
    }

    async fn issue_jwt_one(
        &self,
        request: JwtRequest,
        requester: &Requester,
    ) -> Result<IssuedJwt, Status> {
        let issued = self.ca.issue_jwt(vec![request], requester).await;
        let first = issued.map_err(convert::not_issued)?.into_iter().next();
        first
            .ok_or_else(|| Status::internal("no result"))?
            .map_err(convert::not_issued)
    }

    fn entry(&self, id: &str) -> Result<Arc<Entry>, Status> {
        if id.is_empty() {
            return Err(Status::invalid_argument("missing entry ID"));
        }
        let found = self.ca.registry().index().entry(id).cloned();
        let entry = found.filter(|entry| !entry.is_expired(self.ca.clock().now()));
        entry.ok_or_else(|| Status::not_found("entry not found or not authorized"))
    }

    /// Everything but the key comes from the entry.
    fn for_entry(&self, params: &api::NewX509svidParams) -> Result<X509Request, Status> {
        let entry = self.entry(&params.entry_id)?;
        let leaf = LeafRequest {
            spiffe_id: entry.spiffe_id.clone(),
            dns_names: entry.dns_names.clone(),
            ttl: entry.x509_ttl,
            key: proven(&params.csr)?,
        };
        Ok(X509Request {
            leaf,
            entry: Some(entry),
        })
    }
}

fn proven(csr: &[u8]) -> Result<ProvenKey, Status> {
    ProvenKey::from_csr(present(csr)?).map_err(|error| Status::invalid_argument(error.to_string()))
}

fn present(csr: &[u8]) -> Result<&[u8], Status> {
    match csr.is_empty() {
        true => Err(Status::invalid_argument("missing CSR")),
        false => Ok(csr),
    }
}

/// Minting has no field for the SPIFFE ID: the CSR's SANs name it, and DNS names.
fn minted(csr: &[u8], ttl: i32) -> Result<LeafRequest, Status> {
    let invalid = |text: String| Status::invalid_argument(text);
    let (key, names) =
        ProvenKey::with_names(present(csr)?).map_err(|error| invalid(error.to_string()))?;
    let [uri] = names.uris.as_slice() else {
        return Err(invalid(format!(
            "the CSR has {} URI SANs: exactly one is needed, the SPIFFE ID",
            names.uris.len()
        )));
    };
    let spiffe_id = SpiffeId::parse(uri)
        .map_err(|error| invalid(format!("CSR URI SAN is invalid: {error}")))?;
    not_reserved(&spiffe_id)?;
    if let Some(name) = names
        .dns_names
        .iter()
        .find(|name| !dns_name::is_valid(name))
    {
        let name = crate::trust_domain::shorten(name);
        return Err(invalid(format!("CSR DNS name is not valid: `{name}`")));
    }
    Ok(LeafRequest {
        spiffe_id,
        dns_names: names.dns_names,
        ttl: convert::ttl(ttl, "TTL")?,
        key,
    })
}

fn not_reserved(id: &SpiffeId) -> Result<(), Status> {
    match is_reserved(id) {
        true => Err(Status::invalid_argument(format!(
            "`{id}` is reserved: it is a server's or an agent's"
        ))),
        false => Ok(()),
    }
}

fn to_x509(svid: IssuedX509, hint: &str) -> types::X509svid {
    types::X509svid {
        id: Some(convert::to_spiffe_id(&svid.spiffe_id)),
        cert_chain: svid.chain,
        expires_at: unix_seconds(svid.not_after),
        hint: hint.to_owned(),
    }
}

fn to_jwt(svid: IssuedJwt, hint: &str) -> types::Jwtsvid {
    types::Jwtsvid {
        id: Some(convert::to_spiffe_id(&svid.spiffe_id)),
        token: svid.token,
        expires_at: unix_seconds(svid.expires_at),
        issued_at: unix_seconds(svid.issued_at),
        hint: hint.to_owned(),
    }
}
