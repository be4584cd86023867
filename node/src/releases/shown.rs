//! The trust for an app as this node would have it: what it keeps, or what its space shows. Nothing is pinned by it.

use sealtide_releases::bundle::{AppName, Trust};

use super::{App, Memory, untrusted};
use crate::failure::Failure;
use crate::node::Node;

/// The trust for an app, up to date.
///
/// # Errors
/// Exit 2 for an app that is not here, 5 when what is known of its keys does not go together.
pub(crate) fn shown_trust(node: &Node, name: &AppName) -> Result<Trust, Failure> {
    let none = || Failure::usage("no_app", format!("no app named {name} here")).hint("`sealtide release list`");
    let app = App::find(node, name)?.ok_or_else(none)?;
    let (what, ledgers) = (format!("the key ledger of {name}"), app.ledgers());
    let mut trust = match Memory::of(node.known(), &app.registry).trust()? {
        Some(trust) => trust,
        None => {
            let first = match ledgers.as_slice() {
                [only] => only.first(),
                _ => None,
            };
            Trust::of_publisher(&app.registry, first.ok_or_else(none)?, None)
                .map_err(|error| untrusted(&what, &error))?
        }
    };
    if let [only] = ledgers.as_slice() {
        trust.follow(only).map_err(|error| untrusted(&what, &error))?;
    }
    Ok(trust)
}
