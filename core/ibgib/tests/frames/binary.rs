//! Binaries: cutting, manifests, pages, and putting together.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};

use bytes::Bytes;
use proptest::prelude::*;
use sealtide_crypto::{blake3, sha256};
use sealtide_ibgib::{
    Address, AssembleError, BIN_INLINE_BYTES_MAX, CHUNK_BYTES_MAX, CHUNK_BYTES_MIN, CHUNKS_PER_LIST_MAX, ChunkError,
    ChunkHash, ChunkRef, CutChunk, Data, Manifest, ManifestError, RECORD_BYTES_MAX, Refusal, Relations, Verified,
    binary_record, read_binary, stone,
};
use serde_json::{Value, json};

use crate::{accepted, scale, splitmix};

const MIB: usize = 1024 * 1024;

fn no_page(_: &Address) -> Option<Verified> {
    None
}

/// The chunks of some bytes by hash, and their manifest.
fn cut(bytes: &[u8]) -> (Manifest, BTreeMap<ChunkHash, Bytes>) {
    let mut store = BTreeMap::new();
    let keep = &mut |cut: CutChunk| {
        cut.chunk().check(cut.bytes()).unwrap();
        store.insert(cut.chunk().hash, cut.bytes().clone());
        Ok(())
    };
    (Manifest::cut(&mut &bytes[..], keep).unwrap(), store)
}

fn together(manifest: &Manifest, store: &BTreeMap<ChunkHash, Bytes>) -> Result<Vec<u8>, AssembleError> {
    let mut out = Vec::new();
    let load = &mut |chunk: &ChunkRef| store.get(&chunk.hash).cloned().ok_or(io::ErrorKind::NotFound.into());
    manifest.assemble(load, &mut |bytes| {
        out.extend_from_slice(bytes);
        Ok(())
    })?;
    Ok(out)
}

// Proves: SY-65 (1 byte, 512 KiB)
#[test]
fn small_binaries_are_one_record() {
    for bytes in [vec![0xff], Vec::new(), splitmix(1, BIN_INLINE_BYTES_MAX)] {
        let record = accepted(&binary_record(bytes.clone().into()));
        let hash = data_encoding::HEXLOWER.encode(&sha256(&bytes));
        assert_eq!(record.address().ib(), format!("bin {hash} "));
        assert!(record.relations().is_empty() && record.frame().is_none());
        assert_eq!(read_binary(&record).unwrap(), bytes);
        assert_eq!(Manifest::chunks_listed(&record), []);
        let name = record.address().clone();
        assert_eq!(Manifest::read(&record, &mut no_page), Err(ManifestError::NotManifest(name)));
    }
}

#[test]
#[should_panic(expected = "needs a manifest")]
fn a_large_binary_is_not_one_record() {
    binary_record(vec![0; BIN_INLINE_BYTES_MAX + 1].into());
}

// Proves: SY-65 (512 KiB + 1)
#[test]
fn one_byte_more_is_a_manifest() {
    for bytes in [splitmix(2, BIN_INLINE_BYTES_MAX + 1), vec![0; BIN_INLINE_BYTES_MAX + 1]] {
        let (manifest, store) = cut(&bytes);
        let records: Vec<Verified> = manifest.records().iter().map(accepted).collect();
        let [record] = &records[..] else { panic!("one record") };
        let hash = data_encoding::HEXLOWER.encode(&blake3(&bytes));
        assert_eq!(record.address().ib(), format!("bin {hash} "));
        let chunks: Vec<Value> =
            manifest.chunks.iter().map(|chunk| json!([chunk.length, chunk.hash.to_string()])).collect();
        let expected = json!({"bin": {"v": 2, "size": bytes.len(), "hash": hash, "chunks": chunks}});
        assert_eq!(record.data(), Data::Json(expected));
        assert_eq!(Manifest::read(record, &mut no_page).unwrap(), manifest);
        assert_eq!(Manifest::chunks_listed(record), manifest.chunks);
        assert_eq!(read_binary(record), None);
        assert_eq!(together(&manifest, &store).unwrap(), bytes);
    }
}

// Proves: SY-65 (a large binary; a change of one byte is sent as few chunks)
#[test]
fn a_byte_changed_changes_few_chunks() {
    let size = (64 * scale() as usize).min(1024) * MIB;
    let mut bytes = splitmix(3, size);
    let (before, store) = cut(&bytes);
    assert_eq!(before.size, size as u64);
    assert_eq!(together(&before, &store).unwrap(), bytes);
    let (last, others) = before.chunks.split_last().unwrap();
    assert!(others.iter().all(|chunk| (CHUNK_BYTES_MIN..=CHUNK_BYTES_MAX).contains(&chunk.length)));
    assert!((1..=CHUNK_BYTES_MAX).contains(&last.length));
    let average = size / before.chunks.len();
    assert!((MIB / 2..2 * MIB).contains(&average), "chunks of {average} bytes on average");

    let known: BTreeSet<ChunkHash> = before.chunks.iter().map(|chunk| chunk.hash).collect();
    let new_bytes = |bytes: &[u8]| -> u64 {
        let (after, _) = cut(bytes);
        after.chunks.iter().filter(|chunk| !known.contains(&chunk.hash)).map(|chunk| u64::from(chunk.length)).sum()
    };
    bytes[size / 2] ^= 1;
    let sent = new_bytes(&bytes);
    assert!((1..12 * MIB as u64).contains(&sent), "{sent} bytes for one byte changed");
    bytes.insert(size / 3, 7);
    let sent = new_bytes(&bytes);
    assert!((1..24 * MIB as u64).contains(&sent), "{sent} bytes for one byte put in");
}

/// A source that gives its bytes in small pieces and is interrupted now and then.
struct Drip<'a> {
    bytes: &'a [u8],
    piece: usize,
    calls: usize,
}

impl Read for Drip<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.calls += 1;
        if self.calls.is_multiple_of(5) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let bytes = self.piece.min(out.len());
        self.bytes.read(&mut out[..bytes])
    }
}

// Proves: SY-65 (cuts depend on the bytes, not on how they arrive)
#[test]
fn cuts_do_not_depend_on_the_pieces_read() {
    let bytes = splitmix(4, 21 * MIB + 12_345);
    let reference: Vec<usize> =
        fastcdc::v2020::FastCDC::new(&bytes, 256 * 1024, MIB, 4 * MIB).map(|chunk| chunk.length).collect();
    for piece in [1000, 65_536, 5 * MIB, usize::MAX] {
        let source = &mut Drip { bytes: &bytes, piece, calls: 0 };
        let manifest = Manifest::cut(source, &mut |_| Ok(())).unwrap();
        let lengths: Vec<usize> = manifest.chunks.iter().map(|chunk| chunk.length as usize).collect();
        assert_eq!(lengths, reference, "pieces of {piece}");
        assert_eq!(manifest.hash, blake3(&bytes));
    }
}

#[test]
fn cutting_stops_when_reading_or_keeping_fails() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::ErrorKind::PermissionDenied.into())
        }
    }
    let error = Manifest::cut(&mut Broken, &mut |_| Ok(())).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
    let bytes = splitmix(5, 3 * MIB);
    let full = &mut |_: CutChunk| Err(io::ErrorKind::StorageFull.into());
    assert_eq!(Manifest::cut(&mut &bytes[..], full).unwrap_err().kind(), io::ErrorKind::StorageFull);
    let nothing = Manifest::cut(&mut &[][..], &mut |_| panic!("there is no chunk")).unwrap();
    assert_eq!((nothing.size, nothing.hash, nothing.chunks.len()), (0, blake3(&[]), 0));
}

// Proves: SY-66
#[test]
fn a_wrong_chunk_is_refused_and_nothing_half_is_given_out() {
    let bytes = splitmix(6, 5 * MIB);
    let (manifest, store) = cut(&bytes);
    assert!(manifest.chunks.len() > 2);
    let second = manifest.chunks[1];
    let with = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut store = store.clone();
        let mut chunk = store[&second.hash].to_vec();
        change(&mut chunk);
        store.insert(second.hash, chunk.into());
        together(&manifest, &store)
    };
    assert!(with(&|_| {}).is_ok());
    let flipped = with(&|chunk| chunk[9] ^= 1).unwrap_err();
    assert!(matches!(flipped, AssembleError::Chunk(ChunkError::WrongHash { chunk }) if chunk == second.hash));
    for change in [|chunk: &mut Vec<u8>| chunk.push(0), |chunk: &mut Vec<u8>| chunk.truncate(7)] {
        let error = with(&change).unwrap_err();
        assert!(
            matches!(error, AssembleError::Chunk(ChunkError::WrongLength { expected, .. }) if expected == second.length)
        );
    }
    let mut missing = store.clone();
    missing.remove(&second.hash);
    assert!(matches!(together(&manifest, &missing), Err(AssembleError::Io(_))));
    // Right chunks in the wrong order are not the binary either.
    let mut swapped = manifest.clone();
    swapped.chunks.swap(0, 1);
    assert!(matches!(together(&swapped, &store), Err(AssembleError::WrongWhole(_))));
}

/// A manifest of invented chunks.
fn invented(chunks: usize) -> Manifest {
    let chunks: Vec<ChunkRef> = (0..chunks as u32)
        .map(|number| ChunkRef {
            length: CHUNK_BYTES_MAX - number % 1000,
            hash: ChunkHash(sha256(&number.to_le_bytes())),
        })
        .collect();
    let size = chunks.iter().map(|chunk| u64::from(chunk.length)).sum();
    Manifest { size, hash: sha256(b"whole"), chunks }
}

fn loader(records: &[Verified]) -> impl FnMut(&Address) -> Option<Verified> {
    |wanted| records.iter().find(|record| record.address() == wanted).cloned()
}

// Proves: SY-107 SY-65 (over 4 096 chunks)
#[test]
fn more_than_4096_chunks_make_pages() {
    for (chunks, pages) in [(4096, 0), (4097, 2), (8192, 2), (10_000, 3)] {
        let manifest = invented(chunks);
        let records: Vec<Verified> = manifest.records().iter().map(accepted).collect();
        assert_eq!(records.len(), pages + 1);
        let (head, rest) = records.split_last().unwrap();
        assert_eq!(&Manifest::read(head, &mut loader(&records)).unwrap(), &manifest);
        let related = head.relations().get("page").cloned().unwrap_or_default();
        assert_eq!(related, rest.iter().map(|page| page.address().clone()).collect::<Vec<_>>());
        let listed: Vec<ChunkRef> = records.iter().flat_map(Manifest::chunks_listed).collect();
        assert_eq!(listed, manifest.chunks);
        assert!(rest.iter().all(|page| page.address().ib() == "binpage" && page.relations().is_empty()));
        assert!(Manifest::chunks_listed(head).is_empty() == (pages > 0));
    }
}

// Proves: SY-107 (a missing page, sums)
#[test]
fn a_manifest_without_its_pages_is_not_read() {
    let manifest = invented(4100);
    let records = manifest.records();
    let [first, second, head] = &records[..] else { panic!("two pages and a head") };
    let (name, whole) = (second.address().clone(), head.address().clone());
    assert_eq!(
        Manifest::read(head, &mut loader(std::slice::from_ref(first))),
        Err(ManifestError::PageMissing(name.clone()))
    );
    // A loader that answers with another page, or with something that is no page.
    let wrong_sum = Manifest::read(head, &mut |_| Some(second.clone()));
    assert_eq!(wrong_sum, Err(ManifestError::BadSum(whole)));
    let no_page = Manifest::read(head, &mut |wanted| {
        Some(if *wanted == name { binary_record(vec![1].into()) } else { first.clone() })
    });
    assert_eq!(no_page, Err(ManifestError::PageMissing(name)));
    // A page alone is no manifest.
    let page = first.address().clone();
    assert_eq!(Manifest::read(first, &mut loader(&records)), Err(ManifestError::NotManifest(page)));
}

// Proves: SY-107 (the largest manifest fits into a record)
#[test]
fn a_head_of_4096_pages_fits_into_a_record() {
    let hash = "a".repeat(64);
    let size = u64::from(CHUNK_BYTES_MAX) * CHUNKS_PER_LIST_MAX as u64;
    let pages: Vec<Address> =
        (0..CHUNKS_PER_LIST_MAX).map(|page| crate::address(&format!("binpage^{page:064X}"))).collect();
    let entries: Vec<Value> = pages.iter().map(|page| json!([size, page.as_str()])).collect();
    let bin = json!({"v": 2, "size": size * CHUNKS_PER_LIST_MAX as u64, "hash": hash, "pages": entries});
    let head = stone(
        &format!("bin {hash} "),
        Data::Json(json!({ "bin": bin })),
        Relations::from([("page".to_owned(), pages)]),
    );
    assert!((600_000..RECORD_BYTES_MAX).contains(&accepted(&head).encoded().len()));
}

#[test]
#[should_panic(expected = "in full")]
fn a_manifest_whose_sizes_do_not_add_up_makes_no_records() {
    Manifest { size: 9 * MIB as u64, ..invented(2) }.records();
}

#[test]
#[should_panic(expected = "large binaries")]
fn a_small_manifest_makes_no_records() {
    cut(b"small").0.records();
}

fn verdict(ib: &str, data: Data, pages: &[&Address]) -> Result<(), Refusal> {
    let mut relations = Relations::new();
    if !pages.is_empty() {
        relations.insert("page".to_owned(), pages.iter().map(|page| (*page).clone()).collect());
    }
    // Making does not hash the bytes against the ib, the front door does.
    let made = Verified::make(ib, data, relations)?;
    Verified::accept(made.encoded().clone()).map(|_| ())
}

// Proves: SY-107 (each clause of bad_bin)
#[test]
fn each_clause_of_bad_bin() {
    let hash = "ab".repeat(32);
    let ib = format!("bin {hash} ");
    let chunk = |length: u64| json!([length, "cd".repeat(32)]);
    let page = stone("binpage", Data::Json(json!({"chunks": [chunk(600_000)]})), Relations::new());
    let page = page.address();
    let one = |bin: Value, pages: &[&Address]| verdict(&ib, Data::Json(json!({ "bin": bin })), pages);
    let base = json!({"v": 2, "size": 600_000, "hash": hash, "chunks": [chunk(600_000)]});
    let paged = json!({"v": 2, "size": 600_000, "hash": hash, "pages": [[600_000, page.as_str()]]});
    assert_eq!(one(base.clone(), &[]), Ok(()));
    assert_eq!(one(paged.clone(), &[page]), Ok(()));

    let change = |value: &Value, name: &str, new: Value| {
        let mut value = value.clone();
        match new {
            Value::Null => value.as_object_mut().unwrap().shift_remove(name),
            new => value.as_object_mut().unwrap().insert(name.to_owned(), new),
        };
        value
    };
    let too_many: Vec<Value> = (0..4097).map(|_| chunk(1000)).collect();
    let refused = [
        change(&base, "v", json!(1)),
        change(&base, "v", Value::Null),
        change(&base, "size", Value::Null),
        change(&base, "hash", Value::Null),
        change(&base, "chunks", Value::Null),
        change(&base, "more", json!(1)),
        change(&base, "size", json!(600_001)),
        change(&base, "hash", json!("cd".repeat(32))),
        change(&base, "chunks", json!([])),
        change(&base, "chunks", json!([[600_000, "cd".repeat(32), 1]])),
        change(&base, "chunks", json!([[600_000, "CD".repeat(32)]])),
        change(&base, "chunks", json!([chunk(0), chunk(600_000)])),
        change(&change(&base, "size", json!(4_194_305)), "chunks", json!([chunk(4_194_305)])),
        change(&change(&base, "size", json!(524_288)), "chunks", json!([chunk(524_288)])),
        change(&change(&base, "size", json!(4_097_000)), "chunks", json!(too_many)),
        change(&base, "pages", json!([[600_000, page.as_str()]])),
    ];
    for bin in refused {
        assert_eq!(one(bin.clone(), &[]), Err(Refusal::BadBin), "{:.300}", bin.to_string());
    }
    assert_eq!(one(paged.clone(), &[]), Err(Refusal::BadBin));
    assert_eq!(one(base, &[page]), Err(Refusal::BadBin));
    assert_eq!(one(change(&paged, "pages", json!([[600_001, page.as_str()]])), &[page]), Err(Refusal::BadBin));

    let bytes = vec![7u8; 10];
    let right = format!("bin {} ", data_encoding::HEXLOWER.encode(&sha256(&bytes)));
    assert_eq!(verdict(&right, Data::Bytes(bytes.clone().into()), &[]), Ok(()));
    assert_eq!(verdict(&ib, Data::Bytes(bytes.into()), &[]), Err(Refusal::BadBin));
    assert_eq!(verdict(&ib, Data::None, &[]), Err(Refusal::BadBin));
    let large = vec![7u8; BIN_INLINE_BYTES_MAX + 1];
    let ib = format!("bin {} ", data_encoding::HEXLOWER.encode(&sha256(&large)));
    assert_eq!(verdict(&ib, Data::Bytes(large.into()), &[]), Err(Refusal::BadBin));
    let pages = [
        json!({}),
        json!({"chunks": []}),
        json!({"chunks": [chunk(0)]}),
        json!({"chunks": [chunk(1)], "more": 1}),
        json!({"chunks": (0..4097).map(|_| chunk(1)).collect::<Vec<_>>()}),
    ];
    for page in pages {
        assert_eq!(verdict("binpage", Data::Json(page), &[]), Err(Refusal::BadBin));
    }
    // Other `bin …` records have no rules of ours.
    assert_eq!(verdict(&format!("bin {hash} txt"), Data::Json(json!("SGk=")), &[]), Ok(()));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..crate::property_cases() })]

    // Proves: SY-65
    #[test]
    fn any_binary_goes_round(seed in any::<u64>(), size in 524_289usize..12_000_000, zeros in any::<bool>()) {
        let mut bytes = splitmix(seed, size);
        if zeros {
            bytes[size / 4..size / 2].fill(0);
        }
        let (manifest, store) = cut(&bytes);
        let records = manifest.records();
        let read = Manifest::read(records.last().unwrap(), &mut loader(&records)).unwrap();
        prop_assert_eq!(&read, &manifest);
        prop_assert!(together(&read, &store).unwrap() == bytes);
    }
}
