//! The head of a `.stb` file: CBOR `["STB1", manifest, [[kid, alg, sig], …], [chain item, …]]`, then the payload, one zstd
//! frame of a tar. Spec: gateway §9.1.

use bytes::Bytes;
use minicbor::data::Type;
use minicbor::{Decoder, Encoder};
use sealtide_crypto::{ED25519_SIGNATURE_BYTES, SIGNATURE_BYTES};
use sealtide_ibgib::Verified;
use sealtide_ibgib::json::{Js, write_rfc8785};
use sealtide_identity::keyring::{Algorithm, LedgerRecord, PublicPair, RecordSignature};
use serde_json::Value;

use super::manifest::Manifest;
use super::signed::{Content as _, NotSigned, Signed};

/// Bytes of a head, at most.
pub const HEAD_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Items of a chain, at most.
pub const CHAIN_MAX: usize = 256;
/// The first item of a bundle.
const MAGIC: &str = "STB1";

/// The head of a bundle: its manifest with both signatures, and how the key that signed came to sign.
#[derive(Clone, Debug)]
pub struct BundleHead {
    /// Not verified.
    pub manifest: Signed<Manifest>,
    /// Ledger records, oldest first: the newest [`CHAIN_MAX`] up to the one that was in force. Not verified.
    pub chain: Vec<LedgerRecord>,
    /// Frames of the owner's keystone that prove the recoveries in the chain, in its order; none where there are none. Not verified.
    pub proof: Vec<Verified>,
}

impl PartialEq for BundleHead {
    fn eq(&self, other: &Self) -> bool {
        let frames = |head: &Self| head.proof.iter().map(|frame| frame.encoded().clone()).collect::<Vec<_>>();
        self.manifest == other.manifest && self.chain == other.chain && frames(self) == frames(other)
    }
}

/// Why a file is no bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotABundle {
    /// The head does not end where the given bytes do.
    #[error("it ends within its head")]
    Short,
    /// The head is longer than a head may be.
    #[error("its head is longer than 16 MiB")]
    Long,
    /// It does not begin as a bundle does.
    #[error("it does not begin as a release bundle")]
    Magic,
    /// Another encoding than the one there is.
    #[error("its head is not encoded as it must be")]
    Encoding,
    /// HMAC signed it: whoever can check that can write it too, so it proves nothing and is never installed.
    #[error("it is untrusted: HMAC signed it, and a release counts by the two signatures of a pair alone")]
    Untrusted,
    /// The manifest in it is none.
    #[error("{0}")]
    Manifest(#[from] NotSigned),
    /// An item of the chain is neither a ledger record nor, behind the records, a record of ibGib.
    #[error("item {0} of its chain is no record of a key ledger, and no proof of one")]
    Chain(usize),
}

impl BundleHead {
    /// The bytes that stand before the payload.
    ///
    /// # Errors
    /// [`NotABundle::Long`]: too many files, or a long chain.
    pub fn encode(&self) -> Result<Vec<u8>, NotABundle> {
        let items = items(&self.chain, &self.proof);
        bounded(encode(self.manifest.bytes(), self.manifest.signatures(), &items))
    }

    /// How many bytes stand before the payload once `pair` has signed this manifest, of which the hashes need not be known yet.
    /// It depends on how many digits the sizes have, and on nothing else that packing finds out.
    ///
    /// # Errors
    /// As [`BundleHead::encode`].
    pub fn length_of(
        manifest: &Manifest,
        pair: &PublicPair,
        chain: &[LedgerRecord],
        proof: &[Verified],
    ) -> Result<usize, NotABundle> {
        let bytes = write_rfc8785(&Js::from(&manifest.to_value())).expect("texts and small integers");
        let length =
            |algorithm| if algorithm == Algorithm::MlDsa87 { SIGNATURE_BYTES } else { ED25519_SIGNATURE_BYTES };
        let unsigned = |(algorithm, kid, _): (Algorithm, &str, &[u8])| RecordSignature {
            kid: kid.to_owned(),
            algorithm,
            signature: vec![0; length(algorithm)],
        };
        let signatures: Vec<RecordSignature> = pair.keys().map(unsigned).collect();
        bounded(encode(bytes.as_bytes(), &signatures, &items(chain, proof))).map(|bytes| bytes.len())
    }

    /// Reads a head from the first bytes of a file; the count says where the payload begins. [`NotABundle::Short`] asks for
    /// more bytes, up to [`HEAD_BYTES_MAX`].
    ///
    /// # Errors
    /// [`NotABundle`].
    // Spec: GW-72
    pub fn read(bytes: &[u8]) -> Result<(Self, usize), NotABundle> {
        let bound = &bytes[..bytes.len().min(HEAD_BYTES_MAX)];
        let parts = match Parts::decode(bound) {
            Ok(parts) => parts,
            Err(error) if error.is_end_of_input() && bytes.len() >= HEAD_BYTES_MAX => return Err(NotABundle::Long),
            Err(error) if error.is_end_of_input() => return Err(NotABundle::Short),
            Err(_) if bound.len() >= 6 && bound[..6] != *b"\x84\x64STB1" => return Err(NotABundle::Magic),
            Err(_) => return Err(NotABundle::Encoding),
        };
        // Spec: GW-73
        if parts.signatures.iter().any(|(_, algorithm, _)| Algorithm::named(algorithm) == Some(Algorithm::HmacSha256)) {
            return Err(NotABundle::Untrusted);
        }
        let signatures: Option<Vec<RecordSignature>> = parts.signatures.iter().map(signature).collect();
        let signatures = signatures.ok_or(NotABundle::Encoding)?;
        // The one encoding: shortest heads, definite lengths.
        if encode(parts.manifest, &signatures, &parts.chain) != bytes[..parts.length] {
            return Err(NotABundle::Encoding);
        }
        let manifest = Signed::parse(parts.manifest, signatures)?;
        let record = |(at, item): (usize, &&[u8])| {
            let value: Option<Value> = serde_json::from_slice(item).ok();
            let record = value.and_then(|value| LedgerRecord::parse(&value).ok());
            record.filter(|record| text(record).as_bytes() == *item).ok_or(NotABundle::Chain(at))
        };
        // A record begins with a brace, and CBOR does not.
        let records = parts.chain.iter().take_while(|item| item.first() == Some(&b'{')).count();
        let frame = |(at, item): (usize, &&[u8])| {
            Verified::accept(Bytes::copy_from_slice(item)).map_err(|_| NotABundle::Chain(records + at))
        };
        let chain = parts.chain[..records].iter().enumerate().map(record).collect::<Result<_, _>>()?;
        let proof = parts.chain[records..].iter().enumerate().map(frame).collect::<Result<_, _>>()?;
        Ok((Self { manifest, chain, proof }, parts.length))
    }
}

/// What stands in a head, borrowed from it.
struct Parts<'a> {
    manifest: &'a [u8],
    signatures: Vec<(&'a str, &'a str, &'a [u8])>,
    chain: Vec<&'a [u8]>,
    length: usize,
}

impl<'a> Parts<'a> {
    fn decode(bytes: &'a [u8]) -> Result<Self, minicbor::decode::Error> {
        let mut decoder = Decoder::new(bytes);
        expect(&mut decoder, 4)?;
        if decoder.str()? != MAGIC {
            return Err(minicbor::decode::Error::message("magic"));
        }
        let manifest = decoder.bytes()?;
        let mut signatures = Vec::with_capacity(2);
        expect(&mut decoder, 2)?;
        for _ in 0..2 {
            expect(&mut decoder, 3)?;
            signatures.push((decoder.str()?, decoder.str()?, decoder.bytes()?));
        }
        if decoder.datatype()? != Type::Array {
            return Err(minicbor::decode::Error::message("chain"));
        }
        let count = decoder.array()?.filter(|count| *count <= CHAIN_MAX as u64);
        let count = count.ok_or_else(|| minicbor::decode::Error::message("chain"))?;
        let chain = (0..count).map(|_| decoder.bytes()).collect::<Result<_, _>>()?;
        Ok(Self { manifest, signatures, chain, length: decoder.position() })
    }
}

/// The items of a chain: records, then what proves the recoveries among them.
fn items(chain: &[LedgerRecord], proof: &[Verified]) -> Vec<Vec<u8>> {
    let records = chain.iter().map(|record| text(record).into_bytes());
    records.chain(proof.iter().map(|frame| frame.encoded().to_vec())).collect()
}

fn bounded(bytes: Vec<u8>) -> Result<Vec<u8>, NotABundle> {
    if bytes.len() > HEAD_BYTES_MAX { Err(NotABundle::Long) } else { Ok(bytes) }
}

/// A record with its signatures in RFC 8785 form.
fn text(record: &LedgerRecord) -> String {
    write_rfc8785(&Js::from(&record.to_value())).expect("texts and small integers")
}

fn expect(decoder: &mut Decoder<'_>, count: u64) -> Result<(), minicbor::decode::Error> {
    if decoder.array()? == Some(count) { Ok(()) } else { Err(minicbor::decode::Error::message("array")) }
}

fn signature((kid, algorithm, bytes): &(&str, &str, &[u8])) -> Option<RecordSignature> {
    let algorithm = Algorithm::named(algorithm).filter(|it| *it != Algorithm::HmacSha256)?;
    Some(RecordSignature { kid: (*kid).to_owned(), algorithm, signature: bytes.to_vec() })
}

fn encode(manifest: &[u8], signatures: &[RecordSignature], chain: &[impl AsRef<[u8]>]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(manifest.len() + 16 * 1024);
    let mut encoder = Encoder::new(&mut bytes);
    let written = (|| {
        encoder.array(4)?.str(MAGIC)?.bytes(manifest)?.array(signatures.len() as u64)?;
        for entry in signatures {
            encoder.array(3)?.str(&entry.kid)?.str(entry.algorithm.name())?.bytes(&entry.signature)?;
        }
        encoder.array(chain.len() as u64)?;
        chain.iter().try_for_each(|item| encoder.bytes(item.as_ref()).map(drop))
    })();
    let _: Result<(), minicbor::encode::Error<std::convert::Infallible>> = written;
    bytes
}
