use crate::error::Error;

/// A kernel of a cubin and what a thread or block of it takes. Sizes in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// The `extern "C"` name.
    pub name: String,
    /// 32-bit registers per thread.
    pub registers: u32,
    /// Local memory per thread, that of called functions included.
    pub stack: u32,
    /// Stores to local memory for want of registers, per thread, that of called functions included.
    pub spill_stores: u32,
    /// Loads for the same reason.
    pub spill_loads: u32,
    /// Shared memory per block that is declared with a size.
    pub static_shared: u32,
    /// Constant memory, parameters included; 0 where ptxas does not tell (sm_90a).
    pub constant: u32,
    /// Threads per block, at most, if the kernel says so (`__launch_bounds__`).
    pub max_threads: Option<u32>,
}

impl Entry {
    /// Whether it touches local memory, which is memory traffic that no formula of a kernel accounts for.
    pub fn uses_local_memory(&self) -> bool {
        self.stack > 0 || self.spill_stores > 0 || self.spill_loads > 0
    }
}

/// What `ptxas -v` says of the kernels of a file, sorted by name.
pub(crate) fn entries(output: &str) -> Result<Vec<Entry>, Error> {
    let mut entries: Vec<Entry> = Vec::new();
    for line in output.lines() {
        let text = line.strip_prefix("ptxas info").map_or(line, |rest| rest.trim_start_matches([' ', ':'])).trim();
        let unreadable = || Error::Resources { message: format!("{line:?}") };
        if let Some(rest) = text.strip_prefix("Compiling entry function '") {
            let name = rest.split('\'').next().unwrap_or_default().to_owned();
            entries.push(Entry { name, ..Entry::default() });
        } else if text.contains(" bytes stack frame, ") {
            // That of the kernel, then, after its registers, those of the functions that it calls.
            let entry = entries.last_mut().ok_or_else(unreadable)?;
            entry.stack = entry.stack.max(number_before(text, " bytes stack frame").ok_or_else(unreadable)?);
            entry.spill_stores += number_before(text, " bytes spill stores").ok_or_else(unreadable)?;
            entry.spill_loads += number_before(text, " bytes spill loads").ok_or_else(unreadable)?;
        } else if text.starts_with("Used ") {
            let entry = entries.last_mut().ok_or_else(unreadable)?;
            entry.registers = number_before(text, " registers").ok_or_else(unreadable)?;
            entry.stack = entry.stack.max(number_before(text, " bytes cumulative stack size").unwrap_or(0));
            entry.static_shared = number_before(text, " bytes smem").unwrap_or(0);
            entry.constant = text.split(", ").filter_map(|part| number_before(part, " bytes cmem[")).sum();
        }
    }
    match entries.iter().find(|entry| entry.registers == 0) {
        Some(entry) => Err(Error::Resources { message: format!("no registers told for {}", entry.name) }),
        None => {
            entries.sort_by(|a, b| a.name.cmp(&b.name));
            Ok(entries)
        }
    }
}

/// The lines of ptxas that are not about resources.
pub(crate) fn warnings(output: &str) -> String {
    let told = |line: &&str| !line.trim().is_empty() && !line.starts_with("ptxas info") && !line.contains(" bytes stack frame, ");
    output.lines().filter(told).collect::<Vec<_>>().join("\n")
}

/// The number that stands right before `unit`.
fn number_before(text: &str, unit: &str) -> Option<u32> {
    let (before, _) = text.split_once(unit)?;
    before.rsplit([' ', ',']).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Recorded from ptxas 13.0.88.
    const SM80: &str = "\
ptxas info    : 36 bytes gmem, 16 bytes cmem[3]
ptxas info    : Compiling entry function 'spilly' for 'sm_80'
ptxas info    : Function properties for spilly
    112 bytes stack frame, 112 bytes spill stores, 120 bytes spill loads
ptxas info    : Used 24 registers, used 0 barriers, 112 bytes cumulative stack size, 368 bytes cmem[0]
ptxas info    : Compile time = 10.954 ms
ptxas info    : Compiling entry function 'scale_f16' for 'sm_80'
ptxas info    : Function properties for scale_f16
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 11 registers, used 1 barriers, 512 bytes smem, 384 bytes cmem[0], 8 bytes cmem[2]
ptxas info    : Compile time = 1.935 ms
";

    /// A kernel that calls a function, as ptxas 13.0.88 tells it, but with a different number in every place.
    const CALLS: &str = "\
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'nest' for 'sm_90a'
ptxas info    : Function properties for nest
    120 bytes stack frame, 4 bytes spill stores, 24 bytes spill loads
ptxas info    : Used 47 registers, used 0 barriers, 136 bytes cumulative stack size
ptxas info    : Compile time = 12.014 ms
ptxas info    : Function properties for _ZN35_INTERNAL_48c98f91_9_nested_cu_nest5heavyEfPKf
    16 bytes stack frame, 8 bytes spill stores, 12 bytes spill loads
ptxas warning : Something to know
";

    #[test]
    fn recorded_reports() {
        let spilly = Entry {
            name: "spilly".into(),
            registers: 24,
            stack: 112,
            spill_stores: 112,
            spill_loads: 120,
            static_shared: 0,
            constant: 368,
            max_threads: None,
        };
        let scale = Entry { name: "scale_f16".into(), registers: 11, static_shared: 512, constant: 392, ..Entry::default() };
        assert_eq!(entries(SM80).unwrap(), [scale.clone(), spilly.clone()]);
        assert!(spilly.uses_local_memory() && !scale.uses_local_memory());
        assert_eq!(warnings(SM80), "");

        let nest =
            Entry { name: "nest".into(), registers: 47, stack: 136, spill_stores: 12, spill_loads: 36, ..Entry::default() };
        assert_eq!(entries(CALLS).unwrap(), [nest]);
        assert_eq!(warnings(CALLS), "ptxas warning : Something to know");
    }

    #[test]
    fn another_form_is_an_error() {
        let cut = SM80.replace("Used 11 registers", "Took 11 registers");
        assert_eq!(entries(&cut).unwrap_err().to_string(), "cannot read the output of ptxas: no registers told for scale_f16");
        let renamed = SM80.replace("bytes spill stores", "bytes spilled");
        assert!(matches!(entries(&renamed), Err(Error::Resources { .. })));
        assert_eq!(entries("").unwrap(), []);
    }
}
