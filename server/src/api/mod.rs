//! The gRPC services: wire messages in, types of the vault out, errors as statuses. One file a service.

mod access;
mod answers;
#[cfg(test)]
mod answers_tests;
mod convert;
mod declarations;
mod gate;
mod imports;
mod instances;
mod operations;
mod redactions;
mod room;
mod scopes;
mod secrets;
mod status;
mod streams;
mod templates;
mod tokens;
mod turns;
mod workloads;

use std::sync::Arc;

use coffer_proto::{
    limits,
    v1::{
        access_server::AccessServer, imports_server::ImportsServer, instances_server::InstancesServer,
        manifests_server::ManifestsServer, operations_server::OperationsServer, redactions_server::RedactionsServer,
        references_server::ReferencesServer, scopes_server::ScopesServer, secrets_server::SecretsServer,
        templates_server::TemplatesServer, tokens_server::TokensServer, workloads_server::WorkloadsServer,
    },
};
use tokio::sync::watch;
use tonic::{Request, Status, service::Routes};

use self::{gate::Guard, room::Matchers};
use crate::{
    serve::Stage,
    vault::{Call, Error, Vault},
};

/// Serves every service from one vault.
#[derive(Clone)]
struct Api {
    vault: Vault,
    stage: watch::Receiver<Stage>,
    matchers: Arc<Matchers>,
}

/// The services of coffer, each behind its gate and with its message limits. Streams end when the drain begins.
pub fn routes(vault: Vault, stage: watch::Receiver<Stage>) -> Routes {
    let guard = Guard::new(vault.clone());
    let matchers = Arc::new(Matchers::new(vault.memory_bytes_max()));
    let api = Api { vault, stage, matchers };
    macro_rules! guarded {
        ($server:ident, $request_bytes:expr) => {
            guard.before(
                $server::new(api.clone())
                    .max_decoding_message_size($request_bytes)
                    .max_encoding_message_size(limits::RESPONSE_BYTES),
            )
        };
    }
    Routes::new(guarded!(SecretsServer, limits::REQUEST_BYTES))
        .add_service(guarded!(ImportsServer, limits::IMPORT_REQUEST_BYTES))
        .add_service(guarded!(ScopesServer, limits::REQUEST_BYTES))
        .add_service(guarded!(AccessServer, limits::REQUEST_BYTES))
        .add_service(guarded!(TokensServer, limits::REQUEST_BYTES))
        .add_service(guarded!(WorkloadsServer, limits::REQUEST_BYTES))
        .add_service(guarded!(InstancesServer, limits::REQUEST_BYTES))
        .add_service(guarded!(ReferencesServer, limits::REQUEST_BYTES))
        .add_service(guarded!(ManifestsServer, limits::REQUEST_BYTES))
        .add_service(guarded!(TemplatesServer, limits::REQUEST_BYTES))
        .add_service(guarded!(OperationsServer, limits::REQUEST_BYTES))
        .add_service(guarded!(RedactionsServer, limits::REDACT_REQUEST_BYTES))
}

/// Takes a request apart: the call that the gate has let in, and the message.
fn open<T>(mut request: Request<T>) -> Result<(Call, T), Status> {
    let call = request.extensions_mut().remove::<Call>();
    let call = call.ok_or_else(|| status::of(Error::Internal("a call came past the gate".into())))?;
    Ok((call, request.into_inner()))
}
