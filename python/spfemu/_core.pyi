"""The compiled half of spfemu. Private: use the package ``spfemu``."""

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

__all__ = [
    "__version__",
    "arch_profiles",
    "build_info",
    "explore",
    "machine",
    "machines",
    "mutants",
    "oracle",
    "run",
    "variants",
]

__version__: Final[str]

def build_info() -> dict[str, str]:
    """Returns how this binary was built.

    Source: ours.

    Returns:
        ``version`` (of the package), ``profile`` ("release" or "debug"), ``opt_level`` ("0" to
        "3"), ``checks`` ("on" if debug assertions are compiled in, else "off"), ``target`` (the
        Rust target triple) and ``rustc`` (the compiler's own version line).

    Deterministic: constants of the binary.

    >>> from spfemu import _core
    >>> sorted(_core.build_info())
    ['checks', 'opt_level', 'profile', 'rustc', 'target', 'version']
    """

def arch_profiles() -> str:
    """Returns the arch profiles that come with the package.

    Source: Linux 5.1; each profile says where its numbers are from.

    Returns:
        A JSON text: a list of objects with the fields of ``spfemu.profiles.Arch``.

    Deterministic: constants of the binary.
    """

def machines() -> str:
    """Returns the machines that virtual time knows.

    Source: each number says where it is from.

    Returns:
        A JSON text: a list of objects with ``name``, ``arch``, ``summary``, ``cpus``,
        ``page_size`` (bytes), and ``values``, a list of objects with ``name``,
        ``value``, ``unit``, ``kind``, ``source`` and ``what``.

    Deterministic: constants of the binary.
    """

def machine(text: str, *, is_json: bool = False, base: str | None = None) -> str:
    """Reads a machine, and returns what is known of it.

    Source: the user; the numbers it inherits are those of ``machines``.

    Args:
        text: TOML, or JSON: a machine, or with ``base`` what is to be changed there.
        is_json: The text is JSON.
        base: The JSON text of a machine.

    Returns:
        A JSON text: an object as in ``machines``.

    Raises:
        ProfileError: The field, the value and what is allowed.

    Deterministic: the arguments.
    """

def mutants() -> str:
    """Returns the mutants: checks of v12 that an exploration can remove.

    Source: section 9 of the series' specification, entries A.

    Returns:
        A JSON text: a list of objects with ``name``, ``entry``, ``kind``, ``cpus`` (how many the
        race takes), ``oracle`` (which invariants break), ``removed`` and ``race``.

    Deterministic: constants of the binary.
    """

def variants() -> str:
    """Returns the variants: bugs of v12 that a run can have or not have.

    Source: section 9 of the series' specification, entries B and C.

    Returns:
        A JSON text: a list of objects with ``name``, ``entry``, ``kind``, ``cpus``, ``oracle``,
        ``what`` and ``run_default`` (its value where a program is run, not explored).

    Deterministic: constants of the binary.
    """

def run(
    engine: str,
    handler: str,
    arch: str,
    tasks: Sequence[npt.NDArray[np.uint8]],
    meta: str,
    options: str,
    progress: Callable[[float], object] | None,
) -> tuple[str, npt.NDArray[np.uint8], npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Runs a program on an engine of the core; ``spfemu.run`` is the door to it.

    The interpreter is not held while the engine runs; signals and ``progress`` (0 to 1) are looked
    after every 50 ms. Source: ours.

    Args:
        engine: "native", "vtime", or "explore" (one schedule).
        handler: "spf" or "classic".
        arch: The JSON of a profile.
        tasks: The records of each task as bytes, shape (62 * records,).
        meta: The JSON of everything else in the program.
        options: The JSON of the settings.
        progress: Called with the share done, or None.

    Returns:
        A JSON text (``elapsed_ns``, ``counters``, ``maps``, ``note_maps``, ``rounds``,
        ``noted_ns``, ``stuck``, ``trace_written``, ``span_names``, ``spans_cut``, ``lock_stat``,
        ``settings``), the outcomes as bytes, shape (98 * outcomes,), what the tracepoints recorded,
        shape (42 * entries,), and the course of the run, shape (33 * entries,).

    Raises:
        ProgramError: The program cannot run; mend what the message names.
        ProfileError: The arch or the machine cannot be.
        EngineError: The engine has no such setting, or failed.
        InvariantViolation: An invariant broke.

    Deterministic: given by all arguments and the version, apart from native's interleaving.
    """

def oracle(
    tasks: Sequence[npt.NDArray[np.uint8]],
    meta: str,
    options: str,
    progress: Callable[[float], object] | None,
) -> tuple[str, npt.NDArray[np.uint8]]:
    """Runs a program on the host's own kernel; ``spfemu.oracle.run`` is the door to it.

    The interpreter is not held meanwhile; signals and ``progress`` (0 to 1) are looked after every
    50 ms. Source: ours.

    Args:
        tasks: The records of each task as bytes, shape (62 * records,).
        meta: The JSON of everything else in the program.
        options: The JSON of the settings: ``timeout_s``, ``counting`` ("best", "perf",
            "perf-user", "stat"), ``max_memory`` (bytes; null: half of what is available) and
            ``note_maps`` (a list of task and record numbers).
        progress: Called with the share done, or None.

    Returns:
        What ``run`` returns; ``settings`` has ``counting`` (never "best") and ``island``, and
        ``turns`` says whose outcomes came after each other: task number, and how many in a row.

    Raises:
        ProgramError: The host cannot or should not do what the message names; leave it out.
        EngineError: The host is no Linux on x86-64, does not permit it, or time was up.

    Deterministic: as far as the host is.
    """

def explore(
    arch: str,
    tasks: Sequence[npt.NDArray[np.uint8]],
    meta: str,
    options: str,
    progress: Callable[[float], object] | None,
) -> str:
    """Explores the interleavings of a program; ``spfemu.exploring.explore`` is the door to it.

    The interpreter is not held meanwhile; signals and ``progress`` (0 to 1; 0 as long as nobody
    knows how far it is) are looked after every 50 ms. Source: ours.

    Args:
        arch: The JSON of a profile.
        tasks: The records of each task as bytes, shape (62 * records,).
        meta: The JSON of everything else in the program.
        options: The JSON of the settings: ``strategy`` ("dfs", "random", "pct"), ``mutants``,
            ``variants`` and ``variants_default``, ``memory_model`` ("sc", "tso", "armv8",
            "power"), ``schedules`` (the most; null: all), ``preemptions`` (the most in one
            schedule; null: no bound),
            ``seed``, ``replay`` (a token, or null), ``races`` (whether to say what raced).
        progress: Called with the share done, or None.

    Returns:
        A JSON text: ``schedules``, ``complete``, ``redundant`` (schedules beside those that led to
        what another did), ``steps``, ``too_long`` (schedules that were cut), ``races`` (numbers)
        and ``violations``, each with ``invariant``, ``what``, ``entry``, ``token``, ``fired`` and
        ``timeline``.

    Raises:
        ProgramError: The program or the token cannot be explored; mend what the message names.
        ProfileError: The arch cannot be.
        EngineError: There is no such setting.

    Deterministic: given by all arguments and the version.
    """
