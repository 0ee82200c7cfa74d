//! Breaks PTX text at random, the same way for the same seed.

/// SplitMix64 (Steele, Lea & Flood, 2014).
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ z >> 31
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }

    pub fn pick<'a, T: ?Sized>(&mut self, all: &[&'a T]) -> &'a T {
        all[self.below(all.len())]
    }
}

/// Numbers at which something may overflow, in PTX's spellings.
pub const EXTREMES: [&str; 26] = [
    "0",
    "1",
    "-1",
    "7",
    "31",
    "32",
    "33",
    "63",
    "64",
    "255",
    "256",
    "4096",
    "65535",
    "65536",
    "1048576",
    "2147483647",
    "2147483648",
    "4294967295",
    "4294967296",
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "0xFFFFFFFFFFFFFFFF",
    "0f7FC00000",
    "0dFFF0000000000000",
];

/// Words that mean something somewhere.
pub const WORDS: [&str; 84] = [
    ".b8",
    ".b16",
    ".b32",
    ".b64",
    ".b128",
    ".u8",
    ".u16",
    ".u32",
    ".u64",
    ".s8",
    ".s16",
    ".s32",
    ".s64",
    ".f16",
    ".f16x2",
    ".bf16",
    ".bf16x2",
    ".tf32",
    ".f32",
    ".f64",
    ".e4m3",
    ".e5m2x2",
    ".u16x2",
    ".s16x2",
    ".pred",
    ".sat",
    ".ftz",
    ".rn",
    ".rzi",
    ".approx",
    ".full",
    ".relu",
    ".satfinite",
    ".cc",
    ".hi",
    ".lo",
    ".wide",
    ".global",
    ".shared",
    ".local",
    ".const",
    ".param",
    ".v2",
    ".v4",
    ".v8",
    ".sync",
    ".aligned",
    ".x4",
    ".trans",
    ".row",
    ".col",
    ".m16n8k16",
    ".volatile",
    ".relaxed",
    ".acquire",
    ".gpu",
    ".cta",
    ".reg",
    ".align",
    ".branchtargets",
    ".func",
    ".entry",
    ".visible",
    ".loc",
    ".file",
    ".pragma",
    ".section",
    "%r1",
    "%rd1",
    "%p1",
    "%rs1",
    "%f1",
    "%tid.x",
    "%nothing",
    "_",
    "WARP_SZ",
    "{",
    "}",
    "[",
    "]",
    "(",
    ")",
    "@",
    "|",
];

/// Instructions that may come in anywhere.
const LINES: [&str; 14] = [
    "\tbar.sync 0;",
    "\tret;",
    "\ttrap;",
    "\tmov.b64 _, {%r1, %r2};",
    "\tselp.b128 _, 1, 2, %p1;",
    "\tatom.exch.b128 _, [%rd1], 1;",
    "\tld.global.v8.b64 {_, _, _, _, _, _, _, _}, [%rd1];",
    "\tbar.red.popc.u32 %r1;",
    "\t.reg .b32 %r<4294967295>;",
    "\t.shared .align 65536 .b8 huge[4294967296];",
    "\t{",
    "\t}",
    "\t.loc 1 4294967295 0",
    "\t@%p9 bra $nowhere;",
];

/// Spans of words, numbers, and single other characters; blanks are left out.
fn tokens(text: &str) -> Vec<(usize, usize)> {
    let word = |c: char| c.is_ascii_alphanumeric() || "_$%".contains(c);
    let mut out: Vec<(usize, usize)> = Vec::new();
    let mut in_word = false;
    for (at, c) in text.char_indices() {
        match out.last_mut() {
            Some(last) if in_word && word(c) => last.1 = at + 1,
            _ if !c.is_whitespace() => out.push((at, at + c.len_utf8())),
            _ => {}
        }
        // A dot begins a modifier or directive, and goes with it.
        in_word = word(c) || c == '.';
    }
    out
}

/// Spans of lines without their ends.
fn lines(text: &str) -> Vec<(usize, usize)> {
    let start = text.as_ptr() as usize;
    text.lines().map(|line| (line.as_ptr() as usize - start, line.as_ptr() as usize - start + line.len())).collect()
}

/// The last place at or before `at` where a character begins.
fn boundary(text: &str, at: usize) -> usize {
    (0..=at.min(text.len())).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0)
}

/// Changes `text` in one to four ways; `other` is a text to take pieces from.
pub fn mutate(text: &str, other: &str, random: &mut Random) -> String {
    let mut text = text.to_owned();
    for _ in 0..=random.below(4) {
        text = match random.below(20) {
            0..=11 => change_token(&text, random),
            12..=16 => change_line(&text, other, random),
            17 | 18 => change_bytes(&text, random),
            _ => splice(&text, other, random),
        };
    }
    text
}

fn change_token(text: &str, random: &mut Random) -> String {
    let all = tokens(text);
    if all.is_empty() {
        return text.to_owned();
    }
    let at = random.below(all.len());
    let (start, end) = all[at];
    let (a, b) = all[random.below(all.len())];
    let new = match random.below(7) {
        0 => String::new(),
        1 => text[start..end].repeat(2),
        2 => text[a..b].to_owned(),
        3 => random.pick(&WORDS).to_owned(),
        4 => text[start..end].to_owned() + random.pick(&WORDS),
        5 => random.pick(&EXTREMES).to_owned(),
        // A number after this place, so that most are numbers where numbers belong.
        _ => match all[at..].iter().find(|&&(start, _)| text.as_bytes()[start].is_ascii_digit()) {
            Some(&(start, end)) => return text[..start].to_owned() + random.pick(&EXTREMES) + &text[end..],
            None => String::new(),
        },
    };
    text[..start].to_owned() + &new + &text[end..]
}

fn change_line(text: &str, other: &str, random: &mut Random) -> String {
    let (all, others) = (lines(text), lines(other));
    if all.is_empty() || others.is_empty() {
        return text.to_owned();
    }
    let (start, end) = all[random.below(all.len())];
    let (a, b) = all[random.below(all.len())];
    let (c, d) = others[random.below(others.len())];
    match random.below(5) {
        0 => text[..start].to_owned() + &text[end..],
        1 => text[..end].to_owned() + "\n" + &text[start..],
        2 => text[..start].to_owned() + &text[a..b] + "\n" + &text[start..],
        3 => text[..start].to_owned() + &other[c..d] + "\n" + &text[start..],
        _ => text[..start].to_owned() + random.pick(&LINES) + "\n" + &text[start..],
    }
}

fn change_bytes(text: &str, random: &mut Random) -> String {
    let at = boundary(text, random.below(text.len() + 1));
    let mut bytes = text.as_bytes().to_owned();
    match random.below(5) {
        0 => return text[..at].to_owned(),
        1 => bytes.insert(at, random.next() as u8),
        2 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
        3 if at < bytes.len() => drop(bytes.remove(at)),
        _ => {
            return text[..at].to_owned() + random.pick(&["é", "\0", "\u{2028}", "\"", "/*", "//", ";", "\r", "𝄞"]) + &text[at..];
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The head of one text and the tail of another, or a piece of one in the other.
fn splice(text: &str, other: &str, random: &mut Random) -> String {
    let (a, b) = (boundary(text, random.below(text.len() + 1)), boundary(other, random.below(other.len() + 1)));
    let end = boundary(other, b + random.below(400)).max(b);
    if random.below(2) == 0 { text[..a].to_owned() + &other[b..] } else { text[..a].to_owned() + &other[b..end] + &text[a..] }
}
