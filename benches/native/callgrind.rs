//! Counting instructions, for which this program runs itself under valgrind.

use std::io::ErrorKind;
use std::process::Command;

/// Counts the instructions within the functions whose name contains `function`, while this program
/// runs with `arguments`. `Err`: why they cannot be counted here.
pub fn count(function: &str, arguments: &[&str]) -> Result<u64, String> {
    let itself = std::env::current_exe().map_err(|error| error.to_string())?;
    let run = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--demangle=no"])
        .arg(format!("--toggle-collect=*{function}*"))
        .arg(itself)
        .args(arguments)
        .output();
    let output = match run {
        Ok(output) => output,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err("no valgrind (Debian, Ubuntu: apt-get install valgrind)".to_owned());
        }
        Err(error) => return Err(format!("valgrind cannot be run: {error}")),
    };
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(format!("valgrind ended with {}: {said}", output.status));
    }
    let collected = said.lines().find_map(|line| line.split_once("Collected : "));
    match collected.and_then(|(_, number)| number.trim().parse().ok()) {
        None | Some(0) => Err(format!("callgrind counted nothing: {said}")),
        Some(count) => Ok(count),
    }
}
