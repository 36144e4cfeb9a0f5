//! How far something is: a bar on stderr where that is a terminal, and nothing elsewhere.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// How often a bar that knows no end moves.
const TICK: Duration = Duration::from_millis(120);

/// A bar. It is gone when this is.
pub(crate) struct Progress(ProgressBar);

impl Progress {
    /// Of so many bytes.
    pub(crate) fn bytes(what: &'static str, total: u64) -> Self {
        let bar = Self::bar(Some(total), "{msg} [{bar:30}] {bytes}/{total_bytes} {eta}");
        bar.set_message(what);
        Self(bar)
    }

    /// Of things whose number may still grow.
    pub(crate) fn count(what: &'static str) -> Self {
        let bar = Self::bar(Some(0), "{msg} [{bar:30}] {pos}/{len} {eta}");
        bar.set_message(what);
        Self(bar)
    }

    /// Of something whose end nobody knows.
    pub(crate) fn waiting(what: &'static str) -> Self {
        let bar = Self::bar(None, "{msg} {spinner} {elapsed}");
        bar.set_message(what);
        bar.enable_steady_tick(TICK);
        Self(bar)
    }

    pub(crate) fn at(&self, done: u64) {
        self.0.set_position(done);
    }

    pub(crate) fn of(&self, done: i64, total: i64) {
        self.0.set_length(u64::try_from(total).unwrap_or_default());
        self.0.set_position(u64::try_from(done).unwrap_or_default());
    }

    pub(crate) fn clear(&self) {
        self.0.finish_and_clear();
    }

    fn bar(total: Option<u64>, template: &str) -> ProgressBar {
        let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr());
        // A template that cannot be read is drawn in the default style.
        bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}
