//! What an operator of etcd asks of it, beside coffer.

use std::time::Duration;

use coffer_proto::etcd::{
    AlarmMember, AlarmRequest, CompactionRequest, DefragmentRequest, RangeRequest, StatusRequest,
    alarm_request::AlarmAction, kv_client::KvClient, maintenance_client::MaintenanceClient,
};
use tonic::transport::{Channel, Endpoint};

use super::super::until_async;

/// How long a member that may be stopped is waited for.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// The members of a cluster, each to be asked by its number.
#[derive(Clone)]
pub(crate) struct Asked(Vec<Channel>);

impl Asked {
    pub(super) fn new(endpoints: Vec<String>) -> Self {
        let channel = |name| Endpoint::from_shared(name).expect("an address").timeout(ANSWER_MAX).connect_lazy();
        Self(endpoints.into_iter().map(channel).collect())
    }

    fn channel(&self, at: usize) -> Channel {
        self.0[at % self.0.len()].clone()
    }

    fn maintenance(&self, at: usize) -> MaintenanceClient<Channel> {
        MaintenanceClient::new(self.channel(at))
    }

    /// Which member leads, once one does. All must run.
    pub(crate) async fn leader(&self) -> usize {
        until_async("a leader", async || {
            for at in 0..self.0.len() {
                let status = self.maintenance(at).status(StatusRequest {}).await.expect("status").into_inner();
                if status.header.is_some_and(|header| header.member_id == status.leader) {
                    return Some(at);
                }
            }
            None
        })
        .await
    }

    /// Forgets all history, by one member.
    pub(crate) async fn compact(&self, at: usize) {
        if let Some(revision) = self.revision(at).await {
            self.compact_to(at, revision).await;
        }
    }

    /// Where etcd is, by one member; `None` if it does not answer.
    pub(crate) async fn revision(&self, at: usize) -> Option<i64> {
        let ask = RangeRequest { key: b"coffer/head".to_vec(), ..RangeRequest::default() };
        let answer = KvClient::new(self.channel(at)).range(ask).await.ok()?;
        Some(answer.into_inner().header.expect("in every answer").revision)
    }

    /// Forgets the history before a revision, by one member.
    pub(crate) async fn compact_to(&self, at: usize, revision: i64) {
        // Somebody else may have compacted it.
        let _ = KvClient::new(self.channel(at)).compact(CompactionRequest { revision, physical: true }).await;
    }

    /// Tidies one member's file, which does nothing else meanwhile.
    pub(crate) async fn defragment(&self, at: usize) {
        let _ = self.maintenance(at).defragment(DefragmentRequest {}).await;
    }

    /// Clears all alarms.
    pub(crate) async fn disarm(&self) {
        let get = AlarmRequest { action: AlarmAction::Get.into(), ..AlarmRequest::default() };
        let raised = self.maintenance(0).alarm(get).await.expect("alarms").into_inner().alarms;
        for AlarmMember { member_id, alarm } in raised {
            let action = AlarmAction::Deactivate.into();
            let clear = AlarmRequest { action, member_id, alarm };
            self.maintenance(0).alarm(clear).await.expect("cleared");
        }
    }
}
