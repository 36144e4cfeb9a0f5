//! A store as it was at one moment: to be looked at, or to be made a store again elsewhere.

use std::vec;

use super::{Error, Load, Millis, Position, Record};

/// All records of one position, as often as they are asked for.
pub trait Moment: Send + Sync {
    /// The position.
    fn position(&self) -> Position;
    /// When its last transaction was made.
    fn time(&self) -> Millis;
    /// About how many records there are.
    fn about(&self) -> u64;
    /// The records, from the first.
    fn load(&self) -> Box<dyn Load>;
}

/// The records of a load, one by one.
pub(crate) struct Records {
    load: Box<dyn Load>,
    page: vec::IntoIter<Record>,
}

impl Records {
    pub(crate) fn of(load: Box<dyn Load>) -> Self {
        Self { load, page: Vec::new().into_iter() }
    }

    /// The next one, or `None` after the last.
    pub(crate) async fn next(&mut self) -> Result<Option<Record>, Error> {
        loop {
            if let Some(record) = self.page.next() {
                return Ok(Some(record));
            }
            match self.load.page().await? {
                Some(page) => self.page = page.into_iter(),
                None => return Ok(None),
            }
        }
    }
}
