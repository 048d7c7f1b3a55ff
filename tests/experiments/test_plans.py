"""The table of plans: its commands are real, it goes on where it stopped, and the page shows what the file holds."""

import pytest

from experiments.plans import run
from prompt_tuning import cli, plan
from prompt_tuning.planning import chips

ROW = {
    "model": "t5_1_1_xxl",
    "method": "prompt",
    "topology": "v5e:4x4",
    "mesh": "4x4",
    "remat": "full",
    "fits": "yes",
    "all_gib": "7.250",
    "at_least_ms": "80.04",
}


@pytest.mark.parametrize("model", run.MODELS)
@pytest.mark.parametrize("method", run.METHODS)
def test_commands_build_the_experiments_that_they_say(model, method):
    for topology in ("v5e:4x4", "h100:8"):
        flags = run.command(model, method, topology, "full")[3:]
        files = [flag.partition("=")[2] for flag in flags if flag.startswith("--gin_file=")]
        bindings = [flag.removeprefix("--gin.").replace("=", " = ", 1) for flag in flags if flag.startswith("--gin.")]
        experiment = cli.load_experiment(files, bindings, fallbacks=plan.FALLBACKS)
        assert chips.topology(topology).size % experiment.mesh.model == 0
        assert experiment.batch_size % (chips.topology(topology).size // experiment.mesh.model) == 0
        assert (experiment.model.dtype, experiment.model.remat) == ("bfloat16", "full")
        assert experiment.model.param_dtype == ("float32" if method == "full" else "bfloat16")
        assert (experiment.input_length, experiment.target_length) == (512, 64)


def test_the_table_shows_what_fits_and_what_does_not():
    rows = [ROW, ROW | {"topology": "v6e:4x4", "fits": "no", "all_gib": "40.04"}]
    lines = run.table(rows).splitlines()
    assert len(lines) == 3
    cells = ["t5_1_1_xxl", "prompt", "7.2 GiB, 80.0 ms (4x4, remat full)", "**does not fit**: 40.0 GiB or more (4x4)"]
    assert lines[2] == f"| {' | '.join(cells)} | not planned | not planned |"


def test_rows_are_kept_in_the_order_of_the_table(tmp_path, monkeypatch):
    monkeypatch.setattr(run, "RESULTS", tmp_path / "plans.csv")
    assert run.read() == []
    run.write([ROW, ROW | {"model": "t5_1_1_small"}, ROW | {"method": "lora"}])
    assert [(row["model"], row["method"]) for row in run.read()] == [
        ("t5_1_1_small", "prompt"), ("t5_1_1_xxl", "prompt"), ("t5_1_1_xxl", "lora"),
    ]  # fmt: skip


def test_the_page_shows_the_plans_that_are_kept():
    page = run.DOCS.read_text(encoding="utf-8")
    assert run.with_table(page, run.read()) == page, "python -m experiments.plans.run --docs"
