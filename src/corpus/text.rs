//! UTF-8 text from a stream: the byte-order mark removed, every byte checked, and a fault reported with its line.

use std::fmt;
use std::io::{self, BufRead, BufReader, Chain, Cursor, Read};
use std::path::Path;

use super::MAX_FILE_BYTES;
use crate::{Error, Result};

/// How much of a file is looked at to find its format.
const HEAD_BYTES: u64 = 64 << 10;

/// The longest line, or csv record, in bytes. Longer than the longest caption: a record has other cells too.
pub(super) const MAX_LINE_BYTES: usize = 1 << 20;

/// Starts of files that are not text, with what to do about each.
const NOT_TEXT: [(&[u8], &str); 8] = [
    (b"\x1f\x8b", "is compressed with gzip: decompress it first"),
    (b"\x28\xb5\x2f\xfd", "is compressed with zstd: decompress it first"),
    (b"BZh", "is compressed with bzip2: decompress it first"),
    (b"\xfd7zXZ", "is compressed with xz: decompress it first"),
    (b"PK\x03\x04", "is a zip archive: extract the caption file first"),
    (b"PAR1", "is a parquet file: export its caption column as jsonl or csv first"),
    (b"\xff\xfe", "looks like UTF-16: convert it to UTF-8 first"),
    (b"\xfe\xff", "looks like UTF-16: convert it to UTF-8 first"),
];

/// The bytes of a text file, each checked.
pub(super) type Checked<R> = BufReader<Utf8<Chain<Cursor<Vec<u8>>, R>>>;

/// A text file that is being read.
pub(super) struct TextReader<'p, R> {
    path: &'p Path,
    head: Vec<u8>,
    source: Checked<R>,
    /// Lines returned so far.
    lines: u64,
    buffer: Vec<u8>,
}

impl<'p, R: Read> TextReader<'p, R> {
    /// Reads the head of the file and refuses what is not text at all.
    pub fn start(mut source: R, path: &'p Path) -> Result<TextReader<'p, R>> {
        let mut head = Vec::new();
        (&mut source).take(HEAD_BYTES).read_to_end(&mut head).map_err(Error::io("read", path))?;
        if let Some((_, advice)) = NOT_TEXT.iter().find(|(magic, _)| head.starts_with(magic)) {
            return Err(Error::format(path, "", *advice));
        }
        let mark = if head.starts_with("\u{feff}".as_bytes()) { 3 } else { 0 };
        head.drain(..mark);
        let checked = Utf8 {
            source: Cursor::new(head.clone()).chain(source),
            total: 0,
            line: 1,
            column: mark as u64,
            partial: [0; 4],
            partial_len: 0,
        };
        Ok(TextReader { path, head, source: BufReader::new(checked), lines: 0, buffer: Vec::new() })
    }

    /// The file's first bytes, without a byte-order mark; not yet checked to be UTF-8.
    pub fn head(&self) -> &[u8] {
        &self.head
    }

    /// The file, for messages.
    pub fn path(&self) -> &'p Path {
        self.path
    }

    /// All the text, for a parser that reads it itself; its errors go through [`read_error`].
    pub fn into_source(self) -> Checked<R> {
        self.source
    }

    /// The number, from 1, of the next line, and the line without its `\n` or `\r\n`; `None` at the end.
    pub fn next_line(&mut self) -> Result<Option<(u64, &str)>> {
        self.buffer.clear();
        let limit = MAX_LINE_BYTES as u64 + 2;
        let read = self.source.by_ref().take(limit).read_until(b'\n', &mut self.buffer);
        if read.map_err(|cause| read_error(self.path, cause))? == 0 {
            return Ok(None);
        }
        self.lines += 1;
        if self.buffer.last() == Some(&b'\n') {
            self.buffer.pop();
            if self.buffer.last() == Some(&b'\r') {
                self.buffer.pop();
            }
        }
        if self.buffer.len() > MAX_LINE_BYTES {
            let message = "the line is longer than 1 MiB: not a file with a caption on each line";
            return Err(line_error(self.path, self.lines, message));
        }
        let line = std::str::from_utf8(&self.buffer).map_err(|cause| line_error(self.path, self.lines, cause.to_string()))?;
        Ok(Some((self.lines, line)))
    }
}

/// An error at a line, counted from 1.
pub(super) fn line_error(path: &Path, line: u64, message: impl Into<String>) -> Error {
    Error::format(path, format!("line {line}"), message)
}

/// The error of a failed read: a fault in the text if it was one, else the system's.
pub(super) fn read_error(path: &Path, cause: io::Error) -> Error {
    match cause.get_ref().and_then(|inner| inner.downcast_ref::<Fault>()) {
        Some(fault) => Error::format(path, fault.place.clone(), fault.message.clone()),
        None => Error::io("read", path)(cause),
    }
}

/// What is wrong with the text, and where; travels inside an [`io::Error`].
#[derive(Debug)]
struct Fault {
    place: String,
    message: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)
    }
}

impl std::error::Error for Fault {}

/// Passes bytes on and fails at the first that is not UTF-8. A reader may see the beginning of a broken character before that,
/// but never a whole line or string with one in it.
pub(super) struct Utf8<R> {
    source: R,
    /// Bytes so far.
    total: u64,
    /// Line of the next byte to check, from 1, and the bytes before it in that line.
    line: u64,
    column: u64,
    /// A character whose last bytes have not been read yet.
    partial: [u8; 4],
    partial_len: usize,
}

impl<R: Read> Read for Utf8<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.source.read(buffer)?;
        if read == 0 && self.partial_len > 0 && !buffer.is_empty() {
            return Err(self.fault("the file ends in the middle of a UTF-8 character: it is cut off".into()));
        }
        self.total += read as u64;
        if self.total > MAX_FILE_BYTES {
            return Err(self.fault("the file is larger than 4 GiB: split it".into()));
        }
        self.check(&buffer[..read])?;
        Ok(read)
    }
}

impl<R> Utf8<R> {
    fn check(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut rest = bytes;
        while self.partial_len > 0
            && let Some((first, others)) = rest.split_first()
        {
            self.partial[self.partial_len] = *first;
            self.partial_len += 1;
            rest = others;
            match std::str::from_utf8(&self.partial[..self.partial_len]) {
                Ok(_) => {
                    self.column += self.partial_len as u64;
                    self.partial_len = 0;
                }
                Err(cause) if cause.error_len().is_none() => {}
                Err(_) => return Err(self.invalid(self.partial[0])),
            }
        }
        let Err(cause) = std::str::from_utf8(rest) else {
            self.advance(rest);
            return Ok(());
        };
        let (valid, others) = rest.split_at(cause.valid_up_to());
        self.advance(valid);
        if cause.error_len().is_some() {
            return Err(self.invalid(others[0]));
        }
        // At most 3 bytes: a fourth would complete the character or make it invalid.
        self.partial[..others.len()].copy_from_slice(others);
        self.partial_len = others.len();
        Ok(())
    }

    fn advance(&mut self, bytes: &[u8]) {
        let Some(last) = bytes.iter().rposition(|byte| *byte == b'\n') else {
            self.column += bytes.len() as u64;
            return;
        };
        self.line += bytes.iter().filter(|byte| **byte == b'\n').count() as u64;
        self.column = (bytes.len() - last - 1) as u64;
    }

    fn invalid(&self, byte: u8) -> io::Error {
        self.fault(format!("the byte 0x{byte:02x} is not valid UTF-8: convert the file to UTF-8, for example with iconv"))
    }

    fn fault(&self, message: String) -> io::Error {
        let place = format!("line {}, byte {}", self.line, self.column + 1);
        io::Error::new(io::ErrorKind::InvalidData, Fault { place, message })
    }
}
