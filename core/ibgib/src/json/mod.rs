//! JSON exactly as JavaScript reads and writes it: member order, numbers and strings. Spec: ibgib §2.2, §2.3.
//!
//! The *compat* half ([`parse`], [`write()`]) works on [`Js`] values and takes everything JavaScript takes. The *strict*
//! half ([`scan`](self)) judges a text without building a value, for the hot path of strict acceptance.

mod parse;
mod plain;
mod rfc8785;
mod scan;
mod value;
mod write;

pub use parse::{ParseError, Rules, parse};
pub use rfc8785::write_rfc8785;
pub(crate) use scan::{NamedLists, RelText, Top, scan_data, scan_relations};
pub use value::{Js, JsObject, JsString};
pub(crate) use value::{array_index, cmp_utf16};
pub use write::{number_text, write, write_norm};
pub(crate) use write::{write_norm_value, write_text};
