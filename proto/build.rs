//! Compiles the .proto files with protox, in Rust: no `protoc` is needed.

use std::{env, fs, io, path::PathBuf};

use prost::Message as _;

const FILES: &[&str] = &[
    "coffer/v1/resources.proto",
    "coffer/v1/secrets.proto",
    "coffer/v1/scopes.proto",
    "coffer/v1/access.proto",
    "coffer/v1/tokens.proto",
    "coffer/v1/workloads.proto",
    "coffer/v1/templates.proto",
    "coffer/v1/redactions.proto",
    "coffer/v1/declarations.proto",
    "coffer/v1/instances.proto",
    "coffer/v1/operations.proto",
];

/// Messages that carry a value, a hint or a token, and those that contain such a message: they have no `Debug`,
/// so that no `{:?}` anywhere can print one. `src/lib.rs` asserts it.
const WITHOUT_DEBUG: &[&str] = &[
    "coffer.v1.Secret",
    "coffer.v1.CreateSecretRequest",
    "coffer.v1.ListSecretsResponse",
    "coffer.v1.UpdateSecretRequest",
    "coffer.v1.CloneSecretsResponse",
    "coffer.v1.EnvironmentEntry",
    "coffer.v1.DescribeEnvironmentResponse",
    "coffer.v1.ImportSecretsRequest",
    "coffer.v1.ImportEntry",
    "coffer.v1.IssueTokenResponse",
    "coffer.v1.ExchangeStartTokenRequest",
    "coffer.v1.ExchangeStartTokenResponse",
    "coffer.v1.FetchEnvironmentResponse",
    "coffer.v1.Variable",
    "coffer.v1.RenderTemplateRequest",
    "coffer.v1.RenderTemplateResponse",
    "coffer.v1.RedactTextRequest",
    "coffer.v1.RedactTextResponse",
    "coffer.v1.RedactStreamRequest",
    "coffer.v1.RedactStreamResponse",
    "coffer.v1.SetReferenceRequest",
];

/// Of the messages between the server and a KMS plugin, those that carry a key.
const KMS_WITHOUT_DEBUG: &[&str] = &["v2.EncryptRequest", "v2.DecryptResponse"];

/// Of the messages between the server and etcd, those that carry a password or a token.
const ETCD_WITHOUT_DEBUG: &[&str] = &["etcdserverpb.AuthenticateRequest", "etcdserverpb.AuthenticateResponse"];

fn main() -> io::Result<()> {
    println!("cargo:rerun-if-changed=coffer");
    println!("cargo:rerun-if-changed=kms");
    println!("cargo:rerun-if-changed=etcd");
    let descriptors = protox::compile(FILES, ["."]).map_err(io::Error::other)?;
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    fs::write(out.join("coffer.v1.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        .codec_path("crate::codec::CountingCodec")
        .skip_debug(WITHOUT_DEBUG)
        .compile_fds(descriptors)?;
    // Spoken by the server only, and no part of the contract: never in the descriptors that are served.
    if env::var_os("CARGO_FEATURE_KMS").is_some() {
        let kms = protox::compile(["kms/v2.proto"], ["."]).map_err(io::Error::other)?;
        tonic_prost_build::configure().skip_debug(KMS_WITHOUT_DEBUG).compile_fds(kms)?;
    }
    if env::var_os("CARGO_FEATURE_ETCD").is_some() {
        let etcd = protox::compile(["etcd/v3.proto"], ["."]).map_err(io::Error::other)?;
        tonic_prost_build::configure().build_server(false).skip_debug(ETCD_WITHOUT_DEBUG).compile_fds(etcd)?;
    }
    Ok(())
}
