//! Typed gRPC clients over one authenticated connection.

use std::{future::Future, time::Duration};

use coffer_proto::{
    limits,
    v1::{
        access_client::AccessClient, imports_client::ImportsClient, instances_client::InstancesClient,
        manifests_client::ManifestsClient, operations_client::OperationsClient, redactions_client::RedactionsClient,
        references_client::ReferencesClient, scopes_client::ScopesClient, secrets_client::SecretsClient,
        templates_client::TemplatesClient, tokens_client::TokensClient, workloads_client::WorkloadsClient,
    },
};
use tonic::{Response, Status, service::interceptor::InterceptedService, transport::Endpoint};
use tonic_health::pb::health_client::HealthClient;

use crate::{Address, Addresses, Authorize, Channel, Config, Error, Servers, connect, servers::Member};

/// A connection to a server. Cloning is cheap and shares it; it reconnects by itself.
#[derive(Clone)]
pub struct Client {
    channel: Channel,
    servers: Servers,
    call_timeout: Duration,
}

impl Client {
    /// Connects now, to the first of the servers that answers. Fails if the credential cannot be read, or nobody answers:
    /// the error names the last address. Whether the server accepts the credential only a call can tell.
    pub async fn connect(config: Config) -> Result<Self, Error> {
        let endpoints = connect::endpoints(&config)?;
        let authorize = Authorize::new(config.credential, config.call_timeout);
        authorize.check()?;
        let mut members = lazy(&config.addresses, &endpoints);
        let mut last = Error::deadline("no address to connect to");
        for (at, (address, endpoint)) in config.addresses.iter().zip(&endpoints).enumerate() {
            // The endpoint's own limit does not cover resolving the host's name.
            match tokio::time::timeout(config.connect_timeout, endpoint.connect()).await {
                Ok(Ok(channel)) => {
                    members[at].1 = channel;
                    return Ok(Self::new(members, at, authorize));
                }
                Ok(Err(error)) => last = Error::not_connected(address, &error),
                Err(_) => last = Error::deadline(format!("cannot connect to {address}: no answer in time")),
            }
        }
        Err(last)
    }

    /// Connects at the first call. Fails on a bad CA file. Needs a tokio runtime.
    pub fn lazy(config: Config) -> Result<Self, Error> {
        let members = lazy(&config.addresses, &connect::endpoints(&config)?);
        Ok(Self::new(members, 0, Authorize::new(config.credential, config.call_timeout)))
    }

    fn new(members: Vec<Member>, preferred: usize, authorize: Authorize) -> Self {
        let call_timeout = authorize.call_timeout();
        let servers = Servers::new(members, preferred, call_timeout);
        Self { channel: InterceptedService::new(servers.clone(), authorize), servers, call_timeout }
    }

    /// The server that answered last; before any has, and after one that did not answer, the one that the next call goes
    /// to first.
    pub fn server(&self) -> &Address {
        self.servers.preferred()
    }

    /// Makes one call, the time limit over all of it: tonic's own ends with the first bytes of the answer.
    pub async fn call<T>(&self, call: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, Error> {
        match tokio::time::timeout(self.call_timeout, call).await {
            Ok(answer) => Ok(answer?.into_inner()),
            Err(_) => Err(Error::deadline("no answer in time")),
        }
    }

    /// Create, read, update, delete and clone secrets.
    pub fn secrets(&self) -> SecretsClient<Channel> {
        SecretsClient::new(self.channel.clone()).max_decoding_message_size(limits::RESPONSE_BYTES)
    }

    /// Import many secrets at once.
    pub fn imports(&self) -> ImportsClient<Channel> {
        ImportsClient::new(self.channel.clone()).max_decoding_message_size(limits::RESPONSE_BYTES)
    }

    /// Find and delete scopes.
    pub fn scopes(&self) -> ScopesClient<Channel> {
        ScopesClient::new(self.channel.clone()).max_decoding_message_size(limits::RESPONSE_BYTES)
    }

    /// Grants, and who can do what.
    pub fn access(&self) -> AccessClient<Channel> {
        AccessClient::new(self.channel.clone()).max_decoding_message_size(limits::RESPONSE_BYTES)
    }

    /// Issue and revoke tokens.
    pub fn tokens(&self) -> TokensClient<Channel> {
        TokensClient::new(self.channel.clone()).max_decoding_message_size(limits::RESPONSE_BYTES)
    }

    /// Fetch the environment of a workload.
    pub fn workloads(&self) -> WorkloadsClient<Channel> {
        WorkloadsClient::new(self.channel.clone()).max_decoding_message_size(limits::RESPONSE_BYTES)
    }

    /// Which workloads were started with what, and which need a restart.
    pub fn instances(&self) -> InstancesClient<Channel> {
        InstancesClient::new(self.channel.clone()).max_decoding_message_size(limits::RESPONSE_BYTES)
    }

    /// How the store is, its snapshots and backup, its keys; for operators.
    pub fn operations(&self) -> OperationsClient<Channel> {
        OperationsClient::new(self.channel.clone()).max_decoding_message_size(limits::RESPONSE_BYTES)
    }

    /// Say which secrets tools use, so that deletes are guarded.
    pub fn references(&self) -> ReferencesClient<Channel> {
        ReferencesClient::new(self.channel.clone()).max_decoding_message_size(limits::RESPONSE_BYTES)
    }

    /// Say which variables workloads expect.
    pub fn manifests(&self) -> ManifestsClient<Channel> {
        ManifestsClient::new(self.channel.clone()).max_decoding_message_size(limits::RESPONSE_BYTES)
    }

    /// Put values into templates.
    pub fn templates(&self) -> TemplatesClient<Channel> {
        TemplatesClient::new(self.channel.clone()).max_decoding_message_size(limits::RESPONSE_BYTES)
    }

    /// Take values out of texts.
    pub fn redactions(&self) -> RedactionsClient<Channel> {
        RedactionsClient::new(self.channel.clone()).max_decoding_message_size(limits::RESPONSE_BYTES)
    }

    /// Whether the server serves (grpc.health.v1).
    pub fn health(&self) -> HealthClient<Channel> {
        HealthClient::new(self.channel.clone())
    }
}

/// Connections that are made when they are needed.
fn lazy(addresses: &Addresses, endpoints: &[Endpoint]) -> Vec<Member> {
    addresses.iter().cloned().zip(endpoints.iter().map(Endpoint::connect_lazy)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Credential;
    use std::net::{Ipv4Addr, TcpListener};
    use tonic::Code;

    async fn failure(config: Config) -> Error {
        match Client::connect(config).await {
            Ok(_) => panic!("connected"),
            Err(error) => error,
        }
    }

    /// An address that was free a moment ago and has no listener.
    fn nobody() -> Address {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let port = listener.local_addr().expect("its address").port();
        format!("http://127.0.0.1:{port}").parse().expect("an address")
    }

    #[tokio::test]
    async fn nobody_there_names_the_address() {
        let address = nobody();
        let error = failure(Config::new(address.clone().into())).await;
        assert_eq!(error.code(), Code::Unavailable);
        assert!(error.is_retryable());
        assert!(error.message().starts_with(&format!("cannot connect to {address}: ")), "{error}");
        assert!(error.message().contains("refused"), "{error}");
    }

    #[tokio::test]
    async fn no_socket_names_the_address() {
        let dir = tempfile::tempdir().expect("a directory");
        let address: Address = format!("unix://{}/none.sock", dir.path().display()).parse().expect("an address");
        let error = failure(Config::new(address.clone().into())).await;
        assert_eq!(error.code(), Code::Unavailable);
        assert!(error.message().contains(&address.to_string()), "{error}");
    }

    #[tokio::test]
    async fn a_bad_token_file_fails_before_connecting() {
        let mut config = Config::new(nobody().into());
        config.credential = Some(Credential::TokenFile("/nonexistent/token".into()));
        let error = failure(config).await;
        assert_eq!(error.code(), Code::Unauthenticated);
        assert!(error.message().contains("/nonexistent/token"), "{error}");
    }

    #[tokio::test]
    async fn a_bad_ca_file_is_named() {
        let dir = tempfile::tempdir().expect("a directory");
        for (name, content) in [("empty", ""), ("text", "hello"), ("der", "-----BEGIN CERTIFICATE-----\nAA=\n")] {
            let path = dir.path().join(name);
            std::fs::write(&path, content).expect("written");
            let mut config = Config::new("https://127.0.0.1:1".parse().expect("an address"));
            config.ca_file = Some(path.clone());
            let error = failure(config).await;
            assert_eq!(error.code(), Code::InvalidArgument, "{name}");
            assert!(error.message().contains(&path.display().to_string()), "{error}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_never_ends_is_given_up() {
        let client = Client::lazy(Config::new(nobody().into())).expect("nothing to connect to yet");
        let begin = tokio::time::Instant::now();
        let error = client.call(std::future::pending::<Result<Response<()>, Status>>()).await.expect_err("no answer");
        assert_eq!((error.code(), begin.elapsed().as_secs()), (Code::DeadlineExceeded, 10));
    }
}
