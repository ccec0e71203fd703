//! The validating webhook, asked by a real API server about what real clients send.

#[path = "admission/certificate.rs"]
mod certificate;
#[path = "admission/corpus.rs"]
mod corpus;
#[path = "admission/dev.rs"]
mod dev;
#[path = "admission/judged.rs"]
mod judged;
#[path = "admission/namespaces.rs"]
mod namespaces;
#[path = "admission/sources.rs"]
mod sources;
#[path = "admission/steady.rs"]
mod steady;
#[path = "admission/webhook.rs"]
mod webhook;
