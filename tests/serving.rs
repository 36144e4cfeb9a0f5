//! What stands between the network and the calls: health, reflection, garbage, floods, and the throw-away server.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use coffer_proto::v1;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tonic::Code;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus};

use crate::harness::{Server, binary, secret, text, until, until_async};

fn connect(server: &Server) -> TcpStream {
    let stream = TcpStream::connect(server.address().trim_start_matches("http://")).expect("connected");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("set");
    stream
}

#[tokio::test]
async fn health_needs_no_token() {
    let server = Server::start();
    let raw = server.raw();
    let request = prost::Message::encode_to_vec(&HealthCheckRequest::default());
    let answer = raw.call("/grpc.health.v1.Health/Check", None, request).await.expect("healthy");
    let status: tonic_health::pb::HealthCheckResponse = prost::Message::decode(&answer[..]).expect("an answer");
    assert_eq!(status.status(), ServingStatus::Serving);
}

#[tokio::test]
async fn reflection_is_there_by_flag_only() {
    let method = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
    for (server, expected) in
        [(Server::start(), Code::Unimplemented), (Server::builder().args(["--reflection"]).start(), Code::Ok)]
    {
        let result = server.raw().call(method, None, vec![0x3a, 0x00]).await;
        assert_eq!(result.err().map_or(Code::Ok, |status| status.code()), expected);
    }
}

#[tokio::test]
async fn garbage_on_the_port_harms_nobody() {
    let server = Server::start();
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let frames: Vec<Vec<u8>> = vec![
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
        vec![0; 4096],
        vec![0xff; 100_000],
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
        preface.to_vec(),
        [&preface[..], &[0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00]].concat(),
        [&preface[..], &[0x00, 0x00, 0x04, 0x01, 0x05, 0x00, 0x00, 0x00, 0x01, 0xff, 0xff, 0xff, 0xff]].concat(),
    ];
    for frame in &frames {
        let mut stream = connect(&server);
        // The server may have hung up in the middle of it.
        drop(stream.write_all(frame));
        drop(stream.shutdown(std::net::Shutdown::Write));
        drop(stream.read_to_end(&mut Vec::new()));
    }
    let manager = server.manager(&["projects/p"]).await;
    manager.secrets().create_secret(secret("projects/p", "KEY", "v")).await.expect("it goes on");
    assert!(!server.log().contains("panicked"), "{}", server.log());
}

/// Returns true if the server closes the connection, rather than beginning to speak.
fn is_refused(stream: &mut TcpStream) -> bool {
    // The client's half of HTTP/2's opening. The server may have hung up.
    drop(stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"));
    match stream.read(&mut [0]) {
        Ok(bytes) => bytes == 0,
        Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
    }
}

#[tokio::test]
async fn strangers_lock_out_nobody_of_their_address() {
    let home = TempDir::new().expect("a directory");
    let config = home.path().join("coffer.toml");
    fs::write(&config, "[limits]\nconnections = 20\nconnections_per_peer = 10\n").expect("written");
    let server = Server::builder().args(["--config".as_ref(), config.as_os_str()]).start_in(home);
    let token = server.operator_token();
    let ask = || v1::ListScopesRequest::default();
    let early = server.client(&token);
    early.scopes().list_scopes(ask()).await.expect("a good token");

    // Half of them say nothing, the others are refused once and then say nothing more.
    let mut silent: Vec<_> = (0..20).map(|_| connect(&server)).collect();
    let mut refused = Vec::new();
    for _ in 0..20 {
        let raw = server.raw();
        let code = raw.call("/coffer.v1.Scopes/ListScopes", None, Vec::new()).await.expect_err("no token").code();
        assert_eq!(code, Code::Unauthenticated);
        refused.push(raw);
    }
    let late: Vec<_> = (0..9).map(|_| server.client(&token)).collect();
    for client in &late {
        client.scopes().list_scopes(ask()).await.expect("let in");
    }
    early.scopes().list_scopes(ask()).await.expect("never closed");
    let end = silent[0].read_to_end(&mut Vec::new());
    assert!(!end.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock), "the oldest is closed");

    // All ten are of callers that authenticated: the next one waits for nobody.
    until("the eleventh of this peer is refused", || is_refused(&mut connect(&server)).then_some(()));
    let log = server.log();
    for said in [
        "the oldest on which nobody has authenticated are closed",
        "too many connections; new ones are refused",
        "limits.connections_per_peer",
        "peer=\"127.0.0.1\"",
    ] {
        assert!(log.contains(said), "{said}: {log}");
    }
    let operator = server.socket_client(&token);
    operator.scopes().list_scopes(ask()).await.expect("the unix socket is another peer");
    drop(late);
    until_async("room again", async || (!is_refused(&mut connect(&server))).then_some(())).await;
}

#[tokio::test]
async fn connections_leave_descriptors_for_files() {
    let home = TempDir::new().expect("a directory");
    let mut server = Server::builder().start_in(home);
    server.stop().await;
    let run = server.run_command();
    let mut limited = Command::new("sh");
    limited.args(["-c", "ulimit -n 64 && exec \"$@\"", "sh"]).arg(run.get_program()).args(run.get_args());
    limited.env_clear().stdin(Stdio::null());
    server.run_by(limited);
    // The line that it serves comes after the address by which it is found.
    until("the ceiling is told", || server.log().contains("connections=32").then_some(()));
    assert!(server.log().contains("leaves room for fewer connections"), "{}", server.log());

    let _idle: Vec<_> = (0..60).map(|_| connect(&server)).collect();
    let manager = server.manager(&["projects/p"]).await;
    manager.secrets().create_secret(secret("projects/p", "KEY", "v")).await.expect("written");
    // The audit log is opened again, which takes descriptors.
    server.signal(Signal::HUP);
    manager.secrets().create_secret(secret("projects/p", "KEY_2", "v")).await.expect("written");
    let log = server.log();
    assert!(!log.contains("os error 24"), "{log}");
}

#[tokio::test]
async fn above_the_memory_ceiling_creates_are_refused_and_deletes_pass() {
    let home = TempDir::new().expect("a directory");
    let config = home.path().join("coffer.toml");
    fs::write(&config, "[limits]\nmemory_bytes = 16777216\n").expect("written");
    let server = Server::builder().args(["--config".as_ref(), config.as_os_str()]).start_in(home);
    server.grant("users/manager", "secrets:manage", "projects/-").await;
    let manager = server.client(&server.token("users/manager").await);
    let value = "v".repeat(60_000);
    let mut names = Vec::new();
    let refusal = 'filling: {
        for n in 0..600 {
            match manager
                .secrets()
                .create_secret(secret(&format!("projects/p{}", n / 8), &format!("S{n}"), &value))
                .await
            {
                Ok(created) => names.push(created.into_inner().name),
                Err(status) => break 'filling crate::harness::refused::<()>(Err(status)),
            }
        }
        panic!("36 MB of values fitted under a ceiling of 16 MiB");
    };
    assert_eq!(refusal.why(), (Code::ResourceExhausted, "STORAGE_FULL"));
    for name in names {
        manager.secrets().get_secret(v1::GetSecretRequest { name: name.clone() }).await.expect("reads go on");
        manager.secrets().delete_secret(v1::DeleteSecretRequest { name, ..Default::default() }).await.expect("deleted");
    }
    manager.secrets().create_secret(secret("projects/p", "AGAIN", &value)).await.expect("there is room again");
}

/// A server for development, and what it prints for a shell.
struct Dev {
    child: Child,
    script: String,
}

impl Dev {
    fn start(options: &[&str], home: &Path) -> Self {
        let mut child = Command::new(binary("coffer-server"))
            .args(["dev", "--listen", "127.0.0.1:0"])
            .args(options)
            .env_clear()
            .env("TMPDIR", home)
            .env("HOME", home)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let mut script = String::new();
        while !script.contains("web.token coffer-inject") {
            script.push_str(&lines.next().expect("more to paste").expect("text"));
            script.push('\n');
        }
        Self { child, script }
    }

    /// Runs what it prints, and then more.
    fn paste(&self, more: &str) -> String {
        let binaries = binary("coffer").parent().expect("a folder").to_owned();
        let path = format!("{}:/usr/local/bin:/usr/bin:/bin", binaries.display());
        let script = format!("{}{more}", self.script);
        let pasted =
            Command::new("sh").args(["-eux", "-c", &script]).env_clear().env("PATH", path).output().expect("it runs");
        assert!(pasted.status.success(), "{script}{}", String::from_utf8_lossy(&pasted.stderr));
        String::from_utf8_lossy(&pasted.stdout).into_owned()
    }

    /// Ends it; returns what it said on stderr.
    fn end(self) -> String {
        let pid = Pid::from_raw(self.child.id().try_into().expect("a pid")).expect("not zero");
        kill_process(pid, Signal::INT).expect("its own child");
        let ended = self.child.wait_with_output().expect("its end");
        assert_eq!(ended.status.code(), Some(0));
        String::from_utf8_lossy(&ended.stderr).into_owned()
    }
}

#[test]
fn what_dev_prints_can_be_pasted_and_nothing_stays() {
    let home = TempDir::new().expect("a directory");
    let dev = Dev::start(&["--temporary"], home.path());
    let printed = dev.paste("");
    let last = printed.lines().last().expect("a generated value");
    assert!(last.len() >= 32 && last.chars().all(|c| c.is_ascii_alphanumeric()), "{printed}");
    let said = dev.end();
    assert!(!said.contains(" INFO "), "its log is elsewhere: {said}");
    assert!(fs::read_dir(home.path()).expect("readable").next().is_none(), "it left something behind");
}

#[test]
fn dev_goes_on_with_what_was_done_before() {
    let home = TempDir::new().expect("a directory");
    let dev = Dev::start(&[], home.path());
    dev.paste("printf hunter2 | coffer secret set projects/mine/secrets/KEPT --plain");
    let beside = Command::new(binary("coffer-server")).arg("dev").env_clear().env("HOME", home.path()).output();
    let beside = text(&beside.expect("it runs"));
    assert!(beside.contains("hint: is another `dev` running on it? --temporary or --data DIR"), "{beside}");
    dev.end();
    let kept = home.path().join(".local/share/coffer-dev");
    assert!(fs::read_to_string(kept.join("server.log")).expect("its log").contains(" INFO "));
    // Tokens of an earlier start may have ended: those of this one are new.
    fs::write(kept.join("dev.token"), "cof_u_ended").expect("written");
    let dev = Dev::start(&[], home.path());
    let printed = dev.paste("coffer secret get projects/mine/secrets/KEPT");
    assert!(printed.contains("hunter2"), "{printed}");
    dev.end();
}
