"""The mixture of Super-NaturalInstructions as the paper states it, on published task files."""

import json
import pathlib

import pytest

from prompt_tuning import cli
from prompt_tuning.data import mixtures, vocabularies
from prompt_tuning.data.tasks.instructions import Instructions
from prompt_tuning.errors import UserError
from tests.data.small import BYTES
from tests.shared import shared_path

CONFIGS = pathlib.Path(__file__).resolve().parents[3] / "configs"
FILES = (
    "models/t5_nano.gin",
    "methods/full.gin",
    "data/super_natural.gin",
    *(f"papers/super_ni/{n}.gin" for n in ("mixture", "train", "evaluate")),
)
TASK = {"Definition": ["Odd or even?"], "Positive Examples": [], "Negative Examples": [], "Instances": [{"input": "1", "output": ["odd"]}]}


def paper(*bindings: str):
    return cli.load_experiment([str(CONFIGS / path) for path in FILES], bindings)


def test_the_settings_are_the_papers():
    built = paper("TRAIN_FILES = 'none.json'")
    assert built.train_steps == 757 * 100 * 2 // 16  # Appendix D: two epochs, a batch of 16; section 5.1: 757 tasks, 100 instances each.
    assert (built.batch_size, built.input_length, built.target_length) == (16, 1024, 128)
    assert (type(built.optimizer).__name__, built.optimizer.learning_rate, built.schedule.kind) == ("AdamW", 1e-5, "constant")
    assert (built.evaluation.mode, built.evaluation.max_tokens, built.evaluation.decoding.temperature) == ("generate", 128, 0)


def test_the_split_leaves_the_test_tasks_to_evaluation():
    folder = shared_path("data/super_natural_instructions")
    listing = folder / "splits/default/test_tasks.txt"
    names = listing.read_text().split()
    assert len(names) == len(set(names)) == 119  # Section 5.1.
    there = sorted((folder / "tasks").glob("*.json"))
    built = paper(f"TRAIN_FILES = {str(folder / 'tasks/*.json')!r}", f"HELD_OUT = {str(listing)!r}")
    vocabulary = vocabularies.SentencePiece(str(shared_path("data/t5x_prompt_tuning/test_data/t5_vocab"))).load()
    tasks = dict(zip(built.data.task_names, built.data.tasks(vocabulary), strict=True))
    assert len(tasks) == len(there) == 19
    held_out = [path.stem for path in there if path.stem in names]
    assert len(held_out) == 3
    for path in there:
        task = tasks[f"sni_{path.stem}".replace("-", "_")]
        split = "validation" if path.stem in held_out else "train"
        assert tuple(task.splits) == (split,)
        source = json.loads(path.read_text())
        examples = mixtures.evaluation_examples(task, split)
        assert len(examples) == min(100, len(source["Instances"]))
        for example, instance in zip(examples, source["Instances"], strict=False):
            text = example["inputs_pretokenized"]
            assert text.startswith(f"Definition: {source['Definition'][0].strip()}")
            assert instance["input"].strip() in text and text.count("Positive Example") <= 2
            assert text.count("Positive Example") == 2 or len(vocabulary.encode(text)) > 512  # Left out where they do not fit.
            accepted = instance["output"] if isinstance(instance["output"], list) else [instance["output"]]
            assert example["targets_pretokenized"].strip() in [str(answer).strip() for answer in accepted]


def test_only_listed_tasks_are_trained_on(tmp_path):
    for name in ("task1", "task2", "task3"):
        (tmp_path / f"{name}.json").write_text(json.dumps(TASK))
    lists = {"train_tasks": "task1\ntask3\n", "held_out": "task3\n", "other": "task9\n"}
    for name, text in lists.items():
        (tmp_path / f"{name}.txt").write_text(text)
    how = {"train_files": str(tmp_path / "*.json"), "by_file": True, "format": "super_natural"}
    lists = {name: str(tmp_path / f"{name}.txt") for name in ("train_tasks", "held_out")}
    source = Instructions(**how, **lists)
    assert {task.title: tuple(task.splits) for task in source.tasks(BYTES.load())} == {
        "instructions_task1": ("train",), "instructions_task3": ("validation",),
    }  # fmt: skip
    with pytest.raises(UserError, match="other.txt: names none of TRAIN_FILES"):
        Instructions(**how, train_tasks=str(tmp_path / "other.txt")).paths()
