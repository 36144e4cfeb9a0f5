//! Loads the state and keeps it up with the store.

use std::{
    sync::{Arc, RwLock, Weak},
    time::Duration,
};

use tokio::sync::watch;

use super::{Error, Progress, State, View, touched::Touched};
use crate::{
    record,
    seal::{Keyring, chain::Chain, header, source},
    store::{Follow, Key, Load, Next, Position, Store},
};

/// How long to wait before asking a store again that did not answer.
const RETRY_WAIT: Duration = Duration::from_millis(200);

/// Loads a store and follows it in a task of its own, which ends when the view is dropped.
///
/// `Ok(None)`: the store is empty, so nothing was ever initialized in it. Otherwise an audit chain is begun, too, here
/// where the header is at hand.
pub async fn follow(
    store: Arc<dyn Store>,
    source: &dyn source::KeySource,
) -> Result<Option<(Arc<View>, Chain)>, LoadError> {
    let mut load = store.load().await.map_err(Error::Store)?;
    // The header sorts after some records, so pages before it are kept until it is found.
    let mut pages = Vec::new();
    let (keyring, chain) = loop {
        let Some(page) = load.page().await.map_err(Error::Store)? else {
            if pages.is_empty() {
                return Ok(None);
            }
            return Err(LoadError::HeaderMissing);
        };
        let header = page.iter().find(|record| record.key.as_str() == record::key::HEADER);
        let opened = match header {
            Some(record) => {
                let keyring = header::open(source, &record.value).await?;
                let chain = Chain::begin(&keyring, &record.value).map_err(source::Error::from);
                Some((keyring, chain.map_err(header::Error::from)?))
            }
            None => None,
        };
        pages.push(page);
        if let Some(opened) = opened {
            break opened;
        }
    };
    let state = fill(&keyring, pages, load.as_mut()).await?;
    let follow = store.changes(state.position).await.map_err(Error::Store)?;
    let view = Arc::new(View {
        keyring,
        progress: watch::Sender::new(Progress::At(state.position)),
        listeners: Arc::default(),
        state: RwLock::new(state),
    });
    tokio::spawn(keep_up(Arc::downgrade(&view), view.progress.subscribe(), store, follow));
    Ok(Some((view, chain)))
}

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The header does not open: a wrong key, or damage.
    #[error(transparent)]
    Header(#[from] header::Error),
    /// There are records but no header.
    #[error("the store's header is missing, so nothing in it can be opened")]
    HeaderMissing,
    /// A record does not open, or the store does not answer.
    #[error(transparent)]
    View(#[from] Error),
}

/// Builds a state. `digest` and `grant` sort before `key/system`, which opens them: records wait for their keys.
async fn fill(keyring: &Keyring, pages: Vec<Vec<crate::store::Record>>, load: &mut dyn Load) -> Result<State, Error> {
    let mut state = State::new(keyring.store(), load.position());
    let mut waiting = Vec::new();
    let mut pages = pages.into_iter();
    loop {
        let page = match pages.next() {
            Some(page) => page,
            None => match load.page().await? {
                Some(page) => page,
                None => break,
            },
        };
        // Keys sort as digest, grant, header, key, scope, secret, token: all keys come before scopes and what they own.
        let (ready, later): (Vec<_>, Vec<_>) = page.into_iter().partition(|record| record.key.as_str() >= "header");
        waiting.extend(later);
        state.load(keyring, ready)?;
    }
    state.load(keyring, waiting)?;
    for (key, missing) in
        [(record::key::SYSTEM_KEY, state.system_key().is_none()), (record::key::DIGEST, state.digest_key().is_none())]
    {
        if missing {
            return Err(Error::Damaged { key: Key::new(key), error: record::Error::KeyMissing });
        }
    }
    Ok(state)
}

/// Applies changes in order until the view is gone or cannot go on.
async fn keep_up(
    view: Weak<View>,
    mut progress: watch::Receiver<Progress>,
    store: Arc<dyn Store>,
    mut follow: Box<dyn Follow>,
) {
    loop {
        // The view holds the sender: when it is dropped, so is this.
        let gone = async { while progress.changed().await.is_ok() {} };
        let next = tokio::select! {
            next = follow.next() => next,
            () = gone => return,
        };
        let Some(view) = view.upgrade() else { return };
        let result = match next {
            Ok(Next::Commit(commit)) => {
                let touched = Touched::by(&commit, &view.read());
                let applied = {
                    let mut state = view.state.write().unwrap_or_else(|poisoned| poisoned.into_inner());
                    state.apply(&view.keyring, &commit)
                };
                view.listeners.tell(&touched);
                applied.map(|()| commit.position)
            }
            Ok(Next::Gap) => {
                let reloaded = reload(&view, store.as_ref(), &mut follow).await;
                view.listeners.tell_all();
                reloaded
            }
            Err(crate::store::Error::Failed(what)) => Err(Error::Store(crate::store::Error::Failed(what))),
            Err(error) => {
                tracing::warn!(%error, "following the store was interrupted; trying again");
                tokio::time::sleep(RETRY_WAIT).await;
                resume(&view, store.as_ref(), &mut follow).await
            }
        };
        match result {
            Ok(position) => {
                view.progress.send_replace(Progress::At(position));
            }
            Err(Error::Store(crate::store::Error::Unavailable(what))) => {
                tracing::warn!(what, "the store does not answer; trying again");
                tokio::time::sleep(RETRY_WAIT).await;
            }
            Err(error) => {
                tracing::error!(%error, "the view cannot follow the store any more");
                view.progress.send_replace(Progress::Failed(error));
                view.listeners.tell_all();
                return;
            }
        }
    }
}

/// Follows on from where the view stands.
async fn resume(view: &View, store: &dyn Store, follow: &mut Box<dyn Follow>) -> Result<Position, Error> {
    let position = view.read().position();
    *follow = store.changes(position).await?;
    Ok(position)
}

/// History is gone: everything anew, swapped in at once.
async fn reload(view: &View, store: &dyn Store, follow: &mut Box<dyn Follow>) -> Result<Position, Error> {
    let mut load = store.load().await?;
    let state = fill(&view.keyring, Vec::new(), load.as_mut()).await?;
    let position = state.position;
    *follow = store.changes(position).await?;
    *view.state.write().unwrap_or_else(|poisoned| poisoned.into_inner()) = state;
    Ok(position)
}
