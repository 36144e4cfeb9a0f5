//! What the descriptors say about each method: whose it is, and whether its answer is a stream.

use std::collections::HashMap;

use prost::Message as _;
use prost_types::{FileDescriptorSet, MethodDescriptorProto};

/// Everything that is served.
const DESCRIPTORS: &[&[u8]] = &[
    coffer_proto::FILE_DESCRIPTOR_SET,
    tonic_health::pb::FILE_DESCRIPTOR_SET,
    tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
    tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
];
/// The services of gRPC itself, which need no token.
const STANDARD: &str = "/grpc.";

/// What the log calls every method that there is not: a path is what a peer makes it, and may be a token.
const UNKNOWN: &str = "(no method)";

/// Every method, as a request's path names it, and whether its answer is a stream.
#[derive(Debug)]
pub(super) struct Methods {
    streaming: HashMap<String, bool>,
}

/// What a call counts as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A call of coffer's own with a single answer.
    Own,
    /// A stream of coffer's own: a watch, a redaction.
    Stream,
    /// A single question to a standard service: is the server well?
    Check,
    /// A stream of a standard service: a health watch, reflection.
    Watch,
}

impl Methods {
    pub(super) fn new() -> Self {
        let sets = DESCRIPTORS.iter().map(|set| FileDescriptorSet::decode(*set).unwrap_or_default());
        let methods = sets.flat_map(|set| set.file).flat_map(|file| {
            let package = file.package().to_owned();
            file.service.into_iter().flat_map(move |service| {
                let path = format!("/{package}.{}/", service.name());
                let method = move |method: MethodDescriptorProto| {
                    (format!("{path}{}", method.name()), method.server_streaming())
                };
                service.method.into_iter().map(method)
            })
        });
        Self { streaming: methods.collect() }
    }

    /// What to call it in the log.
    pub(super) fn name<'a>(&self, path: &'a str) -> &'a str {
        if self.streaming.contains_key(path) { path } else { UNKNOWN }
    }

    /// Whether the answer goes on for as long as both sides want. A method that does not exist has a single answer.
    pub(super) fn is_streaming(&self, path: &str) -> bool {
        self.streaming.get(path).copied().unwrap_or(false)
    }

    pub(super) fn kind(&self, path: &str) -> Kind {
        match path.starts_with(STANDARD) {
            false if self.is_streaming(path) => Kind::Stream,
            false => Kind::Own,
            true if self.is_streaming(path) => Kind::Watch,
            true => Kind::Check,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_descriptors_tell_streams() {
        let methods = Methods::new();
        for (path, is_streaming, kind) in [
            ("/coffer.v1.Secrets/GetSecret", false, Kind::Own),
            ("/coffer.v1.Workloads/WatchEnvironment", true, Kind::Stream),
            ("/coffer.v1.Redactions/RedactStream", true, Kind::Stream),
            ("/grpc.health.v1.Health/Check", false, Kind::Check),
            ("/grpc.health.v1.Health/Watch", true, Kind::Watch),
            ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", true, Kind::Watch),
            ("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", true, Kind::Watch),
            ("/grpc.health.v1.Health/None", false, Kind::Check),
            ("/none", false, Kind::Own),
        ] {
            assert_eq!((methods.is_streaming(path), methods.kind(path)), (is_streaming, kind), "{path}");
        }
    }
    #[test]
    fn only_methods_that_there_are_have_a_name() {
        let methods = Methods::new();
        for path in ["/coffer.v1.Secrets/GetSecret", "/grpc.health.v1.Health/Check"] {
            assert_eq!(methods.name(path), path);
        }
        for path in ["/coffer.v1.Secrets/None", "/cof_u_hunter2", "/a%20b", "/\u{1b}[31m", ""] {
            assert_eq!(methods.name(path), UNKNOWN);
        }
    }
}
