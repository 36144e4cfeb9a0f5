//! What `--help` says of settings beside their flags: made of the table of settings, so that none is missing.

use coffer_proto::limits;

use super::{
    AuditLog, Limits,
    setting::{CONFIG_VARIABLE, Item, SETTINGS, Setting, Shape},
};

/// The variables of the environment and the keys of the file, a line each.
pub fn settings_help() -> String {
    let mut lines = vec![
        "Variables of the environment, and the same in the file. A flag wins over both, a".to_owned(),
        "variable over the file; names that are not listed here are refused.".to_owned(),
        format!("  {CONFIG_VARIABLE}"),
    ];
    for setting in SETTINGS {
        if let Some(variable) = setting.variable {
            lines.push(format!("  {variable:<28}  {}", key_and_value(setting)));
        }
    }
    lines.push("A list has commas in its variable; a switch is true or false.".to_owned());
    lines.push("These stand in the file only:".to_owned());
    for setting in SETTINGS.iter().filter(|setting| setting.variable.is_none()) {
        lines.push(format!("  {:<36}  {}", key_and_value(setting), of_limit(setting.key)));
    }
    lines.join("\n")
}

fn key_and_value(setting: &Setting) -> String {
    let value = match setting.shape {
        Shape::Path => "\"FILE\"",
        Shape::Text => "\"TEXT\"",
        Shape::List => "[\"ADDR\", …]",
        Shape::Switch => "true",
        Shape::Count => "NUMBER",
    };
    format!("{} = {value}", setting.file_key())
}

fn of_limit(key: Item) -> String {
    match key {
        Item::AuditMaxBytes => {
            format!("of a file; 0: any [default: {}]", AuditLog::MAX_BYTES_DEFAULT)
        }
        Item::AuditKeepFiles => format!("old ones; 0: all [default: {}]", AuditLog::KEEP_FILES_DEFAULT),
        Item::AuditServiceCalls => format!("of one service [default: {}]", limits::SERVICE_CALLS_PER_SECOND),
        Item::AuditCalls => format!("of one user [default: {}]", limits::CALLS_PER_SECOND),
        Item::Store => "or etcd [default: embedded]".to_owned(),
        Item::EtcdEndpoints => "https://host:port".to_owned(),
        Item::EtcdPrefix => "of keys [default: coffer/]".to_owned(),
        Item::EtcdCa => "who may sign etcd's".to_owned(),
        Item::EtcdCert => "coffer's own".to_owned(),
        Item::EtcdKey => "of that".to_owned(),
        Item::EtcdServerName => "in etcd's certificates".to_owned(),
        Item::EtcdUser => "of etcd".to_owned(),
        Item::EtcdPasswordFile => "of the user".to_owned(),
        Item::EtcdMaxStale => "without etcd [default: 10m]".to_owned(),
        Item::EtcdHistory => "a directory to keep it in".to_owned(),
        Item::Connections => format!("at once [default: {}]", Limits::CONNECTIONS_DEFAULT),
        Item::ConnectionsPerPeer => {
            format!("from one address [default: {}]", Limits::CONNECTIONS_PER_PEER_DEFAULT)
        }
        Item::HistoryRetention => "of the past [default: 7d]".to_owned(),
        Item::HistoryBytesMax => "of log and snapshots [default: 8 GiB]".to_owned(),
        Item::MemoryBytes => "for secrets [default: half of it]".to_owned(),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_is_in_it_and_every_limit_is_explained() {
        let help = settings_help();
        for setting in SETTINGS {
            assert!(help.contains(&format!(" {} = ", setting.file_key())), "{}", setting.file_key());
            match setting.variable {
                Some(variable) => assert!(help.contains(&format!("  {variable} ")), "{variable}"),
                None => assert!(!of_limit(setting.key).is_empty(), "{}", setting.file_key()),
            }
        }
        assert!(help.lines().all(|line| line.chars().count() <= 80), "{help}");
    }
}
