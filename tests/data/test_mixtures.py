"""Streams of training batches: exact resumption, shards, mixing rates, errors."""

import dataclasses
import functools
import itertools
import threading

import numpy as np
import pytest

from prompt_tuning import evaluation
from prompt_tuning.data import features, mixtures, prefetch
from prompt_tuning.data.features import PromptLayout
from prompt_tuning.data.rows import TextRow
from prompt_tuning.errors import UserError
from tests.data.small import BYTES, Numbered

LENGTHS = {"input_length": 16, "target_length": 4}
TWO = mixtures.Mixture((Numbered("a", num_train=5), Numbered("b", num_train=20)))


def batches(source, count, **settings):
    settings = {"vocabulary": BYTES.load, "batch_size": 4, "seed": 1} | LENGTHS | settings
    with mixtures.training_batches(source, **settings) as stream:
        return list(itertools.islice(stream, count))


def texts(batch):
    vocabulary = BYTES.load()
    return [vocabulary.decode(example["inputs"].tolist()) for example in features.unpack(batch)]


def assert_same(left, right):
    assert len(left) == len(right)
    for one, other in zip(left, right, strict=True):
        assert one.keys() == other.keys()
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("source", [Numbered(), TWO], ids=["one", "mixed"])
def test_resuming_gives_the_stream_never_interrupted(source, packed):
    whole = batches(source, 12, packed=packed, prompt=PromptLayout(2))
    for start in (1, 7):
        assert_same(batches(source, 12 - start, start_step=start, packed=packed, prompt=PromptLayout(2)), whole[start:])


def test_resuming_far_into_a_mixture():
    whole = batches(TWO, 1100, batch_size=8)
    assert_same(batches(TWO, 3, batch_size=8, start_step=1097), whole[1097:])


@pytest.mark.parametrize("source", [Numbered(), TWO], ids=["one", "mixed"])
def test_shards_together_are_the_whole(source):
    whole = batches(source, 6, start_step=3)
    shards = [batches(source, 6, start_step=3, shard=(index, 2)) for index in range(2)]
    for step, batch in enumerate(whole):
        assert sorted(texts(batch)) == sorted(texts(shards[0][step]) + texts(shards[1][step]))


def test_an_epoch_holds_every_example_once_and_the_next_is_ordered_anew():
    task = Numbered().tasks(BYTES.load())[0]
    stream = [
        int(BYTES.load().decode(example["targets"].tolist())) for example in itertools.islice(mixtures.tokenized_examples(task, seed=1), 20)
    ]
    assert sorted(stream[:10]) == list(range(10)) == sorted(stream[10:])
    assert stream[:10] != stream[10:]


def test_order_follows_the_seed():
    assert_same(batches(Numbered(), 3), batches(Numbered(), 3))
    assert texts(batches(Numbered(), 1)[0]) != texts(batches(Numbered(), 1, seed=2)[0])


def test_unrepeated_examples_end():
    task = Numbered().tasks(BYTES.load())[0]
    examples = list(mixtures.tokenized_examples(task, repeat=False, shuffle=False, shard=(1, 3)))
    assert [BYTES.load().decode(example["inputs"].tolist()) for example in examples] == ["numbered 1", "numbered 4", "numbered 7"]


def test_rates_by_formula():
    sizes = [100, 900]
    mixture = mixtures.Mixture((Numbered("a"), Numbered("b")))
    np.testing.assert_allclose(mixtures.mixing_rates(mixture, sizes), [0.1, 0.9])

    def rates(**settings):
        return mixtures.mixing_rates(mixtures.Mixture(mixture.sources, **settings), sizes)

    np.testing.assert_allclose(rates(cap=300), [0.25, 0.75])
    np.testing.assert_allclose(rates(temperature=2.0), [0.25, 0.75])
    np.testing.assert_allclose(rates(rates="equal"), [0.5, 0.5])
    np.testing.assert_allclose(rates(rates=(3, 1)), [0.75, 0.25])


def test_weights_are_shared_out_within_a_source():
    inner = mixtures.Mixture((Numbered("a"), Numbered("b")))
    outer = mixtures.Mixture((inner, Numbered("c")), rates=(1.0, 1.0))
    np.testing.assert_allclose(mixtures.mixing_rates(outer, [10, 30, 5]), [0.125, 0.375, 0.5])
    assert outer.task_names == ("a", "b", "c")


def test_the_stream_keeps_the_rates():
    drawn = [text[0] for batch in batches(TWO, 250) for text in texts(batch)]
    assert drawn.count("a") / len(drawn) == pytest.approx(0.2, abs=0.04)


def test_a_mixed_task_is_read_evenly():
    drawn = [text for batch in batches(TWO, 100) for text in texts(batch) if text[0] == "a"]
    counts = [drawn.count(f"a {i}") for i in range(5)]
    assert max(counts) - min(counts) <= 1, "each epoch of a task is whole"


def test_evaluation_examples_keep_texts_and_choices():
    task = Numbered(choices=True).tasks(BYTES.load())[0]
    examples = mixtures.evaluation_examples(task, "validation", 3)
    assert [example["inputs_pretokenized"] for example in examples] == ["numbered 0", "numbered 1", "numbered 2"]
    assert [example["targets_pretokenized"] for example in examples] == ["0", "1", "0"]
    assert examples[0]["answer_choices"] == ("0", "1")
    assert examples[0]["references"] is None
    assert examples[0]["inputs"][-1] == examples[0]["targets"][-1] == features.EOS_ID
    assert len(mixtures.evaluation_examples(task, "validation")) == 4
    free = Numbered().tasks(BYTES.load())[0]
    assert mixtures.evaluation_examples(free, "validation")[0]["answer_choices"] is None


def test_tasks_are_registered_once_under_a_hash_of_their_settings():
    import seqio

    first, again, other = (source.tasks(BYTES.load())[0] for source in (Numbered(), Numbered(), Numbered(num_train=11)))
    assert first is again
    assert first.name != other.name
    assert seqio.TaskRegistry.get(first.name) is first
    assert first.title == "numbered"


def test_the_task_is_whole_in_seqio_itself():
    import seqio

    task = Numbered().tasks(BYTES.load())[0]
    dataset = task.get_dataset({"inputs": 5, "targets": 4}, split="validation", shuffle=False)
    example = next(dataset.as_numpy_iterator())
    assert example["inputs"].tolist()[-1] == 1, "EOS stands after the cut"
    assert len(example["inputs"]) == 5
    batch = next(seqio.EncDecFeatureConverter(pack=False)(dataset, {"inputs": 5, "targets": 4}).as_numpy_iterator())
    assert batch["encoder_input_tokens"].shape == (5,)


def test_empty_split_names_task_and_split():
    task = Numbered(num_validation=0).tasks(BYTES.load())[0]
    with pytest.raises(UserError, match="numbered.*'validation'"):
        mixtures.evaluation_examples(task, "validation")
    with pytest.raises(UserError, match="numbered.*'train'"):
        batches(Numbered(num_train=0), 1)
    with pytest.raises(UserError, match="no split 'test'.*train, validation"):
        mixtures.evaluation_examples(task, "test")


def test_bad_settings_are_refused():
    for settings, message in (
        ({"sources": ()}, "at least one source"),
        ({"rates": (1.0, 2.0)}, "one weight"),
        ({"rates": "most"}, "'most'"),
        ({"cap": 0}, "cap"),
        ({"temperature": 0.0}, "temperature"),
    ):
        with pytest.raises(UserError, match=message):
            mixtures.Mixture(**({"sources": (Numbered(),)} | settings))
    with pytest.raises(UserError, match="multiple of 3"):
        mixtures.training_batches(Numbered(), vocabulary=BYTES.load, batch_size=4, shard=(0, 3), **LENGTHS)
    with pytest.raises(UserError, match="without end"):
        mixtures.mixing_rates(mixtures.Mixture((Numbered("a"), Numbered("b"))), [None, 3])


def test_errors_of_the_thread_are_raised_where_batches_are_read():
    def broken():
        yield {"x": np.zeros(1)}
        raise UserError("the second is broken")

    stream = prefetch.Prefetched(broken)
    next(stream)
    with pytest.raises(UserError, match="second"):
        next(stream)
    with pytest.raises(StopIteration):
        next(stream)


def test_closing_ends_the_thread():
    before = threading.active_count()
    stream = prefetch.Prefetched(lambda: ({"x": np.full(1, i)} for i in itertools.count()), size=2)
    assert [int(next(stream)["x"][0]) for _ in range(5)] == [0, 1, 2, 3, 4]
    stream.close()
    assert threading.active_count() == before
    with pytest.raises(StopIteration):
        next(stream)


def test_a_finite_stream_ends():
    assert [int(item["x"][0]) for item in prefetch.Prefetched(lambda: iter([{"x": np.full(1, i)} for i in range(3)]))] == [0, 1, 2]


@dataclasses.dataclass(frozen=True)
class EvaluatedOnly:
    """A task without a training split."""

    name: str = "held_out"

    @property
    def task_names(self):
        return (self.name,)

    def tasks(self, vocabulary):
        from prompt_tuning.data import text_tasks

        source = functools.partial(text_tasks.rows_source, lambda split: [TextRow("q", "a")], ("validation",))
        return [text_tasks.register(self.name, settings=self, vocabulary=vocabulary, source=source, metric_names=("accuracy",))]


@pytest.mark.parametrize("rates", ["proportional", "equal", (1.0, 2.0, 1.0), (1.0, 0.0, 3.0)])
def test_a_task_without_a_training_split_is_never_drawn(rates):
    mixture = mixtures.Mixture((Numbered("a", num_train=5), EvaluatedOnly(), Numbered("b", num_train=20)), rates=rates)
    drawn = [text[0] for batch in batches(mixture, 20) for text in texts(batch)]
    assert set(drawn) == {"a", "b"}
    settings = evaluation.Evaluation(split="validation")
    lengths = evaluation.Lengths(input_length=8, target_length=4)
    found = evaluation.task_examples(mixture, BYTES.load(), settings=settings, lengths=lengths)
    assert [task.name for task in found] == ["a", "held_out", "b"]
    train = evaluation.task_examples(mixture, BYTES.load(), settings=dataclasses.replace(settings, split="train"), lengths=lengths)
    assert [task.name for task in train] == ["a", "b"]
    with pytest.raises(UserError, match="task held_out has no split 'train'; it has validation"):
        batches(EvaluatedOnly(), 1)
