"""SeqIO draws from a registered mixture what the source's own training draws."""

import collections
import itertools
import uuid

import pytest
import seqio

from prompt_tuning.data import mixtures, seqio_mixtures
from prompt_tuning.data.provenance import HeldOut
from prompt_tuning.data.tasks.world import World
from prompt_tuning.data.vocabularies import SentencePiece
from prompt_tuning.errors import UserError

SMALL = World(task_list=("sentiment_review",), num_train=30)
LARGE = World(task_list=("word_reverse", "story_title"), num_train=120)
DRAWN = 1200


LENGTHS = {"inputs": 64, "targets": 32}


def inputs_of(task_or_mixture, **settings):
    dataset = task_or_mixture.get_dataset(LENGTHS, split="train", shuffle=False, **settings)
    return (tuple(map(int, example["inputs"])) for example in dataset.as_numpy_iterator())


@pytest.mark.parametrize("cap", [None, 60])
def test_rates_and_examples_are_those_of_the_source(cap):
    source = mixtures.Mixture((SMALL, LARGE), cap=cap)
    vocabulary = SentencePiece().load()
    name = f"mixture_{uuid.uuid4().hex}"
    made = seqio_mixtures.register(name, source, vocabulary)
    assert seqio.get_mixture_or_task(name) is made
    tasks = source.tasks(vocabulary)
    sizes = [30, min(120, cap or 120), min(120, cap or 120)]
    wanted = [size / sum(sizes) for size in sizes]
    rates = [made.get_rate(seqio.TaskRegistry.get(task.seqio.name)) for task in tasks]
    assert [rate / sum(rates) for rate in rates] == pytest.approx(wanted)
    task_of = {inputs: number for number, task in enumerate(tasks) for inputs in inputs_of(task.seqio)}
    counts = collections.Counter(task_of[inputs] for inputs in itertools.islice(inputs_of(made, num_epochs=None), DRAWN))
    for number, share in enumerate(wanted):  # Within five standard deviations.
        assert abs(counts[number] - DRAWN * share) < 5 * (DRAWN * share * (1 - share)) ** 0.5


def test_what_is_held_out_is_no_part_of_it():
    world = World(clusters=("words", "sentiment"), num_train=10)
    vocabulary = SentencePiece().load()
    made = seqio_mixtures.register(f"mixture_{uuid.uuid4().hex}", HeldOut(source=world, clusters=("words",)), vocabulary)
    titles = {task.name.rpartition("_")[0] for task in made.tasks}
    assert titles == set(World(clusters=("sentiment",)).task_names)


def test_a_name_that_is_taken_is_refused():
    name, vocabulary = f"mixture_{uuid.uuid4().hex}", SentencePiece().load()
    seqio_mixtures.register(name, SMALL, vocabulary)
    with pytest.raises(UserError, match=f"{name}: SeqIO knows"):
        seqio_mixtures.register(name, LARGE, vocabulary)
