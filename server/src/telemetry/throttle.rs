//! Bounds what the log takes of a disk. A line that a peer can cause is written as often as the peer likes, by the threads
//! that serve; so each place in the code has so many lines a minute, and what is left out is counted and told.

use std::{
    collections::HashMap,
    fmt::Debug,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tracing::{
    Event, Level, Subscriber,
    callsite::Identifier,
    field::{Field, Visit},
};
use tracing_subscriber::{Layer, layer::Context};

/// Lines that one place in the code writes in an interval.
const LINES_MAX: u32 = 20;
const INTERVAL: Duration = Duration::from_secs(60);
/// Longest message that tells which lines were left out, in characters.
const MESSAGE_CHARS_MAX: usize = 120;

/// Counts lines by the place in the code that writes them. DEBUG and TRACE are for whoever asks for them, all of them.
#[derive(Debug, Default)]
pub(super) struct Throttle(Mutex<HashMap<Identifier, Place>>);

#[derive(Debug)]
struct Place {
    since: Instant,
    written: u32,
    left_out: u64,
    /// Of the first line that was left out.
    message: String,
}

/// Lines that were left out, all of one place in the code.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct LeftOut {
    pub(super) lines: u64,
    pub(super) message: String,
}

impl Throttle {
    /// Whether the line is to be written.
    fn admit(&self, event: &Event<'_>, now: Instant) -> bool {
        if *event.metadata().level() > Level::INFO {
            return true;
        }
        let mut places = self.places();
        let new = || Place { since: now, written: 0, left_out: 0, message: String::new() };
        let place = places.entry(event.metadata().callsite()).or_insert_with(new);
        if now.duration_since(place.since) >= INTERVAL {
            (place.since, place.written) = (now, 0);
        }
        if place.written < LINES_MAX {
            place.written += 1;
            return true;
        }
        if place.left_out == 0 {
            place.message.clear();
            event.record(&mut Message(&mut place.message));
        }
        place.left_out += 1;
        false
    }

    /// What was left out in intervals that are over. It counts as told.
    pub(super) fn left_out(&self, now: Instant) -> Vec<LeftOut> {
        let mut places = self.places();
        let over =
            places.values_mut().filter(|place| place.left_out > 0 && now.duration_since(place.since) >= INTERVAL);
        over.map(|place| LeftOut {
            lines: std::mem::take(&mut place.left_out),
            message: std::mem::take(&mut place.message),
        })
        .collect()
    }

    fn places(&self) -> MutexGuard<'_, HashMap<Identifier, Place>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A layer over all others, and no filter of one: a filter that passes an event's place and not the event leaves its mark on
/// the next one.
impl<S: Subscriber> Layer<S> for &'static Throttle {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        self.admit(event, Instant::now())
    }
}

struct Message<'a>(&'a mut String);

impl Visit for Message<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            self.0.extend(format!("{value:?}").chars().take(MESSAGE_CHARS_MAX));
        }
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::{filter::LevelFilter, layer::SubscriberExt as _, registry};

    use super::*;

    /// Counts what passes a throttle.
    struct Counting(&'static Mutex<Vec<String>>);

    impl<S: Subscriber> Layer<S> for Counting {
        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            let mut message = String::new();
            event.record(&mut Message(&mut message));
            self.0.lock().expect("a lock").push(message);
        }
    }

    #[test]
    fn each_place_has_so_many_lines_and_the_rest_is_counted() {
        let throttle: &'static Throttle = Box::leak(Box::default());
        let written: &'static Mutex<Vec<String>> = Box::leak(Box::default());
        let subscriber = registry().with(Counting(written).with_filter(LevelFilter::DEBUG)).with(throttle);
        tracing::subscriber::with_default(subscriber, || {
            for at in 0..1_000 {
                tracing::warn!("a peer caused it: {at}");
                tracing::debug!("asked for");
            }
            tracing::error!("another place");
        });
        let count = |start: &str| written.lock().expect("a lock").iter().filter(|line| line.starts_with(start)).count();
        assert_eq!((count("a peer"), count("asked"), count("another")), (20, 1_000, 1));

        let now = Instant::now();
        assert_eq!(throttle.left_out(now), [], "the interval goes on");
        let told = throttle.left_out(now + INTERVAL);
        assert_eq!(told, [LeftOut { lines: 980, message: "a peer caused it: 20".to_owned() }]);
        assert_eq!(throttle.left_out(now + INTERVAL), [], "told once");
    }
}
