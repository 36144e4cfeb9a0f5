//! What people and files give.

pub(crate) mod confirm;
pub(crate) mod file;
pub(crate) mod generate;
pub(crate) mod import;
pub(crate) mod text;
pub(crate) mod value;
