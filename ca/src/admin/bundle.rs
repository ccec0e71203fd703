//! `spire.api.server.bundle.v1.Bundle`.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::{Admin, check_batch, convert};
use crate::bundle::Bundle;
use crate::proto::spire::api::server::bundle::v1 as api;
use crate::proto::types;
use crate::registry::bundles::{DeleteMode, SetMode};
use crate::trust_domain::TrustDomain;

type Answer<T> = Result<Response<T>, Status>;
type Outcome = (types::Status, Option<Arc<Bundle>>);

#[tonic::async_trait]
impl api::bundle_server::Bundle for Admin {
    async fn count_bundles(
        &self,
        _: Request<api::CountBundlesRequest>,
    ) -> Answer<api::CountBundlesResponse> {
        // Our own is one of them.
        let count = self.ca.registry().bundles().len() + 1;
        Ok(Response::new(api::CountBundlesResponse {
            count: i32::try_from(count).unwrap_or(i32::MAX),
        }))
    }

    async fn get_bundle(&self, request: Request<api::GetBundleRequest>) -> Answer<types::Bundle> {
        let mask = request.into_inner().output_mask;
        Ok(Response::new(convert::to_bundle(
            &self.ca.bundle(),
            mask.as_ref(),
        )))
    }

    async fn append_bundle(&self, _: Request<api::AppendBundleRequest>) -> Answer<types::Bundle> {
        Err(Status::unimplemented(
            "our bundle follows from our authorities: prepare one, or configure an upstream authority",
        ))
    }

    async fn publish_jwt_authority(
        &self,
        _: Request<api::PublishJwtAuthorityRequest>,
    ) -> Answer<api::PublishJwtAuthorityResponse> {
        Err(Status::unimplemented("nested servers are not served"))
    }

    async fn list_federated_bundles(
        &self,
        request: Request<api::ListFederatedBundlesRequest>,
    ) -> Answer<api::ListFederatedBundlesResponse> {
        let request = request.into_inner();
        let size = match usize::try_from(request.page_size) {
            Ok(0) => usize::MAX,
            Ok(size) => size,
            Err(_) => return Err(Status::invalid_argument("the page size cannot be negative")),
        };
        let known = self.ca.registry().bundles();
        let mut after = known
            .values()
            .filter(|bundle| bundle.trust_domain.as_str() > request.page_token.as_str());
        let page: Vec<&Arc<Bundle>> = after.by_ref().take(size).collect();
        let next_page_token = match page.last() {
            Some(last) if after.next().is_some() => last.trust_domain.to_string(),
            _ => String::new(),
        };
        let mask = request.output_mask.as_ref();
        Ok(Response::new(api::ListFederatedBundlesResponse {
            bundles: page
                .into_iter()
                .map(|bundle| convert::to_bundle(bundle, mask))
                .collect(),
            next_page_token,
        }))
    }

    async fn get_federated_bundle(
        &self,
        request: Request<api::GetFederatedBundleRequest>,
    ) -> Answer<types::Bundle> {
        let request = request.into_inner();
        let trust_domain = convert::trust_domain(&request.trust_domain)?;
        if &trust_domain == self.ca.trust_domain() {
            return Err(Status::invalid_argument(
                "getting a federated bundle for the server's own trust domain is not allowed",
            ));
        }
        let found = self.ca.registry().bundle(&trust_domain);
        let bundle = found.ok_or_else(|| Status::not_found("bundle not found"))?;
        Ok(Response::new(convert::to_bundle(
            &bundle,
            request.output_mask.as_ref(),
        )))
    }

    async fn batch_create_federated_bundle(
        &self,
        request: Request<api::BatchCreateFederatedBundleRequest>,
    ) -> Answer<api::BatchCreateFederatedBundleResponse> {
        let actor = Self::actor(&request);
        let request = request.into_inner();
        let mask = request.output_mask.as_ref();
        let outcomes = self
            .set(&request.bundle, None, SetMode::Create, &actor)
            .await?;
        let results = outcomes.into_iter().map(|(status, bundle)| {
            api::batch_create_federated_bundle_response::Result {
                status: Some(status),
                bundle: bundle.map(|bundle| convert::to_bundle(&bundle, mask)),
            }
        });
        Ok(Response::new(api::BatchCreateFederatedBundleResponse {
            results: results.collect(),
        }))
    }

    async fn batch_update_federated_bundle(
        &self,
        request: Request<api::BatchUpdateFederatedBundleRequest>,
    ) -> Answer<api::BatchUpdateFederatedBundleResponse> {
        let actor = Self::actor(&request);
        let request = request.into_inner();
        let mask = request.output_mask.as_ref();
        let input = request.input_mask.as_ref();
        let outcomes = self
            .set(&request.bundle, input, SetMode::Update, &actor)
            .await?;
        let results = outcomes.into_iter().map(|(status, bundle)| {
            api::batch_update_federated_bundle_response::Result {
                status: Some(status),
                bundle: bundle.map(|bundle| convert::to_bundle(&bundle, mask)),
            }
        });
        Ok(Response::new(api::BatchUpdateFederatedBundleResponse {
            results: results.collect(),
        }))
    }

    async fn batch_set_federated_bundle(
        &self,
        request: Request<api::BatchSetFederatedBundleRequest>,
    ) -> Answer<api::BatchSetFederatedBundleResponse> {
        let actor = Self::actor(&request);
        let request = request.into_inner();
        let mask = request.output_mask.as_ref();
        let outcomes = self
            .set(&request.bundle, None, SetMode::Set, &actor)
            .await?;
        let results = outcomes.into_iter().map(|(status, bundle)| {
            api::batch_set_federated_bundle_response::Result {
                status: Some(status),
                bundle: bundle.map(|bundle| convert::to_bundle(&bundle, mask)),
            }
        });
        Ok(Response::new(api::BatchSetFederatedBundleResponse {
            results: results.collect(),
        }))
    }

    async fn batch_delete_federated_bundle(
        &self,
        request: Request<api::BatchDeleteFederatedBundleRequest>,
    ) -> Answer<api::BatchDeleteFederatedBundleResponse> {
        use api::batch_delete_federated_bundle_request::Mode;
        let actor = Self::actor(&request);
        let request = request.into_inner();
        check_batch(request.trust_domains.len())?;
        let mode = match request.mode() {
            Mode::Restrict => DeleteMode::Restrict,
            Mode::Delete => DeleteMode::Delete,
            Mode::Dissociate => DeleteMode::Dissociate,
        };
        let mut results = Vec::with_capacity(request.trust_domains.len());
        for name in request.trust_domains {
            let status = match self.delete(&name, mode, &actor).await {
                Ok(_) => convert::ok(),
                Err(status) => convert::item_status(&status),
            };
            results.push(api::batch_delete_federated_bundle_response::Result {
                status: Some(status),
                trust_domain: name,
            });
        }
        Ok(Response::new(api::BatchDeleteFederatedBundleResponse {
            results,
        }))
    }
}

impl Admin {
    /// Sets bundles, each standing or falling alone. `input` names the parts that replace what is there.
    async fn set(
        &self,
        messages: &[types::Bundle],
        input: Option<&types::BundleMask>,
        mode: SetMode,
        actor: &str,
    ) -> Result<Vec<Outcome>, Status> {
        check_batch(messages.len())?;
        let read: Vec<Result<Bundle, Status>> = messages
            .iter()
            .map(|message| convert::bundle(message).map(|bundle| self.merged(bundle, input)))
            .collect();
        let bundles = read.iter().flatten().cloned().collect();
        let stored = self.ca.registry().set_bundles(bundles, mode, actor).await;
        let mut stored = stored
            .map_err(|error| convert::refused(&error))?
            .into_iter();
        let outcome = |read: Result<Bundle, Status>| match read.map(|_| stored.next()) {
            Ok(Some(Ok(bundle))) => (convert::ok(), Some(bundle)),
            Ok(Some(Err(error))) => (convert::item_status(&convert::refused(&error)), None),
            Ok(None) => (convert::item_status(&Status::internal("no result")), None),
            Err(status) => (convert::item_status(&status), None),
        };
        Ok(read.into_iter().map(outcome).collect())
    }

    fn merged(&self, mut bundle: Bundle, input: Option<&types::BundleMask>) -> Bundle {
        let Some((mask, known)) = input.zip(self.ca.registry().bundle(&bundle.trust_domain)) else {
            return bundle;
        };
        if !mask.x509_authorities {
            bundle.x509_authorities = known.x509_authorities.clone();
        }
        if !mask.jwt_authorities {
            bundle.jwt_authorities = known.jwt_authorities.clone();
        }
        if !mask.wit_authorities {
            bundle.wit_authorities = known.wit_authorities.clone();
        }
        if !mask.refresh_hint {
            bundle.refresh_hint = known.refresh_hint;
        }
        if !mask.sequence_number {
            bundle.sequence = known.sequence;
        }
        bundle
    }

    async fn delete(
        &self,
        name: &str,
        mode: DeleteMode,
        actor: &str,
    ) -> Result<TrustDomain, Status> {
        let trust_domain = convert::trust_domain(name)?;
        let deleted = self
            .ca
            .registry()
            .delete_bundles(vec![trust_domain], mode, actor)
            .await;
        let deleted = deleted
            .map_err(|error| convert::refused(&error))?
            .into_iter()
            .next();
        deleted
            .ok_or_else(|| Status::internal("no result"))?
            .map_err(|error| convert::refused(&error))
    }
}
