//! TODO module corpus
