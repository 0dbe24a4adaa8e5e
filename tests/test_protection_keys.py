"""Execute-only memory where a protection key makes it so: SPF_V12 H9 and 7.2 to 7.5."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import pytest
from hypothesis import given, settings

import spfemu
from spfemu import Program
from spfemu.profiles import Arch, arch
from spfemu.testing import differential, programs

ENGINES: Final = ("reference", "native", "vtime", "explore")
KEYS: Final = "X86_INTEL_MEMORY_PROTECTION_KEYS"
A: Final = 1 << 44
P: Final = 65536
"""A page of powerpc, and some of x86."""

POWERPC: Final = replace(arch("powerpc"), name="powerpc-keys", exec_only=True)


def program(ops: list[dict[str, Any]], *, page_size: int = 4096, **config: bool) -> Program:
    """A process of two tasks, so that faults are tried speculatively; the first one does it all."""
    end = {"op": "barrier", "name": "end"}
    tasks = [{"ops": [*ops, end]}, {"ops": [end]}]
    return Program.from_dict(
        {
            "format": "spfemu-program/1",
            "page_size": page_size,
            "system": {"config": config},
            "tasks": tasks,
        }
    )


def execute_only(*ops: dict[str, Any]) -> list[dict[str, Any]]:
    """Two pages, the first one there, that may only be executed."""
    return [
        {"op": "mmap", "addr": A, "length": 2 * P, "prot": "rw"},
        {"op": "write", "addr": A, "value": 7},
        {"op": "mprotect", "addr": A, "length": 2 * P, "prot": "x"},
        *ops,
    ]


def last(
    given_program: Program, engine: str, handler: str = "spf", on: str | Arch = "x86", **how: Any
) -> tuple[dict[str, Any], Mapping[str, int]]:
    """What the last operation of the first task came to, and the counters of the run."""
    result = spfemu.run(given_program, engine=engine, handler=handler, arch=on, **how)
    return result.outcome(result.task_ops(0)[-2]), result.counters


@pytest.mark.parametrize("engine", ENGINES)
class TestX86:
    @pytest.mark.parametrize("handler", ["spf", "classic"])
    @pytest.mark.parametrize("access", ["read", "write"])
    def test_a_present_page(self, engine: str, handler: str, access: str) -> None:
        # X86_PF_PK is set, so the speculative handler is not called.
        op: dict[str, Any] = {"op": access, "addr": A}
        ops = execute_only(op | ({"value": 1} if access == "write" else {}))
        found, counters = last(program(ops, **{KEYS: True}), engine, handler)
        assert (found["signal"], found["si_code"]) == ("SIGSEGV", "SEGV_PKUERR")
        assert (found["handled"], found["counters"]) == ("classic", {"faults": 1})
        assert counters["pagefault:spf_vma_access"] == 0

    @pytest.mark.parametrize("access", ["read", "write"])
    def test_an_absent_page_is_the_handler_refuses(self, engine: str, access: str) -> None:
        # H9
        op: dict[str, Any] = {"op": access, "addr": A + P}
        ops = execute_only(op | ({"value": 1} if access == "write" else {}))
        given_program = program(ops, **{KEYS: True})
        found, counters = last(given_program, engine, variants={"C3": "v12"})
        assert (found["signal"], found["si_code"]) == ("SIGSEGV", "SEGV_MAPERR")
        assert found["handled"] == "spf"
        assert counters["pagefault:spf_vma_access"] == 1
        found, _ = last(given_program, engine, variants={"C3": "fixed"})
        assert (found["si_code"], found["handled"]) == ("SEGV_PKUERR", "classic")
        found, counters = last(given_program, engine, "classic")
        assert (found["si_code"], found["counters"]) == ("SEGV_PKUERR", {"faults": 1})
        assert counters["pgfault"] == 1  # that of the write at first

    def test_instructions_are_fetched_whatever_the_key_says(self, engine: str) -> None:
        for page in (A, A + P):
            ops = execute_only({"op": "execute", "addr": page})
            found, _ = last(program(ops, **{KEYS: True}), engine)
            assert (found["signal"], found["errno"]) == (None, None)

    @pytest.mark.parametrize(
        ("op", "errno"),
        [
            ({"op": "read", "addr": A, "mode": "kernel"}, "EFAULT"),
            ({"op": "read", "addr": A + P, "mode": "kernel"}, "EFAULT"),
            ({"op": "mlock", "addr": A, "length": 4096}, "ENOMEM"),
            ({"op": "madvise", "addr": A, "length": 4096, "advice": "populate_read"}, "EINVAL"),
        ],
    )
    def test_what_the_kernel_does_for_a_task(
        self, engine: str, op: dict[str, Any], errno: str
    ) -> None:
        # FOLL_FORCE or not: check_vma_flags() asks the key, for it is a data access.
        found, _ = last(program(execute_only(op), **{KEYS: True}), engine)
        assert found["errno"] == errno

    def test_a_mapping_is_born_with_it_and_populates_nothing(self, engine: str) -> None:
        flags = ["private", "anonymous", "populate"]
        ops = [
            {"op": "mmap", "addr": A, "length": P, "prot": "x", "flags": flags},
            {"op": "execute", "addr": A},
        ]
        found, counters = last(program(ops, **{KEYS: True}), engine)
        assert found["counters"]["faults"] == 1
        assert counters["pgfault"] == 1

    def test_what_may_be_read_again_has_no_key(self, engine: str) -> None:
        ops = execute_only(
            {"op": "mprotect", "addr": A, "length": P, "prot": "rx"}, {"op": "read", "addr": A}
        )
        found, _ = last(program(ops, **{KEYS: True}), engine)
        assert (found["value"], found["counters"]) == (7, {})

    def test_merged_pages_are_taken_apart(self, engine: str) -> None:
        # break_ksm() faults with FAULT_FLAG_REMOTE, which no key stops.
        length = {"addr": A, "length": 2 * P}
        ops = [
            {"op": "mmap", **length, "prot": "rw"},
            {"op": "write", "addr": A, "value": 7},
            {"op": "write", "addr": A + P, "value": 7},
            {"op": "madvise", **length, "advice": "mergeable"},
            {"op": "ksm_scan", **length},
            {"op": "mprotect", **length, "prot": "x"},
            {"op": "madvise", **length, "advice": "unmergeable"},
            {"op": "mprotect", **length, "prot": "rw"},
            {"op": "write", "addr": A, "value": 8},
            {"op": "read", "addr": A + P},
        ]
        found, counters = last(program(ops, **{KEYS: True}), engine, "classic")
        assert found["value"] == 7
        # Two of the writes, two of break_ksm, and the one that makes it writable again.
        assert counters["pgfault"] == 5

    def test_without_keys_it_can_be_read(self, engine: str) -> None:
        found, _ = last(program(execute_only({"op": "read", "addr": A})), engine)
        assert (found["value"], found["signal"]) == (7, None)


@pytest.mark.parametrize("engine", ENGINES)
class TestPowerpc:
    """No profile that comes with the package has keys, but a user's may."""

    def test_a_present_page(self, engine: str) -> None:
        # DSISR_KEYFAULT: refused at once, with neither handler.
        ops = execute_only({"op": "read", "addr": A})
        found, counters = last(program(ops, page_size=P), engine, on=POWERPC)
        assert (found["signal"], found["si_code"]) == ("SIGSEGV", "SEGV_PKUERR")
        assert (found["handled"], found["counters"]) == ("classic", {"faults": 1})
        assert counters["pagefault:spf_vma_access"] == 0

    @pytest.mark.parametrize("handler", ["spf", "classic"])
    def test_an_absent_page_is_refused_by_handle_mm_fault(self, engine: str, handler: str) -> None:
        # The speculative SIGSEGV is asked again, for it may be the key.
        ops = execute_only({"op": "read", "addr": A + P})
        found, counters = last(program(ops, page_size=P), engine, handler, POWERPC)
        assert (found["signal"], found["si_code"]) == ("SIGSEGV", "SEGV_PKUERR")
        assert found["handled"] == "classic"
        assert counters["pagefault:spf_vma_access"] == (handler == "spf")
        assert (counters["spf"], counters["pgfault"]) == (0, 2)


def with_keys(given_program: Program) -> Program:
    """The program where execute-only memory has a key."""
    system = given_program.system
    return replace(given_program, system=replace(system, config={**system.config, KEYS: True}))


@settings(max_examples=40)
@given(programs().map(with_keys))
def test_engines_agree(given_program: Program) -> None:
    differential(given_program)


@settings(max_examples=10)
@given(programs(arch=POWERPC))
def test_engines_agree_on_powerpc(given_program: Program) -> None:
    differential(given_program, arches=(POWERPC,))
