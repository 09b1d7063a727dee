"""dvc.yaml is the table of stages, and names all the code, parameters and files that a stage uses."""

import ast
from pathlib import Path

import grimp
import pytest
import yaml

from monai_tl.config import Params
from monai_tl.pipeline_file import (
    curve_text,
    import_closure,
    pipeline_text,
    render_curve_yaml,
    render_dvc_yaml,
    sections_read,
    version_code,
)
from monai_tl.stages import CURVE, STAGE_NAMES, STAGES
from monai_tl.workspace import VERSION_FILE

ROOT = Path(__file__).parents[2]
COMMITTED = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
# holds only the version; and the table that dvc.yaml is written from
NOT_CODE_OF_A_STAGE = {"monai_tl", "monai_tl.stages"}


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph("monai_tl", exclude_type_checking_imports=True, cache_dir=None)


def test_the_committed_file_is_the_rendering():
    assert (ROOT / "dvc.yaml").read_text() == pipeline_text(ROOT), "run 'monai-tl init --refresh .'"


def test_stages_are_the_table():
    assert tuple(COMMITTED) == STAGE_NAMES
    for stage in STAGES:
        entry = COMMITTED[stage.name]
        assert entry["cmd"].startswith(f"python -m monai_tl stage {stage.name}")
        assert len(entry["outs"]) == len(stage.outs)
        for key in ("metrics", "plots"):
            assert [next(iter(item)) for item in entry.get(key, [])] == list(getattr(stage, key))
            # an uncached output under outs: would switch off the run-cache
            assert all(next(iter(item.values()))["cache"] is False for item in entry.get(key, []))


def test_templates_of_plots_are_where_dvc_looks_for_them():
    packed = {path.name: path.read_bytes() for path in (ROOT / "monai_tl/template/plots").iterdir()}
    assert packed == {path.name: path.read_bytes() for path in (ROOT / ".dvc/plots").iterdir()}
    named = {fields["template"] for stage in STAGES for fields in stage.plots.values()}
    assert {f"{name}.json" for name in named} == packed.keys()


def test_each_section_of_the_parameters_belongs_to_a_stage():
    assert set(Params.model_fields) == {*STAGE_NAMES, "curve", "inbox", "serve"}
    for name in STAGE_NAMES:
        assert name in COMMITTED[name]["params"]


@pytest.mark.parametrize("name", STAGE_NAMES)
def test_the_code_a_stage_imports_is_in_its_deps(name, graph):
    # a second implementation of the closure, over the whole graph of imports
    stage = f"monai_tl.stages.{name}"
    modules = {stage} | graph.find_upstream_modules(stage)
    deps = [dep for dep in COMMITTED[name]["deps"] if dep.startswith("monai_tl/")]
    for module in modules - NOT_CODE_OF_A_STAGE:
        base = ROOT.joinpath(*module.split("."))
        path = (base / "__init__.py" if base.is_dir() else base.with_suffix(".py")).relative_to(ROOT)
        assert any(path == Path(dep) or Path(dep) in path.parents for dep in deps), f"{name}: {path}"


@pytest.mark.parametrize("name", STAGE_NAMES)
def test_deps_name_no_code_a_stage_does_not_import(name, graph):
    stage = f"monai_tl.stages.{name}"
    modules = {stage} | graph.find_upstream_modules(stage)
    paths = {Path(*module.split(".")) for module in modules}
    for dep in COMMITTED[name]["deps"]:
        if dep.startswith("monai_tl/"):
            assert Path(dep).with_suffix("") in {path for module in paths for path in (module, *module.parents)}, dep


@pytest.mark.parametrize("name", STAGE_NAMES)
def test_parameters_a_stage_reads_are_tracked(name):
    # every attribute of anything called params in the stage's own module, found by text
    text = (ROOT / f"monai_tl/stages/{name}.py").read_text()
    read = {section for section in STAGE_NAMES if f"params.{section}" in text}
    assert read <= set(COMMITTED[name]["params"])


@pytest.mark.parametrize("name", STAGE_NAMES)
def test_products_a_stage_names_are_its_deps_or_outs(name):
    entry = COMMITTED[name]
    listed = [
        *entry["deps"],
        *entry["outs"],
        *(next(iter(i)) for key in ("metrics", "plots") for i in entry.get(key, [])),
    ]
    listed = [item.split("$")[0].rstrip("/") for item in listed]
    for node in ast.walk(ast.parse((ROOT / f"monai_tl/stages/{name}.py").read_text())):
        docstring = isinstance(node, ast.Constant) and isinstance(node.value, str) and "\n" in node.value
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and not docstring:
            parts = node.value.split("/")
            if parts[0] in ("artifacts", "reports") and len(parts) > 1 and " " not in node.value:
                assert any(node.value.startswith(item) or item.startswith(node.value) for item in listed), node.value


def test_in_a_made_workspace_the_version_stands_for_the_code():
    stages = yaml.safe_load(render_dvc_yaml(version_code()))["stages"]
    for entry in stages.values():
        assert VERSION_FILE in entry["deps"]
        assert not [dep for dep in entry["deps"] if dep.startswith("monai_tl/")]


def test_without_a_source_there_is_no_such_dependency():
    text = render_dvc_yaml(version_code(), {"plan.source"})
    assert "plan.source" not in text
    assert "plan.source" in render_dvc_yaml(version_code())


def test_imports_for_types_alone_do_not_count_and_those_in_functions_do():
    assert "monai_tl.config" not in import_closure("monai_tl.progress")
    assert "monai_tl.supervise" in import_closure("monai_tl.commands.run")
    assert "monai_tl.sources.card" in import_closure("monai_tl.stages.finetune")
    assert "finetune" in sections_read("predict")


def test_the_set_of_the_source_s_task_is_a_dependency_only_where_it_is_given():
    def deps(unset: tuple[str, ...]) -> list[str]:
        return yaml.safe_load(render_dvc_yaml(version_code(), unset))["stages"]["evaluate"]["deps"]

    assert "${evaluate.source_set}" in deps(())
    assert "${evaluate.source_set}" not in deps(("evaluate.source_set",))
    assert "${plan.source}" not in deps(("evaluate.source_set", "plan.source"))


def test_points_of_a_curve_depend_on_their_training_and_not_on_which_others_there_are():
    stages = yaml.safe_load(render_curve_yaml(version_code()))["stages"]
    assert list(stages) == [stage.name for stage in CURVE]
    assert stages["curve_label"]["params"] == ["finetune", "predict", "curve.training"]
    assert stages["curve_step"]["params"] == ["finetune", "predict", "curve.training", "curve.steps_labels"]
    assert stages["curve"]["params"] == ["evaluate", "curve"]
    for stage in CURVE:
        entry = stages[stage.name]
        assert entry["wdir"] == ".."
        assert VERSION_FILE in entry["deps"]
        for key in stage.matrix:
            assert entry["matrix"][key].startswith("${curve.")
            assert f"--{key} ${{item.{key}}}" in entry["cmd"]


@pytest.mark.parametrize("name", [stage.name for stage in CURVE])
def test_the_code_a_stage_of_the_curve_imports_is_in_its_deps(name, graph):
    stages = yaml.safe_load(curve_text(ROOT))["stages"]
    stage = f"monai_tl.stages.{name}"
    deps = [Path(dep) for dep in stages[name]["deps"] if dep.startswith("monai_tl/")]
    for module in ({stage} | graph.find_upstream_modules(stage)) - NOT_CODE_OF_A_STAGE:
        base = ROOT.joinpath(*module.split("."))
        path = (base / "__init__.py" if base.is_dir() else base.with_suffix(".py")).relative_to(ROOT)
        assert any(path == dep or dep in path.parents for dep in deps), f"{name}: {path}"
