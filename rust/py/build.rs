//! Hands what only the build knows to `build_info()`: the compiler, the target and the profile.

use std::env;
use std::process::Command;

fn main() {
    let rustc = env::var("RUSTC").expect("cargo sets RUSTC for build scripts");
    let version = Command::new(&rustc)
        .arg("--version")
        .output()
        .ok()
        .and_then(|output| String::from_utf8(output.stdout).ok())
        .map_or_else(|| "unknown".to_owned(), |text| text.trim().to_owned());
    println!("cargo::rustc-env=SPFEMU_RUSTC={version}");
    for (ours, cargos) in
        [("SPFEMU_TARGET", "TARGET"), ("SPFEMU_PROFILE", "PROFILE"), ("SPFEMU_OPT", "OPT_LEVEL")]
    {
        let value = env::var(cargos).expect("cargo sets it for build scripts");
        println!("cargo::rustc-env={ours}={value}");
    }
    println!("cargo::rerun-if-changed=build.rs");
}
