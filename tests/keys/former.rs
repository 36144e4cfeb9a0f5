//! A plugin changes its key while the past is kept: what can be restored of before opens with the former key, and is verified
//! with it; without it verification says what does not open, which key that needs, and that the rest is good.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::home::{Home, output};
use crate::harness::{Etcd, Server, Tool, kms::Kms, text, until_async};

impl Home {
    /// The command line as the operator, to its end.
    async fn cli(&self, line: &str) {
        let address = fs::read_to_string(self.path("address")).expect("it listens");
        let tool =
            Tool::new("coffer").env("COFFER_ADDRESS", address.trim()).env("COFFER_TOKEN_FILE", self.path("token"));
        let tool = tool.args(line.split(' ')).stdin("value");
        tokio::task::spawn_blocking(move || tool.run()).await.expect("no panic").ok();
    }

    /// From now on the plugin wraps by another key, as the server has heard when this returns.
    async fn change_key(&mut self, kms: &Kms, key_id: &str) {
        self.stop().await;
        kms.use_key(key_id);
        self.start(self.run_command(&self.plugin())).await;
        until_async("the root key to be wrapped anew", async || {
            let audit = fs::read_to_string(self.path("audit.log")).expect("a log");
            let mut lines = audit.lines().filter(|line| line.contains("coffer-server/rewrap"));
            lines
                .any(|line| line.contains("\"done\"") && line.contains(&format!("\"key_id\":\"{key_id}\"")))
                .then_some(())
        })
        .await;
    }

    /// Whether all of it is good, and what was said.
    async fn verified(&self, source: &Path) -> (bool, String) {
        let mut command = Server::command(&["verify"]);
        command.args(self.plugin()).arg(source);
        let done = output(command).await;
        (done.status.success(), text(&done))
    }
}

const NOT_HERE: &str =
    "hint: its bytes are whole; it opens with the key that the store had then, which is not available here";

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_opens_as_far_back_as_it_can_be_restored_or_says_which_key_is_missing() {
    let (kms, mut home) = (Kms::new(), Home::new());
    let plugin = kms.serve(&home.path("kms.sock"));
    assert!(home.init(&home.plugin()).await.status.success());
    home.start(home.run_command(&home.plugin())).await;
    home.cli("grant create users/operator secrets:manage projects/p").await;
    home.cli("secret create projects/p/secrets/A").await;
    let backup = home.path("first.backup");
    home.cli(&format!("store backup {}", backup.display())).await;
    home.change_key(&kms, "key-2").await;
    home.cli("secret create projects/p/secrets/B").await;
    home.change_key(&kms, "key-3").await;
    home.stop().await;
    let data = home.path("data");
    for source in [&data, &backup] {
        let (is_good, told) = home.verified(source).await;
        assert!(is_good && told.contains("all open"), "{told}");
    }

    kms.destroy_key("key-1");
    let (is_good, told) = home.verified(&data).await;
    let before = told.split("what is before 1.").nth(1).and_then(|rest| rest.split(' ').next());
    let before: u32 = before.and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("{told}"));
    assert!(!is_good && told.starts_with("whole: 1.") && told.contains("(wrapped by kms key key-1)"), "{told}");
    assert!(!told.contains("key-2") && told.contains(NOT_HERE), "{told}");
    let (is_good, told) = home.verified(&backup).await;
    assert!(!is_good && told.contains("(wrapped by kms key key-1)") && told.contains(NOT_HERE), "{told}");
    // The position says where it begins to open.
    for (revision, is_good) in [(before - 1, false), (before, true)] {
        let restored = home.path(&format!("restored-{revision}"));
        let mut command = Server::command(&["restore", "--to-position", &format!("1.{revision}"), "--data"]);
        command.arg(&restored).arg(&data);
        let done = output(command).await;
        assert!(done.status.success(), "{}", text(&done));
        let (opens, told) = home.verified(&restored).await;
        assert_eq!(opens, is_good, "1.{revision}: {told}");
    }

    kms.destroy_key("key-2");
    let (is_good, told) = home.verified(&data).await;
    assert!(!is_good && told.contains("kms key key-1)") && told.contains("kms key key-2)"), "{told}");
    assert_eq!(told.matches("does not open: ").count(), 2, "{told}");
    drop(plugin);
    let (is_good, told) = home.verified(&data).await;
    assert!(!is_good && told.contains("does not answer") && told.contains("once the key source is well"), "{told}");
}

/// Servers on one etcd, one after the other: with the history kept, without, so that there is a gap, and with it again.
async fn history(kms: &Kms, home: &mut Home) -> PathBuf {
    let etcd = Etcd::start(1);
    let history = home.path("history");
    let (with, without) = (etcd.config(&format!("history = {history:?}")), etcd.config(""));
    home.on(with.clone());
    assert!(home.init(&home.plugin()).await.status.success());
    home.start(home.run_command(&home.plugin())).await;
    home.cli("grant create users/operator secrets:manage projects/p").await;
    home.cli("secret create projects/p/secrets/A").await;
    home.cli("snapshot create").await;
    home.on(without);
    home.change_key(kms, "key-2").await;
    home.cli("secret create projects/p/secrets/B").await;
    home.stop().await;
    etcd.ask().compact(0).await;
    home.on(with);
    home.start(home.run_command(&home.plugin())).await;
    home.cli("snapshot create").await;
    home.change_key(kms, "key-3").await;
    home.cli("secret create projects/p/secrets/C").await;
    home.cli("snapshot create").await;
    home.stop().await;
    history
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_of_a_history_that_does_not_open_hides_no_other() {
    let (kms, mut home) = (Kms::new(), Home::new());
    let _plugin = kms.serve(&home.path("kms.sock"));
    let history = history(&kms, &mut home).await;
    let lines = |told: &str| told.matches("all open; a run of the history").count();
    let (is_good, told) = home.verified(&history).await;
    assert!(is_good && lines(&told) == 2, "{told}");

    kms.destroy_key("key-1");
    let (is_good, told) = home.verified(&history).await;
    assert!(!is_good && lines(&told) == 1 && told.contains("(wrapped by kms key key-1)"), "{told}");
    assert!(told.contains(NOT_HERE) && told.contains(": 1 of 2 runs are not good"), "{told}");

    kms.destroy_key("key-2");
    let (is_good, told) = home.verified(&history).await;
    assert!(!is_good && lines(&told) == 1 && told.contains("what is before 1."), "its end opens: {told}");
    assert!(told.contains("(wrapped by kms key key-2)") && told.contains(": 2 of 2 runs are not good"), "{told}");
}
