//! Encodes and decodes messages as prost does, but counts a message's fields before it decodes them: an entry of two bytes
//! on the wire becomes a hundred in memory, so that a limit of bytes alone lets 4 MiB become 200 MiB.

use std::marker::PhantomData;

use prost::{
    Message,
    encoding::{WireType, decode_key, decode_varint},
};
use tonic::{
    Status,
    codec::{BufferSettings, Codec, DecodeBuf, Decoder},
};
use tonic_prost::{ProstDecoder, ProstEncoder};

use crate::limits;

/// The codec of every service of coffer.
#[derive(Clone, Debug)]
pub struct CountingCodec<T, U>(PhantomData<(T, U)>);

/// Refuses a message of too many fields, and decodes every other one.
#[derive(Clone, Debug)]
pub struct CountingDecoder<U>(ProstDecoder<U>);

impl<T, U> Default for CountingCodec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> Codec for CountingCodec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = CountingDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstEncoder::default()
    }

    fn decoder(&mut self) -> Self::Decoder {
        CountingDecoder(ProstDecoder::default())
    }
}

impl<U: Message + Default> Decoder for CountingDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buf: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        use prost::bytes::Buf as _;
        if has_more_fields(buf.chunk(), limits::MESSAGE_FIELDS) {
            return Err(Status::invalid_argument("the message has more than 16,384 entries: send fewer in one call"));
        }
        self.0.decode(buf)
    }

    fn buffer_settings(&self) -> BufferSettings {
        self.0.buffer_settings()
    }
}

/// Whether a message has more than so many fields, those of messages in it left out. What is malformed is left to the
/// decoder, which says so.
fn has_more_fields(mut bytes: &[u8], most: usize) -> bool {
    for fields in 0.. {
        if bytes.is_empty() {
            return false;
        }
        if fields == most {
            return true;
        }
        let Ok((_, wire)) = decode_key(&mut bytes) else { return false };
        let length = match wire {
            WireType::Varint => decode_varint(&mut bytes).map(|_| 0),
            WireType::LengthDelimited => decode_varint(&mut bytes),
            WireType::SixtyFourBit => Ok(8),
            WireType::ThirtyTwoBit => Ok(4),
            WireType::StartGroup | WireType::EndGroup => Ok(0),
        };
        let rest = length.ok().and_then(|length| bytes.get(usize::try_from(length).ok()?..));
        let Some(rest) = rest else { return false };
        bytes = rest;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1::{ImportEntry, ImportSecretsRequest};
    use proptest::prelude::*;

    fn import(entries: usize) -> Vec<u8> {
        let parent = "projects/p".to_owned();
        ImportSecretsRequest { parent, entries: vec![ImportEntry::default(); entries], ..Default::default() }
            .encode_to_vec()
    }

    #[test]
    fn fields_are_counted_whatever_they_are() {
        for entries in [0, 1, 1_000] {
            let bytes = import(entries);
            assert!(!has_more_fields(&bytes, entries + 1), "the parent and the entries");
            assert!(has_more_fields(&bytes, entries), "{entries}");
        }
        // A varint, 64 bits, 32 bits, and a text.
        let all = [0x08, 0x96, 0x01, 0x11, 1, 2, 3, 4, 5, 6, 7, 8, 0x1d, 1, 2, 3, 4, 0x22, 2, b'h', b'i'];
        assert!(has_more_fields(&all, 3) && !has_more_fields(&all, 4));
    }

    proptest! {
        #[test]
        fn any_bytes_are_counted(bytes in proptest::collection::vec(any::<u8>(), 0..200), most in 0usize..50) {
            let more = has_more_fields(&bytes, most);
            prop_assert!(!more || bytes.len() > most);
        }
    }
}
