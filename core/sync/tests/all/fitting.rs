//! What fits into a space is what a peer would take.

use sealtide_ibgib::{Data, Verified};
use sealtide_sync::{Fitting, Misfit, SagaOutcome, SpaceView};

use crate::support::{Author, MemSpace, Pair, stone};

/// The same frame under another number.
fn numbered(frame: &Verified, n: u64) -> Verified {
    let mut data = frame.object().unwrap();
    data.insert("n".into(), n.into());
    Verified::make(frame.address().ib(), Data::Json(data.into()), frame.relations().clone()).unwrap()
}

/// Whether a saga takes a space with these records to a node that has none of them.
fn is_taken(space: &MemSpace) -> bool {
    let [_, there] = Pair::new(space.clone(), MemSpace::default()).sync();
    matches!(there, Some(SagaOutcome::Committed { .. }))
}

// Proves: SY-14, SY-51
#[test]
fn what_fits_is_what_a_peer_takes() {
    let mut author = Author::new(77);
    let frames = author.timeline(4);
    let other = author.first("other");
    let named = author.first_with("doc", "names it", &[("see", &other)]);
    let on_it = author.edit(&named, "next");
    let (v2, v3) = (&frames[2], &frames[3]);
    let counter = |of: &Verified| Err(Misfit::Counter(of.address().clone()));
    let missing = |by: &Verified, link: &Verified| {
        Err(Misfit::Missing { record: by.address().clone(), link: link.address().clone() })
    };
    let (high, low) = (numbered(v2, 7), numbered(v2, 1));
    let on_high = author.edit(&high, "on it");
    let begun_late = numbered(&other, 3);
    let stone = stone("stone", &[("see", &named)]);
    let begun = &frames[..2];
    for (what, before, new, expected) in [
        ("the next", begun, vec![v2.clone(), v3.clone()], Ok(())),
        ("in any order", begun, vec![v3.clone(), v2.clone()], Ok(())),
        ("two on one", begun, vec![v2.clone(), author.edit(&frames[1], "beside")], Ok(())),
        ("a whole one", begun, vec![on_it.clone(), other.clone(), named.clone(), stone.clone()], Ok(())),
        ("without what it names", begun, vec![named.clone()], missing(&named, &other)),
        ("a stone without what it names", begun, vec![stone.clone()], missing(&stone, &named)),
        ("without the frame before", begun, vec![v3.clone()], missing(v3, v2)),
        ("without the first", &[], vec![frames[1].clone()], missing(&frames[1], &frames[0])),
        ("a number too high", begun, vec![high.clone()], counter(&high)),
        ("a number too low", begun, vec![low.clone()], counter(&low)),
        ("a number too high among others", &[], [begun, std::slice::from_ref(&high)].concat(), counter(&high)),
        ("the wrong one later", begun, vec![on_high.clone(), low.clone()], counter(&low)),
        ("a first that is the third", begun, vec![begun_late.clone()], counter(&begun_late)),
    ] {
        let mut space = MemSpace::with(before);
        let view: Option<&dyn SpaceView> = (!before.is_empty()).then_some(&space);
        assert_eq!(Fitting::check(view, &new), expected, "{what}");
        space.put(&new);
        assert_eq!(is_taken(&space), expected.is_ok(), "{what}");
    }
}

#[test]
fn what_comes_later_is_waited_for_and_has_the_number_that_is_expected() {
    let mut author = Author::new(78);
    let frames = author.timeline(3);
    let space = MemSpace::with(&frames[..1]);
    let mut fitting = Fitting::new(Some(&space));
    fitting.add(&frames[2]).unwrap();
    let lacks = Misfit::Missing { record: frames[2].address().clone(), link: frames[1].address().clone() };
    assert_eq!(fitting.missing(), Err(lacks));
    fitting.add(&frames[1]).unwrap();
    assert_eq!(fitting.missing(), Ok(()));
    // What is in the space need not be remembered, and what is not is.
    fitting.committed();
    assert_eq!(fitting.add(&author.edit(&frames[2], "next")), Ok(()));
    // A child that came first with a number that its parent does not bear out.
    let mut fitting = Fitting::new(Some(&space));
    let wrong = numbered(&frames[2], 5);
    fitting.add(&wrong).unwrap();
    assert_eq!(fitting.add(&frames[1]), Err(Misfit::Counter(wrong.address().clone())));
}

#[test]
fn a_frame_of_the_space_is_found_by_its_key() {
    let mut author = Author::new(79);
    let frames = author.timeline(40);
    let space = MemSpace::with(&frames);
    let next = author.edit(&frames[39], "next");
    space.reads.set(0);
    assert_eq!(Fitting::check(Some(&space), &[next]), Ok(()));
    assert_eq!(space.reads.get(), 0);
}
