"""Pretraining streams over the passages of the world."""

import itertools

import numpy as np
import pytest

from prompt_tuning.data import features, mixtures, vocabularies
from prompt_tuning.data.tasks.pretraining import Pretraining, documents
from prompt_tuning.errors import UserError

LENGTHS = {"input_length": 24, "target_length": 12}


def batches(source, count, **settings):
    settings = {"vocabulary": vocabularies.SentencePiece().load, "batch_size": 4, "seed": 1} | LENGTHS | settings
    with mixtures.training_batches(source, **settings) as stream:
        return list(itertools.islice(stream, count))


def test_span_corruption_fills_every_row():
    for batch in batches(Pretraining(), 3):
        assert (batch["encoder_segment_ids"] == 1).all()
        assert (batch["encoder_input_tokens"][:, -1] == features.EOS_ID).all()
        assert (batch["decoder_loss_weights"].sum(axis=1) == batch["decoder_loss_weights"].sum(axis=1)[0]).all()


@pytest.mark.parametrize(("objective", "whole_documents"), [("span_corruption", False), ("prefix_lm", True)])
def test_the_stream_resumes(objective, whole_documents):
    source = Pretraining(objective=objective, whole_documents=whole_documents)
    whole = batches(source, 6)
    for left, right in zip(batches(source, 2, start_step=4), whole[4:], strict=True):
        for name in left:
            np.testing.assert_array_equal(left[name], right[name])


def test_prefix_lm_of_whole_documents_gives_documents_back():
    vocabulary = vocabularies.SentencePiece().load()
    passages = set(itertools.islice(documents(Pretraining(), "train"), 400))
    (batch,) = batches(Pretraining(objective="prefix_lm", whole_documents=True), 1, input_length=128, target_length=128)
    for example in features.unpack(batch):
        text = vocabulary.decode([*example["inputs"][:-1].tolist(), *example["targets"].tolist()])
        assert text in passages


def test_validation_is_another_draw():
    settings = Pretraining()
    train, validation = (list(itertools.islice(documents(settings, split), 50)) for split in ("train", "validation"))
    assert train != validation
    assert train == list(itertools.islice(documents(settings, "train"), 50))


def test_text_files_are_mixed_in(tmp_path):
    path = tmp_path / "book.md"
    path.write_text("\n\n".join(f"Chapter {i}\nof a book." for i in range(40)))
    source = Pretraining(text_files=[str(path)], file_share=0.5)
    drawn = list(itertools.islice(documents(source, "train"), 400))
    share = sum(text.startswith("Chapter") for text in drawn) / len(drawn)
    assert share == pytest.approx(0.5, abs=0.1)
    kept = {text for text in itertools.islice(documents(source, "validation"), 100) if text.startswith("Chapter")}
    assert kept
    assert not kept & set(drawn)
    with pytest.raises(UserError, match="absent"):
        documents(Pretraining(text_files=[str(tmp_path / "absent.md")]), "train")


def test_a_stream_gives_examples_to_evaluate():
    (task,) = Pretraining().tasks(vocabularies.SentencePiece().load())
    examples = mixtures.evaluation_examples(task, "validation", 5, **LENGTHS)
    assert [len(example["inputs"]) for example in examples] == [24] * 5


def test_what_is_wrong_is_said():
    with pytest.raises(UserError, match="TARGET_LENGTH"):
        batches(Pretraining(), 1, target_length=3)
    for settings, message in (({"objective": "masking"}, "'masking'"), ({"noise_density": 1.0}, "noise_density")):
        with pytest.raises(UserError, match=message):
            Pretraining(**settings)
