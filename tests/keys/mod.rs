//! What opens the store: a KMS plugin that comes, goes, changes its key and lies; a credential of systemd; and a server
//! that is sealed until its key is there.

mod former;
mod home;

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use coffer_proto::v1;
use tonic::Code;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_types::StatusExt as _;

use self::home::{Home, health, output, told};
use crate::harness::{
    Server, forms_of, holds,
    kms::{Kms, Lie},
    until_async,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_holds_the_key_over_restarts_and_may_be_gone_meanwhile() {
    let (kms, mut home) = (Kms::new(), Home::new());
    let key = home.plugin();
    let plugin = kms.serve(&home.path("kms.sock"));
    let made = home.init(&key).await;
    assert!(made.status.success(), "{}", told(&made));
    home.start(home.run_command(&key)).await;
    home.serves().await;
    drop(plugin);
    home.serves().await;
    home.stop().await;
    let _plugin = kms.serve(&home.path("kms.sock"));
    home.start(home.run_command(&key)).await;
    home.serves().await;
    home.stop().await;
    // What was wrapped ends with the root key; nothing that anybody can read holds it.
    // After what it is wrapped for, and its id.
    let root = kms.seen()[0][56..].to_vec();
    assert_eq!(root.len(), 32);
    let hex: String = root.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut forms = forms_of(&hex);
    forms.extend([root.clone(), format!("{root:?}").into_bytes()]);
    let mut written = home.data();
    for name in ["log", "audit.log"] {
        written.insert(home.path(name), fs::read(home.path(name)).expect("written"));
    }
    assert!(home.log().len() > 500, "trace says something");
    for (path, bytes) in written {
        assert!(forms.iter().all(|form| !holds(&bytes, form)), "{}", path.display());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_plugin_a_server_is_sealed_and_serves_in_place_when_it_comes() {
    let (kms, mut home) = (Kms::new(), Home::new());
    let key = home.plugin();
    let plugin = kms.serve(&home.path("kms.sock"));
    assert!(home.init(&key).await.status.success());
    drop(plugin);
    home.start(home.run_command(&key)).await;
    let channel = home.endpoint().connect().await.expect("it listens");
    let sealed = async |cause: &str| {
        assert_eq!(health(channel.clone()).await, ServingStatus::NotServing);
        let refused = home.ask(channel.clone()).await.expect_err("it is sealed");
        let details = refused.get_error_details();
        let info = details.error_info().expect("a reason");
        assert_eq!((refused.code(), info.reason.as_str()), (Code::Unavailable, "SEALED"));
        info.metadata.get("cause").is_some_and(|told| told == cause)
    };
    assert!(sealed("KEY_SOURCE_UNREACHABLE").await);
    let second = output(home.run_command(&key)).await;
    assert_eq!(second.status.code(), Some(1), "a second one is refused at once: {}", told(&second));
    kms.lie(Lie::Unhealthy);
    let _plugin = kms.serve(&home.path("kms.sock"));
    until_async("the cause to be told", async || sealed("KEY_SOURCE_UNHEALTHY").await.then_some(())).await;
    kms.lie(Lie::None);
    until_async("the same connection to be served", async || home.ask(channel.clone()).await.ok()).await;
    until_async("health to say so", async || (health(channel.clone()).await == ServingStatus::Serving).then_some(()))
        .await;
    drop(channel);
    home.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sealed_server_ends_when_told_to_and_when_its_plugin_is_a_wrong_one() {
    let (kms, mut home) = (Kms::new(), Home::new());
    let key = home.plugin();
    let plugin = kms.serve(&home.path("kms.sock"));
    assert!(home.init(&key).await.status.success());
    drop(plugin);
    home.start(home.run_command(&key)).await;
    home.stop().await;
    assert!(!home.path("address").exists());
    home.start(home.run_command(&key)).await;
    let other = Kms::new();
    let _plugin = other.serve(&home.path("kms.sock"));
    assert_eq!(home.ended().await, 1, "{}", home.log());
    assert!(home.log().contains("refuses Decrypt"), "{}", home.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn another_key_of_the_plugin_wraps_the_root_key_anew() {
    let (kms, mut home) = (Kms::new(), Home::new());
    let key = home.plugin();
    let _plugin = kms.serve(&home.path("kms.sock"));
    assert!(home.init(&key).await.status.success());
    kms.use_key("key-2");
    home.start(home.run_command(&key)).await;
    until_async("the root key to be wrapped anew", async || {
        let audit = fs::read_to_string(home.path("audit.log")).expect("a log");
        let lines = audit.lines().filter(|line| line.contains("coffer-server/rewrap"));
        lines.clone().any(|line| line.contains("\"done\"") && line.contains("key-2")).then_some(())
    })
    .await;
    home.stop().await;
    kms.destroy_key("key-1");
    home.start(home.run_command(&key)).await;
    home.serves().await;
    home.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_lie_at_init_makes_no_store() {
    let kms = Kms::new();
    for (lie, named) in [
        (Lie::Unhealthy, "is not well"),
        (Lie::OtherVersion, "speaks version"),
        (Lie::LongKeyId, "its key id has 1025 bytes"),
        (Lie::NoKeyId, "its key id is empty"),
        (Lie::LongCiphertext, "its ciphertext has 1025 bytes"),
        (Lie::LongAnnotations, "its annotations have"),
        (Lie::NoDomain, "no fully qualified domain name"),
        (Lie::Unwrapped, "gives the key back unwrapped"),
        (Lie::Forgets, "refuses Decrypt"),
        (Lie::Garbage, "no key of coffer's"),
        (Lie::Huge, "too large"),
        (Lie::Tells, "fails with Internal"),
        (Lie::Hangs, "Status took more than"),
    ] {
        let home = Home::new();
        let _plugin = kms.serve(&home.path("kms.sock"));
        kms.lie(lie);
        let output = home.init(&home.plugin()).await;
        let told = told(&output);
        assert_eq!(output.status.code(), Some(1), "{lie:?}: {told}");
        let error = told.lines().find(|line| line.starts_with("error: ")).expect("an error");
        assert!(error.contains("KMS plugin unix://") && error.contains(named), "{lie:?}: {told}");
        assert!(!home.path("token").exists(), "{lie:?}");
        let all = [told.as_bytes(), &output.stdout].concat();
        assert!(kms.seen().iter().all(|seen| !holds(&all, &seen[56..])), "{lie:?} is repeated");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_does_not_open_the_root_key_in_use_is_handed_no_new_one() {
    let (kms, impostor, mut home) = (Kms::new(), Kms::new(), Home::new());
    let key = home.plugin();
    let plugin = kms.serve(&home.path("kms.sock"));
    assert!(home.init(&key).await.status.success());
    home.start(home.run_command(&key)).await;
    let channel = home.endpoint().connect().await.expect("it listens");
    let token = fs::read_to_string(home.path("token")).expect("a token");
    let rotate = async || {
        let mut request = tonic::Request::new(v1::RotateKeysRequest { keys: v1::RotatedKeys::Root.into() });
        request.metadata_mut().insert("authorization", format!("Bearer {}", token.trim()).parse().expect("a header"));
        let mut stream = v1::operations_client::OperationsClient::new(channel.clone()).rotate_keys(request).await?;
        let mut last = None;
        while let Some(message) = stream.get_mut().message().await? {
            last = message.rotation;
        }
        Ok::<_, tonic::Status>(last.expect("told"))
    };
    drop(plugin);
    let plugin = impostor.serve(&home.path("kms.sock"));
    let refused = rotate().await.expect_err("another plugin");
    assert!(refused.message().contains("key source cannot be used"), "{refused}");
    assert_eq!(impostor.seen().len(), 0, "it was handed something to wrap");
    drop(plugin);
    let _plugin = kms.serve(&home.path("kms.sock"));
    assert!(rotate().await.expect("rotated").end_time.is_some());
    home.stop().await;
    home.start(home.run_command(&key)).await;
    home.serves().await;
    home.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_key_context_or_kind_of_source_opens_nothing_and_harms_nothing() {
    let (kms, mut home, other) = (Kms::new(), Home::new(), Home::new());
    let key = home.plugin();
    let plugin = kms.serve(&home.path("kms.sock"));
    assert!(home.init(&key).await.status.success());
    assert!(other.init(&key).await.status.success(), "one plugin for two stores");
    for (lie, named) in [
        (Lie::OtherStore, "root key of another store"),
        (Lie::Garbage, "no key of coffer's"),
        (Lie::Huge, "too large"),
        (Lie::OtherVersion, "speaks version"),
        (Lie::LongKeyId, "its key id has"),
        (Lie::Tells, "refuses Decrypt"),
    ] {
        kms.lie(lie);
        home.refused(&key, named).await;
    }
    // To ask a plugin, the header must be read, for which the store is opened; what is in it stays.
    kms.lie(Lie::None);
    home.start(home.run_command(&key)).await;
    home.serves().await;
    home.stop().await;
    kms.destroy_key("key-1");
    home.refused(&key, "refuses Decrypt").await;
    // Another kind of source is refused before that.
    let before = home.data();
    let file = home.path("root.key");
    fs::write(&file, "0".repeat(64)).expect("written");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("its own file");
    home.refused(&["--key-file".to_owned(), file.display().to_string()], "wrong key").await;
    home.same_as(&before);
    for again in [&key[..], &["--key-file".to_owned(), file.display().to_string()]] {
        assert_eq!(home.init(again).await.status.code(), Some(1), "never over existing data");
    }
    home.same_as(&before);
    drop(plugin);
}

fn credential(home: &Home, mode: u32) -> PathBuf {
    let directory = home.path("credentials");
    fs::create_dir_all(&directory).expect("made");
    let file = directory.join("coffer.key");
    drop(fs::remove_file(&file));
    fs::write(&file, "0123456789abcdef".repeat(4)).expect("written");
    fs::set_permissions(&file, fs::Permissions::from_mode(mode)).expect("its own file");
    directory
}

#[tokio::test(flavor = "multi_thread")]
async fn a_credential_of_systemd_opens_the_store_and_a_file_with_the_same_key_too() {
    let mut home = Home::new();
    let directory = credential(&home, 0o440);
    let with = |mut command: Command, directory: &Path| {
        command.env("CREDENTIALS_DIRECTORY", directory);
        command
    };
    let mut init = with(home.command("init", &[]), &directory);
    init.arg("--token-file").arg(home.path("token"));
    let made = output(init).await;
    assert!(made.status.success(), "{}", told(&made));
    home.start(with(home.run_command(&[]), &directory)).await;
    home.serves().await;
    home.stop().await;
    let file = home.path("root.key");
    fs::copy(directory.join("coffer.key"), &file).expect("copied");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("its own file");
    home.start(home.run_command(&["--key-file".to_owned(), file.display().to_string()])).await;
    home.serves().await;
    home.stop().await;
    for mode in [0o444, 0o460] {
        let directory = credential(&home, mode);
        let refused = output(with(home.run_command(&[]), &directory)).await;
        assert_eq!(refused.status.code(), Some(1));
        assert!(told(&refused).contains("key credential"), "{}", told(&refused));
    }
    let none = output(home.run_command(&[])).await;
    assert_eq!(none.status.code(), Some(64));
    for name in ["--key-file", "--key-credential", "--key-kms"] {
        assert!(told(&none).contains(name), "{}", told(&none));
    }
    for verb in ["init", "operator"] {
        let both = home.command(verb, &["--key-file".into(), "k".into(), "--key-kms".into(), "unix:///s".into()]);
        let both = output(both).await;
        assert_eq!(both.status.code(), Some(64));
        assert!(told(&both).contains("--key-file and --key-kms"), "{}", told(&both));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn check_config_asks_the_plugin_how_it_is() {
    let (kms, home) = (Kms::new(), Home::new());
    let check = async || {
        let mut command = Server::command(&["check-config", "--data", "/var/lib/coffer"]);
        command.args(home.plugin());
        output(command).await
    };
    assert_eq!(check().await.status.code(), Some(64), "nobody is there");
    let _plugin = kms.serve(&home.path("kms.sock"));
    let good = check().await;
    assert!(good.status.success(), "{}", told(&good));
    assert!(String::from_utf8_lossy(&good.stdout).contains("key_kms = \"unix:///"), "{good:?}");
    assert!(kms.asked() > 0);
    kms.lie(Lie::Unhealthy);
    assert!(told(&check().await).contains("HSM is on fire"));
}
