"""The compiled half of spfemu. Private: use the package ``spfemu``."""

from typing import Final

__all__ = ["__version__", "build_info"]

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
