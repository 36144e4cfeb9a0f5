//! How etcd is, for coffer's operator.

use std::time::Duration;

use coffer_proto::etcd::{AlarmRequest, AlarmType, alarm_request::AlarmAction};

use super::{Etcd, connect::alarm};
use crate::store::{Condition, Writes};

/// What this kind of store is called.
const KIND: &str = "etcd";
/// Who asks how the store is wants to hear at once.
const LOOK_MAX: Duration = Duration::from_millis(600);

impl Etcd {
    /// Asks for etcd's alarms.
    pub(super) async fn look_at_condition(&self) -> Condition {
        let ask = AlarmRequest { action: AlarmAction::Get.into(), ..AlarmRequest::default() };
        let writes = match self.0.cluster.read_soonest(LOOK_MAX, &ask, alarm).await {
            Ok(answer) if answer.alarms.iter().any(|alarm| alarm.alarm() == AlarmType::Corrupt) => {
                Writes::Nothing("etcd's members differ (alarm CORRUPT)".into())
            }
            Ok(answer) if answer.alarms.iter().any(|alarm| alarm.alarm() == AlarmType::Nospace) => {
                Writes::Deletes("etcd has reached its quota (alarm NOSPACE)".into())
            }
            Ok(_) => Writes::All,
            Err(error) => Writes::Nothing(error.to_string()),
        };
        Condition { writes, ..Condition::of(KIND) }
    }
}
