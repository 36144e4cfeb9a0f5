//! From what is given to a [`Config`].

use std::{ffi::OsString, fmt::Display, num::NonZeroU32, path::PathBuf, str::FromStr, time::Duration};

use coffer_proto::limits;
use tracing_subscriber::filter::Targets;

use super::{
    AUDIT_FILE_DEFAULT, AuditLog, Config, Flags, History, KeySetting, LISTEN_DEFAULT, LISTENERS_MAX,
    LOG_FILTER_DEFAULT, Limits, ListenAddress, Log, LogFormat, Mistakes, Tls, environment, file, key, memory,
    setting::{Given, Item, Setting, Source},
};

/// Most connections that can be asked for.
const CONNECTIONS_MAX: u32 = 1_000_000;
/// Most audited calls a second that a principal may be given: more than one server answers.
const CALLS_PER_SECOND_MAX: u32 = 1_000_000;

/// Least size at which an audit log is rotated, in bytes: files of a line or two help nobody.
const AUDIT_BYTES_MIN: u64 = 64 * 1024;
/// Longest time that can be asked for.
const RETENTION_MAX: Duration = Duration::from_secs(100 * 366 * 24 * 60 * 60);
/// Least bytes of history that make sense: a few segments of the log.
const HISTORY_BYTES_MIN: u64 = 256 << 20;
/// Least memory a server can work with, in bytes.
const MEMORY_BYTES_MIN: u64 = 16 * 1024 * 1024;

/// Reads flags, environment and file, and returns either a good configuration or everything that is wrong, including
/// what is wrong with settings that a stronger source overrides.
pub fn load(flags: &Flags, variables: impl IntoIterator<Item = (OsString, OsString)>) -> Result<Config, Mistakes> {
    let mut mistakes = Vec::new();
    let variables: Vec<_> = variables.into_iter().collect();
    let credentials = key::credentials(&variables);
    let environment = environment::read(variables, &mut mistakes);
    let mut given = flags.given();
    given.extend(environment.given);
    let mut is_whole = true;
    if let Some(path) = flags.config.as_ref().or(environment.config.as_ref()) {
        let read = file::read(path, &mut mistakes);
        is_whole = read.is_some();
        given.extend(read.unwrap_or_default());
    }
    let mut resolver = Resolver { given, credentials, mistakes, is_whole };
    let config = resolver.config();
    match config.map(|config| Config { links: environment.links, ..config }) {
        Some(config) if resolver.mistakes.is_empty() => Ok(config),
        _ => Err(Mistakes(resolver.mistakes)),
    }
}

pub(super) struct Resolver {
    /// Strongest first.
    pub(super) given: Vec<Given>,
    /// Where systemd put the unit's credentials.
    pub(super) credentials: Option<PathBuf>,
    pub(super) mistakes: Vec<String>,
    /// Whether what is not among the given is not given: not so where a file could not be read.
    pub(super) is_whole: bool,
}

impl Resolver {
    fn config(&mut self) -> Option<Config> {
        let store = self.store();
        let key = self.key();
        let tls = self.tls();
        let listen = self.listen(tls.is_some());
        let address_file = self.path(Item::AddressFile);
        let audit_file = self.path(Item::AuditFile);
        let audit_sync = self.switch(Item::AuditSync);
        let audit_max_bytes = self.audit_max_bytes();
        let audit_keep_files = self.count(Item::AuditKeepFiles, 0, u32::MAX);
        let service_calls = self.calls_per_second(Item::AuditServiceCalls);
        let calls = self.calls_per_second(Item::AuditCalls);
        let reflection = self.switch(Item::Reflection);
        let log = self.log();
        let history = self.history();
        let limits = self.limits();
        let store = store?;
        let beside = || store.directory().map(|data| data.join(AUDIT_FILE_DEFAULT));
        Some(Config {
            audit: AuditLog {
                file: audit_file.or_else(beside)?,
                sync: audit_sync,
                max_bytes: audit_max_bytes,
                keep_files: audit_keep_files.unwrap_or(AuditLog::KEEP_FILES_DEFAULT),
                service_calls_per_second: service_calls.unwrap_or(limits::SERVICE_CALLS_PER_SECOND),
                calls_per_second: calls.unwrap_or(limits::CALLS_PER_SECOND),
            },
            store,
            key: key?,
            listen,
            tls: tls.flatten(),
            address_file,
            reflection,
            log,
            history,
            limits,
            links: Vec::new(),
        })
    }

    /// Everything given for `key`, read by `read`; the strongest source's good value. Complaints continue a sentence
    /// that the source begins.
    pub(super) fn pick<T>(&mut self, key: Item, read: impl Fn(&[String]) -> Result<T, Vec<String>>) -> Option<T> {
        let mut picked = None;
        for given in self.given.iter().filter(|given| given.key == key) {
            match read(&given.texts) {
                Ok(value) => picked = picked.or(Some(value)),
                Err(complaints) => {
                    self.mistakes.extend(complaints.iter().map(|complaint| format!("{}: {complaint}", given.source)))
                }
            }
        }
        picked
    }

    pub(super) fn source(&self, key: Item) -> Option<&Source> {
        self.given.iter().find(|given| given.key == key).map(|given| &given.source)
    }

    pub(super) fn require(&mut self, key: Item) {
        if self.source(key).is_none() {
            let setting = Setting::of(key);
            let names = [setting.flag, setting.variable].into_iter().flatten().collect::<Vec<_>>().join(", ");
            self.missing(format!("{names} or `{}` in the configuration file is needed", setting.file_key()));
        }
    }

    /// Complains about what is not given.
    pub(super) fn missing(&mut self, complaint: String) {
        if self.is_whole {
            self.mistakes.push(complaint);
        }
    }

    pub(super) fn path(&mut self, key: Item) -> Option<PathBuf> {
        self.pick(key, |texts| match single(texts) {
            "" => Err(vec!["the path is empty".to_owned()]),
            text if text.contains('\0') => Err(vec!["the path contains NUL".to_owned()]),
            text => Ok(PathBuf::from(text)),
        })
    }

    /// One source of the root key: two are a mistake, whoever names them.
    fn key(&mut self) -> Option<KeySetting> {
        let file = self.path(Item::KeyFile).map(KeySetting::File);
        let credentials = self.credentials.clone();
        let read =
            |texts: &[String]| key::credential(single(texts), credentials.as_deref()).map_err(|error| vec![error]);
        let credential = self.pick(Item::KeyCredential, read);
        let kms = self.pick(Item::KeyKms, |texts| key::kms(single(texts)).map_err(|error| vec![error]));
        let names =
            [Item::KeyFile, Item::KeyCredential, Item::KeyKms].map(|item| self.source(item).map(ToString::to_string));
        let given = names.iter().flatten().map(String::as_str).collect::<Vec<_>>();
        if let Err(mistake) = key::check_one(&given) {
            self.mistakes.push(mistake);
            return None;
        }
        if !given.is_empty() {
            return file.or(credential).or(kms);
        }
        let default = key::default(credentials.as_deref());
        if default.is_none() {
            self.missing(key::NONE.to_owned());
        }
        default
    }

    fn switch(&mut self, key: Item) -> bool {
        let read = |texts: &[String]| match single(texts) {
            "true" | "1" => Ok(true),
            "false" | "0" => Ok(false),
            other => Err(vec![format!("{other:?} is neither true nor false")]),
        };
        self.pick(key, read).unwrap_or(false)
    }

    /// `Some(None)` is no TLS; `None` is TLS wanted but wrong, which is reported once and not again per listener.
    fn tls(&mut self) -> Option<Option<Tls>> {
        let (cert, key) = (self.path(Item::TlsCert), self.path(Item::TlsKey));
        match (self.source(Item::TlsCert), self.source(Item::TlsKey)) {
            (None, None) => Some(None),
            (Some(_), Some(_)) => Some(Some(Tls { cert: cert?, key: key? })),
            (Some(source), None) => {
                self.mistakes.push(format!("{source}: a certificate needs its key: --tls-key"));
                None
            }
            (None, Some(source)) => {
                self.mistakes.push(format!("{source}: a key needs its certificate: --tls-cert"));
                None
            }
        }
    }

    fn listen(&mut self, tls_is_settled: bool) -> Vec<ListenAddress> {
        let has_tls = self.source(Item::TlsCert).is_some() && self.source(Item::TlsKey).is_some() || !tls_is_settled;
        let read = |texts: &[String]| {
            let mut complaints = Vec::new();
            if texts.is_empty() {
                complaints.push("the list is empty".to_owned());
            }
            if texts.len() > LISTENERS_MAX {
                complaints.push(format!("more than {LISTENERS_MAX} addresses"));
            }
            let mut addresses = Vec::new();
            for text in texts {
                match text.parse::<ListenAddress>() {
                    Err(error) => complaints.push(format!("{text:?} {error}")),
                    Ok(address) if !address.is_local() && !has_tls => complaints.push(format!(
                        "{address} can be reached from other machines, so it needs --tls-cert and --tls-key; \
                         plaintext is for loopback addresses and unix sockets"
                    )),
                    Ok(address) => addresses.push(address),
                }
            }
            if complaints.is_empty() { Ok(addresses) } else { Err(complaints) }
        };
        self.pick(Item::Listen, read).unwrap_or_else(|| LISTEN_DEFAULT.parse().into_iter().collect())
    }

    fn log(&mut self) -> Log {
        let read = |texts: &[String]| {
            let text = single(texts);
            let wrong = "is no log filter: give a level (off, error, warn, info, debug, trace) or target=level, \
                         separated by commas";
            // An empty filter is allowed by the parser and would silently turn everything off.
            match Targets::from_str(text) {
                Ok(targets) if !text.trim().is_empty() => Ok((text.to_owned(), targets)),
                _ => Err(vec![format!("{text:?} {wrong}")]),
            }
        };
        let (filter, targets) = self.pick(Item::LogFilter, read).unwrap_or_else(|| {
            let targets = Targets::new().with_default(tracing_subscriber::filter::LevelFilter::INFO);
            (LOG_FILTER_DEFAULT.to_owned(), targets)
        });
        let read = |texts: &[String]| match single(texts) {
            "text" => Ok(LogFormat::Text),
            "json" => Ok(LogFormat::Json),
            other => Err(vec![format!("{other:?} is no log format: give text or json")]),
        };
        let format = self.pick(Item::LogFormat, read).unwrap_or_default();
        Log { filter, targets, format }
    }

    fn audit_max_bytes(&mut self) -> u64 {
        let read = |texts: &[String]| match single(texts).parse::<u64>() {
            Ok(bytes) if bytes == 0 || bytes >= AUDIT_BYTES_MIN => Ok(bytes),
            _ => Err(vec![format!("{} is neither 0 nor at least {AUDIT_BYTES_MIN}", single(texts))]),
        };
        self.pick(Item::AuditMaxBytes, read).unwrap_or(AuditLog::MAX_BYTES_DEFAULT)
    }

    fn calls_per_second(&mut self, key: Item) -> Option<NonZeroU32> {
        self.count(key, 1, CALLS_PER_SECOND_MAX).and_then(NonZeroU32::new)
    }

    fn history(&mut self) -> History {
        let retention = self.pick(Item::HistoryRetention, |texts| match humantime::parse_duration(single(texts)) {
            Ok(retention) if retention <= RETENTION_MAX => Ok(retention),
            _ => Err(vec![format!("{:?} is no time of at most 100 years, such as 7d or 12h", single(texts))]),
        });
        let bytes_max = self.count(Item::HistoryBytesMax, HISTORY_BYTES_MIN, u64::MAX);
        History {
            retention: retention.unwrap_or(History::RETENTION_DEFAULT),
            bytes_max: bytes_max.unwrap_or(History::BYTES_MAX_DEFAULT),
        }
    }

    fn limits(&mut self) -> Limits {
        let connections = self.count(Item::Connections, 1, CONNECTIONS_MAX);
        let per_peer = self.count(Item::ConnectionsPerPeer, 1, CONNECTIONS_MAX);
        let memory = self.count(Item::MemoryBytes, MEMORY_BYTES_MIN, u64::MAX);
        Limits {
            connections: connections.unwrap_or(Limits::CONNECTIONS_DEFAULT),
            connections_per_peer: per_peer.unwrap_or(Limits::CONNECTIONS_PER_PEER_DEFAULT),
            memory_bytes: memory.unwrap_or_else(|| memory::available_bytes() / 2),
        }
    }

    fn count<T: FromStr + PartialOrd + Copy + Display>(&mut self, key: Item, least: T, most: T) -> Option<T> {
        self.pick(key, |texts| match single(texts).parse::<T>() {
            Ok(count) if count >= least && count <= most => Ok(count),
            _ => Err(vec![format!("{} is not between {least} and {most}", single(texts))]),
        })
    }
}

pub(super) fn single(texts: &[String]) -> &str {
    texts.first().map_or("", String::as_str)
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::{super::StoreSetting, *};

    fn flags(texts: &[&str]) -> Flags {
        #[derive(clap::Parser)]
        struct Only {
            #[command(flatten)]
            flags: Flags,
        }
        let arguments = std::iter::once("coffer-server").chain(texts.iter().copied());
        <Only as clap::Parser>::try_parse_from(arguments).expect("flags that clap knows").flags
    }

    fn variables(pairs: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
        pairs.iter().map(|(name, value)| (name.into(), value.into())).collect()
    }

    fn mistakes(texts: &[&str], pairs: &[(&str, &str)]) -> Vec<String> {
        load(&flags(texts), variables(pairs)).expect_err("a configuration with mistakes").0
    }

    const ENOUGH: [&str; 4] = ["--data", "d", "--key-file", "k"];

    #[test]
    fn defaults_are_safe() {
        let config = load(&flags(&ENOUGH), variables(&[("HOME", "/root")])).expect("a configuration");
        assert_eq!(config.listen, ["127.0.0.1:7470".parse().expect("an address")]);
        let file = Path::new("d/audit.jsonl").to_owned();
        let (service_calls_per_second, calls_per_second) = (limits::SERVICE_CALLS_PER_SECOND, limits::CALLS_PER_SECOND);
        let (max_bytes, keep_files) = (256 << 20, 15);
        let audit = AuditLog { file, sync: false, max_bytes, keep_files, service_calls_per_second, calls_per_second };
        assert_eq!(config.audit, audit);
        assert_eq!((config.tls, config.reflection, config.log.format), (None, false, LogFormat::Text));
        assert_eq!((config.limits.connections, config.limits.connections_per_peer), (10_000, 1_000));
        assert!(config.limits.memory_bytes >= MEMORY_BYTES_MIN);
        let week = Duration::from_secs(7 * 24 * 60 * 60);
        assert_eq!(config.history, History { retention: week, bytes_max: 8 << 30 });
    }

    #[test]
    fn flags_win_over_environment_over_file() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("coffer.toml");
        let toml = "data = 'from-file'\nkey_file = '/keys/root'\nlisten = ['127.0.0.1:1', 'unix:/run/c.sock']\n\
                    [log]\nformat = 'json'\nfilter = 'warn'\n[limits]\nconnections = 7\n";
        fs::write(&file, toml).expect("a file");
        let file = file.to_str().expect("UTF-8");
        let environment = [("COFFER_SERVER_LOG", "debug"), ("COFFER_SERVER_LISTEN", "127.0.0.1:2, [::1]:3")];
        let config = load(&flags(&["--config", file, "--log", "trace"]), variables(&environment)).expect("good");
        assert_eq!(config.store, StoreSetting::Embedded(directory.path().join("from-file")), "relative to the file");
        assert_eq!(config.key, KeySetting::File("/keys/root".into()));
        let listen: Vec<_> = config.listen.iter().map(ToString::to_string).collect();
        assert_eq!(listen, ["127.0.0.1:2", "[::1]:3"]);
        assert_eq!((config.log.filter.as_str(), config.log.format), ("trace", LogFormat::Json));
        assert_eq!(config.limits.connections, 7);

        let by_variable = variables(&[("COFFER_SERVER_CONFIG", file)]);
        let config = load(&Flags::default(), by_variable).expect("the file by the variable");
        assert_eq!(config.log.filter, "warn");
        fs::write(directory.path().join("again.toml"), config.to_string()).expect("a file");
        let again = directory.path().join("again.toml");
        let again = load(&flags(&["--config", again.to_str().expect("UTF-8")]), []).expect("what is shown is a file");
        assert_eq!(again, config);
    }

    #[test]
    fn the_root_key_has_one_source() {
        let credentials = tempfile::tempdir().expect("a directory");
        let directory = [("CREDENTIALS_DIRECTORY", credentials.path().to_str().expect("UTF-8"))];
        let key =
            |texts: &[&str]| load(&flags(&[&["--data", "d"], texts].concat()), variables(&directory)).map(|c| c.key);
        assert!(key(&[]).expect_err("none").0[0].contains("--key-kms is needed"));
        assert_eq!(key(&["--key-kms", "unix:///run/kms.sock"]), Ok(KeySetting::Kms("/run/kms.sock".into())));
        let named = |name: &str| KeySetting::Credential { directory: credentials.path().into(), name: name.to_owned() };
        assert_eq!(key(&["--key-credential", "other"]), Ok(named("other")));
        fs::write(credentials.path().join("coffer.key"), "").expect("written");
        assert_eq!(key(&[]), Ok(named("coffer.key")), "by itself");
        assert_eq!(key(&["--key-file", "k"]), Ok(KeySetting::File("k".into())), "what is named wins");
        let both = key(&["--key-file", "k", "--key-kms", "unix:///s"]).expect_err("two").0;
        assert!(both.len() == 1 && both[0].starts_with("--key-file and --key-kms: "), "{both:?}");
        for bad in [["--key-kms", "127.0.0.1:1"], ["--key-kms", "unix:s"], ["--key-credential", "../k"]] {
            let all = key(&bad).expect_err("bad").0;
            assert!(all.len() == 1 && all[0].starts_with(bad[0]), "{all:?}");
        }
        let all = mistakes(&["--data", "d", "--key-credential", "k"], &[]);
        assert!(all.len() == 1 && all[0].contains("CREDENTIALS_DIRECTORY"), "{all:?}");
    }

    #[test]
    fn every_mistake_is_reported_with_its_name() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("c.toml");
        let toml = "datta = 'x'\nreflection = 'yes'\nlisten = '127.0.0.1:1'\ntls = 3\n[audit]\nfiel = 'x'\nsync = 1\nmax_bytes = 9\nkeep_files = -1\nservice_calls_per_second = 0\ncalls_per_second = 1000001\n\
                    [limits]\nconnections = 0\nmemory_bytes = 5\n[other]\nx = 1\n";
        fs::write(&file, toml).expect("a file");
        let file = file.to_str().expect("UTF-8");
        let environment =
            [("COFFER_SERVER_AUDIT_SYNC", "maybe"), ("COFFER_SERVER_LOGS", "info"), ("COFFER_SERVER_TLS_KEY", "k")];
        let all = mistakes(
            &[
                "--config",
                file,
                "--log",
                "loud=very",
                "--log-format",
                "xml",
                "--listen",
                "nowhere",
                "--listen",
                "unix:x",
            ],
            &environment,
        );
        for part in [
            "COFFER_SERVER_LOGS is no variable of this server",
            "`datta` in ",
            "`reflection` in ",
            "`listen` in ",
            "`tls` in ",
            "`audit.fiel` in ",
            "`audit.sync` in ",
            "`audit.max_bytes` in ",
            "`audit.keep_files` in ",
            "`audit.service_calls_per_second` in ",
            "`audit.calls_per_second` in ",
            "`limits.connections` in ",
            "`limits.memory_bytes` in ",
            "`other` in ",
            "--data, COFFER_SERVER_DATA or `data` in the configuration file is needed",
            "--key-file, --key-credential or --key-kms is needed",
            "COFFER_SERVER_TLS_KEY: a key needs its certificate",
            "--listen: \"nowhere\" is no address",
            "--listen: \"unix:x\" names a unix socket by a relative path",
            "COFFER_SERVER_AUDIT_SYNC: \"maybe\" is neither true nor false",
            "--log: \"loud=very\" is no log filter",
            "--log-format: \"xml\" is no log format",
        ] {
            assert_eq!(all.iter().filter(|mistake| mistake.contains(part)).count(), 1, "{part}\n{all:#?}");
        }
        assert_eq!(all.len(), 22, "{all:#?}");
    }

    #[test]
    fn variables_of_service_links_are_passed_over_and_named() {
        let links = [
            ("COFFER_SERVER_PORT", "tcp://10.0.0.1:7470"),
            ("COFFER_SERVER_PORT_7470_TCP", "tcp://10.0.0.1:7470"),
            ("COFFER_SERVER_SERVICE_HOST", "10.0.0.1"),
        ];
        let config = load(&flags(&ENOUGH), variables(&links)).expect("good");
        assert_eq!(config.links, links.map(|(name, _)| name));
        let text = config.links_text().expect("a text");
        assert!(text.contains("COFFER_SERVER_SERVICE_HOST") && !text.contains("10.0.0.1"), "{text}");
        assert_eq!(load(&flags(&ENOUGH), []).expect("good").links_text(), None);
        let all = mistakes(&ENOUGH, &[&links[..], &[("COFFER_SERVER_PORT_", "7470")]].concat());
        assert_eq!(all, ["COFFER_SERVER_PORT_ is no variable of this server"], "a mistake of spelling");
    }

    #[test]
    fn plaintext_for_other_machines_is_refused() {
        let open = ["--listen", "0.0.0.0:7470", "--listen", "127.0.0.1:1"];
        let all = mistakes(&[&ENOUGH[..], &open].concat(), &[]);
        assert_eq!(all.len(), 1, "{all:?}");
        assert!(all[0].contains("0.0.0.0:7470 can be reached from other machines"), "{all:?}");
        let tls = ["--tls-cert", "c", "--tls-key", "k"];
        load(&flags(&[&ENOUGH[..], &open, &tls].concat()), []).expect("TLS makes it good");
    }

    #[test]
    fn files_that_cannot_be_read_are_named() {
        let all = mistakes(&["--config", "/nowhere/c.toml"], &[]);
        assert!(all[0].contains("/nowhere/c.toml cannot be read"));
        assert_eq!(all.len(), 1, "what it may give is not missed: {all:?}");
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("c.toml");
        fs::write(&file, "data = 'x'\nlisten = [\n").expect("a file");
        let all = mistakes(&["--config", file.to_str().expect("UTF-8")], &[]);
        assert!(all[0].contains("c.toml is no TOML: line ") && all.len() == 1, "{all:?}");
        fs::write(&file, "store = 'etc'\nkey_file = 'k'\n[etcd]\nendpoints = ['http://127.0.0.1:2379']\n")
            .expect("a file");
        let all = mistakes(&["--config", file.to_str().expect("UTF-8")], &[]);
        assert!(all[0].contains("\"etc\" is no store") && all.len() == 1, "{all:?}");
    }
}
