//! Coroutines for the platforms that run many CPUs on one thread.
