"""Layout and packing: properties over random examples."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from prompt_tuning.data import features
from prompt_tuning.data.features import PromptLayout
from prompt_tuning.errors import UserError

LENGTHS = {"input_length": 8, "target_length": 6}


def ids(longest: int):
    return st.lists(st.integers(3, 60), max_size=longest - 1).map(lambda tokens: [*tokens, features.EOS_ID])


EXAMPLES = st.lists(st.fixed_dictionaries({"inputs": ids(8), "targets": ids(6)}), min_size=1, max_size=12)
PROMPTS = st.builds(PromptLayout, st.integers(0, 3), st.integers(0, 3), st.sampled_from(["before", "after_first", "suffix"]))


def plain(examples):
    return [{key: list(map(int, example[key])) for key in ("inputs", "targets")} for example in examples]


@hypothesis.given(EXAMPLES, PROMPTS)
def test_unpack_inverts_layout(examples, prompt):
    batch = features.layout(examples, prompt=prompt, **LENGTHS)
    assert plain(features.unpack(batch)) == examples


@hypothesis.given(EXAMPLES, PROMPTS)
def test_packing_keeps_every_example_once(examples, prompt):
    rows = list(features.pack(examples, prompt=prompt, **LENGTHS))
    batch = features.layout_rows(rows, prompt=prompt, **LENGTHS)
    order = [example for row in rows for example in row]
    assert plain(features.unpack(batch)) == order
    assert sorted(map(str, order)) == sorted(map(str, examples))


@hypothesis.given(EXAMPLES, PROMPTS)
def test_packed_rows_are_sound(examples, prompt):
    batch = features.layout_rows(list(features.pack(examples, prompt=prompt, **LENGTHS)), prompt=prompt, **LENGTHS)
    for side, first, length in (("encoder", 0, prompt.encoder_length), ("decoder", prompt.encoder_length, prompt.decoder_length)):
        segments = batch[f"{side}_segment_ids"]
        slots = batch.get(f"{side}_prompt_slots", np.full_like(segments, -1))
        assert (f"{side}_prompt_slots" in batch) == (length > 0)
        for row in range(len(segments)):
            used = int((segments[row] > 0).sum())
            assert (segments[row, used:] == 0).all(), "padding comes last"
            assert set(np.diff(segments[row, :used])) <= {0, 1}, "segments are contiguous and count up"
            for segment in range(1, int(segments[row].max()) + 1):
                inside = segments[row] == segment
                assert batch[f"{side}_positions"][row, inside].tolist() == list(range(inside.sum()))
                found = slots[row, inside]
                # Nothing of a decoder's prompt is cut away, for the last token of the shifted targets is a target, never a slot.
                assert found[found >= 0].tolist() == list(range(first, first + length)), "each segment has its whole prompt, in order"
        padding = segments == 0
        for name in (f"{side}_input_tokens", f"{side}_positions"):
            assert (batch[name][padding] == 0).all()
        assert (slots[padding] == -1).all()
    weights = batch["decoder_loss_weights"]
    assert set(np.unique(weights)) <= {0.0, 1.0}
    assert weights.sum() == sum(len(example["targets"]) for example in examples)
    assert (batch["decoder_target_tokens"][weights == 0] == 0).all()


@hypothesis.given(EXAMPLES)
def test_decoder_reads_the_targets_shifted_right(examples):
    batch = features.layout(examples, **LENGTHS)
    assert (batch["decoder_input_tokens"][:, 0] == features.START_ID).all()
    for row, example in enumerate(examples):
        count = len(example["targets"])
        assert batch["decoder_input_tokens"][row, 1:count].tolist() == example["targets"][:-1]


def test_shapes_and_types():
    batch = features.layout([{"inputs": [5, 1], "targets": [6, 1]}], prompt=PromptLayout(3, 2), **LENGTHS)
    assert {name: array.shape for name, array in batch.items()} == {
        "encoder_input_tokens": (1, 11),
        "encoder_prompt_slots": (1, 11),
        "encoder_segment_ids": (1, 11),
        "decoder_input_tokens": (1, 8),
        "decoder_prompt_slots": (1, 8),
        "decoder_segment_ids": (1, 8),
        "decoder_target_tokens": (1, 8),
        "decoder_loss_weights": (1, 8),
    }
    assert all(array.dtype == (np.float32 if name == "decoder_loss_weights" else np.int32) for name, array in batch.items())


@pytest.mark.parametrize(
    ("placement", "encoder", "decoder", "weights"),
    [
        ("before", [0, 1, -1, -1, -1], [2, 3, -1, -1], [0, 0, 1, 1]),
        ("after_first", [-1, 0, 1, -1, -1], [-1, 2, 3, -1], [0, 0, 1, 1]),
        ("suffix", [-1, -1, -1, 0, 1], [-1, 2, 3, -1], [0, 0, 1, 1]),
    ],
)
def test_placement(placement, encoder, decoder, weights):
    batch = features.layout(
        [{"inputs": [5, 6, 1], "targets": [7, 1]}], input_length=3, target_length=2, prompt=PromptLayout(2, 2, placement)
    )
    assert batch["encoder_prompt_slots"][0].tolist() == encoder
    assert batch["encoder_input_tokens"][0][np.array(encoder) < 0].tolist() == [5, 6, 1]
    assert batch["decoder_prompt_slots"][0].tolist() == decoder
    assert batch["decoder_input_tokens"][0][np.array(decoder) < 0].tolist() == [0, 7]
    assert batch["decoder_loss_weights"][0].tolist() == weights
    assert batch["decoder_target_tokens"][0].tolist() == [0, 0, 7, 1]


@pytest.mark.parametrize("placement", ["before", "after_first", "suffix"])
def test_decoder_start_is_how_training_begins(placement):
    prompt = PromptLayout(2, 3, placement)
    tokens, slots = features.decoder_start(prompt)
    batch = features.layout([{"inputs": [5, 1], "targets": [7, 8, 1]}], prompt=prompt, **LENGTHS)
    assert batch["decoder_input_tokens"][0, : len(tokens)].tolist() == tokens.tolist()
    assert batch["decoder_prompt_slots"][0, : len(slots)].tolist() == slots.tolist()
    assert batch["decoder_target_tokens"][0, len(tokens) - 1] == 7


def test_truncation_keeps_eos():
    batch = features.layout([{"inputs": [*range(3, 30), 1], "targets": [*range(3, 30), 1]}], **LENGTHS)
    assert batch["encoder_input_tokens"][0].tolist() == [3, 4, 5, 6, 7, 8, 9, 1]
    assert batch["decoder_target_tokens"][0].tolist() == [3, 4, 5, 6, 7, 1]
    assert features.trim([3, 4, 5], 2).tolist() == [3, 4], "no EOS is made up where there was none"


def test_packing_takes_fewer_rows():
    examples = [{"inputs": [5, 1], "targets": [6, 1]}] * 9
    rows = list(features.pack(examples, input_length=8, target_length=6))
    assert [len(row) for row in rows] == [3, 3, 3]
    assert len(list(features.pack(examples, input_length=8, target_length=6, prompt=PromptLayout(8)))) == 9


def test_a_row_that_does_not_fit_is_an_error():
    with pytest.raises(UserError, match="pack"):
        features.layout_rows([[{"inputs": [5] * 7 + [1], "targets": [6, 1]}] * 2], **LENGTHS)


@pytest.mark.parametrize("name", ["inputs", "targets"])
def test_empty_example_is_named(name):
    example = {"inputs": [5, 1], "targets": [6, 1], "inputs_pretokenized": "the odd one"} | {name: []}
    with pytest.raises(UserError, match=f"empty {name}.*the odd one"):
        features.layout([example], **LENGTHS)


def test_bad_prompt_layouts_are_refused():
    with pytest.raises(UserError, match="0 or more"):
        PromptLayout(-1)
    with pytest.raises(UserError, match="placement"):
        PromptLayout(1, placement="middle")
    with pytest.raises(UserError, match="tasks: wanted 1 or more, and 1 with a prompt in the decoder, got 2"):
        PromptLayout(1, 1, tasks=2)


@hypothesis.given(EXAMPLES, st.integers(1, 3), st.sampled_from(["before", "after_first", "suffix"]), st.data())
def test_slots_name_the_rows_of_an_examples_task(examples, length, placement, data):
    numbers = data.draw(st.lists(st.integers(0, 3), min_size=len(examples), max_size=len(examples)))
    numbered = [example | {"task": number} for example, number in zip(examples, numbers, strict=True)]
    prompt = PromptLayout(length, placement=placement, tasks=4)
    one, own = (features.layout(numbered, prompt=each, **LENGTHS) for each in (PromptLayout(length, placement=placement), prompt))
    slots = one.pop("encoder_prompt_slots")
    wanted = np.where(slots >= 0, slots + length * np.array(numbers)[:, None], -1)
    np.testing.assert_array_equal(own.pop("encoder_prompt_slots"), wanted)
    for name, array in one.items():
        np.testing.assert_array_equal(own[name], array)
    packed = features.layout_rows(list(features.pack(numbered, prompt=prompt, **LENGTHS)), prompt=prompt, **LENGTHS)
    found = packed["encoder_prompt_slots"]
    assert sorted(found[found >= 0].tolist()) == sorted(wanted[wanted >= 0].tolist())


@pytest.mark.parametrize(("task", "got"), [({}, "an example that names none"), ({"task": 2}, "task 2"), ({"task": "sst2"}, "task 'sst2'")])
def test_an_example_of_no_known_task_is_refused(task, got):
    with pytest.raises(UserError, match=f"wanted examples of tasks 0 to 1, got {got}"):
        features.layout([{"inputs": [5, 1], "targets": [6, 1]} | task], prompt=PromptLayout(1, tasks=2), **LENGTHS)
