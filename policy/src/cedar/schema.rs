//! The shipped schema, and strict validation against it.

use std::sync::LazyLock;

use cedar_policy_core::ast;
use cedar_policy_core::extensions::Extensions;
use cedar_policy_core::validator::{ValidationMode, Validator, ValidatorSchema};

static VALIDATOR: LazyLock<Result<Validator, String>> = LazyLock::new(|| {
    ValidatorSchema::from_cedarschema_str(portcullis_policies::SCHEMA, Extensions::all_available())
        .map(|(schema, _)| Validator::new(schema))
        .map_err(|e| e.to_string())
});

/// A policy that strict validation refuses, in Cedar's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("strict validation refuses: {0}")]
pub struct Refused(pub String);

/// Validates a set strictly.
///
/// # Errors
/// Every policy that is refused; the shipped schema itself being unreadable refuses everything.
pub fn validate(policies: &ast::PolicySet) -> Result<(), Vec<Refused>> {
    let validator = VALIDATOR
        .as_ref()
        .map_err(|why| vec![Refused(why.clone())])?;
    let result = validator.validate(policies, ValidationMode::Strict);
    let refused: Vec<Refused> = result
        .validation_errors()
        .map(|e| Refused(e.to_string()))
        .collect();
    if refused.is_empty() {
        Ok(())
    } else {
        Err(refused)
    }
}
