//! User-written Cedar policies.
use crate::attachment::EnforcementPoint;
/// One user policy.
#[derive(Debug)]
pub struct UserPolicy {}
impl UserPolicy {
    /// True for a permit.
    #[must_use]
    pub fn is_permit(&self) -> bool {
        false
    }
    /// Whether its scope can hold.
    #[must_use]
    pub fn selects(&self, _point: &EnforcementPoint<'_>) -> bool {
        false
    }
}
