"""Held-out clusters take everything along that shares their data."""

import dataclasses
import itertools
import json
import pathlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prompt_tuning import evaluation
from prompt_tuning.data import mixtures, provenance
from prompt_tuning.data.instructions.super_natural import SuperNaturalInstructions
from prompt_tuning.data.mixtures import Mixture
from prompt_tuning.data.provenance import DATASETS, RELATED, HeldOut, Provenance
from prompt_tuning.data.tasks.glue import Glue
from prompt_tuning.data.tasks.instructions import Instructions
from prompt_tuning.data.tasks.superglue import SuperGlue
from prompt_tuning.data.tasks.world import World
from prompt_tuning.data.vocabularies import SentencePiece
from prompt_tuning.errors import UserError


@dataclasses.dataclass(frozen=True)
class Named:
    """A source of names alone."""

    names: tuple[str, ...]

    @property
    def task_names(self) -> tuple[str, ...]:
        return self.names

    def tasks(self, vocabulary: object) -> list:
        return [f"{name}!" for name in self.names]


FLAN = Mixture(tuple(Named((name,)) for name in DATASETS), rates="equal")


def test_related_clusters_and_shared_sources_are_left_out_with_their_reasons() -> None:
    held = HeldOut(FLAN, ("reading_comprehension",), part="training")
    reasons = held.left_out()
    assert reasons["squad"] == "of cluster reading_comprehension"
    assert reasons["record"] == "of cluster reading_comprehension_with_commonsense, related to reading_comprehension"
    assert reasons["qnli"] == "shares squad with squad"
    assert reasons["nq_open"] == "shares natural_questions with boolq"
    assert "mnli" not in reasons and "xsum" not in reasons
    assert set(held.task_names) | set(reasons) == set(FLAN.task_names) and not set(held.task_names) & set(reasons)
    evaluated = HeldOut(FLAN, ("reading_comprehension",), part="held_out")
    assert evaluated.task_names == ("boolq", "drop", "multirc", "openbookqa", "squad")


def test_paraphrase_and_inference_are_left_out_for_each_other() -> None:
    for one, other in (("nli", "mrpc"), ("paraphrase", "rte")):
        assert other in HeldOut(FLAN, (one,)).left_out()
        assert other not in HeldOut(FLAN, (one,), related=()).left_out()


@settings(max_examples=40, deadline=None)
@given(st.sets(st.sampled_from(sorted({each.cluster for each in DATASETS.values()})), min_size=1, max_size=4))
def test_nothing_that_is_trained_on_shares_cluster_relation_or_source_with_what_is_held_out(clusters: set[str]) -> None:
    named = tuple(sorted(clusters))
    trained = HeldOut(FLAN, named, part="training").task_names
    evaluated = HeldOut(FLAN, named, part="held_out").task_names
    assert {DATASETS[name].cluster for name in evaluated} == clusters
    apart = {DATASETS[name].cluster for name in evaluated} | {other for pair in RELATED if clusters & set(pair) for other in pair}
    sources = {source for name in evaluated for source in DATASETS[name].sources}
    for name in trained:
        assert DATASETS[name].cluster not in apart and not sources & set(DATASETS[name].sources)


def test_what_is_left_of_a_mixture_is_mixed_as_before() -> None:
    inner = Mixture((Named(("sst2", "squad")), Named(("cola",))), cap=10)
    whole = Mixture((inner, Named(("qnli",)), Named(("trec", "imdb"))), rates=(1.0, 5.0, 3.0))
    held = HeldOut(whole, ("reading_comprehension",), part="training")
    assert held.task_names == ("sst2", "cola", "trec", "imdb")
    assert held.tasks(None) == ["sst2!", "cola!", "trec!", "imdb!"]  # type: ignore[arg-type]
    wanted = np.array([1 / 4 * 10 / 15, 1 / 4 * 5 / 15, 3 / 4 * 20 / 50, 3 / 4 * 30 / 50])
    np.testing.assert_allclose(mixtures.mixing_rates(held, [100, 5, 20, 30]), wanted)
    outer = Mixture((held, Named(("xsum",))), rates=(1.0, 1.0))
    np.testing.assert_allclose(mixtures.mixing_rates(outer, [100, 5, 20, 30, 7]), [*wanted / 2, 0.5])


def test_the_sources_of_this_package_say_where_they_are_from() -> None:
    held = HeldOut(Mixture((Glue("sst2"), Glue("rte"), SuperGlue("boolq"), SuperGlue("rte"))), ("nli",), part="training")
    assert held.task_names == ("glue_sst2", "super_glue_boolq")
    world = World(clusters=("sentiment", "words"))
    held_world = HeldOut(world, ("sentiment",), part="training")
    assert set(held_world.task_names) == set(World(clusters=("words",)).task_names)
    (name, *_) = held_world.task_names
    assert held_world.tasks(SentencePiece().load())[0].title == name


def test_one_source_trains_on_the_rest_and_evaluates_what_is_held_out() -> None:
    world = World(clusters=("sentiment", "words"), num_train=20, num_validation=4)
    held = HeldOut(world, ("sentiment",))
    vocabulary = SentencePiece().load()
    by_name = dict(zip(held.task_names, held.tasks(vocabulary), strict=True))
    assert set(by_name) == set(world.task_names)
    for name, task in by_name.items():
        assert ("train" in task.splits) == (name in World(clusters=("words",)).task_names) != ("validation" in task.splits)
    drawn = mixtures.mixed_examples(held, vocabulary=vocabulary, seed=0, input_length=64, target_length=16)
    trained_on = {held.task_names[example["task"]] for example in itertools.islice(drawn, 200)}
    assert trained_on == set(World(clusters=("words",)).task_names)
    lengths = evaluation.Lengths(64, 16)
    evaluated = evaluation.task_examples(held, vocabulary, settings=evaluation.Evaluation(), lengths=lengths)
    assert {task.name for task in evaluated} == set(World(clusters=("sentiment",)).task_names)
    assert held.tasks(vocabulary)[0] is held.tasks(vocabulary)[0]


def test_tasks_of_super_natural_instructions_say_where_they_are_from(tmp_path: pathlib.Path) -> None:
    def written(name: str, category: str, *sources: str) -> str:
        task = {"Definition": ["Answer."], "Categories": [category], "Source": list(sources), "Input_language": ["English"]}
        task |= {"Output_language": ["French"], "Positive Examples": [], "Negative Examples": []}
        task["Instances"] = [{"id": f"{name}-0", "input": "a", "output": ["b"]}]
        (tmp_path / f"{name}.json").write_text(json.dumps(task))
        return str(tmp_path / f"{name}.json")

    files = (
        written("task1_questions", "Question Answering", "quoref"),
        written("task2_titles", "Title Generation", "Quoref", "news"),
        written("task3_words", "Word Analogy", "bard"),
    )
    source = Instructions("sni", SuperNaturalInstructions(), train_files=files, by_file=True)
    assert source.provenance[1] == Provenance("title generation", ("quoref", "news"), ("english", "french"))
    held = HeldOut(source, ("question answering",), part="training")
    assert held.left_out() == {
        "sni_task1_questions": "of cluster question answering",
        "sni_task2_titles": "shares quoref with sni_task1_questions",
    }
    assert held.task_names == ("sni_task3_words",)
    with pytest.raises(UserError, match="does not say where it is from"):
        HeldOut(Instructions("mine", "alpaca", train_files=files[:1]), ("nli",))


def test_a_task_of_unknown_origin_must_be_told() -> None:
    with pytest.raises(UserError, match="task mine_1 does not say where it is from; add .*HeldOut.known"):
        HeldOut(Named(("mine_1", "sst2")), ("sentiment",))
    held = HeldOut(Named(("mine_1", "mine_2", "sst2")), ("nli",), known=(("mine_*", "nli", ("my_corpus",)),), part="held_out")
    assert held.task_names == ("mine_1", "mine_2")
    assert provenance.DATASETS["wmt16_en_de"] == Provenance("translation", ("wmt16", "wmt16_en_de"), ("en", "de"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"clusters": ("nothing",)}, "no task is of cluster 'nothing'; wanted some of nli, sentiment"),
        ({"clusters": ("nli", "sentiment")}, "nothing is left to train on without the clusters nli, sentiment"),
        ({"clusters": ("nli",), "part": "test"}, "HeldOut.part: wanted"),
    ],
)
def test_settings_that_fit_nothing_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        HeldOut(Named(("sst2", "rte")), **settings)
