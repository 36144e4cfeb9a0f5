//! The memory that answers may take while their peers do not take them.

use std::{sync::Arc, time::Duration};

use tokio::time::timeout;

use super::gate::{IMPORT, REDACT};
use crate::{
    serve::{AnswerCeiling, AnswerRoom},
    vault::Error,
};

/// Answers of one principal that it has not taken, in bytes, at which its next one waits: more than a host reads at once.
pub(super) const PRINCIPAL_BYTES: u64 = 32 << 20;
/// The same of all. So 16 principals that take nothing leave no room for others, for as long as `Limits::answer`.
pub(super) const ALL_BYTES: u64 = 16 * PRINCIPAL_BYTES;
/// Room for an answer before it is made, in bytes: few have more.
const ANSWER_BYTES: u64 = 16 << 10;
/// The same of [`LARGE_ANSWERS`]. They may have eight times as much: then the next ones wait for longer. More would let a
/// principal make fewer of them at once than the audit log writes in one go.
const LARGE_ANSWER_BYTES: u64 = 512 << 10;
/// Methods whose answers have many values or many entries.
const LARGE_ANSWERS: &[&str] = &[
    "coffer.v1.Access/ListEffectiveAccess",
    "coffer.v1.Access/ListGrants",
    IMPORT,
    "coffer.v1.Instances/ListInstances",
    "coffer.v1.Manifests/ListManifests",
    REDACT,
    "coffer.v1.References/ListReferences",
    "coffer.v1.Scopes/GetScopeHealth",
    "coffer.v1.Scopes/ListScopes",
    "coffer.v1.Secrets/CloneSecrets",
    "coffer.v1.Secrets/DescribeEnvironment",
    "coffer.v1.Secrets/ListSecrets",
    "coffer.v1.Templates/RenderTemplate",
    "coffer.v1.Tokens/ListTokens",
    "coffer.v1.Workloads/FetchEnvironment",
];
/// How long a call waits for room.
const ROOM_WAIT: Duration = Duration::from_secs(5);

/// Room for an answer, before it is made. The principal's own ceiling comes first, so that it does not wait with room of
/// all others.
pub(super) async fn room(method: &str, ceilings: &[&Arc<AnswerCeiling>]) -> Result<AnswerRoom, Error> {
    let bytes = if LARGE_ANSWERS.contains(&method) { LARGE_ANSWER_BYTES } else { ANSWER_BYTES };
    let room = timeout(ROOM_WAIT, AnswerRoom::take(ceilings, bytes)).await;
    room.map_err(|_| Error::Overloaded("answers that are not taken leave no room for more"))
}

#[cfg(test)]
mod tests {
    use super::{super::gate::METHODS, *};

    #[test]
    fn large_answers_are_of_methods_that_there_are() {
        for method in LARGE_ANSWERS {
            assert!(METHODS.contains(method), "{method}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_waits_for_room_and_then_hears_why() {
        let ceiling = AnswerCeiling::new(LARGE_ANSWER_BYTES);
        let held = room(REDACT, &[&ceiling]).await.expect("room");
        assert!(matches!(room("coffer.v1.Secrets/GetSecret", &[&ceiling]).await, Err(Error::Overloaded(_))));
        drop(held);
        assert!(room(REDACT, &[&ceiling]).await.is_ok());
    }
}
