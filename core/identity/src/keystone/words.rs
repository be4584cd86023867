//! The root secret as 24 words of the BIP-39 English list. Spec: ibgib §12.3 "Secrets".

use bip39::{Language, Mnemonic};
use zeroize::{Zeroize, Zeroizing};

use super::secrets::RootSecret;

/// Words of a root secret.
pub const WORD_COUNT: usize = 24;
/// Letters of the longest text that is looked at: 24 words of 8 letters leave room for spaces.
const TEXT_BYTES_MAX: usize = 1_024;

/// Words that are no root secret. Says nothing about what was typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WordsError {
    /// Not 24 words.
    #[error("recovery words are {WORD_COUNT} words, these are {0}")]
    Count(usize),
    /// A word that is not in the list.
    #[error("word {0} is not in the list of recovery words")]
    Unknown(usize),
    /// The check at the end does not fit.
    #[error("the recovery words do not fit together: a word is wrong, or their order")]
    Check,
}

impl RootSecret {
    /// The 24 words, with single spaces. The bytes are the entropy; nothing is stretched.
    pub fn words(&self) -> Zeroizing<String> {
        let mut mnemonic = Mnemonic::from_entropy_in(Language::English, self.expose()).expect("32 bytes are 24 words");
        let mut text = Zeroizing::new(String::with_capacity(TEXT_BYTES_MAX));
        for word in mnemonic.words() {
            if !text.is_empty() {
                text.push(' ');
            }
            text.push_str(word);
        }
        mnemonic.zeroize();
        text
    }

    /// The secret of 24 words; case and the number of spaces do not matter.
    ///
    /// # Errors
    /// [`WordsError`].
    pub fn from_words(text: &str) -> Result<Self, WordsError> {
        let count = text.split_whitespace().count();
        if count != WORD_COUNT || text.len() > TEXT_BYTES_MAX {
            return Err(WordsError::Count(count));
        }
        let mut clean = Zeroizing::new(String::with_capacity(TEXT_BYTES_MAX));
        for (position, word) in text.split_whitespace().enumerate() {
            let word = Zeroizing::new(word.to_ascii_lowercase());
            Language::English.find_word(&word).ok_or(WordsError::Unknown(position + 1))?;
            if position > 0 {
                clean.push(' ');
            }
            clean.push_str(&word);
        }
        let mut mnemonic = Mnemonic::parse_in_normalized(Language::English, &clean).map_err(|_| WordsError::Check)?;
        let (entropy, length) = mnemonic.to_entropy_array();
        let entropy = Zeroizing::new(entropy);
        mnemonic.zeroize();
        let bytes: [u8; 32] = entropy[..length].try_into().map_err(|_| WordsError::Check)?;
        Ok(Self::from_bytes(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_words() {
        // From the test vectors of BIP-39.
        for (byte, first, last) in [(0x00, "abandon", "art"), (0x7F, "legal", "title"), (0xFF, "zoo", "vote")] {
            let root = RootSecret::from_bytes([byte; 32]);
            let words = root.words();
            assert!(words.starts_with(first) && words.ends_with(last), "{byte}");
            let shouted = words.to_uppercase().replace(' ', " \n ");
            assert_eq!(RootSecret::from_words(&shouted).unwrap().expose(), root.expose());
        }
    }

    #[test]
    fn wrong_words_are_refused() {
        let words = RootSecret::from_bytes([3; 32]).words();
        let mut list: Vec<&str> = words.split(' ').collect();
        assert_eq!(RootSecret::from_words(&list[1..].join(" ")).err(), Some(WordsError::Count(23)));
        list.swap(0, 5);
        assert_eq!(RootSecret::from_words(&list.join(" ")).err(), Some(WordsError::Check));
        list[7] = "sealtide";
        assert_eq!(RootSecret::from_words(&list.join(" ")).err(), Some(WordsError::Unknown(8)));
    }
}
