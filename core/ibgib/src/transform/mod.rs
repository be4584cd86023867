//! fork, mut8, rel8 and firstGen, as V1 does them. Spec: ibgib §3.
//!
//! These exist for compatibility and for the plumbing commands; our own timelines are made by `genesis` and
//! `evolve`. They work on JavaScript values, because what they do to odd input is part of the format. Options are
//! taken as a JavaScript object, in the caller's member order: a dna record is made from it.
//!
//! A transform that fails leaves nothing behind: sources are never changed.

mod first_gen;
mod fork;
mod mut8;
mod rel8;

use sealtide_crypto::{Entropy, sha256};

use crate::hash::gib_of;
use crate::json::{Js, JsObject, JsString};
use crate::stamp_text::http_date;

pub use first_gen::first_gen;
pub use fork::fork;
pub use mut8::mut8;
pub use rel8::rel8;

/// Time and chance for a transform.
pub struct Surroundings<'a> {
    /// Reads the clock, ms since 1970: once for each transform. firstGen is up to three of them.
    pub clock: &'a mut dyn FnMut() -> u64,
    /// Draws the 16 bytes of a uuid.
    pub entropy: &'a mut dyn Entropy,
}

/// What a transform made.
#[derive(Clone, Debug, PartialEq)]
pub struct Transformed {
    /// The new record: `ib`, `gib`, and `data` and `rel8ns` where there are any.
    pub new: JsObject,
    /// The dna records, in order.
    pub dnas: Vec<JsObject>,
    /// The frames between source and result, in order (firstGen only).
    pub intermediate: Vec<JsObject>,
}

/// Why a transform refuses. Spec: ibgib §3, SY-7.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TransformError {
    /// `opts.type` names another transform.
    #[error("wrong_type")]
    WrongType,
    /// There is no source record.
    #[error("src_required")]
    SrcRequired,
    /// The source has no ib.
    #[error("src_ib_required")]
    SrcIbRequired,
    /// The source has no gib.
    #[error("src_gib_required")]
    SrcGibRequired,
    /// `destIb` holds `^`.
    #[error("dest_ib_delimiter")]
    DestIbDelimiter,
    /// The ib of the source holds `^`.
    #[error("src_ib_delimiter")]
    SrcIbDelimiter,
    /// `noTimestamp` together with `tjp.timestamp`.
    #[error("timestamp_conflict")]
    TimestampConflict,
    /// The source is a primitive.
    #[error("primitive_src")]
    PrimitiveSrc,
    /// No option asks for a change.
    #[error("nothing_to_do")]
    NothingToDo,
    /// `opts.srcAddr` is not the address of the source.
    #[error("src_addr_mismatch")]
    SrcAddrMismatch,
    /// A rename or removal touches `timestamp`.
    #[error("forbidden_key")]
    ForbiddenKey,
    /// `data.n` is not an integer.
    #[error("n_not_integer")]
    NNotInteger,
    /// An address to add or remove is none.
    #[error("invalid_address")]
    InvalidAddress,
    /// `past`, `ancestor`, `dna` or `tjp` would be changed by a rel8.
    #[error("forbidden_rel8n")]
    ForbiddenRel8n,
    /// JavaScript would throw a type error here.
    #[error("type_error")]
    Type,
}

/// A uuid from 16 random bytes: SHA-256 of their decimal numbers put together, lower-case hex. Spec: ibgib §1.5.
// Spec: SY-8
pub fn uuid_of_draw(draw: &[u8; 16]) -> String {
    let decimal: String = draw.iter().map(u8::to_string).collect();
    crate::accept::lower_hex_text(&sha256(decimal.as_bytes()))
}

/// Which transform, as the options name it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Type {
    Fork,
    Mut8,
    Rel8,
}

impl Type {
    fn name(self) -> &'static str {
        match self {
            Self::Fork => "fork",
            Self::Mut8 => "mut8",
            Self::Rel8 => "rel8",
        }
    }
}

/// The source and the options of one transform, checked as far as all transforms check.
struct Job<'a> {
    kind: Type,
    opts: &'a JsObject,
    ib: JsString,
    gib: JsString,
    address: JsString,
    data: Js,
    rel8ns: Js,
}

impl<'a> Job<'a> {
    fn new(kind: Type, src: Option<&JsObject>, opts: &'a JsObject) -> Result<Self, TransformError> {
        let named = opts.named("type");
        if named.truthy() && *named != Js::text(kind.name()) {
            return Err(TransformError::WrongType);
        }
        let src = src.ok_or(TransformError::SrcRequired)?;
        let ib = required(src.named("ib"), TransformError::SrcIbRequired)?;
        let gib = required(src.named("gib"), TransformError::SrcGibRequired)?;
        let address = address_of(&ib, &gib);
        let kept = |name: &str| match src.named(name) {
            value if has_members(value) => value.clone(),
            _ => Js::Undefined,
        };
        Ok(Self { kind, opts, ib, gib, address, data: kept("data"), rel8ns: kept("rel8ns") })
    }

    /// The checks that mut8 and rel8 share.
    fn check_frame_source(&self) -> Result<(), TransformError> {
        if self.ib.has_ascii(b'^') {
            return Err(TransformError::SrcIbDelimiter);
        }
        if self.gib == *"gib" {
            return Err(TransformError::PrimitiveSrc);
        }
        match self.opts.named("srcAddr") {
            given if given.truthy() && *given != Js::String(self.address.clone()) => {
                Err(TransformError::SrcAddrMismatch)
            }
            _ => Ok(()),
        }
    }

    fn asks(&self, option: &str) -> bool {
        self.opts.named(option).truthy()
    }

    fn linked(&self) -> &[Js] {
        self.opts.named("linkedRel8ns").as_array().unwrap_or_default()
    }

    fn is_linked(&self, name: &str) -> bool {
        self.linked().contains(&Js::text(name))
    }

    /// A clone of the source's data for a new frame; `{}` without any.
    fn cloned_data(&self) -> Js {
        or_empty(self.data.json_round_trip())
    }

    /// A clone of the source's relations; empty without any.
    fn cloned_relations(&self) -> Result<JsObject, TransformError> {
        match or_empty(self.rel8ns.json_round_trip()) {
            Js::Object(relations) => Ok(relations),
            _ => Err(TransformError::Type),
        }
    }

    /// Appends to a relation, or replaces it when it is linked.
    fn link(&self, relations: &mut JsObject, name: &str, address: &JsString) -> Result<(), TransformError> {
        let mut entries = if self.is_linked(name) { Vec::new() } else { entries(relations, &name.into())? };
        entries.push(Js::String(address.clone()));
        relations.set(name, Js::Array(entries));
        Ok(())
    }

    /// Makes the dna record, if asked for, and links it.
    fn dna(&self, relations: &mut JsObject) -> Result<Vec<JsObject>, TransformError> {
        if !self.asks("dna") {
            return Ok(Vec::new());
        }
        let mut options = JsObject::new();
        for (key, value) in self.opts.iter().filter(|(key, _)| *key != *"src" && *key != *"srcAddr") {
            let value = value.json_round_trip();
            if value != Js::Undefined {
                options.set(key, value);
            }
        }
        if !self.asks("type") {
            options.set("type", Js::text(self.kind.name()));
        }
        let mut ancestor = JsObject::new();
        ancestor.set("ancestor", Js::Array(vec![Js::text(format!("{}^gib", self.kind.name()))]));
        let ib = JsString::from(self.kind.name());
        let dna = finished(&ib, Js::Object(options), Js::Object(ancestor), Gib::Bare)?;
        self.link(relations, "dna", &record_address(&dna))?;
        Ok(vec![dna])
    }

    /// Links the source as the first frame of the timeline, when it was one. Spec: ibgib §3.3 rule 7.
    fn leave_tjp(&self, data: &mut Js, relations: &mut JsObject) -> Result<(), TransformError> {
        let Js::Object(members) = data else { return Ok(()) };
        if members.named("isTjp").truthy() {
            let mut tjp = entries(relations, &"tjp".into())?;
            tjp.push(Js::String(self.address.clone()));
            relations.set("tjp", Js::Array(tjp));
            members.remove(&"isTjp".into());
        }
        Ok(())
    }

    /// The counter of the next frame. Spec: ibgib §3.3 rule 6.
    fn count(&self, data: &mut Js) -> Result<(), TransformError> {
        let n = data.as_object().and_then(|members| members.get(&"n".into()));
        if n.is_none() && !self.asks("nCounter") {
            return Ok(());
        }
        let next = match n {
            None | Some(Js::Undefined) => 0.0,
            Some(Js::Number(n)) if n.is_finite() && n.fract() == 0.0 => {
                if *n < 0.0 {
                    0.0
                } else {
                    n + 1.0
                }
            }
            Some(_) => return Err(TransformError::NNotInteger),
        };
        set_member(data, "n", Js::Number(next))
    }

    fn stamp(&self, data: &mut Js, surroundings: &mut Surroundings<'_>) -> Result<(), TransformError> {
        if self.asks("noTimestamp") {
            return Ok(());
        }
        let ms = (surroundings.clock)();
        set_member(data, "timestamp", Js::text(http_date(ms)))?;
        set_member(data, "timestampMs", Js::Number((ms % 1000) as f64))
    }
}

/// How the gib of a new record is made.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Gib {
    /// Always the bare hash: fork and dna.
    Bare,
    /// By ibgib §2.4.
    Timeline,
}

/// The record of these parts; `undefined` parts are left out.
fn finished(ib: &JsString, data: Js, rel8ns: Js, gib: Gib) -> Result<JsObject, TransformError> {
    let mut record = JsObject::new();
    record.set("ib", Js::String(ib.clone()));
    record.set("gib", Js::Undefined);
    for (name, part) in [("data", data), ("rel8ns", rel8ns)] {
        if part != Js::Undefined {
            record.set(name, part);
        }
    }
    let gib = match gib {
        Gib::Bare => crate::hash::sha256v1(&record, "").hash,
        Gib::Timeline => gib_of(&record, false).map_err(|_| TransformError::Type)?,
    };
    record.set("gib", Js::text(gib));
    Ok(record)
}

/// The address of a record; parts that are no strings count as empty.
pub fn record_address(record: &JsObject) -> JsString {
    let part = |name: &str| record.named(name).as_string().cloned().unwrap_or_else(|| "".into());
    address_of(&part("ib"), &part("gib"))
}

fn address_of(ib: &JsString, gib: &JsString) -> JsString {
    ib.join(&"^".into()).join(gib)
}

fn required(value: &Js, error: TransformError) -> Result<JsString, TransformError> {
    match value {
        value if !value.truthy() => Err(error),
        Js::String(text) => Ok(text.clone()),
        _ => Err(TransformError::Type),
    }
}

/// JavaScript's `Object.keys(value).length > 0`, where nothing has no keys.
fn has_members(value: &Js) -> bool {
    match value {
        Js::String(text) => !text.is_empty(),
        Js::Bytes(bytes) => !bytes.is_empty(),
        Js::Array(elements) => !elements.is_empty(),
        Js::Object(members) => !members.is_empty(),
        _ => false,
    }
}

fn or_empty(value: Js) -> Js {
    if value == Js::Undefined { Js::Object(JsObject::new()) } else { value }
}

/// The entries of a relation, none when it is absent or `null`.
fn entries(relations: &JsObject, name: &JsString) -> Result<Vec<Js>, TransformError> {
    match relations.get(name) {
        None | Some(Js::Undefined | Js::Null) => Ok(Vec::new()),
        Some(Js::Array(entries)) => Ok(entries.clone()),
        Some(_) => Err(TransformError::Type),
    }
}

/// `value[name] = member`. Names on arrays and bytes are lost when they are written; other values throw.
fn set_member(value: &mut Js, name: &str, member: Js) -> Result<(), TransformError> {
    match value {
        Js::Object(members) => assign(members, name.into(), member),
        Js::Array(_) | Js::Bytes(_) => {}
        _ => return Err(TransformError::Type),
    }
    Ok(())
}

/// JavaScript's assignment: `__proto__` is only set where it is a member of its own already. Spec: ibgib §2.2.
fn assign(members: &mut JsObject, key: JsString, value: Js) {
    if key != *"__proto__" || members.get(&key).is_some() {
        members.set(key, value);
    }
}

/// JavaScript's `Object.keys(value)` with the values; `null` and `undefined` throw.
fn own_members(value: &Js) -> Result<Vec<(JsString, Js)>, TransformError> {
    let index = |position: usize| JsString::Text(position.to_string());
    Ok(match value {
        Js::Undefined | Js::Null => return Err(TransformError::Type),
        Js::Bool(_) | Js::Number(_) => Vec::new(),
        Js::String(text) => {
            let units = text.units().into_iter().enumerate();
            units.map(|(at, unit)| (index(at), Js::String(JsString::from_units(vec![unit])))).collect()
        }
        Js::Bytes(bytes) => {
            bytes.iter().enumerate().map(|(at, byte)| (index(at), Js::Number((*byte).into()))).collect()
        }
        Js::Array(elements) => elements.iter().enumerate().map(|(at, value)| (index(at), value.clone())).collect(),
        Js::Object(members) => members.iter().map(|(key, value)| (key, value.clone())).collect(),
    })
}
