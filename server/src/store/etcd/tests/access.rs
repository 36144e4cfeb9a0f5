//! TLS and users.

use std::fs;

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use zeroize::Zeroizing;

use super::{
    commit_of, keys_of,
    server::{Server, free_port},
    soon,
};
use crate::store::{
    Epoch, Error, Store as _, Writes,
    conformance::{put, records, transaction},
    etcd::{Etcd, EtcdOptions, Identity, OpenError, Tls, User},
};

/// An authority, with the certificates it signed in files.
struct Authority {
    dir: TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an authority");
        let dir = tempfile::tempdir().expect("a directory");
        fs::write(dir.path().join("ca.pem"), issuer.pem()).expect("write");
        Self { dir, issuer }
    }

    /// A certificate and its key, in PEM.
    fn sign(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        (params.signed_by(&key, &self.issuer).expect("a certificate").pem(), key.serialize_pem())
    }

    fn file(&self, name: &str, content: &str) -> String {
        let path = self.dir.path().join(name);
        fs::write(&path, content).expect("write");
        path.display().to_string()
    }
}

/// Sets etcd's users up, through its JSON gateway. An answer without `error` is a good one.
async fn post(port: u16, path: &str, body: &str) {
    let mut socket = TcpStream::connect(("127.0.0.1", port)).await.expect("connect");
    let length = body.len();
    let request = format!(
        "POST /v3/{path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    socket.write_all(request.as_bytes()).await.expect("write");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.expect("read");
    assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
}

async fn add_users(port: u16) {
    let range = [&b"coffer/"[..], b"coffer0"].map(|key| BASE64.encode(key));
    for name in ["root", "coffer"] {
        post(port, "auth/user/add", &format!(r#"{{"name":"{name}","password":"password-of-{name}"}}"#)).await;
        post(port, "auth/role/add", &format!(r#"{{"name":"{name}"}}"#)).await;
        post(port, "auth/user/grant", &format!(r#"{{"user":"{name}","role":"{name}"}}"#)).await;
    }
    let permission = format!(r#"{{"permType":"READWRITE","key":"{}","range_end":"{}"}}"#, range[0], range[1]);
    post(port, "auth/role/grant", &format!(r#"{{"name":"coffer","perm":{permission}}}"#)).await;
    post(port, "auth/enable", "{}").await;
}

#[tokio::test]
async fn over_tls_as_a_user_who_may_write_below_the_prefix_alone() {
    let authority = Authority::new();
    let (certificate, key) = authority.sign("etcd.example");
    let (own, own_key) = authority.sign("coffer.example");
    let plain = free_port();
    let flags = [
        format!("--cert-file={}", authority.file("cert.pem", &certificate)),
        format!("--key-file={}", authority.file("key.pem", &key)),
        "--client-cert-auth".to_owned(),
        format!("--trusted-ca-file={}", authority.dir.path().join("ca.pem").display()),
        // For the one who sets it up.
        format!("--listen-client-urls=http://127.0.0.1:{plain}"),
    ];
    let mut server = Server::start_with(&flags.each_ref().map(String::as_str));
    add_users(plain).await;

    let password = |text: &str| Zeroizing::new(text.to_owned());
    let port = server.port;
    let options = |name: Option<&str>, user: Option<(&str, &str)>, has_identity: bool| EtcdOptions {
        endpoints: vec![format!("https://127.0.0.1:{port}")],
        prefix: "coffer/".into(),
        tls: Some(Tls {
            ca: authority.issuer.pem().into_bytes(),
            identity: has_identity.then(|| Identity {
                certificate: own.clone().into_bytes(),
                key: Zeroizing::new(own_key.clone().into_bytes()),
            }),
            name: name.map(str::to_owned),
        }),
        user: user.map(|(name, text)| User { name: name.into(), password: password(text) }),
    };
    let right = (Some("etcd.example"), Some(("coffer", "password-of-coffer")), true);
    let of = |(name, user, has_identity)| options(name, user, has_identity);

    for (wrong, why) in [
        ((None, right.1, true), "another name in the certificate"),
        ((right.0, Some(("coffer", "wrong")), true), "a wrong password"),
        ((right.0, None, true), "no user"),
        ((right.0, right.1, false), "no certificate of its own"),
    ] {
        let refused = soon(Etcd::create(of(wrong))).await;
        assert!(matches!(refused, Err(OpenError::Store(Error::Unavailable(_)))), "{why}: {refused:?}");
    }
    let elsewhere = soon(Etcd::create(EtcdOptions { prefix: "other/".into(), ..of(right) })).await;
    assert!(matches!(elsewhere, Err(OpenError::Store(Error::Unavailable(_)))), "{elsewhere:?}");

    Etcd::create(of(right)).await.expect("create");
    let store = Etcd::open(of(right)).await.expect("open");
    let mut follower = store.changes(store.latest().await.expect("latest")).await.expect("a follower");
    store.commit(transaction([put("before", "")])).await.expect("commit").expect("no conflict");
    assert_eq!(keys_of(&commit_of(&mut follower).await), ["before"]);
    assert_eq!(store.condition().await.writes, Writes::All);
    // A member that is started again knows no token any more.
    server.restart();
    soon(store.commit(transaction([put("after", "")]))).await.expect("commit").expect("no conflict");
    assert_eq!(keys_of(&commit_of(&mut follower).await), ["after"]);
    assert_eq!(records(&store).await.1.len(), 2);
}

/// A token of etcd's own names a revision of its log, which it waits for: here one that never comes.
#[tokio::test]
async fn an_etcd_with_users_that_was_put_back_is_reached_again() {
    let mut server = Server::start();
    add_users(server.port).await;
    let options = |server: &Server| {
        let password = Zeroizing::new("password-of-coffer".to_owned());
        EtcdOptions { user: Some(User { name: "coffer".into(), password }), ..server.options("coffer/") }
    };
    Etcd::create(options(&server)).await.expect("create");
    let copy = server.copy();
    // What its log has from now on is lost.
    let writer = Etcd::open(options(&server)).await.expect("open");
    for at in 0..100 {
        soon(writer.commit(transaction([put(&format!("{at}"), "")]))).await.expect("commit").expect("no conflict");
    }
    let store = Etcd::open(options(&server)).await.expect("open");
    store.latest().await.expect("with a token of now");
    server.put_back(&copy);
    let loaded = soon(async {
        loop {
            if let Ok(load) = store.load().await {
                return load.position();
            }
        }
    });
    assert_eq!(loaded.await.epoch, Epoch(2));
}

#[tokio::test]
async fn new_certificates_are_taken_without_opening_anew() {
    let [old, new] = [Authority::new(), Authority::new()];
    let pair = |authority: &Authority| {
        let (certificate, key) = authority.sign("127.0.0.1");
        (authority.issuer.pem(), certificate, key)
    };
    let ((old_ca, old_certificate, old_key), (new_ca, new_certificate, new_key)) = (pair(&old), pair(&new));
    let ca = old.file("trusted.pem", &old_ca);
    let flags = [
        format!("--cert-file={}", old.file("cert.pem", &old_certificate)),
        format!("--key-file={}", old.file("key.pem", &old_key)),
        "--client-cert-auth".to_owned(),
        format!("--trusted-ca-file={ca}"),
    ];
    let mut server = Server::start_with(&flags.each_ref().map(String::as_str));
    let port = server.port;
    let options = |ca: &str, certificate: &str, key: &str| EtcdOptions {
        endpoints: vec![format!("https://127.0.0.1:{port}")],
        prefix: "coffer/".into(),
        tls: Some(Tls {
            ca: ca.as_bytes().to_vec(),
            identity: Some(Identity {
                certificate: certificate.as_bytes().to_vec(),
                key: Zeroizing::new(key.as_bytes().to_vec()),
            }),
            name: None,
        }),
        user: None,
    };
    Etcd::create(options(&old_ca, &old_certificate, &old_key)).await.expect("create");
    let store = Etcd::open(options(&old_ca, &old_certificate, &old_key)).await.expect("open");
    let mut follower = store.changes(store.latest().await.expect("latest")).await.expect("a follower");
    store.commit(transaction([put("before", "")])).await.expect("commit").expect("no conflict");
    assert_eq!(keys_of(&commit_of(&mut follower).await), ["before"]);

    for (name, content) in [("trusted.pem", &new_ca), ("cert.pem", &new_certificate), ("key.pem", &new_key)] {
        old.file(name, content);
    }
    server.restart();
    let refused = soon(store.latest()).await;
    assert!(matches!(refused, Err(Error::Unavailable(_))), "{refused:?}");
    let half = store.renew(options(&new_ca, &new_certificate, &old_key)).await;
    assert!(matches!(half, Err(Error::Invalid(_))), "a key of another certificate: {half:?}");
    store.renew(options(&new_ca, &new_certificate, &new_key)).await.expect("good files");
    soon(store.commit(transaction([put("after", "")]))).await.expect("commit").expect("no conflict");
    assert_eq!(keys_of(&commit_of(&mut follower).await), ["after"], "and followers go on");
}

#[tokio::test]
async fn what_cannot_be_meant_is_refused_before_anything_is_asked() {
    let tls = || Some(Tls { ca: Vec::new(), identity: None, name: None });
    let cases = [
        (vec![], None),
        (vec!["127.0.0.1:2379"], None),
        (vec!["ftp://127.0.0.1:2379"], None),
        (vec!["https://127.0.0.1:2379"], None),
        (vec!["http://127.0.0.1:2379"], tls()),
    ];
    for (endpoints, tls) in cases {
        let endpoints: Vec<_> = endpoints.into_iter().map(str::to_owned).collect();
        let options = EtcdOptions { endpoints: endpoints.clone(), prefix: "coffer/".into(), tls, user: None };
        let refused = Etcd::open(options).await.err();
        assert!(matches!(refused, Some(OpenError::Store(Error::Invalid(_)))), "{endpoints:?}: {refused:?}");
    }
}
