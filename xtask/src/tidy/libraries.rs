//! Which outside library may be named where.

use super::Problem;
use crate::workspace::{Dependency, Package};

/// Primitives: only `core/crypto` turns them into typed keys, signatures and hashes with named domains.
const CRYPTO: [&str; 34] = [
    "aes-gcm",
    "argon2",
    "aws-lc-rs",
    "aws-lc-sys",
    "blake2",
    "blake3",
    "boring",
    "chacha20poly1305",
    "curve25519-dalek",
    "ed25519-dalek",
    "hkdf",
    "hmac",
    "k256",
    "md-5",
    "ml-dsa",
    "ml-kem",
    "native-tls",
    "openssl",
    "openssl-sys",
    "orion",
    "p256",
    "p384",
    "pbkdf2",
    "pqcrypto",
    "ring",
    "rsa",
    "sha1",
    "sha2",
    "sha3",
    "sodiumoxide",
    "subtle",
    "tiny-keccak",
    "x25519-dalek",
    "xxhash-rust",
];
/// Second implementations that tests compare with, as dev-dependencies.
const ORACLES: [&str; 2] = ["ml-dsa", "ed25519-dalek"];
/// TLS and certificates: only `io/link` meets them, `io/gateway` for a door that browsers reach without a proxy, and the
/// benchmark that compares with plain TLS.
const TLS: [&str; 7] =
    ["rcgen", "rustls", "rustls-pki-types", "rustls-webpki", "tokio-rustls", "webpki-roots", "x509-parser"];
/// Clocks, chance, disks, sockets and runtimes: nothing for a core, not even in its tests' dependencies of the crate.
const IMPURE: [&str; 18] = [
    "async-std",
    "chrono",
    "crossbeam",
    "fastrand",
    "futures-executor",
    "getrandom",
    "if-addrs",
    "libc",
    "mio",
    "notify",
    "num_cpus",
    "rand",
    "rayon",
    "redb",
    "rustix",
    "smol",
    "socket2",
    "tokio",
];

/// Checks every dependency of every package.
pub(super) fn check(packages: &[Package]) -> Vec<Problem> {
    let problems = packages.iter().flat_map(|package| {
        let refused =
            package.dependencies.iter().filter_map(|dependency| Some((dependency, refuse(package, dependency)?)));
        refused.map(|(dependency, why)| {
            Problem::whole(&package.folder, format!("{} names {}: {why}", package.name, dependency.name))
        })
    });
    problems.collect()
}

fn refuse(package: &Package, dependency: &Dependency) -> Option<&'static str> {
    let (folder, name) = (package.folder.as_str(), dependency.name.as_str());
    let is_oracle = dependency.dev && ORACLES.contains(&name);
    if CRYPTO.contains(&name) && folder != "core/crypto" && !is_oracle {
        return Some("crypto libraries belong to core/crypto");
    }
    let compares = dependency.dev && folder.starts_with("bench/");
    if TLS.contains(&name) && !["io/link", "io/gateway"].contains(&folder) && !compares {
        return Some("TLS and certificates belong to io/link and the door of io/gateway");
    }
    if IMPURE.contains(&name) && folder.starts_with("core/") && !dependency.dev {
        return Some("a core has no clock, chance, disk, socket or runtime");
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(folder: &str, name: &str, dev: bool) -> bool {
        let dependencies = vec![Dependency { name: name.to_owned(), dev }];
        !check(&[Package { name: "p".into(), folder: folder.into(), dependencies }]).is_empty()
    }

    #[test]
    fn each_library_in_its_place_is_fine() {
        assert!(!refused("core/crypto", "aws-lc-rs", false));
        assert!(!refused("core/crypto", "subtle", false));
        assert!(!refused("core/identity", "ml-dsa", true));
        assert!(!refused("io/link", "rustls", false));
        assert!(!refused("io/gateway", "rustls", false));
        assert!(!refused("bench/micro", "rustls", true));
        assert!(!refused("io/store", "redb", false));
        assert!(!refused("node", "tokio", false));
        assert!(!refused("core/ibgib", "serde_json", false));
    }

    #[test]
    fn libraries_out_of_place_are_refused() {
        assert!(refused("core/ibgib", "sha2", false));
        assert!(refused("core/ibgib", "sha2", true));
        assert!(refused("core/identity", "ml-dsa", false));
        assert!(refused("io/link", "ring", false));
        assert!(refused("node", "blake3", false));
        assert!(refused("io/folder", "rustls", false));
        assert!(refused("node", "rcgen", true));
        assert!(refused("core/wire", "tokio", false));
        assert!(refused("core/wire", "getrandom", false));
    }
}
