//! Removes expired tokens, so that they take no room. They let nobody in before that either.
//!
//! Not at once: a server whose clock is ahead refuses what has ended by it, which ends when its clock is right again, but what
//! is removed is gone for all servers.

use std::{sync::Weak, time::Duration};

use super::{Inner, Vault, read::STEP, tokens::has_ended};
use crate::{
    store::{Change, Epoch, Expect, Transaction},
    view::At,
};

/// How often expired tokens are looked for.
const INTERVAL: Duration = Duration::from_secs(60);
/// How far a server's clock may be ahead without doing lasting harm.
const CLOCK_AHEAD_MAX: Duration = Duration::from_secs(60 * 60);
/// Tokens removed in one transaction: each is compared, and a transaction has at most 100 expectations.
const BATCH: usize = 100;
/// Tokens removed in one round.
const AT_ONCE: usize = 100_000;

/// Runs until the vault is gone.
pub(super) async fn sweep(vault: Weak<Inner>) {
    let mut interval = tokio::time::interval(INTERVAL);
    loop {
        interval.tick().await;
        let Some(inner) = vault.upgrade() else { return };
        if let Err(error) = Vault(inner).remove_expired().await {
            tracing::warn!(%error, "expired tokens could not be removed; trying again later");
        }
    }
}

impl Vault {
    /// Removes tokens that have ended.
    pub(super) async fn remove_expired(&self) -> Result<(), super::Error> {
        let (epoch, ended) = self.ended_tokens().await;
        for batch in ended.chunks(BATCH) {
            let expectations = batch.iter().map(|at| (at.key.clone(), Expect::At(at.revision))).collect();
            let changes = batch.iter().map(|at| Change::Delete(at.key.clone())).collect();
            let transaction = Transaction::decided(epoch, expectations, changes);
            let transaction = transaction.map_err(|_| crate::seal::NoRandomness)?;
            match self.0.store.commit(transaction).await? {
                Ok(position) => {
                    self.0.view.reached(position).await?;
                    tracing::debug!(count = batch.len(), "removed expired tokens");
                }
                // Somebody removed one of them first; the next round sees it.
                Err(_overtaken) => {}
            }
        }
        Ok(())
    }

    /// Tokens that ended long ago, found in steps: commits wait while the state is looked at.
    async fn ended_tokens(&self) -> (Epoch, Vec<At>) {
        let long_ago = self.now() - CLOCK_AHEAD_MAX;
        let (mut ended, mut after) = (Vec::new(), String::new());
        loop {
            {
                let state = self.0.view.read();
                let mut last = None;
                for (key, token) in state.tokens_from("token/", &after).take(STEP) {
                    if has_ended(&state, token, long_ago) {
                        ended.push(token.at.clone());
                    }
                    last = Some(key.as_str().to_owned());
                }
                match last.filter(|_| ended.len() < AT_ONCE) {
                    Some(last) => after = last,
                    None => return (state.position().epoch, ended),
                }
            }
            tokio::task::yield_now().await;
        }
    }
}
