//! Tokens of PTX (PTX ISA, section 4): words with their dots, numbers, punctuation.

use crate::error::{Complaint, Parsed};

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Kind<'s> {
    /// Identifier, register, directive or opcode, dots included: `%r1`, `%tid.x`, `.reg`, `ld.global.v4.f32`.
    Word(&'s str),
    /// An integer literal, as its two's-complement bits.
    Int(u64),
    /// `0f...`: bits of an f32.
    F32(u32),
    /// `0d...`, or a literal with a decimal point: bits of an f64.
    F64(u64),
    /// A quoted string, without its quotes.
    Text(&'s str),
    /// Any other single character.
    Punct(u8),
}

/// A token and the line it stands on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Token<'s> {
    pub kind: Kind<'s>,
    pub line: u32,
}

/// Splits `source` into tokens; comments vanish.
pub(crate) fn tokens(source: &str) -> Parsed<Vec<Token<'_>>> {
    let bytes = source.as_bytes();
    let mut out = Vec::with_capacity(source.len() / 4);
    let (mut at, mut line) = (0, 1u32);
    while let Some(&byte) = bytes.get(at) {
        let start = at;
        match byte {
            b'\n' => {
                line += 1;
                at += 1;
            }
            b if b.is_ascii_whitespace() => at += 1,
            b'/' if bytes.get(at + 1) == Some(&b'/') => at += bytes[at..].iter().take_while(|&&b| b != b'\n').count(),
            b'/' if bytes.get(at + 1) == Some(&b'*') => {
                let end = source[at + 2..].find("*/").ok_or_else(|| Complaint::new(line, "comment without an end"))?;
                let length = end + 4;
                line += bytes[at..at + length].iter().filter(|&&b| b == b'\n').count() as u32;
                at += length;
            }
            b'"' => {
                let length = bytes[at + 1..].iter().position(|&b| b == b'"' || b == b'\n').unwrap_or(usize::MAX);
                if length == usize::MAX || bytes[at + 1 + length] != b'"' {
                    return Err(Complaint::new(line, "string without an end"));
                }
                out.push(Token { kind: Kind::Text(&source[at + 1..at + 1 + length]), line });
                at += length + 2;
            }
            b'0'..=b'9' => {
                while bytes.get(at).is_some_and(|&b| b.is_ascii_alphanumeric() || b == b'_' || b == b'.') {
                    at += 1;
                }
                let kind = number(&source[start..at])
                    .ok_or_else(|| Complaint::new(line, format!("`{}` is not a number", &source[start..at])))?;
                out.push(Token { kind, line });
            }
            b if is_word(b) => {
                // Opcodes keep their dots; `.reg.b16` is two directives.
                while let Some(&b) = bytes.get(at) {
                    let goes_on = |b: u8| is_word(b) || b.is_ascii_digit();
                    let scope = b == b':' && bytes.get(at + 1) == Some(&b':') && bytes.get(at + 2).is_some_and(|&b| goes_on(b));
                    if scope {
                        at += 2;
                    } else if !goes_on(b) || (b == b'.' && byte == b'.' && at > start) {
                        break;
                    } else {
                        at += 1;
                    }
                }
                out.push(Token { kind: Kind::Word(&source[start..at]), line });
            }
            b if b.is_ascii_graphic() => {
                out.push(Token { kind: Kind::Punct(b), line });
                at += 1;
            }
            _ => {
                let odd = source[start..].chars().next().unwrap_or('?');
                return Err(Complaint::new(line, format!("unexpected character {odd:?}")));
            }
        }
    }
    Ok(out)
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || matches!(byte, b'_' | b'$' | b'%' | b'.')
}

fn number(text: &str) -> Option<Kind<'_>> {
    let prefixed = |digits: &str, radix| u64::from_str_radix(digits.trim_end_matches('U'), radix).ok();
    let lower = text.get(..2).map(str::to_ascii_lowercase);
    match (lower.as_deref(), text.get(2..)) {
        (Some("0f"), Some(hex)) if hex.len() == 8 => return u32::from_str_radix(hex, 16).ok().map(Kind::F32),
        (Some("0d"), Some(hex)) if hex.len() == 16 => return u64::from_str_radix(hex, 16).ok().map(Kind::F64),
        (Some("0x"), Some(hex)) => return prefixed(hex, 16).map(Kind::Int),
        (Some("0b"), Some(digits)) => return prefixed(digits, 2).map(Kind::Int),
        _ => {}
    }
    if text.contains('.') || (text.contains(['e', 'E']) && text.bytes().all(|b| b.is_ascii_digit() || b == b'e' || b == b'E')) {
        return text.parse::<f64>().ok().map(|x| Kind::F64(x.to_bits()));
    }
    let digits = text.trim_end_matches('U');
    if digits.len() > 1 && digits.starts_with('0') {
        return prefixed(&digits[1..], 8).map(Kind::Int);
    }
    digits.parse().ok().map(Kind::Int)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(source: &str) -> Vec<Kind<'_>> {
        tokens(source).unwrap().into_iter().map(|t| t.kind).collect()
    }

    #[test]
    fn words_keep_their_dots_and_scopes() {
        let expected = [Kind::Word("ld.global.L1::no_allocate.L2::128B.f32"), Kind::Word("%tid.x"), Kind::Punct(b',')];
        assert_eq!(kinds("ld.global.L1::no_allocate.L2::128B.f32 /* note */ %tid.x, // end"), expected);
        assert_eq!(kinds("$L__BB0_2:"), [Kind::Word("$L__BB0_2"), Kind::Punct(b':')]);
    }

    #[test]
    fn numbers_of_every_form() {
        let source = "12 0x1F 017 0b101 0f3F800000 0d3FF0000000000000 1.5 0 4294967295U";
        let one = 1f64.to_bits();
        let expected = [12, 31, 15, 5].map(Kind::Int).into_iter().chain([Kind::F32(0x3F80_0000), Kind::F64(one)]);
        let expected = expected.chain([Kind::F64(1.5f64.to_bits()), Kind::Int(0), Kind::Int(0xFFFF_FFFF)]).collect::<Vec<_>>();
        assert_eq!(kinds(source), expected);
    }

    #[test]
    fn lines_are_counted_through_comments() {
        let all = tokens("a\n/* x\n y */ b\n// c\nd").unwrap();
        assert_eq!(all.iter().map(|t| t.line).collect::<Vec<_>>(), [1, 3, 5]);
        for (bad, line) in [("\n\"open", 2), ("/* open", 1), ("\n\n0x", 3), ("18446744073709551616", 1), ("é", 1)] {
            assert_eq!(tokens(bad).unwrap_err().line, line, "{bad}");
        }
    }
}
