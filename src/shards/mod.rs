//! TODO module shards
