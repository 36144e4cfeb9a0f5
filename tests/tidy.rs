//! House rules that no compiler holds: which way dependencies point, who sees secrets, what a file may contain.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

/// Longest file, in lines: beyond this it has more than one duty.
const FILE_LINES_MAX: usize = 500;

/// What each module of the server may name of the others. The last two put everything together.
const SERVER_LAYERS: &[(&str, &[&str])] = &[
    ("clock", &[]),
    ("draft", &[]),
    ("escape", &[]),
    ("lock", &[]),
    ("store", &["clock", "escape", "lock"]),
    ("audit", &["clock", "draft", "lock", "seal", "store"]),
    ("seal", &[]),
    ("record", &["seal", "store"]),
    ("view", &["record", "seal", "store"]),
    ("identity", &["record", "view"]),
    ("access", &["identity", "record", "view"]),
    ("vault", &["access", "audit", "clock", "identity", "record", "seal", "store", "view"]),
    ("api", &["access", "audit", "clock", "identity", "process", "record", "serve", "vault", "view"]),
    ("config", &[]),
    ("telemetry", &["config", "escape"]),
    ("process", &[]),
    ("serve", &["clock", "config"]),
    (
        "server",
        &[
            "access",
            "api",
            "audit",
            "clock",
            "config",
            "draft",
            "identity",
            "process",
            "record",
            "seal",
            "serve",
            "store",
            "telemetry",
            "vault",
            "view",
        ],
    ),
    (
        "command",
        &[
            "audit",
            "clock",
            "config",
            "escape",
            "process",
            "record",
            "seal",
            "serve",
            "server",
            "store",
            "telemetry",
            "vault",
            "view",
        ],
    ),
];

/// Names that only some folders of the server may use, and why.
const SERVER_NAMES: &[(&str, &[&str], &str)] = &[
    (
        "tonic",
        &["api/", "serve/", "server", "command/provision", "seal/source/kms", "store/etcd/"],
        "the wire is the edge's business",
    ),
    ("chacha20poly1305", &["seal/"], "only seal sees keys"),
    ("sled", &["store/embedded/sled"], "what is known about sled stands in one file"),
    ("tokio_rustls", &["serve/"], "TLS ends where sockets are accepted"),
];

/// What the crates may depend on of each other.
const CRATES: &[(&str, &[&str])] = &[
    ("proto", &[]),
    ("client", &["coffer-proto"]),
    ("cli", &["coffer-proto", "coffer-client"]),
    ("injector", &["coffer-proto", "coffer-client"]),
    ("server", &["coffer-proto"]),
];

/// Files that may take a value or a token out of its type, and why. Everything else handles it closed.
const EXPOSE: &[(&str, &str)] = &[
    ("proto/src/redaction/matcher.rs", "looks for the values"),
    ("proto/src/token.rs", "defines the type"),
    ("proto/src/value.rs", "defines the type"),
    ("client/src/credential.rs", "puts the token into the header"),
    ("cli/src/command/environment/fetch.rs", "prints the values that were asked for"),
    ("cli/src/command/token/file.rs", "writes the new token to its file"),
    ("cli/src/dotenv.rs", "prints the values that were asked for"),
    ("cli/src/input/value.rs", "puts the typed value into the request"),
    ("cli/src/input/white_space.rs", "looks at the ends of a value"),
    ("cli/src/view/environment.rs", "prints the values that were asked for"),
    ("cli/src/view/token.rs", "prints the new token"),
    ("injector/src/deliver/directory.rs", "writes a file for each secret"),
    ("injector/src/deliver/template.rs", "renders templates"),
    ("injector/src/environment.rs", "puts the values into the environment"),
    ("server/src/api/convert.rs", "puts plain values into answers"),
    ("server/src/api/tokens.rs", "puts the new token into its answer"),
    ("server/src/api/workloads.rs", "puts values into the environment that is fetched"),
    ("server/src/command/token.rs", "hands the first token over"),
    ("server/src/record/secret.rs", "seals"),
    ("server/src/record/system.rs", "hashes tokens"),
    ("server/src/vault/template.rs", "renders the values"),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

/// The code of a folder without its tests.
fn sources(folder: &str) -> BTreeMap<String, String> {
    let tests = |path: &str| path.contains("/tests/") || path.ends_with("tests.rs") || path.contains("/conformance/");
    files(folder, ".rs").into_iter().filter(|(path, _)| !tests(path)).collect()
}

/// Every file of the project below a folder with this ending, by its path from the root.
fn files(folder: &str, ending: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut pending = vec![root().join(folder)];
    while let Some(path) = pending.pop() {
        let name = path.file_name().and_then(|name| name.to_str()).expect("plain names").to_owned();
        if path.is_dir() {
            if !matches!(name.as_str(), "target" | ".git") {
                pending.extend(fs::read_dir(&path).expect("readable").map(|entry| entry.expect("readable").path()));
            }
        } else if name.ends_with(ending) {
            let from_root =
                path.strip_prefix(root()).expect("below the root").to_str().expect("plain names").to_owned();
            found.insert(from_root, fs::read_to_string(&path).expect("text"));
        }
    }
    assert!(!found.is_empty(), "no {ending} below {folder}: the rule would hold nothing");
    found
}

/// The code of a file: no comments, and nothing from the unit tests at its end on.
fn code(text: &str) -> String {
    let lines = text.lines().take_while(|line| line.trim() != "#[cfg(test)]");
    lines.map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// Whether code names a crate or module as the head of a path.
fn names(code: &str, name: &str) -> bool {
    let word = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(name).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        let after = &code[at + name.len()..];
        !before.is_some_and(|c| word(c) || c == ':')
            && (after.starts_with("::")
                || (code[..at].trim_end().ends_with("use") && after.starts_with(['{', ';', ' '])))
    })
}

/// The modules of its own crate that code names: `crate::x`, also in `use crate::{x, y::z}`.
fn crate_modules(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        if code[..at].chars().next_back().is_some_and(|c| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let rest = &code[at + "crate::".len()..];
        let Some(list) = rest.strip_prefix('{') else {
            found.extend(head(rest));
            continue;
        };
        let mut depth = 0;
        let mut item = 0;
        for (at, c) in list.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth > 0 => depth -= 1,
                ',' | '}' if depth == 0 => {
                    found.extend(head(list[item..at].trim_start()));
                    item = at + 1;
                    if c == '}' {
                        break;
                    }
                }
                _ => {}
            }
        }
    }
    found
}

fn head(path: &str) -> Option<String> {
    let name: String = path.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    (!name.is_empty()).then_some(name)
}

#[test]
fn the_servers_modules_point_one_way() {
    let mut wrong = Vec::new();
    for (path, text) in sources("server/src") {
        let inner = path.strip_prefix("server/src/").expect("below it");
        let module = inner.split(['/', '.']).next().expect("a name");
        if matches!(module, "lib" | "main") {
            continue;
        }
        let layer = SERVER_LAYERS.iter().find(|(layer, _)| *layer == module);
        let (_, below) = layer.unwrap_or_else(|| panic!("{path}: say in SERVER_LAYERS what it stands on"));
        for other in crate_modules(&code(&text)) {
            // Macros are named like modules.
            let is_module = SERVER_LAYERS.iter().any(|(layer, _)| *layer == other);
            if is_module && other != module && !below.contains(&other.as_str()) {
                wrong.push(format!("{path} names {other}, which does not lie below {module}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn few_files_of_the_server_know_its_dangerous_dependencies() {
    let mut wrong = Vec::new();
    for (path, text) in sources("server/src") {
        let inner = path.strip_prefix("server/src/").expect("below it");
        for (name, allowed, why) in SERVER_NAMES {
            // Beside a module of the same name, only `::name` is the crate.
            let sibling = root().join(&path).with_file_name(format!("{name}.rs")).exists();
            if !sibling && names(&code(&text), name) && !allowed.iter().any(|prefix| inner.starts_with(prefix)) {
                wrong.push(format!("{path} names {name}: {why}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn crates_point_one_way() {
    for (folder, allowed) in CRATES {
        let text = fs::read_to_string(root().join(folder).join("Cargo.toml")).expect("readable");
        let manifest: toml::Table = text.parse().expect("TOML");
        let dependencies = manifest["dependencies"].as_table().expect("a table");
        for name in dependencies.keys().filter(|name| name.starts_with("coffer-")) {
            assert!(allowed.contains(&name.as_str()), "{folder} must not depend on {name}");
        }
    }
}

#[test]
fn few_files_take_values_out_of_their_type() {
    let mut exposing = Vec::new();
    for folder in ["proto/src", "client/src", "cli/src", "server/src", "injector/src"] {
        let files = sources(folder).into_iter().filter(|(_, text)| exposes(&code(text)));
        exposing.extend(files.map(|(path, _)| path));
    }
    let unlisted: Vec<_> = exposing.iter().filter(|path| EXPOSE.iter().all(|(known, _)| known != path)).collect();
    assert!(unlisted.is_empty(), "not listed as files that may expose a value: {unlisted:#?}");
    let stale: Vec<_> = EXPOSE.iter().filter(|(known, _)| !exposing.iter().any(|path| path == known)).collect();
    assert!(stale.is_empty(), "listed but exposing nothing: {stale:#?}");
}

/// A call or the function's name; not the name of another that begins alike.
fn exposes(code: &str) -> bool {
    code.match_indices("expose").any(|(at, word)| {
        let called = code[..at].ends_with("::") || code[..at].ends_with('.') || code[..at].ends_with("fn ");
        called && !code[at + word.len()..].starts_with(|c: char| c.is_alphanumeric() || c == '_')
    })
}

#[test]
fn nothing_is_left_unfinished() {
    // Split, so that this file does not hold what it looks for.
    let marks = [
        concat!("todo", "!("),
        concat!("unimplemented", "!("),
        concat!("dbg", "!("),
        concat!("#[", "ignore"),
        concat!("FIX", "ME"),
        concat!("TO", "DO"),
        concat!("XX", "X:"),
    ];
    let mut left = Vec::new();
    for (path, text) in everything() {
        let held = marks.iter().filter(|mark| text.contains(**mark));
        left.extend(held.map(|mark| format!("{path}: {mark}")));
    }
    assert!(left.is_empty(), "{left:#?}");
}

#[test]
fn files_have_one_duty() {
    let long: Vec<_> = everything()
        .into_iter()
        .map(|(path, text)| (path, text.lines().count()))
        .filter(|(_, lines)| *lines > FILE_LINES_MAX)
        .collect();
    assert!(long.is_empty(), "over {FILE_LINES_MAX} lines: {long:#?}");
}

fn everything() -> BTreeMap<String, String> {
    let folders = ["proto", "client", "cli", "server", "injector", "tests"];
    let mut all = BTreeMap::new();
    for folder in folders {
        all.extend(files(folder, ".rs"));
    }
    all.extend(files("proto", ".proto"));
    all.extend(files("tests", ".sh"));
    all.extend(files("tests", ".py"));
    all
}

#[test]
fn every_proto_element_is_documented() {
    let mut bare = Vec::new();
    for (path, text) in files("proto", ".proto") {
        let mut before = "";
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            let declares = ["message ", "enum ", "service ", "rpc "].iter().any(|word| line.starts_with(word))
                || (line.contains(" = ") && line.ends_with(';') && !line.starts_with("syntax"));
            if declares && !line.starts_with("//") && !before.starts_with("//") {
                bare.push(format!("{path}:{}: {line}", number + 1));
            }
            before = line;
        }
    }
    assert!(bare.is_empty(), "undocumented: {bare:#?}");
}

#[test]
fn scripts_are_executable() {
    let mut scripts: Vec<String> =
        files("tests", ".sh").into_keys().chain(files("deploy", ".sh").into_keys()).collect();
    scripts.push(".ci/run".to_owned());
    for path in scripts {
        let mode = fs::metadata(root().join(&path)).expect("readable").permissions().mode();
        assert_eq!(mode & 0o111, 0o111, "{path} is not executable");
    }
}
