//! The standard services beside coffer's own: health, and reflection by flag.

use coffer_proto::limits::REQUEST_BYTES;
use prost::Message as _;
use prost_types::FileDescriptorSet;
use tokio::sync::watch;
use tonic::service::Routes;
use tonic_reflection::server::{Builder, Error};

use crate::{
    config::Config,
    serve::{self, Stage},
};

/// `routes` with health, and if the configuration says so with reflection.
pub(super) fn add(
    routes: Routes,
    config: &Config,
    is_serving: watch::Receiver<bool>,
    stage: watch::Receiver<Stage>,
) -> Result<Routes, Error> {
    let routes = routes.add_service(serve::health(names(), is_serving, stage));
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
fn names() -> Vec<String> {
    let descriptors = FileDescriptorSet::decode(coffer_proto::FILE_DESCRIPTOR_SET).unwrap_or_default();
    let services = descriptors
        .file
        .iter()
        .flat_map(|file| file.service.iter().map(|service| format!("{}.{}", file.package(), service.name())));
    services.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_services_of_the_api_are_known() {
        let names = names();
        for name in ["Secrets", "Imports", "Scopes", "Access", "Tokens", "Workloads"] {
            assert!(names.contains(&format!("coffer.v1.{name}")), "{names:?}");
        }
    }
}
