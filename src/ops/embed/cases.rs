//! Embeddings of text encoders, for benches and tests.

/// Texts and the tables that they are looked up in.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// Where it occurs.
    pub name: &'static str,
    /// Texts.
    pub batch: usize,
    /// Tokens of a text.
    pub length: usize,
    /// Tokens of the table.
    pub vocabulary: usize,
    /// Width of a row.
    pub width: usize,
}

impl Case {
    /// Floating-point operations.
    pub fn flops(&self) -> u64 {
        (self.batch * self.length * self.width) as u64
    }

    /// Bytes of elements of `size` bytes: a row of each table and of the result for each token.
    pub fn bytes(&self, size: usize) -> u64 {
        3 * size as u64 * self.flops()
    }
}

/// The text encoder of SD 1.5, for one prompt with guidance and for 64.
pub fn cases() -> Vec<Case> {
    let case = |name, batch| Case { name, batch, length: 77, vocabulary: 49_408, width: 768 };
    vec![case("text batch 2", 2), case("text batch 64", 64)]
}
