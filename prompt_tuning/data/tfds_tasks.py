"""GLUE and SuperGLUE rows from TFDS as text-to-text rows; imports TensorFlow and SeqIO, so import it late.

The formats are those of Raffel et al. 2020 (arXiv:1910.10683), appendix D, and of the released T5 code where the appendix is silent.
Each function is a SeqIO preprocessor from TFDS features to `inputs`, `targets`, `answer_choices`, `references` and `group` (see
`text_tasks`).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import seqio
import tensorflow as tf

from prompt_tuning.errors import UserError

NO_LABEL = "<unk>"  # What T5 writes where a test split hides its labels.
Features = Mapping[str, Any]


class TfdsSource(seqio.TfdsDataSource):
    """A TFDS source that says in each row which split it is of, and can draw a small training split.

    Raises UserError when the data can be neither read nor fetched.
    """

    def __init__(self, name: str, *, splits: Mapping[str, str], data_dir: str | None, num_train: int | None, seed: int) -> None:
        super().__init__(name, tfds_data_dir=data_dir, splits=dict(splits))
        self._where = f"TFDS {name} in {data_dir or 'the default data folder'}"
        self._num_train = num_train
        self._draw_seed = seed

    def get_dataset(self, split: str = "train", *args: Any, **settings: Any) -> tf.data.Dataset:
        """The rows of a split, with the field `split` added; in `train` a seeded draw of `num_train` rows where that is set."""
        try:
            dataset = super().get_dataset(split, *args, **settings)
        except Exception as error:  # TFDS raises whatever its downloader, its file system or its checksums raise.
            short = (str(error).splitlines() or [type(error).__name__])[0][:200]
            raise UserError(
                f"{self._where}: cannot be read or fetched: {short}; prepare it with `tfds build` and name its folder"
            ) from error
        if split == "train" and self._num_train is not None:
            dataset = dataset.shuffle(1_000_000, seed=self._draw_seed, reshuffle_each_iteration=False).take(self._num_train)
        return dataset.map(lambda row: {**row, "split": tf.constant(split)}, num_parallel_calls=tf.data.AUTOTUNE)


@seqio.map_over_dataset
def fields(row: Features, benchmark: str, names: Sequence[str], choices: Sequence[str]) -> dict[str, tf.Tensor]:
    """`benchmark name1: text name2: text`, the target being the label's word."""
    parts = [benchmark]
    for name in names:
        parts += [f"{name}:", row[name]]
    return _row(tf.strings.join(parts, separator=" "), _label_word(row["label"], choices), choices=choices)


@seqio.map_over_dataset
def similarity(row: Features) -> dict[str, tf.Tensor]:
    """STS-B: a score from 0 to 5, rounded to the nearest 0.2 and written with one decimal (Raffel et al. 2020, section 2.4)."""
    inputs = tf.strings.join(["stsb sentence1:", row["sentence1"], "sentence2:", row["sentence2"]], separator=" ")
    return _row(inputs, tf.strings.as_string(tf.round(row["label"] * 5) / 5, precision=1))


@seqio.map_over_dataset
def multirc(row: Features, choices: Sequence[str]) -> dict[str, tf.Tensor]:
    """MultiRC: whether an answer is right; without HTML marks. The answers of one question are a group."""
    inputs = tf.strings.join(
        ["multirc question:", row["question"], "answer:", row["answer"], "paragraph:", row["paragraph"]], separator=" "
    )
    inputs = tf.strings.regex_replace(tf.strings.regex_replace(inputs, "<br>", " "), "</?b>", "")
    group = tf.strings.join([tf.strings.as_string(row["idx"]["paragraph"]), tf.strings.as_string(row["idx"]["question"])], separator="-")
    return _row(inputs, _label_word(row["label"], choices), choices=choices, group=group)


def record(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """ReCoRD: which entity fills the gap. In training a row for each right answer; elsewhere one, with all of them as references."""

    def rows(row: Features) -> tf.data.Dataset:
        # The passage ends in bullet points, each behind a line "@highlight".
        passage = tf.strings.regex_replace(row["passage"], r'([.?!"\'])\n@highlight\n', r"\1 ")
        passage = tf.strings.regex_replace(passage, r"\n@highlight\n", ". ")
        entities = tf.strings.reduce_join(row["entities"], separator=", ")
        inputs = tf.strings.join(["record query:", row["query"], "entities:", entities, "passage:", passage], separator=" ")
        answers = row["answers"]
        targets = tf.cond(tf.size(answers) > 0, lambda: answers, lambda: tf.constant([NO_LABEL]))
        targets = tf.cond(tf.equal(row["split"], "train"), lambda: targets, lambda: targets[:1])
        return tf.data.Dataset.from_tensor_slices(targets).map(
            lambda target: _row(inputs, target, choices=row["entities"], references=answers), num_parallel_calls=1
        )

    return dataset.flat_map(rows)


def wsc(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """WSC: the text with its pronoun as `*it*`; the noun it stands for is to be written (Raffel et al. 2020, section 2.4).

    In training only rows whose noun is the right one are kept, for the others do not say what the pronoun stands for. The group is the
    label (`True`: the noun of the row is the right one), which `referent_accuracy` reads.
    """

    def row_of(row: Features) -> dict[str, tf.Tensor]:
        text = tf.numpy_function(_mark_pronoun, [row["text"], row["span2_index"], row["span2_text"]], tf.string, stateful=False)
        text.set_shape([])
        group = _label_word(row["label"], ("False", "True"))
        return _row(tf.strings.join(["wsc:", text], separator=" "), row["span1_text"], group=group)

    kept = dataset.filter(lambda row: tf.not_equal(row["split"], "train") | tf.equal(row["label"], 1))
    return kept.map(row_of, num_parallel_calls=tf.data.AUTOTUNE)


@seqio.map_over_dataset
def without_first_word(row: Features) -> dict[str, tf.Tensor]:
    """Drops the first word of the inputs, the name of the benchmark, as the `taskless` tasks of the released prompt-tuning code do."""
    return {**row, "inputs": tf.strings.regex_replace(row["inputs"], r"^\S+ ", "", replace_global=False)}


def mark_pronoun(text: str, index: int, pronoun: str) -> str:
    """The text, its words parted by single spaces, with stars around the pronoun, which is in word `index` (with punctuation)."""
    words = text.split()
    if not words:
        return text
    place = index if 0 <= index < len(words) else 0
    if pronoun and pronoun in words[place]:
        words[place] = words[place].replace(pronoun, f"*{pronoun}*", 1)
    else:
        words[place] = f"*{words[place]}*"
    return " ".join(words)


def _mark_pronoun(text: bytes, index: int, pronoun: bytes) -> bytes:
    return mark_pronoun(text.decode(), int(index), pronoun.decode()).encode()


def _label_word(label: tf.Tensor, choices: Sequence[str]) -> tf.Tensor:
    # A hidden label is -1: it takes the word before the first.
    return tf.gather(tf.constant([NO_LABEL, *choices]), tf.cast(label, tf.int32) + 1)


def _row(
    inputs: tf.Tensor, targets: tf.Tensor, *, choices: Any = (), references: Any = (), group: tf.Tensor | str = ""
) -> dict[str, tf.Tensor]:
    return {
        "inputs": inputs,
        "targets": targets,
        "answer_choices": tf.convert_to_tensor(choices, tf.string),
        "references": tf.convert_to_tensor(references, tf.string),
        "group": tf.convert_to_tensor(group, tf.string),
    }
