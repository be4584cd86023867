//! One event on its way into the audit.

/// The colour of what went as it should.
const HSL_NORMAL: &str = "#9D4EDD";

/// What one line of the audit says beside its envelope. Spec: gateway §10.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditEvent {
    pub(super) name: String,
    pub(super) hsl: &'static str,
    pub(super) is_durable: bool,
    pub(super) members: Vec<(String, String)>,
}

impl AuditEvent {
    /// An event with its colour and no members yet.
    pub fn new(name: impl Into<String>, hsl: &'static str) -> Self {
        Self { name: name.into(), hsl, is_durable: false, members: Vec::new() }
    }

    /// An event that went as it should.
    pub fn normal(name: impl Into<String>) -> Self {
        Self::new(name, HSL_NORMAL)
    }

    /// What happened at the gateway door.
    pub(crate) fn of_door(event: sealtide_gateway::DoorEvent) -> Self {
        let told =
            event.members.iter().fold(Self::new(event.name, event.hsl), |told, (name, value)| told.member(name, value));
        event.request_id.into_iter().fold(told, |told, id| told.member("[REQUEST_ID]", id))
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Adds a member. Its value is cut and escaped when it is written; a name of the envelope is not overwritten.
    #[must_use]
    pub fn member(mut self, name: &str, value: impl ToString) -> Self {
        self.members.push((name.to_owned(), value.to_string()));
        self
    }

    /// The line waits for the disk: an action of an admin.
    #[must_use]
    pub fn durable(mut self) -> Self {
        self.is_durable = true;
        self
    }
}
