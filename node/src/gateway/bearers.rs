//! Who may come in with a bearer token or a passphrase: a file of digests, never of secrets. Spec: gateway §1.4.
//!
//! ```text
//! # role   name      SHA-256 of the token, or what tells the passphrase
//! admin    operator  9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
//! reader   eve       argon2id:65536:3:1:…:…
//! ```

use std::collections::BTreeSet;
use std::fs;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use sealtide_crypto::{Entropy, Passphrase, PassphraseCost, sha256};
use sealtide_gateway::{Bearer, PassphraseHolder, Role, Verifier};
use zeroize::Zeroizing;

use crate::failure::Failure;
use crate::world::OsEntropy;

/// Bytes of the file, at most.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Characters of a name, at most.
const NAME_CHARS_MAX: usize = 64;

/// Those with a token, and those with a passphrase.
pub type Holders = (Vec<Bearer>, Vec<PassphraseHolder>);

/// Reads a file of bearers; none when it is missing and need not be there.
///
/// # Errors
/// Exit 2 for a line that is none, naming it, and for a file that others can write.
pub fn read_bearers(path: &Path, must_exist: bool) -> Result<Holders, Failure> {
    let failed = |what: String| Failure::usage("bearers", format!("{}: {what}", path.display()));
    let meta = match fs::metadata(path) {
        Ok(meta) => meta,
        Err(error) if error.kind() == ErrorKind::NotFound && !must_exist => return Ok(Holders::default()),
        Err(error) => return Err(failed(error.to_string())),
    };
    let mode = meta.permissions().mode() & 0o777;
    if mode & 0o022 != 0 {
        return Err(
            failed(format!("others can write it (mode {mode:o})")).hint(format!("chmod 600 {}", path.display()))
        );
    }
    if meta.len() > FILE_BYTES_MAX {
        return Err(failed("it is too long".to_owned()));
    }
    let text = fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
    parse(&text).map_err(|(line, what)| Failure::usage("bearers", format!("{}:{line}: {what}", path.display())))
}

/// Draws a token and adds its digest to the file. The token is given back once and kept nowhere.
///
/// # Errors
/// As [`read_bearers`]; exit 2 for a name that is none or is there already.
pub fn add_bearer(path: &Path, name: &str, role: Role) -> Result<Zeroizing<String>, Failure> {
    check_new(path, name)?;
    let mut bytes = Zeroizing::new([0; 32]);
    OsEntropy.fill(bytes.as_mut_slice());
    let token = Zeroizing::new(BASE64URL_NOPAD.encode(bytes.as_slice()));
    append(path, name, role, &HEXLOWER.encode(&sha256(token.as_bytes())))?;
    Ok(token)
}

/// Adds somebody who signs in with a passphrase.
///
/// # Errors
/// As [`add_bearer`].
pub fn add_passphrase(path: &Path, name: &str, role: Role, passphrase: &Passphrase) -> Result<(), Failure> {
    check_new(path, name)?;
    let verifier = Verifier::make(passphrase, PassphraseCost::STANDARD, &mut OsEntropy);
    append(path, name, role, &verifier.to_string())
}

fn check_new(path: &Path, name: &str) -> Result<(), Failure> {
    let (bearers, passphrases) = read_bearers(path, false)?;
    if !is_name(name) {
        return Err(Failure::usage("bearers", format!("{name:?} is no name")).hint("letters, digits, . _ and -"));
    }
    let mut names = bearers.iter().map(|it| &it.id).chain(passphrases.iter().map(|it| &it.id));
    if names.any(|known| known == name) {
        return Err(Failure::usage("bearers", format!("{name} is in {} already", path.display())));
    }
    Ok(())
}

fn append(path: &Path, name: &str, role: Role, proof: &str) -> Result<(), Failure> {
    let mut file = fs::OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
    writeln!(file, "{} {name} {proof}", role.word())?;
    Ok(file.sync_all()?)
}

fn parse(text: &str) -> Result<Holders, (usize, String)> {
    let (mut bearers, mut passphrases, mut names) = (Vec::new(), Vec::new(), BTreeSet::new());
    for (at, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let wrong = |what: &str| (at + 1, what.to_owned());
        let words: Vec<&str> = line.split_whitespace().collect();
        let [role, name, digest] = words.as_slice() else {
            return Err(wrong("a line is: role name sha256"));
        };
        let role = role_named(role).ok_or_else(|| wrong("the role is reader, bumper or admin"))?;
        if !is_name(name) || !names.insert((*name).to_owned()) {
            return Err(wrong("the name is none, or stands there twice"));
        }
        let id = (*name).to_owned();
        if digest.starts_with("argon2id:") {
            let verifier = Verifier::parse(digest).ok_or_else(|| wrong("what tells the passphrase is damaged"))?;
            passphrases.push(PassphraseHolder { id, role, verifier });
            continue;
        }
        let digest = HEXLOWER.decode(digest.as_bytes()).ok().and_then(|bytes| bytes.try_into().ok());
        let digest = digest.ok_or_else(|| wrong("the digest is no SHA-256 in 64 lower-case hex digits"))?;
        bearers.push(Bearer { digest, id, role });
    }
    Ok((bearers, passphrases))
}

fn is_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (1..=NAME_CHARS_MAX).contains(&name.len()) && name.bytes().all(plain)
}

fn role_named(word: &str) -> Option<Role> {
    [Role::Reader, Role::Bumper, Role::Admin].into_iter().find(|role| role.word() == word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_that_was_drawn_is_known_by_its_digest() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bearers");
        assert_eq!(read_bearers(&path, false).unwrap(), Holders::default());
        assert!(read_bearers(&path, true).is_err());
        let token = add_bearer(&path, "boss", Role::Admin).unwrap();
        add_bearer(&path, "eye", Role::Reader).unwrap();
        let passphrase = Passphrase::new("four random words here");
        add_passphrase(&path, "eve", Role::Reader, &passphrase).unwrap();
        assert!(add_passphrase(&path, "boss", Role::Reader, &passphrase).is_err(), "the name is taken");
        let (bearers, passphrases) = read_bearers(&path, true).unwrap();
        assert!(passphrases[0].id == "eve" && passphrases[0].verifier.admits(&passphrase));
        assert_eq!((bearers.len(), bearers[0].digest, bearers[0].role), (2, sha256(token.as_bytes()), Role::Admin));
        assert!(!fs::read_to_string(&path).unwrap().contains(token.as_str()));
        assert!(add_bearer(&path, "boss", Role::Reader).is_err() && add_bearer(&path, "a b", Role::Reader).is_err());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        assert!(read_bearers(&path, true).is_err());
    }

    // Proves: GW-85
    #[test]
    fn a_line_that_is_none_is_named() {
        let digest = "ab".repeat(32);
        assert_eq!(parse(&format!("# who\n\nadmin a {digest}\n")).unwrap().0.len(), 1);
        for (text, line) in [
            (format!("admin a {digest}\nroot b {digest}"), 2),
            (format!("\npublic a {digest}"), 2),
            (format!("admin a {digest}\nreader a {digest}"), 2),
            ("admin a".to_owned(), 1),
            (format!("admin a {}", digest.to_uppercase()), 1),
            ("reader a 00".to_owned(), 1),
            ("reader a argon2id:1:1:1:00:00".to_owned(), 1),
        ] {
            assert_eq!(parse(&text).unwrap_err().0, line, "{text}");
        }
    }
}
