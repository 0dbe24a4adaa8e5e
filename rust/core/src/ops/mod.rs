//! The writers: one file a system call.
