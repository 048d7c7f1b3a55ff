"""Data that was prepared beforehand: the batches of its sources, a manifest that says so, and nothing that is half written."""

import dataclasses
import itertools
import json
import pathlib
import signal
import subprocess
import sys

import numpy as np
import pytest

from prompt_tuning import evaluation, prepare, train
from prompt_tuning.data import example_tables, mixtures, token_cache
from prompt_tuning.data.features import PromptLayout
from prompt_tuning.data.tasks.instructions import Instructions
from prompt_tuning.data.tasks.pretraining import Pretraining
from prompt_tuning.data.tasks.world import World
from prompt_tuning.data.vocabularies import SentencePiece
from prompt_tuning.errors import UserError
from tests import tiny_run
from tests.tiny_experiment import CONFIG, metrics, tiny_experiment

WORLD = World(task_list=("sentiment_review", "word_reverse"), num_train=60, num_validation=12)
SPLITS = ("train", "validation")


def experiment(data, **changes):
    model = dataclasses.replace(CONFIG, vocab_size=2048)
    return tiny_experiment(data=data, model=model, vocabulary=SentencePiece(), input_length=48, target_length=16, **changes)


def conversations(folder):
    turns = [[{"role": role, "content": f"{role} {n} {k}"} for k in range(n % 3 + 1) for role in ("user", "assistant")] for n in range(20)]
    path = folder / "chat.jsonl"
    path.write_text("".join(json.dumps({"messages": each}) + "\n" for each in turns))
    return Instructions(name="chat", format="chat", train_files=str(path), chat="chatml", validation_frac=0.3)


def batches(data, **settings):
    settings = {"vocabulary": SentencePiece().load, "batch_size": 8, "input_length": 96, "target_length": 64, "seed": 3} | settings
    with mixtures.training_batches(data, prompt=PromptLayout(2), **settings) as stream:
        return list(itertools.islice(stream, 6))


def same(one, other):
    assert len(one) == len(other)
    for left, right in zip(one, other, strict=True):
        assert left.keys() == right.keys()
        for name in left:
            np.testing.assert_array_equal(left[name], right[name], err_msg=name)


@pytest.mark.parametrize("kind", ["world", "chat"])
def test_batches_and_evaluation_examples_are_those_of_the_sources(kind, tmp_path):
    data = mixtures.Mixture((WORLD,), rates="equal") if kind == "world" else conversations(tmp_path)
    plain = experiment(data)
    prepare.prepare(plain, str(tmp_path / "made"), splits=SPLITS)
    read = experiment(data, prepared=str(tmp_path / "made"))
    assert read.data is not data and read.data.task_names == data.task_names
    for settings in ({}, {"packed": True}, {"start_step": 4}, {"shard": (1, 2)}, *([{"num_choices": 4}] if kind == "world" else [])):
        same(batches(data, **settings), batches(read.data, **settings))
    lengths, vocabulary = evaluation.Lengths(48, 16), SentencePiece().load()
    both = [evaluation.task_examples(source, vocabulary, settings=plain.evaluation, lengths=lengths) for source in (data, read.data)]
    for mine, theirs in zip(*both, strict=True):
        assert (mine.name, mine.metrics) == (theirs.name, theirs.metrics)
        same(mine.examples, theirs.examples)


def test_text_without_end_beside_it_comes_as_it_is_and_a_table_is_read_once(tmp_path):
    data = mixtures.Mixture((WORLD, Pretraining("prefix_lm")), rates=(0.5, 0.5))
    prepare.prepare(experiment(data), str(tmp_path), splits=("train",))
    read = experiment(data, prepared=str(tmp_path)).data
    same(batches(data), batches(read))
    vocabulary = SentencePiece().load()
    assert [task.name for task in read.tasks(vocabulary)] == [task.name for task in data.tasks(vocabulary)]
    assert [one is other for one, other in zip(read.tasks(vocabulary), read.tasks(vocabulary), strict=True)] == [True] * 3


def test_seqio_itself_reads_the_folder(tmp_path):
    import seqio

    prepare.prepare(experiment(WORLD), str(tmp_path), splits=SPLITS)
    task = WORLD.tasks(SentencePiece().load())[0].seqio
    seqio.add_global_cache_dirs([str(tmp_path)])
    assert task.get_cached_stats("train")["examples"] == 60
    lengths = {"inputs": 12, "targets": 4}
    both = [task.get_dataset(lengths, split="train", shuffle=False, use_cached=cached) for cached in (True, False)]
    for mine, theirs in zip(*(dataset.as_numpy_iterator() for dataset in both), strict=True):
        same([mine], [theirs])


def test_the_manifest_says_what_is_there(tmp_path):
    task = {"Definition": ["Odd or even?"], "Positive Examples": [], "Negative Examples": [], "Instance License": ["CC BY 4.0"]}
    task["Instances"] = [{"input": str(n), "output": [str(n % 2)]} for n in range(6)]
    (tmp_path / "task.json").write_text(json.dumps(task))
    data = Instructions(name="sni", format="super_natural", train_files=str(tmp_path / "task.json"), by_file=True)
    manifest = prepare.prepare(experiment(data), str(tmp_path / "made"), splits=("train",))
    (entry,) = manifest["tasks"].values()
    (source,) = entry["sources"]
    assert source == {"file": str(tmp_path / "task.json"), "licence": "CC BY 4.0", "sha256": prepare._digest(str(tmp_path / "task.json"))}
    table = example_tables.example_table(data.tasks(SentencePiece().load())[0], "train")
    split = entry["splits"]["train"]
    assert split["examples"] == 6 == len(table)
    assert split["inputs_tokens"] == len(table.input_ids) - 6 and split["targets_tokens"] == len(table.target_ids) - 6, "without EOS"
    assert manifest["versions"].keys() >= {"seqio", "sentencepiece"} and manifest["code"] == token_cache.package_code()
    assert manifest["data"]["class"].endswith("Instructions")
    record = tmp_path / "made" / next(iter(manifest["tasks"])) / split["file"]
    assert record.stat().st_size == split["bytes"]
    assert json.loads((tmp_path / "made" / "manifest.json").read_text()) == manifest


@pytest.mark.slow
def test_several_processes_write_what_one_writes(tmp_path, capsys):
    one, many = (prepare.prepare(experiment(WORLD), str(tmp_path / name), splits=SPLITS, processes=n) for name, n in (("1", 1), ("3", 3)))
    assert one == many
    written = capsys.readouterr().err
    again = prepare.prepare(experiment(WORLD), str(tmp_path / "1"), splits=SPLITS)
    assert again == one
    assert written.count("wrote ") == 8 and "note: 4 of 4 splits are there already" in capsys.readouterr().err


def test_what_was_killed_is_gone_on_with(tmp_path):
    script = f"""
import os, signal, sys
import tensorflow as tf
from prompt_tuning import prepare
from tests.test_prepare import SPLITS, WORLD, experiment
written = []
really = tf.io.TFRecordWriter.write
def write(self, record):
    written.append(record)
    if len(written) == 100:  # Sixty of the first split, forty of the second.
        os.kill(os.getpid(), signal.SIGKILL)
    really(self, record)
tf.io.TFRecordWriter.write = write
prepare.prepare(experiment(WORLD), {str(tmp_path / "made")!r}, splits=("train",))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not (tmp_path / "made" / "manifest.json").exists()
    with pytest.raises(UserError, match=r"manifest.json is not there; wanted a folder that python -m prompt_tuning.prepare has finished"):
        batches(experiment(WORLD, prepared=str(tmp_path / "made")).data)
    whole = prepare.prepare(experiment(WORLD), str(tmp_path / "whole"), splits=("train",))
    first = next(iter(whole["tasks"]))
    stamp = (tmp_path / "made" / first / "train.tfrecord-00000-of-00001").stat().st_mtime_ns
    assert prepare.prepare(experiment(WORLD), str(tmp_path / "made"), splits=("train",)) == whole
    assert (tmp_path / "made" / first / "train.tfrecord-00000-of-00001").stat().st_mtime_ns == stamp, "what was whole is not written again"
    same(batches(WORLD), batches(experiment(WORLD, prepared=str(tmp_path / "made")).data))


def test_a_folder_that_does_not_fit_is_one_line(tmp_path, monkeypatch, capsys):
    folder = str(tmp_path / "made")
    manifest = prepare.prepare(experiment(WORLD), folder, splits=("train",))

    def refused(data, message):
        with pytest.raises(UserError, match=message) as error:
            batches(experiment(data, prepared=folder).data)
        assert "\n" not in str(error.value)

    refused(dataclasses.replace(WORLD, seed=7), "wanted sentiment_review_.*, got sentiment_review_.* alone, made of other settings")
    refused(World(task_list=("word_pick",)), "wanted word_pick_.*, got only sentiment_review_.*; prepare it anew")
    name = next(iter(manifest["tasks"]))
    record = pathlib.Path(folder) / name / "train.tfrecord-00000-of-00001"
    content = record.read_bytes()
    record.write_bytes(content[:-5])
    refused(WORLD, f"wanted {len(content)} bytes as the manifest says, got {len(content) - 5}")
    record.unlink()
    refused(WORLD, "got no file")
    record.write_bytes(content)
    with monkeypatch.context() as patch:
        patch.setattr(token_cache, "package_code", lambda: "later")
        batches(experiment(WORLD, prepared=folder).data)
        assert "was prepared by another version of this code" in capsys.readouterr().err
    for text, message in (("{", "cannot be read"), ("[]", "wanted a manifest of format 1"), ('{"format": 9}', "of format 1, got 9")):
        (tmp_path / "made" / "manifest.json").write_text(text)
        refused(WORLD, message)


def test_a_task_that_tokenizes_by_itself_and_text_without_end_are_said(tmp_path, capsys):
    with pytest.raises(UserError, match="nothing to prepare: no task has a split among train"):
        prepare.prepare(experiment(Pretraining()), str(tmp_path), splits=("train",))
    assert "is text without end" in capsys.readouterr().err
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="--target .*: cannot write there"):
        prepare.prepare(experiment(WORLD), str(tmp_path / "file" / "made"), splits=SPLITS)


def test_the_command_prepares_and_train_reads(tmp_path, capsys):
    flags = tiny_run.arguments(tiny_run.write_gin(tmp_path))
    prepare.main([*flags, f"--target={tmp_path / 'made'}", "--processes=1"])
    assert "prepared 2 tasks: 40 examples" in capsys.readouterr().out
    losses = []
    for name, more in (("plain", []), ("read", [f"--gin.PREPARED='{tmp_path / 'made'}'"])):
        train.main([*flags, *more, "--gin.LOG_STEPS=1", f"--workdir={tmp_path / name}"])
        losses.append([row["loss"] for row in metrics(tmp_path / name) if "loss" in row])
    assert len(losses[0]) == 2 and losses[0] == losses[1]
    for wrong, message in (([], "--target is missing"), (["--target=x", "--processes=0"], "--processes: wanted 1 or more")):
        with pytest.raises(SystemExit, match="2"):
            prepare.main([*flags, *wrong])
        assert message in capsys.readouterr().err


def test_beam_that_is_not_there_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    with pytest.raises(UserError, match=r"^--beam: Apache Beam is not at hand .* docs/preparation\.md"):
        prepare.prepare(experiment(WORLD), str(tmp_path), splits=("train",), beam="")
