"""Vocabularies of decoder-only models beside transformers' tokenizers of the same files."""

import functools
import io
import json

import numpy as np
import pytest

from prompt_tuning import assembly
from prompt_tuning.data import features, mixtures, vocabularies
from prompt_tuning.data.decoder_vocabularies import SentencePiece, TokenizerJson
from prompt_tuning.data.features import Delimiters
from prompt_tuning.data.tasks.pretraining import Pretraining
from prompt_tuning.errors import UserError
from prompt_tuning.models.decoder import DecoderConfig
from tests.data.small import Numbered
from tests.shared import shared_path
from tests.tiny_experiment import tiny_experiment

THINGS = [f"{count} {thing}s" for thing in ("stone", "tree") for count in range(9)]
SENTENCES = [f"The {animal} saw {things}." for animal in ("robin", "owl", "cat") for things in THINGS]
# Not with a space in front, where transformers leaves SentencePiece's own reading.
TEXTS = ["The owl saw 3 stones.", "a  line\nand\tanother", "naïve café, snow ☃ 🙂!", "12345 x_y", "It's we'll THE"]
LLAMA = {"unk_id": 0, "bos_id": 1, "eos_id": 2, "pad_id": -1}
GEMMA = {"pad_id": 0, "eos_id": 1, "bos_id": 2, "unk_id": 3, "add_dummy_prefix": False}


@functools.cache
def sentencepiece_model(**ids):
    import sentencepiece

    made = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES * 4),
        model_writer=made,
        vocab_size=330,
        model_type="bpe",
        byte_fallback=True,
        split_digits=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        minloglevel=2,
        **ids,
    )
    return made.getvalue()


def tokenizer_json(folder, *, special=("<|endoftext|>",), begins=None):
    """A byte-level BPE tokenizer as GPT-2's, or with a token that begins each text as Llama 3's."""
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers, processors, trainers

    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=280, initial_alphabet=alphabet, special_tokens=list(special), show_progress=False)
    tokenizer.train_from_iterator(SENTENCES, trainer)
    if begins is not None:
        ids = [(begins, tokenizer.token_to_id(begins))]
        tokenizer.post_processor = processors.TemplateProcessing(single=f"{begins} $A", special_tokens=ids)
    tokenizer.enable_truncation(4)  # What a published file says of cutting is not for us.
    path = folder / "tokenizer.json"
    tokenizer.save(str(path))
    return path


def same_as(theirs, ours, texts):
    """Ids, ids inside TensorFlow, and texts again."""
    import tensorflow as tf

    for text in texts:
        wanted = theirs.encode(text, add_special_tokens=False)
        assert list(ours.encode(text)) == wanted, text
        in_tensorflow = ours.encode_tf(tf.constant(text)).numpy()
        assert in_tensorflow.dtype == np.int32 and in_tensorflow.tolist() == wanted
        if ours.eos_id in wanted:  # SeqIO reads no further.
            wanted = wanted[: wanted.index(ours.eos_id)]
        assert ours.decode(wanted) == theirs.decode(wanted, skip_special_tokens=True, clean_up_tokenization_spaces=False)


@pytest.mark.parametrize(
    ("family", "ids", "marks"),
    [
        ("Llama", LLAMA, Delimiters(eos=2, pad=2, start=None, bos=1, inputs_end=False)),
        ("Gemma", GEMMA, Delimiters(eos=1, pad=0, start=None, bos=2, inputs_end=False)),
    ],
)
def test_sentencepiece_models_are_read_as_transformers_reads_them(family, ids, marks, tmp_path):
    transformers = pytest.importorskip("transformers")
    (tmp_path / "tokenizer.model").write_bytes(sentencepiece_model(**ids))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": f"{family}Tokenizer"}))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": family.lower()}))
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    settings = SentencePiece(str(tmp_path / "tokenizer.model"))
    assert settings.delimiters == settings.load().delimiters == marks
    assert (settings.load().eos_id, settings.load().bos_id, settings.load().pad_id) == (marks.eos, marks.bos, marks.pad)
    same_as(theirs, settings.load(), TEXTS)
    assert SentencePiece(settings.path, bos=False).delimiters.bos is None
    assert settings.load() is settings.load(), "read once"


def test_the_stories_vocabulary_is_read_as_transformers_reads_it(tmp_path):
    transformers = pytest.importorskip("transformers")
    path = shared_path("data/babyllama/tok105.model")
    (tmp_path / "tokenizer.model").write_bytes(path.read_bytes())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "LlamaTokenizer"}))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    ours = SentencePiece(str(path)).load()
    assert (ours.vocab_size, ours.delimiters.bos, ours.delimiters.eos) == (105, 1, 2)
    text = shared_path("data/babyllama/tinystories_excerpt.txt").read_text()
    stories = [line for line in text.splitlines() if line and line[0] != " " and ours.unk_id not in ours.encode(line)]
    assert len(stories) > 500
    same_as(theirs, ours, stories[:100])


@pytest.mark.parametrize("begins", [None, "<|begin_of_text|>"], ids=["gpt2", "llama3"])
def test_a_tokenizer_json_is_read_as_transformers_reads_it(begins, tmp_path):
    import tensorflow as tf

    transformers = pytest.importorskip("transformers")
    special = ("<|endoftext|>",) if begins is None else (begins, "<|end_of_text|>", "<|pad|>")
    path = tokenizer_json(tmp_path, special=special, begins=begins)
    theirs = transformers.PreTrainedTokenizerFast(tokenizer_file=str(path))
    settings = TokenizerJson(str(path)) if begins is None else TokenizerJson(str(path), eos=special[1], bos=begins, pad=special[2])
    ours, marks = settings.load(), settings.delimiters
    assert ours.vocab_size == len(theirs) == 280
    same_as(theirs, ours, [*TEXTS, f"it ends {special[0]} here", " with a space", ""])
    assert marks == Delimiters(*((0, 0, None, None) if begins is None else (1, 2, None, 0)), inputs_end=False)
    ids = theirs.encode("The owl")
    assert [*([] if marks.bos is None else [marks.bos]), *ours.encode("The owl")] == ids, "BOS is added where transformers adds it"
    assert ours.decode([*ours.encode("The cat"), marks.eos, *ours.encode(" no")]) == "The cat"
    rows = [[*ours.encode(text), *[marks.eos] * 9][:9] for text in ("cat", "owl")]
    texts = ours.decode_tf(tf.constant(rows)).numpy()
    assert texts.tolist() == [b"cat", b"owl"]


@pytest.mark.parametrize("kind", ["sentencepiece", "json"])
def test_a_task_ends_targets_with_this_vocabularys_eos_and_inputs_not_at_all(kind, tmp_path):
    if kind == "json":
        settings = TokenizerJson(str(tokenizer_json(tmp_path)))
    else:
        (tmp_path / "tokenizer.model").write_bytes(sentencepiece_model(**LLAMA))
        settings = SentencePiece(str(tmp_path / "tokenizer.model"))
    vocabulary = settings.load()
    [task] = Numbered(name="n").tasks(vocabulary)
    table = mixtures.example_table(task, "train")
    assert table[3]["inputs"].tolist() == list(vocabulary.encode("n 3"))
    assert table[3]["targets"].tolist() == [*vocabulary.encode("3"), settings.delimiters.eos]
    [example] = mixtures.evaluation_examples(task, "validation", 1)
    prompt = features.PromptLayout(2, delimiters=settings.delimiters)
    [found] = features.unpack(features.layout([example], input_length=8, target_length=4, prompt=prompt), delimiters=settings.delimiters)
    assert vocabulary.decode(found["inputs"]) == "n 0" and vocabulary.decode(found["targets"]) == "0"


@pytest.mark.parametrize("kind", ["sentencepiece", "json"])
def test_text_without_end_is_cut_into_a_beginning_and_the_rest(kind, tmp_path):
    """Whose documents are tokenized in batches."""
    (tmp_path / "text.txt").write_text("\n\n".join(f"{first} {second}" for first in SENTENCES[:8] for second in SENTENCES[:5]))
    source = Pretraining("prefix_lm", whole_documents=True, text_files=(str(tmp_path / "text.txt"),), file_share=1.0)
    if kind == "json":
        settings = TokenizerJson(str(tokenizer_json(tmp_path)))
    else:
        (tmp_path / "tokenizer.model").write_bytes(sentencepiece_model(**LLAMA))
        settings = SentencePiece(str(tmp_path / "tokenizer.model"))
    vocabulary, texts = settings.load(), (tmp_path / "text.txt").read_text().split("\n\n")
    [task] = source.tasks(vocabulary)
    for example in mixtures.evaluation_examples(task, "validation", 4, input_length=64, target_length=64):
        assert example["targets"][-1] == settings.delimiters.eos and settings.delimiters.eos not in example["inputs"]
        assert vocabulary.decode([*example["inputs"], *example["targets"][:-1]]) in texts


def test_vocabularies_say_whether_they_have_sentinels(tmp_path):
    vocabulary = TokenizerJson(str(tokenizer_json(tmp_path))).load()
    with pytest.raises(UserError, match="has 0 extra ids"):
        vocabularies.sentinel_id(vocabulary, 0)


def test_what_is_wrong_is_said(tmp_path):
    path = tokenizer_json(tmp_path)
    with pytest.raises(UserError, match=r"wanted eos to be one of its tokens, as of \['<\|endoftext\|>'\], got '</s>'"):
        TokenizerJson(str(path), eos="</s>").load()
    with pytest.raises(UserError, match="no vocabulary file is given; wanted the path of a tokenizer.json"):
        TokenizerJson().load()
    with pytest.raises(UserError, match="no such file"):
        SentencePiece(str(tmp_path / "absent.model")).load()
    (tmp_path / "broken").write_bytes(b"not one")
    with pytest.raises(UserError, match="not a readable SentencePiece model"):
        SentencePiece(str(tmp_path / "broken")).load()
    with pytest.raises(UserError, match="not a readable tokenizer.json"):
        TokenizerJson(str(tmp_path / "broken")).load()
    (tmp_path / "no_bos").write_bytes(sentencepiece_model(unk_id=0, eos_id=1, bos_id=-1, pad_id=-1))
    assert SentencePiece(str(tmp_path / "no_bos")).delimiters.bos is None
    with pytest.raises(UserError, match="has no BOS to begin rows with; set bos = False"):
        SentencePiece(str(tmp_path / "no_bos"), bos=True).load()
    (tmp_path / "no_eos").write_bytes(sentencepiece_model(unk_id=0, eos_id=-1, bos_id=1, pad_id=-1))
    with pytest.raises(UserError, match="has no end token"):
        SentencePiece(str(tmp_path / "no_eos")).load()
    with pytest.raises(UserError, match="decoder_vocabularies.SentencePiece"):
        vocabularies.SentencePiece(str(tmp_path / "no_bos"), extra_ids=0).load()


def test_a_vocabulary_and_a_model_fit_or_it_is_said(tmp_path):
    settings = TokenizerJson(str(tokenizer_json(tmp_path)))
    sizes = {"d_model": 8, "d_ff": 8, "num_layers": 1, "num_heads": 2, "num_kv_heads": 2, "head_width": 4}
    for rows, fits in ((280, True), (279, False), (384, True), (100_000, False)):
        experiment = tiny_experiment(model=DecoderConfig(vocab_size=rows, **sizes), vocabulary=settings)
        if fits:
            assert assembly.check_vocabulary(experiment) is settings.load()
        else:
            with pytest.raises(UserError, match=f"than the model's: wanted .* to {rows} ids, got 280"):
                assembly.check_vocabulary(experiment)
    with pytest.raises(UserError, match="is a decoder-only model's, and the model is a T5"):
        assembly.check_vocabulary(tiny_experiment(vocabulary=settings))
