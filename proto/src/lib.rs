//! The contract of coffer, shared by its server, clients and injector.
//!
//! - [`v1`]: the gRPC API, generated from `coffer/v1/*.proto`. Their comments are the API reference.
//! - [`name`]: scopes, secrets, workloads, principals and patterns, as types that exist only when valid.
//! - [`value`]: the one type a secret's value lives in.
//! - [`template`]: texts with placeholders for values.
//! - [`redaction`]: finds values in texts and puts placeholders there.
//! - [`token`]: the shape of bearer tokens.
//! - [`reason`]: why a call failed, in words a program can compare.
//! - [`limits`]: every limit a caller can meet.
//! - [`codec`]: how messages are encoded, and how many entries one may have.
//! - [`metadata`]: what travels beside the messages.
//! - [`escape`]: makes text of others safe to print.
//! - [`text`]: text files that people made.
//! - [`misplaced`]: what of a mistaken command line an error may repeat.
//!
//! Nothing here knows a policy, does I/O, or depends on another crate of coffer.

pub mod codec;
pub mod escape;
pub mod limits;
pub mod metadata;
pub mod misplaced;
pub mod name;
pub mod reason;
pub mod redaction;
pub mod template;
pub mod text;
pub mod token;
pub mod value;

/// Messages, clients and servers of the API, version 1.
pub mod v1 {
    #![allow(missing_docs, unreachable_pub, clippy::all)]
    tonic::include_proto!("coffer.v1");
}

/// The interface of Kubernetes' KMS v2 plugins.
#[cfg(feature = "kms")]
pub mod kms {
    #![allow(missing_docs, unreachable_pub, clippy::all)]
    tonic::include_proto!("v2");
}

/// What coffer uses of etcd's interface, version 3.
#[cfg(feature = "etcd")]
pub mod etcd {
    #![allow(missing_docs, unreachable_pub, clippy::all)]
    tonic::include_proto!("etcdserverpb");
}

/// The compiled `.proto` files, as an encoded `google.protobuf.FileDescriptorSet`: for reflection and for tests that
/// must cover every method.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/coffer.v1.bin"));

#[cfg(test)]
mod tests {
    use static_assertions::assert_not_impl_any;
    use std::fmt::Debug;

    use crate::v1;

    assert_not_impl_any!(v1::Secret: Debug);
    assert_not_impl_any!(v1::CreateSecretRequest: Debug);
    assert_not_impl_any!(v1::ListSecretsResponse: Debug);
    assert_not_impl_any!(v1::UpdateSecretRequest: Debug);
    assert_not_impl_any!(v1::CloneSecretsResponse: Debug);
    assert_not_impl_any!(v1::EnvironmentEntry: Debug);
    assert_not_impl_any!(v1::DescribeEnvironmentResponse: Debug);
    assert_not_impl_any!(v1::ImportSecretsRequest: Debug);
    assert_not_impl_any!(v1::ImportEntry: Debug);
    assert_not_impl_any!(v1::IssueTokenResponse: Debug);
    assert_not_impl_any!(v1::ExchangeStartTokenRequest: Debug);
    assert_not_impl_any!(v1::ExchangeStartTokenResponse: Debug);
    assert_not_impl_any!(v1::FetchEnvironmentResponse: Debug);
    assert_not_impl_any!(v1::Variable: Debug);
    assert_not_impl_any!(v1::RenderTemplateRequest: Debug);
    assert_not_impl_any!(v1::RenderTemplateResponse: Debug);
    assert_not_impl_any!(v1::RedactTextRequest: Debug);
    assert_not_impl_any!(v1::RedactTextResponse: Debug);
    assert_not_impl_any!(v1::RedactStreamRequest: Debug);
    assert_not_impl_any!(v1::RedactStreamResponse: Debug);
    assert_not_impl_any!(v1::SetReferenceRequest: Debug);
    #[cfg(feature = "kms")]
    assert_not_impl_any!(crate::kms::EncryptRequest: Debug);
    #[cfg(feature = "kms")]
    assert_not_impl_any!(crate::kms::DecryptResponse: Debug);
    #[cfg(feature = "etcd")]
    assert_not_impl_any!(crate::etcd::AuthenticateRequest: Debug);
    #[cfg(feature = "etcd")]
    assert_not_impl_any!(crate::etcd::AuthenticateResponse: Debug);
}
