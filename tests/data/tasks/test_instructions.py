"""The user's instruction data as a source: splits, tasks, exemplars, chat, what is skipped, and a run on it from the command line."""

import itertools
import json
import pathlib
import re

import numpy as np
import pytest

from prompt_tuning import cli, evaluation, train
from prompt_tuning.data import features, mixtures
from prompt_tuning.data.instructions.super_natural import SuperNaturalInstructions
from prompt_tuning.data.instructions.templated import Templated
from prompt_tuning.data.tasks.instructions import FORMATS, Instructions
from prompt_tuning.errors import UserError
from tests import tiny_run
from tests.data.small import BYTES

ROOT = pathlib.Path(__file__).resolve().parents[3]


def write(folder, name, rows):
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def alpaca(count, word="number"):
    return [{"id": f"{word}{n}", "instruction": f"Say {word} {n}.", "input": "", "output": f"{word} {n}"} for n in range(count)]


def conversation(turns):
    return {"messages": [{"role": role, "content": f"{role[0]}{n}"} for n in range(turns) for role in ("user", "assistant")]}


def examples(source, split, task=0):
    return mixtures.evaluation_examples(source.tasks(BYTES.load())[task], split)


def texts(source, split, task=0):
    return [example["inputs_pretokenized"] for example in examples(source, split, task)]


def test_a_source_reads_through_seqio(tmp_path):
    path = write(tmp_path, "a.jsonl", alpaca(5))
    source = Instructions(name="mine", train_files=path, validation_files=[path])
    assert source.task_names == ("mine",)
    (task,) = source.tasks(BYTES.load())
    assert (task.title, task.metric_names, tuple(task.splits)) == ("mine", ("rougeL", "exact_match", "squad_f1"), ("train", "validation"))
    found = examples(source, "validation")
    assert [(example["inputs_pretokenized"], example["targets_pretokenized"]) for example in found[:1]] == [("Say number 0.", "number 0")]
    assert source.tasks(BYTES.load())[0] is task
    write(tmp_path, "a.jsonl", alpaca(6))
    assert len(texts(source, "train")) == 6, "a file that changed is read anew"


def test_validation_is_kept_from_training_by_a_hash_of_each_example(tmp_path):
    path = write(tmp_path, "a.jsonl", alpaca(400))
    source = Instructions(train_files=path, validation_frac=0.2)
    training, validation = texts(source, "train"), texts(source, "validation")
    assert not set(training) & set(validation) and len(training) + len(validation) == 400
    assert 48 < len(validation) < 112, "80 and four standard deviations of 8"
    longer = Instructions(train_files=write(tmp_path, "b.jsonl", alpaca(600)[::-1]), validation_frac=0.2)
    assert set(validation) < set(texts(longer, "validation")), "what else stands in the file changes nothing"
    given = Instructions(train_files=path, validation_files=write(tmp_path, "c.jsonl", alpaca(3)), validation_frac=0.2)
    assert (len(texts(given, "train")), len(texts(given, "validation"))) == (400, 3)


def test_each_file_a_task(tmp_path):
    for word in ("red-one", "blue"):
        write(tmp_path, f"{word}.jsonl", alpaca(12, word))
    source = Instructions(name="p3", train_files=str(tmp_path / "*.jsonl"), validation_frac=0.3, by_file=True, per_file=4, num_train=3)
    assert source.task_names == ("p3_blue", "p3_red_one")
    assert [task.title for task in source.tasks(BYTES.load())] == ["p3_blue", "p3_red_one"]
    assert [len(texts(source, "train", task)) for task in (0, 1)] == [3, 3]
    assert all("red-one" in text for text in texts(source, "validation", 1))
    rates = mixtures.mixing_rates(mixtures.Mixture((source,), cap=2), [3, 3])
    np.testing.assert_allclose(rates, [0.5, 0.5])


def test_tasks_of_a_list_are_held_out(tmp_path):
    for word in ("one", "two", "three"):
        write(tmp_path, f"{word}.jsonl", alpaca(4, word))
    (tmp_path / "split.txt").write_text("two\nabsent\n")
    settings = {"name": "t", "train_files": str(tmp_path / "*.jsonl"), "by_file": True}
    source = Instructions(**settings, held_out=str(tmp_path / "split.txt"))
    assert {name: tuple(splits) for name, splits in source.paths().items()} == {
        "t_one": ("train",),
        "t_three": ("train",),
        "t_two": ("validation",),
    }
    lengths = evaluation.Lengths(input_length=20, target_length=8)
    (found,) = evaluation.task_examples(source, BYTES.load(), settings=evaluation.Evaluation(), lengths=lengths)
    assert found.name == "t_two" and len(found.examples) == 4
    (tmp_path / "split.txt").write_text("absent\n")
    with pytest.raises(UserError, match=r"split\.txt: names none of TRAIN_FILES"):
        source.paths()


def test_exemplars_come_from_training_and_never_from_the_example(tmp_path):
    source = Instructions(train_files=write(tmp_path, "a.jsonl", alpaca(40)), validation_frac=0.2, exemplars=2)
    training = {text.rsplit("\n\n", 1)[1] for text in texts(source, "train")}
    for split in ("train", "validation"):
        for text in texts(source, split):
            *shown, asked = text.split("\n\n")
            assert len(shown) == 2 and all(exemplar.split("\n")[0] in training - {asked} for exemplar in shown)
    twice = [{"id": n, "instruction": "Same?", "output": "yes"} for n in range(2)]
    again = Instructions(train_files=write(tmp_path, "b.jsonl", [*twice, {"id": 2, "instruction": "Other?", "output": "no"}]), exemplars=2)
    assert texts(again, "train")[:2] == ["Other?\nno\n\nSame?"] * 2, "the example under another id is the example"
    short = Instructions(train_files=write(tmp_path, "a.jsonl", alpaca(40)), exemplars=2, input_tokens=50)
    assert {text.count("\n\n") for text in texts(short, "train")} == {1}


def test_a_chat_template_writes_every_format(tmp_path):
    rows = [{"premise": f"It is {n}.", "hypothesis": "So.", "label": n % 2} for n in range(4)]
    source = Instructions(format=Templated("rte"), validation_files=write(tmp_path, "r.jsonl", rows), chat="llama3")
    example = examples(source, "validation")[0]
    assert example["inputs_pretokenized"].startswith("<|start_header_id|>user<|end_header_id|>\n\n")
    assert example["targets_pretokenized"] in example["answer_choices"]
    assert example["targets_pretokenized"].endswith("<|eot_id|>")
    assert source.metric_names == ("accuracy",)


def test_variations(tmp_path):
    rows = [{"premise": f"It is {n}.", "hypothesis": "So.", "label": n % 2} for n in range(60)]
    path = write(tmp_path, "r.jsonl", rows)
    lettered = Instructions(format=Templated("rte"), train_files=path, validation_files=path, options="lettered", chat="chatml")
    for example in examples(lettered, "validation"):
        assert example["targets_pretokenized"] in example["answer_choices"]
        assert [re.sub(r"\W|im_end", "", text) for text in example["answer_choices"]] == ["A", "B"]
    turned = Instructions(train_files=write(tmp_path, "a.jsonl", alpaca(60)), validation_frac=0.3, inverted_frac=1.0)
    assert all(example["targets_pretokenized"].startswith("Say number") for example in examples(turned, "train"))
    assert all(example["targets_pretokenized"].startswith("number") for example in examples(turned, "validation"))
    few = Instructions(train_files=write(tmp_path, "a.jsonl", alpaca(60)), max_train=50)
    assert (len(texts(few, "train")), len(texts(Instructions(train_files=few.train_files, max_train=70), "train"))) == (50, 60)


def test_the_loss_of_a_conversation_is_on_its_responses(tmp_path):
    path = write(tmp_path, "c.jsonl", [conversation(3), conversation(1)])
    source = Instructions(format="chat", train_files=path, validation_files=path, chat="chatml")
    settings = {"vocabulary": BYTES.load(), "input_length": 80, "target_length": 200, "batch_size": 2}
    with mixtures.training_batches(source, **settings) as stream:
        found = {BYTES.load().decode(example["targets"].tolist()[:-1]) for example in features.unpack(next(stream))}
    assert found == {"a0<|im_end|>a1<|im_end|>a2<|im_end|>", "a0<|im_end|>"}
    last = examples(source, "validation")[0]
    assert (last["targets_pretokenized"], last["references"]) == ("a2<|im_end|>", ("a2",))
    assert last["inputs_pretokenized"].count("<|im_start|>") == 6


def test_skipped_rows_are_told(tmp_path, capsys):
    path = write(tmp_path, "a.jsonl", [*alpaca(3), {"instruction": "x"}])
    with pytest.raises(UserError, match=r"a\.jsonl:4: no field 'output'"):
        texts(Instructions(train_files=path), "train")
    assert len(texts(Instructions(train_files=path, on_error="skip"), "train")) == 3
    assert "note: instructions, train: 4 rows, 1 skipped (the first: " in capsys.readouterr().err
    (task,) = Instructions(train_files=path, on_error="skip", name="again").tasks(BYTES.load())
    mixtures.example_table(task, "train")
    assert capsys.readouterr().err.count("note: again") == 1, "the files are read once"
    write(tmp_path, "a.jsonl", [{"instruction": "x"}])
    with pytest.raises(UserError, match="the files hold no example for train: 1 rows, 1 skipped"):
        texts(Instructions(train_files=path, on_error="skip"), "train")
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(UserError, match=r"empty\.jsonl: holds no example"):
        texts(Instructions(train_files=str(tmp_path / "empty.jsonl")), "train")


def test_wrong_settings_are_refused(tmp_path):
    path = write(tmp_path, "a.jsonl", alpaca(2))
    for settings, message in (
        ({"format": "alpacca"}, "FORMAT: wanted one of alpaca, chat"),
        ({"on_error": "ignore"}, "ON_ERROR: wanted 'raise' or 'skip'"),
        ({"validation_frac": 1.0}, "VALIDATION_FRAC"),
        ({"exemplars": -1}, "EXEMPLARS"),
        ({"format": "chat", "exemplars": 1}, "wanted 0 for conversations"),
        ({"per_file": 0}, "PER_FILE"),
        ({"max_train": -1}, "MAX_TRAIN: wanted at least 1 example, got -1"),
        ({"inverted_frac": 2}, "INVERTED_FRAC: wanted 0 to 1"),
        ({"inverted_frac": 0.5, "exemplars": 1}, "EXEMPLARS: wanted 0 with INVERTED_FRAC"),
        ({"format": "chat", "inverted_frac": 0.5}, "INVERTED_FRAC: wanted 0 for conversations"),
        ({"options": "letters"}, "OPTIONS: wanted one of as_is, suffix, none, listed, lettered, varied, got"),
        ({"chat": "llama9"}, "'llama9': no such template"),
        ({"metrics": ["rouge"]}, "no metric is called 'rouge'"),
    ):
        with pytest.raises(UserError, match=message):
            Instructions(train_files=path, **settings)
    with pytest.raises(UserError, match="no instruction data"):
        Instructions().tasks(BYTES.load())
    with pytest.raises(UserError, match=r"absent\.jsonl: no such file"):
        Instructions(train_files=str(tmp_path / "absent.jsonl")).tasks(BYTES.load())
    with pytest.raises(UserError, match="NUM_TRAIN: wanted 9 training examples of instructions, the files hold 2"):
        texts(Instructions(train_files=path, num_train=9), "train")
    (tmp_path / "b").mkdir()
    with pytest.raises(UserError, match="is called 'a' too"):
        Instructions(train_files=[path, write(tmp_path / "b", "a.jsonl", alpaca(2))], by_file=True).paths()


SNI = {
    "Definition": ["Say it."],
    "Positive Examples": [{"input": "a", "output": "b"}],
    "Negative Examples": [],
    "Instances": [{"id": str(n), "input": f"i{n}", "output": [f"o{n}"]} for n in range(8)],
}


def runs(folder):
    """The settings of a run of each gin file, over files of every format."""
    (folder / "t.json").write_text(json.dumps(SNI))
    (folder / "c.tsv").write_text("".join(f"Is {n} even?\tno\tIt is {n}.\n" for n in range(8)))
    made = {
        "alpaca": write(folder, "a.jsonl", alpaca(8)),
        "rendered": write(folder, "p.jsonl", [{"prompt": f"p{n}", "completion": "c<|endoftext|>"} for n in range(8)]),
        "chat": write(folder, "m.jsonl", [conversation(n % 3 + 1) for n in range(8)]),
        "chain_of_thought": str(folder / "c.tsv"),
        "super_natural": str(folder / "t.json"),
    }
    table = write(folder, "s.jsonl", [{"sentence": f"film {n}", "label": n % 2} for n in range(8)])
    for name, path in made.items():
        yield "instructions", [f"FORMAT='{name}'", f"TRAIN_FILES='{path}'", f"VALIDATION_FILES='{path}'", "CHAT='chatml'", "EXEMPLARS=0"]
    yield "templated", ["TEMPLATES='sst2'", f"TRAIN_FILES='{table}'", f"VALIDATION_FILES='{table}'", "EXEMPLARS=1"]
    yield "super_natural", [f"TRAIN_FILES='{made['super_natural']}'", f"VALIDATION_FILES='{made['super_natural']}'", "NEGATIVE=1"]


def test_every_format_builds_from_its_gin_file_and_lays_a_batch(tmp_path):
    seen = set()
    for name, settings in runs(tmp_path):
        files = ["configs/models/t5_nano.gin", "configs/methods/prompt.gin", f"configs/data/{name}.gin"]
        built = cli.load_experiment([str(ROOT / file) for file in files], settings)
        assert isinstance(built.data, Instructions)
        settings = {"vocabulary": BYTES.load(), "input_length": 300, "target_length": 100, "batch_size": 8}
        with mixtures.training_batches(built.data, **settings) as stream:
            (batch,) = itertools.islice(stream, 1)
        assert batch["decoder_loss_weights"].sum() > 8
        assert examples(built.data, "validation")
        seen.add(built.data.format if isinstance(built.data.format, str) else type(built.data.format).__name__)
    assert seen == {*FORMATS, Templated.__name__, SuperNaturalInstructions.__name__}


def test_a_run_on_conversations_from_the_command_line(tmp_path, capsys):
    path = write(tmp_path, "m.jsonl", [conversation(n % 3 + 1) for n in range(8)])
    gin = tiny_run.write_gin(tmp_path)
    files = [gin["model"], str(ROOT / "configs/methods/prompt.gin"), str(ROOT / "configs/data/instructions.gin")]
    settings = ["FORMAT='chat'", f"TRAIN_FILES='{path}'", "VALIDATION_FRAC=0.3", "CHAT='chatml'", "PROMPT_LENGTH=2", "TRAIN_STEPS=2"]
    settings += ["BATCH_SIZE=2", "TARGET_LENGTH=40", "INPUT_LENGTH=40", "EVAL_STEPS=0"]
    train.main([*(f"--gin_file={file}" for file in files), *(f"--gin.{each}" for each in settings), f"--workdir={tmp_path / 'run'}"])
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert "rougeL" in json.dumps(results)
    with pytest.raises(SystemExit) as stopped:
        train.main([*(f"--gin_file={file}" for file in files), "--gin.FORMAT='chatt'", f"--workdir={tmp_path / 'other'}"])
    assert stopped.value.code == 2
    assert "FORMAT: wanted one of alpaca, chat" in capsys.readouterr().err
