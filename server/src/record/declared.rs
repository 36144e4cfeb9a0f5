//! References and manifests, sealed under the system key.

use prost::Message;

/// A reference or a manifest; its key says which.
#[derive(Clone, PartialEq, Message)]
pub struct DeclarationRecord {
    /// The incarnation of the scope it is bound to; empty for wildcards.
    #[prost(bytes = "vec", tag = "1")]
    pub scope_uid: Vec<u8>,
    /// For people.
    #[prost(string, tag = "2")]
    pub description: String,
    /// The names, in order; a reference's have nothing but a name.
    #[prost(message, repeated, tag = "3")]
    pub variables: Vec<DeclaredVariable>,
    /// When it was set first.
    #[prost(message, tag = "4")]
    pub create_time: Option<prost_types::Timestamp>,
    /// When it was set last.
    #[prost(message, tag = "5")]
    pub update_time: Option<prost_types::Timestamp>,
    /// Who set it last.
    #[prost(string, tag = "6")]
    pub updater: String,
}

/// A name that is used or expected.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct DeclaredVariable {
    /// The name.
    #[prost(string, tag = "1")]
    pub variable: String,
    /// A workload cannot start without it.
    #[prost(bool, tag = "2")]
    pub required: bool,
    /// What it is for.
    #[prost(string, tag = "3")]
    pub description: String,
}

/// Stands for all that is set on a wildcard pattern, and for all references on scopes and patterns of which it is the last
/// id's wildcard: each write of one of them puts it anew, and a delete that they could guard compares it.
#[derive(Clone, PartialEq, Message)]
pub struct PatternRecord {
    /// When it was put.
    #[prost(message, tag = "1")]
    pub update_time: Option<prost_types::Timestamp>,
}
