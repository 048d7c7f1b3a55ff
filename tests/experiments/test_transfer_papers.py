"""The papers on transfer, forgetting, waywardness and recycling: what their runs, measures and figures are made of."""

import collections
import csv
import dataclasses
import json
import math
import pathlib
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import neighbors

from experiments import mini, points
from experiments.attempt2022 import sweep as attempt
from experiments.khashabi2022 import projection
from experiments.khashabi2022 import sweep as khashabi
from experiments.lester2022 import recycling
from experiments.lester2022 import sweep as lester
from experiments.mpt2023 import sources
from experiments.mpt2023 import sweep as mpt
from experiments.spot2022 import sweep as spot
from experiments.vu2022b import conclusions
from experiments.vu2022b import sweep as vu
from paper_figures import drawing, paired, results
from paper_figures.papers import attempt2022, khashabi2022, lester2022, mpt2023, spot2022, vu2022b
from prompt_tuning import cli
from prompt_tuning.data.world import catalogue, tavi
from prompt_tuning.data.world.clusters import arithmetic_frames, ordering, sentiment_lexicon, words_lexicon
from prompt_tuning.errors import UserError
from prompt_tuning.methods import transfer
from prompt_tuning.methods.wayward import AnchoredRows
from tests.shared import shared_path

RNG = np.random.default_rng(0)
SWEEPS = {"spot2022": spot, "attempt2022": attempt, "mpt2023": mpt, "vu2022b": vu, "khashabi2022": khashabi, "lester2022": lester}
FIGURES = {
    "spot2022": spot2022, "attempt2022": attempt2022, "mpt2023": mpt2023, "vu2022b": vu2022b, "khashabi2022": khashabi2022,
    "lester2022": lester2022,
}  # fmt: skip
LANGUAGES = ("english", "tavi")


# The runs.


def test_no_target_is_a_source_and_each_has_a_source_of_its_cluster():
    assert not set(spot.SOURCES) & set(spot.TARGETS)
    of = {name: catalogue.task(name).cluster for name in (*spot.SOURCES, *spot.TARGETS)}
    assert {of[target] for target in spot.TARGETS} < {of[name] for name in spot.SOURCES}
    assert len({of[target] for target in spot.TARGETS}) == len(spot.TARGETS)


def test_prompts_that_a_run_begins_from_are_those_of_runs_before_it(tmp_path):
    for paper in (spot, attempt, mpt):
        for point in points.with_needed(paper.every()):
            told = " ".join(point.text(tmp_path))
            named = set(re.findall(r"'([^']*)/prompt\.npy'", told))
            assert named <= {str(tmp_path / before.name) for before in point.after.values()}
            assert "{" not in told.replace("{}", "")


def test_teachers_are_in_the_order_of_the_source_tasks(tmp_path):
    loaded = points.experiment(mpt.shared(taught=True), tmp_path)
    assert loaded.data.task_names == spot.SOURCES
    assert [pathlib.Path(path).parent.name for path in loaded.method.teachers] == [spot.source(name).name for name in spot.SOURCES]
    assert loaded.method.tasks == len(spot.SOURCES)


def test_targets_have_as_many_examples_and_steps_together_as_alone(tmp_path):
    task, seed = spot.TARGETS[0], 1
    alone = [spot.scratch(task, seed), attempt.alone(task, seed), mpt.alone(task, seed)]
    ways = {name: points.experiment(point, tmp_path) for name, point in zip("abc", alone, strict=True)}
    for point in (attempt.together(seed), mpt.together(seed)):
        together = points.experiment(point, tmp_path)
        assert together.data.task_names == spot.TARGETS and together.method.tasks == len(spot.TARGETS)
        for each in ways.values():
            assert each.data.num_train == together.data.num_train == 64
            assert each.train_steps * len(spot.TARGETS) == together.train_steps and each.batch_size == together.batch_size


@pytest.mark.parametrize("which", khashabi.TEXTS)
@pytest.mark.parametrize("task", khashabi.TASKS)
def test_texts_are_as_long_as_a_prompt(task, which, tmp_path):
    loaded = points.experiment(khashabi.wayward(khashabi.BASE, task, 0, which=which), tmp_path)
    assert len(loaded.vocabulary.load().encode(khashabi.text(task, which))) >= loaded.method.length == 20


def test_a_recycled_prompt_is_of_one_base_and_runs_on_the_other(tmp_path):
    for source, target in lester.PAIRS:
        point = lester.recycled(source, target, "linear", lester.TASKS[0], 0)
        assert not point.trained and lester.tuned(source, lester.TASKS[0], 0).config == point.after["source"].config
        bases = [points.experiment(each, tmp_path).base_checkpoint for each in (point, point.after["source"])]
        assert bases[0] != bases[1]
        assert bases[0] == points.experiment(lester.tuned(target, lester.TASKS[0], 0), tmp_path).base_checkpoint
        assert bases[0] == points.experiment(lester.untuned(target, lester.TASKS[0]), tmp_path).base_checkpoint


# Conclusions in two languages.


def rows(name, language, count=40):
    return conclusions.text_rows(name, conclusions.Conclusions(language=language, num_test=count), "test")


def higher(text, language):
    """Who has more of which quality than whom, of each sentence that compares two."""
    if language == "tavi":
        words = {form: word for word, form in ordering.TAVI.dictionary.items()}
        found = re.findall(r"es (\w+) zo (\w+) da (\w+)", text, re.IGNORECASE)
        return [(words[quality], one, other) for one, quality, other in found]
    plain = {side[1]: side[0] for found in ordering.QUALITIES.values() for quality in found for side in (quality.up, quality.down)}
    return [(plain[more], one, other) for one, more, other in re.findall(r"(\w+) is (\w+) than (\w+)", text) if more in plain]


@pytest.mark.parametrize("language", LANGUAGES)
def test_who_is_concluded_to_be_most_follows_from_the_text(language):
    opposite = {}
    for quality in (quality for found in ordering.QUALITIES.values() for quality in found):
        opposite |= {quality.up[0]: quality.down[0], quality.down[0]: quality.up[0]}
    most = {side[2]: side[0] for found in ordering.QUALITIES.values() for quality in found for side in (quality.up, quality.down)}
    words = {form: word for word, form in ordering.TAVI.dictionary.items()}
    for row in rows("conclude_order", language):
        if language == "tavi":
            name, form = re.fullmatch(r"Es (\w+) zozo (\w+)\.", row.targets).groups()
            asked = words[form]
            assert f"Es zozo {form} kai?" in row.inputs
        else:
            name, said = re.fullmatch(r"(\w+) is the (\w+) of all\.", row.targets).groups()
            asked = most[said]
        above = [(one, other) if quality == asked else (other, one) for quality, one, other in higher(row.inputs, language)]
        assert len(above) == 2 and {quality for quality, _, _ in higher(row.inputs, language)} <= {asked, opposite[asked]}
        assert name not in {other for _, other in above} and name in {one for one, _ in above}


def test_who_is_concluded_to_have_more_does_in_tavi():
    numbers = {
        form: words_lexicon.NUMBERS.index(word) for word, form in arithmetic_frames.TAVI.dictionary.items() if word in words_lexicon.NUMBERS
    }
    have = arithmetic_frames.TAVI.word("have").capitalize()
    for row in rows("conclude_number", "tavi"):
        has = {name: numbers[number] for name, number in re.findall(rf"{have} (\w+) \w+ (\w+)\.", row.inputs)}
        more, fewer = re.fullmatch(rf"{have} (\w+) zo da (\w+)\.", row.targets).groups()
        assert set(has) == {more, fewer} and has[more] > has[fewer]


def test_what_is_concluded_to_be_better_is_praised_in_tavi():
    words = {form: word for word, form in sentiment_lexicon.TAVI.dictionary.items()}
    good = set(sentiment_lexicon.TAVI_WORDS["in"].good)
    for row in rows("conclude_liking", "tavi"):
        better, worse = re.fullmatch(r"Es (\w+) zo \w+ da (\w+)\.", row.targets).groups()
        for negated, item, word in re.findall(r"(ne )?es (\w+) (\w+)\.", row.inputs.lower()):
            praised = (words[word] in good) != bool(negated)
            assert praised == (item == better) and item in (better, worse)


@pytest.mark.parametrize("name", ["conclude_order", "conclude_liking", "conclude_number"])
def test_answers_are_in_the_language_of_the_text(name):
    for language, share in (("english", 0.0), ("tavi", 1.0)):
        assert {conclusions.tavi_share(row.targets) for row in rows(name, language)} == {share}
        assert all(abs(conclusions.tavi_share(row.inputs) - share) < 0.5 for row in rows(name, language))


def test_no_row_is_cut(tmp_path):
    loaded = points.experiment(vu.point(vu.BASES[0], "prompt", 0), tmp_path)
    vocabulary = loaded.vocabulary.load()
    for language in LANGUAGES:
        for name in conclusions.Conclusions().task_names:
            for row in rows(name, language, 200):
                assert len(vocabulary.encode(row.inputs)) < loaded.input_length
                assert len(vocabulary.encode(row.targets)) < loaded.target_length


def test_a_language_that_is_not_there_is_refused():
    with pytest.raises(UserError, match="Conclusions.language: wanted 'english' or 'tavi', got 'thai'"):
        conclusions.Conclusions(language="thai")


@given(
    st.lists(st.sampled_from(sorted({*tavi.FUNCTION_WORDS.values(), *ordering.TAVI.dictionary.values()}))),
    st.lists(st.sampled_from(["the", "was", "than"])),
)
def test_the_share_of_tavi_counts_words_and_no_names(spoken, english):
    found = conclusions.tavi_share(" ".join(["Mara", *spoken, "Tom", *english]))
    assert found == pytest.approx(len(spoken) / max(1, len(spoken) + len(english)))


def test_what_was_written_is_measured_by_task_and_test(tmp_path):
    point = vu.point(vu.BASES[0], "prompt", 0)
    for test, texts in (("english", ["Mara is the tallest."]), ("tavi", ["Es Mara zozo zo.", "Mara is tall."])):
        lines = [json.dumps({"task": "conclude_order", "prediction": text}) for text in texts]
        (tmp_path / f"test-{test}-predictions.jsonl").write_text("\n".join(lines))
    assert vu.spoken(point, None, tmp_path) == {"conclude_order": {"tavi_share_english": 0.0, "tavi_share_tavi": 0.5}}


# Projections, retrieval, recycling.


def test_nearest_tokens_are_those_of_scikit_learn():
    table, prompt = RNG.normal(size=(50, 6)), RNG.normal(size=(9, 6))
    wanted = neighbors.NearestNeighbors(n_neighbors=1).fit(table).kneighbors(prompt, return_distance=False)[:, 0]
    np.testing.assert_array_equal(projection.nearest_tokens(prompt, table), wanted)


def test_rows_of_the_table_project_to_themselves():
    table = RNG.normal(size=(50, 6))
    ids = [3, 3, 49, 0]
    assert projection.token_f1(projection.nearest_tokens(table[ids], table), ids) == 1


@given(st.lists(st.integers(0, 5), min_size=1), st.lists(st.integers(0, 5), min_size=1))
def test_f1_is_the_harmonic_mean_of_precision_and_recall(found, wanted):
    common = sum(min(found.count(token), wanted.count(token)) for token in set(found))
    precision, recall = common / len(found), common / len(wanted)
    harmonic = 2 * precision * recall / (precision + recall) if common else 0.0
    assert projection.token_f1(found, wanted) == pytest.approx(harmonic)


def test_distance_is_what_the_penalty_is_of():
    anchor, moved = (RNG.normal(size=(4, 6)).astype(np.float32) for _ in range(2))
    rows = AnchoredRows(anchor, gamma=0.5)
    rows.rows.set_value(moved)
    # float32 against float64.
    assert 0.5 * projection.squared_distance(moved, anchor) == pytest.approx(float(rows.penalty(None, None, None)), rel=1e-6)


def test_retrieval_takes_the_most_similar_weighted_by_similarity(tmp_path):
    rng = np.random.default_rng(1)
    target = rng.normal(size=(3, 5))
    near, nearer, against = target + 0.4 * rng.normal(size=(3, 5)), target + 0.1 * rng.normal(size=(3, 5)), -target
    paths = {}
    for name, prompt in {"target": target, "near": near, "nearer": nearer, "against": against}.items():
        paths[name] = str(tmp_path / f"{name}.npy")
        np.save(paths[name], prompt.astype(np.float32))
    table = np.zeros((7, 5), np.float32)

    def begun(top, names=("near", "nearer", "against")):
        return transfer.Retrieved(paths["target"], tuple(paths[name] for name in names), top)(None, 3, table, None)

    np.testing.assert_allclose(begun(1), nearer, rtol=1e-6)
    weights = np.array([transfer.similarity(target, each) for each in (nearer, near)])
    assert weights[0] > weights[1] > 0
    wanted = (weights[0] * nearer + weights[1] * near) / weights.sum()
    np.testing.assert_allclose(begun(2), wanted, rtol=1e-5)  # The files hold float32.
    np.testing.assert_allclose(begun(3), wanted, rtol=1e-5)  # What is against it weighs nothing.
    np.testing.assert_allclose(begun(1, ("against",)), against, rtol=1e-6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "Retrieved: wanted .npy files"),
        ({"target": "a.npy"}, "Retrieved: wanted .npy files"),
        ({"target": "a.npy", "paths": ("b.npy",)}, "Retrieved.top: wanted 1 to 1, the number of sources, got 3"),
        ({"target": "a.npy", "paths": "b.npy", "top": 0}, "Retrieved.top: wanted 1 to 1"),
    ],
)
def test_retrieval_without_what_it_needs_is_refused(settings, message):
    with pytest.raises(UserError, match=re.escape(message)):
        transfer.Retrieved(**settings)


def test_a_prompt_recycled_for_its_own_base_stays_and_is_scored_there(tmp_path):
    few = {"NUM_TRAIN": "8", "NUM_VALIDATION": "4", "TRAIN_STEPS": "1"}
    source = mini.point("t5_nano", "prompt", "sentiment_review", 0, bindings=few)
    point = mini.point(
        "t5_nano", "prompt", "sentiment_review", 0, factors={"by": "linear"}, bindings=few, after={"source": source}, tests={}
    )
    loaded = points.experiment(point, tmp_path)
    loaded = dataclasses.replace(loaded, data=dataclasses.replace(loaded.data, num_test=8))
    table = recycling.embedding(loaded)
    prompt = table[RNG.integers(0, len(table), 20)] + RNG.normal(size=(20, table.shape[1]))
    (tmp_path / source.name).mkdir()
    np.save(tmp_path / source.name / "prompt.npy", prompt.astype(np.float32))
    found = recycling.scores(point, loaded, tmp_path / point.name, by="linear")
    # Least squares over 2,048 rows in float64, kept in float32.
    np.testing.assert_allclose(np.load(tmp_path / point.name / "prompt.npy"), prompt, rtol=1e-3, atol=1e-3)
    assert set(found) == {"sentiment_review"} and 0 <= found["sentiment_review"]["accuracy"] <= 1


# The papers' own scale.


def test_six_sources_of_mpt_are_those_of_attempt():
    mixture = sources.mixture(cap=10)
    assert mixture.task_names == ("glue_mnli", "glue_qnli", "glue_qqp", "glue_sst2", "squad", "super_glue_record") and mixture.cap == 10


def test_files_of_the_papers_scale_say_what_was_read(tmp_path):
    base = ["BASE_CHECKPOINT = 'base'", "VOCABULARY = 'spiece.model'"]
    prompt = "configs/methods/prompt.gin"
    model = "configs/models/t5_1_1_lm100k_base.gin"
    source = cli.load_experiment([model, prompt, "configs/data/mnli.gin", "configs/papers/spot2022/source.gin"], base)
    assert (source.train_steps, source.batch_size, source.method.length) == (2**18, 32, 100)
    released = [
        "configs/models/t5_base.gin",
        "configs/methods/attempt.gin",
        "configs/data/mrpc.gin",
        "configs/papers/attempt2022/target.gin",
    ]
    target = cli.load_experiment(released, [*base, "SOURCE_PROMPTS = ['a.npy']"])
    assert (target.optimizer.learning_rate, target.schedule.warmup_steps, target.input_length) == (0.3, 500, 256)
    assert target.train_steps == math.ceil(20 * 3668 / 32)
    taught = ["configs/models/t5_base.gin", "configs/methods/mpt.gin", "configs/papers/mpt2023/source.gin"]
    assert cli.load_experiment(taught, base).method.tasks == len(sources.mixture().task_names)
    wayward = [model, "configs/methods/wayward.gin", "configs/data/sst2.gin", "configs/papers/khashabi2022/wayward.gin"]
    assert cli.load_experiment(wayward, base).method.gamma == 0.01


# Figures and claims.


@pytest.mark.parametrize(
    "name",
    ["spot2022_table6_task_transfer", "spot2022_table1_source_mixtures", "mpt_attempt_spot_glue_superglue_t5base", "abstract_level_claims"],
)
def test_printed_values_are_those_that_were_read(name):
    with shared_path(f"published/{name}.csv").open(encoding="utf-8", newline="") as file:
        there = list(csv.DictReader(file))
    assert results.published(name) and all(dict(row) in there for row in results.published(name))


def test_differences_are_of_what_was_run_for_both():
    first = {("a", 0): 0.5, ("a", 1): 0.7, ("b", 0): 0.1}
    second = {("a", 0): 0.4, ("a", 1): 0.4, ("c", 0): 0.9}
    found = paired.difference(first, second)
    assert found.runs == 2 and found.value == pytest.approx(0.2)
    assert paired.difference(first, second, margin=1.0).value == pytest.approx(1.2)
    assert paired.difference(first, {}) is None
    assert paired.mean([first, second]) == pytest.approx({("a", 0): 0.45, ("a", 1): 0.55})
    assert paired.every_seed({("a", 0): 0.5}, (0, 1)) == {("a", 0): 0.5, ("a", 1): 0.5}
    with pytest.raises(ValueError, match="two rows of task a and seed 0"):
        paired.values([{"task": "a", "seed": "0", "value": "1"}] * 2)


def made(paper, score):
    """Rows as all runs of a paper would leave them; `score` is of a row without its value."""
    found = []
    for point in SWEEPS[paper].every():
        factors = {name: str(value) for name, value in point.factors.items()}
        on = factors["trained_on"]
        if paper == "vu2022b":
            tasks = conclusions.Conclusions().task_names
        else:
            tasks = {f"mixture_of_{len(spot.SOURCES)}": spot.SOURCES, "mixture_of_3": spot.TARGETS}.get(on, (on,))
        for test in (*point.tests, *point.measures):
            named = {
                "similarity": (spot.SOURCES, ("mean_rows", "pairs_of_rows")),
                "projection": (tasks, ("token_f1", "squared_distance")),
                "spoken": (tasks, ("tavi_share_english", "tavi_share_tavi")),
            }.get(test, (tasks, ("rougeL", "exact_match") if paper == "vu2022b" else ("accuracy", "f1_macro")))
            for task in named[0]:
                for metric in named[1]:
                    row = {**factors, "test": test, "task": task, "metric": metric, "trained_parameters": "320"}
                    found.append({**row, "value": str(score(collections.defaultdict(str, row)))})
    return tuple(found)


def size(row):
    return mini.BASES.index(row["base"])


def claimed(paper, row):
    """Scores of a world in which all that the papers say is so."""
    jitter = 0.001 * int(row["seed"])
    if paper == "spot2022":
        rank = {name: place for place, name in enumerate((*spot.SOURCES, "mixed", f"top_{spot.TOP}"))}
        return (0.1 * rank[row["task"]] if row["test"] == "similarity" else 0.3 + 0.05 * (rank.get(row["source"], -1) + 1)) + jitter
    if paper in ("attempt2022", "mpt2023"):
        together = row["trained_on"].startswith("mixture")
        alone = {"prompt": 0.3, "full": 0.4, "attempt": 0.5, "mpt": 0.6 if row["taught"] == "yes" else 0.55}
        return alone[row["method"]] + 0.02 * together
    if paper == "khashabi2022":
        held = row["method"] == "wayward"
        if row["metric"] == "token_f1":
            return 0.9 if float(row["gamma"]) > 0 else 0.2
        # By more than the margin of a claim, so that the mirror is beyond it.
        return 0.5 + jitter + (0.05 * (1 + size(row)) + 0.05 * (row["text"] == "other") if held else 0.0)
    if paper == "lester2022":
        return 0.3 if row["as_it_is"] else 0.5 if row["by"] else 0.7
    length = int(row["length"] or 1000)
    if row["metric"].startswith("tavi_share"):
        return 0.9 - 0.1 * np.log10(length)
    if row["test"] == "tavi":
        return 0.2 + 0.1 * size(row) + (0.2 if row["method"] == "prompt" else 0.0) + (0.1 if row["language"] == "tavi" else 0.0)
    return 0.8 if row["method"] == "full" else 0.7


@pytest.mark.parametrize("paper", FIGURES)
def test_claims_hold_in_a_world_in_which_they_do_and_not_in_its_mirror(paper, monkeypatch):
    found = {}
    for side in (1, -1):
        # A correlation is mirrored by the scores alone.
        def score(name, row, side=side):
            value = claimed(name, row)
            return value if row["test"] == "similarity" else side * value

        monkeypatch.setattr(results, "ours", lambda name, score=score: made(name, lambda row: score(name, row)))
        found[side] = FIGURES[paper].claims()
    assert [claim.text for claim in found[1] if claim.verdict != "agrees"] == []
    assert [claim.text for claim in found[-1] if claim.verdict != "disagrees"] == []


@pytest.mark.parametrize("paper", FIGURES)
def test_figures_are_drawn_of_all_that_was_run(paper, monkeypatch, tmp_path):
    monkeypatch.setattr(results, "ours", lambda name: made(name, lambda row: claimed(name, row)))
    drawn = FIGURES[paper].figures()
    names = {
        "spot2022": ["matrix", "similarity", "retrieval"],
        "attempt2022": ["targets"],
        "mpt2023": ["targets"],
        "vu2022b": ["sizes", "lengths"],
        "khashabi2022": ["penalty", "texts", "sizes"],
        "lester2022": ["pairs"],
    }
    assert [figure.name for figure in drawn] == names[paper]
    for figure in drawn:
        marks = [mark for panel in figure.panels for mark in panel.marks if mark.source == drawing.OURS]
        assert marks and all(mark.low <= mark.value + 1e-9 and mark.high >= mark.value - 1e-9 and mark.runs > 1 for mark in marks)
    paths = [path for figure in drawn[:1] for path in drawing.save(figure, tmp_path, paper)]
    assert all(path.stat().st_size > 0 for path in paths)


@pytest.mark.parametrize("paper", FIGURES)
def test_without_runs_nothing_is_drawn_and_nothing_decided(paper, monkeypatch):
    monkeypatch.setattr(results, "ours", lambda name: ())
    assert FIGURES[paper].figures() == []
    assert {claim.verdict for claim in FIGURES[paper].claims()} == {"not run"}


def test_matrix_cells_are_gains_over_scratch(monkeypatch):
    monkeypatch.setattr(results, "ours", lambda name: made(name, lambda row: claimed(name, row)))
    ours, theirs = spot2022.figures()[0].panels
    cells = {(mark.series, mark.x): mark.value for mark in ours.marks}
    assert len(cells) == len(spot.SOURCES) * len(spot.TARGETS)
    for place, name in enumerate(spot.SOURCES):
        assert cells[name, spot.TARGETS[0]] == pytest.approx(0.05 * (place + 1))
    printed = {(mark.series, mark.x): mark.value for mark in theirs.marks}
    assert printed["MNLI", "CB"] == pytest.approx(97.0 - 92.7)


def test_the_best_source_is_chosen_on_other_seeds(monkeypatch):
    # The source that is best on seed 0 alone is not the one that is best on the others.
    def score(row):
        return 1.0 if (row["source"], row["seed"]) == (spot.SOURCES[0], "0") else 0.5 if row["source"] == spot.SOURCES[1] else 0.1

    monkeypatch.setattr(results, "ours", lambda name: made(name, score))
    best = spot2022._ways()["best source"]
    assert {value for (_, seed), value in best.items() if seed == 0} == {0.5}
