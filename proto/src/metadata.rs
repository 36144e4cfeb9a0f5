//! What travels beside the messages of a call, as gRPC metadata.

/// In a request: with [`STALE_REFUSED`], a server that cannot reach its store refuses the call with UNAVAILABLE before it
/// looks at anything, even if it could answer with what it knew. So another server can be asked first.
pub const STALE: &str = "coffer-stale";
/// The one value of [`STALE`].
pub const STALE_REFUSED: &str = "no";
/// In an answer: it is of what the server knew when it last reached its store. In a refusal because of [`STALE`]: so its
/// answer would have been. When that was, as RFC 3339 in UTC with milliseconds.
pub const STALE_SINCE: &str = "coffer-stale-since";
