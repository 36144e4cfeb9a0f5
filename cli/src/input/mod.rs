//! What people and files give.

pub(crate) mod confirm;
pub(crate) mod file;
pub(crate) mod generate;
mod hidden;
pub(crate) mod import;
mod json;
mod keys;
pub(crate) mod text;
pub(crate) mod value;
pub(crate) mod variable_name;
mod white_space;
