//! The gRPC services: wire messages in, types of the vault out, errors as statuses. One file a service.

mod access;
mod convert;
mod imports;
mod scopes;
mod secrets;
mod status;
mod tokens;
mod workloads;

use coffer_proto::{
    limits,
    v1::{
        access_server::AccessServer, imports_server::ImportsServer, scopes_server::ScopesServer,
        secrets_server::SecretsServer, tokens_server::TokensServer, workloads_server::WorkloadsServer,
    },
};
use tonic::{Request, Status, service::Routes};

use crate::{
    serve::PeerInfo,
    vault::{Call, Vault},
};

/// Serves every service from one vault.
#[derive(Clone)]
struct Api {
    vault: Vault,
}

/// The services of coffer, each with its message limits.
pub fn routes(vault: Vault) -> Routes {
    let api = Api { vault };
    macro_rules! limited {
        ($server:ident, $request_bytes:expr) => {
            $server::new(api.clone())
                .max_decoding_message_size($request_bytes)
                .max_encoding_message_size(limits::RESPONSE_BYTES)
        };
    }
    Routes::new(limited!(SecretsServer, limits::REQUEST_BYTES))
        .add_service(limited!(ImportsServer, limits::IMPORT_REQUEST_BYTES))
        .add_service(limited!(ScopesServer, limits::REQUEST_BYTES))
        .add_service(limited!(AccessServer, limits::REQUEST_BYTES))
        .add_service(limited!(TokensServer, limits::REQUEST_BYTES))
        .add_service(limited!(WorkloadsServer, limits::REQUEST_BYTES))
}

impl Api {
    /// Begins a call: nobody without a good credential gets further, whatever else is wrong with the request.
    async fn begin<T>(&self, method: &'static str, request: Request<T>) -> Result<(Call, T), Status> {
        let peer = request.extensions().get::<PeerInfo>().map(|info| info.peer.clone());
        let authorization = request.metadata().get("authorization").map(|value| value.as_encoded_bytes().to_vec());
        let call = Call::new(method, peer, authorization.as_deref()).map_err(status::of)?;
        self.vault.authenticate(&call).await.map_err(status::of)?;
        Ok((call, request.into_inner()))
    }
}
