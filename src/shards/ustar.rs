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

/// What a header announces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Header {
    /// A zero block: the end of the archive.
    End,
    /// A regular file.
    File {
        /// Prefix and name as they stand there: not to be trusted.
        name: String,
        /// Bytes of content.
        size: u64,
    },
    /// PAX records for the next member, or for all that follow.
    Pax {
        /// Bytes of records.
        size: u64,
        /// Whether they are for all members that follow.
        global: bool,
    },
}

impl Header {
    /// Parses a block; the error says what is wrong with it. Links, devices, folders and long GNU names are errors.
    pub fn parse(block: &[u8; BLOCK]) -> Result<Header, String> {
        if block.iter().all(|&byte| byte == 0) {
            return Ok(Header::End);
        }
        if !block[257..].starts_with(b"ustar") {
            return Err("not a header of a ustar archive".into());
        }
        if octal(&block[148..156]) != Some(u64::from(checksum(block))) {
            return Err("the checksum of a header is wrong".into());
        }
        let name = match (text(&block[345..500]), text(&block[..100])) {
            // GNU archives keep times where POSIX ones have the prefix.
            (Some(prefix), Some(name)) if !prefix.is_empty() && block[263..265] == *b"00" => Some(format!("{prefix}/{name}")),
            (_, name) => name.map(str::to_string),
        };
        let name = name.ok_or("a name that is not UTF-8")?;
        let size = octal(&block[124..136]).ok_or_else(|| format!("{name:?}: the size is not an octal number"))?;
        match block[156] {
            b'0' | 0 => Ok(Header::File { name, size }),
            b'x' => Ok(Header::Pax { size, global: false }),
            b'g' => Ok(Header::Pax { size, global: true }),
            b'L' | b'K' => Err("a name of more than 100 bytes".into()),
            kind => Err(format!("{name:?} is not a regular file (type {:?})", char::from(kind))),
        }
    }
}

/// A field up to its first NUL.
fn text(field: &[u8]) -> Option<&str> {
    std::str::from_utf8(field.split(|&byte| byte == 0).next().unwrap_or_default()).ok()
}

/// A number in octal digits, with spaces before and NUL or spaces behind.
fn octal(field: &[u8]) -> Option<u64> {
    let digits = text(field)?.trim_matches(' ');
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    u64::from_str_radix(digits, 8).ok()
}

/// What PAX records can say about the next member, as far as shards care.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Pax {
    /// Replaces the name of the header.
    pub path: Option<String>,
    /// Must agree with the size in the header: programs that believe one or the other would see different members.
    pub size: Option<u64>,
}

impl Pax {
    /// Parses `LENGTH KEY=VALUE\n` records. Sparse files are an error; times, owners and comments are skipped.
    pub fn parse(mut records: &[u8]) -> Result<Pax, String> {
        const MALFORMED: &str = "malformed PAX records";
        let mut pax = Pax::default();
        while !records.is_empty() {
            let space = records.iter().position(|&byte| byte == b' ').ok_or(MALFORMED)?;
            let length: usize = text(&records[..space]).and_then(|digits| digits.parse().ok()).ok_or(MALFORMED)?;
            let record = records.get(space + 1..length).ok_or(MALFORMED)?;
            records = &records[length..];
            let record = std::str::from_utf8(record).ok().and_then(|record| record.strip_suffix('\n')).ok_or(MALFORMED)?;
            match record.split_once('=').ok_or(MALFORMED)? {
                ("path", path) => pax.path = Some(path.to_string()),
                ("size", size) => pax.size = Some(size.parse().map_err(|_| MALFORMED)?),
                (key, _) if key.starts_with("GNU.sparse") => return Err("a sparse file".into()),
                _ => {}
            }
        }
        Ok(pax)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tar_crate_reads_what_is_written() {
        let mut archive = Vec::new();
        let contents: [(&str, Vec<u8>); 4] =
            [("a.txt", vec![]), ("b.jpg", vec![7; 512]), ("c.json", vec![1; 513]), (&"n".repeat(100), b"x".to_vec())];
        for (name, content) in &contents {
            assert!(append_member(&mut archive, name, content));
        }
        archive.extend_from_slice(&END);
        assert_eq!(archive.len() % BLOCK, 0);
        let mut reader = tar::Archive::new(archive.as_slice());
        for (entry, (name, content)) in reader.entries().unwrap().zip(&contents) {
            let mut entry = entry.unwrap();
            let header = entry.header().clone();
            assert_eq!(entry.path().unwrap().to_str(), Some(*name));
            assert_eq!((header.mode().unwrap(), header.uid().unwrap(), header.gid().unwrap()), (0o644, 0, 0));
            assert_eq!((header.mtime().unwrap(), header.entry_type().is_file()), (0, true));
            let mut read = Vec::new();
            std::io::Read::read_to_end(&mut entry, &mut read).unwrap();
            assert_eq!(&read, content);
        }
        assert_eq!(tar::Archive::new(archive.as_slice()).entries().unwrap().count(), contents.len());
    }

    #[test]
    fn headers_come_back_and_damage_is_seen() {
        let block = header("00000001.jpg", 12345);
        assert_eq!(Header::parse(&block), Ok(Header::File { name: "00000001.jpg".into(), size: 12345 }));
        assert_eq!(Header::parse(&[0; BLOCK]), Ok(Header::End));
        for at in (0..BLOCK).filter(|at| !(148..156).contains(at)) {
            let mut damaged = block;
            damaged[at] ^= 1;
            assert!(Header::parse(&damaged).is_err(), "byte {at}");
        }
    }

    #[test]
    fn names_and_sizes_that_do_not_fit_are_refused() {
        let mut archive = Vec::new();
        assert!(!append_member(&mut archive, &"n".repeat(101), b""));
        assert!(!append_member(&mut archive, "", b""));
        assert!(archive.is_empty());
    }

    #[test]
    fn pax_records() {
        let parse = |text: &str| Pax::parse(text.as_bytes());
        assert_eq!(parse(""), Ok(Pax::default()));
        assert_eq!(parse("22 mtime=1700000000.5\n"), Ok(Pax::default()));
        assert_eq!(parse("12 path=a.b\n9 size=5\n"), Ok(Pax { path: Some("a.b".into()), size: Some(5) }));
        for bad in [
            "x",
            "5 ab",
            "99 path=a\n",
            "0 path=a\n",
            "2 ",
            "12 path=a.bc",
            "22 GNU.sparse.major=1\n",
            "10 size=-5\n",
            "6 ab\n\n",
        ] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }
}
