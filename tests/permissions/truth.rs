//! Runs the table.

use std::collections::BTreeSet;

use prost_reflect::{DescriptorPool, Kind, MethodDescriptor};
use tonic::{Code, Status};

use super::{
    roles::{CANARY, Role, Stage},
    table::rows,
};
use crate::harness::{Refusal, forms_of, holds};

/// Every method of the contract, `Service/Method`.
pub(super) fn methods() -> BTreeSet<String> {
    methods_where(|_| true)
}

/// Those whose request can name something.
pub(super) fn naming_methods() -> BTreeSet<String> {
    methods_where(|method| {
        method.input().fields().any(|field| matches!(field.kind(), Kind::String | Kind::Bytes | Kind::Message(_)))
    })
}

fn methods_where(is_meant: impl Fn(&MethodDescriptor) -> bool) -> BTreeSet<String> {
    let pool = DescriptorPool::decode(coffer_proto::FILE_DESCRIPTOR_SET).expect("the contract");
    let methods = pool.services().flat_map(|service| service.methods().collect::<Vec<_>>());
    let meant = methods.filter(is_meant);
    meant.map(|method| format!("{}/{}", method.parent_service().name(), method.name())).collect()
}

#[test]
fn the_table_has_every_method_of_the_contract() {
    let table: BTreeSet<String> = rows().iter().map(|row| row.method.to_owned()).collect();
    assert_eq!(methods(), table, "a method without a row is a method nobody thought about");
}

/// What a call came to, in the words of the table.
fn outcome(result: &Result<Vec<u8>, Status>) -> (&'static str, Option<Refusal>) {
    match result {
        Ok(_) => ("allowed", None),
        Err(status) => {
            let refusal = Refusal::of(status);
            let word = match refusal.code {
                Code::PermissionDenied => "denied",
                Code::Unauthenticated => "unauthenticated",
                // What was deleted for one role is gone for the next: it got past the gate.
                Code::NotFound => "allowed",
                // An exchange of what is no start token: anybody may be told.
                Code::InvalidArgument if refusal.field() == "authorization" => "allowed",
                _ => "broken",
            };
            (word, Some(refusal))
        }
    }
}

#[tokio::test]
async fn every_method_is_open_to_exactly_the_roles_of_its_row() {
    let stage = Stage::set().await;
    let raw = stage.server.raw();
    let canary = forms_of(CANARY);
    let mut wrong = Vec::new();
    let mut fetched = 0;
    for row in rows() {
        // The allowed last: what one of them deletes is still there for those who must not.
        let (mut roles, allowed): (Vec<_>, Vec<_>) = Role::ALL.into_iter().partition(|r| !row.allowed.contains(r));
        roles.extend(allowed);
        for role in roles {
            let request = row.request.encoded(&stage, role).await;
            let result = raw.call(&format!("/coffer.v1.{}", row.method), stage.token(role), request).await;
            let (word, refusal) = outcome(&result);
            let expected = match role.unauthenticated() {
                Some(reason) => {
                    let got = refusal.as_ref().map_or("", |refusal| &refusal.reason);
                    if got != reason {
                        wrong.push(format!("{} as {role:?}: {got:?} instead of {reason}", row.method));
                    }
                    "unauthenticated"
                }
                None if row.allowed.contains(&role) => "allowed",
                None => "denied",
            };
            if word != expected {
                wrong.push(format!("{} as {role:?}: {word} instead of {expected} {refusal:?}", row.method));
            }
            let answer = match &result {
                Ok(bytes) => bytes.clone(),
                Err(status) => format!("{status:?}").into_bytes(),
            };
            let shown = canary.iter().any(|form| holds(&answer, form));
            fetched += usize::from(shown && row.returns_values && result.is_ok());
            if shown && !(row.returns_values && result.is_ok()) {
                wrong.push(format!("{} as {role:?} shows an encrypted value", row.method));
            }
        }
    }
    assert!(wrong.is_empty(), "{} cells of the table are wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert_eq!(fetched, 6, "the value must be there to be hidden: a fetch and a template show it");
}

#[tokio::test]
async fn one_text_says_denied_and_one_each_says_who_are_you() {
    let stage = Stage::set().await;
    let raw = stage.server.raw();
    let mut texts = BTreeSet::new();
    for row in rows() {
        for role in Role::ALL.into_iter().filter(|role| !row.allowed.contains(role)) {
            let request = row.request.encoded(&stage, role).await;
            let result = raw.call(&format!("/coffer.v1.{}", row.method), stage.token(role), request).await;
            let refusal = Refusal::of(&result.expect_err("not allowed"));
            texts.insert((refusal.reason, refusal.message));
        }
    }
    let reasons: Vec<_> = texts.iter().map(|(reason, _)| reason.as_str()).collect();
    assert_eq!(reasons, ["CREDENTIAL_EXPIRED", "CREDENTIAL_INVALID", "CREDENTIAL_MISSING", "PERMISSION_DENIED"]);
}
