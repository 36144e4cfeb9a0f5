//! Tokens: what is known of them, and once the token itself.

use coffer_proto::{token::Token, v1};
use serde::{Serialize, Serializer};

use super::{View, counted, fields, listing};
use crate::print::{
    table::{Table, cut, dropped, whole},
    time::{rfc3339, short},
};

/// Tokens that the caller could revoke.
#[derive(Serialize)]
pub(crate) struct TokenList {
    tokens: Vec<TokenView>,
    more: bool,
}

#[derive(Serialize)]
struct TokenView {
    name: String,
    principal: String,
    create_time: Option<String>,
    expire_time: Option<String>,
    issuer: String,
    description: String,
    single_use: bool,
    used: bool,
    session: String,
    start: String,
}

/// A new token.
#[derive(Serialize)]
pub(crate) struct Issued {
    /// None if it went into a file.
    #[serde(serialize_with = "exposed")]
    pub(crate) token: Option<Token>,
    metadata: TokenView,
}

fn exposed<S: Serializer>(token: &Option<Token>, serializer: S) -> Result<S::Ok, S::Error> {
    token.as_ref().map(Token::expose).serialize(serializer)
}

impl From<v1::Token> for TokenView {
    fn from(token: v1::Token) -> Self {
        Self {
            name: token.name,
            principal: token.principal,
            create_time: rfc3339(token.create_time.as_ref()),
            expire_time: rfc3339(token.expire_time.as_ref()),
            issuer: token.issuer,
            description: token.description,
            single_use: token.single_use,
            used: token.used,
            session: token.session,
            start: token.start,
        }
    }
}

impl TokenList {
    pub(crate) fn new(tokens: Vec<v1::Token>, more: bool) -> Self {
        Self { tokens: tokens.into_iter().map(TokenView::from).collect(), more }
    }
}

impl View for TokenList {
    fn table(&self, width: Option<usize>) -> String {
        let mut table = Table::new(&[
            whole("PRINCIPAL"),
            whole("TOKEN"),
            dropped("EXPIRES (UTC)"),
            dropped("CREATED (UTC)"),
            dropped("BY"),
            dropped("SINGLE USE"),
            cut("DESCRIPTION"),
        ]);
        for token in &self.tokens {
            let of_start = format!("session of {}", token.start);
            table.row([
                &token.principal,
                &token.name,
                &short(token.expire_time.as_deref()),
                &short(token.create_time.as_deref()),
                &token.issuer,
                match (token.single_use, token.used) {
                    (false, _) if !token.start.is_empty() => &of_start,
                    (false, _) => "",
                    (true, false) => "unused",
                    (true, true) => "used",
                },
                &token.description,
            ]);
        }
        listing(&table.render(width), &counted(self.tokens.len() as i64, "token"), self.more)
    }
}

impl Issued {
    pub(crate) fn new(token: Option<Token>, metadata: v1::Token) -> Self {
        Self { token, metadata: metadata.into() }
    }

    /// One line about the token, without it.
    pub(crate) fn summary(&self) -> String {
        let TokenView { name, principal, expire_time, .. } = &self.metadata;
        format!("{name} for {principal}, valid until {} UTC", short(expire_time.as_deref()))
    }
}

/// The token alone, so that `$(coffer token issue …)` is the token; nothing if it went into a file.
impl View for Issued {
    fn table(&self, _: Option<usize>) -> String {
        self.token.as_ref().map(|token| format!("{}\n", token.expose())).unwrap_or_default()
    }
}

/// The token that the caller has.
#[derive(Serialize)]
#[serde(transparent)]
pub(crate) struct Caller(TokenView);

impl From<v1::Token> for Caller {
    fn from(token: v1::Token) -> Self {
        Self(token.into())
    }
}

impl View for Caller {
    fn table(&self, _: Option<usize>) -> String {
        let TokenView { name, principal, expire_time, issuer, description, .. } = &self.0;
        fields(&[
            ("principal", principal.clone()),
            ("token", name.clone()),
            ("valid until", format!("{} UTC", short(expire_time.as_deref()))),
            ("issued by", issuer.clone()),
            ("description", description.clone()),
        ])
    }
}

/// The session token that a start token was exchanged for.
#[derive(Serialize)]
pub(crate) struct Exchanged {
    #[serde(serialize_with = "exposed")]
    pub(crate) token: Option<Token>,
}

impl View for Exchanged {
    fn table(&self, _: Option<usize>) -> String {
        self.token.as_ref().map(|token| format!("{}\n", token.expose())).unwrap_or_default()
    }
}
