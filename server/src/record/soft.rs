//! Soft state: what is written behind, sealed under the system key.

use prost::Message;

/// The newest starts of a workload.
#[derive(Clone, PartialEq, Message)]
pub struct StartsRecord {
    /// The incarnation of the workload's scope; empty if there was none.
    #[prost(bytes = "vec", tag = "1")]
    pub scope_uid: Vec<u8>,
    /// Newest first.
    #[prost(message, repeated, tag = "2")]
    pub starts: Vec<StartRecord>,
    /// When a used-up start token was presented again.
    #[prost(message, tag = "3")]
    pub token_replay_time: Option<prost_types::Timestamp>,
}

/// One start.
#[derive(Clone, PartialEq, Message)]
pub struct StartRecord {
    /// Unique for ever.
    #[prost(bytes = "vec", tag = "1")]
    pub uid: Vec<u8>,
    /// When.
    #[prost(message, tag = "2")]
    pub time: Option<prost_types::Timestamp>,
    /// With which environment.
    #[prost(string, tag = "3")]
    pub revision: String,
    /// Who fetched it.
    #[prost(string, tag = "4")]
    pub principal: String,
}

/// When the secrets of a scope were used last.
#[derive(Clone, PartialEq, Message)]
pub struct UsedRecord {
    /// The incarnation of the scope.
    #[prost(bytes = "vec", tag = "1")]
    pub scope_uid: Vec<u8>,
    /// Those that were, in order of their uids.
    #[prost(message, repeated, tag = "2")]
    pub secrets: Vec<UsedSecretRecord>,
}

/// When one secret was used last, in seconds since 1970; 0 if never.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct UsedSecretRecord {
    /// The first half of the secret's uid.
    #[prost(fixed64, tag = "1")]
    pub uid_high: u64,
    /// The second half.
    #[prost(fixed64, tag = "2")]
    pub uid_low: u64,
    /// By a start.
    #[prost(int64, tag = "3")]
    pub injected: i64,
    /// By a template.
    #[prost(int64, tag = "4")]
    pub rendered: i64,
}
