"""The layout of a decoder-only model's examples, and T5's, which is none of its business, held to the bit."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from prompt_tuning.data import features
from prompt_tuning.data.features import Delimiters, PromptLayout
from prompt_tuning.errors import UserError

LLAMA = Delimiters(eos=2, pad=2, start=None, bos=1, inputs_end=False)
GPT2 = Delimiters(eos=50256, pad=50256, start=None, inputs_end=False)
LENGTHS = {"input_length": 8, "target_length": 6}
PLACES = ["before", "after_first", "suffix", "first"]


def texts(least, most):
    return st.lists(st.integers(3, 60), min_size=least, max_size=most)


def examples_of(marks):
    inputs = texts(1, 8 - (marks.bos is not None))
    return st.lists(
        st.fixed_dictionaries({"inputs": inputs, "targets": texts(0, 5).map(lambda t: [*t, marks.eos])}), min_size=1, max_size=9
    )


CASES = st.sampled_from([LLAMA, GPT2]).flatmap(
    lambda marks: st.tuples(
        examples_of(marks), st.builds(PromptLayout, st.integers(0, 3), placement=st.sampled_from(PLACES), delimiters=st.just(marks))
    )
)


def plain(examples):
    return [{key: list(map(int, example[key])) for key in ("inputs", "targets")} for example in examples]


def sequence(batch, row, segment=1):
    """One example as the model reads it: a pair (token, slot) for each position, what is asked there, and whether it counts."""
    found = []
    for side in ("encoder", "decoder"):
        inside = batch[f"{side}_segment_ids"][row] == segment
        slots = batch.get(f"{side}_prompt_slots", np.full_like(batch[f"{side}_segment_ids"], -1))[row, inside]
        tokens = batch[f"{side}_input_tokens"][row, inside]
        asked = [(0, 0.0)] * int(inside.sum())
        if side == "decoder":
            asked = list(zip(batch["decoder_target_tokens"][row, inside], batch["decoder_loss_weights"][row, inside], strict=True))
        found += [("row", int(slot)) if slot >= 0 else ("token", int(token)) for token, slot in zip(tokens, slots, strict=True)], asked
    return found[0] + found[2], found[1] + found[3]


def wanted(example, prompt):
    """The sequence written out: [BOS] [prompt] inputs targets EOS, asked at each place before a target."""
    marks = prompt.delimiters
    rows = [("row", row) for row in range(prompt.encoder_length)]
    inputs, targets = ([("token", token) for token in example[name]] for name in ("inputs", "targets"))
    bos = [] if marks.bos is None else [("token", marks.bos)]
    at = {"before": 0, "after_first": 1, "suffix": len(inputs), "first": 0}[prompt.placement]
    source = [*rows, *bos, *inputs] if prompt.placement == "first" else [*bos, *inputs[:at], *rows, *inputs[at:]]
    asked = [None] * (len(source) - 1) + example["targets"]
    return source + targets[:-1], asked


@hypothesis.given(CASES)
def test_a_row_is_bos_prompt_inputs_targets_and_the_loss_is_on_targets(case):
    examples, prompt = case
    batch = features.layout(examples, prompt=prompt, **LENGTHS)
    for row, example in enumerate(examples):
        read, asked = sequence(batch, row)
        assert (read, [int(token) if weight else None for token, weight in asked]) == wanted(example, prompt)
    assert batch["decoder_loss_weights"].sum() == sum(len(example["targets"]) for example in examples)


@hypothesis.given(CASES)
def test_unpack_inverts_layout_and_packing(case):
    examples, prompt = case
    marks = prompt.delimiters
    assert plain(features.unpack(features.layout(examples, prompt=prompt, **LENGTHS), delimiters=marks)) == examples
    rows = list(features.pack(examples, prompt=prompt, **LENGTHS))
    batch = features.layout_rows(rows, prompt=prompt, **LENGTHS)
    assert plain(features.unpack(batch, delimiters=marks)) == [example for row in rows for example in row]
    assert sorted(map(str, [example for row in rows for example in row])) == sorted(map(str, examples))
    for index, row in enumerate(rows):
        for segment, example in enumerate(row, start=1):
            assert sequence(batch, index, segment)[0] == wanted(example, prompt)[0], "packed as alone"
            for side in ("encoder", "decoder"):
                inside = batch[f"{side}_segment_ids"][index] == segment
                assert batch[f"{side}_positions"][index, inside].tolist() == list(range(inside.sum()))


def t5_row(inputs, targets, prompt, segment_lengths):
    """T5's arrays for one example, written out from their description alone."""
    source, target = segment_lengths
    p, d = prompt.encoder_length, prompt.decoder_length
    at = {"before": 0, "after_first": 1, "suffix": len(inputs), "first": 0}[prompt.placement]
    slots = [-1] * at + list(range(p)) + [-1] * (len(inputs) - at)
    tokens = inputs[:at] + [0] * p + inputs[at:]
    begun, slots_begun = ([0] * (d + 1), [*range(p, p + d), -1] if prompt.placement in ("before", "first") else [-1, *range(p, p + d)])

    def filled(values, length, with_value):
        return values + [with_value] * (length - len(values))

    row = {
        "encoder_input_tokens": filled(tokens, source, 0),
        "encoder_prompt_slots": filled(slots, source, -1),
        "encoder_segment_ids": filled([1] * len(tokens), source, 0),
        "decoder_input_tokens": filled(begun + targets[:-1], target, 0),
        "decoder_prompt_slots": filled(slots_begun + [-1] * (len(targets) - 1), target, -1),
        "decoder_segment_ids": filled([1] * (d + len(targets)), target, 0),
        "decoder_target_tokens": filled([0] * d + targets, target, 0),
        "decoder_loss_weights": filled([0.0] * d + [1.0] * len(targets), target, 0.0),
    }
    for side, length in (("encoder", p), ("decoder", d)):
        if not length:
            del row[f"{side}_prompt_slots"]
    return row


T5_EXAMPLES = st.lists(
    st.fixed_dictionaries({name: texts(0, most).map(lambda t: [*t, 1]) for name, most in (("inputs", 7), ("targets", 5))}),
    min_size=1,
    max_size=6,
)


@hypothesis.given(T5_EXAMPLES, st.builds(PromptLayout, st.integers(0, 3), st.integers(0, 3), st.sampled_from(PLACES)))
def test_an_encoder_decoders_arrays_are_t5s_to_the_bit(examples, prompt):
    found = features.layout(examples, prompt=prompt, **LENGTHS)
    lengths = (8 + prompt.encoder_length, 6 + prompt.decoder_length)
    rows = [t5_row(example["inputs"], example["targets"], prompt, lengths) for example in examples]
    assert set(found) == set(rows[0])
    for name, array in found.items():
        expected = np.array([row[name] for row in rows], np.float32 if name == "decoder_loss_weights" else np.int32)
        assert array.dtype == expected.dtype and array.tobytes() == expected.tobytes(), name


def test_the_first_target_is_asked_of_bos_or_the_prompt_where_inputs_are_empty():
    example = {"inputs": [], "targets": [7, 2]}
    read, asked = sequence(features.layout([example], prompt=PromptLayout(delimiters=LLAMA), **LENGTHS), 0)
    assert read == [("token", 1), ("token", 7)] and asked == [(7, 1.0), (2, 1.0)]
    batch = features.layout([example], prompt=PromptLayout(2, delimiters=LLAMA), **LENGTHS)
    assert sequence(batch, 0)[0] == [("token", 1), ("row", 0), ("row", 1), ("token", 7)]
    assert plain(features.unpack(batch, delimiters=LLAMA)) == [example]
    with pytest.raises(UserError, match="empty inputs"):
        features.layout([example], prompt=PromptLayout(delimiters=GPT2), **LENGTHS)


def test_inputs_are_cut_behind_bos_and_targets_keep_eos():
    batch = features.layout([{"inputs": [*range(3, 30)], "targets": [*range(3, 30), 2]}], prompt=PromptLayout(delimiters=LLAMA), **LENGTHS)
    assert plain(features.unpack(batch, delimiters=LLAMA)) == [{"inputs": [*range(3, 10)], "targets": [3, 4, 5, 6, 7, 2]}]


def test_a_prompt_in_a_decoder_that_there_is_not_is_refused():
    with pytest.raises(UserError, match="decoder-only model has one sequence, got 2; prompt the inputs"):
        PromptLayout(2, 2, delimiters=LLAMA)
