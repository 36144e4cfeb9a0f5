//! Who coffer is to etcd: a token for a name and a password. A client certificate may stand for both, then there is none.

use coffer_proto::etcd::{AuthenticateRequest, auth_client::AuthClient};
use tokio::{
    sync::Mutex,
    time::{Duration, Instant},
};
use tonic::{metadata::AsciiMetadataValue, transport::Channel};

use super::{User, error::Failure};

/// A token this old is given up when a call that had it was not answered. Not a younger one, so that a slow etcd is not kept
/// busy with passwords.
const DOUBTED_AFTER: Duration = Duration::from_secs(5);

/// The token, kept for as long as etcd knows it.
pub(super) struct Access(Mutex<Login>);

struct Login {
    user: Option<User>,
    token: Option<Held>,
}

/// A token, and since when it is held.
struct Held {
    token: AsciiMetadataValue,
    since: Instant,
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
        if token.is_none() || token.as_ref().map(|held| &held.token) == refused {
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
            *token = Some(Held { token: new, since: Instant::now() });
        }
        Ok(token.as_ref().map(|held| held.token.clone()))
    }

    /// A call with the token was not answered. etcd's own tokens name a revision of its log, and a member that is not there
    /// yet waits for it rather than refuse the token: after etcd was put back to an earlier state, for ever.
    pub(super) fn doubt(&self) {
        // Whoever has it just now gets a new one.
        if let Ok(mut login) = self.0.try_lock() {
            login.token.take_if(|held| held.since.elapsed() >= DOUBTED_AFTER);
        }
    }

    /// The next one who asks gets a new one.
    pub(super) async fn forget(&self) {
        self.0.lock().await.token = None;
    }
}
