//! The standard services beside coffer's own: health, and reflection by flag.

use coffer_proto::limits::REQUEST_BYTES;
use prost::Message as _;
use prost_types::FileDescriptorSet;
use tokio::sync::watch;
use tonic::service::Routes;
use tonic_reflection::server::{Builder, Error};

use crate::{
    config::Config,
    serve::{self, ApiService, Extent, Stage},
    vault::is_served_from_view,
};

/// `routes` with health, and if the configuration says so with reflection.
pub(super) fn add(
    routes: Routes,
    config: &Config,
    extent: watch::Receiver<Extent>,
    stage: watch::Receiver<Stage>,
) -> Result<Routes, Error> {
    let routes = routes.add_service(serve::health(services(), extent, stage));
    if !config.reflection {
        return Ok(routes);
    }
    let builder = || {
        Builder::configure()
            .register_encoded_file_descriptor_set(coffer_proto::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    // Old tools, grpcurl before 1.8.8 among them, know v1alpha only.
    Ok(routes
        .add_service(builder().build_v1()?.max_decoding_message_size(REQUEST_BYTES))
        .add_service(builder().build_v1alpha()?.max_decoding_message_size(REQUEST_BYTES)))
}

/// Every service of the API, from its descriptor, so that none can be forgotten.
fn services() -> Vec<ApiService> {
    let descriptors = FileDescriptorSet::decode(coffer_proto::FILE_DESCRIPTOR_SET).unwrap_or_default();
    let services = descriptors.file.iter().flat_map(|file| {
        file.service.iter().map(|service| {
            let name = format!("{}.{}", file.package(), service.name());
            ApiService { does_without_store: is_served_from_view(&name), name }
        })
    });
    services.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_services_of_the_api_are_known() {
        let services = services();
        for (name, does_without_store) in
            [("Secrets", false), ("Scopes", false), ("Tokens", false), ("Workloads", true), ("Templates", true)]
        {
            let service = services.iter().find(|service| service.name == format!("coffer.v1.{name}"));
            assert_eq!(service.map(|service| service.does_without_store), Some(does_without_store), "{name}");
        }
    }
}
