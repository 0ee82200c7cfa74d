//! TODO module weights
