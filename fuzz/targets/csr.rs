//! Any bytes as a certificate signing request: refused, or a key that is in it byte by byte.

#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis_ca::x509::csr::{MAX_CSR, ProvenKey, RequestedNames};

fuzz_target!(|csr: &[u8]| {
    let _ = RequestedNames::from_csr(csr);
    let Ok(key) = ProvenKey::from_csr(csr) else {
        return;
    };
    assert!(csr.len() <= MAX_CSR);
    // What goes into the certificate is what came in.
    let spki = key.spki();
    assert!(csr.windows(spki.len()).any(|window| window == &spki[..]));
    assert_eq!(ProvenKey::made_here(spki).as_ref(), Ok(&key));
    // Nothing may follow it.
    let longer = [csr, &[0]].concat();
    assert!(ProvenKey::from_csr(&longer).is_err());
});
