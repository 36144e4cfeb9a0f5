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
    ("environment_revision", "--since"),
    ("if_revision_not", "--if-revision-not"),
    ("names", "SECRET"),
    ("page_size", "--limit"),
    ("parent", "the scope"),
    ("pattern", "PATTERN"),
    ("permission", "PERMISSION"),
    ("principal", "PRINCIPAL"),
    ("resource", "RESOURCE"),
    ("secret_id", "NAME"),
    ("session_ttl", "--session-ttl"),
    ("sharing", "--share-with"),
    ("sink", "--sink"),
    ("texts", "the text"),
    ("ttl", "--ttl"),
    ("variables", "the variables"),
    ("workload", "WORKLOAD"),
];

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

/// `entries[2].value` is the value of the third entry.
fn name(field: &str) -> String {
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
    fn messages_name_what_a_person_wrote() {
        for (message, field, expected) in [
            ("secret_id: is reserved", "secret_id", "NAME: is reserved"),
            ("ttl: too long; session_ttl: too long", "session_ttl", "ttl: too long; --session-ttl: too long"),
            ("entries[0].value: must be UTF-8 text", "entries[0].value", "the file (number 1): must be UTF-8 text"),
            ("sharing.mode: must be given", "sharing.mode", "--share-with: must be given"),
            ("names[2]: must be a secret", "names[2]", "SECRET (number 3): must be a secret"),
            ("value: must be UTF-8 text", "value", "value: must be UTF-8 text"),
            ("odd_field: must be odd", "odd_field", "odd_field: must be odd"),
        ] {
            assert_eq!(in_message(message, field), expected);
        }
    }
}
