"""Answer choices in training: which ones an example has, and the arrays that hold them.

An example with answer choices carries `choices`, token ids of each, end token included, the right one first. In a batch the `decoder_`
arrays have an axis for choices; the inputs, which all choices of an example share, stand there once.

Letters: B rows of a batch, C choices, T target length.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from prompt_tuning.data import features
from prompt_tuning.data.features import Batch, Example, PromptLayout
from prompt_tuning.errors import UserError

if TYPE_CHECKING:
    import seqio

Choices = tuple[tuple[int, ...], ...]


class Reader:
    """Reads the choices of a task's rows; each text is tokenized once.

    Args:
      vocabulary: of the targets.
      title: the task's, for errors.
    """

    def __init__(self, vocabulary: "seqio.Vocabulary", *, title: str):
        self._vocabulary, self._title = vocabulary, title
        self._ids: dict[str, tuple[int, ...]] = {}
        self._known: dict[Choices, Choices] = {}

    def __call__(self, row: int, texts: Sequence[str], targets: Sequence[int] | np.ndarray) -> Choices:
        """The choices of a row, the right one first; none where it has no texts of choices. `targets` are the row's token ids.

        Raises UserError, naming the row, where the targets are none of them.
        """
        if not texts:
            return ()
        for text in texts:
            if text not in self._ids:
                self._ids[text] = (*map(int, self._vocabulary.encode(text)), self._vocabulary.eos_id)
        right = tuple(map(int, targets))
        every = tuple(self._ids[text] for text in texts)
        if right not in every:
            shown = self._vocabulary.decode([token for token in right if token != self._vocabulary.eos_id])
            raise UserError(
                f"task {self._title}: the target {shown!r} of example {row} is none of its answer choices "
                f"{list(texts)}; mend the row, or train with experiment.Experiment.choice_losses = None"
            )
        ordered = (right, *(choice for choice in every if choice != right))
        return self._known.setdefault(ordered, ordered)  # Most rows of a task share theirs.


def layout(examples: Sequence[Example], *, num_choices: int, input_length: int, target_length: int, prompt: PromptLayout) -> Batch:
    """`features.layout` with `decoder_` arrays [B, C, T] of C = `num_choices` answer choices, the right one first.

    An example without choices has its targets alone. Places that are left over weigh nothing (`decoder_loss_weights`).
    Raises UserError for more choices than C, or one longer than `target_length`: a choice is never cut.
    """
    rows, counts = [], []
    for example in examples:
        own = example.get("choices") or (example["targets"],)
        if len(own) > num_choices:
            raise UserError(f"an example has {len(own)} answer choices, more than {num_choices}; set losses.ChoiceLosses.num_choices")
        if len(own) > 1 and (longest := max(map(len, own))) > target_length:
            raise UserError(f"an answer choice has {longest} tokens, end token included, more than {target_length}; set TARGET_LENGTH")
        counts.append(len(own))
        # A loss mask is of the targets, which are the right choice.
        other = {name: value for name, value in example.items() if name != "loss_mask"}
        rows += [{**(other if place else example), "targets": own[min(place, len(own) - 1)]} for place in range(num_choices)]
    laid = features.layout(rows, input_length=input_length, target_length=target_length, prompt=prompt)
    batch = {
        name: value.reshape(len(examples), num_choices, -1) if name.startswith("decoder_") else value[::num_choices]
        for name, value in laid.items()
    }
    batch["decoder_loss_weights"] *= (np.arange(num_choices) < np.array(counts)[:, None]).astype(np.float32)[:, :, None]
    return batch
