//! Raises the epoch of a store, between two lines of the audit log.

use std::sync::Arc;

use super::OpenError;
use crate::{
    audit::{Audit, Event, Phase},
    clock::Clock,
    seal::{Uid, source::KeySource},
    store::{Position, Store},
    view,
};

const METHOD: &str = "coffer-server/raise-epoch";

/// Lets `raise` raise the epoch of a store, whose records must open first. Where the new one begins.
pub async fn raise_epoch<E>(
    store: Arc<dyn Store>,
    source: Arc<dyn KeySource>,
    audit: Arc<dyn Audit>,
    clock: Arc<dyn Clock>,
    raise: impl AsyncFnOnce() -> Result<Position, E>,
) -> Result<Position, E>
where
    E: From<OpenError>,
{
    let (_, chain) = view::follow(store, source).await.map_err(OpenError::from)?.ok_or(OpenError::Empty)?;
    audit.begin(chain).await.map_err(OpenError::from)?;
    let call = Uid::random().map_err(OpenError::from)?;
    let line = |phase, position| Event { position, ..Event::of_server(clock.now(), call.0, phase, METHOD) };
    audit.record(line(Phase::Intent, None)).await.map_err(OpenError::from)?;
    let position = raise().await?;
    audit.record(line(Phase::Done, Some(position.to_string()))).await.map_err(OpenError::from)?;
    Ok(position)
}
