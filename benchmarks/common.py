"""Contestants measured in turns (a, b, c, a, b, c …), so that noise hits all alike; medians, spread, paired ratios."""

from __future__ import annotations

import atexit
import multiprocessing
import os
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, Protocol

ROOT = Path(__file__).parents[1]
SHARED = Path(os.environ.get("MONAI_TL_SHARED", ROOT.parent / "shared"))
RESULTS = Path(__file__).with_name("RESULTS.md")
PARTS_VARIABLE = "MONAI_TL_BENCH_PARTS"
"""Of the environment: parts of the benchmark engine, separated by commas; they are printed, RESULTS.md stays."""
HINT = "not installed (`pip install -c constraints.txt -e '.[bench]'`)"
HINT_NNUNET = "not installed (`pip install --no-deps …`: the whole line is in docs/decisions/0002-dependencies.md)"
"""nnU-Net's requirements would bring another torch, so the extra cannot name it."""
FAILURES = (RuntimeError, OSError, EOFError)
"""What a contestant's process or command ends with when it fails, or is ended."""
Role = Literal["limit", "ours", "peer", "other"]
Times = dict[str, list[float]]
_LONGEST_REMARK = 200
# between these ratios two contestants count as equal: the machine is not quieter than that
EQUAL = (0.95, 1.05)


class Turner(Protocol):
    """What takes a contestant's turns.

    Attributes:
        remark: For the last column of the table.
        facts: Heading of a further column → text.
    """

    remark: str
    facts: dict[str, str]

    def turn(self) -> float:
        """Do the work once and give its seconds."""
        ...

    def close(self) -> None:
        """Let go of processes."""
        ...


class Worker:
    """A process of its own for one contestant: its imports, threads and memory touch no other one's.

    Args:
        prepare: A module's function; called in the process, it gives what one turn does. A turn gives its seconds,
            or seconds and a remark, or these and what is for further columns.
        arguments: Of ``prepare``.
    """

    def __init__(self, prepare: Callable[..., Callable[[], Any]], *arguments: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self.remark = ""
        self.facts: dict[str, str] = {}
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(other, prepare, arguments))
        self._process.start()
        other.close()
        # before the interpreter waits for its child processes
        atexit.register(self.close)
        self._receive()

    def turn(self) -> float:
        self._pipe.send("turn")
        answer = self._receive()
        if isinstance(answer, tuple):
            answer, self.remark, *facts = answer
            self.facts.update(*facts)
        return float(answer)

    def close(self) -> None:
        self._pipe.close()
        self._process.join(30.0)

    def _receive(self) -> Any:
        is_good, answer = self._pipe.recv()
        if not is_good:
            raise RuntimeError(answer)
        return answer


def _serve(pipe: Any, prepare: Callable[..., Callable[[], Any]], arguments: Sequence[Any]) -> None:
    try:
        turn = prepare(*arguments)
        pipe.send((True, None))
        while True:
            pipe.recv()
            pipe.send((True, turn()))
    except EOFError:
        return
    except Exception as error:
        # what it says first, for the table; the way there goes to the terminal
        pipe.send((False, f"{type(error).__name__}: {error}\n{traceback.format_exc()}"))


@dataclass
class Contestant:
    """Who takes turns.

    Attributes:
        turn: Does the work once and gives its seconds; None when the package is not installed, or after a failure.
        note: For the last column of the table; the worker's remark follows it. Without a turn: why there is none.
        worker: Closed at the end.
    """

    name: str
    role: Role
    turn: Callable[[], float] | None
    note: str = ""
    worker: Turner | None = None

    @property
    def facts(self) -> dict[str, str]:
        """Further columns of the table."""
        return self.worker.facts if self.worker else {}

    @property
    def remark(self) -> str:
        if self.turn is None:
            return self.note or HINT
        return "; ".join(part for part in (self.note, self.worker.remark if self.worker else "") if part)

    def fail(self, error: BaseException) -> None:
        """Take no more turns; the remark says why.

        Raises:
            BaseException: The error itself, where nothing can be compared without this one.
        """
        if self.role in ("ours", "limit"):
            raise error
        print(f"{self.name}: {error}", file=sys.stderr, flush=True)
        self.turn = None
        first = (str(error) or type(error).__name__).splitlines()[0]
        self.note = f"failed: {first[:_LONGEST_REMARK]}".replace("|", "/")


def contestant(name: str, role: Role, prepare: Any, *arguments: Any, needs: str = "", note: str = "") -> Contestant:
    """A contestant in a process of its own; ``needs`` names the module without which it stays away."""
    if needs and find_spec(needs) is None:
        return Contestant(name, role, None, HINT_NNUNET if needs == "nnunetv2" else HINT)
    return entered(name, role, lambda: Worker(prepare, *arguments), note)


def entered(name: str, role: Role, make: Callable[[], Turner], note: str = "") -> Contestant:
    """A contestant whose worker may fail before its first turn: a peer's failure is its remark."""
    one = Contestant(name, role, None, note)
    try:
        one.worker = make()
    except FAILURES as error:
        one.fail(error)
    else:
        one.turn = one.worker.turn
    return one


def take_turns(contestants: Sequence[Contestant], n_rounds: int, budget_s: float = 120.0) -> Times:
    """Seconds of each contestant and round; a round before them warms up and is not counted.

    At least two rounds are made, and no more begun once the budget is spent. A peer that fails has no times, and a
    remark; the others go on.
    """
    present = [one for one in contestants if one.turn is not None]
    times: Times = {one.name: [] for one in present}
    started = time.monotonic()
    try:
        for number in range(n_rounds + 1):
            if number > 2 and time.monotonic() - started > budget_s:
                break
            for one in present:
                if one.turn is None:
                    continue
                try:
                    seconds = one.turn()
                except FAILURES as error:
                    one.fail(error)
                    del times[one.name]
                    continue
                if number > 0:
                    times[one.name].append(seconds)
    finally:
        for one in present:
            if one.worker is not None:
                one.worker.close()
    return times


def ratio(times: Times, first: str, second: str) -> float:
    """Median over rounds of one contestant's time by another's in the same round."""
    return statistics.median(a / b for a, b in zip(times[first], times[second], strict=True))


def table(contestants: Sequence[Contestant], times: Times, unit: str = "s", per: float = 1.0) -> str:
    """A Markdown table: median and quartiles of the time in ``unit`` (s or ms) for each of ``per`` things a turn."""
    factor = (1000.0 if unit.startswith("ms") else 1.0) / per
    limit = next((one.name for one in contestants if one.role == "limit" and one.turn), None)
    ours = next(one.name for one in contestants if one.role == "ours")
    more = list(dict.fromkeys(heading for one in contestants for heading in one.facts))
    headings = [f"{len(times[ours])} rounds", f"median, {unit}", "quartiles", "× limit", "× monai_tl", *more, ""]
    lines = [f"| {' | '.join(headings)} |", "|---" + "|---:" * (len(headings) - 2) + "|---|"]
    for one in contestants:
        if one.turn is None:
            lines.append(f"| {one.name} {'| ' * (len(headings) - 1)}{one.remark} |")
            continue
        low, middle, high = _quartiles([factor * seconds for seconds in times[one.name]])
        by_limit = "" if limit is None else f"{ratio(times, one.name, limit):.2f}"
        name = f"**{one.name}**" if one.role == "ours" else one.name
        spread = f"{number(low)} to {number(high)}"
        by_ours = f"{ratio(times, one.name, ours):.2f}"
        facts = [one.facts.get(heading, "") for heading in more]
        lines.append(f"| {' | '.join([name, number(middle), spread, by_limit, by_ours, *facts, one.remark])} |")
    return "\n".join(lines)


def judged(is_met: bool, words: str) -> str:
    """A line that says whether a goal is met."""
    return f"- {'Met' if is_met else '**Not met**'}: {words}."


def goals(contestants: Sequence[Contestant], times: Times, wanted: Mapping[str, float]) -> str:
    """One line for each goal: our rate by a peer's, and whether that is enough; first our share of the limit's rate."""
    ours = next(one.name for one in contestants if one.role == "ours")
    limit = next((one.name for one in contestants if one.role == "limit"), None)
    lines = [] if limit is None else [f"- {ratio(times, limit, ours):.1%} of the limit's rate."]
    for peer, least in wanted.items():
        if peer not in times:
            why = next(one.remark for one in contestants if one.name == peer)
            lines.append(f"- {peer}: {why}.")
            continue
        share = ratio(times, peer, ours)
        lines.append(judged(share >= least, f"{share:.2f} times {peer} (goal: {least:g})"))
    return "\n".join(lines)


def number(value: float) -> str:
    """Three digits, without an exponent."""
    return f"{value:.0f}" if value >= 100 else f"{value:#.3g}"


def _quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    if len(values) < 2:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def verdict(contestants: Sequence[Contestant], times: Times) -> str:
    """One line for each comparison that says plainly where we are slower."""
    ours = next(one.name for one in contestants if one.role == "ours")
    lines = []
    for one in contestants:
        if one.role not in ("limit", "peer") or one.turn is None:
            continue
        share = ratio(times, ours, one.name)
        if one.role == "limit":
            lines.append(f"- {share:.2f} times the limit.")
        elif share > EQUAL[1]:
            lines.append(f"- **Slower than {one.name}: {share:.2f} times its time.**")
        elif share < EQUAL[0]:
            lines.append(f"- Faster than {one.name}: {share:.2f} of its time.")
        else:
            lines.append(f"- As fast as {one.name} ({share:.2f} of its time).")
    return "\n".join(lines)


def write_section(name: str, title: str, blocks: Iterable[str], packages: Sequence[str]) -> None:
    """Replace what stands between ``<!-- name -->`` and ``<!-- /name -->``, or add it at the end; of RESULTS.md."""
    content = f"<!-- {name} -->\n" + section(name, title, blocks, packages) + f"\n<!-- /{name} -->"
    old = RESULTS.read_text(encoding="utf-8") if RESULTS.is_file() else "# Benchmarks\n"
    before, start, rest = old.partition(f"<!-- {name} -->")
    _, end, after = rest.partition(f"<!-- /{name} -->")
    new = before + content + after if start and end else old.rstrip("\n") + "\n\n" + content + "\n"
    RESULTS.write_text(new, encoding="utf-8")


def section(name: str, title: str, blocks: Iterable[str], packages: Sequence[str]) -> str:
    """A section's text: what made it, then the blocks."""
    machine = " · ".join(filter(None, [_gpu(packages), _cpu()]))
    facts = f"`python -m benchmarks {name}` · {datetime.now(UTC):%Y-%m-%d} · {machine} · load average {_load()}"
    versions = ", ".join(f"{package} {_version(package)}" for package in packages)
    return "\n\n".join([f"## {title}", f"{facts}  \n{versions}", *blocks])


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "absent"


def _gpu(packages: Sequence[str]) -> str:
    """The GPU's name and CUDA's version, where the section's contestants use torch and it sees one."""
    if "torch" not in packages or find_spec("torch") is None:
        return ""
    import torch

    return f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}" if torch.cuda.is_available() else ""


def _cpu() -> str:
    cores = len(os.sched_getaffinity(0))
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown CPU")
    return f"{model}, {cores} cores"


def _load() -> str:
    return f"{os.getloadavg()[0]:.1f} at the end"
