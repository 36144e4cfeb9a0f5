//! An etcd that wants to know who calls: its users, as an operator of etcd makes them.

use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::Etcd;

/// The user of etcd that coffer is.
pub(crate) const COFFER: &str = "coffer";

impl Etcd {
    /// From now on only two may do anything: root, and coffer below these prefixes.
    pub(crate) fn guard(&self, root_password: &str, password: &str, prefixes: &[&str]) {
        self.add_user("root", root_password, "READ", &[]);
        self.add_user(COFFER, password, "READWRITE", prefixes);
        self.post("auth/enable", "{}");
    }

    /// One who may do so much, `READ` or `READWRITE`, below these prefixes, once only few may do anything.
    pub(crate) fn add_user(&self, name: &str, password: &str, permission: &str, prefixes: &[&str]) {
        self.post("auth/user/add", &format!(r#"{{"name":"{name}","password":"{password}"}}"#));
        self.post("auth/role/add", &format!(r#"{{"name":"{name}"}}"#));
        self.post("auth/user/grant", &format!(r#"{{"user":"{name}","role":"{name}"}}"#));
        for prefix in prefixes {
            // `0` follows `/`.
            let end = format!("{}0", prefix.strip_suffix('/').expect("a prefix ends with /"));
            let (key, end) = (STANDARD.encode(prefix), STANDARD.encode(end));
            let all = format!(r#"{{"permType":"{permission}","key":"{key}","range_end":"{end}"}}"#);
            self.post("auth/role/grant", &format!(r#"{{"name":"{name}","perm":{all}}}"#));
        }
    }

    /// Gives coffer another password.
    pub(crate) fn change_password(&self, root_password: &str, password: &str) {
        let login = self.post("auth/authenticate", &format!(r#"{{"name":"root","password":"{root_password}"}}"#));
        let token = login.split_once("\"token\":\"").and_then(|(_, rest)| rest.split('"').next()).expect("a token");
        let change = format!(r#"{{"name":"{COFFER}","password":"{password}"}}"#);
        self.post_as("auth/user/changepw", &change, Some(token));
    }
}
