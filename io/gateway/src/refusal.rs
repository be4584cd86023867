//! What a refused request is told: a status, one line, a code. Never more. Spec: gateway §1.2, §3.

/// Why a request was refused, as callers see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// Another method than the path takes.
    Method,
    /// Not HTTP/1.1.
    HttpVersion,
    /// An upgrade request with a body.
    Body,
    /// A foreign, missing or doubled `Host`, or two kinds of forwarding at once.
    HostMismatch,
    /// No `Upgrade: websocket`.
    UpgradeRequired,
    /// Not version 13.
    WsVersion,
    /// A key that is none.
    WsKey,
    /// A page that may not connect.
    OriginDenied,
    /// An unknown credential, or none where one is needed.
    Unauthenticated,
    /// A role that is not enough.
    Forbidden,
    /// Too often.
    RateLimited,
    /// No place left.
    Overload,
    /// A malformed offer, or nothing in it that is spoken here.
    Subprotocol,
    /// Nothing in it that the keys can keep.
    Deprecated,
    /// A token that is missing, wrong, used or somebody else's.
    CsrfInvalid,
    /// A body that is no JSON.
    InvalidJson,
    /// An unknown scope.
    InvalidScope,
    /// A member that is unknown or of another type.
    InvalidField,
    /// A version that cannot be raised.
    InvalidVersion,
    /// An entity that is not there.
    EntityNotFound,
    /// A path that is not there.
    NotFound,
    /// Not `application/json`.
    UnsupportedMedia,
    /// A body above its limit.
    PayloadTooLarge,
    /// Another state than the request expects.
    StateConflict,
    /// No key can sign.
    KeyUnavailable,
    /// The node that writes the registry cannot be reached.
    WriterUnreachable,
    /// The store failed.
    StorageError,
    /// A bundle past its date.
    BundleExpired,
    /// A bundle that does not verify.
    BundleInvalid,
    /// An unknown type of message.
    UnknownType,
}

impl Code {
    /// Its text.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Method => "METHOD",
            Self::HttpVersion => "HTTP_VERSION",
            Self::Body => "BODY",
            Self::HostMismatch => "HOST_MISMATCH",
            Self::UpgradeRequired => "UPGRADE_REQUIRED",
            Self::WsVersion => "WS_VERSION",
            Self::WsKey => "WS_KEY",
            Self::OriginDenied => "ORIGIN_DENIED",
            Self::Unauthenticated => "UNAUTHENTICATED",
            Self::Forbidden => "FORBIDDEN",
            Self::RateLimited => "RATE_LIMITED",
            Self::Overload => "OVERLOAD",
            Self::Subprotocol => "SUBPROTOCOL",
            Self::Deprecated => "SUBPROTOCOL_DEPRECATED",
            Self::CsrfInvalid => "CSRF_INVALID",
            Self::InvalidJson => "INVALID_JSON",
            Self::InvalidScope => "INVALID_SCOPE",
            Self::InvalidField => "INVALID_FIELD",
            Self::InvalidVersion => "INVALID_VERSION",
            Self::EntityNotFound => "ENTITY_NOT_FOUND",
            Self::NotFound => "NOT_FOUND",
            Self::UnsupportedMedia => "UNSUPPORTED_MEDIA",
            Self::PayloadTooLarge => "PAYLOAD_TOO_LARGE",
            Self::StateConflict => "STATE_CONFLICT",
            Self::KeyUnavailable => "KEY_UNAVAILABLE",
            Self::WriterUnreachable => "WRITER_UNREACHABLE",
            Self::StorageError => "STORAGE_ERROR",
            Self::BundleExpired => "BUNDLE_EXPIRED",
            Self::BundleInvalid => "BUNDLE_INVALID",
            Self::UnknownType => "UNKNOWN_TYPE",
        }
    }

    /// The HTTP status.
    pub const fn status(self) -> u16 {
        match self {
            Self::Method => 405,
            Self::HttpVersion => 505,
            Self::UpgradeRequired | Self::WsVersion => 426,
            Self::Unauthenticated => 401,
            Self::OriginDenied | Self::Forbidden | Self::Deprecated | Self::CsrfInvalid => 403,
            Self::EntityNotFound | Self::NotFound => 404,
            Self::StateConflict => 409,
            Self::BundleExpired => 410,
            Self::PayloadTooLarge => 413,
            Self::UnsupportedMedia => 415,
            Self::BundleInvalid => 422,
            Self::RateLimited => 429,
            Self::Overload | Self::KeyUnavailable | Self::WriterUnreachable | Self::StorageError => 503,
            Self::Body
            | Self::HostMismatch
            | Self::WsKey
            | Self::Subprotocol
            | Self::InvalidJson
            | Self::InvalidScope
            | Self::InvalidField
            | Self::InvalidVersion
            | Self::UnknownType => 400,
        }
    }

    /// The one line that is said.
    pub const fn line(self) -> &'static str {
        match self {
            Self::Method => "Method not allowed",
            Self::HttpVersion => "HTTP/1.1 required",
            Self::Body => "An upgrade has no body",
            Self::HostMismatch => "Host Header Mismatch [HSL:#FF4500]",
            Self::UpgradeRequired => "Upgrade to websocket required",
            Self::WsVersion => "WebSocket version 13 required",
            Self::WsKey => "Invalid WS-Key Format [HSL:#FF0000]",
            Self::OriginDenied => "Origin Denied [HSL:#FF4500]",
            Self::Unauthenticated => "Unauthenticated",
            Self::Forbidden => "Forbidden",
            Self::RateLimited => "Too many requests",
            Self::Overload => "Overloaded, try again later",
            Self::Subprotocol => "Subprotocol Mismatch: No supported protocol",
            Self::Deprecated => "Deprecate V1 [HSL:#FF4500]",
            Self::CsrfInvalid => "WS CSRF Invalid [HSL:#FF4500]",
            Self::InvalidJson => "The text is no JSON",
            Self::InvalidScope => "Scope must be major, minor or patch",
            Self::InvalidField => "A member is unknown or of another type",
            Self::InvalidVersion => "A version cannot be raised",
            Self::EntityNotFound => "No such entity",
            Self::NotFound => "Not found",
            Self::UnsupportedMedia => "The body must be application/json",
            Self::PayloadTooLarge => "The body is too large",
            Self::StateConflict => "The state is another than expected",
            Self::KeyUnavailable => "No key can sign this",
            Self::WriterUnreachable => "The writer of the registry cannot be reached",
            Self::StorageError => "The store failed",
            Self::BundleExpired => "The bundle has expired",
            Self::BundleInvalid => "The bundle does not verify",
            Self::UnknownType => "Unknown type of message",
        }
    }

    /// A header that says how to do better.
    pub const fn hint(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::UpgradeRequired => Some(("upgrade", "websocket")),
            Self::WsVersion => Some(("sec-websocket-version", "13")),
            Self::RateLimited => Some(("retry-after", "1")),
            Self::Overload | Self::WriterUnreachable => Some(("retry-after", "5")),
            Self::Unauthenticated => Some(("www-authenticate", "Bearer")),
            _ => None,
        }
    }

    /// The colour of the event: refused by policy, or a fault.
    pub const fn hsl(self) -> &'static str {
        match self {
            Self::KeyUnavailable | Self::WriterUnreachable | Self::StorageError | Self::WsKey => "#FF0000",
            _ => "#FF4500",
        }
    }
}
