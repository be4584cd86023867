//! Records of different shape at one address.

use bytes::Bytes;
use sealtide_ibgib::{Data, Reader, Relations, Verified, genesis, pick_shape, stone};
use serde_json::json;

use crate::{address, permutations, stamp, uuid};

/// Every order of arrival gives each reader this shape.
fn check(shapes: &[Verified], json: Option<&Verified>, bytes: Option<&Verified>, graph: Option<&Verified>) {
    assert!(shapes.iter().all(|shape| shape.address() == shapes[0].address()), "{shapes:?}");
    for order in permutations(shapes.len()) {
        let arrived: Vec<Verified> = order.iter().map(|at| shapes[*at].clone()).collect();
        assert_eq!(pick_shape(Reader::Json, &arrived), json);
        assert_eq!(pick_shape(Reader::Bytes, &arrived), bytes);
        assert_eq!(pick_shape(Reader::Graph, &arrived), graph);
    }
}

// Proves: SY-13 (the reader's side)
#[test]
fn the_reader_gets_its_shape_whatever_came_first() {
    let relations = Relations::from([("x".to_owned(), vec![address("a^gib")])]);
    let value = json!({"x": ["a^gib"]});
    let related = stone("same", Data::None, relations);
    let data = stone("same", Data::Json(value.clone()), Relations::new());
    let bytes = stone("same", Data::Bytes(Bytes::from(value.to_string())), Relations::new());
    check(&[related.clone(), data.clone(), bytes.clone()], Some(&related), Some(&bytes), Some(&related));
    check(&[data.clone(), bytes.clone()], Some(&data), Some(&bytes), Some(&data));
    check(std::slice::from_ref(&bytes), None, Some(&bytes), Some(&bytes));
    check(std::slice::from_ref(&data), Some(&data), None, Some(&data));
    assert_eq!(pick_shape(Reader::Json, &[]), None);
}

// Proves: SY-13 (the reader's side)
#[test]
fn a_timeline_is_read_as_json_although_bytes_spell_the_same() {
    let first = genesis("doc", Default::default(), Relations::new(), stamp(0), &uuid(1));
    let text = first.data_text().unwrap().to_owned();
    let poison = stone("doc", Data::Bytes(Bytes::from(text)), first.relations().clone());
    check(&[first.clone(), poison.clone()], Some(&first), Some(&poison), Some(&first));
}
