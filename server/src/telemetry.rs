//! Logs, on stderr, and what a panic may say.
//!
//! The filter of the configuration steers coffer's own targets. Dependencies say ERROR, and WARN where the filter names
//! them: h2 warns of every frame that a peer makes up. Never more, whatever the filter says: at TRACE and DEBUG h2 and
//! hyper print header lists and frames, which are bearer tokens and values. Records of the `log` crate (sled, rustls) are
//! not collected at all. No place in the code fills the disk: [`throttle`].

mod throttle;

use std::{
    fmt::Debug,
    fs::File,
    io::{self, IsTerminal as _, Write as _},
    panic,
    sync::{LazyLock, Mutex},
    time::Instant,
};

use tracing::{Level, Metadata, Subscriber, field::Field, level_filters::LevelFilter};
use tracing_subscriber::{
    Layer,
    field::MakeExt as _,
    filter::{FilterFn, Targets, filter_fn},
    fmt::{self, FormatFields, MakeWriter, format::Writer},
    layer::SubscriberExt as _,
    registry,
};

use self::throttle::{LeftOut, Throttle};
use crate::{
    config::{Log, LogFormat},
    escape,
};

/// Targets of this project begin so: crates are `coffer_…`.
const OWN_PREFIX: &str = "coffer_";

/// Of the process: a place in the code has one count of lines, whoever collects them.
static THROTTLE: LazyLock<Throttle> = LazyLock::new(Throttle::default);

/// Tells what was left out of the log. To be called now and then.
pub(crate) fn tell_left_out() {
    for LeftOut { lines, message } in THROTTLE.left_out(Instant::now()) {
        tracing::warn!(lines, like = message, "so many lines of one kind that the rest was left out");
    }
}

/// Starts logging to stderr. Only the first call of a process has an effect.
pub fn start(log: &Log, has_no_color: bool) {
    let has_color = !has_no_color && io::stderr().is_terminal();
    // An error says that it has started already.
    let _ = tracing::subscriber::set_global_default(subscriber(log, has_color, io::stderr, &THROTTLE));
}

/// The same into a file, without colour.
pub(crate) fn start_in(log: &Log, file: File) {
    let _ = tracing::subscriber::set_global_default(subscriber(log, false, Mutex::new(file), &THROTTLE));
}

fn subscriber<W>(
    log: &Log,
    has_color: bool,
    writer: W,
    throttle: &'static Throttle,
) -> Box<dyn Subscriber + Send + Sync>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let filter = filter(log.targets.clone());
    let layer = fmt::layer().with_writer(writer).with_ansi(has_color);
    match log.format {
        LogFormat::Text => Box::new(registry().with(layer.fmt_fields(fields()).with_filter(filter)).with(throttle)),
        LogFormat::Json => {
            Box::new(registry().with(layer.json().flatten_event(true).with_filter(filter)).with(throttle))
        }
    }
}

/// `message name=value …`, on one line of visible text: what is quoted may come from whoever wrote the store's files.
fn fields() -> impl for<'a> FormatFields<'a> + Send + Sync + 'static {
    fmt::format::debug_fn(|writer: &mut Writer<'_>, field: &Field, value: &dyn Debug| {
        let value = escape::text(&format!("{value:?}"));
        match field.name() {
            "message" => writer.write_str(&value),
            name => write!(writer, "{name}={value}"),
        }
    })
    .delimited(" ")
}

fn filter(targets: Targets) -> FilterFn<impl Fn(&Metadata<'_>) -> bool> {
    // A filter that asks for less than ERROR of everything gets it.
    let unnamed = targets.default_level().unwrap_or(LevelFilter::ERROR).min(LevelFilter::ERROR);
    filter_fn(move |metadata| {
        let (target, level) = (metadata.target(), metadata.level());
        if target.starts_with(OWN_PREFIX) {
            return targets.would_enable(target, level);
        }
        let is_named = targets.iter().any(|(name, _)| !name.is_empty() && target.starts_with(name));
        let most = if is_named { LevelFilter::WARN } else { unnamed };
        *level <= most && (!is_named || targets.would_enable(target, level))
    })
}

/// A panic's message may quote what the code was working on, so from here on only its place is told, whatever thread or
/// task it ends: in the log, and on stderr where none has started.
pub fn hide_panic_payloads() {
    panic::set_hook(Box::new(|panic| {
        let location = panic.location().map(ToString::to_string).unwrap_or_default();
        if tracing::event_enabled!(Level::ERROR) {
            tracing::error!(location, "a task of the server panicked, which is a mistake in coffer");
        } else {
            let _ = writeln!(io::stderr(), "error: coffer-server panicked at {location}, which is a mistake in coffer");
        }
    }));
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Captured(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("a lock").extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(filter: &str, format: LogFormat, act: impl FnOnce()) -> String {
        let captured = Captured::default();
        let targets = filter.parse().expect("a filter");
        let log = Log { filter: filter.to_owned(), targets, format };
        let writer = captured.clone();
        let throttle = Box::leak(Box::default());
        tracing::subscriber::with_default(subscriber(&log, false, move || writer.clone(), throttle), act);
        let bytes = captured.0.lock().expect("a lock").clone();
        String::from_utf8(bytes).expect("UTF-8")
    }

    #[test]
    fn dependencies_are_quiet_and_capped_whatever_the_filter_says() {
        for (filter, warns) in
            [("trace", false), ("info", false), ("trace,h2=trace,hyper=debug", true), ("h2=warn", true)]
        {
            let text = logged(filter, LogFormat::Text, || {
                tracing::trace!(target: "h2::codec", "authorization: Bearer 1");
                tracing::debug!(target: "hyper", "authorization: Bearer 2");
                tracing::info!(target: "h2", "authorization: Bearer 3");
                tracing::warn!(target: "h2::proto", "a peer's frame");
                tracing::error!(target: "tower", "an error");
            });
            assert!(!text.contains("Bearer") && text.contains("an error"), "{filter}: {text}");
            assert_eq!(text.contains("a peer's frame"), warns, "{filter}: {text}");
        }
        let text = logged("off", LogFormat::Text, || tracing::error!(target: "tower", "an error"));
        assert_eq!(text, "");
    }

    #[test]
    fn a_line_is_one_line_of_visible_text_whatever_it_quotes() {
        let text = logged("info", LogFormat::Text, || {
            let quoted = "zz\n2026-01-31 INFO serving\u{1b}]0;pwned\u{7}\u{202e}";
            tracing::error!(error = %quoted, number = 7, "it says {quoted}");
        });
        assert_eq!(text.lines().count(), 1, "{text:?}");
        assert!(!text.trim_end().chars().any(|c| c.is_control() || c == '\u{202e}'), "{text:?}");
        assert!(text.contains("it says zz\\n2026-01-31") && text.contains(" number=7"), "{text:?}");
    }

    #[test]
    fn the_filter_steers_our_own_targets() {
        let text = logged("warn,coffer_server::serve=debug", LogFormat::Text, || {
            tracing::debug!(target: "coffer_server::serve::calls", "one call");
            tracing::info!(target: "coffer_server::vault", "quiet");
            tracing::warn!(target: "coffer_server::vault", "loud");
        });
        assert!(text.contains("one call") && text.contains("loud") && !text.contains("quiet"), "{text}");
    }

    #[test]
    fn json_is_one_object_a_line() {
        let text = logged("info", LogFormat::Json, || {
            tracing::info!(target: "coffer_server", number = 1, "two\nlines");
        });
        let line: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!((line["message"].as_str(), line["number"].as_u64()), (Some("two\nlines"), Some(1)));
    }

    #[test]
    fn a_panic_tells_its_place_and_not_its_payload() {
        let before = panic::take_hook();
        hide_panic_payloads();
        let text = logged("info", LogFormat::Text, || {
            let value = "hunter2";
            panic::catch_unwind(|| panic!("cannot handle {value}")).expect_err("a panic");
        });
        panic::set_hook(before);
        assert!(text.contains("telemetry.rs") && !text.contains("hunter2"), "{text}");
    }
}
