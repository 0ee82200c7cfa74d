//! What is read from and changed in the text of PTX.

use std::collections::HashMap;
use std::path::Path;

/// Marks names of internal linkage; eight hexadecimal digits follow, which nvcc makes from the absolute path of the source.
const INTERNAL: &str = "_INTERNAL_";
const DIGITS: usize = 8;

/// Numbers in a `.b8` line of nvcc.
const BYTES_A_LINE: usize = 40;

/// The PTX with nothing in it that depends on where the workspace and the toolkit lie: `.file` names relative to `root`, toolkit headers
/// as `cuda/include/...`, and internal names without the hash of the path.
pub(crate) fn portable(text: &str, root: &Path, toolkits: &[String]) -> String {
    let mut result = String::with_capacity(text.len());
    let mut bytes = Vec::new();
    for line in text.lines() {
        // The names of inlined functions stand at the end, in `.debug_str`, as lists of numbers.
        if let Some(numbers) = line.strip_prefix(".b8 ").and_then(numbers) {
            bytes.extend(numbers);
            continue;
        }
        push_bytes(&mut result, &mut bytes);
        match line.trim_start().strip_prefix(".file") {
            Some(_) => result.push_str(&file_line(line, root, toolkits)),
            None => result.push_str(&without_path_hash(line)),
        }
        result.push('\n');
    }
    push_bytes(&mut result, &mut bytes);
    result
}

/// The numbers of `1,2,3`; none for the initial value of a variable, which has a name in its line.
fn numbers(list: &str) -> Option<Vec<u8>> {
    list.split(',').map(|number| number.trim().parse().ok()).collect()
}

fn push_bytes(result: &mut String, bytes: &mut Vec<u8>) {
    let text: String = bytes.iter().map(|&byte| char::from(byte)).collect();
    for line in without_path_hash(&text).chars().collect::<Vec<_>>().chunks(BYTES_A_LINE) {
        let numbers: Vec<String> = line.iter().map(|&byte| (byte as u32).to_string()).collect();
        result.push_str(".b8 ");
        result.push_str(&numbers.join(","));
        result.push('\n');
    }
    bytes.clear();
}

fn without_path_hash(text: &str) -> String {
    let mut parts = text.split(INTERNAL);
    let mut result = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        result.push_str(INTERNAL);
        let hashed = part.as_bytes().get(DIGITS) == Some(&b'_') && part.as_bytes()[..DIGITS].iter().all(u8::is_ascii_hexdigit);
        let kept = if hashed { DIGITS } else { 0 };
        result.extend(std::iter::repeat_n('0', kept));
        result.push_str(&part[kept..]);
    }
    result
}

/// `.file 1 "/home/me/tree/kernels/a.cu"` becomes `.file 1 "kernels/a.cu"`.
fn file_line(line: &str, root: &Path, toolkits: &[String]) -> String {
    let Some((start, rest)) = line.split_once('"') else { return line.to_owned() };
    let Some((name, end)) = rest.split_once('"') else { return line.to_owned() };
    let name = normal(name);
    let of_toolkit = toolkits.iter().find_map(|home| Path::new(&name).strip_prefix(home).ok());
    let short = match (of_toolkit, Path::new(&name).strip_prefix(root)) {
        (Some(inside), _) => {
            // Distributions put the headers into targets/x86_64-linux/include.
            let inside = inside.to_string_lossy();
            format!("cuda/{}", inside.find("include/").map_or(&*inside, |at| &inside[at..]))
        }
        (None, Ok(inside)) => inside.to_string_lossy().into_owned(),
        (None, Err(_)) => name,
    };
    format!("{start}\"{short}\"{end}")
}

/// A path without `.`, `..` and double slashes, by its text alone.
pub(crate) fn normal(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    let start = if path.starts_with('/') { "/" } else { "" };
    format!("{start}{}", parts.join("/"))
}

/// Threads per block, at most, of the kernels that say so.
pub(crate) fn launch_bounds(text: &str) -> HashMap<&str, u32> {
    let mut bounds = HashMap::new();
    let mut entry = None;
    for line in text.lines() {
        let words = line.trim();
        if let Some((_, rest)) = words.split_once(".entry ") {
            entry = rest.split('(').next().map(str::trim);
        } else if let Some(sizes) = words.strip_prefix(".maxntid").or_else(|| words.strip_prefix(".reqntid")) {
            let threads: Option<u32> = sizes.split(',').map(|size| size.trim().parse::<u32>().ok()).product();
            if let (Some(name), Some(threads)) = (entry, threads) {
                bounds.insert(name, threads);
            }
        } else if words == "{" {
            entry = None;
        }
    }
    bounds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names_are_relative() {
        let text = "\t.file\t1 \"/home/me/tree/kernels/gemm/gemm_nt.cu\"\n\
                    \t.file\t2 \"/opt/cuda/bin/..//targets/x86_64-linux/include/cuda_fp16.hpp\"\n\
                    \t.file\t3 \"/home/me/tree/.cuda/bin/..//include/cccl/cuda/std/array\", 17, 4\n\
                    \t.file\t4 \"/usr/include/math.h\"\n";
        let toolkits = ["/opt/cuda".to_owned(), "/home/me/tree/.cuda".to_owned()];
        let expected = "\t.file\t1 \"kernels/gemm/gemm_nt.cu\"\n\
                        \t.file\t2 \"cuda/include/cuda_fp16.hpp\"\n\
                        \t.file\t3 \"cuda/include/cccl/cuda/std/array\", 17, 4\n\
                        \t.file\t4 \"/usr/include/math.h\"\n";
        assert_eq!(portable(text, Path::new("/home/me/tree"), &toolkits), expected);
    }

    #[test]
    fn internal_names_have_no_hash() {
        let ascii = |text: &str| text.bytes().map(|byte| byte.to_string()).collect::<Vec<_>>();
        let listed = |name: &str| {
            let lines: Vec<String> = ascii(name).chunks(BYTES_A_LINE).map(|line| format!(".b8 {}\n", line.join(","))).collect();
            lines.concat()
        };
        let text = |hash: &str| {
            let name = format!("_ZN8_GLOBAL__N_3longprefix4_ZN35_INTERNAL_{hash}_8_scale_cu_table12__half2floatE6__half\0");
            format!("call _ZN28_INTERNAL_{hash}_5_st_cu_k5heavyEf, (x);\n$L__info_string0:\n{}}}\n", listed(&name))
        };
        assert_eq!(portable(&text("345e1da0"), Path::new("/"), &[]), text("00000000"));
        // Not the name that nvcc makes.
        assert_eq!(without_path_hash("a_INTERNAL_state"), "a_INTERNAL_state");
        let value = ".const .align 4 .b8 table[4] = {0, 0, 128, 63};\n";
        assert_eq!(portable(value, Path::new("/"), &[]), value);
    }

    #[test]
    fn bounds() {
        let text = ".visible .entry a(\n\t.param .u64 a_param_0\n)\n.maxntid 128, 2, 1\n.minnctapersm 2\n{\n}\n\
                    .visible .entry b(\n)\n{\n}\n.visible .entry c()\n.reqntid 64\n{\n}\n";
        assert_eq!(launch_bounds(text), HashMap::from([("a", 256), ("c", 64)]));
    }
}
