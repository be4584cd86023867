//! What several test files share.

/// Multiplies the size of long tests: `SEALTIDE_TEST_SCALE`, 1 when unset.
pub(crate) fn scale() -> u32 {
    #[expect(clippy::disallowed_methods, reason = "a test takes its size from the environment")]
    let scale = std::env::var("SEALTIDE_TEST_SCALE");
    scale.ok().and_then(|scale| scale.parse().ok()).unwrap_or(1)
}
