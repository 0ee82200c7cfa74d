//! The contract of `ptxsim run`: flags, exit codes, faults as JSON lines, dumps, the profile, and what it says to those who misuse it.

mod nvcc;

use nvcc::nvcc;
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;

const KERNELS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/command/kernels.ptx");

/// What came of a command.
struct Ran {
    code: Option<i32>,
    out: String,
    error: String,
}

/// Runs `ptxsim` with arguments parted by blanks.
fn ptxsim(arguments: &str) -> Ran {
    let output =
        Command::new(env!("CARGO_BIN_EXE_ptxsim")).args(arguments.split_whitespace()).stdin(Stdio::null()).output().unwrap();
    let Output { status, stdout, stderr } = output;
    Ran { code: status.code(), out: String::from_utf8(stdout).unwrap(), error: String::from_utf8(stderr).unwrap() }
}

/// Runs an entry of [`KERNELS`] with more arguments.
fn run(entry: &str, arguments: &str) -> Ran {
    ptxsim(&format!("run {KERNELS} --entry {entry} {arguments}"))
}

/// Runs an entry that must be clean, and reads the buffers that it dumped: the arguments in the order given.
fn dumps(entry: &str, arguments: &str, dumped: &[usize]) -> Vec<Vec<u8>> {
    let folder = TempDir::new().unwrap();
    let file = |index: &usize| folder.path().join(index.to_string());
    let flags: Vec<String> = dumped.iter().map(|index| format!("--dump {index}:{}", file(index).display())).collect();
    let ran = run(entry, &format!("{arguments} {}", flags.join(" ")));
    assert_eq!((ran.code, &*ran.out, &*ran.error), (Some(0), "", ""), "{entry} {arguments}");
    dumped.iter().map(|index| fs::read(file(index)).unwrap()).collect()
}

/// What a buffer of `spec` holds at the start.
fn content(spec: &str, more: &str) -> Vec<u8> {
    dumps("nothing", &format!("--grid 1 --block 1 --arg {spec} --arg u64:0 {more}"), &[0]).remove(0)
}

fn words(bytes: &[u8]) -> Vec<u32> {
    bytes.chunks_exact(4).map(|word| u32::from_le_bytes(word.try_into().unwrap())).collect()
}

fn faults(ran: &Ran) -> Vec<Value> {
    ran.error.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

#[test]
fn exit_codes() {
    let clean = run("nothing", "--grid 1 --block 32 --arg u64:0 --arg u64:0");
    assert_eq!((clean.code, &*clean.out, &*clean.error), (Some(0), "", ""));
    let faulty = run("faulty", "--grid 1 --block 64 --arg buf:f32:64:undef");
    assert_eq!((faulty.code, &*faulty.out), (Some(4), ""));
    let misused = run("nothing", "--grid 1 --block 32");
    assert_eq!((misused.code, &*misused.out), (Some(2), ""));
    assert!(ptxsim("--help").code == Some(0) && ptxsim("run --help").code == Some(0) && ptxsim("--version").code == Some(0));
}

#[test]
fn faults_are_json_lines() {
    let ran = run("faulty", "--grid 1,1,2 --block 64 --arg buf:f32:64:undef --threads 1");
    let faults = faults(&ran);
    let kinds: Vec<&str> = faults.iter().map(|fault| fault["kind"].as_str().unwrap()).collect();
    let find = |kind: &str| faults.iter().find(|fault| fault["kind"] == kind).unwrap_or_else(|| panic!("{kind} in {kinds:?}"));
    for fault in &faults {
        let keys: Vec<&str> = fault.as_object().unwrap().keys().map(String::as_str).filter(|key| *key != "inlined_at").collect();
        let expected = ["kind", "kernel", "file", "line", "ptx_line", "block", "warp", "lane", "address", "other", "message"];
        assert_eq!(keys, expected);
        assert_eq!(fault["kernel"], "faulty");
        assert!(fault["message"].as_str().unwrap().len() > 10);
        assert!(fault["lane"].as_u64().unwrap() < 32 && fault["warp"].as_u64().unwrap() < 2);
        let address = fault["address"].as_str().unwrap();
        assert!(u64::from_str_radix(address.strip_prefix("0x").unwrap(), 16).is_ok(), "{address}");
    }
    let race = find("shared-race");
    let sides = [&race["line"], &race["other"]["line"]];
    assert!(sides.contains(&&11.into()) && sides.contains(&&13.into()), "{race}");
    let keys: Vec<&String> = race["other"].as_object().unwrap().keys().collect();
    assert_eq!(keys, ["file", "line", "ptx_line", "block", "warp", "lane"]);
    assert_ne!(race["warp"], race["other"]["warp"]);
    assert_eq!(race["block"], race["other"]["block"]);
    assert_eq!(race["file"], "sample/kernels.cu");

    let outside = find("out-of-bounds");
    assert_eq!((&outside["file"], &outside["line"]), (&"sample/inline.cuh".into(), &40.into()));
    assert_eq!(outside["inlined_at"], serde_json::json!({"file": "sample/kernels.cu", "line": 14}));
    assert_eq!((&outside["warp"], &outside["lane"], &outside["other"]), (&1.into(), &31.into(), &serde_json::json!({})));
    let text = fs::read_to_string(KERNELS).unwrap();
    let line = text.lines().nth(outside["ptx_line"].as_u64().unwrap() as usize - 1).unwrap();
    assert_eq!(line.trim(), "st.global.u32 [%d3+4], %r6;");
    // The second block writes what the first does.
    let race = find("global-race");
    assert_ne!(race["block"], race["other"]["block"]);
    assert_eq!(race["block"].as_array().unwrap().len(), 3);
}

#[test]
fn faults_do_not_keep_dumps_and_the_profile_back() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("out");
    let ran = run("faulty", &format!("--grid 1 --block 64 --arg buf:u32:64:zero --dump 0:{} --profile", file.display()));
    assert_eq!(ran.code, Some(4));
    assert!(ran.out.contains("faulty: 1 blocks of 64 threads"), "{}", ran.out);
    assert_eq!(words(&fs::read(&file).unwrap()).len(), 64);
    assert!(faults(&ran).len() > 1);
}

#[test]
fn contents_of_buffers() {
    let types =
        [("f16", 2), ("bf16", 2), ("f32", 4), ("f64", 8), ("i8", 1), ("u8", 1), ("i32", 4), ("u32", 4), ("i64", 8), ("u64", 8)];
    for (ty, bytes) in types {
        assert_eq!(content(&format!("buf:{ty}:100:zero"), ""), vec![0; 100 * bytes], "{ty}");
        assert_eq!(content(&format!("buf:{ty}:100:undef"), ""), vec![0; 100 * bytes], "{ty}");
        let iota = content(&format!("buf:{ty}:100:iota"), "");
        let expected: Vec<u8> = (0..100u8)
            .flat_map(|i| match ty {
                "f16" => half::f16::from_f32(i.into()).to_le_bytes().to_vec(),
                "bf16" => half::bf16::from_f32(i.into()).to_le_bytes().to_vec(),
                "f32" => f32::from(i).to_le_bytes().to_vec(),
                "f64" => f64::from(i).to_le_bytes().to_vec(),
                _ => u64::from(i).to_le_bytes()[..bytes].to_vec(),
            })
            .collect();
        assert_eq!(iota, expected, "{ty}");
        let random = content(&format!("buf:{ty}:1000:rand"), "");
        let values: Vec<f64> = random.chunks_exact(bytes).map(|element| number(ty, element)).collect();
        let (least, most) = match ty {
            "i8" => (-128.0, 127.0),
            "u8" | "u32" | "u64" => (0.0, 255.0),
            "i32" | "i64" => (-256.0, 255.0),
            _ => (-1.0, 1.0),
        };
        let (low, high) = values.iter().fold((f64::MAX, f64::MIN), |(low, high), &x| (low.min(x), high.max(x)));
        let most_of_it = 0.9 * (most - least);
        assert!(low >= least && high <= most && high - low > most_of_it, "{ty}: from {low} to {high}");
        let mean = values.iter().sum::<f64>() / 1000.0;
        assert!((mean - (least + most) / 2.0).abs() < (most - least) / 16.0, "{ty}: mean {mean}");
    }
}

/// An element of a buffer as a number.
fn number(ty: &str, element: &[u8]) -> f64 {
    let mut bytes = [0; 8];
    bytes[..element.len()].copy_from_slice(element);
    let bits = u64::from_le_bytes(bytes);
    match ty {
        "f16" => half::f16::from_bits(bits as u16).into(),
        "bf16" => half::bf16::from_bits(bits as u16).into(),
        "f32" => f32::from_bits(bits as u32).into(),
        "f64" => f64::from_bits(bits),
        "i8" => f64::from(bits as i8),
        "i32" => f64::from(bits as i32),
        "i64" => bits as i64 as f64,
        _ => bits as f64,
    }
}

#[test]
fn random_buffers_depend_on_the_seed_and_differ_from_each_other() {
    let first = content("buf:u32:64:rand", "--seed 1");
    assert_eq!(first, content("buf:u32:64:rand", "--seed 1"));
    assert_ne!(first, content("buf:u32:64:rand", "--seed 2"));
    let both = dumps("nothing", "--grid 1 --block 1 --arg buf:u32:64:rand --arg buf:u32:64:rand --seed 1", &[0, 1]);
    assert_eq!(both[0], first);
    assert_ne!(both[0], both[1]);
}

#[test]
fn buffers_come_from_files_and_go_to_files() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("with:colon.bin");
    let bytes: Vec<u8> = (0..24u8).map(|i| i * 10).collect();
    fs::write(&file, &bytes).unwrap();
    assert_eq!(content(&format!("buf:f64:3:{}", file.display()), ""), bytes);
    assert_eq!(content(&format!("buf:f16:12:{}", file.display()), ""), bytes);
    assert_eq!(content("buf:f32:0:zero", ""), b"");
    let wrong = run("nothing", &format!("--grid 1 --block 1 --arg buf:f32:5:{} --arg u64:0", file.display()));
    assert_eq!(wrong.code, Some(2));
    assert!(wrong.error.contains("has 24 bytes, not 20"), "{}", wrong.error);
}

/// The parameters that `show` got: those of the struct and the number after it.
fn shown(arguments: &str) -> Vec<u8> {
    dumps("show", &format!("--grid 1 --block 1 --arg buf:u8:32:undef {arguments}"), &[0]).remove(0)
}

#[test]
fn scalars_fill_parameters_and_structs() {
    // struct Mixed { u8 a; u16 b; u32 c; u64 d; f32 e; f16 f; }, whose last two bytes are padding, and an f64.
    let scalars =
        "--arg u8:255 --arg f16:1 --arg i32:-2 --arg u64:0x1122334455667788 --arg f32:0.5 --arg bf16:-2 --arg f64:-1.5e300";
    let mut expected = vec![255, 0];
    expected.extend(half::f16::ONE.to_le_bytes());
    expected.extend((-2i32).to_le_bytes());
    expected.extend(0x1122_3344_5566_7788u64.to_le_bytes());
    expected.extend(0.5f32.to_le_bytes());
    expected.extend(half::bf16::from_f32(-2.0).to_le_bytes());
    expected.extend([0, 0]);
    expected.extend((-1.5e300f64).to_le_bytes());
    assert_eq!(shown(scalars), expected);
    // Padding may be filled as well.
    let full = "--arg u64:18446744073709551615 --arg i64:-9223372036854775808 --arg i32:-1 --arg i8:-128 --arg u8:0 --arg i8:127 --arg u8:7";
    let mut expected = vec![255; 8];
    expected.extend(i64::MIN.to_le_bytes());
    expected.extend([255, 255, 255, 255, 128, 0, 127, 7]);
    expected.extend(f64::NAN.to_le_bytes());
    assert_eq!(shown(&format!("{full} --arg f64:NaN")), expected);
    // A buffer in a struct is its address, the same as for any other buffer of that number.
    let bytes = shown("--arg u64:1 --arg buf:f32:8:zero --arg u64:0 --arg f64:0");
    let address = u64::from_le_bytes(bytes[8..16].try_into().unwrap());
    assert!(address != 0 && address.is_multiple_of(256));
}

#[test]
fn arguments_must_fit_the_parameters() {
    let base = "--grid 1 --block 1 --arg buf:u8:32:undef";
    let cases = [
        ("", "show takes 3 parameters; 24 of the 24 bytes of parameter 1, from 0, have no --arg"),
        ("--arg u64:1", "16 of the 24 bytes of parameter 1"),
        ("--arg u64:1 --arg u64:2 --arg u64:3", "8 of the 8 bytes of parameter 2"),
        ("--arg u64:1 --arg u64:2 --arg u64:3 --arg f32:1", "4 of the 8 bytes of parameter 2"),
        ("--arg u64:1 --arg u64:2 --arg u64:3 --arg f64:0 --arg f64:1", "--arg f64:1: show takes 3 parameters only"),
        ("--arg u64:1 --arg u64:2 --arg u64:3 --arg f32:1 --arg f64:2", "--arg f64:2: parameter 2 has 8 bytes only"),
    ];
    for (arguments, expected) in cases {
        let ran = run("show", &format!("{base} {arguments}"));
        assert_eq!(ran.code, Some(2), "{arguments}");
        assert!(ran.error.contains(expected), "{arguments}: {}", ran.error);
    }
}

#[test]
fn grids_and_blocks_have_up_to_three_extents() {
    let shapes =
        [("7", "33", [7, 1, 1], [33, 1, 1]), ("2,3", "4,5", [2, 3, 1], [4, 5, 1]), ("2,1,3", "3,2,4", [2, 1, 3], [3, 2, 4])];
    for (grid, block, [gx, gy, gz], [bx, by, bz]) in shapes {
        let threads: u32 = gx * gy * gz * bx * by * bz;
        let out = dumps("where", &format!("--grid {grid} --block {block} --arg buf:u32:{}:undef", 4 * threads), &[0]).remove(0);
        let packed = |x: u32, y: u32, z: u32| x | y << 8 | z << 16;
        for (i, place) in (0..threads).zip(words(&out).chunks_exact(4)) {
            let (thread, block) = (i % (bx * by * bz), i / (bx * by * bz));
            let tid = packed(thread % bx, thread / bx % by, thread / bx / by);
            let ctaid = packed(block % gx, block / gx % gy, block / gx / gy);
            assert_eq!(place, [tid, packed(bx, by, bz), ctaid, packed(gx, gy, gz)], "thread {i} of {grid} blocks of {block}");
        }
    }
}

/// The order in which warps of `order` took their tickets.
fn order(flags: &str) -> Vec<u8> {
    dumps("order", &format!("--grid 3 --block 256 --arg buf:u32:24:undef --arg buf:u32:1:zero {flags}"), &[0]).remove(0)
}

#[test]
fn a_block_has_the_shape_that_its_entry_requires() {
    assert_eq!(run("shaped", "--grid 3 --block 8,4").code, Some(0));
}

#[test]
fn an_index_outside_a_table_of_branches_is_a_fault() {
    for (index, code) in [(0, 0), (1, 0), (2, 4), (u32::MAX, 4)] {
        let ran = run("branches", &format!("--grid 1 --block 32 --arg u32:{index}"));
        assert_eq!(ran.code, Some(code), "{index}: {}", ran.error);
        for fault in faults(&ran) {
            assert_eq!(fault["kind"], "out-of-bounds");
            assert_eq!(fault["address"], format!("{index:#x}"));
            assert!(fault["message"].as_str().unwrap().contains("a table of 2 targets"), "{fault}");
        }
        assert_eq!(faults(&ran).len(), usize::from(code == 4));
    }
}

#[test]
fn a_seed_decides_the_order_of_warps() {
    let first = order("--threads 1 --seed 5");
    assert_eq!(first, order("--threads 1 --seed 5"));
    let others: Vec<Vec<u8>> = (0..5).map(|seed| order(&format!("--threads 1 --seed {seed}"))).collect();
    assert!(others.iter().any(|other| *other != first));
    for other in others.into_iter().chain([order(""), order("--threads 3")]) {
        let mut warps = words(&other);
        warps.sort_unstable();
        assert_eq!(warps, (0..24).map(|warp| 32 * warp).collect::<Vec<_>>());
    }
}

#[test]
fn the_same_seed_reports_the_same() {
    let report = |seed: u32| {
        let ran = run("faulty", &format!("--grid 4 --block 64 --arg buf:f32:64:rand --threads 1 --profile --seed {seed}"));
        (ran.out, ran.error)
    };
    assert_eq!(report(9), report(9));
}

#[test]
fn dynamic_shared_memory() {
    for bytes in [4u32, 1000, 48 << 10, 227 << 10] {
        let out = dumps("last_word", &format!("--grid 1 --block 1 --shared {bytes} --arg buf:u32:2:undef"), &[0]).remove(0);
        assert_eq!(words(&out), [bytes, 0x1234_5678]);
    }
    let none = run("last_word", "--grid 1 --block 1 --arg buf:u32:2:undef");
    assert_eq!(none.code, Some(4));
    assert!(faults(&none).iter().all(|fault| fault["kind"] == "out-of-bounds"), "{}", none.error);
    let too_much = run("last_word", "--grid 1 --block 1 --shared 232452 --arg buf:u32:2:undef");
    assert_eq!(too_much.code, Some(2));
    assert!(too_much.error.contains("shared memory"), "{}", too_much.error);
}

#[test]
fn the_profile_tells_what_a_launch_did() {
    let ran = run("counted", "--grid 1 --block 32 --arg buf:f32:32:undef --profile");
    assert_eq!((ran.code, &*ran.error), (Some(0), ""));
    let row = |first: &str| {
        let line = ran.out.lines().find(|line| line.trim_start().starts_with(first));
        line.unwrap_or_else(|| panic!("no `{first}` in {}", ran.out)).split_whitespace().collect::<Vec<_>>().join(" ")
    };
    for chip in ["a100", "rtx4090", "h100", "h200"] {
        assert!(row(chip).contains("shared"), "{}", ran.out);
    }
    // 32 passes of 128 bytes, one a clock at 1.41 GHz.
    assert!(row("a100").starts_with("a100 22.7 ns shared"), "{}", ran.out);
    assert_eq!(row("tensor FLOP"), "tensor FLOP 4096 32.0 FLOP/B of memory");
    assert_eq!(row("global bytes"), "global bytes asked for 128 100 % of the bytes of 4 sectors");
    assert_eq!(row("distinct bytes"), "distinct bytes 128 0 read, 128 written");
    assert_eq!(row("shared-memory"), "shared-memory wavefronts 32 1 without bank conflicts (32-way)");
    assert_eq!(row("tensor "), "tensor 1 9.1 % 32.0");
    assert_eq!(row("integer "), "integer 6 54.5 % 32.0");
    assert_eq!(row("all"), "all 11");
    assert!(
        row("kernels.cu:21").contains("32 1 32-way") && row("kernels.cu:21").ends_with("st.shared.u32 [%r4], %r1;"),
        "{}",
        ran.out
    );
    // Lines come in the order of their share.
    let (conflicts, stores) = (ran.out.find("kernels.cu:21").unwrap(), ran.out.find("kernels.cu:23").unwrap());
    assert!(conflicts < stores);
}

#[test]
fn the_profile_can_be_for_one_chip() {
    let ran = run("counted", "--grid 1 --block 32 --arg buf:f32:32:undef --profile --chip h100");
    assert_eq!(ran.code, Some(0));
    assert!(ran.out.contains("h100") && ["a100", "rtx4090", "h200"].iter().all(|chip| !ran.out.contains(chip)), "{}", ran.out);
    let plain = run("counted", "--grid 1 --block 32 --arg buf:f32:32:undef --chip h100");
    assert_eq!((plain.code, &*plain.out), (Some(0), ""));
}

#[test]
fn a_closed_pipe_is_no_failure() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ptxsim"));
    command.args(["run", KERNELS, "--entry", "faulty", "--grid", "1", "--block", "64", "--arg", "buf:f32:64:zero", "--profile"]);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop((child.stdout.take(), child.stderr.take()));
    assert_eq!(child.wait().unwrap().code(), Some(4));
}

/// Misuse: arguments after `run KERNELS`, and words that the message must hold.
const MISUSED: [(&str, &[&str]); 36] = [
    ("--grid 1 --block 1", &["--entry <NAME>", "required"]),
    ("--entry nothing --block 1", &["--grid <X[,Y[,Z]]>", "required"]),
    ("--entry nothing --grid 1", &["--block <X[,Y[,Z]]>", "required"]),
    ("--entry nothing --grid --block 1", &["--grid <X[,Y[,Z]]>", "value"]),
    ("--entry nothing --grid 1,1,1,1 --block 1", &["--grid <X[,Y[,Z]]>", "three"]),
    ("--entry nothing --grid x --block 1", &["--grid <X[,Y[,Z]]>", "`x` is not a number"]),
    ("--entry nothing --grid 1,,2 --block 1", &["--grid <X[,Y[,Z]]>", "`` is not a number"]),
    ("--entry nothing --grid -1 --block 1", &["-1"]),
    ("--entry nothing --grid 0 --block 1 --arg u64:0 --arg u64:0", &["`nothing`", "grid", "0 along x", "1 to 2147483647"]),
    ("--entry nothing --grid 1,65536 --block 1 --arg u64:0 --arg u64:0", &["grid", "65536 along y", "1 to 65535"]),
    ("--entry nothing --grid 1 --block 1,1,65 --arg u64:0 --arg u64:0", &["block", "65 along z", "1 to 64"]),
    ("--entry nothing --grid 1 --block 1025 --arg u64:0 --arg u64:0", &["block", "1025 along x", "1 to 1024"]),
    ("--entry nothing --grid 1 --block 64,32 --arg u64:0 --arg u64:0", &["2048 threads", "1024"]),
    ("--entry shaped --grid 1 --block 32", &["`shaped`", "[32, 1, 1]", "[8, 4, 1]"]),
    ("--entry shaped --grid 1 --block 4,8", &["[4, 8, 1]", "[8, 4, 1]"]),
    ("--entry small --grid 1 --block 65", &["`small`", "65 threads", "64"]),
    ("--entry nothing --grid 1 --block 1 --shared x", &["--shared <BYTES>"]),
    ("--entry nothing --grid 1 --block 1 --shared 4294967296", &["--shared <BYTES>"]),
    ("--entry nothing --grid 1 --block 1 --seed -1", &["-1"]),
    ("--entry nothing --grid 1 --block 1 --threads 9999", &["--threads <N>"]),
    ("--entry nothing --grid 1 --block 1 --chip b200", &["--chip", "a100, rtx4090, h100, h200"]),
    ("--entry nothing --grid 1 --block 1 --frobnicate", &["--frobnicate"]),
    ("--entry nothing --grid 1 --block 1 more", &["more"]),
    ("--entry nothing --grid 1 --block 1 --arg f32", &["--arg f32", "buf:TYPE:COUNT:rand|zero|iota|undef|FILE or TYPE:VALUE"]),
    ("--entry nothing --grid 1 --block 1 --arg buf:f32:7", &["--arg buf:f32:7", "TYPE:VALUE"]),
    ("--entry nothing --grid 1 --block 1 --arg buf:f32:x:zero", &["`x` is not a number", "TYPE:VALUE"]),
    ("--entry nothing --grid 1 --block 1 --arg buf:f33:7:zero", &["unknown type `f33`", "TYPE:VALUE"]),
    ("--entry nothing --grid 1 --block 1 --arg buf:f32:7:", &["--arg buf:f32:7:", "no content"]),
    ("--entry nothing --grid 1 --block 1 --arg buf:f64:99999999999:undef", &["more than 32 GiB"]),
    ("--entry nothing --grid 1 --block 1 --arg u8:256", &["--arg u8:256", "`256` is not a value of that type"]),
    ("--entry nothing --grid 1 --block 1 --arg u64:-1", &["--arg u64:-1", "not a value"]),
    ("--entry nothing --grid 1 --block 1 --arg buf:f32:7:/no/such/file --arg u64:0", &["/no/such/file", "--arg buf:f32:7"]),
    ("--entry nothing --grid 1 --block 1 --arg u64:0 --dump 0", &["--dump 0", "I:FILE"]),
    ("--entry nothing --grid 1 --block 1 --arg u64:0 --dump x:out", &["--dump x:out", "I:FILE"]),
    ("--entry nothing --grid 1 --block 1 --arg u64:0 --dump 1:out", &["--dump 1:out", "1 arguments"]),
    ("--entry nothing --grid 1 --block 1 --arg u64:0 --dump 0:out", &["--dump 0:out", "not a buffer"]),
];

#[test]
fn misuse_names_the_flag_and_what_it_takes() {
    let mut wrong = Vec::new();
    for (arguments, expected) in MISUSED {
        let ran = ptxsim(&format!("run {KERNELS} {arguments}"));
        let missing: Vec<&&str> = expected.iter().filter(|word| !ran.error.contains(**word)).collect();
        if ran.code != Some(2) || !ran.out.is_empty() || !missing.is_empty() || !ran.error.starts_with("error: ") {
            wrong.push(format!("{arguments}: exit code {:?}, without {missing:?}: {}", ran.code, ran.error));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Runs an entry of a file of these bytes, which must be refused.
fn refused(name: &str, bytes: &[u8]) -> String {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join(name);
    fs::write(&file, bytes).unwrap();
    let ran = ptxsim(&format!("run {} --entry e --grid 1 --block 1", file.display()));
    assert_eq!((ran.code, &*ran.out), (Some(2), ""), "{name}: {}", ran.error);
    assert!(ran.error.starts_with("error: ") && ran.error.contains(name), "{name}: {}", ran.error);
    ran.error
}

#[test]
fn files_that_are_not_ptx_are_refused() {
    let missing = ptxsim("run /no/such/file.ptx --entry e --grid 1 --block 1");
    assert_eq!(missing.code, Some(2));
    assert!(missing.error.contains("/no/such/file.ptx"), "{}", missing.error);
    let folder = ptxsim("run / --entry e --grid 1 --block 1");
    assert_eq!(folder.code, Some(2));

    assert!(refused("a.png", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01").contains("it takes PTX"));
    assert!(refused("a.cubin", b"\x7fELF\x02\x01\x01A\x08\0\0\0\xfe\xff").contains("it takes PTX"));
    assert!(refused("empty.ptx", b"").contains("this is not a PTX file"));
    assert!(refused("a.cu", b"#include <cuda.h>\n__global__ void e() {}\n").contains("a.cu:1:"));
    assert!(refused("a.json", b"{}").contains("a.json:1:"));
}

#[test]
fn broken_ptx_names_line_and_text() {
    let head = ".version 9.0\n.target sm_80\n.address_size 64\n";
    let error = refused("a.ptx", format!("{head}.entry e() {{\n.reg .b32 %r<9>;\nfrob.u32 %r1, %r2;\nret;\n}}\n").as_bytes());
    assert!(error.contains("a.ptx:6: unknown instruction `frob.u32`\n    frob.u32 %r1, %r2;"), "{error}");
    let error =
        refused("b.ptx", format!("{head}.entry e() {{\n.reg .b32 %r<9>;\nadd.u32.foo %r1, %r2, 1;\nret;\n}}\n").as_bytes());
    assert!(error.contains("b.ptx:6: unknown modifier `.foo` of `add.u32.foo`"), "{error}");
}

#[test]
fn a_missing_entry_lists_those_there_are() {
    let ran = run("nothin", "--grid 1 --block 1");
    assert_eq!(ran.code, Some(2));
    let all = ["nothing", "show", "where", "order", "last_word", "small", "shaped", "branches", "faulty", "counted"];
    assert!(ran.error.contains("`nothin`") && ran.error.contains(&all.join(", ")), "{}", ran.error);
    assert!(refused("none.ptx", b".version 9.0\n.target sm_80\n.address_size 64\n").contains("it has none"));
}

/// Lines of PTX are another compiler's affair; folders are this machine's.
fn portable(text: &str, folder: &Path) -> String {
    let folder = folder.canonicalize().unwrap();
    let text = text.replace(&*folder.to_string_lossy(), "/tmp/demo");
    let numbers = |part: &str| part.trim_start_matches(|c: char| c.is_ascii_digit()).to_owned();
    let mut parts = text.split("\"ptx_line\":");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |all, part| all + "\"ptx_line\":" + &numbers(part))
}

/// The session in the README, run again line by line.
#[test]
fn the_session_in_the_readme_is_real() {
    let (_, session) = include_str!("../README.md").split_once("```console\n").unwrap();
    let (session, _) = session.split_once("```").unwrap();
    let folder = TempDir::new().unwrap();
    let nvcc = nvcc();
    let tools = [Path::new(env!("CARGO_BIN_EXE_ptxsim")).parent(), nvcc.path().parent()].map(Option::unwrap).map(Path::to_owned);
    let path = std::env::join_paths(tools.into_iter().chain(std::env::split_paths(&std::env::var_os("PATH").unwrap()))).unwrap();
    let mut commands = 0;
    for step in session.split("$ ").filter(|step| !step.is_empty()) {
        let (command, expected) = step.split_once('\n').unwrap();
        if let Some(file) = command.strip_prefix("cat ") {
            fs::write(folder.path().join(file), expected).unwrap();
        }
        let command = format!("exec 2>&1; {command}");
        let output = Command::new("sh").args(["-c", &command]).current_dir(folder.path()).env("PATH", &path).output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        assert_eq!(portable(&said, folder.path()), portable(expected, folder.path()), "{command}");
        commands += 1;
    }
    assert_eq!(commands, 7);
}

#[test]
fn the_kernels_of_these_tests_are_ptx() {
    let folder = TempDir::new().unwrap();
    nvcc().cubin(Path::new(KERNELS), "sm_80", &folder.path().join("kernels.cubin")).unwrap_or_else(|error| panic!("{error}"));
}
