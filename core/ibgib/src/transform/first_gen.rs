//! firstGen: fork, then data, then relations, in one call. Spec: ibgib §3.5.

use super::{Surroundings, TransformError, Transformed, fork, mut8, rel8};
use crate::json::{Js, JsObject};

/// Makes the first frames of something new from `parent` (the root `ib^gib` when `None`). Options: `ib`, `data`,
/// `rel8ns`, `tjp`, `dna`, `linkedRel8ns`, `noTimestamp`, `nCounter`.
///
/// # Errors
/// [`TransformError`] of the step that fails; nothing is left behind.
// Spec: SY-6
pub fn first_gen(
    parent: Option<&JsObject>,
    opts: &JsObject,
    surroundings: &mut Surroundings<'_>,
) -> Result<Transformed, TransformError> {
    let mut root = JsObject::new();
    root.set("ib", Js::text("ib"));
    root.set("gib", Js::text("gib"));
    let step = |own: &[(&str, &Js)]| {
        let mut step_opts = JsObject::new();
        let common = ["dna", "linkedRel8ns", "noTimestamp", "nCounter"].map(|name| (name, opts.named(name)));
        for (name, value) in own.iter().chain(&common).filter(|(_, value)| **value != Js::Undefined) {
            step_opts.set(*name, (*value).clone());
        }
        step_opts
    };
    let fork_opts = step(&[("destIb", opts.named("ib")), ("tjp", opts.named("tjp"))]);
    let mut made = fork(Some(parent.unwrap_or(&root)), &fork_opts, surroundings)?;
    if opts.named("data").truthy() {
        let next = mut8(Some(&made.new), &step(&[("dataToAddOrPatch", opts.named("data"))]), surroundings)?;
        made = followed_by(made, next);
    }
    if opts.named("rel8ns").truthy() {
        let next = rel8(Some(&made.new), &step(&[("rel8nsToAddByAddr", opts.named("rel8ns"))]), surroundings)?;
        made = followed_by(made, next);
    }
    Ok(made)
}

fn followed_by(mut made: Transformed, next: Transformed) -> Transformed {
    made.intermediate.push(made.new);
    made.dnas.extend(next.dnas);
    Transformed { new: next.new, ..made }
}
