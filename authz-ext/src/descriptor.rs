//! Protobuf descriptors of ext_authz, for protobuf JSON and for gRPC reflection.
//!
//! `ext_authz.binpb` is a `FileDescriptorSet` of `envoy/service/auth/v3/external_auth.proto` and all
//! that it imports, compiled from the .proto files that ship inside the envoy-types package. It is
//! checked in, because a build script cannot find another package's files on every machine;
//! tests/descriptor.rs compares it with its source and writes it anew.

use std::sync::LazyLock;

use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor};
use serde::de::{DeserializeSeed, Deserializer, Error};

/// Encoded `FileDescriptorSet` of ext_authz v3.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!("descriptor/ext_authz.binpb");

static CHECK_REQUEST: LazyLock<Option<MessageDescriptor>> = LazyLock::new(|| {
    DescriptorPool::decode(FILE_DESCRIPTOR_SET)
        .ok()?
        .get_message_by_name("envoy.service.auth.v3.CheckRequest")
});

/// Descriptor of `CheckRequest`; every test of protobuf JSON shows that the set holds it.
pub(crate) fn check_request() -> Option<&'static MessageDescriptor> {
    CHECK_REQUEST.as_ref()
}

/// Reads a `CheckRequest` in protobuf JSON.
pub(crate) fn deserialize_check_request<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<DynamicMessage, D::Error> {
    let Some(descriptor) = check_request() else {
        return Err(D::Error::custom(
            "the descriptor of `CheckRequest` is missing",
        ));
    };
    descriptor.clone().deserialize(deserializer)
}
