//! Sign-ins at the door of this home, kept over restarts: a setting with a line `digest ends holder` for each.

use data_encoding::HEXLOWER;
use sealtide_gateway::KeptSignIn;
use sealtide_store::Store;

use crate::known::Known;

const SETTING: &str = "gateway.sign_ins";

/// Those that were kept; what cannot be read is left out, and its browser signs in again.
pub(crate) fn kept_sign_ins(store: &Store) -> Vec<KeptSignIn> {
    let text = Known::of(store).setting(SETTING).unwrap_or_default();
    text.lines().filter_map(read).collect()
}

/// Keeps all, in place of those of before.
pub(crate) fn keep_sign_ins(store: &Store, all: &[KeptSignIn]) {
    let text: String = all.iter().map(write).collect();
    if let Err(error) = Known::of(store).put_setting(SETTING, (!text.is_empty()).then_some(text.as_str())) {
        tracing::warn!(%error, "sign-ins are not kept: who signed in signs in again after a restart");
    }
}

fn write(sign_in: &KeptSignIn) -> String {
    format!("{} {} {}\n", HEXLOWER.encode(&sign_in.digest), sign_in.ends_wall_ms, sign_in.holder)
}

fn read(line: &str) -> Option<KeptSignIn> {
    let (digest, rest) = line.split_once(' ')?;
    let (ends, holder) = rest.split_once(' ')?;
    let digest = HEXLOWER.decode(digest.as_bytes()).ok()?.try_into().ok()?;
    Some(KeptSignIn { digest, holder: holder.to_owned(), ends_wall_ms: ends.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_as_it_was_written() {
        let sign_in = KeptSignIn { digest: [7; 32], holder: "ada of the desk".to_owned(), ends_wall_ms: 5 };
        assert_eq!(read(write(&sign_in).trim_end()), Some(sign_in));
        for bad in ["", "x 1 a", "07 1 a", "0707 x a"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
