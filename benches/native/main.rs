//! The native platform, by the bars that only Rust can measure: see `benches/README.md`.
//!
//! `cargo bench --bench native` runs all parts, `cargo bench --bench native -- fault` those whose
//! names are given.

mod callgrind;
mod fault;
mod figures;
mod floor;
mod host;
mod layout;
mod measure;
mod os;
mod process;
mod threads;
mod twin;

const PARTS: [(&str, fn()); 5] = [
    ("fault", fault::times),
    ("instructions", fault::instructions),
    ("host", host::against_the_host),
    ("threads", threads::two_threads),
    ("churner", threads::beside_a_churner),
];

fn main() {
    let given: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    if let [option, which] = given.as_slice()
        && option == "--counted"
    {
        return fault::counted(which);
    }
    println!("native platform, on {}", os::description());
    for (name, part) in PARTS {
        if given.is_empty() || given.iter().any(|word| word == name) {
            part();
        }
    }
}
