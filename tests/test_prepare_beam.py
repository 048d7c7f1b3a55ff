"""Data prepared through Apache Beam, with its direct runner: by our command, and by SeqIO's own pipeline."""

import dataclasses
import json
import logging
import sys

import pytest

from prompt_tuning import prepare
from prompt_tuning.data.vocabularies import SentencePiece
from prompt_tuning.errors import UserError
from tests.test_prepare import SPLITS, WORLD, batches, conversations, experiment, same

beam = pytest.importorskip("apache_beam")


@pytest.fixture(autouse=True)
def _flags_are_read(monkeypatch):
    """SeqIO's pipeline reads flags of absl; Beam's options would take pytest's arguments for theirs."""
    from absl import flags
    from seqio.scripts import cache_tasks_main  # noqa: F401, it defines them.

    monkeypatch.setattr(sys, "argv", ["pytest"])
    flags.FLAGS(["pytest"])
    logging.getLogger("apache_beam").setLevel(logging.ERROR)


def held(folder):
    """The records by task and split, in any order: Beam's have none, nor have the features within."""
    import tensorflow as tf

    files = [path for path in folder.glob("*/*.tfrecord-*") if not path.name.startswith(".")]
    found = {}
    for path in files:
        records = found.setdefault((path.parent.name, path.name.split(".")[0]), [])
        examples = [tf.train.Example.FromString(record.numpy()) for record in tf.data.TFRecordDataset(str(path))]
        records += [example.SerializeToString(deterministic=True) for example in examples]
    return {key: sorted(records) for key, records in found.items()}


@pytest.mark.parametrize("options", ["", "--runner=DirectRunner --direct_num_workers=2"])
def test_what_workers_write_is_what_processes_write(options, tmp_path):
    plain = experiment(WORLD)
    mine = prepare.prepare(plain, str(tmp_path / "here"), splits=SPLITS)
    theirs = prepare.prepare(plain, str(tmp_path / "beam"), splits=SPLITS, beam=options)
    assert theirs == mine, "the manifest, with the hash of every file"
    read = experiment(WORLD, prepared=str(tmp_path / "beam"))
    same(batches(WORLD, packed=True), batches(read.data, packed=True))


def test_a_second_call_writes_what_is_missing_alone(tmp_path, monkeypatch):
    plain = experiment(WORLD)
    prepare.prepare(plain, str(tmp_path), splits=("train",), beam="")
    asked = []
    monkeypatch.setattr(prepare, "_through_beam", lambda jobs, options: asked.extend(jobs) or [prepare.write(job) for job in jobs])
    prepare.prepare(plain, str(tmp_path), splits=SPLITS, beam="")
    assert [job.split for job in asked] == ["validation", "validation"]


def test_what_is_wrong_with_a_source_is_one_line(tmp_path):
    data = conversations(tmp_path)
    plain = experiment(data)
    data.tasks(SentencePiece().load())  # Its name is made before the file is spoilt.
    (tmp_path / "chat.jsonl").write_text(json.dumps({"messages": "none"}) + "\n")
    with pytest.raises(UserError, match=r"chat\.jsonl") as caught:
        prepare.prepare(plain, str(tmp_path / "made"), splits=("train",), beam="")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "made" / "manifest.json").exists()


def test_seqios_own_pipeline_caches_the_tasks(tmp_path):
    """`seqio.scripts.cache_tasks_main`, as a cluster runs it: the records are those that we write."""
    from seqio.scripts import cache_tasks_main

    data = dataclasses.replace(WORLD, seed=11)  # SeqIO passes over what it knows a cache of.
    prepare.prepare(experiment(data), str(tmp_path / "ours"), splits=SPLITS)
    tasks = [task.seqio for task in data.tasks(SentencePiece().load())]
    with beam.Pipeline() as pipeline:
        cache_tasks_main.run_pipeline(pipeline, [task.name for task in tasks], str(tmp_path / "seqio"))
    ours, theirs = held(tmp_path / "ours"), held(tmp_path / "seqio")
    assert set(ours) <= set(theirs), "SeqIO caches all splits"
    assert {key: theirs[key] for key in ours} == ours
    assert [len(ours[task.name, "train"]) for task in tasks] == [60, 60]
