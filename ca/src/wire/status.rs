//! One place that says which gRPC status an error is (SPIFFE Workload Endpoint §6).

use tonic::Status;

use crate::attest::AttestError;
use crate::identities::IssueError;

/// What every call without the security header is told; the words are those that clients know.
pub(crate) fn no_security_header() -> Status {
    Status::invalid_argument("security header missing from request")
}

/// A caller of whom we cannot say who it is may come again: it may be denied nothing for good.
pub(crate) fn unattested(error: &AttestError) -> Status {
    match error {
        // Clients look for these words, and withdraw what they have.
        AttestError::Refused(why) => {
            Status::permission_denied(format!("no identity issued: {why}"))
        }
        other => Status::unavailable(other.to_string()),
    }
}

/// What a caller is told about an identity that it does not get.
pub(crate) fn not_issued(error: IssueError) -> Status {
    match error {
        IssueError::NoIdentity => Status::permission_denied("no identity issued"),
        // Clients look for these words and take what follows for an explanation.
        IssueError::NotEntitled(id) => Status::permission_denied(format!(
            "no identity issued: the caller is not entitled to `{id}`"
        )),
        IssueError::InvalidArgument(why) => Status::invalid_argument(why),
        IssueError::Unavailable(why) => Status::unavailable(why),
    }
}

/// The process that serves is about to end.
pub(crate) fn shutting_down() -> Status {
    Status::unavailable("the certificate authority is shutting down: connect anew")
}
