//! `coffer redact`

use std::{
    fs::File,
    io::{self, Read},
    path::PathBuf,
};

use coffer_proto::{
    name::Workload,
    v1::{RedactStreamRequest, RedactStreamResponse},
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::{
    failure::Failure,
    input::file::is_stdin,
    print::{self, Report},
    session::Session,
};

/// Bytes sent at once.
const PART_BYTES: usize = 64 * 1024;
/// Parts read ahead of the server.
const PARTS_AHEAD: usize = 2;

/// Put {{NAME}} where a text holds a workload's encrypted values
///
/// Needs secrets:inject. Reads a file or stdin and prints what comes back as it comes, in constant memory. Found are
/// values of at least 8 characters, also JSON-escaped, URL-encoded, in hexadecimal and in base64.
#[derive(clap::Args)]
pub(crate) struct Redact {
    /// SCOPE/servers/ID or SCOPE/sandboxes/ID: whose values
    #[arg(value_parser = Workload::parse)]
    workload: Workload,
    /// The text; otherwise, and for `-`, stdin
    file: Option<PathBuf>,
}

impl Redact {
    pub(super) async fn run(self, session: &Session) -> Result<Report, Failure> {
        let (place, source): (String, Box<dyn Read + Send>) = match &self.file {
            Some(path) if !is_stdin(path) => {
                let file = File::open(path).map_err(|error| Failure::file(path.display(), &error))?;
                (path.display().to_string(), Box::new(file))
            }
            _ => ("stdin".to_owned(), Box::new(io::stdin())),
        };
        let client = session.connect().await?;
        let (parts, sent) = mpsc::channel(PARTS_AHEAD);
        let workload = self.workload.to_string();
        let reader = tokio::task::spawn_blocking(move || read(source, workload, &parts));
        let mut redactions = client.redactions();
        let mut cleaned = client.call(redactions.redact_stream(ReceiverStream::new(sent))).await?;
        let mut replaced = 0;
        while let Some(part) = cleaned.message().await.map_err(coffer_client::Error::from)? {
            let RedactStreamResponse { part, replaced: count } = part;
            replaced += count;
            print::bytes(&part)?;
        }
        reader
            .await
            .map_err(|error| Failure::failed(format!("{place}: {error}")))?
            .map_err(|error| Failure::failed(format!("{place}: {error}")))?;
        let values = if replaced == 1 { "value" } else { "values" };
        Ok(Report::default().note(format!("replaced {replaced} {values}")))
    }
}

/// Sends what there is, as soon as it is there, until the end or until nobody listens.
fn read(
    mut source: Box<dyn Read + Send>,
    workload: String,
    parts: &mpsc::Sender<RedactStreamRequest>,
) -> io::Result<()> {
    let mut buffer = vec![0; PART_BYTES];
    if parts.blocking_send(RedactStreamRequest { workload, part: Vec::new() }).is_err() {
        return Ok(());
    }
    loop {
        let count = match source.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let part = RedactStreamRequest { workload: String::new(), part: buffer[..count].to_vec() };
        if parts.blocking_send(part).is_err() {
            return Ok(());
        }
    }
}
