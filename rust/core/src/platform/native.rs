//! OS threads: `std` atomics, `crossbeam-epoch` as RCU.
