//! `coffer reference set`

use coffer_proto::{
    name::{DeclarationName, VariableName},
    v1::SetReferenceRequest,
};

use crate::{failure::Failure, input::text::Texts, print::Report, session::Session, view::ReferenceList};

/// Say which secrets a tool uses, so that none of them is deleted by mistake
#[derive(clap::Args)]
pub(crate) struct Set {
    /// SCOPE/references/ID, or PATTERN/references/ID for every scope of a pattern
    #[arg(value_parser = DeclarationName::parse_reference)]
    reference: DeclarationName,
    /// A template that the tool holds: the names of its {{placeholders}} are taken, the text is not kept. Repeatable
    #[arg(long = "text", value_name = "TEMPLATE")]
    texts: Vec<String>,
    /// A name that it uses in another way. Repeatable, or separated by commas
    #[arg(long = "variable", value_name = "NAME", value_delimiter = ',', value_parser = VariableName::parse)]
    variables: Vec<VariableName>,
    /// What the tool is called
    #[arg(long, short, value_name = "TEXT", default_value = "", hide_default_value = true)]
    description: String,
    #[command(flatten)]
    files: Texts,
}

impl Set {
    pub(super) async fn run(self, session: &Session) -> Result<Report, Failure> {
        let request = SetReferenceRequest {
            name: self.reference.to_string(),
            description: self.description,
            texts: self.files.read(self.texts)?,
            variables: self.variables.iter().map(ToString::to_string).collect(),
        };
        let client = session.connect().await?;
        let set = client.call(client.references().set_reference(request)).await?;
        session.show(&ReferenceList::new(vec![set], false))
    }
}
