"""A ranking of sources as text: for the terminal and for rank.md."""

from __future__ import annotations

from collections import Counter

from rich import box
from rich.table import Table

from monai_tl.transfer.rank import PROBE, SCORES, MeanDice, RankedSource, Ranking

NOTHING = "–"


def ranking_table(ranking: Ranking) -> Table:
    """Sources in their order, for a terminal of 80 columns: intervals under their means, the rest is in ``rank.md``."""
    title = "Sources, best first" if ranking.conditions.steps else "Sources, by scores alone"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=0, show_edge=False)
    probe = [PROBE, "minus\nscratch"] if ranking.conditions.steps else []
    for name in ["Source", *probe, *SCORES, "Contract"]:
        table.add_column(name, justify="left" if name in ("Source", "Contract") else "right", overflow="fold")
    for source in ranking.sources:
        statuses = Counter(source.contract.values())
        contract = "\n".join(f"{count} {status}" for status, count in sorted(statuses.items())) or "equal"
        table.add_row(source.name, *_judged(source, ranking), *_scores(source), contract)
    return table


def _judged(source: RankedSource, ranking: Ranking) -> list[str]:
    """The probe's Dice and what it has over fresh weights, intervals on lines of their own."""
    if not ranking.conditions.steps:
        return []
    found, gain = source.probe, source.gain
    return [
        NOTHING if found is None else f"{found.mean:.3f}\n{_interval(found.low, found.high, '', 2)}".rstrip(),
        NOTHING if gain is None else f"{gain.mean:+.3f}\n{_interval(gain.low, gain.high, '+', 2)}".rstrip(),
    ]


def _scores(source: RankedSource) -> list[str]:
    scores = [source.scores.get(name) for name in SCORES]
    return [NOTHING if score is None else f"{score:.3g}" for score in scores]


def ranking_page(ranking: Ranking) -> str:
    """``rank.md``: conditions, table, agreement, findings, refused sources."""
    conditions = ranking.conditions
    lines = ["# Ranking of sources", ""]
    lines.append(f"{conditions.n_cases} training cases were looked at, no test case.")
    if conditions.steps:
        halves = f"{conditions.n_train_cases} of them, judged on the {conditions.n_val_cases} others"
        seeds = ", ".join(map(str, conditions.seeds))
        lines.append(
            f"Probe: {conditions.strategy}, {conditions.steps} steps on {halves} ({conditions.n_val_patients} "
            f"patients); means over seeds {seeds}; {conditions.confidence * 100:g} % intervals over patients."
        )
    columns = _columns(ranking)
    lines += ["", _markdown(columns), _markdown(["---"] * len(columns))]
    lines += [_markdown(_row(source, ranking)) for source in ranking.sources]
    lines += ["", *(f"- {finding}" for finding in ranking.findings)]
    lines += ["", "Higher is better in every score:", ""]
    lines += [f"- {name}: {text}" for name, text in SCORES.items()]
    lines += [
        "",
        "## Agreement",
        "",
        _markdown(["First", "Second", "Sources", "Kendall's tau-b"]),
        _markdown(["---"] * 4),
    ]
    lines += [
        _markdown([item.first, item.second, str(item.n), NOTHING if item.tau is None else f"{item.tau:+.2f}"])
        for item in ranking.agreements
    ]
    if ranking.refused:
        lines += ["", "## Not ranked", ""]
        lines += [f"- {item.name}: {' '.join(item.reason.split())}" for item in ranking.refused]
    return "\n".join(lines) + "\n"


def _columns(ranking: Ranking) -> list[str]:
    probe = [PROBE, "from scratch", "difference"] if ranking.conditions.steps else []
    return ["Source", *probe, *SCORES, "Weights", "Contract"]


def _row(source: RankedSource, ranking: Ranking) -> list[str]:
    probe = []
    if ranking.conditions.steps:
        gain = source.gain
        difference = NOTHING if gain is None else f"{gain.mean:+.3f} {_interval(gain.low, gain.high, '+')}".rstrip()
        probe = [_dice(source.probe), _dice(source.scratch), difference]
    broken = ", ".join(f"{item} {status}" for item, status in source.contract.items()) or "equal"
    return [source.name, *probe, *_scores(source), f"{source.share_body:.0%}", broken]


def _dice(found: MeanDice | None) -> str:
    return NOTHING if found is None else f"{found.mean:.3f} {_interval(found.low, found.high, '')}".rstrip()


def _interval(low: float | None, high: float | None, sign: str, digits: int = 3) -> str:
    return "" if low is None or high is None else f"({low:{sign}.{digits}f} to {high:{sign}.{digits}f})"


def _markdown(cells: list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
