//! What coffer does. Nothing acts without a [`crate::access::Permit`], and nothing acts without an audit record.
//!
//! The order of things is written once: [`read`] for what only answers, [`write`](mod@write) for what changes. Every verb is a
//! decision over one state of the view: the first says what to answer, the second what to commit.

mod answered;
mod budget;
mod call;
mod clone;
mod declarations;
mod declared;
mod environment;
mod epoch;
mod error;
mod expiry;
pub mod fields;
mod fresh;
mod grants;
mod guard;
mod health;
mod import;
mod instances;
mod listing;
mod open;
mod operations;
mod page;
mod read;
mod redact;
mod refusals;
mod rewrap;
mod rotation;
mod scopes;
mod secrets;
mod session;
mod soft;
mod template;
mod tokens;
mod walks;
mod watch;
mod write;

use std::{hash::RandomState, sync::Arc};

use tokio::sync::Mutex;

use crate::{audit::Audit, clock::Clock, store::Store, view::View};

pub use crate::{seal::source::Health as KeySourceHealth, view::RotatedKeys};
#[cfg(test)]
pub(crate) use answered::Answered;
pub use budget::CallRates;
pub use call::Call;
pub use clone::{Clone as CloneRequest, Cloned};
pub use declarations::{NewDeclaration, ShownDeclaration};
pub use environment::{Described, DescribedEntry, EntryState, Environment, Fetched, FetchedVariable, Purpose};
pub use epoch::raise_epoch;
pub use error::{Error, Violation};
pub use fresh::{Serves, Sharing, is_served_from_view};
pub use grants::{Effective, EffectiveReason, NewGrant};
pub use health::{Health, HealthRequest};
pub use import::{Conflict, Import, ImportAction, ImportEntry, ImportOutcome};
pub use instances::KnownWorkload;
pub use listing::Stats;
pub use open::{Limits, OpenError, admit_operator, init};
pub use operations::{Snapshot, Status, Writes};
pub use page::{Page, PageRequest, Pages};
pub use redact::{Redaction, Sought};
pub use rotation::Rotation;
pub use scopes::ShownScope;
pub use secrets::{NewSecret, SecretChange, ShownSecret};
pub use template::{Rendered, Sink, Template, Unrenderable};
pub use tokens::{IssuedToken, NewToken};
pub use watch::{EnvironmentChange, EnvironmentWatch, InstancesChange, InstancesWatch};

/// Writers of one scope wait for each other here instead of in conflicts of the store; this many scopes can be
/// written at once without waiting for another by chance.
const LOCKS: usize = 1_024;

/// The vault of one store. Cheap to clone.
#[derive(Clone)]
pub struct Vault(Arc<Inner>);

struct Inner {
    store: Arc<dyn Store>,
    view: Arc<View>,
    audit: Arc<dyn Audit>,
    clock: Arc<dyn Clock>,
    limits: Limits,
    /// None where the store is this process's alone.
    freshness: Option<fresh::Freshness>,
    opened: std::time::SystemTime,
    locks: Vec<Arc<Mutex<()>>>,
    line_hasher: RandomState,
    budgets: budget::Budgets,
    refusals: refusals::Refusals,
    walks: walks::Walks,
    soft: soft::Soft,
    resolutions: watch::Resolutions,
    rotations: rotation::Rotations,
    serves: tokio::sync::watch::Sender<Serves>,
    keys: crate::seal::source::KeyHealth,
}

impl Vault {
    /// How much can be served: nothing once the view has failed. A store that takes no writes says so in the status:
    /// it still serves the workloads, and must not be taken out of a load balancer for it.
    pub fn watch_health(&self) -> tokio::sync::watch::Receiver<Serves> {
        self.0.serves.subscribe()
    }

    /// The memory ceiling, in bytes.
    pub fn memory_bytes_max(&self) -> u64 {
        self.0.limits.memory_bytes
    }

    /// The view, for status and tests.
    pub fn view(&self) -> &View {
        &self.0.view
    }
}

#[cfg(test)]
pub(crate) mod tests;
