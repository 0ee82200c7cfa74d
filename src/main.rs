//! `syntic`: parse, dispatch, exit code.
fn main() {}
