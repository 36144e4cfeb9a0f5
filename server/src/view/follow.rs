//! Loads the state and keeps it up with the store.

use std::{
    sync::{Arc, Mutex, RwLock, Weak},
    time::Duration,
};

use tokio::sync::watch;

use super::{Error, Progress, State, View, tally, touched::Touched};
use crate::{
    record,
    seal::{Keyring, chain::Chain, header, source, source::KeySource},
    store::{Change, Commit, Follow, Key, Load, Next, Position, Store},
};

/// How long to wait before asking a store again that did not answer.
const RETRY_WAIT: Duration = Duration::from_millis(200);
/// How often a load is begun that does not come to its end, before a start is given up: a store may forget what is being
/// loaded, and its members may come and go.
const LOAD_TRIES: u32 = 10;
/// How much longer it is waited each time, so as not to keep step with what cuts loads off.
const LOAD_WAIT: Duration = Duration::from_millis(50);

/// Loads a store and follows it in a task of its own, which ends when the view is dropped.
///
/// `Ok(None)`: the store is empty, so nothing was ever initialized in it. Otherwise an audit chain is begun, too, here
/// where the header is at hand.
pub async fn follow(
    store: Arc<dyn Store>,
    source: Arc<dyn KeySource>,
) -> Result<Option<(Arc<View>, Chain)>, LoadError> {
    let Some(state) = load_first(store.as_ref(), source.as_ref()).await? else { return Ok(None) };
    let header = state.header().ok_or(LoadError::HeaderMissing)?;
    let chain =
        Chain::begin(state.keyring(), &header.bytes).map_err(source::Error::from).map_err(header::Error::from)?;
    let follow = store.changes(state.position).await.map_err(Error::Store)?;
    let view = Arc::new(View {
        store: state.store,
        source,
        offered: Mutex::default(),
        progress: watch::Sender::new(Progress::At(state.position)),
        listeners: Arc::default(),
        state: RwLock::new(state),
    });
    tokio::spawn(keep_up(Arc::downgrade(&view), view.progress.subscribe(), store, follow));
    Ok(Some((view, chain)))
}

/// The load of a start, which nobody else begins again.
async fn load_first(store: &dyn Store, source: &dyn KeySource) -> Result<Option<State>, LoadError> {
    let mut tries = 1;
    loop {
        match load(store, source, &[]).await {
            Err(LoadError::View(Error::Store(crate::store::Error::Unavailable(what)))) if tries < LOAD_TRIES => {
                tracing::warn!(what, "the store could not be loaded; trying again");
                tokio::time::sleep(LOAD_WAIT * tries).await;
                tries += 1;
            }
            loaded => return loaded,
        }
    }
}

/// Loads a store; `None` if it is empty. The source is asked only for a header that is not `known`.
async fn load(store: &dyn Store, source: &dyn KeySource, known: &[Known]) -> Result<Option<State>, LoadError> {
    let mut load = store.load().await.map_err(Error::Store)?;
    // The header sorts after some records, so pages before it are kept until it is found.
    let mut pages = Vec::new();
    let keyring = loop {
        let Some(page) = load.page().await.map_err(Error::Store)? else {
            if pages.is_empty() {
                return Ok(None);
            }
            return Err(LoadError::HeaderMissing);
        };
        let header = page.iter().find(|record| record.key.as_str() == record::key::HEADER);
        let keyring = match header {
            Some(record) => Some(match find(known, &record.value) {
                Some(keyring) => keyring,
                None => header::open(source, &record.value).await?,
            }),
            None => None,
        };
        pages.push(page);
        if let Some(keyring) = keyring {
            break keyring;
        }
    };
    Ok(Some(fill(keyring, pages, load.as_mut()).await?))
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
async fn fill(keyring: Keyring, pages: Vec<Vec<crate::store::Record>>, load: &mut dyn Load) -> Result<State, Error> {
    let mut state = State::new(Arc::new(keyring), load.position());
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
        state.load(ready)?;
    }
    state.load(waiting)?;
    for (key, missing) in
        [(record::key::SYSTEM_KEY, state.system_key().is_none()), (record::key::DIGEST, state.digest_key().is_none())]
    {
        if missing {
            return Err(Error::Damaged { key: Key::new(key), error: record::Error::KeyMissing });
        }
    }
    state.check_keys()?;
    Ok(state)
}

/// How following stands.
enum Following {
    /// Under way.
    On(Box<dyn Follow>),
    /// To be taken up again where the view stands.
    Interrupted,
    /// To be begun with everything anew: history is gone.
    Behind,
}

/// Says that the view is not kept up any more, should that end in a panic: it would be taken for a new one.
struct Ending(Weak<View>);

impl Drop for Ending {
    fn drop(&mut self) {
        let Some(view) = self.0.upgrade() else { return };
        let ended = || Error::Store(crate::store::Error::Failed("following it ended by itself".into()));
        view.progress.send_if_modified(|progress| match progress {
            Progress::At(_) => {
                *progress = Progress::Failed(ended());
                true
            }
            Progress::Failed(_) => false,
        });
        view.listeners.tell_all();
    }
}

/// Applies changes in order until the view is gone or cannot go on.
async fn keep_up(
    view: Weak<View>,
    mut progress: watch::Receiver<Progress>,
    store: Arc<dyn Store>,
    follow: Box<dyn Follow>,
) {
    let _ending = Ending(view.clone());
    let mut following = Following::On(follow);
    loop {
        let next = match &mut following {
            Following::On(follow) => {
                // The view holds the sender: when it is dropped, so is this.
                let gone = async { while progress.changed().await.is_ok() {} };
                tokio::select! {
                    next = follow.next() => Some(next),
                    () = gone => return,
                }
            }
            Following::Interrupted | Following::Behind => None,
        };
        let Some(view) = view.upgrade() else { return };
        let result = match next {
            Some(Ok(Next::Commit(commit))) => apply(&view, commit).await,
            Some(Ok(Next::Gap)) => {
                following = Following::Behind;
                continue;
            }
            Some(Err(crate::store::Error::Failed(what))) => Err(Error::Store(crate::store::Error::Failed(what))),
            Some(Err(error)) => {
                tracing::warn!(%error, "following the store was interrupted; trying again");
                following = Following::Interrupted;
                tokio::time::sleep(RETRY_WAIT).await;
                continue;
            }
            None => {
                let before = view.read().position().epoch;
                let begun = match following {
                    Following::Behind => reload(&view, store.as_ref()).await,
                    Following::On(_) | Following::Interrupted => resume(&view, store.as_ref()).await,
                };
                begun.map(|(position, follow)| {
                    following = Following::On(follow);
                    if position.epoch > before {
                        tracing::error!(
                            from = before.0,
                            to = position.epoch.0,
                            "the store was put back to an earlier state and its epoch rose: every token of before has \
                             ended, and `coffer-server operator` makes the first new one"
                        );
                    }
                    position
                })
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

async fn apply(view: &View, commit: Commit) -> Result<Position, Error> {
    let keyring = new_keyring(view, &commit).await;
    let touched = Touched::by(&commit, &view.read());
    let applied = keyring.and_then(|keyring| {
        tally::begin();
        let mut state = view.state.write().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(keyring) = keyring {
            state.keyring = Arc::new(keyring);
        }
        state.apply(&commit)
    });
    view.listeners.tell(&touched);
    applied.map(|()| commit.position)
}

/// Follows on from where the view stands.
async fn resume(view: &View, store: &dyn Store) -> Result<(Position, Box<dyn Follow>), Error> {
    let position = view.read().position();
    Ok((position, store.changes(position).await?))
}

/// The root keys of the header that a commit puts, if it does. A source that does not answer is asked until it does:
/// nothing after this commit can be shown without it.
async fn new_keyring(view: &View, commit: &Commit) -> Result<Option<Keyring>, Error> {
    let header = commit.changes.iter().rev().find_map(|change| match change {
        Change::Put(key, bytes) if key.as_str() == record::key::HEADER => Some(bytes),
        Change::Put(..) | Change::Delete(_) | Change::DeletePrefix(_) => None,
    });
    let Some(header) = header else { return Ok(None) };
    open_header(view, header).await.map(Some)
}

async fn open_header(view: &View, header: &[u8]) -> Result<Keyring, Error> {
    // Whatever was offered and is not this has come to nothing, and must not stay in memory.
    let offered = view.offered().take();
    if let Some((_, keyring)) = offered.filter(|(bytes, _)| **bytes == *header) {
        return Ok(keyring);
    }
    loop {
        match header::open(view.source(), header).await {
            Ok(keyring) => return Ok(keyring),
            Err(header::Error::Source(error)) => {
                tracing::error!(%error, "the store has a new root key, which the key source does not open; trying again");
                tokio::time::sleep(RETRY_WAIT).await;
            }
            Err(header::Error::Damaged | header::Error::Newer { .. }) => {
                return Err(Error::Damaged { key: Key::new(record::key::HEADER), error: record::Error::NotUnderstood });
            }
        }
    }
}

/// A header, and the root keys in it.
type Known = (Arc<[u8]>, Keyring);

/// The headers whose root keys are in memory.
fn known(view: &View) -> Vec<Known> {
    let state = view.read();
    let current = state.header().map(|header| (header.bytes.clone(), Keyring::clone(state.keyring())));
    current.into_iter().chain(view.offered().clone()).collect()
}

fn find(known: &[Known], header: &[u8]) -> Option<Keyring> {
    known.iter().find(|(bytes, _)| **bytes == *header).map(|(_, keyring)| keyring.clone())
}

/// History is gone: everything anew, swapped in at once.
async fn reload(view: &View, store: &dyn Store) -> Result<(Position, Box<dyn Follow>), Error> {
    let missing = || Error::Damaged { key: Key::new(record::key::HEADER), error: record::Error::KeyMissing };
    let state = match load(store, view.source(), &known(view)).await {
        Ok(state) => state.ok_or_else(missing)?,
        Err(LoadError::View(error)) => return Err(error),
        Err(LoadError::HeaderMissing | LoadError::Header(header::Error::Damaged | header::Error::Newer { .. })) => {
            return Err(missing());
        }
        Err(LoadError::Header(header::Error::Source(error))) => {
            return Err(Error::Store(crate::store::Error::Unavailable(error.to_string())));
        }
    };
    let position = state.position;
    let follow = store.changes(position).await?;
    tracing::info!(%position, "the store does not tell any more what this server missed; everything is loaded again");
    *view.state.write().unwrap_or_else(|poisoned| poisoned.into_inner()) = state;
    view.listeners.tell_all();
    Ok((position, follow))
}
