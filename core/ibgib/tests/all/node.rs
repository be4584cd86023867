//! Differential run against a JavaScript engine: `node` on the PATH, otherwise skipped. Spec: SY-2, SY-3.

#![allow(clippy::print_stdout, reason = "a test fails by panicking and says what it ran")]

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use sealtide_crypto::{Entropy, SeededEntropy};
use sealtide_ibgib::json::{Js, JsString, Rules, number_text, parse, write, write_norm};

/// Reads one request per line: `n <8 bytes hex>` a double, `s <UTF-16 hex>` a string, `j <UTF-8 hex>` a JSON text.
/// Answers in hex, so that no byte is lost on the way. Norm is written as ibgib §2.2 tells it.
const SCRIPT: &str = r#"
const norm = (value) => {
  if (!value || typeof value !== 'object') { return value; }
  if (Array.isArray(value)) { return value.concat(); }
  const made = {};
  for (const key of Object.keys(value).sort()) {
    const member = value[key];
    if (member === undefined) { continue; }
    made[key] = (member && typeof member === 'object') ? norm(member) : member;
  }
  return made;
};
const hex = (text) => Buffer.from(text, 'utf8').toString('hex');
const answer = (kind, body) => {
  const bytes = Buffer.from(body, 'hex');
  if (kind === 'n') { return hex(JSON.stringify(bytes.readDoubleBE(0))); }
  if (kind === 's') { return hex(JSON.stringify(bytes.toString('utf16le'))); }
  let value;
  try { value = JSON.parse(bytes.toString('utf8')); } catch { return '-'; }
  return hex(JSON.stringify(value)) + ' ' + hex(JSON.stringify(norm(value)));
};
const lines = require('readline').createInterface({ input: process.stdin });
const out = [];
lines.on('line', (line) => { const at = line.indexOf(' '); out.push(answer(line.slice(0, at), line.slice(at + 1))); });
lines.on('close', () => process.stdout.write(out.join('\n') + '\n'));
"#;

/// The answers of node, or `None` without node.
fn ask(requests: &[String]) -> Option<Vec<String>> {
    let spawned = Command::new("node").args(["-e", SCRIPT]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let Ok(mut child) = spawned else {
        println!("skipped: no node");
        return None;
    };
    let mut input = child.stdin.take().unwrap();
    input.write_all((requests.join("\n") + "\n").as_bytes()).unwrap();
    drop(input);
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap).collect::<Vec<_>>();
    assert!(child.wait().unwrap().success());
    assert_eq!(lines.len(), requests.len());
    Some(lines)
}

struct Chance(SeededEntropy);

impl Chance {
    fn u64(&mut self) -> u64 {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes);
        u64::from_be_bytes(bytes)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.u64() % end
    }

    /// Doubles of every size: raw bits, decimal-looking ones, integers around the limits.
    fn double(&mut self) -> f64 {
        match self.below(4) {
            0 => f64::from_bits(self.u64()),
            1 => format!("{}e{}", self.below(1_000_000_000), self.below(60) as i64 - 30).parse().unwrap(),
            2 => (self.u64() >> self.below(64)) as f64 * if self.below(2) == 0 { 1.0 } else { -1.0 },
            _ => f64::from_bits(
                (1.0f64 * 10f64.powi(self.below(44) as i32 - 22)).to_bits().wrapping_add(self.below(7)).wrapping_sub(3),
            ),
        }
    }

    fn units(&mut self) -> Vec<u16> {
        let ranges: [(u64, u64); 7] = [
            (0, 0x20),
            (0x20, 0x80),
            (0x80, 0x800),
            (0xD800, 0xE000),
            (0x2026, 0x202A),
            (0xFFF0, 0x10000),
            (0, 0x10000),
        ];
        (0..self.below(12))
            .map(|_| {
                let (start, end) = ranges[self.below(7) as usize];
                (start + self.below(end - start)) as u16
            })
            .collect()
    }

    fn json(&mut self, depth: u64) -> String {
        match self.below(if depth == 0 { 4 } else { 7 }) {
            0 => number_text(self.double()),
            1 => write(&Js::String(JsString::from_units(self.units()))).unwrap(),
            2 => {
                ["null", "true", "false", "-0", "1.50", "1E5", "1e999", "[ ]", "{ }"][self.below(9) as usize].to_owned()
            }
            3 => format!("\"\\u{:04X}\\/\"", self.below(0x10000)),
            4 => {
                let elements: Vec<String> = (0..self.below(5)).map(|_| self.json(depth - 1)).collect();
                format!("[{}]", elements.join(" , "))
            }
            _ => {
                let members: Vec<String> =
                    (0..self.below(7)).map(|_| format!("{} :{}", self.key(), self.json(depth - 1))).collect();
                format!("{{{}}}", members.join(","))
            }
        }
    }

    fn key(&mut self) -> String {
        match self.below(6) {
            0 => write(&Js::String(JsString::from_units(self.units()))).unwrap(),
            1 => format!("\"{}\"", self.below(12)),
            2 => format!("\"{}\"", 4_294_967_290 + self.below(9)),
            3 => "\"__proto__\"".to_owned(),
            4 => ["\"01\"", "\"-1\"", "\"1.5\"", "\"\"", "\"constructor\"", "\"\\uffff\"", "\"\\ud83d\\ude00\""]
                [self.below(7) as usize]
                .to_owned(),
            _ => format!("\"{}\"", char::from(b'a' + self.below(4) as u8)),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}

// Proves: SY-2
#[test]
fn numbers_as_javascript_writes_them() {
    let mut chance = Chance(SeededEntropy::new(2));
    let doubles: Vec<f64> = (0..50_000 * crate::support::scale()).map(|_| chance.double()).collect();
    let requests: Vec<String> = doubles.iter().map(|double| format!("n {}", hex(&double.to_be_bytes()))).collect();
    let Some(answers) = ask(&requests) else { return };
    for (double, answer) in doubles.iter().zip(&answers) {
        let ours = number_text(*double);
        assert_eq!(&hex(ours.as_bytes()), answer, "{double:e} written as {ours}");
        if double.is_finite() {
            let Ok(Js::Number(back)) = parse(&ours, Rules::Strict) else { panic!("{ours} is no number") };
            assert_eq!(back, *double);
        }
    }
    println!("compared {} doubles", answers.len());
}

// Proves: SY-2
#[test]
fn strings_as_javascript_writes_them() {
    let mut chance = Chance(SeededEntropy::new(3));
    let strings: Vec<Vec<u16>> = (0..50_000 * crate::support::scale()).map(|_| chance.units()).collect();
    let request = |units: &Vec<u16>| {
        let bytes: Vec<u8> = units.iter().flat_map(|unit| unit.to_le_bytes()).collect();
        format!("s {}", hex(&bytes))
    };
    let Some(answers) = ask(&strings.iter().map(request).collect::<Vec<_>>()) else { return };
    for (units, answer) in strings.into_iter().zip(&answers) {
        let string = Js::String(JsString::from_units(units));
        let ours = write(&string).unwrap();
        assert_eq!(&hex(ours.as_bytes()), answer, "{ours}");
        assert_eq!(parse(&ours, Rules::Compat), Ok(string));
    }
    println!("compared {} strings", answers.len());
}

// Proves: SY-2, SY-3
#[test]
fn whole_texts_as_javascript_reads_and_writes_them() {
    let mut chance = Chance(SeededEntropy::new(4));
    let texts: Vec<String> = (0..10_000 * crate::support::scale())
        .map(|_| {
            let mut text = chance.json(5);
            if chance.below(8) == 0 {
                // Some that are no JSON any more: both sides must agree about that, too.
                let at = chance.below(text.len() as u64) as usize;
                if text.is_char_boundary(at) && text.is_char_boundary(at + 1) {
                    text.remove(at);
                }
            }
            text
        })
        .collect();
    let Some(answers) = ask(&texts.iter().map(|text| format!("j {}", hex(text.as_bytes()))).collect::<Vec<_>>()) else {
        return;
    };
    let mut refused = 0;
    for (text, answer) in texts.iter().zip(&answers) {
        match parse(text, Rules::Compat) {
            Ok(value) => {
                let (plain, normal) = (write(&value).unwrap(), write_norm(&value).unwrap());
                assert_eq!(&format!("{} {}", hex(plain.as_bytes()), hex(normal.as_bytes())), answer, "{text}");
            }
            Err(_) => {
                refused += 1;
                assert_eq!(answer, "-", "{text}");
            }
        }
    }
    println!("compared {} texts, {refused} of them refused by both", answers.len());
    assert!(refused > 0);
}
