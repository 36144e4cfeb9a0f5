//! Where the store is.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use super::{
    resolve::{Resolver, single},
    setting::{Given, Item},
};

/// Most endpoints of one etcd cluster: it has 3 or 5 members, seldom 7.
const ENDPOINTS_MAX: usize = 16;
/// Longest time for which something stale can be asked for.
const MAX_STALE_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Where the store is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreSetting {
    /// In a directory of this server's alone.
    Embedded(PathBuf),
    /// In an etcd cluster, which several servers share.
    Etcd(Box<EtcdSetting>),
}

/// How an etcd cluster is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EtcdSetting {
    /// Its members: `https://host:port`, or `http://host:port` on this machine.
    pub endpoints: Vec<String>,
    /// What all keys begin with; ends with `/`.
    pub prefix: String,
    /// Certificates of those who may sign etcd's, in PEM; given with `https` endpoints.
    pub ca: Option<PathBuf>,
    /// Coffer's own certificate and its key, in PEM.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// The name in etcd's certificates, if it is none of the endpoints'.
    pub server_name: Option<String>,
    /// A user of etcd, and the file with the password.
    pub user: Option<(String, PathBuf)>,
    /// How long workloads are answered while etcd is out of reach.
    pub max_stale: Duration,
    /// Where this server keeps what can be restored, if it does.
    pub history: Option<PathBuf>,
}

impl EtcdSetting {
    /// [`EtcdSetting::prefix`] when nothing says otherwise.
    pub const PREFIX_DEFAULT: &str = "coffer/";
    /// [`EtcdSetting::max_stale`] when nothing says otherwise: 10 minutes.
    pub const MAX_STALE_DEFAULT: Duration = Duration::from_secs(10 * 60);
    /// Longest [`EtcdSetting::prefix`], in bytes: what the store takes.
    pub const PREFIX_BYTES_MAX: usize = 64;

    /// Where the store is, for people.
    pub fn place(&self) -> String {
        format!("etcd, below {}", self.prefix)
    }
}

impl StoreSetting {
    /// Where it is, for people.
    pub fn place(&self) -> String {
        match self {
            StoreSetting::Embedded(data) => data.display().to_string(),
            StoreSetting::Etcd(etcd) => etcd.place(),
        }
    }

    /// Its directory, if it has one.
    pub fn directory(&self) -> Option<&PathBuf> {
        match self {
            StoreSetting::Embedded(data) => Some(data),
            StoreSetting::Etcd(_) => None,
        }
    }
}

const OF_ETCD: [Item; 10] = [
    Item::EtcdEndpoints,
    Item::EtcdPrefix,
    Item::EtcdCa,
    Item::EtcdCert,
    Item::EtcdKey,
    Item::EtcdServerName,
    Item::EtcdUser,
    Item::EtcdPasswordFile,
    Item::EtcdMaxStale,
    Item::EtcdHistory,
];

/// The etcd that a file asks for, if it does; of a file in which everything else was found good.
pub(super) fn etcd_of(given: Vec<Given>) -> Result<Option<EtcdSetting>, Vec<String>> {
    let is_asked_for = given.iter().any(|given| given.key == Item::Store && single(&given.texts) == "etcd");
    if !is_asked_for {
        return Ok(None);
    }
    let mut resolver = Resolver { given, credentials: None, mistakes: Vec::new(), is_whole: true };
    let etcd = resolver.etcd();
    if resolver.mistakes.is_empty() { Ok(etcd) } else { Err(resolver.mistakes) }
}

impl Resolver {
    pub(super) fn store(&mut self) -> Option<StoreSetting> {
        let data = self.path(Item::Data);
        let is_in_etcd = self.pick(Item::Store, |texts| match single(texts) {
            "embedded" => Ok(false),
            "etcd" => Ok(true),
            other => Err(vec![format!("{other:?} is no store: give embedded or etcd")]),
        });
        let etcd = self.etcd();
        if is_in_etcd.is_none() && self.source(Item::Store).is_some() {
            return None;
        }
        if is_in_etcd == Some(true) {
            self.refuse(Item::Data, "a server with its store in etcd has no data directory");
            if self.source(Item::AuditFile).is_none() {
                self.missing(
                    "--audit-file, COFFER_SERVER_AUDIT_FILE or `audit.file` in the configuration file is needed: with its \
                     store in etcd a server has no data directory"
                        .to_owned(),
                );
            }
            return etcd.map(Box::new).map(StoreSetting::Etcd);
        }
        self.require(Item::Data);
        for item in OF_ETCD {
            self.refuse(item, "is of a store in etcd, which `store = \"etcd\"` asks for");
        }
        data.map(StoreSetting::Embedded)
    }

    /// Complains about what must not be given.
    fn refuse(&mut self, item: Item, why: &str) {
        if let Some(source) = self.source(item) {
            let mistake = format!("{source}: {why}");
            self.mistakes.push(mistake);
        }
    }

    fn etcd(&mut self) -> Option<EtcdSetting> {
        let is_given = OF_ETCD.iter().any(|item| self.source(*item).is_some()) || self.source(Item::Store).is_some();
        if !is_given {
            return None;
        }
        let endpoints = self.pick(Item::EtcdEndpoints, endpoints);
        let prefix = self.pick(Item::EtcdPrefix, |texts| prefix(single(texts)));
        let (ca, cert, key) = (self.path(Item::EtcdCa), self.path(Item::EtcdCert), self.path(Item::EtcdKey));
        let identity = self.both(Item::EtcdCert, cert, Item::EtcdKey, key, "a certificate and its key belong together");
        let server_name = self.pick(Item::EtcdServerName, |texts| Ok(single(texts).to_owned()));
        let user = self.pick(Item::EtcdUser, |texts| match single(texts) {
            "" => Err(vec!["the name is empty".to_owned()]),
            // As etcdctl takes them. Not repeated.
            name if name.contains(':') => Err(vec![
                "a name has no `:`; the password stands in the file that `etcd.password_file` names".to_owned(),
            ]),
            name => Ok(name.to_owned()),
        });
        let password = self.path(Item::EtcdPasswordFile);
        let user = self.both(
            Item::EtcdUser,
            user,
            Item::EtcdPasswordFile,
            password,
            "a user needs a password, and the other way round",
        );
        let max_stale = self.pick(Item::EtcdMaxStale, |texts| match humantime::parse_duration(single(texts)) {
            Ok(time) if time <= MAX_STALE_MAX => Ok(time),
            _ => Err(vec![format!("{:?} is no time of at most 24 hours, such as 10m; 0s is never", single(texts))]),
        });
        let history = self.path(Item::EtcdHistory);
        let Some(endpoints) = endpoints else {
            self.missing_endpoints();
            return None;
        };
        let has_tls = endpoints.iter().any(|endpoint| endpoint.starts_with("https://"));
        if has_tls && self.source(Item::EtcdCa).is_none() {
            self.mistakes.push("`etcd.ca` in the configuration file is needed for https:// endpoints".to_owned());
        }
        Some(EtcdSetting {
            endpoints,
            prefix: prefix.unwrap_or_else(|| EtcdSetting::PREFIX_DEFAULT.to_owned()),
            ca,
            identity,
            server_name,
            user,
            max_stale: max_stale.unwrap_or(EtcdSetting::MAX_STALE_DEFAULT),
            history,
        })
    }

    fn missing_endpoints(&mut self) {
        let is_wanted = self.given.iter().any(|given| given.key == Item::Store && single(&given.texts) == "etcd");
        if is_wanted && self.source(Item::EtcdEndpoints).is_none() {
            self.mistakes.push("`etcd.endpoints` in the configuration file is needed".to_owned());
        }
    }

    /// Two that are of use together only.
    fn both<A, B>(&mut self, a: Item, one: Option<A>, b: Item, other: Option<B>, why: &str) -> Option<(A, B)> {
        match (self.source(a).is_some(), self.source(b).is_some()) {
            (true, false) => self.refuse(a, why),
            (false, true) => self.refuse(b, why),
            _ => {}
        }
        Some((one?, other?))
    }
}

fn endpoints(texts: &[String]) -> Result<Vec<String>, Vec<String>> {
    let mut complaints: Vec<_> = texts.iter().filter_map(|text| wrong_endpoint(text)).collect();
    if texts.is_empty() {
        complaints.push("the list is empty".to_owned());
    }
    if texts.len() > ENDPOINTS_MAX {
        complaints.push(format!("more than {ENDPOINTS_MAX} endpoints"));
    }
    if complaints.is_empty() { Ok(texts.to_vec()) } else { Err(complaints) }
}

/// What is wrong with an endpoint.
fn wrong_endpoint(text: &str) -> Option<String> {
    // Not repeated.
    if text.contains('@') {
        return Some(
            "an endpoint has no user and password in it: `etcd.user` and `etcd.password_file` say them".to_owned(),
        );
    }
    let (is_plain, authority) = match (text.strip_prefix("https://"), text.strip_prefix("http://")) {
        (Some(authority), _) => (false, authority),
        (None, Some(authority)) => (true, authority),
        (None, None) => return Some(format!("{text:?} is no endpoint: give https://host:port")),
    };
    let (host, port) = authority.rsplit_once(':').unwrap_or((authority, ""));
    let is_host = !host.is_empty() && host.chars().all(|c| c.is_ascii_alphanumeric() || "-._:[]".contains(c));
    if !is_host || !port.parse::<u16>().is_ok_and(|port| port > 0) {
        return Some(format!("{text:?} is no endpoint: give https://host:port"));
    }
    let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
    let is_here = host == "localhost" || address.is_ok_and(|address| address.is_loopback());
    (is_plain && !is_here).then(|| format!("{text:?} is on another machine, so it must be https://"))
}

fn prefix(text: &str) -> Result<String, Vec<String>> {
    let is_good = text.len() > 1
        && text.len() <= EtcdSetting::PREFIX_BYTES_MAX
        && text.ends_with('/')
        && text.bytes().all(|byte| byte.is_ascii_graphic());
    match is_good {
        true => Ok(text.to_owned()),
        false => Err(vec![format!(
            "{text:?} is no prefix: printable ASCII that ends with /, at most {} bytes",
            EtcdSetting::PREFIX_BYTES_MAX
        )]),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::config::{Config, Flags, load};

    /// What a file says, with a key and an audit log beside it.
    fn loaded(text: &str, flags: Flags) -> Result<Config, Vec<String>> {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("coffer.toml");
        fs::write(&file, text).expect("written");
        load(&Flags { config: Some(file), key_file: Some("k".to_owned()), ..flags }, []).map_err(|mistakes| mistakes.0)
    }

    fn mistakes(text: &str) -> Vec<String> {
        let flags = Flags { audit_file: Some("a".to_owned()), ..Flags::default() };
        loaded(text, flags).map(drop).expect_err("mistakes")
    }

    #[test]
    fn etcd_is_reached_as_the_file_says_and_shown_again() {
        let text = r#"
            store = "etcd"
            [etcd]
            endpoints = ["https://e1:2379", "https://[fe80::1]:2379"]
            prefix = "secrets/"
            ca = "/ca"
            cert = "/cert"
            key = "/key"
            server_name = "etcd"
            user = "coffer"
            password_file = "/password"
            max_stale = "1m"
            history = "/history"
        "#;
        let flags = || Flags { audit_file: Some("a".to_owned()), ..Flags::default() };
        let config = loaded(text, flags()).expect("a configuration");
        let expected = EtcdSetting {
            endpoints: vec!["https://e1:2379".to_owned(), "https://[fe80::1]:2379".to_owned()],
            prefix: "secrets/".to_owned(),
            ca: Some("/ca".into()),
            identity: Some(("/cert".into(), "/key".into())),
            server_name: Some("etcd".to_owned()),
            user: Some(("coffer".to_owned(), "/password".into())),
            max_stale: Duration::from_secs(60),
            history: Some("/history".into()),
        };
        assert_eq!(config.store, StoreSetting::Etcd(Box::new(expected)));
        let shown = config.to_string();
        let key = "key_file = \"k\"\n";
        assert!(shown.contains(key), "{shown}");
        let again = loaded(&shown.replace(key, ""), Flags::default()).expect("what is shown gives the same");
        assert_eq!(again.store, config.store);
        let least =
            "store = 'etcd'\n[etcd]\nendpoints = ['http://127.0.0.1:2379', 'http://localhost:1', 'http://[::1]:2']";
        let StoreSetting::Etcd(etcd) = loaded(least, flags()).expect("enough").store else { panic!("in etcd") };
        assert_eq!((etcd.prefix.as_str(), etcd.max_stale, etcd.history), ("coffer/", Duration::from_secs(600), None));
    }

    #[test]
    fn what_is_wrong_or_does_not_belong_together_is_named() {
        let told = mistakes("store = 'etc'\ndata = 'd'");
        assert!(told.iter().any(|mistake| mistake.contains("is no store: give embedded or etcd")), "{told:?}");
        let told = mistakes("data = 'd'\n[etcd]\nuser = 'u'\nmax_stale = '1m'");
        assert_eq!(told.iter().filter(|mistake| mistake.contains("is of a store in etcd")).count(), 2, "{told:?}");
        let told = mistakes("store = 'etcd'\ndata = 'd'\n[etcd]\nprefix = 'x/'");
        for part in ["has no data directory", "`etcd.endpoints` in the configuration file is needed"] {
            assert!(told.iter().any(|mistake| mistake.contains(part)), "{part}: {told:?}");
        }
        let text = "store = 'etcd'\n[etcd]\nendpoints = ['http://etcd:1', 'https://a', 'a:1', 'https://a:1']\nprefix = 'x'\n\
                    cert = 'c'\nuser = 'u'\nmax_stale = 'long'";
        let told = mistakes(text);
        for part in [
            "\"http://etcd:1\" is on another machine, so it must be https://",
            "\"https://a\" is no endpoint",
            "\"a:1\" is no endpoint",
            "\"x\" is no prefix",
            "a certificate and its key belong together",
            "a user needs a password",
            "\"long\" is no time",
        ] {
            assert!(told.iter().any(|mistake| mistake.contains(part)), "{part}: {told:?}");
        }
        let told = mistakes("store = 'etcd'\n[etcd]\nendpoints = ['http://u:hunter2@[::1]:1']\nuser = 'u:hunter2'");
        for part in ["no user and password in it", "a name has no `:`"] {
            assert!(told.iter().any(|mistake| mistake.contains(part)), "{part}: {told:?}");
        }
        assert!(told.iter().all(|mistake| !mistake.contains("hunter2")), "{told:?}");
        let told = mistakes("store = 'etcd'\n[etcd]\nendpoints = ['https://a:1']");
        assert_eq!(told, ["`etcd.ca` in the configuration file is needed for https:// endpoints"]);
        let told = loaded("store = 'etcd'\n[etcd]\nendpoints = ['http://[::1]:1']", Flags::default()).map(drop);
        assert!(told.expect_err("no audit log")[0].contains("`audit.file`"));
    }
}
