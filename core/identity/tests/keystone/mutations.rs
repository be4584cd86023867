//! Any change of a byte of claim, core or relations changes the demands or fails. Spec: ibgib §12.3 "digest demands".

use sealtide_crypto::SeededEntropy;
use sealtide_ibgib::{Address, Verified};
use sealtide_identity::keystone::{Claim, Rule, Standing, Verb};

use crate::support::{Holder, broken_next, rand, resigned, scale};

/// Changes one character of the canonical data, outside `st.sig` and the proof's solutions.
fn mutated(record: &Verified, entropy: &mut SeededEntropy) -> Option<Verified> {
    let text = record.data_text().unwrap();
    let skipped = [place(text, "\"sig\":\"", "\""), place(text, "\"solutions\":[", "]")];
    let at = rand(entropy, text.len());
    if skipped.iter().any(|skipped| skipped.contains(&at)) {
        return None;
    }
    let mut bytes = text.as_bytes().to_vec();
    bytes[at] = b"0123456789abcdefghijklmnopqrstuvwxyz\"{}[],:"[rand(entropy, 43)];
    let text = String::from_utf8(bytes).ok()?;
    let made = Verified::make_canonical("keystone", &text, record.relations()).ok()?;
    (made != *record).then_some(made)
}

fn place(text: &str, from: &str, to: &str) -> std::ops::Range<usize> {
    let start = text.find(from).unwrap() + from.len();
    start..start + text[start..].find(to).unwrap()
}

/// Changes one digit of the previous or the first address.
fn moved(record: &Verified, entropy: &mut SeededEntropy) -> Option<Verified> {
    let mut relations = record.relations().clone();
    let past = relations.get_mut("past")?;
    let text = past[0].as_str();
    let at = "keystone^".len() + rand(entropy, 64);
    let digit = if &text[at..=at] == "0" { "1" } else { "0" };
    past[0] = Address::parse(&format!("{}{digit}{}", &text[..at], &text[at + 1..])).unwrap();
    Verified::make_canonical("keystone", record.data_text()?, &relations).ok()
}

// Proves: SY-23
#[test]
fn one_byte_changes_the_demands() {
    let (wanted, mut entropy) = (1_000 * scale() as usize, SeededEntropy::new(23));
    let mut device = Holder::device(70);
    let (mut tried, mut by_demands) = (0, 0);
    while tried < wanted {
        let claim = Claim::new(Verb::Post, &format!("comment {tried}^gib")).scoped("a=b".into());
        let previous: Standing = device.newest().clone();
        let record = device.sign(&claim, 1);
        for _ in 0..200.min(wanted - tried) {
            let changed = if tried % 10 == 0 { moved(&record, &mut entropy) } else { mutated(&record, &mut entropy) };
            let Some(changed) = changed else { continue };
            tried += 1;
            // Signed again by the real key, so that the hash part stands alone.
            let signed = resigned(&changed, &device.key, Some(previous.frame().record()), |_| {});
            let broken = broken_next(&previous, &signed);
            assert!(!broken.is_empty(), "taken: {:?}", signed.data_text());
            let in_form = broken != [Rule::Form];
            by_demands += usize::from(broken.contains(&Rule::E9));
            assert!(
                !in_form || broken.iter().any(|rule| matches!(rule, Rule::E9 | Rule::E3 | Rule::E13)),
                "{broken:?}"
            );
        }
    }
    println!("{tried} mutated frames refused, {by_demands} because of their demands");
    assert!(by_demands * 2 > tried);
}
