"""Two processes that share objects: one runs a test program, the other the sample's code.

Each message hands the turn to the other side, as {"do": what, "with": arguments} or as the reply,
{"value": ...} or {"raised": ...}; while one waits for a reply it answers what the other asks.

- Values that cannot change cross as copies: numbers, texts, tuples, dates and the like.
- Lists, dicts, sets and other containers cross as copies that are kept equal: each message brings
  the containers that its sender has changed ("S"), so what a function changes in place is seen.
- Functions, classes and objects stay where they are; a stand-in for them crosses (stand_ins.py).
- What the sample prints crosses with its next message.

The side with the tests (`trusted` is false for the other side there) gives away nothing that would
let the sample reach its assertions: no special attributes, no frames, no methods replaced. And a
sample's object decides no assertion: see `operate` and `leave`.
"""

from __future__ import annotations

import copy
import inspect
import json
import opcode
import sys
import types
from collections.abc import Callable
from typing import Any

import values
from crossing import Crossing, is_remote
from stand_ins import COMPARISONS, SPECIALS, Remote, RemoteClass

_FRAMES = ("gi_", "cr_", "ag_", "f_", "tb_", "co_")
_RAISE = opcode.opmap["RAISE_VARARGS"]


class Peer(Crossing):  # type: ignore[misc]
    """This process's end.

    Args:
        read, write: take the next message, and hand one over with the turn.
        number: 0 or 1; the other end has the other number.
        trusted: whether the other side may do anything with this side's objects.
        spelled: text of the task: operators of the sample's objects that it spells, and classes
            that it names, are the sample's to decide.
    """

    def __init__(
        self,
        read: Callable[[], dict[str, Any]],
        write: Callable[[str], None],
        *,
        number: int,
        trusted: bool,
        spelled: Callable[[str], bool] = lambda name: True,
    ) -> None:
        super().__init__(number)
        self._read, self._write = read, write
        self._trusted, self._spelled = trusted, spelled
        self._tasks: dict[int, Any] = {}
        self._loop: Any = None
        self.names: Callable[[str], Any] = lambda name: None
        self.printed: Callable[[], str] = str
        self.broken = ""
        """Why the tests have failed whatever they say later."""

    def ask(self, what: str, *parts: Any) -> Any:
        """Have the other side do something; return its value, or raise what it raised."""
        self._send({"do": what, "with": parts})
        return self.serve()

    def serve(self) -> Any:
        """Answer what the other side asks until it replies to us."""
        while True:
            message = self._read()
            sys.stdout.write(str(message.get("out", "")))
            self._take_changes(message)
            if "do" in message:
                self._send(self._answered(str(message["do"]), self.decode(message["with"])))
            elif "raised" in message:
                error = self.decode(message["raised"])
                raise error if isinstance(error, BaseException) else RuntimeError("unreadable")
            else:
                return self.decode(message["value"])

    def operate(self, thing: Any, name: str, other: Any, plain: str) -> Any:
        """Apply an operator of the other side's object.

        The sample's object with plain data decides no assertion: an object that equals everything
        would pass every test. So its operator counts only where the task spells it (`__eq__`), and
        other than comparisons where it names the class.
        """
        if self._trusted or isinstance(other, Remote | RemoteClass) or self._spelled(name):
            return self.ask("special", thing, name, (other,))
        if name not in COMPARISONS and self._spelled(f"class {type(thing).__name__}"):
            return self.ask("special", thing, name, (other,))
        if plain:
            return getattr(self.ask("plain", thing), name)(other)
        if name == "__contains__":
            raise TypeError(f"argument of type '{type(thing).__name__}' decides no test")
        return NotImplemented

    def leave(self, thing: Any, args: tuple[Any, ...]) -> Any:
        """Leave a `with` block of the other side's object. The sample may suppress what the test
        raises on purpose, and no failure."""
        error, trace = args[1], args[2]
        result = self.ask("special", thing, "__exit__", (*args[:2], None))
        if self._trusted or error is None or self._spelled("__exit__"):
            return result
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        on_purpose = trace is not None and (
            trace.tb_frame.f_code.co_code[trace.tb_lasti] == _RAISE
            and not isinstance(error, AssertionError)
            and not is_remote(error)
        )
        return result if on_purpose else False

    async def awaited(self, thing: Any) -> Any:
        """Await something of the other side: its event loop runs while ours does."""
        import asyncio

        while True:
            done, value = self.ask("poll", thing)
            if done:
                return value
            await asyncio.sleep(0)

    # --- what the other side asks
    def _own(self, thing: Any, name: str = "") -> Any:
        if self._trusted:
            return thing
        if id(thing) not in self._my_ids:
            raise TypeError("not an object of the tests")
        if name.startswith(_FRAMES) or (name.startswith("__") and name.endswith("__")):
            raise AttributeError(f"the tests keep '{name}' for themselves")
        return thing

    def _do_call(self, thing: Any, args: tuple[Any, ...], named: tuple[Any, ...]) -> Any:
        try:
            return self._own(thing)(*args, **dict(named))
        except StopIteration as error:  # it would end a loop of the tests without a word
            if not self._trusted:
                raise
            raise RuntimeError("the function raised StopIteration") from error

    def _do_get(self, thing: Any, name: str) -> Any:
        return getattr(self._own(thing, name), name)

    def _do_set(self, thing: Any, name: str, value: Any) -> None:
        if not self._trusted and (
            isinstance(thing, type | types.FunctionType | types.ModuleType)
            or callable(getattr(type(thing), name, None))
        ):
            raise AttributeError(f"the tests keep '{name}' for themselves")
        setattr(self._own(thing, name), name, value)

    def _do_delete(self, thing: Any, name: str) -> None:
        delattr(self._own(thing, name), name)

    def _do_special(self, thing: Any, name: str, args: tuple[Any, ...]) -> Any:
        if name not in SPECIALS:
            raise AttributeError(name)
        return getattr(type(self._own(thing)), name)(thing, *args)

    def _do_items(self, thing: Any) -> Any:
        return tuple(self._own(thing))

    def _do_item(self, thing: Any, key: Any) -> Any:
        return self._own(thing)[key]

    def _do_is_async(self, thing: Any) -> bool:
        return inspect.iscoroutinefunction(thing)

    def _do_plain(self, thing: Any) -> Any:
        return values._plain(self._own(thing))

    def _do_copy(self, thing: Any, deep: bool) -> Any:
        return (copy.deepcopy if deep else copy.copy)(self._own(thing))

    def _do_names(self) -> Any:
        return self.names("")

    def _do_name(self, name: str) -> Any:
        return self.names(name)

    def _do_input(self, what: str, args: tuple[Any, ...]) -> Any:
        if what not in ("input", "read", "readline", "readlines"):
            raise AttributeError(what)
        return input(*args) if what == "input" else getattr(sys.stdin, what)(*args)

    def _do_next(self, thing: Any, most: int, sent: Any) -> Any:
        items: list[Any] = []
        try:
            while len(items) < most:
                items.append(self._own(thing).send(sent) if sent is not None else next(thing))
                sent = None
        except StopIteration as end:
            return tuple(items), 1, end.value
        except Exception as error:
            return tuple(items), 2, error
        return tuple(items), 0, None

    def _do_poll(self, thing: Any) -> Any:
        import asyncio

        task = self._tasks.get(id(thing))
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            loop = self._loop = self._loop or asyncio.new_event_loop()
        if task is None:
            task = asyncio.ensure_future(_whole(self._own(thing)), loop=loop)
            self._tasks[id(thing)] = task
        if not loop.is_running():
            loop.run_until_complete(asyncio.wait([task], timeout=0.001))
        if not task.done():
            return False, None
        del self._tasks[id(thing)]
        return True, task.result()

    def _answered(self, what: str, parts: tuple[Any, ...]) -> dict[str, Any]:
        try:
            return {"value": getattr(self, f"_do_{what}")(*parts)}
        except BaseException as error:
            if isinstance(error, AssertionError) and not self._trusted and not is_remote(error):
                self.broken = f"{type(error).__name__}: {error}"
            return {"raised": error}

    def _send(self, message: dict[str, Any]) -> None:
        encoded = {key: part if key == "do" else self.encode(part) for key, part in message.items()}
        states, dropped = self._changes()
        if states:
            encoded["S"] = states
        if dropped:
            encoded["drop"] = dropped
        if out := self.printed():
            encoded["out"] = out
        self._write(json.dumps(encoded, separators=(",", ":")))


async def _whole(thing: Any) -> Any:
    return await thing
