"""Which tokens of a conversation the loss is on: against transformers' mask, and through the table and the layout to the weights."""

import dataclasses
import functools
import json
import string

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prompt_tuning import losses
from prompt_tuning.data import example_tables, features, loss_masks, mixtures, seqio_vocabularies, text_tasks, vocabularies
from prompt_tuning.data.features import Delimiters, PromptLayout
from prompt_tuning.data.instructions.chat_templates import TEMPLATES, Message
from prompt_tuning.data.instructions.rendered import Rendered
from prompt_tuning.data.rows import TextRow
from prompt_tuning.data.tasks.instructions import Instructions
from prompt_tuning.errors import UserError
from tests.data.small import BYTES
from tests.interop import tiny_decoders

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}{% if m['role'] == 'assistant' %}{% generation %}{{ m['content'] }}"
    "<|im_end|>{% endgeneration %}{% else %}{{ m['content'] }}<|im_end|>{% endif %}{{ '\n' }}{% endfor %}"
)
TEXTS = st.text(string.ascii_letters + " .é\n", min_size=1, max_size=12).map(str.strip).filter(bool)


@pytest.fixture(scope="module")
def tokenizer_file(tmp_path_factory):
    """A byte-level BPE as GPT-2's, trained on a few words, with ChatML's marks."""
    import tokenizers

    found = tokenizers.Tokenizer(tokenizers.models.BPE())
    found.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    found.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=400,
        show_progress=False,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<|im_start|>", "<|im_end|>", "<|endoftext|>"],
    )
    found.train_from_iterator(["user assistant the cat sat on the mat and said yes or no to the user"] * 4, trainer)
    path = tmp_path_factory.mktemp("bpe") / "tokenizer.json"
    found.save(str(path))
    return path


def test_tokens_and_mask_of_a_tokenizer_are_those_of_transformers(tokenizer_file):
    import transformers

    oracle = transformers.PreTrainedTokenizerFast(tokenizer_file=str(tokenizer_file))
    ours = seqio_vocabularies.TokenizerVocabulary(str(tokenizer_file), 0, Delimiters(eos=2, pad=2, start=None, inputs_end=False))

    @settings(deadline=None)
    @given(st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=3))
    def check(turns):
        messages = [Message(role, text) for turn in turns for role, text in zip(("user", "assistant"), turn, strict=True)]
        wanted = oracle.apply_chat_template(
            [dataclasses.asdict(message) for message in messages], chat_template=CHATML, return_dict=True, return_assistant_tokens_mask=True
        )
        ids, mask = list(wanted["input_ids"]), list(wanted["assistant_masks"])
        written = TEMPLATES["chatml"].conversation(messages)
        inputs, targets = ours.encode(written.inputs), ours.encode(written.targets)
        line_break = len(ours.encode("\n"))
        assert [*inputs, *targets] == ids[:-line_break]
        found = loss_masks.loss_mask(ours, written.targets, written.spans)
        assert found[-1]
        assert found[:-1].astype(int).tolist() == mask[len(inputs) : -line_break]
        assert not any(mask[: len(inputs)])

    check()


def test_a_turns_mark_that_is_the_vocabularys_eos_stands_once(tokenizer_file, tmp_path):
    turns = [{"role": role, "content": "yes"} for role in ("user", "assistant", "user", "assistant")]
    (tmp_path / "c.jsonl").write_text(json.dumps({"messages": turns}) + "\n")
    (tmp_path / "r.jsonl").write_text(json.dumps({"prompt": "so?", "completion": "no", "choices": ["no", "yes"]}) + "\n")
    ends = {"<|im_end|>": 1, "<|endoftext|>": 2}
    found = {}
    for name, eos in ends.items():
        vocabulary = seqio_vocabularies.TokenizerVocabulary(
            str(tokenizer_file), eos, Delimiters(eos=eos, pad=2, start=None, inputs_end=False)
        )
        chat = Instructions(name=f"chat{eos}", format="chat", train_files=str(tmp_path / "c.jsonl"), chat="chatml")
        (found[name],) = (example_tables.example_table(task, "train")[0] for task in chat.tasks(vocabulary))
        ranked = Rendered(choices_field="choices")
        rows = Instructions(name=f"rows{eos}", format=ranked, train_files=str(tmp_path / "r.jsonl"), chat="chatml").tasks(vocabulary)
        (example,) = mixtures.evaluation_examples(rows[0], "train")
        mark = "" if eos == 1 else "<|im_end|>"
        assert (example["targets_pretokenized"], example["answer_choices"]) == (f"no{mark}", (f"no{mark}", f"yes{mark}"))
    assert found["<|endoftext|>"]["targets"].tolist() == [*found["<|im_end|>"]["targets"].tolist(), 2]
    assert found["<|endoftext|>"]["loss_mask"].tolist() == [*found["<|im_end|>"]["loss_mask"].tolist(), True]
    assert found["<|im_end|>"]["loss_mask"][-1]


def test_bytes_count_where_their_letter_does():
    text = "aé|bc|"
    assert loss_masks.loss_mask(BYTES.load(), text, [(1, 2), (3, 5)]).tolist() == [False, True, True, False, True, True, False, False]
    assert loss_masks.loss_mask(BYTES.load(), text, [(0, 6)]).all()


@settings(deadline=None)
@given(st.lists(st.tuples(TEXTS, TEXTS), min_size=2, max_size=3))
def test_what_sentencepiece_counts_holds_the_responses(turns):
    vocabulary = vocabularies.SentencePiece().load()
    messages = [Message(role, text) for turn in turns for role, text in zip(("user", "assistant"), turn, strict=True)]
    written = TEMPLATES["plain"].conversation(messages)
    ids = vocabulary.encode(written.targets)
    offsets = loss_masks.token_offsets(vocabulary, written.targets)
    assert len(offsets) == len(ids)
    mask = loss_masks.loss_mask(vocabulary, written.targets, written.spans)
    assert mask.shape == (len(ids) + 1,) and mask[-1]
    for place, letter in enumerate(written.targets):
        tokens = [token for token, (begin, end) in enumerate(offsets) if begin <= place < end]
        assert letter.isspace() or len(tokens) == 1, "every letter is one token's"
        if any(begin <= place < end for begin, end in written.spans):
            assert all(mask[token] for token in tokens)
    clear = [(begin, end) for begin, end in offsets if not any(begin < stop and end > start for start, stop in written.spans)]
    assert mask[:-1].sum() == len(offsets) - len(clear)


def test_a_vocabulary_that_cannot_tell_is_refused():
    class Other:
        """Has no offsets."""

    with pytest.raises(UserError, match="a Other can't tell which characters"):
        loss_masks.token_offsets(Other(), "a")


ROWS = [
    TextRow("Q1", "yes#more?#no", loss_spans=((0, 3), (10, 12))),
    TextRow("Q2", "whole"),
    TextRow("Q3", "é|x|y", loss_spans=((0, 1), (4, 5))),
]
COUNTED = ["yesno", "whole", "éy"]


class Source:
    """ROWS as a task."""

    task_names = ("turns",)

    def tasks(self, vocabulary):
        source = functools.partial(text_tasks.rows_source, lambda split: ROWS, ("train",))
        return [text_tasks.register("turns", settings=ROWS, vocabulary=vocabulary, source=source)]


@pytest.mark.parametrize("packed", [False, True])
def test_the_loss_weighs_the_responses_and_their_end(packed):
    vocabulary = BYTES.load()
    sizes = {"vocabulary": vocabulary, "input_length": 40, "target_length": 60, "batch_size": 3, "packed": packed}
    with mixtures.training_batches(Source(), prompt=PromptLayout(2), **sizes) as stream:
        batch = next(stream)
    seen = 0
    for tokens, weights, segments in zip(
        batch["decoder_target_tokens"], batch["decoder_loss_weights"], batch["decoder_segment_ids"], strict=True
    ):
        for segment in range(1, segments.max() + 1):
            here = segments == segment
            counted = [int(token) for token in tokens[here & (weights > 0)]]
            assert counted[-1] == features.EOS_ID
            row = ROWS[COUNTED.index(vocabulary.decode(counted[:-1]))]
            assert here.sum() == len(row.targets.encode()) + 1, "what is not counted is read all the same"
            seen += 1
    assert seen >= 3


def test_a_cut_target_keeps_the_weights_of_its_places():
    example = {"inputs": [5, 1], "targets": [7, 8, 9, 1], "loss_mask": np.array([True, False, True, True])}
    batch = features.layout([example], input_length=4, target_length=3)
    assert batch["decoder_loss_weights"].tolist() == [[1, 0, 1]]
    assert batch["decoder_input_tokens"].tolist() == [[0, 7, 8]]
    assert batch["decoder_target_tokens"].tolist() == [[7, 0, 1]]
    same = features.layout([{**example, "loss_mask": np.ones(4, bool)}], input_length=4, target_length=6)
    plain = features.layout([{name: example[name] for name in ("inputs", "targets")}], input_length=4, target_length=6)
    assert all(np.array_equal(same[name], plain[name]) for name in plain)


def test_a_decoders_loss_over_many_turns_is_that_of_transformers(tmp_path):
    """Transformers reads each conversation as one sequence whose labels are -100 but on the responses; its loss is the mean over those."""
    torch = pytest.importorskip("torch")
    theirs = tiny_decoders.huggingface_model("llama2")
    tiny_decoders.save(theirs, tmp_path)
    ours, _ = tiny_decoders.load(tmp_path, unroll_layers=False)
    marks = Delimiters(eos=2, pad=2, start=None, bos=1, inputs_end=False)
    rng = np.random.default_rng(0)
    examples, total, count = [], 0.0, 0
    for length in (6, 9, 4):
        inputs, targets = rng.integers(3, 40, size=3), np.append(rng.integers(3, 40, size=length), 2)
        mask = rng.random(length + 1) < 0.5
        mask[0] = mask[-1] = True
        examples.append({"inputs": inputs, "targets": targets, "loss_mask": mask})
        ids = torch.tensor([[1, *inputs, *targets]])
        labels = torch.where(torch.tensor([[False] * 4 + mask.tolist()]), ids, -100)
        total += theirs(input_ids=ids, labels=labels).loss.item() * mask.sum()
        count += mask.sum()
    layout = PromptLayout(delimiters=marks)
    padded = features.layout(examples, prompt=layout, input_length=5, target_length=11)
    rows = list(features.pack(examples, prompt=layout, input_length=12, target_length=24))
    packed = features.layout_rows(rows, prompt=layout, input_length=12, target_length=24)
    assert len(rows) == 1
    for batch in (padded, packed):
        loss, weight, _ = losses.cross_entropy(ours(batch), batch["decoder_target_tokens"], weights_BT=batch["decoder_loss_weights"])
        assert float(weight) == count
        assert float(loss) / count == pytest.approx(total / count, rel=1e-5), "float32 through three layers on both sides"
