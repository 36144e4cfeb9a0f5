//! `coffer-server dev`: a throw-away server to try things with.

use std::{
    ffi::OsString,
    fs::{self, DirBuilder},
    io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use coffer_proto::{name::Principal, token::Token};

use super::{
    Failure,
    init::{NewKey, NewStore},
    print, provision,
    run::raise_descriptor_limit,
    signals, start_logging,
    token::Outlet,
};
use crate::{
    config::{self, Flags},
    process,
    server::Server,
};

/// Who the newcomer is.
const OWNER: &str = "users/dev";

#[derive(Debug, clap::Args)]
pub(super) struct Dev {
    /// Where to listen; may be repeated [default: a free port of 127.0.0.1]
    #[arg(long, value_name = "ADDR")]
    listen: Vec<String>,
    /// Keep everything in this directory, for the next `dev --data`, rather than in a temporary one
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

/// What lies in the directory of a `dev` server.
struct Home {
    path: PathBuf,
    is_temporary: bool,
}

impl Dev {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let home = match &self.data {
            Some(path) => Home { path: path.clone(), is_temporary: false },
            None => Home::temporary().map_err(|error| Failure::new(format!("temporary directory: {error}")))?,
        };
        let home_path = std::path::absolute(&home.path).map_err(Failure::new)?;
        let files = Files::below(&home_path);
        files.refuse_other_directories()?;
        let config = config::load(&self.flags(&files)?, std::iter::empty::<(OsString, OsString)>())?;
        start_logging(&config.log);
        let signals = signals::handle(signals::Hangup::End).map_err(Failure::new)?;
        raise_descriptor_limit();
        process::guard().log();
        let operator = if files.store.exists() { None } else { Some(files.create().await?) };
        let server = Server::open(config).await?;
        if let Some(operator) = operator {
            let outlets = (Outlet::open(Some(&files.injector_token))?, Outlet::open(Some(&files.starter_token))?);
            let tokens = provision::provision(server.routes(), &operator, OWNER).await?;
            outlets.0.write_text(&tokens.injector)?;
            outlets.1.write_text(&tokens.starter)?;
        }
        let bound = server.bind().await?;
        let fate = if home.is_temporary { "everything is gone then" } else { "everything is kept" };
        print::note(&format!("a server for development; Ctrl-C ends it, and {fate}. Paste into another terminal:\n"));
        print::data(&files.welcome(&bound.addresses)).map_err(|error| Failure::new(format!("stdout: {error}")))?;
        bound.run(signals).await?;
        Ok(())
    }

    fn flags(&self, files: &Files) -> Result<Flags, Failure> {
        let text = |path: &Path| {
            let path = path.to_owned().into_os_string().into_string();
            path.map_err(|_| Failure::usage(vec!["--data must be UTF-8".to_owned()]))
        };
        let listen = if self.listen.is_empty() { vec!["127.0.0.1:0".to_owned()] } else { self.listen.clone() };
        Ok(Flags {
            data: Some(text(&files.store)?),
            key_file: Some(text(&files.key)?),
            audit_file: Some(text(&files.audit)?),
            listen,
            reflection: true,
            ..Flags::default()
        })
    }
}

struct Files {
    home: PathBuf,
    store: PathBuf,
    key: PathBuf,
    audit: PathBuf,
    owner_token: PathBuf,
    injector_token: PathBuf,
    starter_token: PathBuf,
    /// Where what is printed puts the token of a workload.
    workload_token: PathBuf,
}

impl Files {
    fn below(home: &Path) -> Self {
        Self {
            home: home.to_owned(),
            store: home.join("store"),
            key: home.join("root.key"),
            audit: home.join("audit.jsonl"),
            owner_token: home.join("dev.token"),
            injector_token: home.join("inject.token"),
            starter_token: home.join("starter.token"),
            workload_token: home.join("web.token"),
        }
    }

    /// Only a new or empty directory and one of `dev`'s own are written to: another may be a store that is in use.
    fn refuse_other_directories(&self) -> Result<(), Failure> {
        let home = self.home.display();
        let is_empty = match fs::read_dir(&self.home) {
            Ok(mut entries) => entries.next().is_none(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => true,
            Err(error) => return Err(Failure::new(format!("{home}: {error}"))),
        };
        if is_empty || (self.store.is_dir() && self.owner_token.is_file()) {
            Ok(())
        } else {
            Err(Failure::usage(vec![format!("{home} is not a directory of `dev`")])
                .hint("`run --data` serves a store; `dev --data` wants a new directory or one that it made"))
        }
    }

    /// A new store whose operator is the newcomer, and the newcomer's token in its file.
    async fn create(&self) -> Result<Token, Failure> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.home).map_err(Failure::new)?;
        let owner = Principal::parse(OWNER).map_err(|_| Failure::new(format!("{OWNER} is no principal")))?;
        let outlet = Outlet::open(Some(&self.owner_token))?;
        let audit_file = Some(self.audit.as_path());
        let new = NewStore { data: &self.store, key: NewKey::Generated(&self.key), audit_file };
        let token = new.create(&owner).await?;
        outlet.write(&token)?;
        Ok(token)
    }

    /// Lines for a shell. No comments: interactive zsh does not know them.
    fn welcome(&self, addresses: &[String]) -> String {
        let address = addresses.first().map_or("", String::as_str);
        let (owner, injector) = (quoted(&self.owner_token), quoted(&self.injector_token));
        let (starter, workload) = (quoted(&self.starter_token), quoted(&self.workload_token));
        format!(
            "export COFFER_ADDRESS={}\n\
             export COFFER_TOKEN_FILE={owner}\n\
             coffer secret create accounts/demo/secrets/DB_PASSWORD --generate\n\
             coffer secret list accounts/demo\n\
             coffer grant create users/ann secrets:read accounts/demo\n\
             COFFER_TOKEN_FILE={injector} coffer-inject --workload accounts/demo/servers/web -- printenv DB_PASSWORD\n\
             COFFER_TOKEN_FILE={starter} coffer token issue accounts/demo/servers/web --ttl 1h --out {workload} --replace\n\
             COFFER_TOKEN_FILE={workload} coffer-inject -- printenv DB_PASSWORD\n",
            quoted(Path::new(address))
        )
    }
}

impl Home {
    /// A new directory that only this user may enter.
    fn temporary() -> io::Result<Self> {
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(io::Error::other)?;
        let path = std::env::temp_dir().join(format!("coffer-dev-{:016x}", u64::from_ne_bytes(random)));
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self { path, is_temporary: true })
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if self.is_temporary
            && let Err(error) = fs::remove_dir_all(&self.path)
        {
            print::note(&format!("warning: {} is not removed: {error}", self.path.display()));
        }
    }
}

/// A path as a POSIX shell reads it.
fn quoted(path: &Path) -> String {
    let text = path.to_string_lossy();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-:".contains(c);
    if text.chars().all(is_plain) { text.into_owned() } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_survive_a_shell() {
        for path in ["/tmp/coffer-dev-1/dev.token", "/tmp/it's here/$HOME", "unix:///s"] {
            let command = format!("printf %s {}", quoted(Path::new(path)));
            let output = std::process::Command::new("sh").args(["-c", &command]).output().expect("sh runs");
            assert_eq!(String::from_utf8(output.stdout).expect("UTF-8"), path);
        }
    }

    #[tokio::test]
    async fn a_directory_that_dev_did_not_make_is_refused_and_stays_as_it_is() {
        let dir = tempfile::tempdir().expect("a directory");
        let (home, key) = (dir.path().join("data"), dir.path().join("key"));
        let new = NewStore { data: &home, key: NewKey::Generated(&key), audit_file: None };
        new.create(&Principal::parse(OWNER).expect("a principal")).await.map(drop).expect("a store");
        let names = || {
            let entries = fs::read_dir(&home).expect("there").map(|entry| entry.expect("an entry").file_name());
            entries.collect::<std::collections::BTreeSet<_>>()
        };
        let before = names();
        let refuse = || Files::below(&home).refuse_other_directories();
        let dev = Dev { listen: Vec::new(), data: Some(home.clone()) };
        let ended = tokio::time::timeout(std::time::Duration::from_secs(20), dev.run()).await;
        let failure = ended.expect("it serves nothing").expect_err("the store of another");
        assert!(failure.errors[0].ends_with("data is not a directory of `dev`"), "{failure:?}");
        assert_eq!(names(), before);
        // A directory that happens to have a `store` in it is none of dev's either.
        fs::create_dir(home.join("store")).expect("a directory");
        refuse().expect_err("somebody else's");
        fs::remove_dir_all(&home).expect("removed");
        refuse().expect("a new one");
        fs::create_dir(&home).expect("a directory");
        refuse().expect("an empty one");
        Files::below(&home).create().await.map(drop).expect("made");
        refuse().expect("its own");
    }

    #[test]
    fn a_temporary_home_is_private_and_goes() {
        use std::os::unix::fs::MetadataExt as _;
        let home = Home::temporary().expect("a directory");
        let path = home.path.clone();
        assert_eq!(fs::metadata(&path).expect("there").mode() & 0o777, 0o700);
        fs::write(path.join("file"), "x").expect("a file");
        drop(home);
        assert!(!path.exists());
    }
}
