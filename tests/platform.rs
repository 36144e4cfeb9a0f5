//! A platform's service in Python, on the real server: the contract seen from another language.

use std::process::Command;

use crate::harness::{Server, prepared};

#[test]
fn a_platform_service_in_python_gets_what_the_contract_says() {
    let server = Server::start();
    let output = Command::new(prepared("venv").join("bin/python"))
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/python/platform_service.py"))
        .env_clear()
        .env("PYTHONPATH", prepared("stubs"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("COFFER_ADDRESS", server.address())
        .env("COFFER_SOCKET", server.socket())
        .env("COFFER_TOKEN_FILE", server.operator_token_file())
        .output()
        .expect("Python starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "platform: all well\n");
}
