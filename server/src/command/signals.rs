//! SIGTERM and SIGINT begin the drain and, the second time, cut it short; SIGHUP reloads.

use std::io;

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

use crate::{serve::Stage, server::Signals};

/// Handles the signals from here on.
pub(super) fn handle() -> io::Result<Signals> {
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
                Some(()) = hangup.recv() => {
                    tracing::info!("reloading");
                    reload.send_replace(());
                }
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
