//! Which run of a history has what is to be restored.

use std::path::{Path, PathBuf};

use super::{
    super::{
        log::Recovered,
        past::{RestoreError, Target, shown},
    },
    Layout, Listed, OpenError, Position, list, runs_in, snapshots,
};
use crate::store::Millis;

/// What of a run can be restored begins here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Begun {
    pub(super) run: Listed,
    pub(super) position: Position,
    pub(super) time: Millis,
}

impl Begun {
    /// By its oldest snapshot; `None` if it has none that can be read.
    pub(super) fn of(run: &Listed) -> Result<Option<Self>, OpenError> {
        let kept = snapshots::list(&Layout::new(run.path.clone()).snapshots())?;
        for kept in kept {
            let header = match kept.open(None) {
                Ok(reader) => *reader.header(),
                // For now nobody knows what it holds.
                Err(error @ OpenError::Io { .. }) => return Err(error),
                Err(_) => continue,
            };
            return Ok(Some(Self { run: run.clone(), position: header.position, time: header.time }));
        }
        Ok(None)
    }
}

/// The run of a history that has a target; `None` if the directory is no history. What fell between two runs is refused.
pub(in super::super) fn pick(history: &Path, target: Target) -> Result<Option<PathBuf>, RestoreError> {
    if runs_in(history)?.is_empty() {
        return Ok(None);
    }
    let mut begun = Vec::new();
    // Those of which nothing can be restored; their names say where they begin.
    let mut lost = Vec::new();
    for run in list(history)? {
        match Begun::of(&run)? {
            Some(run) => begun.push(run),
            None => lost.push(run),
        }
    }
    let is_before = |begun: &Begun| match target {
        Target::Newest => true,
        Target::Position(wanted) => begun.position <= wanted,
        Target::Time(wanted) => begun.time <= Millis::from(wanted),
    };
    let out_of_reach = |what| RestoreError::OutOfReach { source_path: history.into(), what };
    let Some(at) = begun.iter().rposition(is_before) else {
        return Err(out_of_reach(match begun.first() {
            Some(Begun { position, time, .. }) => {
                format!("the history does not reach back so far: it begins at {}", shown(*position, *time))
            }
            None => "nothing of it can be restored: none of its runs has a snapshot that can be read".into(),
        }));
    };
    let run = &begun[at].run.path;
    let next = begun.get(at + 1).map(|next| &next.run);
    let follows = |lost: &&Listed| lost.position > begun[at].run.position && next.is_none_or(|next| **lost < *next);
    if let Some(lost) = lost.iter().find(follows) {
        let is_of_it = match target {
            Target::Newest => true,
            Target::Position(wanted) => wanted >= lost.position,
            Target::Time(wanted) => end(run).is_none_or(|(_, time)| Millis::from(wanted) >= time),
        };
        if is_of_it {
            return Err(RestoreError::RunLost {
                run: lost.path.clone(),
                last: end(run).map_or(begun[at].position, |(position, _)| position),
            });
        }
    }
    if let (Some(next), Some((end, time))) = (begun.get(at + 1), end(run)) {
        let is_after = match target {
            Target::Newest => false,
            Target::Position(wanted) => wanted > end,
            Target::Time(wanted) => Millis::from(wanted) > time,
        };
        if is_after {
            return Err(out_of_reach(format!(
                "nothing was recorded of what was between {} and {}",
                shown(end, time),
                shown(next.position, next.time)
            )));
        }
    }
    Ok(Some(run.clone()))
}

/// Where a run ends, and when that was made; whether it is whole is found when it is restored.
fn end(run: &Path) -> Option<(Position, Millis)> {
    let layout = Layout::new(run.into());
    let recovered = Recovered::read(&layout.log(), layout.instance().ok()?).ok()?;
    Some((Position { epoch: recovered.epoch(), revision: recovered.last() }, recovered.time()))
}
