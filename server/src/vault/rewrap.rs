//! Looks after the key source of a running server: is it well, and does another of its keys wrap now?

use std::{sync::Arc, time::SystemTime};

use super::Vault;
use crate::{
    audit::{self, Event, Phase},
    record::key,
    seal::{
        NoRandomness, Uid, header,
        source::{self, Health, KeySource},
    },
    store::{self, Change, Epoch, Expect, Key, Record, Transaction},
};

const METHOD: &str = "coffer-server/rewrap";

/// Why the root key is not wrapped as it should be.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Source(#[from] source::Error),
    #[error(transparent)]
    Header(#[from] header::Error),
    #[error(transparent)]
    Store(#[from] store::Error),
    #[error(transparent)]
    Audit(#[from] audit::Unavailable),
    #[error("the store's header is missing")]
    HeaderMissing,
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
}

impl Vault {
    /// What the last look at the key source found.
    pub fn key_health(&self) -> Health {
        self.0.keys.get()
    }

    /// Looks at the key source, and wraps the root key anew if another of its keys wraps now. What is wrong is kept for the
    /// status, and logged when it changes: the server goes on with the key it has.
    pub async fn look_after_key(&self, source: &dyn KeySource) {
        let found = self.wrap_with_current(source).await;
        let now = self.0.clock.now();
        let problem = found.as_ref().err().map(ToString::to_string);
        let before = self.0.keys.update(|health| {
            health.source = source.kind();
            health.problem.clone_from(&problem);
            if let Ok(key_id) = &found {
                health.good_time = Some(now);
                health.key_id.clone_from(key_id);
            }
        });
        match (before.problem, problem) {
            (None, Some(problem)) => {
                tracing::warn!(problem, "the key source cannot be used; the server goes on, but would not start again");
            }
            (Some(before), Some(problem)) if before != problem => {
                tracing::warn!(problem, "the key source cannot be used")
            }
            (Some(_), None) => tracing::info!(source = source.name(), "the key source is good again"),
            _ => {}
        }
    }

    /// Answers the id of the key that wraps the root key as stored.
    async fn wrap_with_current(&self, source: &dyn KeySource) -> Result<String, Error> {
        let current = source.status().await?;
        let shown = self.0.view.read().header().map(|header| header.bytes.clone());
        if shown.is_some_and(|header| header::wrapped_by(&header).is_ok_and(|(_, key_id)| key_id == current)) {
            return Ok(current);
        }
        let (record, epoch) = self.header().await?;
        let (kind, key_id) = header::wrapped_by(&record.value)?;
        if key_id == current {
            return Ok(current);
        }
        let (keyring, header) = header::rewrap(source, &record.value).await?;
        let (_, new_key_id) = header::wrapped_by(&header)?;
        let header: Arc<[u8]> = header.into();
        // A source at odds with itself would have the header written again at every look.
        if new_key_id != current {
            let reason = "it names one key as current and wraps with another".to_owned();
            return Err(source::Error::Refused { name: source.name().to_owned(), reason }.into());
        }
        let now = self.0.clock.now();
        let call = Uid::random()?;
        let details = || {
            let facts =
                [("source", source.kind()), ("key_id", new_key_id.as_str()), ("previous_source", kind.as_str())];
            facts
                .into_iter()
                .chain([("previous_key_id", key_id.as_str())])
                .map(|(key, fact)| (key, fact.to_owned()))
                .collect()
        };
        self.0.audit.record(line(now, call, Phase::Intent, details())).await?;
        let expectations = vec![(record.key.clone(), Expect::At(record.revision))];
        let changes = vec![Change::Put(record.key, header.clone())];
        let transaction = Transaction::decided(epoch, expectations, changes).map_err(|_| NoRandomness)?;
        self.0.view.offer(header, keyring);
        match self.0.store.commit(transaction).await {
            Ok(Ok(position)) => {
                let done = Event { position: Some(position.to_string()), ..line(now, call, Phase::Done, details()) };
                self.0.audit.record(done).await?;
                tracing::info!(key_id = new_key_id, "the root key is wrapped by another key of its source");
                Ok(new_key_id)
            }
            // Somebody else did it; the next look finds what they did.
            Ok(Err(_conflict)) => {
                let failed = Event { reason: Some("CONTENTION"), ..line(now, call, Phase::Failed, details()) };
                self.0.audit.record(failed).await?;
                Ok(key_id)
            }
            Err(error) => {
                let reason = super::Error::from(error.clone()).reason().as_str();
                let failed = Event { reason: Some(reason), ..line(now, call, Phase::Failed, details()) };
                self.0.audit.record(failed).await?;
                Err(error.into())
            }
        }
    }

    async fn header(&self) -> Result<(Record, Epoch), Error> {
        let mut load = self.0.store.load().await?;
        while let Some(page) = load.page().await? {
            if let Some(record) = page.into_iter().find(|record| record.key == Key::new(key::HEADER)) {
                return Ok((record, load.position().epoch));
            }
        }
        Err(Error::HeaderMissing)
    }
}

fn line(time: SystemTime, call: Uid, phase: Phase, details: Vec<(&'static str, String)>) -> Event {
    Event { details, ..Event::of_server(time, call.0, phase, METHOD) }
}
