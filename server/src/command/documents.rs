//! Whether the command lines that the README and the deployment files show are good, and agree on where things are.

use clap::Parser as _;

use super::{Command, CommandLine, check_config};
use crate::{
    config::{Flags, KeySetting, StoreSetting},
    seal::source::KeyFile,
};

const README: &str = include_str!("../../../README.md");
const CONFIG: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/coffer.toml");
const UNIT: &str = include_str!("../../../deploy/systemd/coffer.service");
const DOCKERFILE: &str = include_str!("../../../deploy/Dockerfile");
const KUBERNETES: &str = include_str!("../../../deploy/kubernetes/coffer.yaml");

const KUBERNETES_INIT: &str = include_str!("../../../deploy/kubernetes/coffer-etcd-init.yaml");
const KUBERNETES_ETCD: &str = include_str!("../../../deploy/kubernetes/coffer-etcd.yaml");

const DATA: &str = "/var/lib/coffer";
const KEY_FILE: &str = "/etc/coffer/root.key";

/// The words after each `start`, up to the first of `ends` or to where the shell sends the log elsewhere, without
/// quotes, commas and broken lines.
fn words(text: &str, start: &str, ends: &[char]) -> Vec<Vec<String>> {
    let text = text.replace("\\\n#", " ").replace("\\\n", " ");
    let after = text.split(start).skip(1).map(|rest| {
        let line = rest.split(ends).next().unwrap_or_default();
        line.split(" 2>").next().unwrap_or_default().to_owned()
    });
    let is_mark = |c: char| c.is_whitespace() || c == ',' || c == '"';
    after.map(|line| line.split(is_mark).filter(|word| !word.is_empty()).map(str::to_owned).collect()).collect()
}

fn parse(words: &[String]) -> Command {
    let line = ["coffer-server".to_owned()].into_iter().chain(words.iter().cloned());
    CommandLine::try_parse_from(line).unwrap_or_else(|error| panic!("{words:?}: {error}")).command
}

#[test]
fn every_run_is_good_and_of_the_one_layout() {
    let shown = [
        // Once to serve, once after a restore; the server on etcd has a file of its own.
        ("README", README, "\ncoffer-server run --data ", &['\n'][..], &["run", "--data"][..], 2),
        ("Dockerfile", DOCKERFILE, "\nCMD [", &[']'][..], &[], 1),
        ("coffer.yaml", KUBERNETES, "args: [", &[']'][..], &[], 1),
    ];
    let runs = shown.into_iter().flat_map(|(name, text, start, ends, before, count)| {
        let lines = words(text, start, ends);
        assert_eq!(lines.len(), count, "{name}");
        lines
            .into_iter()
            .map(move |line| (name, before.iter().map(|word| (*word).to_owned()).chain(line).collect::<Vec<_>>()))
    });
    for (name, line) in runs {
        let Command::Run(flags) = parse(&line) else { panic!("{name} runs none") };
        let config = crate::config::load(&flags, []).unwrap_or_else(|mistakes| panic!("{name}: {mistakes}"));
        assert_eq!(
            (config.store.directory().and_then(|data| data.to_str()), &config.key),
            (Some(DATA), &KeySetting::File(KEY_FILE.into())),
            "{name}"
        );
        assert!(
            config.listen.iter().any(|address| address.to_string() == "0.0.0.0:7470"),
            "{name} listens to no other"
        );
    }
    let [line] = &words(UNIT, "ExecStart=/usr/local/bin/coffer-server ", &['\n'])[..] else { panic!("one server") };
    let Command::Run(flags) = parse(line) else { panic!("the unit runs none") };
    assert_eq!(flags.config.as_deref().and_then(|path| path.to_str()), Some("/etc/coffer/coffer.toml"));
    assert!(flags.data.is_none() && flags.key_file.is_none() && flags.audit_file.is_none(), "the file says it");
}

#[test]
fn every_init_is_good_and_of_the_one_layout() {
    let shown = [
        ("README", README, "\ncoffer-server init", &['\n'][..]),
        ("coffer.service", UNIT, "coffer-server init", &['>'][..]),
        ("Dockerfile", DOCKERFILE, "       init", &['\n'][..]),
        ("coffer.yaml", KUBERNETES, "`init", &['`'][..]),
    ];
    for (name, text, start, ends) in shown {
        let [line] = &words(text, start, ends)[..] else { panic!("{name} makes one store") };
        let line: Vec<_> = std::iter::once("init".to_owned()).chain(line.clone()).collect();
        assert!(matches!(parse(&line), Command::Init(_)), "{name}");
        let has = |flag: &str, value: &str| line.windows(2).any(|pair| pair == [flag, value]);
        assert!(has("--data", DATA) && has("--key-file", KEY_FILE), "{name}: {line:?}");
    }
}

#[test]
fn the_servers_on_etcd_are_good_and_of_the_one_layout() {
    let [run] = &words(KUBERNETES_ETCD, "args: [", &[']'])[..] else { panic!("one kind of server") };
    let Command::Run(flags) = parse(run) else { panic!("it runs none") };
    let [init] = &words(KUBERNETES_INIT, "args: [", &[']'])[..] else { panic!("one store") };
    assert!(matches!(parse(init), Command::Init(_)), "{init:?}");
    let [operator] = &words(KUBERNETES_INIT, "-- coffer-server ", &['\n'])[..] else { panic!("one operator") };
    assert!(matches!(parse(operator), Command::Operator(_)), "{operator:?}");
    let file = flags.config.as_deref().and_then(|path| path.to_str()).expect("a configuration file");
    for same in [init, operator] {
        assert!(same.windows(2).any(|pair| pair == ["--config", file]), "of the same store: {same:?}");
    }
    // What both mount in one place is one thing.
    let mounts = |text: &str| words(text, "- { name: ", &['}']).into_iter().collect::<std::collections::BTreeSet<_>>();
    let of_init = mounts(KUBERNETES_INIT);
    let own = of_init.difference(&mounts(KUBERNETES_ETCD)).cloned().collect::<Vec<_>>();
    assert!(own.len() == 1 && own[0][1] == "persistentVolumeClaim:", "{own:?}");

    let (_, map) = KUBERNETES_ETCD.split_once("coffer.toml: |\n").expect("the file's text");
    let lines = map.lines().map_while(|line| line.strip_prefix("    ")).collect::<Vec<_>>();
    let home = tempfile::tempdir().expect("a directory");
    let path = home.path().join("coffer.toml");
    std::fs::write(&path, lines.join("\n")).expect("written");
    let config = crate::config::load(&Flags { config: Some(path), ..Flags::default() }, []).expect("good");
    assert!(matches!(config.store, StoreSetting::Etcd(_)));
    assert_eq!(config.key, KeySetting::File(KEY_FILE.into()));
    assert!(config.listen.iter().any(|address| address.to_string() == "0.0.0.0:7470"));
}

#[tokio::test]
async fn check_config_accepts_the_sample() {
    let home = tempfile::tempdir().expect("a directory");
    let key = home.path().join("root.key");
    KeyFile::generate(&key).expect("a key");
    let config = crate::config::load(&Flags { config: Some(CONFIG.into()), ..Flags::default() }, []).expect("good");
    assert_eq!(
        (config.store.directory().and_then(|data| data.to_str()), &config.key),
        (Some(DATA), &KeySetting::File(KEY_FILE.into()))
    );
    let key_file = Some(key.to_str().expect("UTF-8").to_owned());
    check_config::run(&Flags { config: Some(CONFIG.into()), key_file, ..Flags::default() }).await.expect("accepted");
}
