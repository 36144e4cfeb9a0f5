//! Calls as bytes: for tokens that no client would send, for every method alike, and for reading answers whole.

use std::time::Duration;

use tokio::time::timeout;
use tonic::{
    Request, Status,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    codegen::http::uri::PathAndQuery,
    transport::{Channel, Endpoint},
};

use prost::bytes::{Buf as _, BufMut as _};

/// The methods whose answer goes on.
const STREAMS: [&str; 3] = ["/WatchEnvironment", "/WatchInstances", "/RedactStream"];

/// A connection without credential.
#[derive(Clone)]
pub(crate) struct Raw(Channel);

#[derive(Clone, Copy, Default)]
struct Bytes;

impl Raw {
    pub(crate) fn connect(address: &str) -> Self {
        Self(Endpoint::from_shared(address.to_owned()).expect("a good address").connect_lazy())
    }

    /// Calls `method` (`/coffer.v1.Secrets/GetSecret`) with an encoded request, and answers encoded; of a stream the first
    /// message.
    pub(crate) async fn call(&self, method: &str, token: Option<&str>, message: Vec<u8>) -> Result<Vec<u8>, Status> {
        let authorization = token.map(|token| format!("Bearer {token}"));
        self.call_with(method, authorization.as_deref().map(str::as_bytes), message).await
    }

    /// The same with the whole authorization header given.
    pub(crate) async fn call_with(
        &self,
        method: &str,
        authorization: Option<&[u8]>,
        message: Vec<u8>,
    ) -> Result<Vec<u8>, Status> {
        let (mut client, request, path) = self.prepare(method, authorization, message).await?;
        if STREAMS.iter().any(|stream| method.ends_with(stream)) {
            let mut stream = client.server_streaming(request, path, Bytes).await?.into_inner();
            return stream.message().await.map(Option::unwrap_or_default);
        }
        client.unary(request, path, Bytes).await.map(tonic::Response::into_inner)
    }

    /// All that a method answers, one message after the other, until it ends or says nothing more for so long.
    pub(crate) async fn whole(
        &self,
        method: &str,
        token: Option<&str>,
        message: Vec<u8>,
        silence: Duration,
    ) -> Result<Vec<u8>, Status> {
        let authorization = token.map(|token| format!("Bearer {token}"));
        let authorization = authorization.as_deref().map(str::as_bytes);
        let (mut client, request, path) = self.prepare(method, authorization, message).await?;
        let mut stream = client.server_streaming(request, path, Bytes).await?.into_inner();
        let mut whole = Vec::new();
        while let Ok(message) = timeout(silence, stream.message()).await {
            match message? {
                Some(message) => whole.extend(message),
                None => break,
            }
        }
        Ok(whole)
    }

    async fn prepare(
        &self,
        method: &str,
        authorization: Option<&[u8]>,
        message: Vec<u8>,
    ) -> Result<(Grpc<Channel>, Request<Vec<u8>>, PathAndQuery), Status> {
        let mut request = Request::new(message);
        if let Some(header) = authorization {
            let value = tonic::codegen::http::HeaderValue::from_bytes(header).expect("a header's bytes");
            let mut headers = request.metadata().clone().into_headers();
            headers.insert("authorization", value);
            *request.metadata_mut() = tonic::metadata::MetadataMap::from_headers(headers);
        }
        let mut client = Grpc::new(self.0.clone()).max_decoding_message_size(8 * 1024 * 1024);
        client.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        Ok((client, request, method.parse().expect("a method's path")))
    }
}

impl Codec for Bytes {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Bytes;
    type Decoder = Bytes;

    fn encoder(&mut self) -> Bytes {
        Bytes
    }

    fn decoder(&mut self) -> Bytes {
        Bytes
    }
}

impl Encoder for Bytes {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Bytes {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        let mut bytes = vec![0; buffer.remaining()];
        buffer.copy_to_slice(&mut bytes);
        Ok(Some(bytes))
    }
}
