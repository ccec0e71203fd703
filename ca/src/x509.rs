//! X.509: what a certificate is built from, what a CSR proves, and whether a certificate conforms.

pub mod certificate;
pub mod chain;
pub mod conform;
pub mod crl;
pub mod csr;
pub mod profile;
