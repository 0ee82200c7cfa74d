//! TODO module bench
