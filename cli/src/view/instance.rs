//! Starts of workloads, and what changes.

use coffer_client::follow::Change;
use coffer_proto::v1;
use serde::Serialize;

use super::{View, counted, listing};
use crate::{
    failure::Failure,
    print::{
        escape,
        table::{Table, dropped, whole, wraps},
        time::{rfc3339, short},
    },
};

/// Workloads that were started.
#[derive(Serialize)]
pub(crate) struct InstanceList {
    workloads: Vec<WorkloadView>,
    restart_required: usize,
    more: bool,
}

#[derive(Serialize)]
struct WorkloadView {
    workload: String,
    restart_required: bool,
    changed_names: Vec<String>,
    token_replay_time: Option<String>,
    instances: Vec<InstanceView>,
}

#[derive(Serialize)]
struct InstanceView {
    uid: String,
    start_time: Option<String>,
    environment_revision: String,
    principal: String,
}

/// What a watch tells.
#[derive(Serialize)]
pub(crate) struct InstanceNews {
    workloads: Vec<WorkloadView>,
    forgotten: Vec<String>,
    synced: bool,
}

/// A new state of an environment.
#[derive(Serialize)]
pub(crate) struct EnvironmentChange {
    environment_revision: String,
    changed_names: Vec<String>,
    reset: bool,
}

impl From<v1::WorkloadInstances> for WorkloadView {
    fn from(of: v1::WorkloadInstances) -> Self {
        let instance = |instance: v1::Instance| InstanceView {
            uid: instance.uid,
            start_time: rfc3339(instance.start_time.as_ref()),
            environment_revision: instance.environment_revision,
            principal: instance.principal,
        };
        Self {
            workload: of.workload,
            restart_required: of.restart_required,
            changed_names: of.changed_names,
            token_replay_time: rfc3339(of.token_replay_time.as_ref()),
            instances: of.instances.into_iter().map(instance).collect(),
        }
    }
}

impl WorkloadView {
    fn restart(&self) -> &'static str {
        if self.restart_required { "required" } else { "no" }
    }

    /// A copy of a start token is in other hands.
    fn alarm(&self) -> String {
        match &self.token_replay_time {
            Some(time) => format!("start token presented again {} UTC", short(Some(time))),
            None => String::new(),
        }
    }

    fn started(&self) -> String {
        short(self.instances.first().and_then(|instance| instance.start_time.as_deref()))
    }
}

impl InstanceList {
    pub(crate) fn new(workloads: Vec<v1::WorkloadInstances>, more: bool) -> Self {
        let workloads: Vec<WorkloadView> = workloads.into_iter().map(WorkloadView::from).collect();
        let restart_required = workloads.iter().filter(|workload| workload.restart_required).count();
        Self { workloads, restart_required, more }
    }
}

impl View for InstanceList {
    fn table(&self, width: Option<usize>) -> String {
        let mut table = Table::new(&[
            whole("WORKLOAD"),
            dropped("STARTED (UTC)"),
            dropped("STARTS"),
            whole("RESTART"),
            wraps("CHANGED"),
            wraps("ALARM"),
        ]);
        for workload in &self.workloads {
            table.row([
                &workload.workload,
                &workload.started(),
                &workload.instances.len().to_string(),
                workload.restart(),
                &workload.changed_names.join(","),
                &workload.alarm(),
            ]);
        }
        let totals =
            format!("{}, {} to be restarted", counted(self.workloads.len() as i64, "workload"), self.restart_required);
        listing(&table.render(width), &totals, self.more)
    }
}

impl InstanceNews {
    pub(crate) fn new(news: v1::WatchInstancesResponse) -> Self {
        let workloads = news.workloads.into_iter().map(WorkloadView::from).collect();
        Self { workloads, forgotten: news.forgotten, synced: news.synced }
    }

    /// One line a workload; as JSON one object a message.
    pub(crate) fn lines(&self, as_json: bool) -> Result<String, Failure> {
        if as_json {
            return json_line(self);
        }
        let workload = |of: &WorkloadView| {
            let changed = match of.changed_names.as_slice() {
                [] => String::new(),
                names => format!("  {}", names.join(",")),
            };
            let alarm = if of.token_replay_time.is_some() { format!("  {}", of.alarm()) } else { String::new() };
            format!("{}  started {}  restart {}{changed}{alarm}", of.workload, of.started(), of.restart())
        };
        let lines = self.workloads.iter().map(workload);
        let forgotten = self.forgotten.iter().map(|name| format!("{name}  forgotten"));
        Ok(lines.chain(forgotten).map(|line| escape::text(&line) + "\n").collect())
    }
}

impl EnvironmentChange {
    pub(crate) fn new(change: Change) -> Self {
        Self { environment_revision: change.revision, changed_names: change.changed, reset: change.reset }
    }

    /// One line. `is_now` says that it is what there is at the beginning, and no change.
    pub(crate) fn line(&self, is_now: bool, as_json: bool) -> Result<String, Failure> {
        if as_json {
            return json_line(self);
        }
        let what = match self.reset {
            _ if is_now => "now".to_owned(),
            true => "changed: anything".to_owned(),
            false => format!("changed: {}", self.changed_names.join(",")),
        };
        Ok(escape::text(&format!("{}  {what}", self.environment_revision)) + "\n")
    }
}

/// One object on a line of its own, for programs that read line by line.
fn json_line(value: &impl Serialize) -> Result<String, Failure> {
    let document =
        serde_json::to_string(value).map_err(|error| Failure::failed(format!("cannot print JSON: {error}")))?;
    Ok(escape::json(&document) + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workload(name: &str, restart: bool) -> v1::WorkloadInstances {
        v1::WorkloadInstances {
            workload: name.into(),
            restart_required: restart,
            changed_names: if restart { vec!["A".into(), "B".into()] } else { Vec::new() },
            instances: vec![v1::Instance {
                start_time: Some(prost_types::Timestamp { seconds: 1_769_903_999, nanos: 0 }),
                ..Default::default()
            }],
            token_replay_time: None,
        }
    }

    #[test]
    fn what_is_now_is_no_change() {
        let change = |reset, names: &[&str]| EnvironmentChange {
            environment_revision: "r".into(),
            changed_names: names.iter().map(|name| (*name).to_owned()).collect(),
            reset,
        };
        let line = |change: &EnvironmentChange, is_now| change.line(is_now, false).expect("text");
        assert_eq!(line(&change(true, &[]), true), "r  now\n");
        assert_eq!(line(&change(true, &[]), false), "r  changed: anything\n");
        assert_eq!(line(&change(false, &["A", "B"]), false), "r  changed: A,B\n");
    }

    #[test]
    fn the_one_to_restart_is_seen() {
        let list = InstanceList::new(
            vec![workload("projects/p/servers/a", false), workload("projects/p/servers/b", true)],
            false,
        );
        let table = list.table(None);
        let line = table.lines().find(|line| line.contains("servers/b")).expect("listed");
        assert!(line.contains("required") && line.contains("A,B"), "{table}");
        assert!(!table.contains("ALARM"), "columns without content are left out: {table}");
        assert!(table.ends_with("2 workloads, 1 to be restarted\n"), "{table}");
    }

    #[test]
    fn news_are_lines() {
        let news = v1::WatchInstancesResponse {
            workloads: vec![workload("projects/p/servers/a", true)],
            forgotten: vec!["projects/p/servers/b".into()],
            synced: true,
        };
        let news = InstanceNews::new(news);
        let text = news.lines(false).expect("text");
        assert_eq!(
            text,
            "projects/p/servers/a  started 2026-01-31 23:59  restart required  A,B\nprojects/p/servers/b  forgotten\n"
        );
        assert_eq!(news.lines(true).expect("JSON").lines().count(), 1);
    }
}
