//! The tokenizer: its ids against those of transformers, and its refusal of broken folders.

mod captions;
mod folders;
mod ids;
mod support;
