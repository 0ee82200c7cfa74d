//! Broken PTX is an error that names a line, never a panic, a long wait or a lot of memory. What the simulator does not know is refused.
//!
//! `PTXSIM_FUZZ_CASES=1000000 cargo test -p ptxsim --test parser -- --ignored` breaks real kernels that many times, and
//! `PTXSIM_FUZZ_SEED=N` breaks them in other ways.

mod nvcc;

#[path = "parser/adversaries.rs"]
mod adversaries;
#[path = "parser/corpus.rs"]
mod corpus;
#[path = "parser/examine.rs"]
mod examine;
#[path = "parser/memory.rs"]
mod memory;
#[path = "parser/mutate.rs"]
mod mutate;
#[path = "parser/refused.rs"]
mod refused;
#[path = "parser/running.rs"]
mod running;

use corpus::{INSTRUCTIONS, pieces};
use examine::{Entries, LONGEST, examine};
use mutate::{Random, mutate};
use proptest::prelude::*;
use ptxsim::{Error, Module};
use std::path::Path;

/// Examines a text; one that fails is left in a file.
fn check(source: &str, from: &str) -> Result<Result<Entries, Error>, String> {
    examine(source).map_err(|wrong| {
        let name =
            format!("parser-{}.ptx", from.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect::<String>());
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let kept = std::fs::write(&path, source).map_or_else(|error| error.to_string(), |()| path.display().to_string());
        format!("{from}: {wrong} ({kept})")
    })
}

/// A number from the environment.
fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text}: not a number")))
}

/// [`INSTRUCTIONS`] as head, instructions and tail.
fn instructions() -> (&'static str, Vec<&'static str>, &'static str) {
    let (head, rest) = INSTRUCTIONS.split_once("// instructions\n").unwrap();
    let (middle, tail) = rest.split_once("// end\n").unwrap();
    (head, middle.lines().map(str::trim).collect(), tail)
}

/// A file with one instruction between the head and the tail of [`INSTRUCTIONS`], and the number of its line.
fn around(instruction: &str) -> (String, u32) {
    let (head, _, tail) = instructions();
    (format!("{head}{instruction}\n{tail}"), 1 + head.lines().count() as u32)
}

/// The message with which an instruction is refused.
///
/// # Errors
/// If it is accepted, or the error is about another line.
fn refusal(instruction: &str) -> Result<String, String> {
    let (source, expected) = around(instruction);
    let outcome = check(&source, instruction)?;
    let error = match outcome.and_then(|mut entries| entries.remove(0)) {
        Ok(_) => return Err(format!("`{instruction}` is accepted")),
        Err(error) => error,
    };
    match error {
        Error::Ptx { line, text, message, .. } if line == expected && text == instruction => Ok(message),
        error => Err(format!("`{instruction}`: {error}")),
    }
}

#[test]
fn real_kernels_are_read() {
    for piece in pieces() {
        let entries = check(&piece.text, &piece.name).unwrap().unwrap_or_else(|error| panic!("{}: {error}", piece.name));
        assert_eq!(entries.len(), 1, "{}", piece.name);
        entries[0].as_ref().unwrap_or_else(|error| panic!("{}: {error}", piece.name));
    }
    assert!(pieces().len() > 100, "{} kernels", pieces().len());
}

#[test]
fn the_list_of_instructions_is_ptx() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/parser/instructions.ptx");
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join("instructions.cubin");
    nvcc::nvcc().cubin(&file, "sm_90a", &out).unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn unknown_instructions_and_modifiers_are_refused() {
    let mut wrong = Vec::new();
    for (instruction, word) in refused::INSTRUCTIONS.into_iter().chain(refused::MODIFIERS) {
        match refusal(instruction) {
            Ok(message) if message.contains(word) => {}
            Ok(message) => wrong.push(format!("`{instruction}`: {message}")),
            Err(error) => wrong.push(error),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn nothing_is_left_over() {
    let mut wrong = Vec::new();
    for instruction in instructions().1 {
        let bare = instruction.trim_end_matches(';');
        let start = if bare.starts_with('@') { bare.find(' ').unwrap() + 1 } else { 0 };
        let (opcode, operands) = bare.split_at(bare[start..].find(' ').map_or(bare.len(), |at| start + at));
        let more = if operands.is_empty() { " %r1" } else { ", %r1" };
        let mut broken = vec![format!("{opcode}.foo{operands};"), format!("{opcode}.v4{operands};")];
        // The first operand of `brkpt` and its like is one too many, the sixth of `cp.async` too.
        broken.push(format!("{bare}{more}{};", ", 0".repeat(5)));
        if let Some((fewer, _)) = operands.rsplit_once(", ")
            && !operands.contains('{')
            && !OPTIONAL.iter().any(|optional| bare.contains(optional))
        {
            broken.push(format!("{opcode}{fewer};"));
        }
        wrong.extend(broken.iter().filter(|broken| !broken.contains("v2.v4")).filter_map(|broken| refusal(broken).err()));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Instructions whose last operand may be left out.
const OPTIONAL: [&str; 4] = ["bar.sync 1", "], 8, %r1", "], 16, ", "createpolicy.fractional"];

/// Which line an error names: that of the word that is wrong, not of what comes after it.
#[test]
fn errors_name_the_line_of_what_is_wrong() {
    let cases = [
        (".version 9.0\n.taget sm_80\n\n.address_size 64", 2),
        (".target sm_80\n.address_size\n64\n.extern .global .u32 x;", 4),
        (".target sm_80\n.global .b33 x;\n", 2),
        (".target sm_80\n.global .b8 x[4] = {1,\n2, 1.5,\n3};", 3),
        (".target sm_80\n.global .b32 x;\n.global .b32 x;\n.global .b32 y;", 3),
        (".target sm_80\n.entry e()\n.maxfoo\n{ ret; }", 3),
        (".target sm_80\n.entry e(.reg\n.b32 x) { ret; }", 2),
        (".target sm_80\n.entry e() {\n.bar\nret; }", 3),
        (".target sm_80\n.entry e() {\n.reg .x\n%r; }", 3),
        (".target sm_80\n.entry e() {\n@%p\nret; }", 3),
        (".target sm_80\n.entry e() {\nmov.b32\n%r1,\n-;\n}", 5),
        (".target sm_80\n.entry e() {\nbra\nL;\nret; }", 4),
        (".target sm_80\n.entry e() {\nret\n}", 4),
        (".target sm_80\n.entry e() {\nret;\n\n", 3),
        (".target sm_80\n.entry e() {\n.reg .b32 a;\n{\n.reg .b32 a;\nadd.foo\na, a, a; }\nret; }", 6),
        ("/* one\ntwo */\n.target é", 3),
    ];
    for (source, expected) in cases {
        let error = Module::parse(source, "m").and_then(|module| module.kernel("e")).unwrap_err();
        assert!(matches!(&error, Error::Ptx { line, .. } if *line == expected), "line {expected} of\n{source}\nbut {error}");
    }
}

#[test]
fn adversaries_are_refused_or_harmless() {
    let (refused, harmless) = adversaries::all();
    let mut wrong = Vec::new();
    for (must_fail, (name, source)) in refused.iter().map(|a| (true, a)).chain(harmless.iter().map(|a| (false, a))) {
        if source.len() > LONGEST {
            wrong.push(format!("{name}: {} bytes", source.len()));
        }
        match check(source, name) {
            Err(violation) => wrong.push(violation),
            Ok(Err(_)) if must_fail => {}
            Ok(Ok(entries)) if entries.iter().any(Result::is_err) == must_fail => {}
            Ok(Ok(_)) => wrong.push(format!("{name}: accepted")),
            Ok(Err(error)) => wrong.push(format!("{name}: {error}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Breaks real kernels `cases` times.
fn fuzz(cases: u64, seed: u64) {
    let pieces = pieces();
    let mut random = Random(seed);
    let (mut decoded, mut wrong) = (0, Vec::new());
    for case in 0..cases {
        let (piece, other) = (&pieces[random.below(pieces.len())], &pieces[random.below(pieces.len())]);
        let broken = mutate(&piece.text, &other.text, &mut random);
        match check(&broken, &format!("case {case} of seed {seed}, {}", piece.name)) {
            Ok(outcome) => decoded += u64::from(outcome.is_ok_and(|entries| entries.iter().any(Result::is_ok))),
            Err(violation) => wrong.push(violation),
        }
        if wrong.len() > 9 {
            break;
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // The ways of breaking must neither be harmless nor break everything at the first line.
    assert!(decoded > cases / 10 && decoded < cases * 9 / 10, "{decoded} of {cases} were still kernels");
}

#[test]
fn broken_kernels_are_errors() {
    fuzz(4_000, setting("PTXSIM_FUZZ_SEED", 1));
}

#[test]
#[ignore = "takes as long as PTXSIM_FUZZ_CASES says"]
fn many_broken_kernels_are_errors() {
    fuzz(setting("PTXSIM_FUZZ_CASES", 50_000), setting("PTXSIM_FUZZ_SEED", 2));
}

/// Breaks instructions one by one `cases` times, and runs those that can still be decoded.
fn fuzz_instructions(cases: u64, seed: u64) {
    let (_, all, _) = instructions();
    let mut random = Random(seed);
    let (mut run, mut wrong) = (0, Vec::new());
    for case in 0..cases {
        let (one, other) = (random.pick(&all), random.pick(&all));
        let broken = mutate(one, other, &mut random);
        let outcome = check(&around(&broken).0, &format!("case {case} of seed {seed}"));
        match outcome.and_then(|outcome| running::in_process(&broken, outcome)) {
            Ok(ran) => run += u64::from(ran),
            Err(violation) => wrong.push(format!("`{broken}`: {violation}")),
        }
        if wrong.len() > 9 {
            break;
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(run > cases / 20, "{run} of {cases} were run");
}

#[test]
fn broken_instructions_run_or_are_errors() {
    fuzz_instructions(4_000, setting("PTXSIM_FUZZ_SEED", 3));
}

#[test]
#[ignore = "takes as long as PTXSIM_FUZZ_CASES says"]
fn many_broken_instructions_run_or_are_errors() {
    fuzz_instructions(setting("PTXSIM_FUZZ_CASES", 50_000), setting("PTXSIM_FUZZ_SEED", 4));
}

#[test]
fn running_broken_kernels_ends_in_a_report() {
    running::in_children(30, setting("PTXSIM_FUZZ_SEED", 5));
}

#[test]
#[ignore = "takes as long as PTXSIM_FUZZ_CASES says"]
fn running_many_broken_kernels_ends_in_a_report() {
    // Running takes some hundred times as long as reading.
    running::in_children(setting("PTXSIM_FUZZ_CASES", 50_000) / 300, setting("PTXSIM_FUZZ_SEED", 6));
}

/// Words of PTX, in the order in which they came out of a hat.
fn words() -> impl Strategy<Value = String> {
    let word = prop_oneof![
        prop::sample::select(mutate::WORDS.to_vec()).prop_map(str::to_owned),
        prop::sample::select(mutate::EXTREMES.to_vec()).prop_map(str::to_owned),
        prop::sample::select(vec![
            "add", "ld", "st", "mov", "cvt", "mma", "bra", "call", ";", ",", ":", "+", "-", "!", "\n", "\"", "/*"
        ])
        .prop_map(str::to_owned),
        any::<u64>().prop_map(|number| number.to_string()),
        "[a-z$%_.]{1,8}",
        "\\PC{1,4}",
    ];
    (prop::collection::vec(word, 0..60), any::<bool>()).prop_map(|(words, spaced)| words.join(if spaced { " " } else { "" }))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_an_error_or_a_module(text in "(?s).{0,200}") {
        prop_assert!(examine(&text).map_err(TestCaseError::fail)?.is_err());
    }

    #[test]
    fn any_words_after_a_head_are_read_or_refused(words in words()) {
        examine(&format!(".version 9.0\n.target sm_80\n{words}")).map_err(TestCaseError::fail)?.ok();
    }

    #[test]
    fn any_words_in_a_body_are_read_or_refused(words in words()) {
        examine(&around(&words).0).map_err(TestCaseError::fail)?.ok();
    }

    #[test]
    fn numbers_are_read_as_they_are_written(value in any::<u64>(), bits in any::<u32>()) {
        let forms = [format!("{value}"), format!("{value}U"), format!("0x{value:x}"), format!("0{value:o}"), format!("0b{value:b}")];
        for form in forms {
            let source = around(&format!("mov.b64 %d6, {form}; st.global.b64 [%d1+2048], %d6;")).0;
            prop_assert_eq!(running::result(&source), value, "{}", form);
        }
        let source = around(&format!("mov.b32 %r6, 0f{bits:08X}; mov.b64 %d6, {{%r6, 0}}; st.global.b64 [%d1+2048], %d6;")).0;
        prop_assert_eq!(running::result(&source), u64::from(bits));
    }
}
