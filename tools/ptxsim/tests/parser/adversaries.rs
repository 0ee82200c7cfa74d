//! Files made to take a reader's time or memory, or to overflow its numbers.

use std::fmt::Write;

/// Name and text of a file.
pub type Adversary = (&'static str, String);

const HEAD: &str = ".version 9.0\n.target sm_80\n.address_size 64\n";

fn entry(body: &str) -> String {
    format!("{HEAD}.visible .entry e(.param .u64 p)\n{{\n.reg .pred %p<4>;\n.reg .b32 %r<9>;\n.reg .b64 %d<9>;\n{body}\n}}\n")
}

/// `count` times what `piece` makes of the number.
fn many(count: usize, piece: impl Fn(usize) -> String) -> String {
    (0..count).fold(String::new(), |mut all, i| {
        _ = write!(all, "{}", piece(i));
        all
    })
}

/// Functions that call the next one twice, down to one that does `leaf`.
fn call_bomb(levels: usize, leaf: &str) -> String {
    let leaf = format!(".func f0 {{ {leaf} }}\n");
    let level = |i: usize| format!(".func f{} {{ call f{i}; call f{i}; ret; }}\n", i + 1);
    format!("{HEAD}{leaf}{}.entry e() {{ call f{levels}; ret; }}\n", many(levels, level))
}

/// All of them. Those that must be refused come first.
pub fn all() -> (Vec<Adversary>, Vec<Adversary>) {
    let refused = vec![
        ("calls that double at each level", call_bomb(31, "ret;")),
        ("calls that double and do nothing", call_bomb(31, "")),
        (
            "calls that double, of many registers",
            call_bomb(20, &format!(".reg .b32 %r<1048576>; {}", many(99, |i| format!("mov.b32 %r{i}, 1; ")))),
        ),
        ("calls that double, of many variables", call_bomb(20, &many(99, |i| format!(".local .b8 v{i}; ")))),
        ("a function that calls itself", format!("{HEAD}.func f {{ call f; call f; ret; }}\n.entry e() {{ call f; }}\n")),
        (
            "functions that call each other",
            format!("{HEAD}.func g;\n.func f {{ call g; }}\n.func g {{ call f; }}\n.entry e() {{ call f; }}\n"),
        ),
        ("a call of an entry", format!("{HEAD}.entry e() {{ call e; }}\n")),
        (
            "branch tables in square",
            entry(&format!(
                "L:\nT: .branchtargets {};\n{}",
                vec!["L"; 20_000].join(","),
                many(9_000, |_| "brx.idx %r1, T;".into())
            )),
        ),
        ("braces", entry(&"{".repeat(100_000))),
        ("brackets", entry(&format!("ld.b32 %r1, {};", "[".repeat(100_000)))),
        ("lists in lists", entry(&format!("mov.b32 %r1, {}", "{{(".repeat(50_000)))),
        ("initial values in braces", format!("{HEAD}.global .b8 x[4] = {}", "{".repeat(100_000))),
        ("more initial values than elements", format!("{HEAD}.global .b8 x[4] = {{{}}};", vec!["0"; 100_000].join(","))),
        ("an array that overflows", entry(".shared .b8 x[4294967295][4294967295][4294967295];")),
        ("an array of 2^64 bytes", entry(".local .b8 x[18446744073709551616];")),
        ("local memory that overflows", entry(&many(7_000, |i| format!(".local .b64 x{i}[536870912];\n")))),
        (
            "parameters of many bytes",
            format!("{HEAD}.entry e({}) {{ ret; }}\n", many(999, |i| format!(".param .b8 p{i}[4294967296], ")) + ".param .u32 q"),
        ),
        ("registers of 2^64", entry(".reg .b32 %x<18446744073709551616>;")),
        ("an alignment of nothing", entry(".shared .align 0 .b8 x[4];")),
        ("an alignment of three", entry(".shared .align 3 .b8 x[4];")),
        ("an alignment of 2^63", entry(".shared .align 9223372036854775808 .b8 x[4];")),
        ("a guard that is not declared", entry("@%p9 ret;")),
        ("a guard that is a value", entry("@%r1 ret;")),
        ("a guard of nothing", entry("@ ret;")),
        ("a label that is not there", entry("bra $nowhere;")),
        ("a label within braces, from outside", entry("bra L; { L: ret; }")),
        ("a label twice", entry("L: L: ret;")),
        ("a branch out of its function", format!("{HEAD}.func f {{ L: ret; }}\n.entry e() {{ bra L; }}\n")),
        ("an entry twice", format!("{HEAD}.entry e() {{ ret; }}\n.entry e() {{ ret; }}\n")),
        ("a function without a body", format!("{HEAD}.func f;\n.entry e() {{ call f; }}\n")),
        ("not ASCII", entry("mov.b32 %r1, é;")),
        ("not ASCII in a name", entry(".reg .b32 %ré;")),
        ("a comment without an end", entry("/* ret;")),
        ("a string without an end", entry(".pragma \"nounroll;\n")),
        ("32-bit addresses", ".version 9.0\n.target sm_80\n.address_size 32\n".into()),
        ("nothing", String::new()),
        ("blank lines", "\n\n\n".into()),
        ("a head without a target", ".version 9.0\n".into()),
        ("prose", "There is a house in New Orleans.".into()),
        ("zeros", "\0".repeat(1000)),
    ];
    let harmless = vec![
        ("an empty function", format!("{HEAD}.entry e() {{ }}\n")),
        ("a loop of nothing", entry("L: bra L;")),
        ("labels in a ring", entry("A: bra B;\nB: bra C;\nC: bra A;")),
        ("a head alone", HEAD.into()),
        ("a million registers", entry(".reg .b64 %x<1048576>; mov.b64 %x1048575, %x0;")),
        ("as many registers as there are numbers", entry(".reg .b64 %x<4294967295>; mov.b64 %x4294967294, %x0;")),
        ("a register range after another", entry(&many(5_000, |i| format!(".reg .b32 %x{i}_<2>;\nmov.b32 %x{i}_1, %x{i}_0;\n")))),
        ("variables in one declaration", entry(&format!(".local .b8 {};", many(20_000, |i| format!("v{i},")) + "v"))),
        (
            "variables of the module",
            format!(
                "{HEAD}{}.entry e() {{ .reg .b64 %d; {} }}",
                many(5_000, |i| format!(".global .u32 v{i};\n")),
                many(4_000, |i| format!("mov.b64 %d, v{i};\n"))
            ),
        ),
        (
            "functions",
            format!(
                "{HEAD}{}.entry e() {{ {} }}",
                many(5_000, |i| format!(".func f{i} {{ ret; }}\n")),
                many(5_000, |i| format!("call f{i};\n"))
            ),
        ),
        ("labels", entry(&many(10_000, |i| format!("@%p1 bra L{i};\nL{i}:\n")))),
        (
            "labels, all far ahead",
            entry(&format!("{}{}ret;", many(9_000, |i| format!("@%p1 bra L{i};\n")), many(9_000, |i| format!("L{i}:\n")))),
        ),
        (
            "labels, all far behind",
            entry(&format!(
                "{}{}ret;",
                many(5_000, |i| format!("L{i}: add.s32 %r1,%r1,1;\n")),
                many(5_000, |i| format!("@%p1 bra L{i};\n"))
            )),
        ),
        (
            "branches between the ends of a chain",
            entry(&format!(
                "{}{}T: ret;",
                many(4_500, |_| "@%p1 bra T;bra L0;\n".into()),
                many(4_000, |i| format!("L{i}:@%p1 bra L{};\n", (i * 7919) % 4_000))
            )),
        ),
        ("one line", entry(&"add.s32 %r1, %r1, 1; ".repeat(11_000))),
        (
            "a path of many bytes",
            format!(
                ".file 1 \"{}\"\n{}",
                "x".repeat(40_000),
                entry(&many(6_000, |_| ".loc 1 1 1\nadd.s32 %r1, %r1, 1;\n".into()))
            ),
        ),
        (
            "files",
            format!(
                "{}{}",
                entry(&many(4_000, |i| format!(".loc {i} 1 1\nadd.s32 %r1, %r1, 1;\n"))),
                many(4_000, |i| format!(".file {i} \"a\"\n"))
            ),
        ),
        (
            "offsets that overflow",
            entry(
                "ld.global.b32 %r1, [%d1+18446744073709551615];\nld.global.b32 %r1, [%d1-9223372036854775808];\nld.global.b32 %r1, [18446744073709551615];",
            ),
        ),
        ("an opcode of many parts", entry(&format!("add.s32 %r1, %r1, 1;\n//{}", ".x".repeat(100_000)))),
        ("semicolons", entry(&";".repeat(200_000))),
        ("scopes one after the other", entry(&"{.reg .b32 a;mov.b32 a, 1;}\n".repeat(8_000))),
        ("a table of many targets", entry(&format!("L:\nT: .branchtargets {};\nbrx.idx %r1, T;", vec!["L"; 100_000].join(",")))),
        ("sections", format!("{HEAD}.section .debug {{ {} {} }}\n", "{".repeat(60_000), "}".repeat(60_000))),
        ("not ASCII in a comment", entry("// ça ira\n/* 𝄞 */ ret;")),
    ];
    (refused, harmless)
}
