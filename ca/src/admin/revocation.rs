//! `portcullis.ca.v1.Revocation`.

use tonic::{Code, Request, Response, Status};

use super::{Admin, check_batch};
use crate::ca::RevocationError;
use crate::clock::unix_seconds;
use crate::proto::status as api;
use crate::store::RevocationRow;
use crate::x509::crl::Reason;

#[tonic::async_trait]
impl api::revocation_server::Revocation for Admin {
    async fn revoke_x509svi_ds(
        &self,
        request: Request<api::RevokeX509sviDsRequest>,
    ) -> Result<Response<api::RevokeX509sviDsResponse>, Status> {
        let actor = Self::actor(&request);
        let request = request.into_inner();
        check_batch(request.serials.len())?;
        let reason = match request.reason.as_str() {
            "" => Reason::Unspecified,
            word => word
                .parse()
                .map_err(|error: crate::x509::crl::UnknownReason| {
                    Status::invalid_argument(error.to_string())
                })?,
        };
        let mut results = Vec::with_capacity(request.serials.len());
        for serial in &request.serials {
            let revoked = self.ca.revoke_svid(serial, reason, &actor).await;
            results.push(match revoked {
                Ok(row) => api::revoke_x509svi_ds_response::Result {
                    code: Code::Ok as i32,
                    message: String::new(),
                    revoked: Some(message(&row)),
                },
                Err(error) => api::revoke_x509svi_ds_response::Result {
                    code: code(&error) as i32,
                    message: error.to_string(),
                    revoked: None,
                },
            });
        }
        Ok(Response::new(api::RevokeX509sviDsResponse { results }))
    }

    async fn list_revoked(
        &self,
        _: Request<api::ListRevokedRequest>,
    ) -> Result<Response<api::ListRevokedResponse>, Status> {
        Ok(Response::new(api::ListRevokedResponse {
            revoked: self.ca.revoked().iter().map(message).collect(),
            crls: self.ca.revocation_lists(),
        }))
    }
}

fn code(error: &RevocationError) -> Code {
    match error {
        RevocationError::Serial(_) => Code::InvalidArgument,
        RevocationError::Unknown(_) => Code::NotFound,
        RevocationError::Already(_) => Code::AlreadyExists,
        RevocationError::Off | RevocationError::Expired(_) | RevocationError::Authority(_) => {
            Code::FailedPrecondition
        }
        RevocationError::Journal(_) | RevocationError::Store(_) => Code::Unavailable,
    }
}

fn message(row: &RevocationRow) -> api::Revoked {
    api::Revoked {
        serial: row.serial.clone(),
        authority: row.authority.clone(),
        reason: row.reason.as_str().to_owned(),
        revoked_at: unix_seconds(row.revoked_at),
        not_after: unix_seconds(row.not_after),
    }
}
