"""A small program on an installed spfemu: `make wheel` runs it where there is no Rust."""

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import spfemu
from spfemu.program import ProgramBuilder


def main() -> int:
    installed = Path(sysconfig.get_path("purelib"))
    if installed not in Path(spfemu.__file__).parents:
        sys.exit(f"spfemu is imported from {spfemu.__file__}, not from {installed}")
    if found := shutil.which("cargo") or shutil.which("rustc"):
        sys.exit(f"{found} is on PATH: nothing is proved")

    builder = ProgramBuilder()
    task = builder.task("t0")
    task.mmap(0x4000, prot="rw", flags=("private", "anonymous"), id="area")
    task.write(("area", 0x1000), value=42)
    task.read(("area", 0x1000))
    task.munmap(("area", 0), 0x4000)
    result = spfemu.run(builder.build(), engine="native", handler="classic")
    read = result.ops[2]
    if (result.counters["faults"], int(read["value"])) != (1, 42):
        sys.exit(f"expected one fault and 42 read back, got {result.counters}, {read}")

    subprocess.run(["spfemu", "events"], check=True, stdout=subprocess.DEVNULL)
    a7 = spfemu.scenario("A7")
    if not spfemu.explore(a7.program, **a7.settings)["violations"]:
        sys.exit("nothing was found without the second check")
    print(f"the wheel of spfemu {spfemu.__version__} runs with no Rust on PATH")
    return 0


if __name__ == "__main__":
    sys.exit(main())
