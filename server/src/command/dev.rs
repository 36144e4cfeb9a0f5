//! `coffer-server dev`: a server to try things with, on one's own machine.

use std::{
    ffi::OsString,
    fs::{self, DirBuilder, File, OpenOptions},
    io,
    net::TcpListener,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use coffer_proto::{name::Principal, token::Token};

use super::{
    Failure,
    init::{NewKey, NewStore},
    operator, print, provision,
    run::raise_descriptor_limit,
    signals,
    token::Outlet,
};
use crate::{
    config::{self, Config, Flags},
    process,
    server::Server,
    telemetry,
};

/// Who the newcomer is.
const OWNER: &str = "users/dev";
/// Where `coffer` and `coffer-inject` look for a server.
const LISTEN_DEFAULT: &str = "127.0.0.1:7470";
/// Where there is a server already.
const LISTEN_FREE: &str = "127.0.0.1:0";
/// Below a user's directory for data of programs.
const DIRECTORY: &str = "coffer-dev";

#[derive(Debug, clap::Args)]
pub(super) struct Dev {
    /// Where to listen; may be repeated [default: 127.0.0.1:7470, and a free port if that is taken]
    #[arg(long, value_name = "ADDR")]
    listen: Vec<String>,
    /// Keep everything in this directory, for the next `dev` [default: ~/.local/share/coffer-dev, or below XDG_DATA_HOME]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Keep nothing: everything is in a temporary directory, which goes with the server
    #[arg(long, conflicts_with = "data")]
    temporary: bool,
}

/// What lies in the directory of a `dev` server.
struct Home {
    path: PathBuf,
    is_temporary: bool,
}

impl Dev {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let kept =
            if self.temporary { None } else { self.data.clone().or_else(|| directory(|name| std::env::var_os(name))) };
        let home = match kept {
            Some(path) => Home { path, is_temporary: false },
            None => Home::temporary().map_err(|error| Failure::new(format!("temporary directory: {error}")))?,
        };
        let home_path = std::path::absolute(&home.path).map_err(Failure::new)?;
        let files = Files::below(&home_path);
        files.refuse_other_directories()?;
        let config = config::load(&self.flags(&files)?, std::iter::empty::<(OsString, OsString)>())?;
        DirBuilder::new().recursive(true).mode(0o700).create(&files.home).map_err(Failure::new)?;
        let signals = signals::handle(signals::Hangup::End).map_err(Failure::new)?;
        raise_descriptor_limit();
        let guard = process::guard();
        let is_new = !files.store.exists();
        let operator = if is_new { files.create().await? } else { files.renew(&config).await? };
        // Not before: another `dev` may be writing it.
        telemetry::start_in(&config.log, files.log().map_err(|error| Failure::new(format!("log: {error}")))?);
        guard.log();
        let server = Server::open(config).await?;
        let tokens = provision::provision(server.routes(), &operator, OWNER).await?;
        renewed(&files.injector_token)?.write_text(&tokens.injector)?;
        renewed(&files.starter_token)?.write_text(&tokens.starter)?;
        let bound = server.bind().await?;
        let (home_path, log) = (files.home.display(), files.log.display());
        let fate =
            if home.is_temporary { "everything is gone then".to_owned() } else { format!("{home_path} is kept") };
        print::note(&format!(
            "a server for development; Ctrl-C ends it, and {fate}. Its log is {log}. Paste into another terminal:\n"
        ));
        print::data(&files.welcome(&bound.addresses, is_new))
            .map_err(|error| Failure::new(format!("stdout: {error}")))?;
        bound.run(signals).await?;
        Ok(())
    }

    fn flags(&self, files: &Files) -> Result<Flags, Failure> {
        let text = |path: &Path| {
            let path = path.to_owned().into_os_string().into_string();
            path.map_err(|_| Failure::usage(vec!["--data must be UTF-8".to_owned()]))
        };
        let listen = if self.listen.is_empty() { vec![default_listen().to_owned()] } else { self.listen.clone() };
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
    /// Of this start only, so that it does not grow from one to the next.
    log: PathBuf,
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
            log: home.join("server.log"),
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

    /// New tokens at every start, because those of an earlier one end.
    async fn renew(&self, config: &Config) -> Result<Token, Failure> {
        let owner = Principal::parse(OWNER).map_err(|_| Failure::new(format!("{OWNER} is no principal")))?;
        let admitted = operator::admit(&config.store, &config.key, &self.audit, &owner).await;
        let token = admitted.map_err(|error| {
            operator::failure(error)
                .hint("is another `dev` running on it? --temporary or --data DIR starts one beside it")
        })?;
        renewed(&self.owner_token)?.write(&token)?;
        Ok(token)
    }

    fn log(&self) -> io::Result<File> {
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&self.log)
    }

    /// Lines for a shell. No comments: interactive zsh does not know them.
    fn welcome(&self, addresses: &[String], is_new: bool) -> String {
        let grant = if is_new { "coffer grant create users/ann secrets:read accounts/demo\n" } else { "" };
        let address = addresses.first().map_or("", String::as_str);
        let (owner, injector) = (quoted(&self.owner_token), quoted(&self.injector_token));
        let (starter, workload) = (quoted(&self.starter_token), quoted(&self.workload_token));
        format!(
            "export COFFER_ADDRESS={}\n\
             export COFFER_TOKEN_FILE={owner}\n\
             coffer secret set accounts/demo/secrets/DB_PASSWORD --generate\n\
             coffer secret list accounts/demo\n\
             {grant}\
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

/// The address that clients expect, unless somebody has it.
fn default_listen() -> &'static str {
    if TcpListener::bind(LISTEN_DEFAULT).is_ok() { LISTEN_DEFAULT } else { LISTEN_FREE }
}

/// Where data of programs belongs (XDG Base Directory Specification, 0.8): a relative XDG_DATA_HOME counts as none.
fn directory(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let absolute = |name| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let data = absolute("XDG_DATA_HOME").or_else(|| Some(absolute("HOME")?.join(".local/share")))?;
    Some(data.join(DIRECTORY))
}

/// A place for a new token where an older one may be.
fn renewed(path: &Path) -> Result<Outlet, Failure> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Failure::new(format!("{}: {error}", path.display())))
        }
        _ => Outlet::open(Some(path)),
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
        let dev = Dev { listen: Vec::new(), data: Some(home.clone()), temporary: false };
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
    fn the_default_directory_is_where_data_of_programs_belongs() {
        let of = |data: &str, home: &str| {
            directory(|name| match name {
                "XDG_DATA_HOME" if !data.is_empty() => Some(data.into()),
                "HOME" if !home.is_empty() => Some(home.into()),
                _ => None,
            })
        };
        assert_eq!(of("", "/home/ann"), Some("/home/ann/.local/share/coffer-dev".into()));
        assert_eq!(of("/data", "/home/ann"), Some("/data/coffer-dev".into()));
        assert_eq!(of("data", "/home/ann"), Some("/home/ann/.local/share/coffer-dev".into()));
        assert_eq!(of("", ""), None);
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
