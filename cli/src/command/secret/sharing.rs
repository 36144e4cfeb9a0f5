//! With which workspaces an organization's secret is shared.

use coffer_proto::{
    name::{Scope, ScopeKind},
    v1::{Sharing, sharing::Mode},
};

/// Options of create, update and clone.
#[derive(clap::Args)]
#[group(multiple = false)]
#[command(next_help_heading = "Sharing (organizations)")]
pub(crate) struct SharingOptions {
    /// Share with every workspace, also later ones
    #[arg(long)]
    share_all: bool,
    /// Share only with these: ids or full names, separated by commas or by repeating the option
    #[arg(long, value_name = "WORKSPACE", value_delimiter = ',')]
    share_with: Vec<String>,
    /// Share with no workspace for now
    #[arg(long)]
    share_with_nobody: bool,
}

impl SharingOptions {
    /// What was chosen, if anything. An id alone is a workspace of the organization.
    pub(super) fn chosen(&self, organization: &Scope) -> Option<Sharing> {
        let full = |text: &String| match organization.kind() {
            ScopeKind::Organization if !text.contains('/') => format!("{organization}/workspaces/{text}"),
            _ => text.clone(),
        };
        if self.share_all {
            Some(Sharing { mode: Mode::All.into(), workspaces: Vec::new() })
        } else if self.share_with_nobody || !self.share_with.is_empty() {
            Some(Sharing { mode: Mode::Only.into(), workspaces: self.share_with.iter().map(full).collect() })
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(options: SharingOptions) -> Option<(Mode, Vec<String>)> {
        let organization = Scope::parse("organizations/o").expect("a scope");
        options.chosen(&organization).map(|sharing| (sharing.mode(), sharing.workspaces))
    }

    #[test]
    fn ids_belong_to_the_organization() {
        let with = vec!["web".to_owned(), "organizations/o/workspaces/batch".to_owned()];
        let options = SharingOptions { share_all: false, share_with: with, share_with_nobody: false };
        let names = ["organizations/o/workspaces/web", "organizations/o/workspaces/batch"].map(str::to_owned);
        assert_eq!(chosen(options), Some((Mode::Only, names.to_vec())));
    }

    #[test]
    fn nobody_is_an_empty_list_and_nothing_is_nothing() {
        let options =
            |all, nobody| SharingOptions { share_all: all, share_with: Vec::new(), share_with_nobody: nobody };
        assert_eq!(chosen(options(false, true)), Some((Mode::Only, Vec::new())));
        assert_eq!(chosen(options(true, false)), Some((Mode::All, Vec::new())));
        assert_eq!(chosen(options(false, false)), None);
    }
}
