//! Every limit that a caller of the API can meet, in one place.

use std::{num::NonZeroU32, time::Duration};

/// Longest secret name, in bytes.
pub const SECRET_NAME_BYTES: usize = 128;
/// Longest value, in bytes.
pub const VALUE_BYTES: usize = 64 * 1024;
/// Longest description, in bytes.
pub const DESCRIPTION_BYTES: usize = 1024;
/// Longest id of a scope, workload or principal, in bytes.
pub const ID_BYTES: usize = 63;
/// Shortest value that has a hint, in characters: 8 of fewer would tell too much of it.
pub const HINT_VALUE_CHARS_MIN: usize = 20;
/// Most secrets in one scope.
pub const SCOPE_SECRETS: u64 = 1_000;
/// Most bytes of values in one scope, so that own and inherited values fit one exec.
pub const SCOPE_VALUE_BYTES: u64 = 512 * 1024;
/// Most workspaces in one sharing list.
pub const SHARING_WORKSPACES: usize = 250;
/// Most hosts in one secret's list.
pub const ALLOWED_HOSTS: usize = 100;
/// Largest list of hosts, in bytes.
pub const ALLOWED_HOSTS_BYTES: usize = 8 * 1024;
/// Most names in one CloneSecrets call.
pub const CLONE_NAMES: usize = 1_000;
/// Most plugins of one account that have secrets: its owner needs no grant to make them.
pub const ACCOUNT_PLUGINS: usize = 1_000;
/// Most secrets in one account and its plugins together.
pub const ACCOUNT_SECRETS: u64 = 10_000;
/// Most bytes of values in one account and its plugins together.
pub const ACCOUNT_VALUE_BYTES: u64 = 64 * 1024 * 1024;
/// Most violations told in one error; the rest is counted.
pub const VIOLATIONS: usize = 20;
/// Entries looked at for one page: a page may be short, or empty, and yet have a next one.
pub const PAGE_SCANNED: usize = 1_000;
/// Most calls of one principal at once that count or sort very many scopes or grants; the next is RESOURCE_EXHAUSTED.
pub const PRINCIPAL_WALKS: usize = 8;
/// Most of them at once in all; the next is RESOURCE_EXHAUSTED.
pub const WALKS_AT_ONCE: usize = 24;
/// Most redactions of one tenant worked on at once; further ones wait.
pub const TENANT_REDACTIONS: usize = 2;
/// Most calls of one principal at once; the next is RESOURCE_EXHAUSTED.
pub const PRINCIPAL_CALLS: usize = 256;
/// Audited calls that a service may make a second in the long run, unless the server is configured otherwise: a platform may
/// start a thousand workloads a second. At about a kilobyte a line that is 1 MB of audit log a second.
pub const SERVICE_CALLS_PER_SECOND: NonZeroU32 = NonZeroU32::new(1_000).unwrap();
/// The same of a user or workload: a thousand replicas that ask each minute for changes make 17 calls a second. At about a
/// kilobyte a line that is 20 KB of audit log a second.
pub const CALLS_PER_SECOND: NonZeroU32 = NonZeroU32::new(20).unwrap();
/// Most imports of one principal read at once; further ones wait.
pub const PRINCIPAL_IMPORTS: usize = 2;
/// Most imports read at once by the whole server; further ones wait.
pub const IMPORTS_AT_ONCE: usize = 8;
/// Most grants whose pattern is one and the same.
pub const PATTERN_GRANTS: usize = 1_000;
/// Most grants of one principal.
pub const PRINCIPAL_GRANTS: usize = 10_000;
/// Most unexpired tokens of one principal.
pub const PRINCIPAL_TOKENS: usize = 1_000;
/// Longest description of a token, in bytes.
pub const TOKEN_DESCRIPTION_BYTES: usize = 200;
/// Most permissions in one TestPermissions call.
pub const TESTED_PERMISSIONS: usize = 20;

/// Longest id of a reference or manifest, in bytes.
pub const DECLARATION_ID_BYTES: usize = ID_BYTES;
/// Most references on one scope or pattern.
pub const PATTERN_REFERENCES: usize = 1_000;
/// Most names in one reference.
pub const REFERENCE_VARIABLES: usize = 500;
/// Most manifests on one scope or pattern.
pub const PATTERN_MANIFESTS: usize = 100;
/// Most variables in one manifest.
pub const MANIFEST_VARIABLES: usize = 200;
/// Longest description of one of them, in bytes.
pub const MANIFEST_VARIABLE_DESCRIPTION_BYTES: usize = 256;
/// Most references and manifests on one account and its plugins together: its owner needs no grant to make them.
pub const ACCOUNT_DECLARATIONS: usize = 1_000;
/// Starts of one workload that are kept.
pub const WORKLOAD_INSTANCES: usize = 32;
/// How long a start is kept.
pub const INSTANCE_TTL: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// Workloads of one scope whose starts are kept.
pub const SCOPE_INSTANCE_WORKLOADS: usize = 1_000;
/// Most workloads of one WatchInstances.
pub const WATCHED_INSTANCES: usize = 5_000;
/// Most watches and redaction streams of one principal at once.
pub const PRINCIPAL_STREAMS: usize = 8;
/// How long a reader may take to take a message of a stream.
pub const SLOW_READER: Duration = Duration::from_secs(30);
/// Longest environment revision that is given back, in bytes.
pub const REVISION_BYTES: usize = 64;
/// Most texts in one RenderTemplate or RedactText.
pub const TEXTS: usize = 1_000;
/// Most bytes that one RenderTemplate answers.
pub const RENDERED_BYTES: usize = 2 * 1024 * 1024;
/// Shortest value that is redacted, in characters: shorter ones are found everywhere.
pub const REDACTED_VALUE_CHARS_MIN: usize = 8;
/// How long a redaction stream may be without a part.
pub const REDACT_STREAM_IDLE: Duration = Duration::from_secs(60);
/// How long a redaction stream may go on.
pub const REDACT_STREAM_TTL: Duration = Duration::from_secs(60 * 60);
/// Most redactions worked on at once by the whole server; further ones wait.
pub const REDACTIONS_AT_ONCE: usize = 4;
/// What all redaction streams of a server may look for together, in KiB of values, each of which takes up to two hundred
/// times as much memory where values have many lines: a server with little memory allows less. Values that several look for count once.
pub const REDACT_STREAMS_KIB: usize = 16 * 1024;
/// What each redaction stream counts as, in KiB, beside its values: a part that is being read has up to 4 MiB.
pub const REDACT_STREAM_KIB_MIN: usize = 64;
/// Shortest nonce of ExchangeStartToken, in bytes.
pub const NONCE_BYTES_MIN: usize = 16;
/// Longest nonce of ExchangeStartToken, in bytes.
pub const NONCE_BYTES_MAX: usize = 64;
/// Days after which a value is stale when the request does not say.
pub const STALE_DAYS_DEFAULT: u32 = 90;
/// Days after which a secret is unused when the request does not say.
pub const UNUSED_DAYS_DEFAULT: u32 = 30;
/// Most days that may be said.
pub const HEALTH_DAYS_MAX: u32 = 36_500;
/// Most missing variables that are named.
pub const MISSING_NAMED: usize = 1_000;

/// Entries of a page when the request does not say.
pub const PAGE_ENTRIES_DEFAULT: usize = 50;
/// Most entries of a page.
pub const PAGE_ENTRIES: usize = 200;
/// A page ends when it has reached this size, in bytes.
pub const PAGE_BYTES: usize = 1024 * 1024;

/// Largest request, in bytes, of every service but Imports and Redactions.
pub const REQUEST_BYTES: usize = 256 * 1024;
/// Largest request of the Imports service, in bytes.
pub const IMPORT_REQUEST_BYTES: usize = 4 * 1024 * 1024;
/// Largest request of the Redactions service, in bytes.
pub const REDACT_REQUEST_BYTES: usize = 4 * 1024 * 1024;
/// Most fields of one message, those of the messages in it not counted: each takes much more memory than bytes.
pub const MESSAGE_FIELDS: usize = 16 * 1024;
/// Largest response, in bytes.
pub const RESPONSE_BYTES: usize = 4 * 1024 * 1024;

/// Validity of a user's or workload's token when the request does not say.
pub const TOKEN_TTL_DEFAULT: Duration = Duration::from_secs(60 * 60);
/// Validity of a service's token when the request does not say.
pub const SERVICE_TOKEN_TTL_DEFAULT: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// Longest validity of a workload's token.
pub const WORKLOAD_TOKEN_TTL_MAX: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// Longest validity of every other token.
pub const TOKEN_TTL_MAX: Duration = Duration::from_secs(366 * 24 * 60 * 60);
/// Validity of a start token when the request does not say.
pub const START_TOKEN_TTL_DEFAULT: Duration = Duration::from_secs(10 * 60);
/// Longest validity of a start token.
pub const START_TOKEN_TTL_MAX: Duration = Duration::from_secs(24 * 60 * 60);
