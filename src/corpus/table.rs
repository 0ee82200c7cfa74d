//! Text files of lines and cells: txt, tsv, csv.

use std::io::Read;

use super::text::{MAX_LINE_BYTES, TextReader, line_error};
use super::{Collector, Origin};
use crate::{Error, Result};

/// Names of a caption's column or key, the likeliest first.
pub(super) const CAPTION_NAMES: [&str; 3] = ["caption", "text", "prediction"];

/// One caption a line.
pub(super) fn read_txt<R: Read>(mut text: TextReader<R>, captions: &mut Collector) -> Result<()> {
    while let Some((line, caption)) = text.next_line()? {
        push(captions, line, caption);
    }
    Ok(())
}

fn push(captions: &mut Collector, line: u64, text: &str) {
    captions.push(text, Origin { id: &line.to_string(), image: "", place: &format_args!("line {line}") });
}

/// Cells between tabs; a quote is a character like any other.
pub(super) fn read_tsv<R: Read>(mut text: TextReader<R>, column: Option<&str>, captions: &mut Collector) -> Result<()> {
    let record = |text: &mut TextReader<R>, cells: &mut Vec<String>| {
        let Some((number, line)) = text.next_line()? else { return Ok(None) };
        cells.extend(line.split('\t').map(String::from));
        Ok(Some(number))
    };
    read_table(&mut text, record, column, Layout::FirstColumn, captions)
}

/// Cells between commas, quoted where they hold a comma, a quote or a line break (RFC 4180).
pub(super) fn read_csv<R: Read>(mut text: TextReader<R>, column: Option<&str>, captions: &mut Collector) -> Result<()> {
    read_table(&mut text, csv_record, column, Layout::Header, captions)
}

/// What a table without a known column name is.
#[derive(Clone, Copy)]
enum Layout {
    /// Data from the first line on, the caption first, as in Conceptual Captions.
    FirstColumn,
    /// A table whose header must tell.
    Header,
}

/// Reads rows with `record`, which fills in the cells and returns the line where the row begins.
fn read_table<R: Read>(
    text: &mut TextReader<R>,
    record: impl Fn(&mut TextReader<R>, &mut Vec<String>) -> Result<Option<u64>>,
    column: Option<&str>,
    layout: Layout,
    captions: &mut Collector,
) -> Result<()> {
    let mut cells = Vec::new();
    let mut caption_column = None;
    while let Some(line) = record(text, &mut cells)? {
        let (index, is_header) = match caption_column {
            Some(index) => (index, false),
            None => find_column(text, &cells, column, layout)?,
        };
        caption_column = Some(index);
        if !is_header {
            let caption = cells.get(index).ok_or_else(|| {
                let message = format!("the caption is in column {}, but this line has {}", index + 1, cells.len());
                line_error(text.path(), line, message)
            })?;
            push(captions, line, caption);
        }
        cells.clear();
    }
    Ok(())
}

/// The caption's column, from 0, and whether the first row is a header.
fn find_column<R: Read>(text: &TextReader<R>, first: &[String], column: Option<&str>, layout: Layout) -> Result<(usize, bool)> {
    let position = |name: &str| first.iter().position(|cell| cell.trim().eq_ignore_ascii_case(name));
    let known = CAPTION_NAMES.iter().find_map(|name| position(name));
    let path = text.path().display();
    if let Some(column) = column {
        if let Some(index) = position(column) {
            return Ok((index, true));
        }
        return match column.parse::<usize>().ok().and_then(|number| number.checked_sub(1)) {
            Some(index) if index < first.len() => Ok((index, known.is_some())),
            _ => {
                let message = format!("{path}: no column `{column}`: the first line is {}", columns(first));
                Err(Error::usage(message, "give the name of a column in the first line, or its number from 1"))
            }
        };
    }
    if let Some(index) = known {
        return Ok((index, true));
    }
    let hint = "give the caption's column by its name in the first line, or by its number from 1";
    match layout {
        Layout::FirstColumn if !first.first().is_some_and(|cell| looks_like_a_name(cell)) => Ok((0, false)),
        Layout::FirstColumn => {
            let message = format!("{path}: the first column holds no captions but names: the first line is {}", columns(first));
            Err(Error::usage(message, hint))
        }
        Layout::Header => {
            let message =
                format!("{path}: no column is named {}: the first line is {}", CAPTION_NAMES.join(" or "), columns(first));
            Err(Error::usage(message, hint))
        }
    }
}

/// An address or a file name, with which many tables begin: `http://...`, `1000092795.jpg#0`.
fn looks_like_a_name(cell: &str) -> bool {
    let lower = cell.trim().to_ascii_lowercase();
    let stem = lower.split('#').next().unwrap_or("");
    !lower.contains(char::is_whitespace)
        && (lower.contains("://") || [".jpg", ".jpeg", ".png"].iter().any(|end| stem.ends_with(end)))
}

/// The cells of a first line, for a message.
fn columns(cells: &[String]) -> String {
    let mut shown: Vec<String> = cells.iter().take(8).map(|cell| format!("`{}`", shorten(cell))).collect();
    if cells.len() > 8 {
        shown.push("...".into());
    }
    shown.join(", ")
}

/// At most 40 characters of a name, without control characters, for a message.
pub(super) fn shorten(name: &str) -> String {
    name.chars().take(40).flat_map(char::escape_debug).collect()
}

/// Where a csv reader stands in a cell.
enum Cell {
    Start,
    Plain,
    Quoted,
    /// After a quote inside quotes: the end of the cell, or the first of two that stand for one.
    QuoteInQuotes,
}

/// Reads one record, which goes on over line breaks inside quotes (these become `\n`). Returns the line where it begins.
fn csv_record<R: Read>(text: &mut TextReader<R>, cells: &mut Vec<String>) -> Result<Option<u64>> {
    let path = text.path();
    let mut begin = None;
    let mut size = 0;
    let mut cell = String::new();
    let mut state = Cell::Start;
    while let Some((number, line)) = text.next_line()? {
        let begin = *begin.get_or_insert(number);
        size += line.len() + 1;
        if size > MAX_LINE_BYTES {
            return Err(line_error(path, begin, "the record that begins here is longer than 1 MiB: is a quote not closed?"));
        }
        csv_line(line, cells, &mut cell, &mut state).map_err(|fault| line_error(path, number, fault))?;
        if !matches!(state, Cell::Quoted) {
            cells.push(cell);
            return Ok(Some(begin));
        }
        cell.push('\n');
    }
    begin.map_or(Ok(None), |begin| Err(line_error(path, begin, "a quoted cell in the record that begins here never ends")))
}

/// Takes one line of a record, or says what is wrong with it.
fn csv_line(line: &str, cells: &mut Vec<String>, cell: &mut String, state: &mut Cell) -> std::result::Result<(), &'static str> {
    for character in line.chars() {
        match (&*state, character) {
            (Cell::Start | Cell::Plain | Cell::QuoteInQuotes, ',') => {
                cells.push(std::mem::take(cell));
                *state = Cell::Start;
            }
            (Cell::Start, '"') => *state = Cell::Quoted,
            (Cell::Quoted, '"') => *state = Cell::QuoteInQuotes,
            (Cell::QuoteInQuotes, '"') => {
                cell.push('"');
                *state = Cell::Quoted;
            }
            (Cell::QuoteInQuotes, _) => return Err("text after a closing quote: a quote inside a quoted cell is written twice"),
            (Cell::Plain, '"') => {
                return Err("a quote in a cell that does not begin with one: quote the cell, and write the quote twice");
            }
            (Cell::Start | Cell::Plain, _) => {
                cell.push(character);
                *state = Cell::Plain;
            }
            (Cell::Quoted, _) => cell.push(character),
        }
    }
    Ok(())
}
