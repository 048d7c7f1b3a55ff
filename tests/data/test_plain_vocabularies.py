"""Vocabularies without TensorFlow give what SeqIO's give."""

import itertools
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from prompt_tuning.data import plain_vocabularies, row_tasks
from prompt_tuning.data.decoder_vocabularies import SentencePiece, TokenizerJson
from prompt_tuning.data.vocabularies import Bytes
from prompt_tuning.data.vocabularies import SentencePiece as T5SentencePiece
from tests.data.test_decoder_vocabularies import LLAMA, sentencepiece_model, tokenizer_json

# Of any script, with what SentencePiece normalises: ligatures, wide letters, spaces of every kind, and sentinels.
PARTS = ["<extra_id_3>", "the", "ﬁn", "Ａ", "\u3000", "\t", "\n\n", "é", "42", "🙂", " ", "."]
TEXTS = st.one_of(
    st.text(max_size=40),
    st.lists(st.sampled_from(PARTS), max_size=12).map("".join),
).filter(lambda text: not any("\ud800" <= letter <= "\udfff" for letter in text))  # No text has half a letter.


@pytest.fixture(scope="module", params=["t5", "bytes", "sentencepiece", "json"])
def vocabulary(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("vocabulary")
    if request.param == "t5":
        return T5SentencePiece().load()
    if request.param == "bytes":
        return Bytes().load()
    if request.param == "json":
        return TokenizerJson(str(tokenizer_json(folder))).load()
    (folder / "tokenizer.model").write_bytes(sentencepiece_model(**LLAMA))
    return SentencePiece(str(folder / "tokenizer.model")).load()


def test_ids_are_those_of_seqio(vocabulary):
    theirs = vocabulary.seqio
    for name in ("vocab_size", "eos_id", "pad_id", "bos_id", "unk_id", "extra_ids"):
        assert getattr(vocabulary, name) == getattr(theirs, name), name
    assert row_tasks.vocabulary_key(vocabulary) == row_tasks.vocabulary_key(theirs)


@settings(deadline=None, max_examples=60)
@given(texts=st.lists(TEXTS, max_size=4))
def test_texts_are_tokenized_as_in_seqio_one_by_one_and_many_at_once(vocabulary, texts):
    wanted = [list(vocabulary.seqio.encode(text)) for text in texts]
    assert [vocabulary.encode(text) for text in texts] == wanted
    assert [list(ids) for ids in vocabulary.encode_many(texts)] == wanted
    inside_tensorflow = [vocabulary.encode_tf(tf.constant(text)).numpy().tolist() for text in texts]
    assert inside_tensorflow == wanted
    for end in (True, False):
        ids, splits = row_tasks.token_ids(vocabulary, texts, end=end)
        assert (ids.dtype, splits.dtype) == (np.int32, np.int64)
        rows = [ids[begin:stop].tolist() for begin, stop in itertools.pairwise(splits)]
        assert rows == [[*row, vocabulary.eos_id] if end else row for row in wanted]


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_ids_are_read_back_as_in_seqio(vocabulary, data):
    ids = data.draw(st.lists(st.integers(0, vocabulary.vocab_size + 20), max_size=12))
    wanted = vocabulary.seqio.decode(ids)
    assert vocabulary.decode(ids) == vocabulary.decode(np.array(ids, np.int32)) == wanted
    assert vocabulary.decode_many([ids, [], ids]) == [wanted, vocabulary.decode([]), wanted]
    assert plain_vocabularies.decode_many(vocabulary.seqio, [ids]) == [wanted]


def test_another_vocabulary_is_asked_text_by_text(vocabulary):
    assert [list(ids) for ids in plain_vocabularies.encode_many(vocabulary.seqio, ["a b", ""])] == [
        list(ids) for ids in vocabulary.encode_many(["a b", ""])
    ]
    assert plain_vocabularies.as_seqio(vocabulary.seqio) is vocabulary.seqio is plain_vocabularies.as_seqio(vocabulary)


def test_training_on_rows_imports_no_tensorflow(tmp_path):
    (tmp_path / "rows.jsonl").write_text("".join(f'{{"text": "row {i}", "label": {i % 2}}}\n' for i in range(8)))
    script = f"""
import sys
from prompt_tuning.data import mixtures
from prompt_tuning.data.tasks.files import Files
from prompt_tuning.data.vocabularies import SentencePiece
path = {str(tmp_path / "rows.jsonl")!r}
source = Files(train_files=path, validation_files=path, input_column="text", target_column="label", answer_choices=["no", "yes"])
load = SentencePiece().load
with mixtures.training_batches(source, vocabulary=load, batch_size=4, input_length=16, target_length=4) as batches:
    next(batches)
[task] = source.tasks(load())
assert len(mixtures.evaluation_examples(task, "validation")) == 8
print([name for name in ("tensorflow", "seqio") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
