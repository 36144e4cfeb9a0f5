//! The shape of bearer tokens: `cof_{kind}_{id}_{secret}{crc}`.
//!
//! Like GitHub's tokens the shape can be scanned for in code and logs, and its checksum can be verified without asking
//! a server: <https://github.blog/engineering/platform-security/behind-githubs-new-authentication-token-formats/>.

use std::fmt;

use zeroize::Zeroizing;

/// Characters of the id: 62^22 > 2^128.
const ID_CHARS: usize = 22;
/// Characters of the secret: 62^43 > 2^256.
const SECRET_CHARS: usize = 43;
/// Characters of the checksum: 62^6 > 2^32.
const CRC_CHARS: usize = 6;
const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Who bears a token, readable in the token itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TokenKind {
    /// `cof_user_…`
    User,
    /// `cof_service_…`
    Service,
    /// `cof_workload_…`
    Workload,
    /// `cof_start_…`: a workload's, good for one exchange.
    Start,
}

/// The public part of a token: what `tokens/{id}` names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenId(String);

/// A whole bearer token. No `Display`, and `Debug` shows the id only.
#[derive(Clone)]
pub struct Token {
    id: TokenId,
    text: Zeroizing<String>,
}

/// The text is no token: wrong shape or wrong checksum, for example after a bad paste.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidToken;

impl Token {
    /// A new random token.
    ///
    /// # Panics
    /// If the operating system has no randomness, where nothing safe can be done.
    pub fn generate(kind: TokenKind) -> Self {
        Self::of_bytes(kind, |bytes| {
            getrandom::fill(bytes).expect("the operating system gives randomness");
        })
    }

    /// The token that these bytes make: the same bytes, the same token. `fill` is asked as often as needed and must give
    /// bytes that nobody can guess.
    pub fn of_bytes(kind: TokenKind, mut fill: impl FnMut(&mut [u8])) -> Self {
        let id = TokenId(base62(ID_CHARS, &mut fill));
        let secret = Zeroizing::new(base62(SECRET_CHARS, &mut fill));
        let mut text = Zeroizing::new(String::with_capacity(96));
        for part in ["cof_", kind.as_str(), "_", &id.0, "_", &secret] {
            text.push_str(part);
        }
        let crc = checksum(&text);
        text.push_str(&crc);
        Self { id, text }
    }

    /// Who bears it.
    pub fn kind(&self) -> TokenKind {
        let kind = self.text.split('_').nth(1);
        let known = TokenKind::ALL.into_iter().find(|known| Some(known.as_str()) == kind);
        known.expect("a token exists only with a known kind")
    }

    /// Reads a token, checking its shape and checksum.
    pub fn parse(text: &str) -> Result<Self, InvalidToken> {
        let rest = text.strip_prefix("cof_").ok_or(InvalidToken)?;
        let mut parts = rest.split('_');
        let (Some(kind), Some(id), Some(secret), None) = (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(InvalidToken);
        };
        if TokenKind::ALL.iter().all(|known| known.as_str() != kind) {
            return Err(InvalidToken);
        }
        let id = TokenId::parse(id)?;
        if secret.len() != SECRET_CHARS + CRC_CHARS || !is_base62(secret) {
            return Err(InvalidToken);
        }
        let (signed, crc) = text.split_at(text.len() - CRC_CHARS);
        if checksum(signed) != crc {
            return Err(InvalidToken);
        }
        Ok(Self { id, text: Zeroizing::new(text.to_owned()) })
    }

    /// The public part.
    pub fn id(&self) -> &TokenId {
        &self.id
    }

    /// The whole text: for a header, a file, or a hash. A test lists the files that may call this.
    pub fn expose(&self) -> &str {
        &self.text
    }
}

impl TokenKind {
    const ALL: [TokenKind; 4] = [TokenKind::User, TokenKind::Service, TokenKind::Workload, TokenKind::Start];

    fn as_str(self) -> &'static str {
        match self {
            TokenKind::User => "user",
            TokenKind::Service => "service",
            TokenKind::Workload => "workload",
            TokenKind::Start => "start",
        }
    }
}

impl TokenId {
    /// Reads an id.
    pub fn parse(text: &str) -> Result<Self, InvalidToken> {
        if text.len() == ID_CHARS && is_base62(text) { Ok(Self(text.to_owned())) } else { Err(InvalidToken) }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({}, …)", self.id)
    }
}

impl fmt::Display for InvalidToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a coffer token, or damaged: its checksum does not match")
    }
}

impl std::error::Error for InvalidToken {}

fn is_base62(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_alphanumeric())
}

/// Uniform: bytes that would favour the first characters are drawn again.
fn base62(chars: usize, fill: &mut impl FnMut(&mut [u8])) -> String {
    let mut text = String::with_capacity(chars);
    let mut bytes = Zeroizing::new([0u8; 64]);
    while text.len() < chars {
        fill(bytes.as_mut());
        let drawn = bytes.iter().filter(|b| **b < 248).map(|b| char::from(BASE62[usize::from(*b) % 62]));
        text.extend(drawn.take(chars - text.len()));
    }
    text
}

/// CRC-32 of everything before it, in base62, most significant character first.
fn checksum(signed: &str) -> String {
    let mut rest = crc32fast::hash(signed.as_bytes());
    let mut chars = [b'0'; CRC_CHARS];
    for slot in chars.iter_mut().rev() {
        *slot = BASE62[(rest % 62) as usize];
        rest /= 62;
    }
    chars.iter().map(|b| char::from(*b)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generated_token_reads_back() {
        for kind in TokenKind::ALL {
            let token = Token::generate(kind);
            let read = Token::parse(token.expose()).expect("its own shape");
            assert_eq!(read.id(), token.id());
            assert_eq!(read.kind(), kind);
            assert!(token.expose().starts_with(&format!("cof_{}_{}_", kind.as_str(), token.id())));
        }
    }

    #[test]
    fn every_changed_character_is_noticed() {
        let token = Token::generate(TokenKind::Service);
        for at in 0..token.expose().len() {
            let mut bytes = token.expose().as_bytes().to_vec();
            bytes[at] = if bytes[at] == b'x' { b'y' } else { b'x' };
            let text = String::from_utf8(bytes).expect("ASCII");
            assert!(Token::parse(&text).is_err(), "a change at {at} went unnoticed");
        }
    }

    #[test]
    fn the_same_bytes_make_the_same_token() {
        let of = |byte: u8| Token::of_bytes(TokenKind::Workload, |bytes| bytes.fill(byte));
        assert_eq!(of(7).expose(), of(7).expose());
        assert_ne!(of(7).expose(), of(8).expose());
        assert!(Token::parse(of(7).expose()).is_ok());
    }

    #[test]
    fn other_shapes_are_refused() {
        for text in ["", "cof_", "cof_user__", "ghp_123", "cof_user_a_b_c", "cof_user_é_ü"] {
            assert_eq!(Token::parse(text).expect_err("no token"), InvalidToken);
        }
    }

    #[test]
    fn debug_keeps_the_secret() {
        let token = Token::generate(TokenKind::User);
        assert_eq!(format!("{token:?}"), format!("Token({}, …)", token.id()));
    }
}
