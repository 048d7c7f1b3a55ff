"""Puts a pretrained base among the bundled ones, with a README that says how it was made.

python -m experiments.bundled_base.publish --run=runs/pretrain_mini_span --run=runs/pretrain_mini_lm --target=prompt_tuning/assets/t5_mini

The runs are named in the order in which each went on from the one before; the base is that of the last, which must be finished.
"""

import argparse
import json
import pathlib
import shutil
from collections.abc import Sequence
from typing import Any

from prompt_tuning.errors import UserError, reported

_SHOWN = 12


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", action="append", required=True, type=pathlib.Path, help="a pretraining run; repeat in order")
    parser.add_argument("--target", required=True, type=pathlib.Path, help="the folder of the bundled base")
    flags = parser.parse_args(argv)
    with reported():
        publish(flags.run, flags.target)


def publish(runs: Sequence[pathlib.Path], target: pathlib.Path) -> None:
    """Copies the base of the last run and writes README.md beside it."""
    base = runs[-1] / "base"
    if not (base / "model.safetensors").is_file():
        raise UserError(f"--run={runs[-1]}: no base/model.safetensors; wanted a finished run with experiment.Experiment.save_base = True")
    target.mkdir(parents=True, exist_ok=True)
    for name in ("model.safetensors", "config.json"):
        shutil.copyfile(base / name, target / name)
    (target / "README.md").write_text(readme(target.name, runs), encoding="utf-8")


def readme(name: str, runs: Sequence[pathlib.Path]) -> str:
    """The text beside the weights: sizes, and of every run its settings, its curve of held-out loss, and its time."""
    model = json.loads((runs[-1] / "experiment.json").read_text())["experiment"]["model"]
    parts = [
        f"# {name}\n\nA T5 pretrained by this repository on the prose of the bundled task world "
        "(`prompt_tuning/data/world`), which holds no formatted task. Weights in bfloat16; `config.json` has the sizes: "
        f"{model['num_encoder_layers']} encoder and {model['num_decoder_layers']} decoder layers, width {model['d_model']}, "
        f"vocabulary {model['vocab_size']}.\n\n"
        "Held-out loss is nats per target token (EOS included) on 512 passages that training never drew.\n"
    ]
    return "\n".join([*parts, *(_section(run) for run in runs)])


def _section(run: pathlib.Path) -> str:
    settings = json.loads((run / "experiment.json").read_text())["experiment"]
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    curve = [(row["step"], -row["score"]) for row in rows if row["split"] != "train"]
    results = run / "results.json"
    seconds: Any = json.loads(results.read_text())["seconds"] if results.exists() else None
    data, optimizer = settings["data"], settings["optimizer"]
    time = f"{seconds / 60:.0f} minutes on two shared CPU cores" if seconds else "interrupted, and gone on from its last checkpoint"
    every = max(1, -(-len(curve) // _SHOWN))
    shown = [point for place, point in enumerate(curve) if place % every == every - 1 or place == len(curve) - 1]
    table = "\n".join(f"| {step} | {loss:.4f} |" for step, loss in shown)
    return (
        f"## {run.name}\n\n"
        f"- objective {data['objective']}, {_split(data)}passages of seed {data['seed']}; run seed {settings['seed']}\n"
        f"- from {settings['base_checkpoint'] or 'random weights'}; {settings['train_steps']} steps of {settings['batch_size']} packed "
        f"rows of {settings['input_length']}/{settings['target_length']} tokens; {time}\n"
        f"- {optimizer['class'].rsplit('.', 1)[-1]}, learning rate {optimizer['learning_rate']}, schedule {settings['schedule']['kind']} "
        f"with {settings['schedule']['warmup_steps']} warm-up steps\n\n"
        f"| step | held-out loss |\n|---|---|\n{table}\n"
    )


def _split(data: dict[str, Any]) -> str:
    if not data.get("sentence_share"):
        return ""
    draws = data.get("sentence_draws", 1)
    which = f"the latest of {draws} sentences drawn" if draws > 1 else "a sentence"
    return f"{data['sentence_share']:.0%} of the passages split after {which}; "


if __name__ == "__main__":
    main()
