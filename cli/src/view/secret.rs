//! Secrets, as their readers see them.

use coffer_proto::v1::{self, sharing};
use serde::Serialize;

use super::{MASK, View, counted, fields, kind, listing, some, when_and_who};
use crate::print::{
    table::{Table, cut, dropped, whole, wraps},
    time::{date, rfc3339, short},
};

/// A secret.
#[derive(Serialize)]
#[serde(transparent)]
pub(crate) struct SecretDetail(SecretView);

/// Secrets of one scope or of several.
#[derive(Serialize)]
pub(crate) struct SecretList {
    secrets: Vec<SecretView>,
    total: i64,
    encrypted: i64,
    plain: i64,
    more: bool,
    #[serde(skip)]
    grouped: bool,
}

/// Copies.
#[derive(Serialize)]
pub(crate) struct Cloned {
    secrets: Vec<SecretView>,
    missing_references: Vec<String>,
}

/// Counts.
#[derive(Serialize)]
pub(crate) struct Stats {
    parent: String,
    scopes: i64,
    total: i64,
    encrypted: i64,
    plain: i64,
    missing: i64,
}

#[derive(Serialize)]
pub(crate) struct SecretView {
    name: String,
    uid: String,
    kind: &'static str,
    description: String,
    hint: Option<String>,
    value: Option<String>,
    sharing: Option<SharingView>,
    locked: bool,
    clonable: bool,
    allowed_hosts: Vec<String>,
    allow_in_instructions: bool,
    value_version: i64,
    create_time: Option<String>,
    creator: String,
    update_time: Option<String>,
    updater: String,
    cloned_from: Option<String>,
    value_update_time: Option<String>,
    last_injected_time: Option<String>,
    last_rendered_time: Option<String>,
    etag: String,
}

#[derive(Serialize)]
struct SharingView {
    mode: &'static str,
    workspaces: Vec<String>,
}

impl From<v1::Secret> for SecretView {
    fn from(secret: v1::Secret) -> Self {
        Self {
            kind: kind(secret.kind()),
            name: secret.name,
            uid: secret.uid,
            description: secret.description,
            hint: some(secret.hint),
            value: secret.value.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()),
            sharing: secret.sharing.map(SharingView::from),
            locked: secret.locked,
            clonable: secret.clonable,
            allowed_hosts: secret.allowed_hosts,
            allow_in_instructions: secret.allow_in_instructions,
            value_version: secret.value_version,
            create_time: rfc3339(secret.create_time.as_ref()),
            creator: secret.creator,
            update_time: rfc3339(secret.update_time.as_ref()),
            updater: secret.updater,
            cloned_from: some(secret.cloned_from),
            value_update_time: rfc3339(secret.value_update_time.as_ref()),
            last_injected_time: rfc3339(secret.last_injected_time.as_ref()),
            last_rendered_time: rfc3339(secret.last_rendered_time.as_ref()),
            etag: secret.etag,
        }
    }
}

impl From<v1::Sharing> for SharingView {
    fn from(sharing: v1::Sharing) -> Self {
        let mode = match sharing.mode() {
            sharing::Mode::Unspecified | sharing::Mode::All => "all",
            sharing::Mode::Only => "only",
        };
        Self { mode, workspaces: sharing.workspaces }
    }
}

impl SecretView {
    fn scope(&self) -> &str {
        self.name.rsplit_once("/secrets/").map_or("", |(scope, _)| scope)
    }

    fn variable(&self) -> &str {
        self.name.rsplit_once('/').map_or(&self.name, |(_, variable)| variable)
    }

    fn shown_value(&self) -> String {
        self.value.clone().unwrap_or_else(|| MASK.to_owned())
    }

    /// `all`, `nobody`, or the workspaces' ids: they are all of the secret's own organization.
    fn shared_with(&self) -> String {
        match &self.sharing {
            None => String::new(),
            Some(sharing) if sharing.mode == "all" => "all".to_owned(),
            Some(sharing) if sharing.workspaces.is_empty() => "nobody".to_owned(),
            Some(sharing) => {
                let id = |name: &String| name.rsplit('/').next().unwrap_or_default().to_owned();
                sharing.workspaces.iter().map(id).collect::<Vec<_>>().join(",")
            }
        }
    }

    fn flags(&self) -> String {
        let flags =
            [(self.locked, "locked"), (!self.clonable, "no-clone"), (self.allow_in_instructions, "instructions")];
        flags.into_iter().filter(|(set, _)| *set).map(|(_, name)| name).collect::<Vec<_>>().join(",")
    }
}

impl SecretDetail {
    pub(crate) fn new(secret: v1::Secret) -> Self {
        Self(secret.into())
    }
}

impl View for SecretDetail {
    fn table(&self, _: Option<usize>) -> String {
        let secret = &self.0;
        fields(&[
            ("name", secret.name.clone()),
            ("kind", secret.kind.to_owned()),
            ("value", secret.shown_value()),
            ("hint", secret.hint.clone().unwrap_or_default()),
            ("description", secret.description.clone()),
            ("shared with", secret.shared_with()),
            ("flags", secret.flags()),
            ("hosts", secret.allowed_hosts.join(",")),
            ("version", secret.value_version.to_string()),
            ("created", when_and_who(secret.create_time.as_deref(), &secret.creator)),
            ("updated", when_and_who(secret.update_time.as_deref(), &secret.updater)),
            ("value set", minute(&secret.value_update_time)),
            ("injected", minute(&secret.last_injected_time)),
            ("rendered", minute(&secret.last_rendered_time)),
            ("cloned from", secret.cloned_from.clone().unwrap_or_default()),
            ("etag", secret.etag.clone()),
        ])
    }
}

/// `2026-01-31 23:59 UTC`, or nothing.
fn minute(time: &Option<String>) -> String {
    time.as_deref().map(|time| format!("{} UTC", short(Some(time)))).unwrap_or_default()
}

impl SecretList {
    /// `grouped` if the scopes are to be told apart; `more` if this is not all.
    pub(crate) fn new(secrets: Vec<v1::Secret>, grouped: bool, more: bool) -> Self {
        let secrets: Vec<SecretView> = secrets.into_iter().map(SecretView::from).collect();
        let count = |kind: &str| secrets.iter().filter(|secret| secret.kind == kind).count() as i64;
        Self {
            total: secrets.len() as i64,
            encrypted: count("encrypted"),
            plain: count("plain"),
            secrets,
            grouped,
            more,
        }
    }
}

fn totals(total: i64, encrypted: i64, plain: i64) -> String {
    format!("{}, {encrypted} encrypted, {plain} plain", counted(total, "secret"))
}

fn list(secrets: &[SecretView], grouped: bool, width: Option<usize>) -> String {
    let mut table = Table::new(&[
        whole("NAME"),
        whole("KIND"),
        cut("VALUE"),
        dropped("HINT"),
        wraps("SHARED WITH"),
        dropped("FLAGS"),
        dropped("VERSION"),
        dropped("CREATED"),
        cut("DESCRIPTION"),
    ]);
    let mut group = None;
    for secret in secrets {
        if grouped && group != Some(secret.scope()) {
            group = Some(secret.scope());
            table.group(secret.scope());
        }
        table.row([
            secret.variable(),
            secret.kind,
            &secret.shown_value(),
            secret.hint.as_deref().unwrap_or_default(),
            &secret.shared_with(),
            &secret.flags(),
            &secret.value_version.to_string(),
            date(secret.create_time.as_deref()),
            &secret.description,
        ]);
    }
    table.render(width)
}

impl View for SecretList {
    fn table(&self, width: Option<usize>) -> String {
        let table = list(&self.secrets, self.grouped, width);
        listing(&table, &totals(self.total, self.encrypted, self.plain), self.more)
    }
}

impl Cloned {
    pub(crate) fn new(secrets: Vec<v1::Secret>, missing_references: Vec<String>) -> Self {
        Self { secrets: secrets.into_iter().map(SecretView::from).collect(), missing_references }
    }
}

impl View for Cloned {
    fn table(&self, _: Option<usize>) -> String {
        let line = |secret: &SecretView| {
            let from = secret.cloned_from.as_deref().unwrap_or("?");
            crate::print::escape::text(&format!("cloned {} from {from}", secret.name)) + "\n"
        };
        self.secrets.iter().map(line).collect()
    }
}

impl Stats {
    pub(crate) fn new(parent: String, stats: &v1::SecretStats) -> Self {
        Self {
            parent,
            scopes: stats.scopes,
            total: stats.total,
            encrypted: stats.encrypted,
            plain: stats.plain,
            missing: stats.missing,
        }
    }
}

impl View for Stats {
    fn table(&self, _: Option<usize>) -> String {
        let totals = totals(self.total, self.encrypted, self.plain);
        let missing = if self.missing > 0 { format!(", {} missing", self.missing) } else { String::new() };
        format!("{totals}{missing}, in {}\n", counted(self.scopes, "scope"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(name: &str, kind: v1::SecretKind, value: Option<&str>) -> v1::Secret {
        v1::Secret {
            name: name.into(),
            kind: kind.into(),
            value: value.map(|text| text.as_bytes().to_vec()),
            clonable: true,
            value_version: 1,
            create_time: Some(prost_types::Timestamp { seconds: 1_769_903_940, nanos: 0 }),
            ..Default::default()
        }
    }

    #[test]
    fn groups_end_in_totals() {
        let mut token = secret("accounts/a/plugins/github/secrets/TOKEN", v1::SecretKind::Encrypted, None);
        token.hint = "ghp_…wxyz".into();
        let region = secret("accounts/a/plugins/github/secrets/REGION", v1::SecretKind::Plain, Some("eu\x1b[2J"));
        let other = secret("accounts/a/plugins/slack/secrets/TOKEN", v1::SecretKind::Encrypted, None);
        let table = SecretList::new(vec![region, token, other], true, false).table(None);
        let expected = [
            "  NAME    KIND       VALUE        HINT       VERSION  CREATED",
            "accounts/a/plugins/github",
            "  REGION  plain      eu\\u{1b}[2J             1        2026-01-31",
            "  TOKEN   encrypted  ••••••••     ghp_…wxyz  1        2026-01-31",
            "accounts/a/plugins/slack",
            "  TOKEN   encrypted  ••••••••                1        2026-01-31",
            "",
            "3 secrets, 2 encrypted, 1 plain",
        ];
        assert_eq!(table.lines().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn sharing_and_flags_are_words() {
        let mut view = SecretView::from(secret("organizations/o/secrets/A", v1::SecretKind::Encrypted, None));
        assert_eq!((view.shared_with(), view.flags()), (String::new(), String::new()));
        let workspaces = vec!["organizations/o/workspaces/a".to_owned(), "organizations/o/workspaces/b".to_owned()];
        view.sharing = Some(SharingView { mode: "only", workspaces });
        view.locked = true;
        view.clonable = false;
        assert_eq!((view.shared_with().as_str(), view.flags().as_str()), ("a,b", "locked,no-clone"));
        view.sharing = Some(SharingView { mode: "only", workspaces: Vec::new() });
        assert_eq!(view.shared_with(), "nobody");
    }

    #[test]
    fn json_has_every_field() {
        let list = SecretList::new(vec![secret("projects/p/secrets/A", v1::SecretKind::Encrypted, None)], false, false);
        let json = serde_json::to_value(&list).expect("JSON");
        assert_eq!(json["total"], 1);
        let secret = json["secrets"][0].as_object().expect("an object");
        assert_eq!(secret.len(), 21);
        assert_eq!((&secret["value"], &secret["hint"]), (&serde_json::Value::Null, &serde_json::Value::Null));
        assert_eq!(secret["create_time"], "2026-01-31T23:59:00Z");
    }
}
