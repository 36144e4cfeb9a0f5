//! The command line.

use clap::Parser;

use crate::{command::Command, options::Global};

const EXAMPLES: &str = "\
Examples:
  coffer secret create projects/shop/secrets/STRIPE_API_KEY
      asks for the value, without echo; lines that are pasted are one value
  pass show db | coffer secret create projects/shop/secrets/DATABASE_URL
      takes it from a pipe, without the line break at its end
  coffer secret create accounts/ann/plugins/github/secrets/REGION --plain --value-file region.txt
      takes it from a file, every byte; readers of a plain variable see its value
  coffer secret create organizations/acme/secrets/SIGNING_KEY --generate --share-with web,batch
  coffer secret set projects/shop/secrets/STRIPE_API_KEY
      creates it, or gives it a new value
  coffer secret list accounts/ann/plugins/-
  coffer secret clone projects/shop/secrets/- projects/blog
  coffer secret import projects/shop --file .env --preview
  coffer environment describe projects/shop/environments/production
  coffer grant create users/bob secrets:read projects/shop
  coffer token issue projects/shop/servers/web --ttl 1h --out token
  coffer reference set projects/shop/references/search --text 'Authorization: Bearer {{SEARCH_TOKEN}}'
  coffer manifest set accounts/-/plugins/github/manifests/github --require GITHUB_API_TOKEN
  coffer instances projects/- --restart-required
  coffer redact projects/shop/servers/web <transcript.json
  coffer store backup coffer.backup

Names:
  scopes     organizations/ID  organizations/ID/workspaces/ID  projects/ID
             projects/ID/environments/ID  accounts/ID  accounts/ID/plugins/ID
  secrets    SCOPE/secrets/NAME
  workloads  SCOPE/servers/ID  SCOPE/sandboxes/ID
  patterns   the same with `-` in an ID's place, for all of a kind

Environment:
  COFFER_ADDRESS     where the server is
  COFFER_TOKEN_FILE  file with the token
  COFFER_TOKEN       the token itself; over COFFER_TOKEN_FILE, under --token-file
  COFFER_CA_FILE     certificates to trust, PEM

Exit codes, the same whether this program finds it or the server:
  0  done                               69  server not available, or overloaded
  1  refused, failed, or the answer     73  there is already what was to be made
     to a question is no                75  changed by somebody else meanwhile
  64 wrong command line or value        77  denied, or not authenticated; also what
  66 no such thing or file                  is absent, to whoever may not see it
With --json an error is one line of JSON on stderr: {\"error\": {exit_code, kind, reason, message, hint}},
and a remark {\"note\"}.";

/// Keeps the secrets of workloads, and never shows an encrypted one again
#[derive(Parser)]
#[command(name = "coffer", version, after_long_help = EXAMPLES, after_help = EXAMPLES,
    subcommand_required = true, arg_required_else_help = true, max_term_width = 120)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_sound() {
        Args::command().debug_assert();
    }
}
