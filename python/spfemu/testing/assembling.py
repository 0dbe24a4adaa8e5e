"""Putting turns together to a program in which one task at a time is at work.

A program is drawn as a list of turns: who goes on, and what it does. That alone shrinks well, for
any turn and any operation may be left out. The assembling adds what makes it a program: a task
hands over by `post` and `await`, or by a barrier; its end is met by a `wait`; and a task that has
nothing more to do stays until the last one is done, so that `mm_users` never depends on who is
faster. A step that is not possible where it stands (a fork when there are tasks enough) is left
out.

Who is blocked follows the format: the caller of `vfork` until the child execs or ends, the caller
of `fork` with `wait` until it ends. `exec` ends the other tasks of its process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from spfemu.testing.vocabulary import At, Operation, finished

__all__ = ["Assembly", "Turn"]

_STARTS: Final = ("fork", "vfork", "clone")


@dataclass(frozen=True)
class Turn:
    """One task's turn.

    Source: ours. ``who`` picks one of the tasks that can go on, ``by`` says how it is handed over,
    "post" or "barrier". ``steps`` are operations. Beside those of the format there are "nothing",
    "end" (the task has no more operations), "several" (``ops``) and "alternate" (``mine`` and
    ``theirs`` in turn, ``count`` rounds, with ``other`` picking the partner); "exec" has in
    ``then`` what comes right after it, "wait" in ``which`` whose end, of those that have ended. A
    child that its parent waits for takes over what is left of the turn.
    """

    who: int
    steps: Sequence[Operation]
    by: str = "post"


@dataclass(eq=False)
class _Task:
    name: str
    start: str | None
    process: int
    ops: list[Operation] = field(default_factory=list)
    ended: bool = False
    execed: bool = False
    waits_for: _Task | None = None
    until_exec: bool = False

    @property
    def blocked(self) -> bool:
        child = self.waits_for
        return child is not None and not (child.ended or (self.until_exec and child.execed))

    @property
    def can_run(self) -> bool:
        return not self.ended and not self.blocked


def _may_be_returning(task: _Task) -> bool:
    return bool(task.ops) and task.ops[-1]["op"] != "post"


class Assembly:
    """A program in the making.

    Source: ours. ``threads`` is the number of tasks that start together, ``most`` that of all
    tasks, ``max_ops`` that of drawn operations. ``anywhere`` is the address that stands for an id
    that is not defined yet.

    >>> from spfemu.testing.assembling import Assembly, Turn
    >>> turns = [Turn(0, [{"op": "brk", "delta": 4096}]), Turn(1, [{"op": "brk"}])]
    >>> for task in Assembly(threads=2, most=2, max_ops=9, anywhere=0).tasks_of(turns):
    ...     print(task["name"], [op["op"] for op in task["ops"]])
    t0 ['brk', 'post', 'await']
    t1 ['await', 'brk', 'post']
    """

    def __init__(self, *, threads: int, most: int, max_ops: int, anywhere: int) -> None:
        self.tasks = [_Task(f"t{number}", None, 0) for number in range(threads)]
        self._most = most
        self._left = max_ops
        self._anywhere = anywhere
        self._nr_processes = 1
        self._nr_names = 0
        self._active: _Task | None = None
        self._defined: set[str] = set()

    def tasks_of(self, turns: Iterable[Turn], *, stuck: bool = False) -> list[dict[str, Any]]:
        """Returns the tasks of these turns, as the program format has them.

        Source: ours. ``stuck``: at the end all who are left wait for ever.
        """
        for turn in turns:
            self._turn(turn)
        self._finish(stuck)
        return [
            {"name": task.name, "ops": finished(task.ops)}
            | ({} if task.start is None else {"start": task.start})
            for task in self.tasks
        ]

    # --- who is at work --------------------------------------------------------------------------

    def _runnable(self) -> list[_Task]:
        return [task for task in self.tasks if task.can_run]

    def _turn(self, turn: Turn) -> None:
        runnable = self._runnable()
        steps = [step for step in turn.steps if step["op"] != "nothing"]
        if not runnable or not steps or self._left <= 0:
            return
        self._hand_over(runnable[turn.who % len(runnable)], turn.by)
        for step in steps:
            task = self._active
            if task is None or not task.can_run or self._left <= 0:
                return
            self._step(task, step)

    def _hand_over(self, task: _Task, by: str = "post") -> None:
        """Lets `task` go on once the active one has done what it had to."""
        before = self._active
        self._active = task
        if before is task:
            return
        if before is None:  # the first of all: the others wait for it
            return
        if before.ended:
            task.ops.append({"op": "wait", "child": before.name})
        elif by == "barrier":
            name = self._name("b")
            before.ops.append({"op": "barrier", "name": name})
            task.ops.append({"op": "barrier", "name": name})
        else:
            name = self._name("p")
            before.ops.append({"op": "post", "name": name})
            task.ops.append({"op": "await", "name": name})

    def _name(self, letter: str) -> str:
        self._nr_names += 1
        return f"{letter}{self._nr_names}"

    # --- steps -----------------------------------------------------------------------------------

    def _step(self, task: _Task, step: Operation) -> None:
        name = step["op"]
        if name in _STARTS:
            self._start(task, step)
        elif name == "exec":
            self._exec(task, step)
        elif name in ("exit", "end"):
            if name == "exit":
                task.ops.append({"op": "exit"})
            task.ended = True
        elif name == "wait":
            self._wait(task, step)
        elif name == "alternate":
            self._alternate(task, step)
        elif name == "several":
            task.ops += self._body(step["ops"])
        elif name == "repeat":
            body = self._body(step["ops"])
            if body:
                task.ops.append({"op": "repeat", "count": step["count"], "ops": body})
        else:
            task.ops += self._body([step])

    def _body(self, steps: Sequence[Operation]) -> list[Operation]:
        """Operations with their ids looked up; what they define is defined afterwards."""
        body: list[Operation] = []
        for step in steps[: max(0, self._left)]:
            if step["op"] == "repeat":
                inner = self._body(step["ops"])
                if inner:
                    body.append({**step, "ops": inner})
                continue
            self._left -= 1
            for key in ("addr", "new_addr"):
                addr = step.get(key)
                if isinstance(addr, At) and addr.id is not None and addr.id not in self._defined:
                    step = {**step, key: At(None, (self._anywhere + addr.offset) % (1 << 64))}
            if "id" in step:
                self._defined.add(step["id"])
            body.append(step)
        return body

    def _start(self, task: _Task, step: Operation) -> None:
        if len(self.tasks) >= self._most:
            return
        start = step["op"]
        process = task.process
        if start != "clone":
            process = self._nr_processes
            self._nr_processes += 1
        child = _Task(f"c{len(self.tasks)}", start, process)
        self.tasks.append(child)
        task.ops.append({**step, "child": child.name})
        if start == "vfork" or step.get("wait"):
            task.waits_for = child
            task.until_exec = start == "vfork" and not step.get("wait")
            self._active = child

    def _exec(self, task: _Task, step: Operation) -> None:
        others = [
            other
            for other in self.tasks
            if other.process == task.process and other is not task and not other.ended
        ]
        # Who may still be returning from a barrier or a vfork says that it has, or whether that
        # has an outcome would depend on who is faster.
        returning = [other for other in others if other.can_run and _may_be_returning(other)]
        if returning:
            name = self._name("r")
            for other in returning:
                other.ops.append({"op": "post", "name": name})
            task.ops.append({"op": "await", "name": name})
        task.ops.append({key: value for key, value in step.items() if key != "then"})
        task.execed = True
        if others:
            # They end in what they wait for now; were they to go on, this post would show it.
            name = self._name("x")
            task.ops.append({"op": "post", "name": name})
        for other in others:
            other.ops.append({"op": "await", "name": name})
            if other.can_run:
                # An exec that fails lets it go on to its end: before what comes next, too.
                task.ops.append({"op": "wait", "child": other.name})
            other.ended = True
        task.ops += self._body(step.get("then", ()))

    def _wait(self, task: _Task, step: Operation) -> None:
        ended = [other for other in self.tasks if other.ended]
        if ended:
            child = ended[step["which"] % len(ended)]
            task.ops.append({"op": "wait", "child": child.name})

    def _alternate(self, task: _Task, step: Operation) -> None:
        """Two tasks take turns in a loop. Each barrier has them both, so one is always waiting."""
        partners = [other for other in self._runnable() if other is not task]
        mine = self._body(step["mine"])
        if not partners:
            task.ops += mine
            return
        theirs = self._body(step["theirs"])
        partner = partners[step["other"] % len(partners)]
        there: Operation = {"op": "barrier", "name": self._name("b")}
        back: Operation = {"op": "barrier", "name": self._name("b")}
        loop: Callable[..., Operation] = lambda *ops: {  # noqa: E731
            "op": "repeat", "count": step["count"], "ops": list(ops),
        }  # fmt: skip
        task.ops.append(loop(*mine, there, back))
        partner.ops.append(loop(there, *theirs, back))

    # --- the end ---------------------------------------------------------------------------------

    def _finish(self, stuck: bool) -> None:
        """Keeps everybody until the last operation is done."""
        runnable = self._runnable()
        if not runnable:
            return
        last = self._active if self._active in runnable else runnable[0]
        assert last is not None, "somebody can run"
        self._hand_over(last)
        others = [task for task in self.tasks if not task.ended and task is not last]
        if stuck:
            name = self._name("never")
            last.ops += [{"op": "await", "name": name}, {"op": "post", "name": name}]
        if others:
            name = self._name("end")
            last.ops.append({"op": "post", "name": name})
            for task in others:
                task.ops.append({"op": "await", "name": name})
