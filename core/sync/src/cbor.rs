//! The subset of deterministic CBOR that `sts/1` uses (RFC 8949 §4.2.1): definite lengths, shortest heads, no tags,
//! no floats. The reader refuses every other spelling, so a message has one encoding and its hash means something.

use crate::MessageError;

/// Writes one message.
#[derive(Debug, Default)]
pub(crate) struct Writer(pub(crate) Vec<u8>);

impl Writer {
    pub(crate) fn array(&mut self, count: usize) -> &mut Self {
        self.head(4, count as u64)
    }

    pub(crate) fn uint(&mut self, value: u64) -> &mut Self {
        self.head(0, value)
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.head(2, bytes.len() as u64);
        self.0.extend_from_slice(bytes);
        self
    }

    pub(crate) fn text(&mut self, text: &str) -> &mut Self {
        self.head(3, text.len() as u64);
        self.0.extend_from_slice(text.as_bytes());
        self
    }

    pub(crate) fn bool(&mut self, value: bool) -> &mut Self {
        self.0.push(if value { TRUE } else { FALSE });
        self
    }

    pub(crate) fn null(&mut self) -> &mut Self {
        self.0.push(NULL);
        self
    }

    fn head(&mut self, major: u8, value: u64) -> &mut Self {
        let major = major << 5;
        match value {
            0..=23 => self.0.push(major | value as u8),
            24..=0xff => self.0.extend_from_slice(&[major | 24, value as u8]),
            0x100..=0xffff => {
                self.0.push(major | 25);
                self.0.extend_from_slice(&(value as u16).to_be_bytes());
            }
            0x1_0000..=0xffff_ffff => {
                self.0.push(major | 26);
                self.0.extend_from_slice(&(value as u32).to_be_bytes());
            }
            _ => {
                self.0.push(major | 27);
                self.0.extend_from_slice(&value.to_be_bytes());
            }
        }
        self
    }
}

/// Bytes of the head of a byte string of `length` bytes.
pub(crate) fn head_bytes(length: usize) -> usize {
    match length {
        0..=23 => 1,
        24..=0xff => 2,
        0x100..=0xffff => 3,
        _ => 5,
    }
}

/// Reads one message, strictly.
#[derive(Debug)]
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// How many bytes are left.
    pub(crate) fn left(&self) -> usize {
        self.0.len()
    }

    /// An array of exactly `count` members.
    pub(crate) fn tuple(&mut self, count: u64) -> Result<(), MessageError> {
        if self.head(4, "not an array")? != count { Err(MessageError::bad("wrong number of members")) } else { Ok(()) }
    }

    /// An array of at most `limit` members: the count. Each member takes a byte at least, so the count is also
    /// bounded by what is left, and room may be reserved for it.
    pub(crate) fn list(&mut self, limit: usize) -> Result<usize, MessageError> {
        let count = self.head(4, "not a list")?;
        if count > limit as u64 {
            return Err(MessageError::limit("a list is too long"));
        }
        if count > self.left() as u64 {
            return Err(MessageError::bad("truncated"));
        }
        Ok(count as usize)
    }

    pub(crate) fn uint(&mut self) -> Result<u64, MessageError> {
        self.head(0, "not an unsigned integer")
    }

    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], MessageError> {
        let length = self.head(2, "not a byte string")?;
        self.take(length)
    }

    pub(crate) fn fixed<const N: usize>(&mut self) -> Result<[u8; N], MessageError> {
        self.bytes()?.try_into().map_err(|_| MessageError::bad("a byte string of the wrong length"))
    }

    pub(crate) fn text(&mut self, bytes_max: usize) -> Result<&'a str, MessageError> {
        let length = self.head(3, "not a text")?;
        if length > bytes_max as u64 {
            return Err(MessageError::limit("a text is too long"));
        }
        std::str::from_utf8(self.take(length)?).map_err(|_| MessageError::bad("a text that is not UTF-8"))
    }

    pub(crate) fn bool(&mut self) -> Result<bool, MessageError> {
        match self.take(1)? {
            [TRUE] => Ok(true),
            [FALSE] => Ok(false),
            _ => Err(MessageError::bad("not true or false")),
        }
    }

    /// Consumes a null, if one is next.
    pub(crate) fn null(&mut self) -> bool {
        let found = self.0.first() == Some(&NULL);
        if found {
            self.0 = &self.0[1..];
        }
        found
    }

    /// The end: nothing may be left.
    pub(crate) fn end(&self) -> Result<(), MessageError> {
        if self.0.is_empty() { Ok(()) } else { Err(MessageError::bad("bytes after the end")) }
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8], MessageError> {
        let length = usize::try_from(length).map_err(|_| MessageError::bad("truncated"))?;
        let (taken, rest) = self.0.split_at_checked(length).ok_or(MessageError::bad("truncated"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn head(&mut self, major: u8, wrong: &'static str) -> Result<u64, MessageError> {
        let first = self.take(1)?[0];
        if first >> 5 != major {
            return Err(MessageError::bad(wrong));
        }
        let (value, least) = match first & 31 {
            small @ 0..=23 => (u64::from(small), 0),
            24 => (self.number(1)?, 24),
            25 => (self.number(2)?, 0x100),
            26 => (self.number(4)?, 0x1_0000),
            27 => (self.number(8)?, 0x1_0000_0000),
            _ => return Err(MessageError::bad("not a definite length")),
        };
        if value < least { Err(MessageError::bad("not the shortest form")) } else { Ok(value) }
    }

    fn number(&mut self, bytes: u64) -> Result<u64, MessageError> {
        Ok(self.take(bytes)?.iter().fold(0, |value, byte| value << 8 | u64::from(*byte)))
    }
}

const FALSE: u8 = 0xf4;
const TRUE: u8 = 0xf5;
const NULL: u8 = 0xf6;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_head_length_round_trips_and_longer_forms_are_refused() {
        for value in [0, 23, 24, 255, 256, 65_535, 65_536, u64::from(u32::MAX), 1 << 32, u64::MAX] {
            let mut writer = Writer::default();
            writer.uint(value);
            let mut reader = Reader::new(&writer.0);
            assert_eq!(reader.uint(), Ok(value));
            assert_eq!(reader.end(), Ok(()));
        }
        for long in [&[0x18, 23][..], &[0x19, 0, 255], &[0x1a, 0, 0, 255, 255], &[0x1b, 0, 0, 0, 0, 255, 255, 255, 255]]
        {
            assert_eq!(Reader::new(long).uint(), Err(MessageError::bad("not the shortest form")));
        }
        assert!(Reader::new(&[0x9f, 0xff]).list(9).is_err(), "indefinite lengths are refused");
        assert!(Reader::new(&[0x5b, 255, 255, 255, 255, 255, 255, 255, 255]).bytes().is_err());
        assert!(Reader::new(&[0x9a, 0, 1, 0, 0]).list(usize::MAX).is_err(), "more members than bytes");
    }
}
