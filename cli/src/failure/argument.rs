//! Fields of requests in the words of the command line.

/// Fields, and what a person writes for them. Those that are called alike in both are not listed.
const ARGUMENTS: &[(&str, &str)] = &[
    ("allow_in_instructions", "--allow-in-instructions"),
    ("allowed_hosts", "--allow-host"),
    ("conflict", "--on-conflict"),
    ("description", "--description"),
    ("destination", "DESTINATION"),
    ("destination_host", "--host"),
    ("entries", "the file"),
    ("dry_run", "--dry-run"),
    ("environment_revision", "--revision"),
    ("force", "--force"),
    ("if_revision_not", "--if-revision-not"),
    ("names", "SECRET"),
    ("page_size", "--limit"),
    ("parent", "the scope"),
    ("pattern", "PATTERN"),
    ("permission", "PERMISSION"),
    ("principal", "PRINCIPAL"),
    ("replace", "--replace"),
    ("resource", "RESOURCE"),
    ("restart_required", "--restart-required"),
    ("scope", "SCOPE"),
    ("secret_id", "NAME"),
    ("session_ttl", "--session-ttl"),
    ("sharing", "--share-with"),
    ("single_use", "--single-use"),
    ("sink", "--sink"),
    ("stale_days", "--stale-days"),
    ("texts", "the text"),
    ("ttl", "--ttl"),
    ("uid", "--uid"),
    ("unused_days", "--unused-days"),
    ("validate_only", "--preview"),
    ("variables", "the variables"),
    ("workload", "WORKLOAD"),
];

/// The message with arguments' names where it says those of fields that no other word looks like: those with `_`.
pub(super) fn in_text(message: &str) -> String {
    let is_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/');
    let mut text = String::with_capacity(message.len());
    let mut rest = message;
    while !rest.is_empty() {
        let end = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        let known = ARGUMENTS.iter().find(|(field, _)| field.contains('_') && *field == word);
        text.push_str(known.map_or(word, |(_, argument)| argument));
        let other = after.find(is_word).unwrap_or(after.len());
        text.push_str(&after[..other]);
        rest = &after[other..];
    }
    text
}

/// The message with the argument's name where it says a field's.
pub(super) fn in_message(message: &str, field: &str) -> String {
    let argument = name(field);
    if argument == field {
        return message.to_owned();
    }
    // At the beginning, or after the violation before it.
    let at = format!("{field}: ");
    let starts = message.strip_prefix(&at).map(|rest| format!("{argument}: {rest}"));
    starts.unwrap_or_else(|| message.replacen(&format!("; {at}"), &format!("; {argument}: "), 1))
}

/// `entries[2].value` is of the third entry; a description is given for all of them.
fn name(field: &str) -> String {
    if field.starts_with("entries[") && field.ends_with("].description") {
        return name("description");
    }
    let (path, at) = match field.split_once('[').and_then(|(path, rest)| Some((path, rest.split_once(']')?.0))) {
        Some((path, at)) => (path, at.parse::<usize>().ok()),
        None => (field, None),
    };
    let first = path.split('.').next().unwrap_or(path);
    let known = ARGUMENTS.iter().find(|(known, _)| *known == path || *known == first);
    match (known, at) {
        (Some((_, argument)), Some(at)) => format!("{argument} (number {})", at + 1),
        (Some((_, argument)), None) => (*argument).to_owned(),
        (None, _) => field.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_name_arguments_and_leave_names_alone() {
        for (message, expected) in [
            ("not allowed for this destination_host: KEY", "not allowed for this --host: KEY"),
            ("secret_id, ttl", "NAME, ttl"),
            ("there is no projects/secret_id", "there is no projects/secret_id"),
            ("größe: secret_id", "größe: NAME"),
            ("", ""),
        ] {
            assert_eq!(in_text(message), expected);
        }
    }

    /// Fields that are called in messages as a person knows them, or that nobody gives on a command line.
    const ALIKE: &[&str] = &[
        "etag",
        "name",
        "nonce",
        "page_token",
        "part",
        "kind",
        "keys",
        "permissions",
        "start",
        "value",
        "locked",
        "clonable",
    ];

    #[test]
    fn every_field_of_a_request_has_a_name_for_people() {
        use prost::Message as _;
        let files = prost_types::FileDescriptorSet::decode(coffer_proto::FILE_DESCRIPTOR_SET).expect("compiled in");
        let messages =
            files.file.iter().filter(|file| file.package() == "coffer.v1").flat_map(|file| &file.message_type);
        let mut unnamed = Vec::new();
        for message in messages.filter(|message| message.name().ends_with("Request")) {
            for field in &message.field {
                let field = field.name();
                if name(field) == field && !ALIKE.contains(&field) {
                    unnamed.push(format!("{}.{field}", message.name()));
                }
            }
        }
        assert!(unnamed.is_empty(), "{unnamed:#?}");
    }

    #[test]
    fn messages_name_what_a_person_wrote() {
        for (message, field, expected) in [
            ("secret_id: is reserved", "secret_id", "NAME: is reserved"),
            ("ttl: too long; session_ttl: too long", "session_ttl", "ttl: too long; --session-ttl: too long"),
            ("entries[0].value: must be UTF-8 text", "entries[0].value", "the file (number 1): must be UTF-8 text"),
            ("entries[0].description: too long", "entries[0].description", "--description: too long"),
            ("sharing.mode: must be given", "sharing.mode", "--share-with: must be given"),
            ("names[2]: must be a secret", "names[2]", "SECRET (number 3): must be a secret"),
            ("value: must be UTF-8 text", "value", "value: must be UTF-8 text"),
            ("odd_field: must be odd", "odd_field", "odd_field: must be odd"),
        ] {
            assert_eq!(in_message(message, field), expected);
        }
    }
}
