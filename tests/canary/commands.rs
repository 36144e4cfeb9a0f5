//! Every verb of the command line, done and failed, with values where they belong and where they do not. Standard error
//! never holds any; standard output only where values, or a new token, were asked for.

use std::{collections::BTreeSet, fs};

use coffer_proto::v1;

use super::{PLAIN, VALUE, belongs, secret_part};
use crate::harness::{Finished, Planted, Server, Tool, write_private};

/// What standard output may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shows {
    Nothing,
    /// A plain value.
    Plain,
    /// Values, which were asked for.
    Values,
}

/// One line that works: the verb, its arguments separated by `|`, what comes on standard input, and what it shows.
struct Line(&'static str, &'static str, &'static str, Shows);

use Shows::{Nothing, Plain, Values};

/// In an order in which each works. `{in}` is a directory with files for it, `{grant}` and `{token}` are ids.
const LINES: &[Line] = &[
    Line("status", "", "", Nothing),
    Line("whoami", "", "", Nothing),
    Line("completions", "bash", "", Nothing),
    Line("secret create", "projects/p/secrets/KEY|--description|of a test", VALUE, Nothing),
    Line("secret create", "projects/p/secrets/FILED|--value-file|{in}/value", "", Nothing),
    Line("secret create", "projects/p/secrets/OPEN|--plain|--value-file|{in}/plain", "", Plain),
    Line("secret create", "projects/p/secrets/DRAWN|--generate|64", "", Nothing),
    Line("secret set", "projects/p/secrets/KEY|--description|of a test", VALUE, Nothing),
    Line("secret set", "projects/p/secrets/SET|--value-file|{in}/value", "", Nothing),
    Line("secret get", "projects/p/secrets/KEY", "", Nothing),
    Line("secret get", "projects/p/secrets/OPEN", "", Plain),
    Line("secret list", "projects/p", "", Plain),
    Line("secret list", "projects/-", "", Plain),
    Line("secret update", "projects/p/secrets/KEY|--value", VALUE, Nothing),
    Line("secret update", "projects/p/secrets/KEY|--allow-host|example.com|--description|again", "", Nothing),
    Line("secret import", "projects/p|--file|{in}/import.json|--format|json|--preview", "", Nothing),
    Line("secret import", "projects/p|--file|{in}/import.json|--format|json", "", Nothing),
    Line("secret clone", "projects/p/secrets/-|projects/q", "", Nothing),
    Line("secret stats", "projects/p", "", Nothing),
    Line("environment describe", "projects/p/servers/s", "", Nothing),
    Line("environment describe", "projects/p/servers/s|--output|json", "", Plain),
    Line("environment fetch", "projects/p/servers/s", "", Values),
    Line("environment fetch", "projects/p/servers/s|--format|json", "", Values),
    Line("environment fetch", "projects/p/servers/s|--format|names", "", Nothing),
    Line("environment fetch", "projects/p/servers/s|--dry-run", "", Nothing),
    Line("template render", "projects/p/servers/s|{{KEY}}|--sink|header|--host|example.com", "", Values),
    Line("redact", "projects/p/servers/s", VALUE, Nothing),
    Line("redact", "projects/p/servers/s|{in}/value", "", Nothing),
    Line(
        "reference set",
        "projects/p/references/r|--text|Bearer {{KEY}} w8Kq2ZrTcN7u|--description|a tool",
        "",
        Nothing,
    ),
    Line("reference list", "projects/p", "", Nothing),
    Line("manifest set", "projects/p/manifests/m|--require|KEY|--describe|KEY=what it is", "", Nothing),
    Line("manifest list", "projects/p", "", Nothing),
    Line("scope list", "", "", Nothing),
    Line("scope health", "projects/p", "", Nothing),
    Line("instances", "projects/p", "", Nothing),
    Line("token issue", "projects/p/servers/s|--single-use|--out|{in}/start.token", "", Nothing),
    Line("token exchange", "--token-file|{in}/start.token|--out|{in}/session.token", "", Nothing),
    Line("token issue", "users/other|--description|of a test", "", Nothing),
    Line("token list", "", "", Nothing),
    Line("token revoke", "tokens/{token}", "", Nothing),
    Line("grant create", "users/other|secrets:read|projects/p", "", Nothing),
    Line("grant list", "", "", Nothing),
    Line("grant delete", "{grant}", "", Nothing),
    Line("access list", "projects/p", "", Nothing),
    Line("access test", "projects/p", "", Nothing),
    Line("key rotate", "root", "", Nothing),
    Line("key rotate", "data", "", Nothing),
    Line("snapshot create", "", "", Nothing),
    Line("snapshot list", "", "", Nothing),
    Line("store status", "", "", Nothing),
    Line("store backup", "{in}/coffer.backup", "", Nothing),
    Line("reference delete", "projects/p/references/r", "", Nothing),
    Line("manifest delete", "projects/p/manifests/m", "", Nothing),
    Line("secret delete", "projects/p/secrets/KEY|--yes", "", Nothing),
    Line("scope delete", "projects/q|--yes", "", Nothing),
];

/// Those that go on until they are interrupted: each prints something of what is there first.
const ENDLESS: &[(&str, &str)] = &[("environment watch", "projects/p/servers/s"), ("instances", "projects/p|--watch")];

/// Lines that are refused: a value that comes wrongly, and what the server refuses with one in hand.
const REFUSED: &[Line] = &[
    Line("secret create", "projects/p/secrets/OPEN", VALUE, Nothing),
    Line("secret create", "projects/p/secrets/PATH", VALUE, Nothing),
    Line("secret create", "projects/x/secrets/KEY", VALUE, Nothing),
    Line("secret create", "projects/p/secrets/NEW|--value-file|{in}/nul", "", Nothing),
    Line("secret create", "projects/p/secrets/NEW|--value-file|{in}/long", "", Nothing),
    Line("secret update", "projects/p/secrets/OPEN|--value|--etag|0.1", VALUE, Nothing),
    Line("secret import", "projects/p|--file|{in}/import.json|--format|json", "", Nothing),
    Line("secret import", "projects/p|--file|{in}/import.json", "", Nothing),
    Line("secret import", "projects/p|--file|{in}/value|--format|json", "", Nothing),
    Line("secret import", "projects/p|--rename|upper-snake", "w8Kq2ZrTcN7u=1\nw8Kq2ZrTcN7u=2", Nothing),
    Line(
        "secret import",
        "projects/p|--format|json|--nested",
        "{\"w8Kq2ZrTcN7u\": {\"Lx90vYpE41QdGh\": [1]}}",
        Nothing,
    ),
    Line("secret import", "projects/p", "A=\"w8Kq2ZrTcN7u\nLx90vYpE41QdGh", Nothing),
    Line("secret import", "projects/p|--format|json", "{\"w8Kq2ZrTcN7u\": 1, \"A\": [\"Lx90vYpE41QdGh\"", Nothing),
    Line("template render", "projects/p/servers/s|{{FILED}} w8Kq2ZrTcN7u|--sink|instruction", "", Nothing),
    Line("template render", "projects/p/servers/s|{{NONE}} w8Kq2ZrTcN7u|--sink|header", "", Nothing),
    Line("reference set", "projects/p/references/r|--file|{in}/nul", "", Nothing),
    Line("secret list", "projects/p|--token-file|{in}/value", "", Nothing),
    Line("token exchange", "--token-file|{in}/start.token|--out|{in}/again.token", "", Nothing),
];

struct Stage {
    server: Server,
    token: String,
    /// Files for the commands, which hold what they are to take.
    given: tempfile::TempDir,
    planted: Planted,
    plain: Planted,
    told: Vec<String>,
}

impl Stage {
    async fn set() -> Self {
        let server = Server::builder().args(["--log", "trace"]).start();
        let mut all = vec![("operator", ""), ("tokens:issue", "users/-")];
        for scope in ["projects/p", "projects/q"] {
            let permissions = ["secrets:manage", "secrets:inject", "workloads:issue", "access:manage"];
            all.extend(permissions.map(|permission| (permission, scope)));
        }
        server.with("services/all", &all).await;
        let token = server.token("services/all").await;
        let secrets = [secret_part(&token), secret_part(&server.operator_token())];
        let values =
            || [("a value", VALUE)].into_iter().chain(secrets.iter().map(|secret| ("a token", secret.as_str())));
        let planted = Planted::new(values().chain([("a plain value", PLAIN)]));
        let plain = Planted::new(values());
        let given = tempfile::TempDir::new().expect("a directory");
        let import = serde_json::json!({ "IMPORTED": VALUE, "ALSO": VALUE }).to_string();
        let (nul, long) = (format!("{VALUE}\0{VALUE}"), VALUE.repeat(2_000));
        for (name, text) in
            [("value", VALUE), ("plain", PLAIN), ("import.json", &import), ("nul", &nul), ("long", &long)]
        {
            write_private(&given.path().join(name), text);
        }
        Self { server, token, given, planted, plain, told: Vec::new() }
    }

    /// The words of a line.
    fn words(&self, verb: &str, arguments: &str) -> Vec<String> {
        let given = self.given.path().to_str().expect("text");
        let arguments = arguments.split('|').filter(|word| !word.is_empty()).map(|word| word.replace("{in}", given));
        verb.split_whitespace().map(str::to_owned).chain(arguments).collect()
    }

    fn tool(&self, words: &[String], stdin: &str) -> Tool {
        self.server.cli(&self.token).dir(self.given.path()).args(words).stdin(stdin)
    }

    fn look(&mut self, words: &[String], shows: Shows, finished: &Finished) {
        let stderr = self.planted.found_in(finished.stderr.as_bytes());
        let stdout = match shows {
            Nothing => self.planted.found_in(&finished.stdout),
            Plain => self.plain.found_in(&finished.stdout),
            Values => BTreeSet::new(),
        };
        let line = words.join(" ");
        self.told.extend(stderr.into_iter().map(|what| format!("stderr of coffer {line}: {what}")));
        self.told.extend(stdout.into_iter().map(|what| format!("stdout of coffer {line}: {what}")));
    }

    fn done(&mut self, words: &[String], stdin: &str, shows: Shows) {
        let finished = self.tool(words, stdin).run();
        assert_eq!(finished.code, Some(0), "coffer {}: {}", words.join(" "), finished.stderr);
        if shows != Nothing {
            let planted = if shows == Plain { PLAIN } else { &VALUE[..10] };
            assert!(finished.text().contains(&planted[..10]), "coffer {}: shows nothing", words.join(" "));
        }
        self.look(words, shows, &finished);
    }

    fn failed(&mut self, tool: Tool, words: &[String], code: Option<i32>) {
        let finished = tool.run();
        assert!(finished.code > Some(0), "coffer {}: it worked", words.join(" "));
        assert!(code.is_none() || finished.code == code, "coffer {}: {}", words.join(" "), finished.stderr);
        assert!(!finished.stderr.is_empty(), "coffer {}: without a word", words.join(" "));
        self.look(words, Nothing, &finished);
    }

    /// The ways in which every line fails: nobody there, a token that is none, and a value where nothing belongs.
    fn fails(&mut self, verb: &str, words: &[String], stdin: &str) {
        // A file named on the command line wins over the variable.
        if !["status", "completions"].contains(&verb) && !words.iter().any(|word| word == "--token-file") {
            for token in [VALUE, &format!("cof_u_{VALUE}")] {
                let tool = Tool::new("coffer").env("COFFER_ADDRESS", self.server.address()).env("COFFER_TOKEN", token);
                self.failed(tool.args(words).stdin(stdin), words, None);
            }
        }
        // An exchange is tried again for a while, and completions need no server.
        if !["token exchange", "completions"].contains(&verb) {
            let away = Tool::new("coffer").env("COFFER_ADDRESS", "http://127.0.0.1:1").env("COFFER_TOKEN", &self.token);
            self.failed(away.args(words).stdin(stdin), words, None);
        }
        let with = |more: &[&str]| [words, &more.iter().map(|&word| word.to_owned()).collect::<Vec<_>>()].concat();
        let token = self.token.clone();
        for words in [with(&["--w8Kq2ZrTcN7u", VALUE]), with(&["--limt", &token]), with(&["--output", &token])] {
            self.failed(self.tool(&words, stdin), &words, Some(64));
        }
    }

    /// A value in the place of every argument, and given to every option.
    fn misplaced(&mut self, verb: &str) {
        let help = self.tool(&self.words(verb, "--help"), "").run().ok();
        let flags: BTreeSet<_> = help
            .split(|c: char| !c.is_ascii_lowercase() && c != '-')
            .filter(|word| word.len() > 3 && word.starts_with("--") && *word != "--help")
            .collect();
        let mut lines = vec![self.words(verb, ""); 2];
        lines[0].extend([VALUE.to_owned(), VALUE.to_owned(), VALUE.to_owned()]);
        lines[1].extend([self.token.clone(), self.token.clone(), self.token.clone()]);
        for flag in flags {
            // What is a file's name is shown.
            if !["--file", "--value-file", "--ca-file", "--out", "--token-file"].contains(&flag) {
                lines.push([self.words(verb, ""), vec![format!("{flag}={VALUE}")]].concat());
            }
        }
        for words in lines {
            let finished = self.tool(&words, "").run();
            self.look(&words, Values, &finished);
        }
    }
}

/// Every verb that does something, as the help tells them.
fn verbs(stage: &Stage) -> BTreeSet<String> {
    let below = |verb: &str| -> Vec<String> {
        let help = stage.tool(&stage.words(verb, "--help"), "").run().ok();
        let Some((_, commands)) = help.split_once("\nCommands:\n") else { return Vec::new() };
        let commands = commands.lines().take_while(|line| !line.is_empty());
        let names = commands.filter_map(|line| line.strip_prefix("  ")).filter(|line| !line.starts_with(' '));
        let names = names.filter_map(|line| line.split(' ').next()).filter(|name| *name != "help");
        names.map(|name| format!("{verb} {name}").trim().to_owned()).collect()
    };
    let mut found = BTreeSet::new();
    for verb in below("") {
        match below(&verb) {
            of if of.is_empty() => drop(found.insert(verb)),
            of => found.extend(of),
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_verb_tells_a_value_that_was_not_asked_for() {
    let mut stage = Stage::set().await;
    let verbs = verbs(&stage);
    assert!(verbs.len() > 30, "{verbs:?}");
    let driven: BTreeSet<String> =
        LINES.iter().map(|line| line.0).chain(ENDLESS.iter().map(|line| line.0)).map(str::to_owned).collect();
    assert_eq!(driven, verbs, "a verb without a line is not driven");
    let other = stage.server.token("users/other").await;
    let other = other.split('_').nth(2).expect("an id").to_owned();
    for Line(verb, arguments, stdin, shows) in LINES {
        let grant = if arguments.contains("{grant}") { grant(&stage.server).await } else { String::new() };
        let arguments = arguments.replace("{token}", &other).replace("{grant}", &grant);
        let words = stage.words(verb, &arguments);
        stage.fails(verb, &words, stdin);
        stage.done(&words, stdin, *shows);
        if *verb == "environment fetch" {
            for (verb, arguments) in ENDLESS {
                endless(&mut stage, verb, arguments);
            }
        }
        if [" get", " list", " stats", " status", " health"].iter().any(|read| verb.ends_with(read)) {
            stage.done(&[&words[..], &["--output".to_owned(), "json".to_owned()]].concat(), stdin, *shows);
        }
    }
    for Line(verb, arguments, stdin, _) in REFUSED {
        for format in ["", "|--output|json"] {
            let words = stage.words(verb, &format!("{arguments}{format}"));
            stage.failed(stage.tool(&words, stdin), &words, None);
        }
    }
    for verb in &verbs {
        stage.misplaced(verb);
    }
    assert_eq!(stage.told, Vec::<String>::new());
    nothing_is_written(&stage);
    assert!(stage.server.stop().await.success());
    let found = stage.planted.found_below(stage.server.home());
    let elsewhere: Vec<_> = found.iter().filter(|at| !belongs(at)).collect();
    assert!(elsewhere.is_empty(), "{elsewhere:#?}");
}

/// What the commands wrote themselves: a backup, tokens of their own, and nothing else.
fn nothing_is_written(stage: &Stage) {
    let mut names: Vec<_> =
        fs::read_dir(stage.given.path()).expect("readable").map(|entry| entry.expect("readable").file_name()).collect();
    names.sort();
    let expected = ["coffer.backup", "import.json", "long", "nul", "plain", "session.token", "start.token", "value"];
    assert_eq!(names, expected);
    let backup = fs::read(stage.given.path().join("coffer.backup")).expect("written");
    assert!(backup.len() > 1_000);
    assert_eq!(stage.planted.found_in(&backup), BTreeSet::new(), "in the backup");
}

async fn grant(server: &Server) -> String {
    let request = v1::ListGrantsRequest { principal: "users/other".into(), ..Default::default() };
    let grants = server.operator().access().list_grants(request).await.expect("listed").into_inner().grants;
    grants.into_iter().next().expect("a grant").name
}

/// Reads what comes first, and ends it.
fn endless(stage: &mut Stage, verb: &str, arguments: &str) {
    let words = stage.words(verb, arguments);
    let mut child = stage.tool(&words, "").spawn();
    let mut stdout = child.stdout.take().expect("a pipe");
    let mut first = vec![0; 4096];
    let length = std::io::Read::read(&mut stdout, &mut first).expect("a line");
    assert!(length > 0, "coffer {}: says nothing", words.join(" "));
    child.kill().expect("its own child");
    let output = child.wait_with_output().expect("its own child");
    first.truncate(length);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    stage.look(&words, Nothing, &Finished { code: None, stdout: first, stderr });
}
