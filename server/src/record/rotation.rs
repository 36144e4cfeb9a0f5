//! The last rotation of keys, sealed under the system key.

use prost::Message;

/// Where rotations stand. What is left to do of one is in the keys and records themselves.
#[derive(Clone, PartialEq, Message)]
pub struct RotationRecord {
    /// 1: the root key. 2: data keys.
    #[prost(uint32, tag = "1")]
    pub keys: u32,
    /// How many rotations of data keys have begun: data keys made since then carry this number.
    #[prost(uint32, tag = "2")]
    pub generation: u32,
    /// Who began it.
    #[prost(string, tag = "3")]
    pub principal: String,
    /// When.
    #[prost(message, tag = "4")]
    pub start_time: Option<prost_types::Timestamp>,
    /// When it was done; absent while it goes on.
    #[prost(message, tag = "5")]
    pub end_time: Option<prost_types::Timestamp>,
    /// How much was done, once it is.
    #[prost(uint64, tag = "6")]
    pub done: u64,
}

impl RotationRecord {
    /// Whether it is a rotation of the root key.
    pub fn is_of_root(&self) -> bool {
        self.keys == 1
    }
}
