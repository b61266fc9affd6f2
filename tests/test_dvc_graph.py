"""dvc.yaml against the code: DVC follows neither imports nor what a stage reads from params.yaml."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest
import yaml
from import_graph import ROOT, reached, sections_read

from metaspeech import config, registry

STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
ORDER = ["corpus", "prepare", "episodes", "pretrain", "represent", "meta_train", "adapt", "evaluate", "report"]
KEYS = {item.name for item in fields(config.Params)}
# They choose where and how fast something is computed, or where it is written down
NOT_OF_RESULTS = {"device", "devices", "threads", "engine", "tracking"}
# Modules that carry values: when a value changes, DVC sees it in params
CARRIERS = {"__init__.py", "config.py", "errors.py", "registry.py", "schema.py"}
TRAINED = "models/meta_train/${item.model}-${item.algorithm}-${item.seed}"
PERSISTENT = {"data/prepared", "models/pretrain/${item.model}", TRAINED}
LIBRARY = ROOT / "src" / "metaspeech"


def path_of(out: str | dict[str, object]) -> str:
    return out if isinstance(out, str) else next(iter(out))


def matrix_items(stage: dict) -> list[dict[str, str]]:
    """One item for each model; the algorithm does not change which files count."""
    if "matrix" not in stage:
        return [{}]
    return [{"model": model, "algorithm": "maml", "seed": "1"} for model in registry.MODELS]


def filled(entries: list[str], item: dict[str, str]) -> list[str]:
    for key, value in item.items():
        entries = [entry.replace(f"${{item.{key}}}", value) for entry in entries]
    return entries


def modules(name: str, item: dict[str, str]) -> set[Path]:
    chosen = {"MODELS": item["model"]} if item else {}
    found = reached(ROOT / "pipelines" / f"{name}.py", chosen)
    carried = [LIBRARY / part for part in CARRIERS | {"tracking"}]
    return {path for path in found if not any(path.is_relative_to(part) for part in carried)}


def test_the_stages_are_the_pipeline_in_order():
    assert list(STAGES) == ORDER


@pytest.mark.parametrize("name", ORDER)
def test_a_stage_has_one_name_in_every_place(name):
    stage = STAGES[name]
    suffix = "".join(f" ${{item.{key}}}" for key in stage.get("matrix", {}))
    item = "-".join(f"${{item.{key}}}" for key in stage.get("matrix", {}))
    outs = [path_of(out) for out in stage["outs"]]
    assert stage["cmd"] == f"PYTHONPATH=src python -m pipelines.{name}{suffix}"
    assert f"pipelines/{name}.py" in stage["deps"]
    assert "pipelines/_stage.py" in stage["deps"]
    assert stage["metrics"] == [f"results/{name}/{item}/metrics.json" if item else f"results/{name}/metrics.json"]
    assert f"results/runs/{name}/{item}.json" in outs or f"results/runs/{name}.json" in outs
    assert f'run_stage("{name}", {name})' in (ROOT / "pipelines" / f"{name}.py").read_text()


@pytest.mark.parametrize("name", ORDER)
def test_deps_cover_every_imported_module(name):
    for item in matrix_items(STAGES[name]):
        deps = [ROOT / dep for dep in filled(STAGES[name]["deps"], item)]
        missing = {
            str(path.relative_to(ROOT))
            for path in modules(name, item)
            if not any(path.is_relative_to(dep) for dep in deps)
        }
        assert not missing, f"{name}: add to deps in dvc.yaml: {sorted(missing)}"


@pytest.mark.parametrize("name", ORDER)
def test_deps_name_no_code_that_is_not_imported(name):
    """By any model: what one shares with the pipeline another may not need."""
    used, deps = set(), set()
    for item in matrix_items(STAGES[name]):
        used |= modules(name, item)
        deps |= {dep for dep in filled(STAGES[name]["deps"], item) if dep.startswith(("src/", "pipelines/_"))}
    deps -= {"pipelines/_stage.py"}
    unused = {dep for dep in deps if not any(path.is_relative_to(ROOT / dep) for path in used)}
    assert not unused, f"{name}: not used: {sorted(unused)}"


@pytest.mark.parametrize("name", ORDER)
def test_params_cover_what_is_read(name):
    stage = STAGES[name]
    for item in matrix_items(stage):
        declared = {entry.partition(".")[0] for entry in filled(stage["params"], item)}
        files = [ROOT / "pipelines" / f"{name}.py", *modules(name, item)]
        read = set().union(*map(sections_read, files)) & KEYS - NOT_OF_RESULTS
        read |= {item["model"]} if item else set()
        read -= set(item or ())  # the seed of a matrix
        assert read <= declared, f"{name}: add to params in dvc.yaml: {sorted(read - declared)}"
        assert declared <= KEYS


@pytest.mark.parametrize("name", ["pretrain", "meta_train", "adapt"])
def test_a_stage_of_one_model_declares_what_that_model_does_differently(name):
    sections = {item.name for item in fields(config.Overrides)}
    read = [entry for entry in STAGES[name]["params"] if entry in sections]
    declared = [entry for entry in STAGES[name]["params"] if entry.startswith("per_model")]
    assert declared == [f"per_model.${{item.model}}.{section}" for section in read]


def test_only_the_report_reads_run_records():
    readers = {name for name, stage in STAGES.items() if any(dep.startswith("results/runs") for dep in stage["deps"])}
    assert readers == {"report"}
    recorded = {path_of(out) for stage in STAGES.values() for out in stage["outs"] if "results/runs" in path_of(out)}
    read = {dep for dep in STAGES["report"]["deps"] if dep.startswith("results/runs")}
    unread = {out for out in recorded if not any(out == dep or out.startswith(f"{dep}/") for dep in read)}
    assert unread == {"results/runs/report.json"}


def test_interrupted_work_survives_and_every_out_is_cached():
    settings = {path_of(out): out[path_of(out)] for s in STAGES.values() for out in s["outs"] if isinstance(out, dict)}
    assert settings == {path: {"persist": True} for path in PERSISTENT}


def test_inner_loop_values_rerun_meta_train_and_what_follows_only():
    readers = [name for name, stage in STAGES.items() if any(key.split(".")[0] == "inner" for key in stage["params"])]
    assert readers[0] == "meta_train"


def test_every_model_has_a_section_that_its_readers_declare():
    for model in registry.MODELS:
        assert model in KEYS
        assert model in STAGES["evaluate"]["params"]
