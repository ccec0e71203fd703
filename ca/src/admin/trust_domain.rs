//! `spire.api.server.trustdomain.v1.TrustDomain`: federation relationships.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::{Admin, check_batch, convert};
use crate::bundle::Bundle;
use crate::federation::{EndpointProfile, RefreshError, Relationship};
use crate::proto::spire::api::server::trustdomain::v1 as api;
use crate::proto::types;
use crate::proto::types::federation_relationship::BundleEndpointProfile;
use crate::registry::bundles::SetMode;
use crate::spiffe_id::SpiffeId;

type Answer<T> = Result<Response<T>, Status>;
type Outcome = (types::Status, Option<types::FederationRelationship>);

#[tonic::async_trait]
impl api::trust_domain_server::TrustDomain for Admin {
    async fn list_federation_relationships(
        &self,
        request: Request<api::ListFederationRelationshipsRequest>,
    ) -> Answer<api::ListFederationRelationshipsResponse> {
        let request = request.into_inner();
        let size = match usize::try_from(request.page_size) {
            Ok(0) => usize::MAX,
            Ok(size) => size,
            Err(_) => return Err(Status::invalid_argument("the page size cannot be negative")),
        };
        let known = self.ca.registry().federations();
        let mut after = known
            .values()
            .filter(|one| one.trust_domain.as_str() > request.page_token.as_str());
        let page: Vec<&Arc<Relationship>> = after.by_ref().take(size).collect();
        let next_page_token = match page.last() {
            Some(last) if after.next().is_some() => last.trust_domain.to_string(),
            _ => String::new(),
        };
        let mask = request.output_mask.as_ref();
        Ok(Response::new(api::ListFederationRelationshipsResponse {
            federation_relationships: page.iter().map(|one| self.told(one, mask)).collect(),
            next_page_token,
        }))
    }

    async fn get_federation_relationship(
        &self,
        request: Request<api::GetFederationRelationshipRequest>,
    ) -> Answer<types::FederationRelationship> {
        let request = request.into_inner();
        let name = convert::trust_domain(&request.trust_domain)?;
        let known = self.ca.registry().federations();
        let found = known
            .get(&name)
            .ok_or_else(|| Status::not_found("federation relationship not found"))?;
        Ok(Response::new(
            self.told(found, request.output_mask.as_ref()),
        ))
    }

    async fn batch_create_federation_relationship(
        &self,
        request: Request<api::BatchCreateFederationRelationshipRequest>,
    ) -> Answer<api::BatchCreateFederationRelationshipResponse> {
        use api::batch_create_federation_relationship_response::Result as Item;
        let actor = Self::actor(&request);
        let request = request.into_inner();
        let read = request.federation_relationships.iter().map(relationship);
        let outcomes = self
            .set_federations(
                read.collect(),
                SetMode::Create,
                request.output_mask.as_ref(),
                &actor,
            )
            .await?;
        let results = outcomes.into_iter().map(|(status, relationship)| Item {
            status: Some(status),
            federation_relationship: relationship,
        });
        Ok(Response::new(
            api::BatchCreateFederationRelationshipResponse {
                results: results.collect(),
            },
        ))
    }

    async fn batch_update_federation_relationship(
        &self,
        request: Request<api::BatchUpdateFederationRelationshipRequest>,
    ) -> Answer<api::BatchUpdateFederationRelationshipResponse> {
        use api::batch_update_federation_relationship_response::Result as Item;
        let actor = Self::actor(&request);
        let request = request.into_inner();
        let input = request.input_mask;
        let read = request
            .federation_relationships
            .into_iter()
            .map(|message| relationship(&self.merged_federation(message, input.as_ref())));
        let outcomes = self
            .set_federations(
                read.collect(),
                SetMode::Update,
                request.output_mask.as_ref(),
                &actor,
            )
            .await?;
        let results = outcomes.into_iter().map(|(status, relationship)| Item {
            status: Some(status),
            federation_relationship: relationship,
        });
        Ok(Response::new(
            api::BatchUpdateFederationRelationshipResponse {
                results: results.collect(),
            },
        ))
    }

    async fn batch_delete_federation_relationship(
        &self,
        request: Request<api::BatchDeleteFederationRelationshipRequest>,
    ) -> Answer<api::BatchDeleteFederationRelationshipResponse> {
        use api::batch_delete_federation_relationship_response::Result as Item;
        let actor = Self::actor(&request);
        let names = request.into_inner().trust_domains;
        check_batch(names.len())?;
        let mut results = Vec::with_capacity(names.len());
        for name in names {
            let deleted = match convert::trust_domain(&name) {
                Ok(name) => {
                    let deleted = self.ca.registry().delete_federation(name, &actor).await;
                    let deleted = deleted.map_err(|error| convert::refused(&error))?;
                    deleted.map_err(|error| convert::refused(&error))
                }
                Err(status) => Err(status),
            };
            results.push(Item {
                status: Some(match deleted {
                    Ok(_) => convert::ok(),
                    Err(status) => convert::item_status(&status),
                }),
                trust_domain: name,
            });
        }
        Ok(Response::new(
            api::BatchDeleteFederationRelationshipResponse { results },
        ))
    }

    async fn refresh_bundle(&self, request: Request<api::RefreshBundleRequest>) -> Answer<()> {
        let name = convert::trust_domain(&request.into_inner().trust_domain)?;
        match self.ca.refresher().refresh(&self.ca, &name).await {
            Ok(_) => Ok(Response::new(())),
            Err(error) => Err(not_refreshed(&error)),
        }
    }
}

/// The one place that says which status a failed refresh is.
fn not_refreshed(error: &RefreshError) -> Status {
    let text = error.to_string();
    match error {
        RefreshError::NoRelationship(_) => Status::not_found(text),
        RefreshError::NoEndpointBundle(_)
        | RefreshError::Document { .. }
        | RefreshError::Older { .. } => Status::failed_precondition(text),
        RefreshError::Fetch(_) => Status::unavailable(text),
        RefreshError::Registry(error) => convert::refused(error),
    }
}

/// A relationship from a message, with the bundle to begin with.
fn relationship(
    message: &types::FederationRelationship,
) -> Result<(Relationship, Option<Bundle>), Status> {
    let invalid = |text: String| Status::invalid_argument(text);
    let trust_domain = convert::trust_domain(&message.trust_domain)?;
    let url = message
        .bundle_endpoint_url
        .parse()
        .map_err(|error: crate::federation::UrlError| invalid(error.to_string()))?;
    let profile = match &message.bundle_endpoint_profile {
        Some(BundleEndpointProfile::HttpsWeb(_)) => EndpointProfile::HttpsWeb,
        Some(BundleEndpointProfile::HttpsSpiffe(profile)) => EndpointProfile::HttpsSpiffe(
            SpiffeId::from_input(&profile.endpoint_spiffe_id)
                .map_err(|error| invalid(format!("the endpoint's SPIFFE ID: {error}")))?,
        ),
        None => {
            return Err(invalid(
                "the profile is missing: https_web or https_spiffe, it is never inferred (SPIFFE Federation §5.1)"
                    .to_owned(),
            ));
        }
    };
    let bundle = message.trust_domain_bundle.as_ref();
    let bundle = bundle.map(convert::bundle).transpose()?;
    if let Some(other) = bundle
        .as_ref()
        .filter(|bundle| bundle.trust_domain != trust_domain)
    {
        return Err(invalid(format!(
            "the bundle is that of `{}`, not of `{trust_domain}`",
            other.trust_domain
        )));
    }
    let relationship = Relationship {
        trust_domain,
        url,
        profile,
    };
    Ok((relationship, bundle))
}

impl Admin {
    /// Sets relationships, each standing or falling alone.
    async fn set_federations(
        &self,
        read: Vec<Result<(Relationship, Option<Bundle>), Status>>,
        mode: SetMode,
        mask: Option<&types::FederationRelationshipMask>,
        actor: &str,
    ) -> Result<Vec<Outcome>, Status> {
        check_batch(read.len())?;
        let good = read.iter().flatten().cloned().collect();
        let stored = self.ca.registry().set_federations(good, mode, actor).await;
        let mut stored = stored
            .map_err(|error| convert::refused(&error))?
            .into_iter();
        let outcome = |read: Result<_, Status>| match read.map(|_| stored.next()) {
            Ok(Some(Ok(one))) => (convert::ok(), Some(self.told(&one, mask))),
            Ok(Some(Err(error))) => (convert::item_status(&convert::refused(&error)), None),
            Ok(None) => (convert::item_status(&Status::internal("no result")), None),
            Err(status) => (convert::item_status(&status), None),
        };
        Ok(read.into_iter().map(outcome).collect())
    }

    fn told(
        &self,
        relationship: &Relationship,
        mask: Option<&types::FederationRelationshipMask>,
    ) -> types::FederationRelationship {
        let wants = |field: fn(&types::FederationRelationshipMask) -> bool| mask.is_none_or(field);
        let name = &relationship.trust_domain;
        let profile = || match &relationship.profile {
            EndpointProfile::HttpsWeb => BundleEndpointProfile::HttpsWeb(types::HttpsWebProfile {}),
            EndpointProfile::HttpsSpiffe(id) => {
                BundleEndpointProfile::HttpsSpiffe(types::HttpsspiffeProfile {
                    endpoint_spiffe_id: id.to_string(),
                })
            }
        };
        let bundle = || self.ca.registry().bundle(name);
        types::FederationRelationship {
            trust_domain: name.to_string(),
            bundle_endpoint_url: match wants(|mask| mask.bundle_endpoint_url) {
                true => relationship.url.to_string(),
                false => String::new(),
            },
            bundle_endpoint_profile: wants(|mask| mask.bundle_endpoint_profile).then(profile),
            trust_domain_bundle: match wants(|mask| mask.trust_domain_bundle) {
                true => bundle().map(|bundle| convert::to_bundle(&bundle, None)),
                false => None,
            },
        }
    }

    /// What the mask does not name stays as it is.
    fn merged_federation(
        &self,
        mut message: types::FederationRelationship,
        input: Option<&types::FederationRelationshipMask>,
    ) -> types::FederationRelationship {
        let known = convert::trust_domain(&message.trust_domain)
            .ok()
            .and_then(|name| self.ca.registry().federations().get(&name).cloned());
        let Some((mask, known)) = input.zip(known) else {
            return message;
        };
        let known = self.told(&known, None);
        if !mask.bundle_endpoint_url {
            message.bundle_endpoint_url = known.bundle_endpoint_url;
        }
        if !mask.bundle_endpoint_profile {
            message.bundle_endpoint_profile = known.bundle_endpoint_profile;
        }
        if !mask.trust_domain_bundle {
            message.trust_domain_bundle = None;
        }
        message
    }
}
