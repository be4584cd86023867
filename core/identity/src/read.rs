//! Strict reading of byte layouts: fixed fields, counted fields, and the end.

/// Takes fields off the front of foreign bytes. Never reads past the end, never allocates.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

/// A layout that does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The bytes end inside a field.
    #[error("cut short")]
    Short,
    /// A counted field is longer than its layout allows.
    #[error("field too long")]
    TooLong,
    /// Bytes follow the last field.
    #[error("surplus bytes")]
    Surplus,
}

impl ReadError {
    /// The rule that was broken, in words.
    pub const fn rule(self) -> &'static str {
        match self {
            Self::Short => "cut short",
            Self::TooLong => "field too long",
            Self::Surplus => "surplus bytes",
        }
    }
}

impl<'a> Reader<'a> {
    /// Begins at the front of `bytes`.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// The next `N` bytes.
    ///
    /// # Errors
    /// [`ReadError::Short`].
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], ReadError> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or(ReadError::Short)?;
        self.rest = rest;
        Ok(*head)
    }

    /// The next `count` bytes.
    ///
    /// # Errors
    /// [`ReadError::Short`].
    pub fn bytes(&mut self, count: usize) -> Result<&'a [u8], ReadError> {
        let (head, rest) = self.rest.split_at_checked(count).ok_or(ReadError::Short)?;
        self.rest = rest;
        Ok(head)
    }

    /// One byte.
    ///
    /// # Errors
    /// [`ReadError::Short`].
    pub fn u8(&mut self) -> Result<u8, ReadError> {
        self.array::<1>().map(|[byte]| byte)
    }

    /// A big-endian integer of 16 bits.
    ///
    /// # Errors
    /// [`ReadError::Short`].
    pub fn u16(&mut self) -> Result<u16, ReadError> {
        self.array().map(u16::from_be_bytes)
    }

    /// A big-endian integer of 32 bits.
    ///
    /// # Errors
    /// [`ReadError::Short`].
    pub fn u32(&mut self) -> Result<u32, ReadError> {
        self.array().map(u32::from_be_bytes)
    }

    /// A big-endian integer of 64 bits.
    ///
    /// # Errors
    /// [`ReadError::Short`].
    pub fn u64(&mut self) -> Result<u64, ReadError> {
        self.array().map(u64::from_be_bytes)
    }

    /// `var8`: a length of 8 bits and that many bytes, at most `max`.
    ///
    /// # Errors
    /// [`ReadError::TooLong`] or [`ReadError::Short`].
    pub fn var8(&mut self, max: usize) -> Result<&'a [u8], ReadError> {
        let count = usize::from(self.u8()?);
        if count > max { Err(ReadError::TooLong) } else { self.bytes(count) }
    }

    /// `var16`: a length of 16 bits and that many bytes, at most `max`.
    ///
    /// # Errors
    /// [`ReadError::TooLong`] or [`ReadError::Short`].
    pub fn var16(&mut self, max: usize) -> Result<&'a [u8], ReadError> {
        let count = usize::from(self.u16()?);
        if count > max { Err(ReadError::TooLong) } else { self.bytes(count) }
    }

    /// The bytes not taken yet.
    pub const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Whether nothing is left.
    pub const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Ends the layout.
    ///
    /// # Errors
    /// [`ReadError::Surplus`] when bytes are left.
    pub const fn end(self) -> Result<(), ReadError> {
        if self.rest.is_empty() { Ok(()) } else { Err(ReadError::Surplus) }
    }
}
