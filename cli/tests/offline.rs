//! What the program says and how it ends where no server is needed: each case is a command line and what must come of it.

use std::{
    io::Write as _,
    process::{Command, Stdio},
};

/// Stands for a value in every case; no output may ever hold it.
const SECRET: &str = "hunter2-never-shown";

struct Case {
    args: &'static [&'static str],
    stdin: &'static [u8],
    code: i32,
    /// Parts of stderr; or of stdout if the code is 0.
    says: &'static [&'static str],
}

const fn case(args: &'static [&'static str], code: i32, says: &'static [&'static str]) -> Case {
    Case { args, stdin: b"", code, says }
}

const NAME: &str = "projects/p/secrets/NAME";
const NOWHERE: &str = "unix:///nonexistent/coffer.sock";

const CASES: &[Case] = &[
    // Values never come from the command line.
    case(&["secret", "create", NAME, SECRET], 64, &["error: a value cannot be given on the command line\nhint: "]),
    case(&["secret", "update", NAME, SECRET], 64, &["error: a value cannot be given on the command line\nhint: "]),
    case(&["secret", "update", NAME, "--value", SECRET], 64, &["error: a value cannot be given on the command line"]),
    case(&["secret", "create", "NAME=hunter2-never-shown"], 64, &["'NAME=…'"]),
    case(&["secret", "update", NAME, "--value=hunter2-never-shown"], 64, &["unexpected value '…' for '--value'"]),
    // Values that no environment can hold, before anything is sent.
    case(&["secret", "create", NAME], 64, &["error: value: Secret value is required\n"]),
    Case { stdin: b"\n", ..case(&["secret", "create", NAME], 64, &["error: value: Secret value is required\n"]) },
    Case {
        stdin: b"hunter2-never-shown\0",
        ..case(&["secret", "create", NAME], 64, &["error: value: must not contain NUL"])
    },
    Case {
        stdin: b"hunter2-never-shown\xff",
        ..case(&["secret", "create", NAME], 64, &["error: value: must be UTF-8 text\n"])
    },
    case(&["secret", "create", NAME, "--value-file", "/dev/null"], 64, &["error: value: Secret value is required\n"]),
    case(&["secret", "create", NAME, "--value-file", "/dev/zero"], 64, &["error: value: must be at most 64 KiB\n"]),
    Case {
        stdin: b"hunter2-never-shown\0",
        ..case(&["secret", "update", NAME, "--value"], 64, &["error: value: must not contain NUL"])
    },
    // An empty new value keeps the stored one: the server is asked, and nobody is there.
    case(&["secret", "update", NAME, "--value", "--address", NOWHERE], 69, &["cannot connect"]),
    Case { stdin: b"\n", ..case(&["secret", "update", NAME, "--value-stdin", "--address", NOWHERE], 69, &["cannot"]) },
    case(&["secret", "update", NAME, "--value-file", "/dev/null", "--address", NOWHERE], 69, &["cannot connect"]),
    case(&["secret", "create", NAME, "--value-file", "/nonexistent"], 66, &["error: /nonexistent: "]),
    case(&["secret", "create", NAME, "--generate", "0"], 64, &["must be a number of characters"]),
    case(&["secret", "create", NAME, "--generate", "--value-stdin"], 64, &["cannot be used with"]),
    // Names are checked here, in the words of the server.
    case(&["secret", "create", "projects/p/secrets/"], 64, &["Secret key is required"]),
    case(&["secret", "create", "projects/p/secrets/lower"], 64, &["^[A-Z_][A-Z0-9_]*$"]),
    case(&["secret", "list", "teams/t"], 64, &["must be a scope: organizations/{o}"]),
    case(&["secret", "list", "projects/p", "--limit", "0"], 64, &["must be a number of at least 1"]),
    case(&["grant", "create", "users/a", "secrets:steal", "projects/p"], 64, &["must be one of secrets:read"]),
    case(&["token", "issue", "organizations/acme/servers/a"], 64, &["an organization has no workloads of its own"]),
    case(&["token", "issue", "acme"], 64, &["must be users/{id}, services/{id} or a workload"]),
    case(&["token", "issue", "users/a", "--ttl", "soon"], 64, &["--ttl"]),
    case(&["token", "issue", "users/a", "--replace"], 64, &["--out <FILE>"]),
    // What is gone for good is asked for.
    case(&["secret", "delete", NAME], 64, &["error: nobody can be asked", "hint: --yes deletes without asking"]),
    case(&["scope", "delete", "projects/p"], 64, &["error: nobody can be asked", "hint: --yes deletes without asking"]),
    // Files to import: every mistake with its line, no value.
    Case {
        stdin: b"A=hunter2-never-shown\nB='hunter2-never-shown\n",
        ..case(&["secret", "import", "projects/p"], 64, &["stdin: line 2: the ' that opens the value is never closed"])
    },
    Case {
        stdin: b"hunter2-never-shown\nPATH=hunter2-never-shown\nC=\n",
        ..case(&["secret", "import", "projects/p"], 64, &["stdin: line 1: must be NAME=value", "nothing was imported"])
    },
    Case {
        stdin: b"PATH=hunter2-never-shown\nC=\nA=1\nA=2\n",
        ..case(
            &["secret", "import", "projects/p"],
            64,
            &[
                "error: stdin: 3 mistakes\n  line 1: PATH: is reserved",
                "\n  line 2: C: Secret value is required",
                "\n  line 4: A: is in line 3 already\nhint: nothing was imported\n",
            ],
        )
    },
    Case {
        stdin: br#"{"A": ["hunter2-never-shown"]}"#,
        ..case(
            &["secret", "import", "projects/p", "--format", "json"],
            64,
            &["error: stdin: entry 1: A: is a list, which no variable can be"],
        )
    },
    // What people look for and there is not.
    case(&["run", "--", "./app", SECRET], 64, &["error: coffer runs no commands", "hint: coffer-inject -- COMMAND"]),
    case(&["exec", "./app"], 64, &["secrets are handed to workloads, and never to people"]),
    case(&["login"], 64, &["error: coffer has no login", "coffer token issue users/YOU --out FILE"]),
    case(&["audit", "show", "--since", "2h"], 64, &["coffer-server audit show"]),
    case(&["secrets", "lst", "projects/p"], 64, &["similar subcommands exist: 'ls', 'list'"]),
    case(&["secret", "set", NAME, SECRET], 64, &["error: a value cannot be given on the command line\nhint: "]),
    case(
        &["secret", "set", "projects/p/secrets/LD_PRELOAD"],
        64,
        &["error: LD_PRELOAD: is reserved, because it would"],
    ),
    // `-` is stdin or stdout.
    Case {
        stdin: b"hunter2-never-shown\0",
        ..case(&["secret", "create", NAME, "--value-file", "-"], 64, &["error: value: must not contain NUL"])
    },
    Case {
        stdin: b"hunter2-never-shown",
        ..case(&["scope", "list", "--token-file", "-"], 77, &["error: the token on stdin: "])
    },
    Case {
        stdin: b"A\n",
        ..case(&["secret", "import", "projects/p", "--file", "-"], 64, &["error: stdin: line 1: must be NAME=value"])
    },
    case(&["token", "issue", "users/a", "--out", "-", "--address", NOWHERE], 69, &["cannot connect"]),
    // Where the server is, and who calls.
    case(
        &["status", "--address", "http://coffer.example"],
        64,
        &["error: --address: plain http:// is for this machine"],
    ),
    case(
        &["status", "--address", "https://user:hunter2-never-shown@host"],
        64,
        &["--address: must not contain a user"],
    ),
    case(
        &["status", "--address", "unix:///nonexistent/coffer.sock"],
        69,
        &["cannot connect to unix:///nonexistent", "hint: "],
    ),
    case(
        &["scope", "list", "--token-file", "/nonexistent"],
        77,
        &["error: token file /nonexistent: ", "hint: give a token"],
    ),
    case(&["scope", "list", "--token-file", "/dev/null"], 77, &["error: token file /dev/null: must be a regular file"]),
    case(
        &["scope", "list", "--address", "https://127.0.0.1:1", "--ca-file", "/nonexistent"],
        64,
        &["error: CA file /nonexistent: "],
    ),
    case(&["scope", "list", "--token", SECRET], 64, &["--token-file"]),
    case(&["token", "revoke", "cof_user_hunter2-never-shown"], 64, &["error: name the token by tokens/ID"]),
    case(&["token", "revoke", "tokens/abc"], 64, &["error: must be tokens/ID, or at least the first 4 characters"]),
    case(&["grant", "delete", "users/ann"], 64, &["error: must be grants/ID, or at least the first 4 characters"]),
    // Errors and remarks are JSON where the output is.
    case(&["secret", "drop", "--json"], 64, &["{\"error\":{\"exit_code\":64,", "\"kind\":\"usage\"", "'drop'"]),
    case(&["secret", "drop", "--output", "json"], 64, &["{\"error\":{\"exit_code\":64,"]),
    case(&["secret", "list", "projects/p", "--json", "--address", NOWHERE], 69, &["{\"error\":{\"exit_code\":69,"]),
    Case {
        stdin: b"value \n",
        ..case(
            &["secret", "create", NAME, "--json", "--address", NOWHERE],
            69,
            &["{\"note\":\"the value ends with a space, which is kept\"}\n{\"error\":{"],
        )
    },
    case(&["secret", "list", "projects/p", "--json", "--output", "table"], 64, &["cannot be used with"]),
    // Help.
    case(&[], 64, &["Usage: coffer"]),
    case(&["--version"], 0, &["coffer 0."]),
    case(&["--help"], 0, &["COFFER_TOKEN_FILE", "Exit codes", "77  denied"]),
    case(&["secret", "import", "--help"], 0, &["Nothing is expanded: `$HOME` stays `$HOME`"]),
    case(&["environment", "--help"], 0, &["no `coffer run`: coffer-inject -- COMMAND"]),
];

#[test]
fn every_case() {
    for Case { args, stdin, code, says } in CASES {
        let mut child = Command::new(env!("CARGO_BIN_EXE_coffer"))
            .args(*args)
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        // A program that refuses its arguments ends before it reads.
        let _ = child.stdin.take().expect("piped").write_all(stdin);
        let output = child.wait_with_output().expect("it ends");
        let [stdout, stderr] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
        let shown = format!("coffer {}\nstdout: {stdout}\nstderr: {stderr}", args.join(" "));
        assert_eq!(output.status.code(), Some(*code), "{shown}");
        let (text, silent) = if *code == 0 { (&stdout, &stderr) } else { (&stderr, &stdout) };
        for part in *says {
            assert!(text.contains(part), "{part:?} is missing: {shown}");
        }
        assert!(silent.is_empty(), "{shown}");
        assert!(!stderr.contains(SECRET) && !stdout.contains(SECRET), "a value was shown: {shown}");
    }
}

#[test]
fn help_says_what_the_guards_guard() {
    for verb in ["create", "update"] {
        let output = Command::new(env!("CARGO_BIN_EXE_coffer")).args(["secret", verb, "--help"]).env_clear().output();
        let help = String::from_utf8(output.expect("the binary starts").stdout).expect("text");
        let words = help.split_whitespace().collect::<Vec<_>>().join(" ");
        for (option, guarded) in [
            ("--allow-host <HOST>", "headers rendered with it"),
            ("--allow-in-instructions", "text that a model reads"),
        ] {
            let about = words.split(&format!("{option} ")).nth(1).expect(option);
            let about = about.split(" --").next().expect(option);
            assert!(about.contains(guarded), "{verb}: {about}");
        }
        assert!(words.contains("Workloads receive the value regardless"), "{verb}: {words}");
    }
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_coffer"))
        .arg("--help")
        .env_clear()
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(0));
    assert!(output.stderr.is_empty());
}

#[test]
fn a_full_disk_is_an_error() {
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("Linux has it");
    let output = Command::new(env!("CARGO_BIN_EXE_coffer"))
        .arg("--help")
        .env_clear()
        .stdout(full)
        .stderr(Stdio::piped())
        .output()
        .expect("the binary starts");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).starts_with("error: stdout: "));
}

#[test]
fn a_shell_takes_the_completions_and_completes_verbs() {
    let script = format!(
        "source <({coffer} completions bash) && complete -p coffer && \
         COMP_WORDS=(coffer secret cl) COMP_CWORD=2 && _coffer coffer cl secret && echo \"${{COMPREPLY[@]}}\"",
        coffer = env!("CARGO_BIN_EXE_coffer")
    );
    let output = Command::new("bash").args(["--norc", "-c", &script]).output().expect("this test needs bash");
    let [stdout, stderr] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
    assert!(output.status.success(), "{stderr}");
    assert!(stdout.lines().last().is_some_and(|line| line.split(' ').any(|word| word == "clone")), "{stdout}{stderr}");
    for shell in ["zsh", "fish", "elvish", "powershell"] {
        let output = Command::new(env!("CARGO_BIN_EXE_coffer")).args(["completions", shell]).env_clear().output();
        let output = output.expect("the binary starts");
        assert!(output.status.success() && output.stdout.len() > 1000, "{shell}");
    }
}

#[test]
fn what_needs_no_server_works_whatever_is_wrong_with_the_way_to_one() {
    for (args, code) in
        [(&["completions", "bash"][..], 0), (&["login"], 64), (&["run", "--", "x"], 64), (&["status"], 77)]
    {
        let mut command = Command::new(env!("CARGO_BIN_EXE_coffer"));
        let output = command.args(args).env_clear().env("COFFER_TOKEN", SECRET).output().expect("the binary starts");
        assert_eq!(output.status.code(), Some(code), "{args:?}");
    }
}
