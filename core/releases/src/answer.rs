//! What is said about a bump: the signed bytes are put into the answer as they are, never written twice.
//! Spec: gateway §1.3, §2.

use sealtide_ibgib::json::{Js, JsObject, write};
use sealtide_identity::keyring::{KeyVersion, Signed};

use crate::{BumpPlan, Registry, VersionChange};

/// The colour of an event that went as it should.
pub const HSL_NORMAL: &str = "#9D4EDD";

/// A bump that is done, or that was only tried.
#[derive(Clone, Copy, Debug)]
pub struct BumpAnswer<'a> {
    /// What came out.
    pub plan: &'a BumpPlan,
    /// The signature; none for a dry run.
    pub signed: Option<&'a Signed>,
    /// The version that signed, or would have.
    pub key_version: KeyVersion,
    /// Milliseconds since 1970.
    pub timestamp: u64,
    /// The revision that holds now.
    pub revision: u64,
}

impl BumpAnswer<'_> {
    /// The body of the REST answer.
    // Spec: GW-43
    pub fn body(&self) -> String {
        let mut members = vec![r#""success":true"#.to_owned()];
        members.extend(self.first());
        members.extend([format!(r#""hsl":"{HSL_NORMAL}""#), r#""metaHybrid":true"#.to_owned()]);
        members.extend(self.last());
        format!("{{{}}}", members.join(","))
    }

    /// The WebSocket message; `id` is what the client called its request.
    pub fn message(&self, id: Option<&str>) -> String {
        let data: Vec<String> = self.first().into_iter().chain(self.last()).collect();
        format!(
            r#"{{"type":"bump_response","status":"BUMPED","data":{{{}}},"hsl":"{HSL_NORMAL}","threadId":"0x6001","channel":"COMMAND_CHANNEL"{}}}"#,
            data.join(","),
            id_member(id)
        )
    }

    /// What is told to all other sessions.
    pub fn broadcast(&self) -> String {
        format!(
            r#"{{"type":"version_changed","changes":{},"revision":{},"keyVersion":"{}"}}"#,
            changes_text(&self.plan.changes),
            self.revision,
            self.key_version
        )
    }

    fn first(&self) -> Vec<String> {
        let mut members = vec![
            format!(r#""bumped":{}"#, self.plan.bumped),
            format!(r#""changes":{}"#, changes_text(&self.plan.changes)),
        ];
        members.extend(self.signed.map(|signed| format!(r#""signature":"{}""#, signed.text)));
        members.push(format!(r#""keyVersion":"{}""#, self.key_version));
        if let Some(signed) = self.signed {
            members.push(format!(r#""alg":"{}""#, signed.algorithm.name()));
            members.push(format!(r#""kid":"{}""#, signed.kid));
        }
        members.push(format!(r#""timestamp":{}"#, self.timestamp));
        members
    }

    fn last(&self) -> Vec<String> {
        let mut members =
            vec![format!(r#""revision":{}"#, self.revision), format!(r#""dryRun":{}"#, self.signed.is_none())];
        if let Some(wanted) = self.signed.and_then(|signed| signed.instead_of) {
            members.push(format!(r#""requestedKeyVersion":"{wanted}""#));
            members.push(r#""fallback":true"#.to_owned());
        }
        members
    }
}

/// The whole registry as a WebSocket message.
pub fn refresh_text(registry: &Registry, lifecycle: &str, id: Option<&str>) -> String {
    format!(
        r#"{{"type":"refresh_response","entities":{},"lifecycle":{},"hsl":"{HSL_NORMAL}","threadId":"0x6001","channel":"COMMAND_CHANNEL","revision":{}{}}}"#,
        registry.text(),
        text(lifecycle),
        registry.revision(),
        id_member(id)
    )
}

fn changes_text(changes: &[VersionChange]) -> String {
    let change = |change: &VersionChange| {
        let mut object = JsObject::new();
        object.set("entityId", Js::text(&change.entity_id));
        object.set("oldVersion", Js::text(&change.old_version));
        object.set("newVersion", Js::text(&change.new_version));
        object.set("displayName", Js::text(&change.display_name));
        Js::Object(object)
    };
    write(&Js::Array(changes.iter().map(change).collect())).unwrap_or_default()
}

fn id_member(id: Option<&str>) -> String {
    id.map(|id| format!(r#","id":{}"#, text(id))).unwrap_or_default()
}

fn text(words: &str) -> String {
    write(&Js::text(words)).unwrap_or_default()
}
