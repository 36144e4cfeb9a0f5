//! SIGTERM and SIGINT begin the drain and, the second time, cut it short; SIGHUP reloads, or ends what a closed terminal
//! should end.

use std::io;

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

use crate::{serve::Stage, server::Signals};

/// What SIGHUP means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hangup {
    /// Certificates and the audit log are opened again: the custom of daemons.
    Reload,
    /// The terminal is gone, and so is whoever started the server in it.
    End,
}

/// Handles the signals from here on.
pub(super) fn handle(on_hangup: Hangup) -> io::Result<Signals> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let (stage, followed) = watch::channel(Stage::Serving);
    let (reload, reloads) = watch::channel(());
    tokio::spawn(async move {
        loop {
            tokio::select! {
                Some(()) = terminate.recv() => advance(&stage),
                Some(()) = interrupt.recv() => advance(&stage),
                Some(()) = hangup.recv() => match on_hangup {
                    Hangup::End => advance(&stage),
                    Hangup::Reload => {
                        tracing::info!("reloading");
                        reload.send_replace(());
                    }
                },
                else => return,
            }
        }
    });
    Ok(Signals { stage: followed, reload: reloads })
}

fn advance(stage: &watch::Sender<Stage>) {
    stage.send_modify(|stage| {
        *stage = match stage {
            Stage::Serving => Stage::Draining,
            Stage::Draining | Stage::Aborting => Stage::Aborting,
        }
    });
    tracing::info!(stage = ?*stage.borrow(), "told to end");
}
