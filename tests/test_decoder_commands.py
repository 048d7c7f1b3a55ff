"""A decoder-only model with its own vocabulary through the commands: convert, train, evaluate, infer, ensemble, export."""

import json

import numpy as np
import pytest

from prompt_tuning import cli, convert, ensemble, evaluate, export, infer, inspect, interop, train
from prompt_tuning.models.decoder_layers import DecoderConfig
from tests.data.test_decoder_vocabularies import tokenizer_json
from tests.interop import tiny_decoders as tiny
from tests.models.test_decoder import drawn
from tests.shared import shared_path
from tests.test_configs import NO_DATA

CONFIG = DecoderConfig(vocab_size=280, d_model=16, d_ff=24, num_layers=2, num_heads=4, num_kv_heads=2, head_width=4, unroll_layers=False)
SPECIAL = ("<|begin_of_text|>", "<|end_of_text|>")
METHOD = "--gin_file=configs/methods/prompt.gin"


@pytest.fixture(scope="module")
def flags(tmp_path_factory):
    """Flags that name a converted base and a file of rows."""
    folder = tmp_path_factory.mktemp("commands")
    values = {name: drawn(name, leaf.shape) for name, leaf in tiny.abstract(CONFIG).items()}
    interop.save_base(folder / "base", values, CONFIG, dtype="float32")
    tokenizer_json(folder / "base", special=SPECIAL, begins=SPECIAL[0])
    (folder / "base" / "tokenizer_config.json").write_text(json.dumps({"bos_token": SPECIAL[0], "eos_token": SPECIAL[1]}))
    convert.main([f"--source={folder / 'base'}", f"--target={folder / 'ours'}"])
    rows = [{"text": f"The owl saw {i} stones.", "label": ["few", "many"][i > 4]} for i in range(9)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = {
        **{f"{split}_FILES": f"'{folder / 'rows.jsonl'}'" for split in ("TRAIN", "VALIDATION", "TEST")},
        **{"INPUT_COLUMN": "'text'", "TARGET_COLUMN": "'label'", "ANSWER_CHOICES": "['few', 'many']"},
        **{"INPUT_LENGTH": 32, "TARGET_LENGTH": 6, "BATCH_SIZE": 4, "TRAIN_STEPS": 2, "EVAL_STEPS": 2, "PROMPT_LENGTH": 3},
        "ALLOW_OVERLAP": "'files'",  # One file is all there is.
    }
    settings = [f"--gin.{name}={value}" for name, value in data.items()]
    return [f"--gin_file={folder / 'ours' / 'model.gin'}", "--gin_file=configs/data/files.gin", *settings]


@pytest.fixture(scope="module")
def runs(flags, tmp_path_factory):
    """Two finished runs of two seeds."""
    folders = [tmp_path_factory.mktemp("runs") / f"seed_{seed}" for seed in (0, 1)]
    for seed, folder in enumerate(folders):
        packed = [] if seed else ["--gin.experiment.Experiment.packed=True"]
        cli.main(train.run, "train", argv=[*flags, METHOD, *packed, f"--gin.SEED={seed}", f"--workdir={folder}"])
    return folders


def answered(tmp_path, *arguments):
    infer.main([*arguments, f"--output={tmp_path / 'out.jsonl'}"])
    return [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]


def test_a_run_is_evaluated_and_answers_alone_as_beside_another(flags, runs, tmp_path, capsys):
    for folder in runs:
        results = json.loads((folder / "results.json").read_text())
        assert results["trained_parameters"] == 3 * 16
        assert np.isfinite(results["final"]["score"])
    evaluate.main([f"--workdir={runs[0]}", "--split=validation", "--json"])
    assert (
        json.loads(capsys.readouterr().out)["metrics"]["files"]
        == json.loads((runs[0] / "results.json").read_text())["best"]["metrics"]["files"]
    )
    texts = ["The cat saw 7 trees.", "The owl", "The robin saw the cat and the owl."]
    (tmp_path / "texts").write_text("\n".join(texts))
    alone = [answered(tmp_path, f"--workdir={folder}", f"--input={tmp_path / 'texts'}") for folder in runs]
    mixed = [{"inputs": text, "task": f"run_{seed}"} for text in texts for seed in (0, 1)]
    (tmp_path / "mixed.jsonl").write_text("".join(json.dumps(row) + "\n" for row in mixed))
    named = [f"--task=run_{seed}={folder}" for seed, folder in enumerate(runs)]
    together = answered(tmp_path, *named, f"--input={tmp_path / 'mixed.jsonl'}")
    predictions = [[row["prediction"] for row in rows] for rows in alone]
    assert [row["prediction"] for row in together] == [predictions[seed][place] for place in range(3) for seed in (0, 1)]
    assert predictions[0] != predictions[1]


def test_scores_and_ensembles_count_this_vocabularys_end(flags, runs, tmp_path, capsys):
    row = {"inputs": "The owl saw 3 stones.", "targets": "few"}
    (tmp_path / "row.jsonl").write_text(json.dumps(row))
    experiment = cli.load_experiment([flags[0].split("=")[1], "configs/methods/prompt.gin"], fallbacks=NO_DATA)
    [scored] = answered(tmp_path, flags[0], f"--input={tmp_path / 'row.jsonl'}", "--score")
    assert scored["target_tokens"] == len(experiment.vocabulary.load().encode("few")) + 1
    prompts = [str(folder / "prompt.npy") for folder in runs]
    ensemble.main([*flags, "--split=test", "--json", "--prompts", *prompts])
    found = json.loads(capsys.readouterr().out)["metrics"]["files"]
    assert len(found["members"]) == 2 and {"vote", "scores"} <= set(found)


def test_a_prompt_behind_bos_is_no_adapter_of_peft(flags, runs, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        export.main([f"--workdir={runs[0]}", "--format=peft", f"--target={tmp_path / 'adapter'}"])
    assert stop.value.code == 2
    assert "PEFT puts a prompt before BOS" in capsys.readouterr().err


def test_a_published_size_is_inspected_without_weights_and_vocabulary(capsys):
    inspect.main(["--gin_file=configs/models/llama_3_2_1b.gin", METHOD, "--gin.PROMPT_LENGTH=20", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert (found["trained_parameters"], found["frozen_parameters"]) == (20 * 2048, 1_235_814_400)


@pytest.mark.slow
def test_a_prompt_tuned_on_stories_lowers_the_perplexity_of_others_from_the_command_line(tmp_path, capsys):
    """The commands of docs/decoders.md, with fewer steps."""
    base = tmp_path / "base"
    convert.main([f"--source={shared_path('data/babyllama/model5000.bin')}", f"--target={base}"])
    text = str(shared_path("data/babyllama/tinystories_excerpt.txt"))
    data = {
        **{"OBJECTIVE": "'prefix_lm'", "WHOLE_DOCUMENTS": True, "INPUT_LENGTH": 64, "TARGET_LENGTH": 128, "BATCH_SIZE": 16},
        **{"pretraining.Pretraining.text_files": [text], "pretraining.Pretraining.file_share": 1.0},
        **{"evaluation.Evaluation.max_examples": 128, "TRAIN_STEPS": 60, "EVAL_STEPS": 0, "PROMPT_LENGTH": 8},
    }
    flags = [f"--gin_file={base}/model.gin", "--gin_file=configs/data/pretraining.gin", *(f"--gin.{n}={v}" for n, v in data.items())]
    evaluate.main([*flags, "--checkpoint=base", "--split=validation", "--json"])
    before = json.loads(capsys.readouterr().out)["metrics"]["world_lm"]["loss"]
    cli.main(train.run, "train", argv=[*flags, METHOD, f"--workdir={tmp_path / 'run'}"])
    after = json.loads((tmp_path / "run" / "results.json").read_text())["final"]["metrics"]["world_lm"]["loss"]
    print(f"perplexity a piece of others: {np.exp(before):.4f} -> {np.exp(after):.4f}")
    assert after < before - 0.03
