//! The one tar of a list of files: its headers, its padding, its end.

use std::io;

use tar::{Builder, EntryType, Header};

/// Bytes of a block of a tar.
const BLOCK: u64 = 512;
/// What stands behind the last file: two empty blocks.
pub(crate) const END: [u8; 2 * BLOCK as usize] = [0; 2 * BLOCK as usize];

/// What stands before the bytes of a file: its header, and before that its name where it is long. Owner 0, no names, time 0.
pub(crate) fn header(path: &str, size: u64, executable: bool) -> io::Result<Vec<u8>> {
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::Regular);
    header.set_mode(if executable { 0o755 } else { 0o644 });
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size);
    let mut builder = Builder::new(Vec::new());
    builder.append_data(&mut header, path, io::empty())?;
    // The builder ends the archive here; the bytes of the file come first.
    let mut bytes = builder.into_inner()?;
    bytes.truncate(bytes.len() - END.len());
    Ok(bytes)
}

/// Zero bytes behind a file, so that the next header begins with a block.
pub(crate) fn padding(size: u64) -> &'static [u8] {
    let over = size % BLOCK;
    let missing = if over == 0 { 0 } else { BLOCK - over };
    &END[..missing as usize]
}
