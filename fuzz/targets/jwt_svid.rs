//! Any text as a JWT-SVID: never valid, because nobody has signed it.

#![no_main]

use std::time::SystemTime;

use libfuzzer_sys::fuzz_target;
use portcullis_ca::bundle::Bundle;
use portcullis_ca::jwt_svid::validate;
use portcullis_ca::trust_domain::TrustDomain;

/// One P-256 key, whose private part nobody has.
const BUNDLE: &str = r#"{"keys":[{"kty":"EC","use":"jwt-svid","kid":"k","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}]}"#;

fuzz_target!(|text: &str| {
    let Ok(trust_domain) = TrustDomain::new("example.org") else {
        return;
    };
    let bundle = Bundle::from_document(trust_domain, BUNDLE.as_bytes()).ok();
    let now = SystemTime::UNIX_EPOCH;
    let valid = validate::token(text, "audience", now, |_| bundle.as_ref());
    let refusal = valid.expect_err("nobody has signed it");
    // Both ways to read it agree that it can be read at all, and none of them calls it flawless for another reason.
    if let Ok(read) = validate::inspect(text, now) {
        assert_ne!(refusal, validate::TokenError::NotCompact);
        if !read.refusals.is_empty() {
            assert_ne!(refusal, validate::TokenError::Signature);
        }
    }
});
