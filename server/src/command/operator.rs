//! `coffer-server operator`: an operator's token when none is left.

use std::{path::Path, sync::Arc};

use coffer_proto::{name::Principal, token::Token};

use super::{
    Failure,
    offline::{Offline, OpenStore, Place},
    print,
};
use crate::{
    clock::SystemClock,
    config::{KeySetting, StoreSetting},
    server::{self, key, seal_mark},
    store::embedded::OpenError,
    vault,
};

#[derive(Debug, clap::Args)]
pub(super) struct Operator {
    #[command(flatten)]
    offline: Offline,
}

impl Operator {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let operator = self.offline.operator()?;
        let place = self.offline.place()?;
        let outlet = self.offline.outlet()?;
        let Place { store, key, .. } = &place;
        let log = place.audit_file();
        let is_new_log = !log.exists();
        let admitted = admit(store, key, &log, &operator).await;
        outlet.hand_out(admitted.map_err(failure))?;
        if is_new_log {
            print::note(&format!(
                "warning: this began a new audit log, {}: if the server writes another, it has no line of this; \
                 --config or --audit-file names it",
                log.display()
            ));
        }
        print::note(&format!("{operator} is an operator of the store in {}", store.place()));
        self.offline.tell_token(&place);
        Ok(())
    }
}

/// Makes `operator` an operator, unless it is one, and issues it a token.
pub(super) async fn admit(
    store: &StoreSetting,
    key: &KeySetting,
    audit_file: &Path,
    operator: &Principal,
) -> Result<Token, server::Error> {
    let key = key::open(key)?;
    if let Some(data) = store.directory() {
        seal_mark::check(data, key.as_ref())?;
    }
    key.status().await?;
    let open = OpenStore::open(store, audit_file).await?;
    let admitted =
        vault::admit_operator(open.store(), key.clone(), open.audit(), Arc::new(SystemClock), operator).await;
    open.close().await;
    let token = admitted?;
    if let Some(data) = store.directory() {
        seal_mark::set(data, key.as_ref())?;
    }
    Ok(token)
}

pub(super) fn failure(error: server::Error) -> Failure {
    let is_in_use = matches!(error, server::Error::Store(OpenError::InUse(_)));
    let failure = Failure::from(error);
    if is_in_use {
        failure.hint("stop the server first; whoever has an operator's token needs no other: `coffer token issue`")
    } else {
        failure
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::PathBuf};

    use super::{
        super::{
            init::{NewKey, NewStore},
            provision::provision,
        },
        *,
    };
    use crate::{
        config::{self, FileFlag, Flags, KeyFlags},
        seal::source::KeyFile,
        server::Server,
    };

    struct Home {
        dir: tempfile::TempDir,
    }

    impl Home {
        async fn with_store() -> Self {
            let home = Self { dir: tempfile::tempdir().expect("a directory") };
            let (data, key_file, audit) = (home.path("data"), home.path("key"), home.path("audit.jsonl"));
            let new = NewStore { data: &data, key: NewKey::Generated(&key_file), audit_file: Some(&audit) };
            new.create(&principal("users/first")).await.map(drop).expect("a store");
            home
        }

        fn path(&self, name: &str) -> PathBuf {
            self.dir.path().join(name)
        }

        async fn admit(&self, operator: &str) -> Result<Token, server::Error> {
            let (data, key_file, audit) = (self.path("data"), self.path("key"), self.path("audit.jsonl"));
            admit(&StoreSetting::Embedded(data), &KeySetting::File(key_file), &audit, &principal(operator)).await
        }

        async fn server(&self) -> Server {
            let text = |name| self.path(name).to_str().expect("UTF-8").to_owned();
            let flags = Flags {
                data: Some(text("data")),
                key_file: Some(text("key")),
                audit_file: Some(text("audit.jsonl")),
                ..Flags::default()
            };
            Server::open(config::load(&flags, []).expect("a configuration")).await.expect("opens")
        }
    }

    fn principal(name: &str) -> Principal {
        Principal::parse(name).expect("a principal")
    }

    #[tokio::test]
    async fn old_and_new_operators_get_a_token_that_works() {
        for operator in ["users/first", "services/rescue"] {
            let home = Home::with_store().await;
            let token = home.admit(operator).await.expect("a token");
            let done = provision(home.server().await.routes(), &token, "users/ann").await;
            done.map(drop).expect("what only an operator may do");
            let audit = fs::read_to_string(home.path("audit.jsonl")).expect("the log");
            let lines = audit.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"));
            let phases: Vec<_> = lines
                .filter(|line| line["method"] == "coffer-server/operator" && line["subjects"][0]["name"] == operator)
                .map(|line| line["phase"].clone())
                .collect();
            assert_eq!(phases, ["intent", "done"]);
        }
    }

    #[tokio::test]
    async fn a_running_server_is_left_alone() {
        let home = Home::with_store().await;
        let _server = home.server().await;
        let audit = fs::read(home.path("audit.jsonl")).expect("the log");
        let failure = failure(home.admit("users/first").await.map(drop).expect_err("it runs"));
        assert!(failure.errors[0].contains("in use"), "{failure:?}");
        assert!(failure.hint.expect("a hint").contains("stop the server"));
        assert_eq!(fs::read(home.path("audit.jsonl")).expect("the log"), audit);
    }

    #[tokio::test]
    async fn another_key_opens_nothing_and_leaves_no_token_file() {
        let home = Home::with_store().await;
        fs::remove_file(home.path("key")).expect("removed");
        KeyFile::generate(&home.path("key")).expect("another");
        let offline = Offline {
            data: Some(home.path("data")),
            key: KeyFlags { key_file: Some(home.path("key")), ..KeyFlags::default() },
            operator: "users/first".to_owned(),
            token_file: Some(home.path("token")),
            audit_file: None,
            config: FileFlag::default(),
        };
        let failure = Operator { offline }.run().await.expect_err("another key");
        let file = format!("key file {}: wrong key: ", home.path("key").display());
        assert!(failure.errors[0].starts_with(&file), "{failure:?}");
        assert!(!home.path("token").exists());
    }
}
