"""Vocabularies: T5's ids, sentinels at the top, clear errors."""

import pytest

from prompt_tuning import assets
from prompt_tuning.data import vocabularies
from prompt_tuning.data.world import vocabulary as world_vocabulary
from prompt_tuning.errors import UserError
from tests.shared import shared_path

SENTENCES = [f"The {animal} saw a {thing}." for animal in ("robin", "owl", "cat") for thing in ("stone", "tree", "lamp", "door")] * 20


def test_bundled_vocabulary_is_t5s_in_kind():
    vocabulary = vocabularies.SentencePiece().load()
    assert vocabulary.vocab_size <= 2048
    assert (vocabulary.tokenizer.pad_id(), vocabulary.eos_id, vocabulary.unk_id) == (0, 1, 2)
    assert vocabularies.sentinel_id(vocabulary, 0) == vocabulary.vocab_size - 1
    assert vocabulary.decode([vocabularies.sentinel_id(vocabulary, 3)]) == "<extra_id_3>"
    text = "An odd word: zyzzyva, 42!"
    assert 2 not in vocabulary.encode("".join(map(chr, range(33, 127)))), "every printable ASCII character is known"
    assert vocabulary.decode(vocabulary.encode(text)) == text


def test_t5s_own_vocabulary_loads():
    vocabulary = vocabularies.SentencePiece(str(shared_path("data/t5x_prompt_tuning/test_data/t5_vocab"))).load()
    assert vocabulary.vocab_size == 32100
    assert vocabularies.sentinel_id(vocabulary, 0) == 32099
    assert vocabulary.decode(vocabulary.encode("This is a test.")) == "This is a test."


def test_byte_vocabulary_is_byt5s():
    vocabulary = vocabularies.Bytes().load()
    assert vocabulary.vocab_size == 384
    assert list(vocabulary.encode("hé")) == [104 + 3, 0xC3 + 3, 0xA9 + 3]


def test_training_a_vocabulary_is_deterministic(tmp_path):
    models = [world_vocabulary.train(SENTENCES, vocabulary_size=150) for _ in range(2)]
    assert models[0] == models[1]
    path = tmp_path / "small.model"
    path.write_bytes(models[0])
    vocabulary = vocabularies.SentencePiece(str(path), extra_ids=10).load()
    assert vocabulary.vocab_size <= 160
    assert vocabulary.decode(vocabulary.encode("The owl saw a door.")) == "The owl saw a door."


def test_a_vocabulary_is_read_once():
    assert vocabularies.SentencePiece().load() is vocabularies.SentencePiece().load()


def test_what_is_wrong_is_said(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        vocabularies.SentencePiece(str(tmp_path / "absent.model")).load()
    (tmp_path / "broken.model").write_bytes(b"not a model")
    with pytest.raises(UserError, match="not a readable SentencePiece model"):
        vocabularies.SentencePiece(str(tmp_path / "broken.model")).load()
    with pytest.raises(UserError, match="ships no asset 'absent'"):
        assets.resolve("bundled:absent")
    with pytest.raises(UserError, match="no vocabulary file is given"):
        vocabularies.SentencePiece(None).load()
    with pytest.raises(UserError, match="extra ids"):
        vocabularies.sentinel_id(vocabularies.Bytes(extra_ids=2).load(), 2)


def test_other_paths_stand_for_themselves():
    assert assets.resolve("some/where.model") == "some/where.model"
