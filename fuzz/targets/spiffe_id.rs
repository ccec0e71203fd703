//! Any text as a SPIFFE ID and as a trust domain: refused, or the same text again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis_ca::spiffe_id::SpiffeId;
use portcullis_ca::trust_domain::TrustDomain;
use portcullis_ca::workload_api::client::WorkloadEndpoint;

fuzz_target!(|text: &str| {
    let _ = text.parse::<WorkloadEndpoint>();
    if let Ok(id) = SpiffeId::parse(text) {
        // Credentials are compared byte by byte: there is one way to write an ID.
        assert_eq!(id.as_str(), text);
        assert!(text.len() <= 2048 && text.starts_with("spiffe://"));
        assert!(!text.contains(['%', '?', '#', '@']) && !text.ends_with('/'));
        assert_eq!(SpiffeId::new(id.trust_domain(), id.path()).as_ref(), Ok(&id));
    }
    // What a person may write is one of those, once it is written as it should be.
    if let Ok(id) = SpiffeId::from_input(text) {
        assert_eq!(SpiffeId::parse(id.as_str()).as_ref(), Ok(&id));
    }
    if let Ok(name) = TrustDomain::from_input(text) {
        assert_eq!(TrustDomain::new(name.as_str()).as_ref(), Ok(&name));
        assert_eq!(TrustDomain::from_input(&name.id_string()).as_ref(), Ok(&name));
    }
});
