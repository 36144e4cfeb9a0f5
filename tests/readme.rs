//! The README's commands run as they stand, in order, on a machine that has nothing of coffer's.
//!
//! The machine is a mount and a network namespace: `/etc`, `/usr/local/bin`, `/var/lib`, `/var/log` and `/run` are
//! copies or empty, the ports are free, and an etcd serves under the names that the README's configuration has. Only the
//! build is not done again: `cargo build --release --bins` finds the binaries under test.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::Stdio,
};

use tempfile::TempDir;

use crate::harness::{Authority, Namespace, binary, unshared};

const README: &str = include_str!("../README.md");

/// Sets the machine up, then runs the README's blocks in one shell. `$1` is a directory with what it needs.
const MACHINE: &str = r#"
    home="$1"
    ip link set lo up
    mkdir "$home/etc" "$home/bin" "$home/lib" "$home/log" "$home/run"
    cp -a /etc/. "$home/etc" 2>/dev/null || true
    rm -rf "$home/etc/coffer"
    printf '127.0.0.1 localhost etcd-1 etcd-2 etcd-3\n' >"$home/etc/hosts"
    mkdir -p "$home/etc/ssl/certs"
    cp "$home/etcd-ca.pem" "$home/etc/ssl/certs/etcd-ca.pem"
    etcd="$(command -v etcd)"
    mount --bind "$home/etc" /etc
    mount --bind "$home/lib" /var/lib
    mount --bind "$home/log" /var/log
    mount --bind "$home/run" /run
    mount --bind "$home/bin" /usr/local/bin
    "$etcd" --data-dir "$home/etcd" --cert-file "$home/etcd-cert.pem" --key-file "$home/etcd-key.pem" \
        --listen-client-urls https://127.0.0.1:2379 --advertise-client-urls https://127.0.0.1:2379 \
        --listen-peer-urls http://127.0.0.1:2380 >"$home/etcd.log" 2>&1 &
    machine=$!
    mkdir "$home/clone"
    cd "$home/clone"
    printf '#!/bin/sh\necho "$0: started with $(env | grep -c DATABASE_URL) variables of coffer"\n' >app
    chmod +x app
    code=0
    env -i PATH="$home/tools:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin" HOME="$home" TZ=UTC \
        bash -eu "$home/script" || code=$?
    if [ "$code" != 0 ]; then tail -n 20 server.log server-etcd.log "$home/etcd.log"; fi
    kill "$machine"
    exit "$code"
"#;

/// The fenced blocks of these languages, in order, with the language.
fn blocks<'a>(text: &'a str, languages: &[&str]) -> Vec<(&'a str, &'a str)> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some((_, after)) = rest.split_once("\n```") {
        let (language, body) = after.split_once('\n').expect("a fence ends its line");
        let (block, after) = body.split_once("\n```").expect("a fence is closed");
        if languages.contains(&language) {
            found.push((language, block));
        }
        rest = after;
    }
    found
}

/// One shell script of all blocks. A configuration is written to the path in its first line, which is a comment.
fn script() -> String {
    let mut script = String::from("trap 'kill $(jobs -p) 2>/dev/null || true; wait' EXIT\n");
    let blocks = blocks(README, &["sh", "toml"]);
    assert!(blocks.len() > 5, "the README has commands");
    for (language, block) in blocks {
        match language {
            "sh" => script.push_str(block),
            _ => {
                let path = block.lines().next().and_then(|line| line.strip_prefix("# "));
                let path = path.unwrap_or_else(|| panic!("say in the first line where this file lies: {block}"));
                script.push_str(&format!("cat >{path} <<'END'\n{block}\nEND"));
            }
        }
        script.push('\n');
    }
    script.push_str("echo the end of the README\n");
    script
}

fn write_program(path: &Path, text: &str) {
    fs::write(path, text).expect("written");
    fs::set_permissions(path, Permissions::from_mode(0o755)).expect("its own file");
}

#[test]
fn the_readmes_commands_run_in_order_on_an_empty_machine() {
    let home = TempDir::new().expect("a directory");
    let path = |name: &str| home.path().join(name);
    Authority::write_for(&home, "etcd", &["etcd-1", "etcd-2", "etcd-3", "127.0.0.1"]);
    fs::write(path("script"), script()).expect("written");
    fs::create_dir(path("tools")).expect("made");
    let built = binary("coffer").parent().expect("a directory").display().to_string();
    binary("coffer-server");
    binary("coffer-inject");
    let cargo = format!(
        "#!/bin/sh\n[ \"$*\" = 'build --release --bins' ] || {{ echo \"cargo $*: not the build of the README\" >&2; exit 1; }}\n\
         mkdir target && ln -s '{built}' target/release\n"
    );
    write_program(&path("tools/cargo"), &cargo);

    let mut command = unshared(&[Namespace::Mount, Namespace::Network]);
    command.args(["sh", "-eu", "-c", MACHINE, "sh"]).arg(home.path()).stdin(Stdio::null());
    let output = command.output().expect("it starts");
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{stdout}\n{stderr}");
    assert!(stdout.contains("the database is postgres://shop@db.internal/shop\n"), "{stdout}");
    assert!(stdout.ends_with("the end of the README\n"), "{stdout}\n{stderr}");
}
