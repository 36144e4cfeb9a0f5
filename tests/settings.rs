//! What programs take from their environment and command line, and what they refuse there.

use std::fs;

use crate::harness::{Server, text};

/// What Kubernetes and docker set for services called `coffer`, `coffer-server` and `coffer-token`.
fn links() -> Vec<(String, &'static str)> {
    let of = |name: &str| {
        let shapes = [
            ("SERVICE_HOST", "10.0.0.1"),
            ("SERVICE_PORT", "7470"),
            ("SERVICE_PORT_GRPC", "7470"),
            ("PORT", "tcp://10.0.0.1:7470"),
            ("PORT_7470_TCP", "tcp://10.0.0.1:7470"),
            ("PORT_7470_TCP_ADDR", "10.0.0.1"),
            ("PORT_7470_TCP_PORT", "7470"),
            ("PORT_7470_TCP_PROTO", "tcp"),
            ("NAME", "/web/coffer"),
            ("ENV_PATH", "/bin"),
        ];
        shapes.map(|(shape, value)| (format!("{name}_{shape}"), value))
    };
    ["COFFER", "COFFER_SERVER", "COFFER_TOKEN"].into_iter().flat_map(of).collect()
}

#[tokio::test]
async fn variables_of_service_links_stop_no_program() {
    let mut server = Server::start();
    server.kill();
    let mut run = server.run_command();
    run.envs(links());
    server.run_by(run);
    let log = server.log();
    assert!(log.contains("environment variables are passed over") && log.contains("COFFER_SERVER_PORT,"), "{log}");
    let token = server.operator_token();
    let cli = links().into_iter().fold(server.cli(&token), |cli, (name, value)| cli.env(&name, value));
    cli.args(["status"]).run().ok();
    let injector = links().into_iter().fold(server.inject(&token), |run, (name, value)| run.env(&name, value));
    let refused = injector.args(["--workload", "projects/p/servers/s", "--", "true"]).run();
    assert_eq!(refused.code, Some(77), "the server was asked: {}", refused.stderr);
    server.stop().await;

    let config = server.home().join("coffer.toml");
    let lines = format!("data = {:?}\nkey_file = {:?}\n", server.data(), server.key_file());
    fs::write(&config, lines).expect("written");
    let config = config.to_str().expect("UTF-8");
    let data = server.data();
    let data = data.to_str().expect("UTF-8");
    for words in [&["check-config", "--config", config][..], &["verify", data, "--config", config]] {
        let command = words[0];
        let run = || {
            let mut run = Server::command(words);
            run.envs(links());
            run
        };
        let output = run().output().expect("starts");
        assert!(output.status.success(), "{command}: {}", text(&output));
        let misspelt = run().env("COFFER_SERVER_PORT", "7470").output().expect("starts");
        assert_eq!(misspelt.status.code(), Some(64), "{command}: {}", text(&misspelt));
        assert!(text(&misspelt).contains("COFFER_SERVER_PORT is no variable of this server"), "{}", text(&misspelt));
    }
}
