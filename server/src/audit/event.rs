//! What one audit line says.

use std::time::SystemTime;

use serde::Serialize;

/// Where in a call the line was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Before a change: allowed, and about to be tried.
    Intent,
    /// After a change that was made.
    Done,
    /// After a change that was allowed but not made; `reason` says why.
    Failed,
    /// Before an answer that hands out names, metadata or values.
    Read,
    /// The call was refused; `reason` says why.
    Refused,
}

/// A thing that the call was about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Subject {
    /// Its resource name, or a pattern.
    pub name: String,
    /// Which incarnation of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    /// The version of its value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
}

/// One line. The writer adds nothing but a sequence number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// When.
    pub time: SystemTime,
    /// Joins the lines of one call: 16 random bytes.
    pub call: [u8; 16],
    /// Where in the call.
    pub phase: Phase,
    /// The RPC, `coffer.v1.Secrets/CreateSecret`, or a command of the server's own, `coffer-server/init`.
    pub method: &'static str,
    /// Who: a principal, or empty if the call had no good credential.
    pub principal: String,
    /// The id of the token used.
    pub token: Option<String>,
    /// From where: an address and port, or `unix`.
    pub peer: Option<String>,
    /// What it was about. At most 2,048 are written; `subjects_total` tells when there were more.
    pub subjects: Vec<Subject>,
    /// Why it was refused or failed: a [`coffer_proto::reason::Reason`].
    pub reason: Option<&'static str>,
    /// Facts of this method, such as `permission`, `destination` or `ttl_seconds`; a key that is given more than once
    /// is written as one list. Never a value, hint or description.
    pub details: Vec<(&'static str, String)>,
    /// It gives somebody a way to encrypted values: a grant of secrets:inject or workloads:issue, or a workload token.
    pub leads_to_values: bool,
    /// Encrypted values leave the server with this call.
    pub values_leave: bool,
    /// Where the change stands in the store, once made: `epoch.revision`.
    pub position: Option<String>,
}

impl Event {
    /// What the server does by itself, or one of its commands: nobody calls.
    pub fn of_server(time: SystemTime, call: [u8; 16], phase: Phase, method: &'static str) -> Self {
        Self {
            time,
            call,
            phase,
            method,
            principal: String::new(),
            token: None,
            peer: None,
            subjects: Vec::new(),
            reason: None,
            details: Vec::new(),
            leads_to_values: false,
            values_leave: false,
            position: None,
        }
    }
}
