"""From tokenized examples to the arrays a model reads: padding or packing, with the places of soft prompts written beside the tokens.

An example is a mapping with `inputs` and `targets`, token ids with the end token (EOS) included; `task`, the number of its task, where
tasks have prompts of their own; and `loss_mask`, a truth for each id of the targets, where the loss is on some of them only. Soft prompts
take no token ids: a slots array says for each position whether it holds a token (-1) or which row of the prompt (0 and up). Everything here
is NumPy.

A decoder-only model reads one sequence: [BOS] [prompt] inputs targets EOS, without EOS behind the inputs (`Delimiters`). It is laid in the
same arrays: what stands last before the targets, a token or a row of the prompt, takes the place of the start token, and the encoder's
arrays hold the rest. So the loss is on the targets alone, the first of them included, and decoding begins where the inputs end.

Letters: B rows of a batch, S source length, T target length, P prompt length.
"""

import dataclasses
import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np

from prompt_tuning.errors import UserError

Example = Mapping[str, Any]
Batch = dict[str, np.ndarray]

PAD_ID = 0
EOS_ID = 1
START_ID = 0  # T5's decoder starts with the padding token.
TOKEN_SLOT = -1
Placement = Literal["before", "after_first", "suffix", "first"]
PLACEMENTS: tuple[Placement, ...] = get_args(Placement)
_OPEN_ROWS = 16


@dataclasses.dataclass(frozen=True)
class Delimiters:
    """The ids of a vocabulary that stand beside texts; the defaults are T5's.

    Attributes:
      eos: ends targets.
      pad: fills rows.
      start: what a decoder starts with; None for a decoder-only model, whose targets follow the inputs.
      bos: stands before the inputs and their prompt; None for a vocabulary that begins with the text itself.
      inputs_end: whether inputs end with EOS too.
    """

    eos: int = EOS_ID
    pad: int = PAD_ID
    start: int | None = START_ID
    bos: int | None = None
    inputs_end: bool = True


T5_DELIMITERS = Delimiters()


@dataclasses.dataclass(frozen=True)
class PromptLayout:
    """How many rows of the prompt stand in the encoder and in the decoder, and where.

    Attributes:
      encoder_length: prompt rows 0..encoder_length-1 stand in the encoder.
      decoder_length: prompt rows encoder_length..encoder_length+decoder_length-1 stand in the decoder.
      placement: in the encoder, `before` the first token, `after_first` token, or as `suffix` after the last token (EOS). In the decoder,
        whose given input is the start token alone, `before` stands before the start token and the other two stand after it. BOS is none
        of these tokens: it stands before all, but for a prompt that is `first`, which is where PEFT has it; without BOS that is `before`.
      tasks: how many tasks have a prompt of their own: row r of task t is row t * encoder_length + r. With several, the decoder has none.
      delimiters: of the vocabulary. A decoder-only model's whole sequence is the encoder's, and its decoder has no prompt.
    """

    encoder_length: int = 0
    decoder_length: int = 0
    placement: Placement = "before"
    tasks: int = 1
    delimiters: Delimiters = T5_DELIMITERS

    def __post_init__(self) -> None:
        if self.encoder_length < 0 or self.decoder_length < 0:
            raise UserError(f"PromptLayout: lengths must be 0 or more, got encoder {self.encoder_length}, decoder {self.decoder_length}")
        if self.placement not in PLACEMENTS:
            raise UserError(f"PromptLayout.placement: wanted one of {list(PLACEMENTS)}, got {self.placement!r}")
        if self.tasks < 1 or (self.tasks > 1 and self.decoder_length):
            raise UserError(f"PromptLayout.tasks: wanted 1 or more, and 1 with a prompt in the decoder, got {self.tasks}")
        if self.delimiters.start is None and self.decoder_length:
            raise UserError(
                f"PromptLayout.decoder_length: wanted 0, for a decoder-only model has one sequence, got {self.decoder_length}; "
                "prompt the inputs (Prompt.stacks = 'encoder')"
            )


NO_PROMPT = PromptLayout()


def trim(ids: Sequence[int] | np.ndarray, length: int, *, eos: int = EOS_ID) -> np.ndarray:
    """The first `length` ids, int32; what is cut keeps its EOS as last token."""
    array = np.asarray(ids, np.int32)
    if len(array) <= length:
        return array
    cut = array[:length].copy()
    if array[-1] == eos:
        cut[-1] = eos
    return cut


def decoder_start(prompt: PromptLayout) -> tuple[np.ndarray, np.ndarray]:
    """What a decoder is given before it writes: `(tokens_T, slots_T)`, the start token and the decoder's prompt in their order.

    The logits of the last position are those of the first target token. A decoder-only model has no start token to ask for.
    """
    marks = prompt.delimiters
    assert marks.start is not None, "each row of a decoder-only model starts with its own last input"
    start = np.array([marks.start], np.int32)
    return _with_prompt(start, prompt.decoder_length, at=_decoder_place(prompt), first_row=prompt.encoder_length, pad=marks.pad)


def layout(
    examples: Sequence[Example],
    *,
    input_length: int,
    target_length: int,
    prompt: PromptLayout = NO_PROMPT,
) -> Batch:
    """Lays out one example a row, padded.

    Arrays, int32 but for the weights (float32), with S = input_length + prompt.encoder_length and T = target_length +
    prompt.decoder_length: `encoder_input_tokens`, `encoder_segment_ids` (1 on the example and its prompt, 0 on padding),
    `decoder_input_tokens` (the targets shifted right behind the start token), `decoder_target_tokens`, `decoder_loss_weights` (1 where a
    token of the targets is predicted, EOS included, else 0), `decoder_segment_ids`; and `encoder_prompt_slots`, `decoder_prompt_slots`
    where the respective prompt has rows (of a decoder-only model both, where it has a prompt). Inputs, their BOS counted, and targets
    longer than their length are cut and keep their EOS.

    Raises UserError for an example with empty inputs (but where BOS or a prompt stands before a decoder-only model's targets) or targets,
    or of no known task where each task has its prompt.
    """
    return layout_rows(
        [[example] for example in examples], input_length=input_length, target_length=target_length, prompt=prompt, packed=False
    )


def layout_rows(
    rows: Sequence[Sequence[Example]],
    *,
    input_length: int,
    target_length: int,
    prompt: PromptLayout = NO_PROMPT,
    packed: bool = True,
) -> Batch:
    """Lays out several examples in each row, one after the other, each with its own prompt slots; `layout` says what the arrays are.

    Packed rows have also `encoder_positions` and `decoder_positions`, which start from 0 in each segment and count the prompt.
    Raises UserError where a row does not hold its examples (use `pack`).
    """
    pad, joint = prompt.delimiters.pad, prompt.delimiters.start is None
    encoder = _Side("encoder", input_length + prompt.encoder_length)
    decoder = _Side("decoder", target_length + prompt.decoder_length)
    start = None if joint else decoder_start(prompt)
    wanted: list[np.ndarray] = []
    weights: list[np.ndarray] = []
    for row in rows:
        for segment, example in enumerate(row, start=1):
            inputs, targets = _checked(example, input_length, target_length, prompt)
            tokens, slots = _encoder_sequence(inputs, prompt, first_row=_task_of(example, prompt) * prompt.encoder_length)
            given = start
            if given is None:
                given, tokens, slots = (tokens[-1:], slots[-1:]), tokens[:-1], slots[:-1]
            encoder.add(tokens, slots, segment)
            tokens, slots, asked, counted = _decoder_sequence(given, targets, prompt, example.get("loss_mask"))
            decoder.add(tokens, slots, segment)
            wanted.append(asked)
            weights.append(counted)
        encoder.end_row()
        decoder.end_row()
    prompted = bool(prompt.decoder_length) or (joint and bool(prompt.encoder_length))
    batch = encoder.arrays(len(rows), pad=pad, slots=bool(prompt.encoder_length), positions=packed)
    batch |= decoder.arrays(len(rows), pad=pad, slots=prompted, positions=packed)
    batch["decoder_target_tokens"] = decoder.laid(wanted, len(rows), np.int32, filler=pad)
    batch["decoder_loss_weights"] = decoder.laid(weights, len(rows), np.float32)
    return batch


def pack(
    examples: Iterable[Example],
    *,
    input_length: int,
    target_length: int,
    prompt: PromptLayout = NO_PROMPT,
    open_rows: int = _OPEN_ROWS,
) -> Iterator[list[Example]]:
    """Groups examples into rows for `layout_rows`: greedy, first fit among at most `open_rows` rows that are still open.

    A row holds input_length + prompt.encoder_length source positions and target_length + prompt.decoder_length target positions; each
    example takes its own tokens and a whole prompt. Rows come out oldest first, and the same for the same examples.
    Raises UserError for an example with empty inputs or targets.
    """
    source_length, decoder_length = input_length + prompt.encoder_length, target_length + prompt.decoder_length
    rows: list[list[Any]] = []  # Examples, and the positions that are used on both sides.
    begins = int(prompt.delimiters.bos is not None)
    more_source, more_target = prompt.encoder_length - (prompt.delimiters.start is None), prompt.decoder_length
    for example in examples:
        _check_filled(example, prompt)
        need_source = min(len(example["inputs"]) + begins, input_length) + more_source
        need_target = min(len(example["targets"]), target_length) + more_target
        for row in rows:
            if row[1] + need_source <= source_length and row[2] + need_target <= decoder_length:
                row[0].append(example)
                row[1] += need_source
                row[2] += need_target
                break
        else:
            if len(rows) == open_rows:
                yield rows.pop(0)[0]
            rows.append([[example], need_source, need_target])
    for row, _, _ in rows:
        yield row


def unpack(batch: Batch, *, delimiters: Delimiters = T5_DELIMITERS) -> list[dict[str, np.ndarray]]:
    """The examples of a batch, row by row, without prompts, BOS and padding: the opposite of `layout` and `layout_rows`.

    Of targets with a loss mask those tokens that the loss is on.
    """
    examples = []
    for row in range(len(batch["decoder_segment_ids"])):
        for segment in range(1, int(batch["decoder_segment_ids"][row].max(initial=0)) + 1):
            source, target = (batch[f"{side}_segment_ids"][row] == segment for side in ("encoder", "decoder"))
            inputs = batch["encoder_input_tokens"][row, source & _holds_token(batch, "encoder", row)]
            if delimiters.start is None:
                given = target & (np.cumsum(target) == 1) & _holds_token(batch, "decoder", row)
                inputs = np.concatenate([inputs, batch["decoder_input_tokens"][row, given]])
            target &= batch["decoder_loss_weights"][row] > 0
            examples.append({"inputs": inputs[delimiters.bos is not None :], "targets": batch["decoder_target_tokens"][row, target]})
    return examples


def _holds_token(batch: Batch, side: str, row: int) -> np.ndarray:
    slots = batch.get(f"{side}_prompt_slots")
    return np.ones(batch[f"{side}_segment_ids"].shape[1], bool) if slots is None else slots[row] == TOKEN_SLOT


def _checked(example: Example, input_length: int, target_length: int, prompt: PromptLayout) -> tuple[np.ndarray, np.ndarray]:
    """Inputs, behind BOS where there is one, and targets, cut to their lengths."""
    marks = prompt.delimiters
    _check_filled(example, prompt)
    bos = [] if marks.bos is None else [marks.bos]
    inputs = trim(example["inputs"], input_length - len(bos), eos=marks.eos)
    return np.concatenate([np.array(bos, np.int32), inputs]) if bos else inputs, trim(example["targets"], target_length, eos=marks.eos)


def _check_filled(example: Example, prompt: PromptLayout) -> None:
    marks = prompt.delimiters
    begun = marks.start is None and (marks.bos is not None or prompt.encoder_length > 0)
    for name in ("targets",) if begun else ("inputs", "targets"):
        if len(example[name]) == 0:
            text = example.get("inputs_pretokenized")
            shown = f"inputs {text!r}" if text is not None else f"inputs (ids) {list(map(int, example['inputs'][:20]))}"
            raise UserError(f"an example has empty {name}: {shown}; wanted at least one token; drop the row or give its {name} text")


def _task_of(example: Example, prompt: PromptLayout) -> int:
    """Whose prompt an example takes."""
    if prompt.tasks == 1:
        return 0
    task = example.get("task")
    if not isinstance(task, int) or not 0 <= task < prompt.tasks:
        got = "an example that names none" if task is None else f"task {task!r}"
        raise UserError(
            f"the method has prompts for {prompt.tasks} tasks: wanted examples of tasks 0 to {prompt.tasks - 1}, got {got}; "
            "set the method's `tasks` to the number of tasks in the training data, and evaluate on those"
        )
    return task


def _decoder_place(prompt: PromptLayout) -> int:
    return 0 if prompt.placement in ("before", "first") else 1


def _with_prompt(tokens: np.ndarray, length: int, *, at: int, first_row: int, pad: int) -> tuple[np.ndarray, np.ndarray]:
    """Opens `length` prompt slots before position `at` of a token sequence: `(tokens, slots)`."""
    if not length:
        return tokens, _token_slots(len(tokens))
    filled = np.concatenate([tokens[:at], np.full(length, pad, np.int32), tokens[at:]])
    slots = np.full(len(filled), TOKEN_SLOT, np.int32)
    slots[at : at + length] = np.arange(first_row, first_row + length)
    return filled, slots


def _encoder_sequence(inputs: np.ndarray, prompt: PromptLayout, *, first_row: int) -> tuple[np.ndarray, np.ndarray]:
    first = int(prompt.delimiters.bos is not None)
    place = {"first": 0, "before": first, "after_first": first + 1, "suffix": len(inputs)}[prompt.placement]
    return _with_prompt(inputs, prompt.encoder_length, at=min(place, len(inputs)), first_row=first_row, pad=prompt.delimiters.pad)


def _decoder_sequence(
    given: tuple[np.ndarray, np.ndarray], targets: np.ndarray, prompt: PromptLayout, mask: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """`(tokens, slots, wanted, weights)`: each position is asked for what stands next, and counts where that is a token of the targets.

    With a mask it counts where the mask of that token is true. A cut target's EOS counts as the token whose place it takes.
    """
    tokens = np.concatenate([given[0], targets[:-1]])
    prompted = len(given[1]) > 1 or given[1][0] != TOKEN_SLOT
    slots = np.concatenate([given[1], _token_slots(len(targets) - 1)]) if prompted else _token_slots(len(tokens))
    before = len(tokens) - len(targets)  # Rows of a prompt, of which nothing is asked.
    if mask is None and not before:
        return tokens, slots, targets, _ones(len(targets))
    weights, wanted = np.zeros(len(tokens), np.float32), np.full(len(tokens), prompt.delimiters.pad, np.int32)
    counted = np.ones(len(targets), bool) if mask is None else mask[: len(targets)]
    weights[before:] = counted
    wanted[before:][counted] = targets[counted]
    return tokens, slots, wanted, weights


@functools.lru_cache(maxsize=4096)
def _token_slots(length: int) -> np.ndarray:
    slots = np.full(length, TOKEN_SLOT, np.int32)
    slots.flags.writeable = False  # It is every caller's.
    return slots


@functools.lru_cache(maxsize=4096)
def _ones(length: int) -> np.ndarray:
    ones = np.ones(length, np.float32)
    ones.flags.writeable = False
    return ones


class _Side:
    """The sequences of one side of a batch, kept until all are known: each array is then written at once."""

    def __init__(self, name: str, length: int) -> None:
        self._name, self._length = name, length
        self._row = self._at = 0
        self._tokens: list[np.ndarray] = []
        self._slots: list[np.ndarray] = []
        self._segments: list[int] = []
        self._starts: list[int] = []  # In the array, row behind row.

    def add(self, tokens: np.ndarray, slots: np.ndarray, segment: int) -> None:
        """Puts a sequence behind the others of the row. Raises UserError where the row does not hold it."""
        end = self._at + len(tokens)
        if end > self._length:
            raise UserError(f"a packed row needs {end} {self._name} positions and has {self._length}; group the examples with pack()")
        self._tokens.append(tokens)
        self._slots.append(slots)
        self._segments.append(segment)
        self._starts.append(self._row * self._length + self._at)
        self._at = end

    def end_row(self) -> None:
        """Goes to the next row."""
        self._row, self._at = self._row + 1, 0

    def arrays(self, rows: int, *, pad: int, slots: bool, positions: bool) -> Batch:
        """Tokens, segment ids and, where they are wanted, slots and positions."""
        lengths = np.fromiter(map(len, self._tokens), np.int64, len(self._tokens))
        ends = np.cumsum(lengths)
        within = np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - lengths, lengths)
        self._places = np.repeat(np.array(self._starts, np.int64), lengths) + within
        found = {f"{self._name}_input_tokens": self.laid(self._tokens, rows, np.int32, filler=pad)}
        if slots:
            found[f"{self._name}_prompt_slots"] = self.laid(self._slots, rows, np.int32, filler=TOKEN_SLOT)
        found[f"{self._name}_segment_ids"] = self.laid([np.repeat(np.array(self._segments, np.int32), lengths)], rows, np.int32)
        if positions:
            found[f"{self._name}_positions"] = self.laid([within], rows, np.int32)
        return found

    def laid(self, sequences: list[np.ndarray], rows: int, dtype: Any, *, filler: int = 0) -> np.ndarray:
        """An array that holds these sequences, in the order of `add`, at their places; after `arrays`."""
        array = np.full(rows * self._length, filler, dtype)
        if sequences:
            array[self._places] = np.concatenate(sequences)
        return array.reshape(rows, self._length)
