//! What a server needs to reach etcd may change while it runs.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::Stdio,
};

use coffer_proto::v1;
use tempfile::TempDir;
use tonic::Code;

use crate::harness::{Authority, COFFER, Etcd, Server, secret, text, until_async};

const SCOPE: &str = "projects/p";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_password_of_etcd_is_taken_while_the_server_runs() {
    let etcd = Etcd::start(1);
    etcd.guard("first-of-root", "first-of-coffer", &["coffer/"]);
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("password");
    fs::write(&file, "first-of-coffer\n").expect("written");
    let password_file = format!("user = \"{COFFER}\"\npassword_file = \"{}\"", file.display());

    let config = etcd.config(&password_file);

    set_mode(&file, 0o644);
    let path = |name: &str| directory.path().join(name).display().to_string();
    let refused = Server::command(&["init", "--generate-key", "--config", config.to_str().expect("a path")])
        .args(["--key-file", &path("key"), "--audit-file", &path("audit.log")])
        .output()
        .expect("it starts");
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && said.contains("can be read by everyone"), "{said}");

    // As secrets are mounted for a group.
    set_mode(&file, 0o640);
    let server = Server::builder().on(config).start();
    let manager = server.manager(&[SCOPE]).await;
    manager.secrets().create_secret(secret(SCOPE, "BEFORE", "v")).await.expect("created");

    etcd.change_password("first-of-root", "second-of-coffer");
    until_async("the first password to be of no use", async || {
        manager.secrets().list_secrets(list()).await.err().filter(|status| status.code() == Code::Unavailable)
    })
    .await;
    // One that is refused is tried again, also when nothing of it changes but who may read it.
    set_mode(&file, 0o644);
    fs::write(&file, "second-of-coffer\n").expect("written");
    until_async("the second to be refused", async || server.log().contains("are not read again").then_some(())).await;
    set_mode(&file, 0o640);
    until_async("the second to be used", async || manager.secrets().list_secrets(list()).await.ok()).await;
    manager.secrets().create_secret(secret(SCOPE, "AFTER", "v")).await.expect("created");
}

/// What an operator sees of an etcd that does not let coffer in: part of the error, and of the hint.
struct Case {
    endpoint: String,
    more: String,
    error: String,
    hint: &'static str,
}

/// Checks all at once: a member that does not answer is waited for.
fn all_are_told(home: &TempDir, cases: &[Case]) {
    let check = |(at, Case { endpoint, more, .. }): (usize, &Case)| {
        let (config, key) = (home.path().join(format!("{at}.toml")), home.path().join("root.key"));
        let text = format!("store = \"etcd\"\naudit.file = \"a\"\n[etcd]\nendpoints = [\"{endpoint}\"]\n{more}");
        fs::write(&config, text).expect("written");
        let mut check = Server::command(&["check-config"]);
        check.arg("--config").arg(config).arg("--key-file").arg(key);
        check.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("it starts")
    };
    let checks: Vec<_> = cases.iter().enumerate().map(check).collect();
    for (Case { more, error, hint, .. }, check) in cases.iter().zip(checks) {
        let output = check.wait_with_output().expect("it ends");
        let said = String::from_utf8_lossy(&output.stderr);
        let told = said.lines().find_map(|line| line.strip_prefix("error: ")).unwrap_or_default();
        assert!(output.status.code() == Some(64) && told.contains(error), "{error}: {more}: {said}");
        let help = said.lines().find_map(|line| line.strip_prefix("hint: ")).unwrap_or_default();
        assert!(help.contains(hint), "{hint}: {more}: {said}");
        assert!(!said.contains("first-of") || error.contains("none-of"), "{said}");
    }
}

#[test]
fn what_keeps_coffer_from_etcd_is_told_by_the_settings_that_mend_it() {
    let home = TempDir::new().expect("a directory");
    let key = home.path().join("root.key");
    fs::write(&key, "0".repeat(64)).expect("written");
    set_mode(&key, 0o600);
    let [ours, other] = ["ours", "other"].map(|name| Authority::write_to(&home, name));
    let path = |path: &Path| path.display().to_string();
    let flags = [("cert-file", &ours.certificate), ("key-file", &ours.key), ("trusted-ca-file", &ours.ca)];
    let mut flags: Vec<_> = flags.iter().map(|(flag, file)| format!("--{flag}={}", path(file))).collect();
    flags.push("--client-cert-auth".to_owned());
    let etcd = Etcd::start_with(1, &flags.iter().map(String::as_str).collect::<Vec<_>>());
    let [plain, tls] = [etcd.endpoints().remove(0), etcd.tls_endpoint()];

    let user = |name: &str, password: &str| {
        let file = home.path().join(password);
        fs::write(&file, password).expect("written");
        set_mode(&file, 0o600);
        format!("user = \"{name}\"\npassword_file = \"{}\"\n", path(&file))
    };
    let coffer = user(COFFER, "first-of-coffer");
    let with = |ca: &Authority, certificate: &Authority, key: &Authority| {
        set_mode(&key.key, 0o600);
        let [ca, cert, key] = [&ca.ca, &certificate.certificate, &key.key].map(|file| path(file));
        format!("ca = \"{ca}\"\ncert = \"{cert}\"\nkey = \"{key}\"\n{coffer}")
    };
    let case = |endpoint: &str, more: &str, error: &str, hint| Case {
        endpoint: endpoint.to_owned(),
        more: more.to_owned(),
        error: error.to_owned(),
        hint,
    };
    let unasked =
        case(&plain, &coffer, "authentication is not enabled", "leave out `etcd.user` and `etcd.password_file`");
    all_are_told(&home, &[unasked]);

    etcd.add_user("reader", "first-of-reader", "READ", &["coffer/"]);
    etcd.guard("first-of-root", "first-of-coffer", &["coffer/"]);
    let missing = coffer.replace("first-of", "none-of");
    let prefix = format!("prefix = \"other/\"\n{coffer}");
    let no_certificate = format!("ca = \"{}\"\n{coffer}", path(&ours.ca));
    let no_authority = format!("ca = \"{}\"\n", path(&ours.key));
    let name = format!("server_name = \"etcd.example\"\n{}", with(&ours, &ours, &ours));
    all_are_told(
        &home,
        &[
            case(&plain, "", "etcd wants a user", "`etcd.user` and `etcd.password_file`"),
            case(&plain, &user(COFFER, "another"), "authentication failed", "`etcd.password_file`"),
            case(&plain, &user("nobody", "another"), "authentication failed", "`etcd.user`"),
            case(&plain, &missing, "`etcd.password_file`: ", ""),
            case(&plain, &prefix, "permission denied", "below `etcd.prefix`"),
            case(&plain, &user("reader", "first-of-reader"), "permission denied", "must read and write"),
            case(&tls, &with(&other, &ours, &ours), "invalid peer certificate", "`etcd.ca`"),
            case(&tls, &no_authority, "`etcd.ca`: ", ""),
            case(&tls, &no_certificate, &tls, "`etcd.cert` and `etcd.key`"),
            case(&tls, &with(&ours, &other, &other), &tls, "`etcd.cert` and `etcd.key`"),
            case(&tls, &with(&ours, &ours, &other), "is the key of another certificate than `etcd.cert`", ""),
            case(&tls, &name, "not valid for name", "`etcd.server_name`"),
            case(&tls.replace("https", "http"), &coffer, "http://", "`etcd.endpoints`"),
            case("http://127.0.0.1:1", "", "refused", "`etcd.endpoints`"),
        ],
    );

    let right = etcd.config(&coffer);
    let checked = Server::command(&["check-config", "--audit-file", "a", "--config", right.to_str().expect("a path")])
        .arg("--key-file")
        .arg(&key)
        .output()
        .expect("it starts");
    assert!(checked.status.success(), "{}", text(&checked));
    // A store that cannot be written to is not served.
    let server = Server::builder().on(right).start();
    let reader = etcd.config(&user("reader", "first-of-reader"));
    let started = Server::command(&["run", "--config", reader.to_str().expect("a path")])
        .arg("--key-file")
        .arg(server.key_file())
        .args(["--listen", "127.0.0.1:0", "--audit-file"])
        .arg(home.path().join("audit.log"))
        .output()
        .expect("it starts");
    let told = text(&started);
    assert!(!started.status.success() && told.contains("permission denied") && told.contains("`etcd.user`"), "{told}");
}

fn list() -> v1::ListSecretsRequest {
    v1::ListSecretsRequest { parent: SCOPE.into(), ..Default::default() }
}

fn set_mode(file: &Path, mode: u32) {
    fs::set_permissions(file, Permissions::from_mode(mode)).expect("its own file");
}
