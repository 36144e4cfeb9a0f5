//! The five products coffer was built for, each in its own words: what their pages promise, sentence by sentence.

mod account_sandbox;
mod plugin_variables;
mod project_secrets;
mod project_vault;
mod workspaces;
