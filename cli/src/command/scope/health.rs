//! `coffer scope health`

use coffer_proto::{name::Scope, v1::GetScopeHealthRequest};

use crate::{failure::Failure, print::Report, session::Session, view::HealthView};

/// What is missing, unused and stale in a scope
#[derive(clap::Args)]
pub(crate) struct Health {
    /// The scope
    #[arg(value_parser = Scope::parse)]
    scope: Scope,
    /// A value older than so many days is stale
    #[arg(long, value_name = "N", default_value_t = 90, value_parser = clap::value_parser!(i32).range(1..=36_500))]
    stale_days: i32,
    /// A secret not used for so many days is unused
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(i32).range(1..=36_500))]
    unused_days: i32,
    /// End with exit code 1 if there is something to look at
    #[arg(long)]
    exit_code: bool,
}

impl Health {
    pub(super) async fn run(self, session: &Session) -> Result<Report, Failure> {
        let client = session.connect().await?;
        let request = GetScopeHealthRequest {
            scope: self.scope.to_string(),
            stale_days: self.stale_days,
            unused_days: self.unused_days,
        };
        let health = client.call(client.scopes().get_scope_health(request)).await?;
        let view = HealthView::new(self.scope.to_string(), health, self.stale_days, self.unused_days);
        let report = session.show(&view)?;
        Ok(Report { negative: self.exit_code && !view.is_healthy(), ..report })
    }
}
