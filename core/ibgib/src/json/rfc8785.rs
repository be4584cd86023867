//! The canonical JSON of RFC 8785: members sorted by UTF-16 code units at every level, numbers and strings as
//! ECMAScript writes them. What the gateway signs is in this form; addresses are not (they take norm, ibgib §2.3).

use super::value::{Js, JsString};
use super::write::{push_number, push_string};

/// The RFC 8785 text of a value; `None` when it has none: `undefined`, bytes, a number that is not finite, or a lone
/// surrogate somewhere in it.
pub fn write_rfc8785(value: &Js) -> Option<String> {
    let mut out = String::new();
    put(value, &mut out).then_some(out)
}

fn put(value: &Js, out: &mut String) -> bool {
    match value {
        Js::Undefined | Js::Bytes(_) => return false,
        Js::Null => out.push_str("null"),
        Js::Bool(true) => out.push_str("true"),
        Js::Bool(false) => out.push_str("false"),
        Js::Number(number) if !number.is_finite() => return false,
        Js::Number(number) => push_number(*number, out),
        Js::String(text) => return put_text(text, out),
        Js::Array(elements) => {
            out.push('[');
            for (position, element) in elements.iter().enumerate() {
                comma(position, out);
                if !put(element, out) {
                    return false;
                }
            }
            out.push(']');
        }
        Js::Object(object) => {
            let mut members: Vec<(JsString, &Js)> = object.iter().collect();
            members.sort_by(|left, right| left.0.cmp(&right.0));
            out.push('{');
            for (position, (name, value)) in members.into_iter().enumerate() {
                comma(position, out);
                if !put_text(&name, out) {
                    return false;
                }
                out.push(':');
                if !put(value, out) {
                    return false;
                }
            }
            out.push('}');
        }
    }
    true
}

fn comma(position: usize, out: &mut String) {
    if position > 0 {
        out.push(',');
    }
}

fn put_text(text: &JsString, out: &mut String) -> bool {
    push_string(text, out);
    text.as_str().is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::{JsObject, Rules, parse};

    fn canonical(text: &str) -> Option<String> {
        write_rfc8785(&parse(text, Rules::Compat).unwrap())
    }

    #[test]
    fn the_examples_of_rfc_8785() {
        let numbers = r#"{"numbers":[333333333.33333329,1E30,4.50,2e-3,0.000000000000000000000000001],"string":"\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/","literals":[null,true,false]}"#;
        let wanted = r#"{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],"string":"€$\u000f\nA'B\"\\\\\"/"}"#;
        assert_eq!(canonical(numbers).unwrap(), wanted);
        let order = r#"{"\u20ac":"Euro Sign","\r":"Carriage Return","\ufb33":"Hebrew","1":"One","\ud83d\ude00":"Emoji","\u0080":"Control","\u00f6":"Latin"}"#;
        let wanted = "{\"\\r\":\"Carriage Return\",\"1\":\"One\",\"\u{80}\":\"Control\",\"ö\":\"Latin\",\"€\":\"Euro Sign\",\
                      \"😀\":\"Emoji\",\"\u{fb33}\":\"Hebrew\"}";
        assert_eq!(canonical(order).unwrap(), wanted);
    }

    #[test]
    fn members_that_look_like_indices_are_sorted_as_text_and_so_are_those_inside_arrays() {
        assert_eq!(
            canonical(r#"[{"9":1,"10":2,"b":{"d":1,"c":2},"a":3}]"#).unwrap(),
            r#"[{"10":2,"9":1,"a":3,"b":{"c":2,"d":1}}]"#
        );
    }

    #[test]
    fn what_has_no_form_is_refused() {
        assert_eq!(canonical(r#"["\ud800"]"#), None);
        assert_eq!(canonical(r#"{"\udfff":1}"#), None);
        assert_eq!(canonical("[1e999]"), None);
        assert_eq!(write_rfc8785(&Js::Undefined), None);
        let mut object = JsObject::new();
        object.set("a", Js::Bytes(vec![1]));
        assert_eq!(write_rfc8785(&Js::Object(object)), None);
    }
}
