//! Who coffer is to etcd: a token for a name and a password. A client certificate may stand for both, then there is none.

use coffer_proto::etcd::{AuthenticateRequest, auth_client::AuthClient};
use tokio::sync::Mutex;
use tonic::{metadata::AsciiMetadataValue, transport::Channel};

use super::{User, error::Failure};

/// The token, kept for as long as etcd knows it.
pub(super) struct Access(Mutex<Login>);

struct Login {
    user: Option<User>,
    token: Option<AsciiMetadataValue>,
}

impl Access {
    pub(super) fn new(user: Option<User>) -> Self {
        Self(Mutex::new(Login { user, token: None }))
    }

    /// From now on coffer is this user.
    pub(super) async fn renew(&self, user: Option<User>) {
        *self.0.lock().await = Login { user, token: None };
    }

    /// The token, another than one that was refused, of a member by its connection and name. Many who ask at once make one
    /// call.
    pub(super) async fn token(
        &self,
        (channel, name): (&Channel, &str),
        refused: Option<&AsciiMetadataValue>,
    ) -> Result<Option<AsciiMetadataValue>, Failure> {
        let mut login = self.0.lock().await;
        let Login { user: Some(user), token } = &mut *login else { return Ok(None) };
        if token.is_none() || token.as_ref() == refused {
            let ask = AuthenticateRequest { name: user.name.clone(), password: user.password.to_string() };
            let answer = AuthClient::new(channel.clone()).authenticate(ask).await;
            // Nothing of the transaction was sent yet, whatever became of this call.
            let answer = answer.map_err(|status| match Failure::of(name, &status) {
                Failure::Lost(text) => Failure::Elsewhere(text),
                failure => failure,
            })?;
            let malformed = |_| Failure::Elsewhere("etcd's token is no header".into());
            let mut new = AsciiMetadataValue::try_from(answer.into_inner().token).map_err(malformed)?;
            new.set_sensitive(true);
            *token = Some(new);
        }
        Ok(token.clone())
    }

    /// The next one who asks gets a new one.
    pub(super) async fn forget(&self) {
        self.0.lock().await.token = None;
    }
}
