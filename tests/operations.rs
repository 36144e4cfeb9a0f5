//! What goes wrong around a server, and what it says then: locked, read-only, full and foreign data directories, wrong
//! keys, and mistakes in its configuration.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use coffer_proto::v1;
use tonic::Code;

use crate::harness::{Finished, Namespace, Server, binary, refused, secret, unshared};

/// Every file below a directory with its bytes.
fn snapshot(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut pending = vec![directory.to_owned()];
    while let Some(path) = pending.pop() {
        if path.is_dir() {
            pending.extend(fs::read_dir(&path).expect("readable").map(|entry| entry.expect("readable").path()));
        } else {
            let bytes = fs::read(&path).expect("readable");
            found.insert(path, bytes);
        }
    }
    found
}

/// The files that are not as they were.
fn changed(before: &BTreeMap<PathBuf, Vec<u8>>, after: &BTreeMap<PathBuf, Vec<u8>>) -> Vec<PathBuf> {
    let paths: BTreeSet<_> = before.keys().chain(after.keys()).collect();
    paths.into_iter().filter(|path| before.get(*path) != after.get(*path)).cloned().collect()
}

fn finish(output: Output) -> Finished {
    Finished {
        code: output.status.code(),
        stdout: output.stdout,
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Runs a server that must refuse to start.
fn refuses(command: &mut Command) -> Finished {
    let finished = finish(command.stdin(Stdio::null()).output().expect("it starts"));
    assert_ne!(finished.code, Some(0), "it should have refused");
    assert!(finished.stderr.lines().any(|line| line.contains("error")), "without a word: {}", finished.stderr);
    finished
}

#[test]
fn a_second_server_on_the_same_data_is_refused_and_the_first_goes_on() {
    let server = Server::start();
    let second = refuses(&mut server.run_command());
    assert_eq!(second.code, Some(1));
    assert!(second.stderr.contains(&server.data().display().to_string()), "{}", second.stderr);
    assert!(server.audit().iter().all(|line| line.is_object()), "the second wrote nothing into the first's log");
    let token = server.operator_token();
    server.cli(&token).args(["scope", "list"]).run().ok();
}

#[tokio::test]
async fn a_wrong_key_is_refused_before_anything_is_touched() {
    let mut server = Server::start();
    let manager = server.manager(&["projects/p"]).await;
    manager.secrets().create_secret(secret("projects/p", "KEY", "v")).await.expect("created");
    assert!(server.stop().await.success());
    let before = snapshot(&server.data());
    let right = fs::read(server.key_file()).expect("the key");
    let wrong: Vec<u8> =
        right.iter().map(|b| if *b == b'0' { b'1' } else { *b }).map(|b| if b == b'a' { b'b' } else { b }).collect();
    fs::write(server.key_file(), &wrong).expect("replaced");
    let finished = refuses(&mut server.run_command());
    assert_eq!(finished.code, Some(1));
    assert!(finished.stderr.contains("key"), "{}", finished.stderr);
    assert!(!finished.stderr.contains("damage"), "a wrong key is told from damage: {}", finished.stderr);
    assert_eq!(changed(&before, &snapshot(&server.data())), Vec::<PathBuf>::new(), "nothing was touched");
    fs::write(server.key_file(), &right).expect("put back");
    server.run();
    assert_eq!(server.environment("projects/p/servers/s").await, [("KEY".to_owned(), "v".to_owned())]);
}

#[tokio::test]
async fn a_key_is_never_made_over_existing_data_nor_over_a_key() {
    let mut server = Server::start();
    assert!(server.stop().await.success());
    let before = snapshot(&server.data());
    let key = fs::read(server.key_file()).expect("the key");
    let init = |key: &Path, generate: bool| {
        let mut command = Server::command(&["init"]);
        command.arg("--data").arg(server.data()).arg("--key-file").arg(key);
        if generate {
            command.arg("--generate-key");
        }
        refuses(&mut command)
    };
    init(&server.key_file(), false);
    init(&server.key_file(), true);
    let other = server.home().join("other.key");
    init(&other, true);
    assert!(!other.exists(), "a refused init leaves no key behind");
    assert_eq!(fs::read(server.key_file()).expect("the key"), key);
    assert_eq!(changed(&before, &snapshot(&server.data())), Vec::<PathBuf>::new());

    let fresh = server.home().join("fresh");
    let mut command = Server::command(&["init", "--generate-key"]);
    command.arg("--data").arg(&fresh).arg("--key-file").arg(server.key_file());
    refuses(&mut command);
    assert_eq!(fs::read(server.key_file()).expect("the key"), key, "a key is never overwritten");
}

#[tokio::test]
async fn a_key_file_must_be_regular_and_its_owners_alone() {
    let mut server = Server::start();
    assert!(server.stop().await.success());
    let key = server.key_file();
    let mode = |mode: u32| fs::set_permissions(&key, fs::Permissions::from_mode(mode)).expect("its own file");
    for open in [0o644, 0o640, 0o604, 0o660] {
        mode(open);
        let finished = refuses(&mut server.run_command());
        assert!(finished.stderr.contains(&key.display().to_string()), "{}", finished.stderr);
    }
    mode(0o600);
    let good = fs::read(&key).expect("the key");
    for bad in [&b""[..], b"short", &good[..62], &[b'g'; 64], &[b'0'; 1000]] {
        fs::write(&key, bad).expect("written");
        let finished = refuses(&mut server.run_command());
        assert!(finished.stderr.contains(&key.display().to_string()), "{}", finished.stderr);
    }
    fs::remove_file(&key).expect("removed");
    refuses(&mut server.run_command());
    fs::create_dir(&key).expect("a directory in its place");
    refuses(&mut server.run_command());
    fs::remove_dir(&key).expect("removed");
    let elsewhere = server.home().join("elsewhere.key");
    fs::write(&elsewhere, &good).expect("written");
    fs::set_permissions(&elsewhere, fs::Permissions::from_mode(0o600)).expect("its own file");
    symlink("/dev/zero", &key).expect("linked");
    refuses(&mut server.run_command());
}

#[tokio::test]
async fn without_a_store_it_says_what_makes_one() {
    let mut server = Server::start();
    assert!(server.stop().await.success());
    let empty = server.home().join("empty");
    fs::create_dir(&empty).expect("made");
    for data in [&empty, &server.home().join("absent")] {
        let mut command = Server::command(&["run", "--listen", "127.0.0.1:0"]);
        command.arg("--data").arg(data).arg("--key-file").arg(server.key_file());
        command.arg("--audit-file").arg(server.home().join("a"));
        let finished = refuses(&mut command);
        assert!(finished.stderr.contains("init"), "it says what to do: {}", finished.stderr);
    }
}

#[tokio::test]
async fn data_of_a_newer_format_is_left_alone() {
    let mut server = Server::start();
    assert!(server.stop().await.success());
    let format = server.data().join("format");
    let text = fs::read_to_string(&format).expect("the format of the store");
    let known = text.split_whitespace().find_map(|word| word.parse::<u32>().ok()).expect("a number");
    let newer = known + 1;
    fs::write(&format, text.replacen(&known.to_string(), &newer.to_string(), 1)).expect("written");
    let before = snapshot(&server.data());
    let finished = refuses(&mut server.run_command());
    assert_eq!(finished.code, Some(1));
    assert!(finished.stderr.contains(&format!("format {newer}")), "{}", finished.stderr);
    assert_eq!(changed(&before, &snapshot(&server.data())), Vec::<PathBuf>::new());
}

/// Runs `script` where mounts are its own.
fn with_mounts(script: &str, server: &Server) -> Command {
    let mut command = unshared(&[Namespace::Mount]);
    command.args(["sh", "-eu", "-c", script, "sh"]);
    command.arg(binary("coffer-server")).arg(server.home()).stdin(Stdio::null());
    command
}

#[tokio::test]
async fn a_read_only_data_directory_is_refused_by_name() {
    let mut server = Server::start();
    assert!(server.stop().await.success());
    let script = "mount --bind \"$2/data\" \"$2/data\"; mount -o remount,ro,bind \"$2/data\"
        exec \"$1\" run --data \"$2/data\" --key-file \"$2/root.key\" --listen 127.0.0.1:0 --audit-file \"$2/audit.log\"";
    let mut command = with_mounts(script, &server);
    let finished = refuses(&mut command);
    assert_eq!(finished.code, Some(1));
    assert!(finished.stderr.contains("data"), "{}", finished.stderr);
    assert!(!finished.stderr.contains("panicked"), "{}", finished.stderr);
}

#[tokio::test]
async fn on_a_full_disk_writes_are_refused_reads_and_deletes_go_on() {
    let mut server = Server::start();
    assert!(server.stop().await.success());
    fs::remove_dir_all(server.data()).expect("removed");
    fs::remove_file(server.key_file()).expect("removed");
    fs::remove_file(server.operator_token_file()).expect("removed");
    // Only the data lies on the small file system.
    let script = "mkdir \"$2/data\"; mount -t tmpfs -o size=48m none \"$2/data\"
        \"$1\" init --data \"$2/data/store\" --key-file \"$2/root.key\" --generate-key --token-file \"$2/operator.token\"
        exec \"$1\" run --data \"$2/data/store\" --key-file \"$2/root.key\" --listen 127.0.0.1:0 \
            --address-file \"$2/address\" --audit-file \"$2/audit.log\"";
    let command = with_mounts(script, &server);
    server.run_by(command);
    server.grant("users/manager", "secrets:manage", "projects/-").await;
    let manager = server.client(&server.token("users/manager").await);
    let value = "x".repeat(60_000);
    let mut full = None;
    let mut created = Vec::new();
    'filling: for project in 0..200 {
        for n in 0..8 {
            let parent = format!("projects/p{project}");
            match manager.secrets().create_secret(secret(&parent, &format!("S{n}"), &value)).await {
                Ok(secret) => created.push(secret.into_inner().name),
                Err(status) => {
                    full = Some(status);
                    break 'filling;
                }
            }
        }
    }
    let refusal = refused::<()>(Err(full.expect("48 MiB are not endless")));
    assert_eq!(refusal.why(), (Code::ResourceExhausted, "STORAGE_FULL"), "{}", server.log());
    let name = created.pop().expect("some fitted");
    let kept = created.pop().expect("some fitted");
    manager.secrets().get_secret(v1::GetSecretRequest { name: kept }).await.expect("reads go on");
    manager
        .secrets()
        .delete_secret(v1::DeleteSecretRequest { name, ..Default::default() })
        .await
        .expect("deletes go on");
}

#[tokio::test]
async fn without_a_place_for_the_audit_line_nothing_is_done() {
    let server = Server::builder().args(["--audit-file", "/dev/full"]).start();
    let operator = server.operator();
    let request = v1::CreateGrantRequest {
        principal: "users/x".into(),
        permission: "secrets:read".into(),
        pattern: "projects/p".into(),
    };
    let refusal = refused(operator.access().create_grant(request).await);
    assert_eq!(refusal.why(), (Code::Unavailable, "AUDIT_UNAVAILABLE"));
    let grants = operator.access().list_grants(v1::ListGrantsRequest::default()).await;
    let grants = grants.map(|answer| answer.into_inner().grants).unwrap_or_default();
    assert!(grants.iter().all(|grant| grant.principal != "users/x"), "nothing was granted");
}

#[tokio::test]
async fn without_a_place_for_the_audit_line_no_value_leaves() {
    let home = tempfile::TempDir::new().expect("a directory");
    let link = home.path().join("audit.link");
    let mut server = Server::builder().args(["--audit-file".as_ref(), link.as_os_str()]).start_in(home);
    let manager = server.manager(&["projects/p"]).await;
    manager.secrets().create_secret(secret("projects/p", "KEY", "v")).await.expect("created");
    let token = server.workload_token("projects/p/servers/s").await;
    assert!(server.stop().await.success());
    fs::remove_file(&link).expect("removed");
    symlink("/dev/full", &link).expect("linked");
    server.run();
    let client = server.client(&token);
    let fetched = client.workloads().fetch_environment(v1::FetchEnvironmentRequest::default()).await;
    assert_eq!(refused(fetched).why(), (Code::Unavailable, "AUDIT_UNAVAILABLE"));
    let started = server.inject(&token).args(["--timeout", "1s", "--", "echo", "started"]).run();
    assert_eq!((started.code, started.text().as_str()), (Some(69), ""), "{}", started.stderr);
}

#[test]
fn each_mistake_of_the_configuration_is_one_line_that_names_it() {
    let home = tempfile::TempDir::new().expect("a directory");
    let file = home.path().join("coffer.toml");
    let path = file.display().to_string();
    let check = |text: &str, args: &[&str]| {
        fs::write(&file, text).expect("written");
        finish(Server::command(&["check-config", "--config", &path]).args(args).output().expect("it starts"))
    };
    let key = home.path().join("key");
    fs::write(&key, "0".repeat(64)).expect("written");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("its own file");
    let good = &format!("data = \"/var/lib/coffer\"\nkey_file = \"{}\"\n", key.display());
    let fine = check(good, &[]);
    assert_eq!(fine.code, Some(0), "{}", fine.stderr);
    assert!(fine.text().contains("/var/lib/coffer"));

    for (text, args, named) in [
        ("daat = \"x\"\n", &[][..], "daat"),
        (good, &["--listen", "0.0.0.0:7470"], "0.0.0.0:7470"),
        (good, &["--listen", "nonsense"], "nonsense"),
        (good, &["--listen", "unix:relative"], "unix:relative"),
        (good, &["--tls-cert", "/x"], "tls"),
        ("data = 7\n", &[], "data"),
        ("data = \"/x\"\n", &[], "key"),
        ("not toml at all", &[], "coffer.toml"),
    ] {
        let finished = check(text, args);
        assert_eq!(finished.code, Some(64), "{text} {args:?}: {}", finished.stderr);
        assert!(finished.stderr.to_lowercase().contains(named), "{named}: {}", finished.stderr);
    }
    let both = check("daat = 1\nlisten = [\"0.0.0.0:1\"]\n", &[]);
    assert!(both.stderr.lines().filter(|line| line.starts_with("error:")).count() >= 1, "{}", both.stderr);

    let unknown = Server::command(&["check-config", "--config", &path]).env("COFFER_SERVER_DAAT", "x").output();
    let unknown = finish(unknown.expect("it starts"));
    assert_eq!(unknown.code, Some(64));
    assert!(unknown.stderr.contains("COFFER_SERVER_DAAT"), "{}", unknown.stderr);
}
