//! The validating webhook, asked by a real API server about what real clients send.

#[path = "admission/certificate.rs"]
mod certificate;
#[path = "admission/corpus.rs"]
mod corpus;
#[path = "admission/judged.rs"]
mod judged;
#[path = "admission/webhook.rs"]
mod webhook;
