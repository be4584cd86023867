//! The two halves of credit: what this end grants, and what it was granted. Spec: link C.9.3.

/// What this end grants: a limit is the bytes given back so far plus the window.
#[derive(Debug)]
pub(super) struct Window {
    window: u64,
    limit: u64,
    received: u64,
    returned: u64,
}

impl Window {
    /// A window whose first limit the peer knows already.
    pub(super) fn new(window: u64) -> Self {
        Self { window, limit: window, received: 0, returned: 0 }
    }

    /// Makes the window larger; the CREDIT that says so is then `due`.
    pub(super) fn raise(&mut self, window: u64) {
        self.window = self.window.max(window);
    }

    /// Counts received bytes; the limit that they exceed is the error.
    pub(super) fn receive(&mut self, bytes: u64) -> Result<(), Exceeded> {
        let received = self.received.saturating_add(bytes);
        if received > self.limit {
            return Err(Exceeded { received, limit: self.limit });
        }
        self.received = received;
        Ok(())
    }

    /// Gives bytes back; more than were received are not taken.
    pub(super) fn give_back(&mut self, bytes: u64) {
        self.returned = self.returned.saturating_add(bytes).min(self.received);
    }

    /// The limit to announce, when bytes were given back since the last one and less than half the window is unspent.
    pub(super) fn due(&self) -> Option<u64> {
        let limit = self.returned.saturating_add(self.window);
        let unspent = self.limit - self.received;
        (limit > self.limit && unspent < self.window.div_ceil(2)).then_some(limit)
    }

    /// The limit of `due` has been put into a frame.
    pub(super) fn announced(&mut self, limit: u64) {
        self.limit = self.limit.max(limit);
    }

    /// Bytes received and not given back.
    pub(super) fn held(&self) -> u64 {
        self.received - self.returned
    }

    pub(super) fn window(&self) -> u64 {
        self.window
    }
}

/// The peer sent more than it was granted.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Exceeded {
    pub(super) received: u64,
    pub(super) limit: u64,
}

/// What this end was granted.
#[derive(Debug)]
pub(super) struct Allowance {
    limit: u64,
    sent: u64,
}

impl Allowance {
    pub(super) fn new(limit: u64) -> Self {
        Self { limit, sent: 0 }
    }

    /// Takes a new limit; limits never fall.
    pub(super) fn raise(&mut self, limit: u64) {
        self.limit = self.limit.max(limit);
    }

    /// Bytes that may be sent now.
    pub(super) fn left(&self) -> u64 {
        self.limit - self.sent
    }

    /// Counts bytes, at most what is `left`.
    pub(super) fn spend(&mut self, bytes: u64) {
        debug_assert!(bytes <= self.left());
        self.sent += bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credit_is_due_below_half_a_window_and_only_for_bytes_given_back() {
        let mut window = Window::new(100);
        window.receive(50).unwrap();
        window.give_back(50);
        assert_eq!(window.due(), None, "half the window is unspent");
        window.receive(1).unwrap();
        assert_eq!(window.due(), Some(150));
        window.announced(150);
        assert_eq!(window.due(), None);
        assert_eq!(window.receive(100), Err(Exceeded { received: 151, limit: 150 }));
        window.receive(99).unwrap();
        assert_eq!(window.due(), None, "nothing was given back since");
        window.give_back(1_000);
        assert_eq!((window.held(), window.due()), (0, Some(250)));
    }

    #[test]
    fn a_raised_window_is_announced_at_once() {
        let mut window = Window::new(256 << 10);
        window.raise(4 << 20);
        assert_eq!(window.due(), Some(4 << 20));
        let mut one = Window::new(1);
        one.receive(1).unwrap();
        one.give_back(1);
        assert_eq!(one.due(), Some(2), "the smallest window moves too");
    }
}
