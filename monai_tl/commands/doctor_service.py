"""What ``monai-tl doctor`` looks at where a pipeline runs as a service: locks, orphans, remotes and the server."""

from __future__ import annotations

import configparser
import fcntl
import importlib.util
import json
import os
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path
from urllib.parse import urlsplit

from monai_tl.commands.finding import Finding
from monai_tl.config import Params
from monai_tl.inbox.settings import FROM_INBOX
from monai_tl.stages import STATE_FOLDER

CLONE = Path(STATE_FOLDER) / "clone"
_PLUGINS = {"s3": "dvc_s3", "ssh": "dvc_ssh"}
_OURS = (
    b"-m\0flows\0", b"-m\0flows.", b"-m\0dvc\0", b"monai_tl\0stage\0", b"-m\0monai_tl\0inbox\0--once\0",
    b"-m\0monai_tl.commands.", b"monai_tl.supervise\0", b"-m\0prefect.engine\0", b"-m\0prefect.runner.",
    b"-m\0prefect\0worker\0", b"\0prefect.server.api.server:create_app\0",
)  # fmt: skip
"""What only this package and its service start; a command of the user's may well have lost its terminal."""
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_TIME_OUT_S = 2.0


def examine_service(folder: Path, params: Params | None = None) -> Iterator[Finding]:
    """All findings of a workspace.

    Args:
        folder: The workspace.
        params: Say where inbox, outbox and data lie; None where they cannot be read.
    """
    yield from _locks(folder)
    yield from _orphans(folder)
    yield from _half_made(folder, params)
    yield from _remotes(folder)
    yield from _server(folder)


def _locks(folder: Path) -> Iterator[Finding]:
    """Locks that live on after whoever held them; those of the kernel cannot."""
    run = folder / STATE_FOLDER / "run.lock"
    yield Finding("workspace lock", "held by a run that goes on" if _is_held(run) else "free")
    if (folder / CLONE).is_dir():
        held = _is_held(folder / STATE_FOLDER / "clone.lock")
        yield Finding("lock of the clone", "held by a training that goes on" if held else "free")
    for place in (folder, folder / CLONE):
        index = place / ".git" / "index.lock"
        if index.is_file() and not _processes_in(place, (b"git",)):
            yield Finding("git lock", "was left by a git command that is gone", f"remove {index}")
    clone = folder / CLONE
    if clone.is_dir():
        yield dvc_lock(clone, "DVC lock of the clone")
    yield from _lease_lock(folder)


def _lease_lock(folder: Path) -> Iterator[Finding]:
    """The lock of Prefect's leases: a file with the id of a server's process, for which the next server would wait."""
    path = folder / STATE_FOLDER / "prefect" / "concurrency_leases" / "expirations.lock"
    try:
        text = path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return
    if not (text.isdigit() and b"prefect" in _command_line(int(text))):
        yield Finding("lock of Prefect's leases", "was left by a server that is gone", f"remove {path}")


def dvc_lock(folder: Path, subject: str = "DVC lock") -> Finding:
    """DVC's locks of paths, which name the processes that hold them."""
    path = folder / ".dvc" / "tmp" / "rwlock"
    try:
        content = json.loads(path.read_text(encoding="utf-8") or "{}")
        kinds = [kind for value in content.values() for kind in value.values()]
        owners = {int(item["pid"]) for kind in kinds for item in (kind if isinstance(kind, list) else [kind]) if item}
    except FileNotFoundError:
        return Finding(subject, "free")
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return Finding(subject, "its file is damaged", f"with no DVC command running, remove {path}")
    living = {pid for pid in owners if Path(f"/proc/{pid}").exists()}
    strangers = {pid for pid in living if b"dvc" not in _command_line(pid)}
    if owners and (strangers or not living):
        return Finding(subject, "was left by a process that is gone", f"remove {path}, or run 'monai-tl run'")
    return Finding(subject, f"held by a running DVC command ({len(living)})" if living else "free")


def _is_held(path: Path, flags: int = os.O_RDWR) -> bool:
    try:
        handle = os.open(path, flags)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(handle)
    return False


def _orphans(folder: Path) -> Iterator[Finding]:
    """Processes of this workspace whose parent is gone: whoever started them cannot end them any more."""
    if any(word in _command_line(1) for word in (b"prefect", b"monai_tl", b"monai-tl")):
        # in a container of the service, whose first process is the parent of all runs
        return
    lost = [pid for pid in _processes_in(folder, _OURS) if _parent(pid) == 1 and pid != os.getpid()]
    if lost:
        listed = " ".join(map(str, lost))
        yield Finding("processes left over", f"{len(lost)} whose parent is gone: {listed}", f"kill {listed}")
    else:
        yield Finding("processes left over", "none")


def _processes_in(folder: Path, words: tuple[bytes, ...]) -> list[int]:
    found = []
    root = folder.resolve()
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            place = (entry / "cwd").resolve(strict=True)
            if (place == root or root in place.parents) and any(
                word in _command_line(int(entry.name)) for word in words
            ):
                found.append(int(entry.name))
    return sorted(found)


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except (OSError, ValueError, IndexError):
        return 0


def _command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _half_made(folder: Path, params: Params | None) -> Iterator[Finding]:
    """Temporary folders that no process holds; they may hold images of patients."""
    names = ["artifacts", "reports", STATE_FOLDER]
    if params is None:
        names += ["outbox"]
    elif params.inbox is not None:
        names += [params.inbox.outbox, params.inbox.folder, str(Path(params.ingest.source) / FROM_INBOX)]
    roots = {folder / name for name in names}
    found = {path for root in roots if root.is_dir() for path in root.rglob(".*.????????.part")}
    left = sorted(path for path in found if not _is_held(path, os.O_RDONLY | os.O_DIRECTORY))
    if left:
        listed = ", ".join(str(path) for path in left[:5]) + (" …" if len(left) > 5 else "")
        yield Finding("half-made folders", f"{len(left)} that a killed process has left", f"remove {listed}")
    else:
        yield Finding("half-made folders", "none")


def _remotes(folder: Path) -> Iterator[Finding]:
    """DVC's remotes as its configuration names them; nothing is asked of a network."""
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read([folder / ".dvc" / name for name in ("config", "config.local")], encoding="utf-8")
    except (configparser.Error, UnicodeDecodeError):
        yield Finding("DVC remote", ".dvc/config cannot be read", "bring it back from git")
        return
    # DVC quotes the section: ['remote "store"']
    known = {name.strip("'")[8:-1]: dict(parser[name]) for name in parser.sections() if "remote " in name}
    default = parser.get("core", "remote", fallback="")
    if not default:
        note = "no default one: what runs make stays on this machine" if not known else "none of them is the default"
        yield Finding("DVC remote", note)
        return
    if default not in known or not known[default].get("url"):
        yield Finding("DVC remote", f"the default, {default}, is not there", f"run 'dvc remote add -d {default} URL'")
        return
    yield _remote(folder, default, known[default]["url"])


def _remote(folder: Path, name: str, url: str) -> Finding:
    kind = urlsplit(url).scheme
    plugin = _PLUGINS.get(kind)
    if plugin and importlib.util.find_spec(plugin) is None:
        return Finding(
            "DVC remote", f"{name} is {kind}, which is not installed", f"pip install {plugin.replace('_', '-')}"
        )
    if not kind and not (folder / ".dvc" / url).exists():
        return Finding("DVC remote", f"{name}: there is no folder {url}", "mount it, or make it")
    return Finding("DVC remote", name)


def _server(folder: Path) -> Iterator[Finding]:
    given = os.environ.get("PREFECT_API_URL", "")
    known = folder / STATE_FOLDER / "server.json"
    nobody = Finding("Prefect server", "none runs; 'monai-tl run' starts one for itself")
    try:
        record = json.loads(known.read_text(encoding="utf-8"))
        url, pid = given or str(record["api_url"]), int(record.get("pid", 0))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        url, pid = given, 0
    if not url:
        yield nobody
        return
    if not given and pid and not Path(f"/proc/{pid}").exists():
        yield Finding("Prefect server", "its record was left by one that is gone", f"remove {known}, or start it again")
        return
    if not _answer(f"{url}/health"):
        yield (
            Finding("Prefect server", f"no answer at {url}", "start it, or unset PREFECT_API_URL") if given else nobody
        )
        return
    yield Finding("Prefect server", f"answers at {url}")
    yield from _openness(url)


def _openness(url: str) -> Iterator[Finding]:
    """Whoever reaches the API may start programs on the machines of its workers."""
    if _answer(f"{url}/admin/version"):
        yield Finding(
            "open server", f"{url} asks for no password", "set PREFECT_SERVER_API_AUTH_STRING; 'monai-tl serve' does it"
        )
    parts = urlsplit(url)
    if parts.scheme == "http" and parts.hostname not in _LOOPBACK:
        yield Finding("open server", f"{url} sends passwords unencrypted", "put a proxy with TLS before it")
    elif parts.scheme == "http" and parts.port and _is_reachable(parts.port):
        yield Finding(
            "open server", f"port {parts.port} is open to other machines, unencrypted", "leave out --host, or put a "
            "proxy with TLS before it",
        )  # fmt: skip


def _is_reachable(port: int) -> bool:
    """Whether another address of this machine takes connections there."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            # sends nothing: the system says by which address it would
            probe.connect(("192.0.2.1", 9))
            own = probe.getsockname()[0]
        if own in _LOOPBACK:
            return False
        with socket.create_connection((own, port), timeout=_TIME_OUT_S):
            return True
    except OSError:
        return False


def _answer(url: str) -> bool:
    """Whether it gives an answer to somebody without a password."""
    try:
        with urllib.request.urlopen(url, timeout=_TIME_OUT_S) as answer:  # noqa: S310 - our own URL
            return bool(answer.status == 200)
    except (OSError, ValueError, HTTPException, urllib.error.URLError):
        return False
