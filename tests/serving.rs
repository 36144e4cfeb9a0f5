//! What stands between the network and the calls: health, reflection, garbage, floods, and the throw-away server.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    process::{Command, Stdio},
    time::Duration,
};

use coffer_proto::v1;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tonic::Code;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus};

use crate::harness::{Server, binary, secret, until};

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

#[tokio::test]
async fn one_peer_cannot_take_all_connections() {
    let home = TempDir::new().expect("a directory");
    let config = home.path().join("coffer.toml");
    fs::write(&config, "[limits]\nconnections = 20\nconnections_per_peer = 10\n").expect("written");
    let server = Server::builder().args(["--config".as_ref(), config.as_os_str()]).start_in(home);
    let idle: Vec<_> = (0..10).map(|_| connect(&server)).collect();
    let mut one_more = connect(&server);
    let mut byte = [0];
    let refused = one_more.read(&mut byte);
    let closed = match refused {
        Ok(bytes) => bytes == 0,
        Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
    };
    assert!(closed, "the eleventh of this peer is closed");
    // The socket's peer is another.
    let operator = server.socket_client(&server.operator_token());
    operator.scopes().list_scopes(v1::ListScopesRequest::default()).await.expect("others are served");
    drop(idle);
    until("room again", || {
        let mut stream = connect(&server);
        stream.set_read_timeout(Some(Duration::from_millis(100))).expect("set");
        let mut byte = [0];
        let waiting = stream.read(&mut byte).is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock);
        let speaks = matches!(stream.peek(&mut byte), Ok(1));
        (waiting || speaks).then_some(())
    });
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

#[test]
fn what_dev_prints_can_be_pasted_and_nothing_stays() {
    let temporary = TempDir::new().expect("a directory");
    let mut dev = Command::new(binary("coffer-server"))
        .args(["dev", "--listen", "127.0.0.1:0"])
        .env_clear()
        .env("TMPDIR", temporary.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts");
    let mut lines = BufReader::new(dev.stdout.take().expect("a pipe")).lines();
    let mut script = String::new();
    while !script.contains("web.token coffer-inject") {
        script.push_str(&lines.next().expect("more to paste").expect("text"));
        script.push('\n');
    }
    let binaries = binary("coffer").parent().expect("a folder").to_owned();
    let path = format!("{}:/usr/local/bin:/usr/bin:/bin", binaries.display());
    let pasted =
        Command::new("sh").args(["-eux", "-c", &script]).env_clear().env("PATH", path).output().expect("it runs");
    assert!(pasted.status.success(), "{script}{}", String::from_utf8_lossy(&pasted.stderr));
    let printed = String::from_utf8_lossy(&pasted.stdout);
    let last = printed.lines().last().expect("a generated value");
    assert!(last.len() >= 32 && last.chars().all(|c| c.is_ascii_alphanumeric()), "{printed}");

    let pid = Pid::from_raw(dev.id().try_into().expect("a pid")).expect("not zero");
    kill_process(pid, Signal::INT).expect("its own child");
    assert_eq!(dev.wait().expect("its end").code(), Some(0));
    assert!(fs::read_dir(temporary.path()).expect("readable").next().is_none(), "it left something behind");
}
