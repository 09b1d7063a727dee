"""A pickle gone through on stand-ins as torch goes through it: what it names and calls, and how much work that is.

Nothing is made and nothing called. A pickle may name what it made before as often as it likes, so a few hundred bytes
can hold a tuple of 2^40 leaves, which hashing would walk through. Here what a call, a key or a storage's id would walk
through is counted where it stands, and must stay within what the file's size allows.
"""

from __future__ import annotations

import pickletools
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Any

_MOST_WORK = 4
"""For each byte of the pickle; real ones need one or less."""
_SPARE_WORK = 1 << 16
_MOST_STEPS = 1 << 24
_ALLOWED = re.compile(
    r"collections (OrderedDict|Counter)"
    r"|torch\._utils _rebuild_(tensor|tensor_v2|tensor_v3|parameter|parameter_with_state)"
    r"|torch\.nn\.parameter Parameter"
    r"|torch (Size|device|[a-z][a-z0-9_]*|[A-Z][A-Za-z0-9]*Storage)"
    r"|torch\.storage (UntypedStorage|TypedStorage|_LegacyStorage)"
    r"|torch\.serialization _get_layout"
    r"|(builtins|__builtin__) (set|complex)"
    r"|_codecs encode"
    # torch refuses these unless the caller allows them
    r"|numpy(\._?core\.multiarray)? (scalar|dtype|ndarray|_reconstruct)|numpy\.dtypes [A-Za-z0-9]+"
)
"""Module and name of what a file of plain tensors may name; what is lower-case in torch itself, torch checks."""
_CODECS = ("latin1", "latin-1", "ascii", "utf-8", "utf8")
"""Python writes bytes as text in the first; there are codecs that grow what they get, or take for ever."""
_KEY = re.compile("[0-9]{1,20}")
"""Of a storage: torch writes numbers, and looks names up without regard to case."""


class RefusedError(Exception):
    """A pickle would have torch do what tensors do not need; says what."""


@dataclass(frozen=True)
class _Named:
    name: str


def rehearse(stream: IO[bytes]) -> None:
    """Go through one pickle, to its end.

    Raises:
        RefusedError: It names, calls or unfolds more than a file of tensors does.
        ValueError, IndexError, KeyError, EOFError, UnpicklingError: It is damaged or has no end.
    """
    play = _Rehearsal()
    begin = stream.tell()
    for n_steps, (code, argument, place) in enumerate(pickletools.genops(stream)):
        if n_steps > _MOST_STEPS:
            raise ValueError(f"more than {_MOST_STEPS} steps")
        play.allowed = _MOST_WORK * ((place or 0) - begin) + _SPARE_WORK
        act = _ACTS.get(code.name)
        if act is None:
            # torch knows no others
            raise RefusedError(code.name)
        act(play, argument)


class _Rehearsal:
    """The state that torch would have: a stack, marks in it, a memory.

    Stand-ins are: text for text, a tuple for a tuple, ``_Named`` for what a name stands for, a list for all else that
    holds others (list, dictionary with keys and values in turn, result of a call with its arguments), else None.
    """

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marked: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.allowed = 0
        self.work = 0

    def walk(self, value: Any) -> None:
        """Count what hashing, copying or looking at a value would walk through."""
        waiting = [value]
        while waiting:
            one = waiting.pop()
            self.work += 1 + (len(one) if isinstance(one, str | tuple | list) else 0)
            if self.work > self.allowed:
                raise RefusedError("what unfolds to more than the file holds")
            if isinstance(one, tuple | list):
                waiting.extend(one)

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def since_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.marked.pop()
        return items

    def mark(self, _: Any) -> None:
        self.marked.append(self.stack)
        self.stack = []

    def hold(self, items: list[Any]) -> None:
        """Put items into what is uppermost."""
        if not isinstance(self.stack[-1], list):
            raise ValueError("puts something into what holds nothing")
        self.stack[-1].extend(items)

    def set_items(self, items: list[Any]) -> None:
        for key in items[::2]:
            # a text keeps its hash
            if not isinstance(key, str):
                self.walk(key)
        self.hold(items)

    def last(self, n: int) -> list[Any]:
        """Take the n uppermost."""
        if len(self.stack) < n:
            raise IndexError("takes more than there is")
        items = self.stack[-n:]
        del self.stack[-n:]
        return items

    def name(self, argument: str) -> None:
        if not _ALLOWED.fullmatch(argument):
            raise RefusedError(argument.replace(" ", ".", 1))
        self.push(_Named(argument))

    def call(self, _: Any) -> None:
        what, arguments = self.last(2)
        if not isinstance(what, _Named) or not isinstance(arguments, tuple):
            raise RefusedError("a call of what is no name")
        if what.name == "_codecs encode" and not (len(arguments) == 2 and arguments[1] in _CODECS):
            codec = next((one for one in arguments[1:] if isinstance(one, str)), "what is no text")
            raise RefusedError(f"_codecs.encode as {codec}")
        self.walk(arguments)
        self.push([arguments])

    def build(self, _: Any) -> None:
        (state,) = self.last(1)
        self.walk(state)
        self.hold([state])

    def stored(self, _: Any) -> None:
        (identity,) = self.last(1)
        key = identity[2] if isinstance(identity, tuple) and len(identity) > 2 else None
        if not isinstance(key, str) or not _KEY.fullmatch(key):
            raise RefusedError("a storage whose key is no number")
        self.walk(identity)
        self.push([identity])

    def get(self, argument: int) -> None:
        self.push(self.memo[argument])

    def put(self, argument: int) -> None:
        self.memo[argument] = self.stack[-1]


_PLAIN = ("NONE", "NEWFALSE", "NEWTRUE", "BININT", "BININT1", "BININT2", "BINFLOAT", "LONG1")
_ACTS: dict[str, Callable[[_Rehearsal, Any], None]] = {
    **dict.fromkeys(_PLAIN, lambda play, _: play.push(None)),
    **dict.fromkeys(("BINUNICODE", "SHORT_BINSTRING"), _Rehearsal.push),
    **dict.fromkeys(("EMPTY_LIST", "EMPTY_DICT", "EMPTY_SET"), lambda play, _: play.push([])),
    **dict.fromkeys(("BINGET", "LONG_BINGET"), _Rehearsal.get),
    **dict.fromkeys(("BINPUT", "LONG_BINPUT"), _Rehearsal.put),
    **dict.fromkeys(("REDUCE", "NEWOBJ"), _Rehearsal.call),
    **dict.fromkeys(("PROTO", "STOP"), lambda play, _: None),
    "GLOBAL": _Rehearsal.name,
    "BINPERSID": _Rehearsal.stored,
    "BUILD": _Rehearsal.build,
    "MARK": _Rehearsal.mark,
    "EMPTY_TUPLE": lambda play, _: play.push(()),
    "TUPLE": lambda play, _: play.push(tuple(play.since_mark())),
    "TUPLE1": lambda play, _: play.push(tuple(play.last(1))),
    "TUPLE2": lambda play, _: play.push(tuple(play.last(2))),
    "TUPLE3": lambda play, _: play.push(tuple(play.last(3))),
    "APPEND": lambda play, _: play.hold(play.last(1)),
    "APPENDS": lambda play, _: play.hold(play.since_mark()),
    "SETITEM": lambda play, _: play.set_items(play.last(2)),
    "SETITEMS": lambda play, _: play.set_items(play.since_mark()),
}
"""What torch 2 reads under ``weights_only``."""
