"""``monai-tl sources``: list, show, check; and pull, against a server on this machine that misbehaves."""

from __future__ import annotations

import hashlib
import os
import threading
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from file_server import Behaviour, serve
from nnunet_results import write_results
from safetensors.torch import save_file
from typer.testing import CliRunner
from workspaces import write_made_up_source
from zoo_bundles import spleen, zip_folder

from monai_tl.cli import app
from monai_tl.config import NetworkConfig
from monai_tl.errors import MonaiTLError, SourceError, WeightsError
from monai_tl.networks.builders import build_network, network_names
from monai_tl.networks.groups import named_tensors
from monai_tl.records import Audit
from monai_tl.sources.audit import load_source
from monai_tl.sources.card import Card, read_source, write_source
from monai_tl.sources.download import Patience
from monai_tl.sources.ensemble import InferenceSettings, write_ensemble
from monai_tl.sources.own_load import load_own
from monai_tl.sources.pull import pull
from monai_tl.sources.pull_record import PullRecord
from monai_tl.sources.zoo import ZOO, ZooEntry, find_entry

QUICK = Patience(timeout_s=5.0, n_tries=4, pause_s=0.01)


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ZooEntry]:
    """A folder with a bundle under the name of one of the table, and an entry with its checksum."""
    base = tmp_path_factory.mktemp("mirror")
    folder, _ = spleen(base / "unpacked")
    entry = find_entry("spleen_ct_segmentation")
    (base / "files").mkdir()
    path = zip_folder(folder, base / "files" / entry.file_name, "spleen_ct_segmentation/")
    return base / "files", entry._replace(sha1=hashlib.sha1(path.read_bytes(), usedforsecurity=False).hexdigest())


def _said(arguments: list[str]) -> tuple[str, Any]:
    result = CliRunner().invoke(app, ["sources", *arguments])
    return result.output, result.exception


# ---------------------------------------------------------------- pull


def test_what_is_pulled_is_whole_recorded_and_readable(tmp_path: Path, mirror: tuple[Path, ZooEntry]) -> None:
    files, entry = mirror
    content = (files / entry.file_name).read_bytes()
    told: list[tuple[int, int | None]] = []
    with serve(files, Behaviour()) as url:
        path = pull(entry, tmp_path / "sources", url, QUICK, lambda *at: told.append(at))
    assert path.read_bytes() == content
    assert told[-1] == (len(content), len(content))
    record = PullRecord.read(path.with_suffix(".pulled.json"))
    assert record.sha256 == hashlib.sha256(content).hexdigest()
    assert (record.published, record.n_bytes) == (f"sha1:{entry.sha1}", len(content))
    assert read_source(path).card.classes == ("spleen",)
    assert sorted(item.name for item in path.parent.iterdir()) == [path.with_suffix(".pulled.json").name, path.name]


@pytest.mark.parametrize("ranges", [True, False])
def test_a_cut_connection_is_taken_up_where_it_broke(tmp_path: Path, mirror: Any, ranges: bool) -> None:
    files, entry = mirror
    size = (files / entry.file_name).stat().st_size
    behaviour = Behaviour(cuts=[1000, 2000], ranges=ranges)
    with serve(files, behaviour) as url:
        path = pull(entry, tmp_path, url, QUICK)
    assert path.stat().st_size == size
    assert behaviour.asked == ["", "bytes=1000-", "bytes=3000-" if ranges else "bytes=2000-"]


def test_a_later_pull_goes_on_with_what_came(tmp_path: Path, mirror: Any) -> None:
    files, entry = mirror
    behaviour = Behaviour(cuts=[1500])
    with serve(files, behaviour) as url:
        with pytest.raises(SourceError, match="1500 bytes are kept"):
            pull(entry, tmp_path, url, QUICK.__class__(5.0, 1, 0.01))
        assert not (tmp_path / entry.file_name).exists()
        (part,) = tmp_path.iterdir()
        assert entry.sha1[:16] in part.name
        pull(entry, tmp_path, url, QUICK)
    assert behaviour.asked == ["", "bytes=1500-"]
    assert not part.exists()


def test_a_part_that_is_too_long_is_begun_anew(tmp_path: Path, mirror: Any) -> None:
    files, entry = mirror
    part = tmp_path / f".{entry.file_name}.{entry.sha1[:16]}.part"
    part.write_bytes(bytes(1 << 20))
    with serve(files, Behaviour()) as url:
        assert read_source(pull(entry, tmp_path, url, QUICK)).kind == "bundle"


def test_of_two_pulls_at_once_one_gives_way(tmp_path: Path, mirror: Any) -> None:
    files, entry = mirror
    outcomes: list[Any] = []

    def one(url: str) -> None:
        try:
            outcomes.append(pull(entry, tmp_path, url, QUICK))
        except SourceError as error:
            outcomes.append(str(error))

    with serve(files, Behaviour(hang_s=1.0, ranges=False)) as url:
        threads = [threading.Thread(target=one, args=(url,)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert [item for item in outcomes if isinstance(item, Path)] == [tmp_path / entry.file_name]
    assert [item for item in outcomes if isinstance(item, str) and "is being pulled by another process" in item]
    assert read_source(tmp_path / entry.file_name).card.classes == ("spleen",)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_file_system_without_links_gets_its_file_too(tmp_path: Path, mirror: Any, monkeypatch: Any) -> None:
    def refuse(*_: Any) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    files, entry = mirror
    with serve(files, Behaviour()) as url:
        path = pull(entry, tmp_path, url, QUICK)
    assert path.read_bytes() == (files / entry.file_name).read_bytes()


def test_a_wrong_file_is_not_kept(tmp_path: Path, mirror: Any) -> None:
    files, entry = mirror
    with (
        serve(files, Behaviour()) as url,
        pytest.raises(WeightsError, match=r"sha1 .* published is 000000000000.*nothing is kept"),
    ):
        pull(entry._replace(sha1="0" * 40), tmp_path, url, QUICK)
    assert not list(tmp_path.iterdir())


def test_a_damaged_part_is_found_and_not_kept(tmp_path: Path, mirror: Any) -> None:
    files, entry = mirror
    part = tmp_path / f".{entry.file_name}.{entry.sha1[:16]}.part"
    part.write_bytes(b"something else")
    with serve(files, Behaviour()) as url:
        with pytest.raises(WeightsError, match="nothing is kept"):
            pull(entry, tmp_path, url, QUICK)
        assert not list(tmp_path.iterdir())
        pull(entry, tmp_path, url, QUICK)


@pytest.mark.parametrize(("statuses", "n_asked"), [([404] * 9, 1), ([403] * 9, 1), ([503] * 9, 4)])
def test_refusals_end_with_what_to_do(tmp_path: Path, mirror: Any, statuses: list[int], n_asked: int) -> None:
    files, entry = mirror
    behaviour = Behaviour(statuses=statuses.copy())
    with serve(files, behaviour) as url, pytest.raises(SourceError, match=rf"answers {statuses[0]}.*--index"):
        pull(entry, tmp_path, url, QUICK)
    assert len(behaviour.asked) == n_asked
    assert not list(tmp_path.iterdir())


def test_a_passing_fault_is_tried_again(tmp_path: Path, mirror: Any) -> None:
    files, entry = mirror
    with serve(files, Behaviour(statuses=[503, 500])) as url:
        assert pull(entry, tmp_path, url, QUICK).is_file()


def test_a_server_that_hangs_is_given_up(tmp_path: Path, mirror: Any) -> None:
    files, entry = mirror
    with serve(files, Behaviour(hang_s=1.0)) as url:
        start = time.monotonic()
        with pytest.raises(SourceError, match="timed out"):
            pull(entry, tmp_path, url, Patience(timeout_s=0.1, n_tries=2, pause_s=0.01))
        assert time.monotonic() - start < 5.0


def test_without_a_network_it_says_so(tmp_path: Path, mirror: Any) -> None:
    _, entry = mirror
    with serve(tmp_path, Behaviour()) as url:
        pass
    with pytest.raises(SourceError, match=r"refused.*copy the file from another machine into a folder"):
        pull(entry, tmp_path, url, Patience(timeout_s=1.0, n_tries=2, pause_s=0.01))


def test_a_redirect_to_this_machines_files_is_not_followed(tmp_path: Path, mirror: Any) -> None:
    files, entry = mirror
    for target in ((files / entry.file_name).as_uri(), f"ftp://127.0.0.1/{entry.file_name}"):
        behaviour = Behaviour(redirect=target)
        with serve(files, behaviour) as url, pytest.raises(SourceError, match="off the web"):
            pull(entry, tmp_path, url, QUICK)
        assert len(behaviour.asked) == 1
    assert not list(tmp_path.iterdir())


def test_a_redirect_on_the_web_is_followed(tmp_path: Path, mirror: Any) -> None:
    files, entry = mirror
    with serve(files, Behaviour()) as url, serve(files, Behaviour(redirect=f"{url}/{entry.file_name}")) as first:
        assert pull(entry, tmp_path, first, QUICK).is_file()


def test_a_file_larger_than_allowed_is_refused(tmp_path: Path, mirror: Any) -> None:
    files, entry = mirror
    with serve(files, Behaviour()) as url, pytest.raises(SourceError, match="more than the 100 allowed"):
        pull(entry, tmp_path, url, Patience(max_bytes=100, pause_s=0.01))


@pytest.mark.parametrize("form", ["folder", "file", "uri"])
def test_a_folder_at_hand_needs_no_network(tmp_path: Path, mirror: Any, form: str) -> None:
    files, entry = mirror
    index = {"folder": str(files), "file": str(files / entry.file_name), "uri": files.as_uri()}[form]
    path = pull(entry, tmp_path, index)
    assert path.read_bytes() == (files / entry.file_name).read_bytes()


@pytest.mark.parametrize("index", ["ftp://example.org/a", "file://elsewhere/a", "/nowhere"])
def test_other_places_are_refused(tmp_path: Path, mirror: Any, index: str) -> None:
    with pytest.raises(SourceError, match=r"give|copy"):
        pull(mirror[1], tmp_path, index)


def test_a_wrong_file_at_hand_is_refused(tmp_path: Path, mirror: Any) -> None:
    files, entry = mirror
    with pytest.raises(WeightsError, match="is not the file that is wanted"):
        pull(entry._replace(sha1="0" * 40), tmp_path / "out", str(files))
    assert not (tmp_path / "out").exists()


def test_what_is_there_is_never_overwritten(tmp_path: Path, mirror: Any) -> None:
    files, entry = mirror
    (tmp_path / entry.file_name).write_bytes(b"mine")
    with pytest.raises(SourceError, match=r"another file.*not overwritten"):
        pull(entry, tmp_path, str(files))
    assert (tmp_path / entry.file_name).read_bytes() == b"mine"


def test_pulling_again_changes_nothing(tmp_path: Path, mirror: Any) -> None:
    files, entry = mirror
    path = pull(entry, tmp_path, str(files))
    before = {item.name: (item.read_bytes(), item.stat().st_mtime_ns) for item in tmp_path.iterdir()}
    assert pull(entry, tmp_path, "http://127.0.0.1:9") == path
    assert {item.name: (item.read_bytes(), item.stat().st_mtime_ns) for item in tmp_path.iterdir()} == before


def test_a_file_that_changed_after_it_was_pulled_is_refused(tmp_path: Path, mirror: Any) -> None:
    files, entry = mirror
    path = pull(entry, tmp_path, str(files))
    content = bytearray(path.read_bytes())
    # in the end record's comment length nobody looks: only the recorded hash tells
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="is not what was pulled"):
        read_source(path)
    path.with_suffix(".pulled.json").write_text("{")
    with pytest.raises(SourceError, match="damaged"):
        read_source(path)


def test_lines_of_the_table_come_along_and_never_replace_the_users(tmp_path: Path, mirror: Any) -> None:
    files, entry = mirror
    entry = entry._replace(lines={"notes": "from the table"})
    path = pull(entry, tmp_path / "one", str(files))
    assert read_source(path).card.notes == "from the table"
    own = tmp_path / "two" / path.with_suffix(".card.yaml").name
    own.parent.mkdir()
    own.write_text("notes: mine\n")
    assert read_source(pull(entry, tmp_path / "two", str(files))).card.notes == "mine"


def test_the_table_is_sound() -> None:
    assert len({entry.name for entry in ZOO}) == len(ZOO) >= 5
    for entry in ZOO:
        assert len(entry.sha1) == 40
        assert set(entry.sha1) <= set("0123456789abcdef")
        assert entry.url.startswith("https://")
        assert entry.url.endswith(f"/{entry.name}_v{entry.version}.zip")
        assert entry.network in network_names()
        assert entry.licence
        assert entry.citation
    assert len({entry.sha1 for entry in ZOO}) == len(ZOO)


@pytest.mark.parametrize(("name", "why"), [("spleen", "no bundle is called"), ("brats_mri_segmentation@0.1", "alone")])
def test_unknown_names_are_told(tmp_path: Path, name: str, why: str) -> None:
    _, error = _said(["pull", name, "--to", str(tmp_path)])
    assert isinstance(error, SourceError)
    assert why in str(error)


@pytest.mark.parametrize("way", ["web", "folder", "there"])
def test_a_file_of_another_sha256_than_asked_for_is_refused(tmp_path: Path, mirror: Any, way: str) -> None:
    files, entry = mirror
    known = hashlib.sha256((files / entry.file_name).read_bytes()).hexdigest()
    assert pull(entry._replace(sha256=known), tmp_path / "right", str(files)).is_file()
    other, out = entry._replace(sha256="0" * 64), tmp_path / "wrong"
    if way == "there":
        pull(entry, out, str(files))
    with serve(files, Behaviour()) as url, pytest.raises(MonaiTLError, match=rf"sha256 {known[:12]}.*is 000000000000"):
        pull(other, out, url if way == "web" else str(files), QUICK)
    assert (out / entry.file_name).exists() == (way == "there")
    assert not [item for item in out.glob(".*") if item.is_file()]


def test_the_command_takes_a_sha256(tmp_path: Path, mirror: Any, monkeypatch: Any) -> None:
    files, entry = mirror
    monkeypatch.setattr("monai_tl.commands.sources.find_entry", lambda *_: entry)
    known = hashlib.sha256((files / entry.file_name).read_bytes()).hexdigest()
    arguments = ["pull", entry.name, "--to", str(tmp_path / "out"), "--index", str(files), "--sha256"]
    for text in ("abc", "0" * 63 + "g", f"sha256:{known}"):
        _, error = _said([*arguments, text])
        assert isinstance(error, SourceError)
        assert "64 hexadecimal digits" in str(error)
    _, error = _said([*arguments, "0" * 64])
    assert isinstance(error, WeightsError)
    assert not (tmp_path / "out").exists()
    output, error = _said([*arguments, known.upper()])
    assert error is None
    assert "it is the one asked for" in output


# ---------------------------------------------------------------- list, show, check


def _card_folder(folder: Path, **changes: Any) -> Path:
    network = NetworkConfig(name="unet", arguments={"channels": [4, 8, 8], "strides": [2, 2]})
    content = {
        "name": "organs",
        "network": {**network.model_dump(), "n_channels": 1, "n_outputs": 3},
        "weights": {"file": "weights.safetensors", "sha256": "0" * 64},
        "licence": "CC-BY-NC-4.0",
        "citation": "nobody",
        "input": {
            "modality": "CT",
            "channels": ["CT"],
            "orientation": "RAS",
            "spacing_mm": [1.0, 1.0, 2.0],
            "intensity": {"rule": "window", "low": 0, "high": 100},
        },
        "classes": ["liver", "spleen"],
        **changes,
    }
    card = Card.model_validate(content)
    module = build_network(network, 1, card.network.n_outputs, seed=2)
    tensors = {
        name: tensor
        for name, tensor in named_tensors(module).items()
        if card.covers is None or name.startswith("model.0")
    }
    write_source(folder, card, tensors)
    return folder


def test_list_tells_of_the_table_and_the_workspace(tmp_path: Path, mirror: Any) -> None:
    files, entry = mirror
    _card_folder(tmp_path / "sources" / "organs")
    pull(entry, tmp_path / "sources", str(files))
    (tmp_path / "sources" / "empty").mkdir()
    output, _ = _said(["list", "--workspace", str(tmp_path)])
    for one in ZOO:
        assert f"{one.name} {one.version}" in output
    assert "organs (card): liver, spleen; CT, unet; CC-BY-NC-4.0" in output
    assert f"{entry.file_name} (bundle): spleen; CT, unet; Apache-2.0" in output
    assert "empty: not usable as it is" in output


def test_show_prints_a_card_that_is_a_card(tmp_path: Path) -> None:
    folder, _ = spleen(tmp_path / "a")
    output, error = _said(["show", str(folder)])
    assert error is None
    card = Card.model_validate(yaml.safe_load(output))
    assert card == read_source(folder).card
    module = build_network(card.network.config, 1, 2, seed=0)
    assert f"# parameters: {sum(item.numel() for item in module.parameters()):,}" in output
    assert "down0, bottom, head" in output


def test_show_says_that_a_licence_limits_use(tmp_path: Path) -> None:
    output, _ = _said(["show", str(_card_folder(tmp_path / "a"))])
    assert "the licence limits use" in output


def test_show_prints_a_draft_of_what_is_incomplete(tmp_path: Path) -> None:
    folder, _ = spleen(tmp_path / "a")
    text = (folder / "configs" / "inference.json").read_text().replace('"Spacingd"', '"EnsureTyped"')
    (folder / "configs" / "inference.json").write_text(text)
    output, error = _said(["show", str(folder)])
    assert isinstance(error, SourceError)
    assert "needed, and not in the source: input.spacing_mm" in output
    draft = yaml.safe_load(output)
    draft["input"]["spacing_mm"] = [1.0, 1.0, 1.0]
    (folder / "card.yaml").write_text(yaml.safe_dump(draft))
    assert read_source(folder).card.input.spacing_mm == (1.0, 1.0, 1.0)


def test_check_tells_what_does_not_fit(tmp_path: Path) -> None:
    folder, theirs = spleen(tmp_path / "a")
    output, error = _said(["check", str(folder)])
    assert error is None
    n_tensors = len(theirs.state_dict())
    assert f"{n_tensors} of {n_tensors} tensors matched" in output
    state = dict(theirs.state_dict())
    lost = state.pop("model.0.conv.unit0.conv.weight")
    torch.save({**state, "extra": lost}, folder / "models" / "model.pt")
    _, error = _said(["check", str(folder)])
    assert isinstance(error, WeightsError)
    assert "model.0.conv.unit0.conv.weight" in str(error)
    assert (error.exit_code, isinstance(error, MonaiTLError)) == (4, True)


@pytest.mark.parametrize("change", [{"colour": 3}, {"norm": "nonsense"}, {"kernel_size": 1001}])
@pytest.mark.parametrize("verb", ["check", "show"])
def test_a_network_that_cannot_be_built_is_a_fault_of_the_source(tmp_path: Path, verb: str, change: Any) -> None:
    write_made_up_source(tmp_path)
    card = yaml.safe_load((tmp_path / "card.yaml").read_text())
    card["network"]["arguments"] |= change
    (tmp_path / "card.yaml").write_text(yaml.safe_dump(card))
    error = _said([verb, str(tmp_path)])[1]
    assert isinstance(error, SourceError)
    assert "the network it states cannot be built" in str(error)


def test_what_a_mac_adds_to_a_zip_file_does_not_count(tmp_path: Path) -> None:
    path = zip_folder(spleen(tmp_path / "a")[0], tmp_path / "a.zip", "top/")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("__MACOSX/top/models/._model.pt", b"x")
    assert read_source(path).card.classes == ("spleen",)


def test_the_exit_code_of_a_bad_source_is_4(tmp_path: Path) -> None:
    import subprocess
    import sys

    run = subprocess.run(
        [sys.executable, "-m", "monai_tl", "sources", "check", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 4
    assert "is no source" in run.stderr
    assert "Traceback" not in run.stderr


# ---------------------------------------------------------------- the other kinds


def test_a_self_supervised_source_covers_what_it_says(tmp_path: Path) -> None:
    folder = _card_folder(tmp_path / "ssl", classes=[], output="features", covers=["down0"])
    source = read_source(folder)
    assert source.kind == "self-supervised"
    audit = load_own(source)
    assert isinstance(audit, Audit)
    network = source.card.network.config
    target = build_network(network, 1, 2, seed=9)
    fresh = {name: tensor.clone() for name, tensor in target.state_dict().items()}
    result = load_source(target, network, 1, ("liver",), source, floor=0.9)
    now = target.state_dict()
    came = {name for name in now if not torch.equal(now[name], fresh[name])}
    assert came
    assert all(name.startswith("model.0") for name in came)
    assert result.groups["down0"] == 1.0
    assert result.groups["head"] == 0.0


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"classes": [], "output": "softmax"}, "name at least one"),
        ({"output": "features"}, "features have no classes"),
    ],
)
def test_a_card_without_classes_says_why(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        _card_folder(Path("nowhere"), **changes)


def test_a_finished_run_is_a_source_and_of_several_networks_one_is_chosen(tmp_path: Path) -> None:
    models = [_card_folder(tmp_path / name) for name in ("transfer-0", "transfer-1")]
    for model in models:
        (model / "plan.json").write_text("{}")
    assert read_source(models[0]).kind == "run"
    write_ensemble(tmp_path / "one", models[:1], InferenceSettings())
    assert read_source(tmp_path / "one").folder == tmp_path / "one" / "transfer-0"
    write_ensemble(tmp_path / "two", models, InferenceSettings())
    with pytest.raises(SourceError, match=r"2 networks.*two/transfer-0.*two/transfer-1"):
        read_source(tmp_path / "two")
    (tmp_path / "two" / "inference.json").write_text("{")
    with pytest.raises(SourceError, match="damaged"):
        read_source(tmp_path / "two")


@pytest.mark.parametrize("name", ["nothing", "empty", "weights.pt", "a.zip"])
def test_what_is_no_source_is_told_in_one_line(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    save_file({"a": torch.ones(1)}, tmp_path / "weights.pt")
    zip_folder(tmp_path / "empty", tmp_path / "a.zip")
    with pytest.raises(SourceError, match=r"no source|no MONAI bundle"):
        read_source(tmp_path / name)


def test_a_results_folder_with_a_whole_card_is_a_card_folder(tmp_path: Path) -> None:
    folder = _card_folder(tmp_path / "a")
    network = build_network(NetworkConfig(name="unet", arguments={"channels": [4, 8], "strides": [2]}), 1, 3, seed=0)
    write_results(folder, network)
    assert read_source(folder).kind == "card"
    os.truncate(folder / "card.yaml", 0)
    with pytest.raises(SourceError):
        read_source(folder)


def test_weights_of_a_flat_network_may_be_checked(tmp_path: Path) -> None:
    """A card can state no 2-D network: its 3-D form is what they are brought to."""
    arguments = {"channels": [4, 8, 8], "strides": [2, 2]}
    flat = build_network(NetworkConfig(name="unet", arguments=arguments), 1, 3, seed=0)
    source = _card_folder(tmp_path / "flat")
    tensors = {
        name: tensor[..., tensor.shape[-1] // 2].clone() if tensor.ndim == 5 else tensor
        for name, tensor in named_tensors(flat).items()
    }
    write_source(source, read_source(source).card, tensors)
    output, error = _said(["check", str(source)])
    assert error is None
    assert "2-D kernel brought to 3-D" in output
    # of three channels, which the card could have said
    first = next(name for name, tensor in tensors.items() if tensor.ndim == 4)
    write_source(source, read_source(source).card, {**tensors, first: tensors[first].expand(-1, 3, -1, -1).clone()})
    _, error = _said(["check", str(source)])
    assert isinstance(error, WeightsError)
    assert "input channels 3 to 1" in str(error)
    lost = dict(tensors)
    lost.pop(next(name for name in lost if name.startswith("model.1")))
    write_source(source, read_source(source).card, lost)
    _, error = _said(["check", str(source)])
    assert isinstance(error, WeightsError)


def test_a_stated_network_that_fails_on_every_window_is_refused(tmp_path: Path) -> None:
    folder = _card_folder(tmp_path / "a")
    content = yaml.safe_load((folder / "card.yaml").read_text())
    arguments = {"kernel_size": [3, 3, 3], "strides": [1, 2, 2], "upsample_kernel_size": [1, 2], "filters": [4, 8, 8]}
    content["network"] |= {"name": "dynunet", "arguments": arguments}
    (folder / "card.yaml").write_text(yaml.safe_dump(content))
    _, error = _said(["check", str(folder)])
    assert isinstance(error, SourceError)
    assert "fails on a window of" in str(error)


def test_a_part_that_is_whole_needs_no_second_download(tmp_path: Path, mirror: Any) -> None:
    """A pull that ended just before the file got its name; no server need be there."""
    files, entry = mirror
    part = tmp_path / f".{entry.file_name}.{entry.sha1[:16]}.part"
    part.write_bytes((files / entry.file_name).read_bytes())
    assert read_source(pull(entry, tmp_path, "http://127.0.0.1:9", QUICK)).kind == "bundle"
    assert not part.exists()
