//! How figures are told: medians, and lines for the table at the end. `models/` uses it, too.

use std::fmt::Display;
use std::io::Write;

/// The one in the middle.
pub fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// Prints one figure.
pub fn figure(what: &str, value: f64, unit: &str) {
    println!("  {what:<50} {value:>10.2} {unit}");
}

/// Prints a ratio that has a bar, and keeps it for the table of `make bench`.
pub fn against_bar(what: &str, measured: impl Display, bar: &str, is_met: bool) {
    conclude(what, &measured.to_string(), bar, if is_met { "met" } else { "missed" });
}

/// Prints how what is measured stands to its bar, and keeps it for the table of `make bench`.
pub fn conclude(what: &str, measured: &str, bar: &str, verdict: &str) {
    println!("  {what}: {measured} (bar: {bar}): {verdict}");
    if let Ok(path) = std::env::var("SPFEMU_BENCH_TABLE") {
        let table = std::fs::OpenOptions::new().create(true).append(true).open(path);
        let row = format!("{what}\t{measured}\t{bar}\t{verdict}\n");
        table.and_then(|mut table| table.write_all(row.as_bytes())).expect("the table is writable");
    }
}
