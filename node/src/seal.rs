//! Secrets of a home at rest: files that a passphrase seals, where one is set. Spec: ibgib §12.3, `spec/identity-store.md`
//!
//! `HOME/seal.key` holds a random key, wrapped by the passphrase; the key seals the other secret files. So a new
//! passphrase replaces one file, and no crash leaves files behind that two passphrases open.

use std::fs;
use std::io::{self, IsTerminal, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use sealtide_crypto::{Entropy, Passphrase, PassphraseCost, SALT_BYTES, SealingKey};
use zeroize::Zeroizing;

use crate::failure::{Exit, Failure};
use crate::world::OsEntropy;

/// The first line of `seal.key`.
const SEAL_HEAD: &str = "sealtide seal 1";
/// The first line of a file that is sealed.
const SEALED_HEAD: &str = "sealtide sealed 1";
/// Bytes of a secret file, at most: far above what is ever written.
const BYTES_MAX: u64 = 256 * 1024;
/// Characters of a new passphrase, at least.
const PASSPHRASE_CHARS_MIN: usize = 8;
/// Bytes of a passphrase from a file or standard input, at most.
const PASSPHRASE_BYTES_MAX: u64 = 1024;

/// A file with a secret in it: mode 0600, replaced whole, sealed where the home has a seal.
#[derive(Clone, Debug)]
pub(crate) struct SecretFile {
    path: PathBuf,
    seal: Option<SealingKey>,
}

impl SecretFile {
    /// The file at a path; nothing is touched.
    pub(crate) fn new(path: PathBuf, seal: Option<SealingKey>) -> Self {
        Self { path, seal }
    }

    /// The text; `None` when there is no file. One that lies open although the home has a seal is sealed now: a crash
    /// came between setting the passphrase and this.
    ///
    /// # Errors
    /// When it cannot be read, others can read it (`PermissionDenied`), or it was sealed by another seal.
    pub(crate) fn read(&self) -> io::Result<Option<Zeroizing<String>>> {
        let Some(text) = read_private(&self.path)? else { return Ok(None) };
        let Some(sealed) = text.strip_prefix(SEALED_HEAD) else {
            if self.seal.is_some() {
                self.write(&text)?;
            }
            return Ok(Some(text));
        };
        let damaged = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
        let seal = self.seal.as_ref().ok_or_else(|| damaged("is sealed, and seal.key is missing"))?;
        let sealed = HEXLOWER.decode(sealed.trim().as_bytes()).map_err(|_| damaged("is damaged"))?;
        let opened = seal.open(&self.context(), &sealed).map_err(|_| damaged("was sealed by another seal.key"))?;
        let text = std::str::from_utf8(&opened).map_err(|_| damaged("holds no text"))?;
        Ok(Some(Zeroizing::new(text.to_owned())))
    }

    /// Replaces the text, durably: afterwards there is the old text or the new one, whatever happens.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn write(&self, text: &str) -> io::Result<()> {
        replace(&self.path, &self.as_stored(text))
    }

    /// Writes the first text, durably; `false` when there is one already, which stays. Of several processes that do this
    /// at once one succeeds.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn create(&self, text: &str) -> io::Result<bool> {
        create(&self.path, &self.as_stored(text))
    }

    /// What went wrong with it, by its name.
    pub(crate) fn failure(&self, error: io::Error) -> Failure {
        Failure::from(error).about(&self.path)
    }

    fn as_stored(&self, text: &str) -> Zeroizing<String> {
        Zeroizing::new(match &self.seal {
            None => text.to_owned(),
            Some(seal) => {
                let sealed = seal.seal(&self.context(), text.as_bytes(), &mut OsEntropy);
                format!("{SEALED_HEAD}\n{}\n", HEXLOWER.encode(&sealed))
            }
        })
    }

    /// One sealed file cannot take the place of another.
    fn context(&self) -> Vec<u8> {
        let name = self.path.file_name().unwrap_or_default().as_encoded_bytes();
        [SEALED_HEAD.as_bytes(), b" ", name].concat()
    }
}

fn read_private(path: &Path) -> io::Result<Option<Zeroizing<String>>> {
    let meta = match fs::metadata(path) {
        Ok(meta) => meta,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mode = meta.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        let text = format!("can be read by others (mode {mode:o}); chmod 600 it");
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
    }
    if meta.len() > BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "is no key file: too long"));
    }
    fs::read_to_string(path).map(|text| Some(Zeroizing::new(text)))
}

fn replace(path: &Path, text: &str) -> io::Result<()> {
    let folder = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_string_lossy();
    let temporary = folder.join(format!(".{name}.new"));
    let _ = fs::remove_file(&temporary);
    write_new(&temporary, text)?;
    fs::rename(&temporary, path)?;
    fs::File::open(folder)?.sync_all()
}

fn create(path: &Path, text: &str) -> io::Result<bool> {
    let folder = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_string_lossy();
    let mut random = [0; 8];
    OsEntropy.fill(&mut random);
    let temporary = folder.join(format!(".{name}.{}.new", HEXLOWER.encode(&random)));
    // Unlike a rename a link never takes the place of a file that came in between.
    let linked = write_new(&temporary, text).and_then(|()| match fs::hard_link(&temporary, path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        // A file system without links.
        Err(_) if !path.exists() => fs::rename(&temporary, path).map(|()| true),
        Err(_) => Ok(false),
    });
    let _ = fs::remove_file(&temporary);
    let made = linked?;
    fs::File::open(folder)?.sync_all()?;
    Ok(made)
}

fn write_new(path: &Path, text: &str) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// What `seal.key` says.
struct Wrapped {
    head: String,
    salt: [u8; SALT_BYTES],
    cost: PassphraseCost,
    key: Vec<u8>,
}

impl Wrapped {
    fn head(salt: &[u8; SALT_BYTES], cost: PassphraseCost) -> String {
        let PassphraseCost { memory_kib, passes, lanes } = cost;
        format!("{SEAL_HEAD}\nargon2id {memory_kib} {passes} {lanes} {}\n", HEXLOWER.encode(salt))
    }

    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        lines.next().filter(|line| *line == SEAL_HEAD)?;
        let words: Vec<&str> = lines.next()?.split(' ').collect();
        let ["argon2id", memory, passes, lanes, salt] = words.as_slice() else { return None };
        let (memory, passes, lanes) = (memory.parse().ok()?, passes.parse().ok()?, lanes.parse().ok()?);
        let cost = PassphraseCost { memory_kib: memory, passes, lanes };
        let salt = HEXLOWER.decode(salt.as_bytes()).ok()?.try_into().ok()?;
        let key = HEXLOWER.decode(lines.next()?.as_bytes()).ok()?;
        (cost.is_sound() && lines.next().is_none()).then(|| Self { head: Self::head(&salt, cost), salt, cost, key })
    }
}

/// Whether a home has a passphrase.
pub(crate) fn is_sealed(seal_path: &Path) -> bool {
    seal_path.exists()
}

/// Opens the seal of a home. `None` when it has none.
///
/// # Errors
/// Exit 12 when the passphrase is wrong or cannot be asked for; exit 1 when `seal.key` is damaged.
pub(crate) fn open(seal_path: &Path, passphrase_file: Option<&Path>) -> Result<Option<SealingKey>, Failure> {
    let failed = |error: &dyn std::fmt::Display| Failure::failed("seal", format!("{}: {error}", seal_path.display()));
    let Some(text) = read_private(seal_path).map_err(|error| failed(&error))? else { return Ok(None) };
    let wrapped = Wrapped::parse(&text).ok_or_else(|| failed(&"is damaged; a backup of the home has a good one"))?;
    let passphrase = current(passphrase_file)?;
    let under = SealingKey::of_passphrase(&passphrase, &wrapped.salt, wrapped.cost);
    SealingKey::unwrap(&under, wrapped.head.as_bytes(), &wrapped.key).map(Some).map_err(|_| {
        Failure::new(Exit::WrongPassphrase, "wrong_passphrase", "this is not the passphrase of this home")
            .hint("try again; without it the secrets of this home cannot be opened, by nobody")
    })
}

/// Wraps a key by a passphrase and writes `seal.key`.
///
/// # Errors
/// When it cannot be written.
pub(crate) fn write(seal_path: &Path, key: &SealingKey, passphrase: &Passphrase) -> io::Result<()> {
    let mut salt = [0; SALT_BYTES];
    OsEntropy.fill(&mut salt);
    let cost = PassphraseCost::STANDARD;
    let head = Wrapped::head(&salt, cost);
    let under = SealingKey::of_passphrase(passphrase, &salt, cost);
    let wrapped = key.wrap(&under, head.as_bytes(), &mut OsEntropy);
    replace(seal_path, &format!("{head}{}\n", HEXLOWER.encode(&wrapped)))
}

/// The passphrase that is set: from a file, or from the person at the terminal.
fn current(file: Option<&Path>) -> Result<Passphrase, Failure> {
    if let Some(path) = file {
        let failed = |error: &dyn std::fmt::Display| {
            Failure::new(Exit::WrongPassphrase, "passphrase_file", format!("{}: {error}", path.display()))
        };
        let mut text = Zeroizing::new(String::with_capacity(PASSPHRASE_BYTES_MAX as usize + 1));
        let read = fs::File::open(path).and_then(|file| file.take(PASSPHRASE_BYTES_MAX).read_to_string(&mut text));
        read.map_err(|error| failed(&error))?;
        return Ok(Passphrase::new(&text));
    }
    if !io::stdin().is_terminal() {
        return Err(Failure::new(
            Exit::WrongPassphrase,
            "passphrase_needed",
            "a passphrase seals the secrets of this home, and there is no terminal to ask for it",
        )
        .hint("SEALTIDE_IDENTITY_PASSPHRASE_FILE, or identity.passphrase_file in config.toml, names a file with it"));
    }
    ask("passphrase of this home: ")
}

/// A new passphrase: asked for twice at a terminal, else standard input.
///
/// # Errors
/// Exit 2 when it is too short, or was not the same twice.
pub(crate) fn new_passphrase() -> Result<Passphrase, Failure> {
    let passphrase = if io::stdin().is_terminal() {
        let first = ask("new passphrase: ")?;
        if first != ask("once more: ")? {
            return Err(Failure::usage("passphrase", "these were two different passphrases; nothing was changed"));
        }
        first
    } else {
        let mut text = Zeroizing::new(String::with_capacity(PASSPHRASE_BYTES_MAX as usize + 1));
        io::stdin().lock().take(PASSPHRASE_BYTES_MAX).read_to_string(&mut text)?;
        Passphrase::new(&text)
    };
    if passphrase.len() < PASSPHRASE_CHARS_MIN {
        let text = format!("a passphrase has at least {PASSPHRASE_CHARS_MIN} characters; nothing was changed");
        return Err(Failure::usage("passphrase", text).hint("four random words are better than one strange one"));
    }
    Ok(passphrase)
}

/// Asks at the terminal; what is typed is not shown.
fn ask(question: &str) -> Result<Passphrase, Failure> {
    let terminal = console::Term::stderr();
    terminal.write_str(question)?;
    let typed = Zeroizing::new(terminal.read_secure_line()?);
    Ok(Passphrase::new(&typed))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn the_file_is_for_its_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("identity.key");
        let place = SecretFile::new(path.clone(), None);
        assert!(place.read().unwrap().is_none());
        place.write("one").unwrap();
        place.write("two").unwrap();
        assert_eq!(place.read().unwrap().unwrap().as_str(), "two");
        assert_eq!(mode(&path), 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert_eq!(place.read().unwrap_err().kind(), io::ErrorKind::PermissionDenied);
    }

    #[test]
    fn the_first_text_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("node.key");
        let place = SecretFile::new(path.clone(), None);
        assert!(place.create("one").unwrap() && !place.create("two").unwrap());
        assert_eq!((place.read().unwrap().unwrap().as_str(), mode(&path)), ("one", 0o600));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn a_sealed_file_shows_nothing_and_opens_under_its_name_and_seal_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("node.key");
        let seal = SealingKey::generate(&mut OsEntropy);
        let place = SecretFile::new(path.clone(), Some(seal.clone()));
        place.write("the secret").unwrap();
        assert!(!fs::read_to_string(&path).unwrap().contains("secret") && mode(&path) == 0o600);
        assert_eq!(place.read().unwrap().unwrap().as_str(), "the secret");
        let other = SecretFile::new(path.clone(), Some(SealingKey::generate(&mut OsEntropy)));
        assert!(other.read().unwrap_err().to_string().contains("another seal"));
        assert!(SecretFile::new(path.clone(), None).read().unwrap_err().to_string().contains("seal.key is missing"));
        let moved = dir.path().join("identity.key");
        fs::copy(&path, &moved).unwrap();
        assert!(SecretFile::new(moved, Some(seal.clone())).read().is_err(), "under another name");
        // What a crash left open is sealed at the next look.
        SecretFile::new(path.clone(), None).write("open").unwrap();
        assert_eq!(place.read().unwrap().unwrap().as_str(), "open");
        assert!(fs::read_to_string(&path).unwrap().starts_with(SEALED_HEAD));
    }

    #[test]
    fn the_passphrase_opens_the_seal_and_nothing_else_does() {
        let dir = tempfile::tempdir().unwrap();
        let (path, said) = (dir.path().join("seal.key"), dir.path().join("said"));
        assert!(open(&path, None).unwrap().is_none(), "no passphrase is set");
        let key = SealingKey::generate(&mut OsEntropy);
        write(&path, &key, &Passphrase::new("correct horse")).unwrap();
        fs::write(&said, "correct horse\n").unwrap();
        let opened = open(&path, Some(&said)).unwrap().unwrap();
        let sealed = key.seal(b"", b"x", &mut OsEntropy);
        assert_eq!(opened.open(b"", &sealed).unwrap().as_slice(), b"x");
        fs::write(&said, "correct house\n").unwrap();
        let refused = open(&path, Some(&said)).unwrap_err();
        assert_eq!((refused.exit, refused.code.as_str()), (Exit::WrongPassphrase, "wrong_passphrase"));
        assert_eq!(open(&path, Some(&dir.path().join("none"))).unwrap_err().exit, Exit::WrongPassphrase);

        // Neither a cost that would stop the machine nor any other change is taken.
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&said, "correct horse\n").unwrap();
        let dear = text.replace("argon2id 65536", "argon2id 4000000000");
        for damaged in [dear, text.replace("argon2id 65536 3", "argon2id 65536 4"), text.replace("seal 1", "seal 2")] {
            fs::write(&path, damaged).unwrap();
            assert!(open(&path, Some(&said)).is_err());
        }
    }
}
