"""What each operation does on the host's own kernel: outcomes that every Linux has given."""

from __future__ import annotations

from typing import Any

import pytest

import spfemu
from spfemu import ProgramError
from spfemu.oracle import host
from spfemu.program.ops import ORDERS
from spfemu.reference.order import touch_order
from tests.oracle.play import BASE, PAGE, last, mmap, op, program, result, run

ANON = ["private", "anonymous"]
SEGV_ACCERR = ("SIGSEGV", "SEGV_ACCERR")
SEGV_MAPERR = ("SIGSEGV", "SEGV_MAPERR")
BUS_ADRERR = ("SIGBUS", "BUS_ADRERR")


POST: Any = {"op": "post", "name": "x"}


class TestMappings:
    def test_mmap_where_it_is_told(self) -> None:
        assert last(mmap()) == (BASE, 0)
        assert last(mmap(), mmap(flags=[*ANON, "fixed_noreplace"])) == ("EEXIST", 0)
        assert last(mmap(flags=[*ANON, "fixed"], addr=hex(BASE + 1))) == ("EINVAL", 0)
        assert last({"op": "mmap", "length": 0}) == ("EINVAL", 0)

    def test_mmap_where_the_kernel_likes(self) -> None:
        first, second = run(
            {"op": "mmap", "length": PAGE, "id": "a"}, {"op": "mmap", "length": PAGE, "prot": "r"}
        )
        assert first["ret"] == second["ret"] + PAGE  # top down, nothing between

    def test_munmap_takes_pages_away(self) -> None:
        ops = [mmap(), op("write", "p+0x1000", value=7), op("munmap", "p+0x1000", length=PAGE)]
        assert last(*ops) == (0, 0)
        assert last(*ops, op("read", "p+0x1000")) == (SEGV_MAPERR, 1)
        assert last(op("munmap", BASE + 1, length=PAGE)) == ("EINVAL", 0)

    def test_mprotect_takes_rights_away(self) -> None:
        ops = [mmap(), op("write", value=7), op("mprotect", length=PAGE, prot="r")]
        assert last(*ops) == (0, 0)
        assert last(*ops, op("write", value=8)) == (SEGV_ACCERR, 1)
        assert last(*ops, op("read")) == (7, 0)
        assert last(op("mprotect", BASE, length=PAGE, prot="r")) == ("ENOMEM", 0)

    def test_madvise_drops_and_marks(self) -> None:
        ops = [mmap(), op("write", value=7), op("madvise", length=PAGE, advice="dontneed")]
        assert last(*ops) == (0, 0)
        assert last(*ops, op("read")) == (0, 1)
        assert last(mmap(2), op("madvise", length=3 * PAGE, advice="random")) == ("ENOMEM", 0)

    def test_brk_moves_the_break(self) -> None:
        start = 0x5555_5580_0000
        assert last({"op": "brk", "delta": 0}) == (start, 0)
        grow = {"op": "brk", "delta": 3 * PAGE, "id": "h"}
        assert last(grow) == (start + 3 * PAGE, 0)
        assert last(grow, op("write", "h-0x1000", value=9), op("read", "h-0x1000")) == (9, 0)
        assert last(grow, {"op": "brk", "delta": -PAGE}, op("read", "h-0x1000")) == (SEGV_MAPERR, 1)
        assert last({"op": "brk", "delta": -PAGE}) == ("ENOMEM", 0)
        here = {"op": "brk", "delta": PAGE, "start": hex(BASE)}
        assert last(here, {"op": "brk", "delta": PAGE, "start": 0}) == (BASE + 2 * PAGE, 0)

    def test_maps_are_the_programs_own(self) -> None:
        found = result(
            program(
                [
                    mmap(4),
                    op("mprotect", "p+0x1000", length=PAGE, prot="none"),
                    {"op": "note", "text": "now", "expect": {"maps_lines": []}},
                    op("munmap", "p+0x1000", length=3 * PAGE),
                ]
            )
        )
        assert found.note_maps[0, 2, 0] == [
            "100000000000-100000001000 rw-p 00000000",
            "100000001000-100000002000 ---p 00000000",
            "100000002000-100000004000 rw-p 00000000",
        ]
        assert found.maps == {"t0": ["100000000000-100000001000 rw-p 00000000"]}


class TestAccesses:
    def test_anonymous_memory(self) -> None:
        assert last(mmap(), op("read")) == (0, 1)
        assert last(mmap(), op("write", value=1 << 63)) == (0, 1)
        assert last(mmap(), op("write", value=1 << 63), op("read", "p+0x123")) == (1 << 63, 0)
        # The zero page is replaced.
        assert last(mmap(), op("read"), op("write", value=1)) == (0, 1)

    def test_an_access_is_minor(self) -> None:
        counters = run(mmap(), op("write", value=1))[1]["counters"]
        assert counters == {"faults": 1, "minor-faults": 1}
        assert run(op("read", BASE))[0]["counters"] == {"faults": 1}

    def test_what_may_not_be_accessed(self) -> None:
        assert last(mmap(prot="none"), op("read")) == (SEGV_ACCERR, 1)
        assert last(mmap(prot="r"), op("write", value=1)) == (SEGV_ACCERR, 1)
        assert last(op("write", 0, value=1)) == (SEGV_MAPERR, 1)
        assert last(op("read", 1 << 63))[0][0] == "SIGSEGV"
        assert last(op("execute", BASE)) == (SEGV_MAPERR, 1)

    def test_execute(self) -> None:
        code = [mmap(prot="rwx"), op("write", value=0xC3)]
        assert last(*code, op("execute")) == (0, 0)
        assert last(*code, op("execute", "p+0x1000")) == (0, 1)
        assert last(mmap(prot="rw"), op("write", value=0xC3), op("execute")) == (SEGV_ACCERR, 1)

    @pytest.mark.parametrize(
        "word",
        [
            0x00,  # writes to where rax points
            0x050F,  # a system call
            0x80CD,  # one of 32 bits
            0x0B0F,  # not defined
            0x05,  # adds to eax, and then writes there
            0xF4,  # for the kernel only
            0xFFFF_FFFF_FFFF_FFFF,
        ],
    )
    def test_execute_of_anything_does_nothing_else(self, word: int) -> None:
        ops = [mmap(prot="rwx"), op("write", value=word), op("execute")]
        outcomes = run(*ops, op("read"), op("read", "p+0x1000"))
        assert outcomes[2]["signal"] is None
        assert outcomes[2]["counters"] == {}
        assert [outcome["value"] for outcome in outcomes[3:]] == [word, 0]

    def test_the_kernel_accesses_for_the_task(self) -> None:
        write = op("write", value=5, mode="kernel")
        assert last(mmap(), write) == (0, 1)
        assert last(mmap(), write, op("read")) == (5, 0)
        assert last(mmap(), op("write", value=6), op("read", mode="kernel")) == (6, 0)
        assert last(mmap(prot="r"), write)[0] == "EFAULT"
        assert last(op("read", BASE, mode="kernel"))[0] == "EFAULT"

    @pytest.mark.parametrize("order", ORDERS)
    def test_touch_goes_in_order(self, order: str) -> None:
        writes = [op("write", f"p+{page * PAGE}", value=page) for page in range(7)]
        touch = op("touch", length=7 * PAGE, order=order, seed=3, access="read")
        touched = run(mmap(7), *writes, touch)[8:]
        assert [outcome["access"] for outcome in touched] == list(range(7))
        wanted = list(touch_order(ORDERS.index(order), 7, 3))
        assert [outcome["value"] for outcome in touched] == wanted

    def test_touch_with_a_stride(self) -> None:
        found = run(mmap(), op("touch", length=16 * PAGE, stride=4 * PAGE, value=3))
        assert len(found) == 5
        assert [outcome["counters"]["faults"] for outcome in found[1:]] == [1] * 4


class TestFiles:
    def files(self, *ops: dict[str, Any], length: int = 4 * PAGE) -> tuple[Any, ...]:
        given = {kind: {"kind": kind, "length": length} for kind in ("regular", "shmem", "devzero")}
        outcome = list(result(program(list(ops), files=given)).outcomes())[-1]
        came: Any = outcome["value"]
        if outcome["signal"]:
            came = (outcome["signal"], outcome["si_code"])
        return came, outcome["counters"].get("faults", 0)

    @pytest.mark.parametrize("kind", ["regular", "shmem"])
    def test_shared_memory_is_the_files(self, kind: str) -> None:
        share = mmap(4, flags=["shared", "fixed"], file=kind)
        again = mmap(4, addr=hex(BASE + 0x10000), flags=["shared", "fixed"], file=kind, id="q")
        assert self.files(share, again, op("write", "p+0x2000", value=5), op("read", "q+0x2000"))[
            0
        ] == (5)

    @pytest.mark.parametrize("kind", ["regular", "shmem"])
    def test_a_read_maps_what_is_cached_around(self, kind: str) -> None:
        ops = [mmap(4, flags=["private", "fixed"], file=kind), op("read", "p+0x1000")]
        assert self.files(*ops) == (0, 1)
        assert self.files(*ops, op("read", "p+0x3000")) == (0, 0)
        assert self.files(*ops, op("write", "p+0x3000", value=1)) == (None, 1)

    @pytest.mark.parametrize("kind", ["regular", "shmem"])
    def test_beyond_the_end_is_sigbus(self, kind: str) -> None:
        ops = [mmap(8, flags=["shared", "fixed"], file=kind)]
        assert self.files(*ops, op("read", "p+0x4000")) == (BUS_ADRERR, 1)
        assert self.files(*ops, op("read", "p+0x3000"), length=3 * PAGE + 1) == (0, 1)

    def test_dev_zero(self) -> None:
        private = mmap(4, flags=["private", "fixed"], file="devzero")
        assert self.files(private, op("write", value=3), op("read")) == (3, 0)

    def test_notified_of_writes_is_what_is_on_disk(self) -> None:
        for kind, faults in (("regular", 1), ("shmem", 0)):
            ops = [mmap(4, flags=["shared", "fixed"], file=kind), op("read")]
            assert self.files(*ops, op("write", value=1)) == (None, faults)


class TestTasks:
    def test_threads_share_and_wait(self) -> None:
        found = result(
            program(
                [{"op": "await", "name": "there"}, op("read", "p"), {"op": "barrier", "name": "b"}],
                [mmap(), op("write", value=4), {"op": "post", "name": "there"},
                 {"op": "barrier", "name": "b"}],
            )
        )  # fmt: skip
        assert found.outcome(found.task_ops("t0")[1])["value"] == 4
        assert found.stuck == ()
        assert list(found.maps) == ["t0"]

    def test_fork_copies(self) -> None:
        found = result(self.with_child("fork", [op("read", "p"), op("write", "p", value=2)]))
        child = [found.outcome(record) for record in found.task_ops("c")]
        assert (child[0]["value"], child[0]["counters"]) == (1, {})
        assert child[1]["counters"]["faults"] == 1  # copy on write
        assert [o["value"] for o in found.outcomes() if o["op"] == "read"] == [1, 1]
        assert sorted(found.maps) == ["c", "t0"]

    def test_clone_and_vfork_share(self) -> None:
        for how in ("clone", "vfork"):
            found = result(self.with_child(how, [op("write", "p", value=2)]))
            assert [o["value"] for o in found.outcomes() if o["op"] == "read"] == [2]

    def test_vfork_waits_for_exec(self) -> None:
        child = [{"op": "exec"}, {"op": "await", "name": "never"}, {"op": "post", "name": "never"}]
        found = result(self.with_child("vfork", child, wait=False))
        assert found.stuck == ("c",)
        assert found.maps["c"] == []
        assert found.maps["t0"] != []
        assert [o["op"] for o in found.outcomes() if o["task"] == "t0"][-1] == "read"

    def test_exec_ends_the_other_threads(self) -> None:
        # The second thread execs, so it takes over the number of the first.
        found = result(
            program(
                [mmap(), {"op": "await", "name": "never"}],
                [op("read", "p"), {"op": "exec", "brk_start": hex(BASE)}, op("read", BASE),
                 {"op": "brk", "delta": PAGE}, op("write", BASE, value=1),
                 {"op": "post", "name": "never"}],
            )
        )  # fmt: skip
        assert [o["op"] for o in found.outcomes() if o["task"] == "t0"] == ["mmap"]
        mine = [found.outcome(record) for record in found.task_ops("t1")]
        assert mine[2]["signal"] == "SIGSEGV"
        assert mine[4]["counters"]["faults"] == 1
        assert found.maps == {"t0": ["100000000000-100000001000 rw-p 00000000"]}
        assert found.stuck == ()

    def test_exec_ends_the_first_thread_after_its_vfork(self) -> None:
        # That its vfork has returned is told only when the second thread execs.
        tasks = [
            {"name": "t0", "ops": [{"op": "vfork", "child": "c"}]},
            {"name": "t1", "ops": [{"op": "await", "name": "go"}, {"op": "exec"}]},
            {"name": "c", "start": "vfork", "ops": [{"op": "exec"}, {"op": "post", "name": "go"}]},
        ]
        found = result(spfemu.Program.from_dict({"format": "spfemu-program/1", "tasks": tasks}))
        assert sorted(o["op"] for o in found.outcomes()) == [
            "await",
            "exec",
            "exec",
            "post",
            "vfork",
        ]
        assert found.stuck == ()

    def test_exit_of_the_first_thread_leaves_the_rest(self) -> None:
        rest = [
            {"op": "wait", "child": "t0"},
            op("write", "p", value=1),
            {"op": "note", "text": "maps", "expect": {"maps_lines": []}},
        ]
        found = result(program([mmap(1), {"op": "exit"}, op("read")], rest))
        line = "100000000000-100000001000 rw-p 00000000"
        assert [o["op"] for o in found.outcomes()][:2] == ["mmap", "exit"]
        assert found.maps == {"t0": [line]}
        assert found.note_maps[1, 2, 0] == [line]

    def test_an_address_is_waited_for_also_a_new_one(self) -> None:
        move = op("mremap", BASE, old_length=PAGE, new_length=PAGE, flags=["maymove", "fixed"],
                  new_addr="q+0x1000")  # fmt: skip
        waits = {"op": "await", "name": "x"}
        q = mmap(4, addr=hex(BASE + 16 * PAGE), id="q")
        found = result(program([mmap(), waits, q], [move, op("read", "q")], [POST]))
        moved = found.outcome(found.task_ops("t1")[0])
        assert (moved["ret"], moved["errno"]) == (BASE + 17 * PAGE, None)

    def test_who_waits_for_ever_is_stuck(self) -> None:
        found = result(
            program([{"op": "await", "name": "x"}, {"op": "post", "name": "x"}], [mmap(1)])
        )
        assert found.stuck == ("t0",)

    def test_grandchildren_outlive_their_parents(self) -> None:
        tasks = [
            {"ops": [mmap(1), op("write", value=1), {"op": "fork", "child": "c", "wait": True}]},
            {"name": "c", "start": "fork", "ops": [{"op": "fork", "child": "g"}]},
            {"name": "g", "start": "fork", "ops": [{"op": "wait", "child": "c"}, op("read", "p")]},
        ]
        given = spfemu.Program.from_dict({"format": "spfemu-program/1", "tasks": tasks})
        found = result(given)
        assert [o["value"] for o in found.outcomes() if o["op"] == "read"] == [1]

    def with_child(self, how: str, ops: list[dict[str, Any]], wait: bool = True) -> spfemu.Program:
        start = {"op": how, "child": "c"} | ({"wait": True} if wait and how != "clone" else {})
        waits = [{"op": "wait", "child": "c"}] if wait else []
        first = [mmap(), op("write", value=1), start, *waits, op("read", "p")]
        return spfemu.Program.from_dict(
            {
                "format": "spfemu-program/1",
                "tasks": [{"name": "t0", "ops": first}, {"name": "c", "start": how, "ops": ops}],
            }
        )


class TestLoops:
    def test_repeat_counts_rounds(self) -> None:
        inner = {"op": "repeat", "count": 2, "ops": [op("write", value=1)]}
        found = run(mmap(), {"op": "repeat", "count": 3, "ops": [inner, op("read")]})
        assert [o["round"] for o in found if o["op"] == "write"] == [0, 1, 2, 3, 4, 5]
        assert [o["round"] for o in found if o["op"] == "read"] == [0, 1, 2]

    def test_a_clock_ends_a_loop(self) -> None:
        loop = {"op": "repeat", "for_ns": 10_000_000, "ops": [op("read")]}
        found = result(program([mmap(), loop]))
        assert found.rounds[0] == len(found.ops) - 1 > 0
        some = {**loop, "for_ns": 10**18, "max_count": 3}
        assert result(program([mmap(), some])).rounds == (3,)


class TestSettings:
    def test_what_faults_are_counted(self) -> None:
        refused = op("read", BASE + 32 * PAGE)
        for counting, faults in (("perf-user", 1), ("stat", 0)):
            found = run(mmap(), op("write", value=1), refused, counting=counting)
            assert [o["counters"].get("faults", 0) for o in found] == [0, 1, faults]

    def test_result_says_how_it_was_made(self) -> None:
        found = result(program([mmap()]))
        assert (found.engine, found.handler, found.arch) == ("kernel", "host", "x86")
        assert found.settings["kernel"] == host().release
        assert found.settings["timeout_s"] == 60
        assert found.settings["counting"] in ("perf", "perf-user", "stat")
        assert found.elapsed_ns > 0
        assert set(found.outcome(found.ops[0])) >= {"handled", "counters"}

    def test_without_outcomes(self) -> None:
        found = spfemu.run(program([mmap(), op("read")]), engine="kernel", record=False)
        assert len(found.ops) == 0
        assert found.counters["faults"] == 1

    def test_protection_keys_are_the_hosts(self) -> None:
        has = host().protection_keys
        config = {"X86_INTEL_MEMORY_PROTECTION_KEYS": not has}
        with pytest.raises(ProgramError, match="the host has them" if has else "the host has none"):
            spfemu.run(program([mmap()], system={"config": config}), engine="kernel")
        config = {"X86_INTEL_MEMORY_PROTECTION_KEYS": has}
        assert spfemu.run(program([mmap()], system={"config": config}), engine="kernel").ops.size

    @pytest.mark.parametrize(
        ("ops", "keys", "message"),
        [
            (
                [{"op": "sysctl", "name": "vm.page-cluster", "value": 0}],
                {},
                r"tasks\[0\].ops\[0\]: operation 'sysctl' would change the host",
            ),
            ([mmap()], {"system": {"memory": "1G"}}, "key 'memory': the host's memory is not lim"),
            ([mmap()], {"system": {"swap": {"size": "1M"}}}, "key 'swap': the host has its own"),
            ([mmap()], {"system": {"sysctl": {"vm.page-cluster": 1}}}, "key 'sysctl': it would ch"),
            ([mmap()], {"system": {"mmap_min_addr": 8192}}, "mmap_min_addr': value 8192"),
            (
                [mmap()],
                {"files": {"f": {"length": 1, "cached": False}}},
                r"files\[\"f\"\]: key 'cached': value false",
            ),
            ([{"op": "exec", "stack": 1}], {}, r"ops\[0\]: key 'stack': what exec leaves"),
            (
                [{"op": "truncate", "file": "f", "length": 1 << 44}],
                {"files": {"f": {"length": 1}}},
                r"ops\[0\]: key 'length': a file on the host is not that long",
            ),
            ([op("execute", BASE, mode="kernel")], {}, r"ops\[0\]: key 'mode': no system call"),
            (
                [mmap()],
                {"files": {"f": {"length": "2G"}}},
                r"files of 2147483648 bytes \(allowed on engine kernel: 1073741824 in all\)",
            ),
            (
                [{"op": "brk", "start": 0}],
                {},
                r"tasks\[0\].ops\[0\]: brk: the host's kernel does not let the heap begin at 0x0",
            ),
        ],
    )
    def test_what_is_refused(
        self, ops: list[dict[str, Any]], keys: dict[str, Any], message: str
    ) -> None:
        with pytest.raises(ProgramError, match=message):
            result(program(ops, **keys))

    def test_settings_that_are_none(self) -> None:
        for settings, message in (
            ({"timeout": 1}, 'setting "timeout" .allowed: timeout_s, counting, max_memory'),
            ({"max_memory": 0}, "max_memory: value 0 .allowed: 1 and more bytes"),
            ({"timeout_s": 0}, "timeout_s: value 0 .allowed: above 0"),
            ({"timeout_s": "1"}, 'timeout_s: value "1"'),
            ({"counting": "x"}, "counting: value 'x' .allowed: best, perf, perf-user, stat"),
        ):
            with pytest.raises(spfemu.EngineError, match=message):
                result(program([mmap()]), **settings)
        with pytest.raises(spfemu.EngineError, match=r"arch arm64 \(allowed: x86\)"):
            spfemu.run(program([mmap()]), engine="kernel", arch="arm64")
