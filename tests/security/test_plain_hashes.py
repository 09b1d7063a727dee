"""Row 5: pseudonyms are keyed, and no other hash is made of what identifies a patient.

A hash without a key is undone by trying all numbers that a hospital gives. Each place in the source that makes one is
listed here with what goes in; `tests/security/test_whole_run.py` looks for such hashes in all that a run leaves.
"""

from __future__ import annotations

import ast
from pathlib import Path

from monai_tl.dicom.deidentify import Pseudonyms, seeded_key

ROOT = Path(__file__).parents[2]
_MADE_BY = frozenset(("sha256_of", "uuid3", "uuid5", "crc32", "adler32", "hash", "generate_uid", "file_digest"))
_BYTES, _PSEUDONYM, _SETTINGS = "whole content of files or arrays", "case ids and other pseudonyms", "settings and code"
KEYED = "with the project's secret"
MADE_OF = {
    "flows/clone.py:keep": _BYTES,
    "flows/deploy.py:deployment_name": "the path of the workspace on the machine that serves it",
    "flows/experiments.py:experiment_name": _BYTES,
    "monai_tl/commands/audit_references.py:train_references": _PSEUDONYM,
    "monai_tl/commands/corrections.py:run": "digests of whole files",
    "monai_tl/commands/deidentify.py:_deidentify_chunk": "what was written, de-identified",
    "monai_tl/commands/promote.py:check_unchanged": _BYTES,
    "monai_tl/commands/promote.py:model_digest": _BYTES,
    "monai_tl/commands/rank.py:_fingerprint": _PSEUDONYM,
    "monai_tl/commands/rank.py:_make_task": _PSEUDONYM,
    "monai_tl/commands/rank_scores.py:case_features": _PSEUDONYM,
    "monai_tl/commands/rank_source.py:_make_keys": _SETTINGS,
    "monai_tl/commands/rank_source.py:look_at_source": _SETTINGS,
    "monai_tl/commands/report_server.py:ReportHandler.send_head": "a password, compared and not kept",
    "monai_tl/commands/segment.py:load_model": "digests of weights",
    "monai_tl/dataset/label_subsets.py:_ordered": _PSEUDONYM,
    "monai_tl/dataset/splits.py:_group_patients": _PSEUDONYM,
    "monai_tl/dicom/deidentify.py:Pseudonyms._digest": KEYED,
    "monai_tl/dicom/deidentify.py:Pseudonyms.key_id": "the secret itself, 32 random bytes",
    "monai_tl/dicom/deidentify.py:seeded_key": "the number of a demo's key",
    "monai_tl/dicom/delivery.py:digest_of": _BYTES,
    "monai_tl/dicom/joined_labels.py:_contested": "drawn voxels, in memory",
    # goes through the keyed hash before anything is written
    "monai_tl/dicom/segmentation.py:_uids": KEYED,
    "monai_tl/dicom/write.py:derive_uid": "the phantoms' seed",
    "monai_tl/files.py:sha256_file": _BYTES,
    "monai_tl/files.py:sha256_files": _BYTES,
    "monai_tl/files.py:sha256_of": "what is listed here for its callers",
    "monai_tl/inbox/arrivals.py:_File.read": "size and times of a file that cannot be read",
    "monai_tl/inbox/arrivals.py:_arrived": "digests of whole files",
    "monai_tl/integrity.py:_digests": _BYTES,
    "monai_tl/integrity.py:directory_md5": "names and digests of outputs, and as DVC makes them of inputs",
    "monai_tl/looks.py:_hashes_of_images": "digests of images",
    "monai_tl/looks.py:record_look": "digests of images and weights",
    "monai_tl/pins.py:_md5": _BYTES,
    "monai_tl/report/provenance.py:data_digest": _PSEUDONYM,
    "monai_tl/report/viewer.py:Script.allowed": "a script",
    "monai_tl/sources/bundle_reading.py:read_bundle": _BYTES,
    "monai_tl/sources/download.py:hash_file": _BYTES,
    "monai_tl/sources/nnunet_reading.py:read_results": _BYTES,
    "monai_tl/sources/opening.py:hash_weights": _BYTES,
    "monai_tl/sources/weights.py:parse_state": _BYTES,
    "monai_tl/stages/export.py:_tasks": "digests of weights",
    "monai_tl/stages/finetune.py:_training_key": _PSEUDONYM,
    "monai_tl/stages/ingest_case.py:_image_sha256": _BYTES,
    "monai_tl/stages/preprocess.py:_cache_key": _PSEUDONYM,
    "monai_tl/training/checkpoint.py:read_newest": _BYTES,
    "monai_tl/training/checkpoint.py:write_checkpoint": _BYTES,
    "monai_tl/training/compiled.py:_machine": "the kind of processor",
    "monai_tl/training/features.py:FeatureCache.__init__": _SETTINGS,
    "monai_tl/training/features.py:FeatureCache._body_digest": _BYTES,
    "monai_tl/training/features.py:FeatureCache._digest": _BYTES,
    "monai_tl/training/private_steps.py:make_private": _PSEUDONYM,
    "monai_tl/training/secret_numbers.py:SecretNumbers.__init__": "a secret of the training",
    "monai_tl/training/secret_numbers.py:SecretNumbers._bits": "a secret of the training",
    "monai_tl/workspace.py:installed_digest": "names and content of the package's own source",
}
"""``file:function`` → what is hashed there."""


def hashing_functions(text: str) -> set[str]:
    """Functions, with their class, in which a hash is made; the empty name is the module itself."""
    found: set[str] = set()

    def walk(node: ast.AST, name: str) -> None:
        for child in ast.iter_child_nodes(node):
            inner = child.name if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) else ""
            if isinstance(child, ast.Call) and _is_hash(child.func):
                found.add(name)
            walk(child, ".".join(filter(None, (name, inner))))

    walk(ast.parse(text), "")
    return found


def _is_hash(called: ast.expr) -> bool:
    if not isinstance(called, ast.Attribute):
        return isinstance(called, ast.Name) and called.id in _MADE_BY
    module = called.value.id if isinstance(called.value, ast.Name) else ""
    return module in ("hashlib", "hmac") or called.attr in _MADE_BY


def test_every_hash_is_of_something_that_names_nobody() -> None:
    files = sorted([*(ROOT / "monai_tl").rglob("*.py"), *(ROOT / "flows").rglob("*.py")])
    found = {f"{path.relative_to(ROOT)}:{name}" for path in files for name in hashing_functions(path.read_text())}
    assert found - set(MADE_OF) == set(), "what is hashed there? identifiers go through Pseudonyms; else list it"
    assert set(MADE_OF) - found == set(), "no hash is made there any more"


def test_a_new_hash_is_seen() -> None:
    text = "import hashlib\nclass A:\n    def name(self, who):\n        return hashlib.md5(who.encode()).hexdigest()\n"
    assert hashing_functions(text) == {"A.name"}
    assert hashing_functions("from uuid import uuid5\nNAME = uuid5(SPACE, patient)\n") == {""}
    assert hashing_functions("def f(x):\n    return pydicom.uid.generate_uid(entropy_srcs=[x])\n") == {"f"}
    assert hashing_functions("def f(x):\n    return hasher.case_id(x, x)\n") == set()


def test_the_key_of_a_cached_case_needs_the_secret() -> None:
    """It is made of UIDs and names too, and it is the name of a folder."""
    one, other = (Pseudonyms(seeded_key(seed)).cache_key("a" * 64, "1.2.3", "KANARI") for seed in (0, 1))
    assert one != other
    assert one == Pseudonyms(seeded_key(0)).cache_key("a" * 64, "1.2.3", "KANARI")
    # parts are told apart
    assert one != Pseudonyms(seeded_key(0)).cache_key("a" * 64, "1.2.3K", "ANARI")
