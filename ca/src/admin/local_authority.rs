//! `spire.api.server.localauthority.v1.LocalAuthority`.

use tonic::{Request, Response, Status};

use super::Admin;
use crate::authority::{Authority, AuthorityError};
use crate::clock::unix_seconds;
use crate::proto::spire::api::server::localauthority::v1 as api;
use crate::store::{AuthorityKind, AuthorityState};

/// Metadata of a taint that may hit the active authority: another one is prepared and activated at once.
pub const EMERGENCY: &str = "portcullis-emergency";

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl api::local_authority_server::LocalAuthority for Admin {
    async fn get_jwt_authority_state(
        &self,
        _: Request<api::GetJwtAuthorityStateRequest>,
    ) -> Answer<api::GetJwtAuthorityStateResponse> {
        let [active, prepared, old] = self.states(AuthorityKind::Jwt);
        Ok(Response::new(api::GetJwtAuthorityStateResponse {
            active,
            prepared,
            old,
        }))
    }

    async fn get_x509_authority_state(
        &self,
        _: Request<api::GetX509AuthorityStateRequest>,
    ) -> Answer<api::GetX509AuthorityStateResponse> {
        let [active, prepared, old] = self.states(AuthorityKind::X509);
        Ok(Response::new(api::GetX509AuthorityStateResponse {
            active,
            prepared,
            old,
        }))
    }

    async fn prepare_jwt_authority(
        &self,
        request: Request<api::PrepareJwtAuthorityRequest>,
    ) -> Answer<api::PrepareJwtAuthorityResponse> {
        let prepared = self
            .ca
            .prepare(AuthorityKind::Jwt, &Self::actor(&request))
            .await;
        let authority = prepared.map_err(refused)?;
        Ok(Response::new(api::PrepareJwtAuthorityResponse {
            prepared_authority: Some(to_state(&authority)),
        }))
    }

    async fn prepare_x509_authority(
        &self,
        request: Request<api::PrepareX509AuthorityRequest>,
    ) -> Answer<api::PrepareX509AuthorityResponse> {
        let prepared = self
            .ca
            .prepare(AuthorityKind::X509, &Self::actor(&request))
            .await;
        let authority = prepared.map_err(refused)?;
        Ok(Response::new(api::PrepareX509AuthorityResponse {
            prepared_authority: Some(to_state(&authority)),
        }))
    }

    async fn activate_jwt_authority(
        &self,
        request: Request<api::ActivateJwtAuthorityRequest>,
    ) -> Answer<api::ActivateJwtAuthorityResponse> {
        let id = request.get_ref().authority_id.clone();
        let activated = self.activate(AuthorityKind::Jwt, &id, &request).await?;
        Ok(Response::new(api::ActivateJwtAuthorityResponse {
            activated_authority: Some(activated),
        }))
    }

    async fn activate_x509_authority(
        &self,
        request: Request<api::ActivateX509AuthorityRequest>,
    ) -> Answer<api::ActivateX509AuthorityResponse> {
        let id = request.get_ref().authority_id.clone();
        let activated = self.activate(AuthorityKind::X509, &id, &request).await?;
        Ok(Response::new(api::ActivateX509AuthorityResponse {
            activated_authority: Some(activated),
        }))
    }

    async fn taint_jwt_authority(
        &self,
        request: Request<api::TaintJwtAuthorityRequest>,
    ) -> Answer<api::TaintJwtAuthorityResponse> {
        let id = request.get_ref().authority_id.clone();
        let tainted = self.taint(AuthorityKind::Jwt, &id, &request).await?;
        Ok(Response::new(api::TaintJwtAuthorityResponse {
            tainted_authority: Some(tainted),
        }))
    }

    async fn taint_x509_authority(
        &self,
        request: Request<api::TaintX509AuthorityRequest>,
    ) -> Answer<api::TaintX509AuthorityResponse> {
        let id = request.get_ref().authority_id.clone();
        let tainted = self.taint(AuthorityKind::X509, &id, &request).await?;
        Ok(Response::new(api::TaintX509AuthorityResponse {
            tainted_authority: Some(tainted),
        }))
    }

    async fn revoke_jwt_authority(
        &self,
        request: Request<api::RevokeJwtAuthorityRequest>,
    ) -> Answer<api::RevokeJwtAuthorityResponse> {
        let id = request.get_ref().authority_id.clone();
        let revoked = self.revoke(AuthorityKind::Jwt, &id, &request).await?;
        Ok(Response::new(api::RevokeJwtAuthorityResponse {
            revoked_authority: Some(revoked),
        }))
    }

    async fn revoke_x509_authority(
        &self,
        request: Request<api::RevokeX509AuthorityRequest>,
    ) -> Answer<api::RevokeX509AuthorityResponse> {
        let id = request.get_ref().authority_id.clone();
        let revoked = self.revoke(AuthorityKind::X509, &id, &request).await?;
        Ok(Response::new(api::RevokeX509AuthorityResponse {
            revoked_authority: Some(revoked),
        }))
    }

    async fn get_wit_authority_state(
        &self,
        _: Request<api::GetWitAuthorityStateRequest>,
    ) -> Answer<api::GetWitAuthorityStateResponse> {
        let [active, prepared, old] = self.states(AuthorityKind::Wit);
        Ok(Response::new(api::GetWitAuthorityStateResponse {
            active,
            prepared,
            old,
        }))
    }

    async fn prepare_wit_authority(
        &self,
        request: Request<api::PrepareWitAuthorityRequest>,
    ) -> Answer<api::PrepareWitAuthorityResponse> {
        let prepared = self
            .ca
            .prepare(AuthorityKind::Wit, &Self::actor(&request))
            .await;
        let authority = prepared.map_err(refused)?;
        Ok(Response::new(api::PrepareWitAuthorityResponse {
            prepared_authority: Some(to_state(&authority)),
        }))
    }

    async fn activate_wit_authority(
        &self,
        request: Request<api::ActivateWitAuthorityRequest>,
    ) -> Answer<api::ActivateWitAuthorityResponse> {
        let id = request.get_ref().authority_id.clone();
        let activated = self.activate(AuthorityKind::Wit, &id, &request).await?;
        Ok(Response::new(api::ActivateWitAuthorityResponse {
            activated_authority: Some(activated),
        }))
    }

    async fn taint_wit_authority(
        &self,
        request: Request<api::TaintWitAuthorityRequest>,
    ) -> Answer<api::TaintWitAuthorityResponse> {
        let id = request.get_ref().authority_id.clone();
        let tainted = self.taint(AuthorityKind::Wit, &id, &request).await?;
        Ok(Response::new(api::TaintWitAuthorityResponse {
            tainted_authority: Some(tainted),
        }))
    }

    async fn revoke_wit_authority(
        &self,
        request: Request<api::RevokeWitAuthorityRequest>,
    ) -> Answer<api::RevokeWitAuthorityResponse> {
        let id = request.get_ref().authority_id.clone();
        let revoked = self.revoke(AuthorityKind::Wit, &id, &request).await?;
        Ok(Response::new(api::RevokeWitAuthorityResponse {
            revoked_authority: Some(revoked),
        }))
    }

    async fn taint_x509_upstream_authority(
        &self,
        _: Request<api::TaintX509UpstreamAuthorityRequest>,
    ) -> Answer<api::TaintX509UpstreamAuthorityResponse> {
        Err(Status::unimplemented(
            "upstream authorities are not tainted here: configure another one",
        ))
    }

    async fn revoke_x509_upstream_authority(
        &self,
        _: Request<api::RevokeX509UpstreamAuthorityRequest>,
    ) -> Answer<api::RevokeX509UpstreamAuthorityResponse> {
        Err(Status::unimplemented(
            "upstream authorities are not revoked here: configure another one",
        ))
    }
}

impl Admin {
    /// The newest authority of a kind that is active, prepared, old.
    fn states(&self, kind: AuthorityKind) -> [Option<api::AuthorityState>; 3] {
        let set = self.ca.authorities();
        [
            AuthorityState::Active,
            AuthorityState::Prepared,
            AuthorityState::Old,
        ]
        .map(|state| set.newest(kind, state).map(|authority| to_state(authority)))
    }

    async fn activate<T>(
        &self,
        kind: AuthorityKind,
        id: &str,
        request: &Request<T>,
    ) -> Result<api::AuthorityState, Status> {
        check_id(id)?;
        let activated = self.ca.activate(kind, id, &Self::actor(request)).await;
        activated
            .map(|authority| to_state(&authority))
            .map_err(refused)
    }

    async fn taint<T>(
        &self,
        kind: AuthorityKind,
        id: &str,
        request: &Request<T>,
    ) -> Result<api::AuthorityState, Status> {
        check_id(id)?;
        let emergency = request
            .metadata()
            .get(EMERGENCY)
            .is_some_and(|value| value == "true");
        let tainted = self
            .ca
            .taint(kind, id, emergency, &Self::actor(request))
            .await;
        tainted
            .map(|authority| to_state(&authority))
            .map_err(refused)
    }

    async fn revoke<T>(
        &self,
        kind: AuthorityKind,
        id: &str,
        request: &Request<T>,
    ) -> Result<api::AuthorityState, Status> {
        check_id(id)?;
        let revoked = self.ca.revoke(kind, id, &Self::actor(request)).await;
        revoked
            .map(|authority| to_state(&authority))
            .map_err(refused)
    }
}

fn check_id(id: &str) -> Result<(), Status> {
    match id.is_empty() {
        true => Err(Status::invalid_argument("no authority ID provided")),
        false => Ok(()),
    }
}

fn to_state(authority: &Authority) -> api::AuthorityState {
    api::AuthorityState {
        authority_id: authority.row.id.clone(),
        expires_at: unix_seconds(authority.row.not_after),
        upstream_authority_subject_key_id: String::new(),
    }
}

fn refused(error: AuthorityError) -> Status {
    let text = error.to_string();
    match error {
        AuthorityError::NotFound { .. } => Status::not_found(text),
        AuthorityError::State { .. }
        | AuthorityError::AlreadyPrepared(_)
        | AuthorityError::TaintActive(_)
        | AuthorityError::KeyGone(_)
        | AuthorityError::Upstream(_) => Status::failed_precondition(text),
        AuthorityError::NotDelivered { .. }
        | AuthorityError::NotPropagated { .. }
        | AuthorityError::Store(_) => Status::unavailable(text),
        _ => Status::internal(text),
    }
}
