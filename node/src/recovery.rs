//! Recovery words on their way: from chance to a person, and from a person to the node. Never kept. Spec: ibgib §12.3

use std::fmt;
use std::fs;
use std::io::{self, IsTerminal, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use sealtide_identity::keystone::{RootSecret, WordsError};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

use crate::world::OsEntropy;

/// Bytes of words from standard input, at most.
const INPUT_BYTES_MAX: u64 = 1024;
/// Words on one line for a person.
const WORDS_A_LINE: usize = 4;

/// The 24 words of an owner, as text. Wiped when dropped; `Debug` hides them.
#[derive(Clone)]
pub struct RecoveryWords(Zeroizing<String>);

impl fmt::Debug for RecoveryWords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RecoveryWords(secret)")
    }
}

impl Serialize for RecoveryWords {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for RecoveryWords {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self(Zeroizing::new(text)))
    }
}

impl RecoveryWords {
    /// New words, by chance.
    pub fn draw() -> Self {
        Self(RootSecret::generate(&mut OsEntropy).words())
    }

    /// Takes what a person wrote.
    pub fn of(text: Zeroizing<String>) -> Self {
        Self(text)
    }

    /// The secret behind them.
    ///
    /// # Errors
    /// [`WordsError`], which repeats no word.
    pub fn root(&self) -> Result<RootSecret, WordsError> {
        RootSecret::from_words(&self.0)
    }

    /// Reads words from standard input; on a terminal with a question.
    ///
    /// # Errors
    /// When standard input cannot be read.
    pub fn ask() -> io::Result<Self> {
        if io::stdin().is_terminal() {
            let mut terminal = io::stderr().lock();
            terminal.write_all(b"recovery words: ").and_then(|()| terminal.flush())?;
        }
        let mut text = Zeroizing::new(String::with_capacity(INPUT_BYTES_MAX as usize + 1));
        let mut input = io::stdin().lock().take(INPUT_BYTES_MAX);
        if io::stdin().is_terminal() {
            io::BufRead::read_line(&mut input, &mut text)?;
        } else {
            input.read_to_string(&mut text)?;
        }
        Ok(Self(text))
    }

    /// Writes them into a new file that only its owner can read.
    ///
    /// # Errors
    /// When the file is there already or cannot be written.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(self.0.as_bytes())?;
        file.write_all(b"\n")?;
        file.sync_all()?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        fs::File::open(folder)?.sync_all()
    }

    /// Shows them to the person at the terminal, once.
    ///
    /// # Errors
    /// When the terminal takes nothing.
    pub fn show(&self) -> io::Result<()> {
        let mut text = Zeroizing::new(String::with_capacity(4 * INPUT_BYTES_MAX as usize));
        text.push_str("Recovery words. Write them down now: they are shown once and kept nowhere.\n\n");
        for (at, word) in self.0.split(' ').enumerate() {
            let end = if at % WORDS_A_LINE == WORDS_A_LINE - 1 { '\n' } else { ' ' };
            let number = at + 1;
            // Piece by piece: `format!` would leave copies of words behind.
            text.push_str(if number < 10 { "  " } else { " " });
            text.push_str(&number.to_string());
            text.push(' ');
            text.push_str(word);
            (word.len()..9).for_each(|_| text.push(' '));
            text.push(end);
        }
        text.push_str("\nWith them the identity comes back (`sealtide identity recover`), or ends (`revoke`).\n");
        io::stderr().lock().write_all(text.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    // Proves: SY-30
    #[test]
    fn words_hide_and_come_back() {
        let words = RecoveryWords::draw();
        assert_eq!(format!("{words:?}"), "RecoveryWords(secret)");
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("words");
        words.write(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(words.write(&path).is_err(), "an old file is never written over");
        let read = RecoveryWords::of(Zeroizing::new(fs::read_to_string(&path).unwrap()));
        assert_eq!(read.root().unwrap().expose(), words.root().unwrap().expose());
    }
}
