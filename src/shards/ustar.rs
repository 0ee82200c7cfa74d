//! The ustar format (POSIX.1-1988): 512-byte headers, content padded to 512 bytes, two zero blocks at the end.
//!
//! Only what shards need: regular files with short names. Headers are written from name and size alone, so the bytes of an
//! archive depend on nothing but its members.

/// Headers and contents are multiples of this.
pub(super) const BLOCK: usize = 512;

/// The end of an archive.
pub(super) const END: [u8; 2 * BLOCK] = [0; 2 * BLOCK];

/// Longest name that fits a header without its prefix field.
pub(super) const MAX_NAME: usize = 100;

/// Largest size that fits 11 octal digits.
pub(super) const MAX_SIZE: u64 = (1 << 33) - 1;

/// Appends a member to `archive`: header, content, padding. False, and nothing appended, if name or content is too long.
#[must_use]
pub(super) fn append_member(archive: &mut Vec<u8>, name: &str, content: &[u8]) -> bool {
    let size = content.len() as u64;
    if name.is_empty() || name.len() > MAX_NAME || size > MAX_SIZE {
        return false;
    }
    archive.extend_from_slice(&header(name, size));
    archive.extend_from_slice(content);
    archive.resize(archive.len().next_multiple_of(BLOCK), 0);
    true
}

/// Header of a regular file of `size` bytes: mode 0644, owner 0, time 0. The caller has checked the bounds.
fn header(name: &str, size: u64) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    let mut put = |at: usize, text: &[u8]| block[at..at + text.len()].copy_from_slice(text);
    put(0, name.as_bytes());
    put(100, b"0000644\0"); // mode
    put(108, b"0000000\0"); // owner
    put(116, b"0000000\0"); // group
    put(124, format!("{size:011o}\0").as_bytes());
    put(136, b"00000000000\0"); // modification time
    put(148, b"        "); // the checksum counts as spaces in its own sum
    put(156, b"0"); // regular file
    put(257, b"ustar\x0000"); // magic and version
    put(329, b"0000000\0"); // device numbers
    put(337, b"0000000\0");
    let sum = format!("{:06o}\0 ", checksum(&block));
    block[148..156].copy_from_slice(sum.as_bytes());
    block
}

/// Sum of all bytes, those of the checksum field taken as spaces.
fn checksum(block: &[u8; BLOCK]) -> u32 {
    block.iter().enumerate().map(|(i, &byte)| if (148..156).contains(&i) { 32 } else { u32::from(byte) }).sum()
}
