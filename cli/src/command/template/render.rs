//! `coffer template render`

use clap::ValueEnum;
use coffer_proto::{name::Workload, reason::Reason, v1};
use zeroize::Zeroizing;

use crate::{failure::Failure, input::text::Texts, print::Report, session::Session};

/// Resolve {{NAME}} in texts with a workload's secrets
///
/// Needs secrets:inject. `{{NAME}}` and `{{ NAME }}` are placeholders, `{{{{` writes `{{`, every other brace stands for
/// itself. Texts are printed as they come out, without a line break between them. On a terminal only with --reveal.
#[derive(clap::Args)]
pub(crate) struct Render {
    /// SCOPE/servers/ID or SCOPE/sandboxes/ID: whose secrets
    #[arg(value_parser = Workload::parse)]
    workload: Workload,
    /// Texts with placeholders
    #[arg(value_name = "TEXT")]
    texts: Vec<String>,
    /// What the texts will be: values with line breaks are refused in headers, and encrypted secrets that do not allow it
    /// in instructions
    #[arg(long, value_enum)]
    sink: Sink,
    /// The host a header goes to: needed for secrets that are for some hosts only
    #[arg(long, value_name = "HOST", default_value = "", hide_default_value = true)]
    host: String,
    #[command(flatten)]
    files: Texts,
    /// Print to a terminal
    #[arg(long)]
    reveal: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Sink {
    /// The value of an HTTP header
    Header,
    /// Text that a model will read
    Instruction,
}

impl Render {
    pub(super) async fn run(self, session: &Session) -> Result<Report, Failure> {
        if session.is_terminal() && !self.reveal {
            return Err(
                Failure::usage("this would print values to a terminal").hint("--reveal prints them all the same")
            );
        }
        let texts = self.files.read(self.texts)?;
        if texts.is_empty() {
            return Err(Failure::usage("no text: give one, or --file FILE"));
        }
        let sink = match self.sink {
            Sink::Header => v1::render_template_request::Sink::Header,
            Sink::Instruction => v1::render_template_request::Sink::Instruction,
        };
        let request = v1::RenderTemplateRequest {
            workload: self.workload.to_string(),
            texts,
            sink: sink.into(),
            destination_host: self.host,
        };
        let client = session.connect().await?;
        let rendered = client.call(client.templates().render_template(request)).await.map_err(|error| {
            Failure::from(error)
                .hint_if(
                    Reason::DestinationNotAllowed,
                    "say with --host where the header goes, if that is one of its hosts",
                )
                .hint_if(
                    Reason::NotForInstructions,
                    "its owner can allow it: coffer secret update SECRET --allow-in-instructions",
                )
        })?;
        let bytes = Zeroizing::new(rendered.texts.concat());
        let text =
            std::str::from_utf8(&bytes).map_err(|_| Failure::failed("the server sent text that is not UTF-8"))?;
        Ok(Report::data(text))
    }
}
