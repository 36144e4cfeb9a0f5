//! Those who follow an environment go on at another server when theirs is gone.

use std::{
    io::{BufRead as _, BufReader},
    process::Child,
    sync::mpsc::{Receiver, channel},
    time::Duration,
};

use coffer_client::{
    Client, Config, Credential,
    follow::{Change, Follow},
    retry::Policy,
};
use coffer_proto::{token::Token, v1};
use tokio::time::timeout;

use super::{SCOPE, WORKLOAD, fetch};
use crate::harness::{Etcd, Server, again, secret, until_async};

/// Far more than it takes.
const LONG: Duration = Duration::from_secs(60);
const SHOW: &str = "echo \"$KEY\"; while :; do sleep 0.05; done";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_goes_on_at_another_server_and_misses_nothing() {
    let etcd = Etcd::start(1);
    let mut first = Server::builder().on(etcd.config("")).start();
    let mut second = Server::builder().beside(&first);
    first.grant("users/manager", "secrets:manage", SCOPE).await;
    // Who changes things asks the server that stays.
    let manager_token = first.token("users/manager").await;
    let manager = second.client(&manager_token);
    let create = async |name| {
        let request = secret(SCOPE, name, "one");
        again(async || manager.secrets().create_secret(request.clone()).await).await.expect("created");
    };
    let set = async |value: &str| {
        let (name, value) = (format!("{SCOPE}/secrets/KEY"), Some(value.into()));
        let request = v1::UpdateSecretRequest { name, value, ..Default::default() };
        again(async || manager.secrets().update_secret(request.clone()).await).await.expect("updated");
    };
    create("KEY").await;
    let token = first.workload_token(WORKLOAD).await;
    // The one that is started anew has the same socket then.
    let both = format!("{},{}", first.socket(), second.address());
    let tool = first.inject(&token).env("COFFER_ADDRESS", both.clone());
    let supervised =
        Running::new(tool.args(["--on-change", "restart", "--debounce", "50ms", "--", "sh", "-c", SHOW]).spawn());
    assert_eq!(supervised.line(), "one");

    let start = now(&first, &token).await;
    let credential = Some(Credential::Token(Token::parse(&token).expect("a token")));
    let addresses = both.parse().expect("addresses");
    let client = Client::lazy(Config { credential, ..Config::new(addresses) }).expect("a client");
    let mut follow = Follow::new(client.clone(), WORKLOAD, &start, Policy::default());
    // What there is when it begins, and what comes while it waits.
    for name in ["BEFORE", "WAITED_FOR"] {
        create(name).await;
        assert_eq!(only(&mut follow).await, name);
    }
    assert_eq!(client.server().to_string(), first.socket());
    // The server that stays has handed out the state that the watch stands at.
    let mut revision = now(&second, &token).await;

    // One change while the server goes, one after it.
    let changing = async {
        create("AT_ONCE").await;
        create("AFTER").await;
        set("two").await;
    };
    let ending = async { first.kill() };
    tokio::join!(changing, ending);
    let last = now(&second, &token).await;
    let mut changed = Vec::new();
    while revision != last {
        let told = next(&mut follow).await;
        assert!(!told.reset && !told.changed.is_empty() && told.revision != revision, "{told:?}");
        changed.extend(told.changed);
        revision = told.revision;
    }
    changed.sort_unstable();
    changed.dedup();
    assert_eq!(changed, ["AFTER", "AT_ONCE", "KEY"], "none is missing, and no other is told");
    while supervised.line() != "two" {}
    assert_eq!(client.server().to_string(), second.address());
    create("THERE").await;
    assert_eq!(only(&mut follow).await, "THERE");
    set("three").await;
    assert_eq!(only(&mut follow).await, "KEY");
    while supervised.line() != "three" {}

    // Back, while nothing changes: what is known is not told again.
    first.run();
    let last = now(&second, &token).await;
    assert_eq!(now(&first, &token).await, last);
    second.kill();
    let moving = async {
        let is_there = async || (client.server().to_string() == first.socket()).then_some(());
        until_async("the watch to move", is_there).await;
        let manager = first.client(&manager_token);
        let create = secret(SCOPE, "BACK", "one");
        again(async || manager.secrets().create_secret(create.clone()).await).await.expect("created");
    };
    let (told, ()) = tokio::join!(only(&mut follow), moving);
    assert_eq!(told, "BACK");
}

/// The revision of now, as this server hands it out.
async fn now(server: &Server, token: &str) -> String {
    let client = server.client(token);
    let answer = again(async || client.workloads().fetch_environment(fetch()).await).await.expect("fetched");
    answer.into_inner().environment_revision
}

async fn next(follow: &mut Follow) -> Change {
    timeout(LONG, follow.next()).await.expect("in time").expect("it goes on")
}

/// The one name that differs next.
async fn only(follow: &mut Follow) -> String {
    let told = next(follow).await;
    let [name] = &told.changed[..] else { panic!("{told:?}") };
    assert!(!told.reset, "{told:?}");
    name.clone()
}

/// A command that prints lines, ended with the test.
struct Running(Child, Receiver<String>);

impl Running {
    fn new(mut child: Child) -> Self {
        let stdout = child.stdout.take().expect("piped");
        let (sender, receiver) = channel();
        std::thread::spawn(move || {
            let lines = BufReader::new(stdout).lines().map_while(Result::ok);
            lines.for_each(|line| drop(sender.send(line)));
        });
        Self(child, receiver)
    }

    fn line(&self) -> String {
        self.1.recv_timeout(LONG).expect("a line")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.0);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.0.wait();
    }
}
