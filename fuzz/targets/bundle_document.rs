//! Any bytes as a SPIFFE bundle document: refused, or a bundle that is read again as the same from what it writes.

#![no_main]

use std::time::SystemTime;

use libfuzzer_sys::fuzz_target;
use portcullis_ca::bundle::Bundle;
use portcullis_ca::inspect;
use portcullis_ca::trust_domain::TrustDomain;

fuzz_target!(|document: &[u8]| {
    // Telling what it is never fails in another way than by saying so.
    let _ = inspect::inspect(document, SystemTime::UNIX_EPOCH);
    let Ok(trust_domain) = TrustDomain::new("example.org") else {
        return;
    };
    let Ok(bundle) = Bundle::from_document(trust_domain.clone(), document) else {
        return;
    };
    let written = bundle.to_document();
    let again = Bundle::from_document(trust_domain, written.as_bytes());
    assert_eq!(again.as_ref(), Ok(&bundle), "{written}");
    assert_eq!(again.map(|again| again.to_document()), Ok(written));
});
