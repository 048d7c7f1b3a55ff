"""Answer choices on their way into training batches."""

import dataclasses
import functools
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prompt_tuning.data import choices, features, mixtures
from prompt_tuning.data.features import PromptLayout
from prompt_tuning.data.rows import TextRow
from prompt_tuning.errors import UserError
from tests.data.small import BYTES, Numbered

LENGTHS = {"input_length": 16, "target_length": 6}


@dataclasses.dataclass(frozen=True)
class Asked:
    """Rows (inputs, targets, choices)."""

    rows: tuple[tuple[str, str, tuple[str, ...]], ...]

    @property
    def task_names(self):
        """The name of the task."""
        return ("asked",)

    def tasks(self, vocabulary):
        """The SeqIO task."""
        from prompt_tuning.data import text_tasks

        source = functools.partial(text_tasks.rows_source, lambda split: [TextRow(*row) for row in self.rows], ("train",))
        return [text_tasks.register("asked", settings=self, vocabulary=vocabulary, source=source)]


ROWS = Asked((("q a", "yes", ("no", "yes", "maybe")), ("q b", "no", ("no", "yes")), ("q c", "free", ())))


def batches(source, count, **settings):
    settings = {"vocabulary": BYTES.load, "batch_size": 3, "seed": 1, "num_choices": 3} | LENGTHS | settings
    with mixtures.training_batches(source, **settings) as stream:
        return list(itertools.islice(stream, count))


def texts_of(batch):
    """For each example its inputs and the texts of its choices that weigh something."""
    decode = BYTES.load().decode
    found = []
    for row, tokens_CT in enumerate(batch["decoder_target_tokens"]):
        weights_CT = batch["decoder_loss_weights"][row]
        own = [decode(tokens[weights > 0][:-1].tolist()) for tokens, weights in zip(tokens_CT, weights_CT, strict=True) if weights.any()]
        given = batch["encoder_input_tokens"][row][batch["encoder_segment_ids"][row] > 0]
        found.append((decode(given[:-1].tolist()), own))
    return found


def test_a_batch_holds_every_choice_of_its_examples_the_right_one_first():
    (batch,) = batches(ROWS, 1)
    assert sorted(texts_of(batch)) == [("q a", ["yes", "no", "maybe"]), ("q b", ["no", "yes"]), ("q c", ["free"])]
    assert batch["decoder_target_tokens"].shape == (3, 3, 6) and batch["encoder_input_tokens"].shape == (3, 16)


def test_the_right_choices_are_the_batches_without_choices():
    source = mixtures.Mixture((Numbered("a", choices=True), Numbered("b", choices=True)))
    plain = batches(source, 5, num_choices=0, prompt=PromptLayout(2))
    for with_choices, without in zip(batches(source, 5, prompt=PromptLayout(2)), plain, strict=True):
        assert with_choices.keys() == without.keys()
        for name, value in without.items():
            found = with_choices[name][:, 0] if name.startswith("decoder_") else with_choices[name]
            np.testing.assert_array_equal(found, value, err_msg=name)


def test_resuming_and_shards_give_the_stream_never_interrupted():
    source = mixtures.Mixture((Numbered("a", choices=True), Numbered("b", num_train=7)))
    whole = batches(source, 8, batch_size=4)
    for start, shards in ((5, 1), (0, 2), (3, 2)):
        parts = [batches(source, 8 - start, batch_size=4, start_step=start, shard=(index, shards)) for index in range(shards)]
        for step in range(8 - start):
            found = sorted(text for part in parts for text in texts_of(part[step]))
            assert found == sorted(texts_of(whole[start + step]))


@given(st.lists(st.tuples(st.integers(1, 5), st.integers(1, 4)), min_size=1, max_size=4), st.integers(4, 6))
def test_layout_is_that_of_each_choice_alone(sizes, num_choices):
    rng = np.random.default_rng(len(sizes))

    def ids(length):
        return (*rng.integers(3, 50, length).tolist(), features.EOS_ID)

    examples = []
    for length, count in sizes:
        own = tuple(ids(int(rng.integers(1, 5))) for _ in range(count))
        examples.append({"inputs": ids(length), "targets": own[0], "choices": own})
    layout = PromptLayout(2, 1)
    batch = choices.layout(examples, num_choices=num_choices, prompt=layout, **LENGTHS)
    for row, example in enumerate(examples):
        for place in range(num_choices):
            there = place < len(example["choices"])
            alone = features.layout([example | {"targets": example["choices"][place if there else -1]}], prompt=layout, **LENGTHS)
            for name, value in alone.items():
                found = batch[name][row, place] if name.startswith("decoder_") else batch[name][row]
                wanted = value[0] if there or name != "decoder_loss_weights" else 0 * value[0]
                np.testing.assert_array_equal(found, wanted, err_msg=name)


def test_a_loss_mask_is_the_right_choices_alone():
    example = {"inputs": [5, 1], "targets": (6, 7, 1), "choices": ((6, 7, 1), (8, 1)), "loss_mask": np.array([False, True, True])}
    batch = choices.layout([example], num_choices=3, prompt=features.NO_PROMPT, **LENGTHS)
    np.testing.assert_array_equal(batch["decoder_loss_weights"][0, :, :3], [[0, 1, 1], [1, 1, 0], [0, 0, 0]])


@pytest.mark.parametrize(
    ("rows", "settings", "message"),
    [
        (
            (("q", "perhaps", ("no", "yes")),),
            {},
            r"task asked: the target 'perhaps' of example 0 is none of its answer choices \['no', 'yes'\]",
        ),
        ((("q", "a", ("a", "b", "c")),), {"num_choices": 2}, "3 answer choices, more than 2; set losses.ChoiceLosses.num_choices"),
        ((("q", "a", ("a", "longer than that")),), {}, "17 tokens, end token included, more than 6; set TARGET_LENGTH"),
    ],
)
def test_choices_that_do_not_fit_are_named(rows, settings, message):
    with pytest.raises(UserError, match=message):
        batches(Asked(rows), 1, **settings)
