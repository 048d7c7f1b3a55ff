"""The clusters words, arithmetic and ordering: their common contract, and every label found again by reading the text anew."""

import itertools
import random
import re

import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression

from prompt_tuning.data.templates import field_names
from prompt_tuning.data.world.clusters import arithmetic, ordering, words
from prompt_tuning.data.world.clusters.words_lexicon import NAMES, NOUNS, NUMBERS
from prompt_tuning.data.world.task import rows, split_of

CLUSTERS = (words, arithmetic, ordering)
TASKS = [task for cluster in CLUSTERS for task in cluster.TASKS]
CLASSIFICATION = [task for task in TASKS if task.is_classification]
DRAWN = [(task, domain, language) for task in TASKS for domain in ("in", "out") for language in task.languages]

every_task = pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
every_classification = pytest.mark.parametrize("task", CLASSIFICATION, ids=lambda task: task.name)
every_drawing = pytest.mark.parametrize("task, domain, language", DRAWN, ids=lambda value: getattr(value, "name", value))


def _take(task, count, split="train", **where):
    return list(itertools.islice(rows(task, split, **where), count))


def _key(task, row):
    return tuple(row[field] for field in task.key_fields)


def _nouns(text):
    return [word for word in re.findall(r"[a-z]+", text.lower()) if word in {*NOUNS["in"], *NOUNS["out"]}]


def _numbers(text):
    english = {word: number for number, word in enumerate(NUMBERS)}
    tavi = {arithmetic.TAVI.word(word): number for word, number in english.items()}
    return [(english | tavi)[word] for word in re.findall(r"[a-z]+", text.lower()) if word in english or word in tavi]


def _names(text):
    return [word for word in re.findall(r"[A-Z][a-z]+", text) if word in {*NAMES["in"], *NAMES["out"]}]


def _comparisons(text):
    """(more, less, index of the quality) for every comparison in a text, English or Tavi."""
    ends = {}
    for index, quality in enumerate((*ordering.QUALITIES["in"], *ordering.QUALITIES["out"])):
        for side, turned in ((quality.up, False), (quality.down, True)):
            ends |= {side[1]: (index, turned), ordering.TAVI.word(side[0]): (index, turned)}
    found = re.findall(r"(\w+) is (\w+) than (\w+)", text) + re.findall(r"Es (\w+) zo (\w+) da (\w+)", text)
    return [((b, a) if ends[word][1] else (a, b)) + (ends[word][0],) for a, word, b in found]


def _order(text):
    """The two or three people of some comparisons from most to least: the one order that agrees with all of them."""
    facts = _comparisons(text)
    people = sorted({name for more, less, _ in facts for name in (more, less)})
    fitting = [order for order in itertools.permutations(people) if all(order.index(a) < order.index(b) for a, b, _ in facts)]
    assert len(people) in (2, 3) and len(fitting) == 1
    return fitting[0]


def _claimed_sum_holds(text):
    first, second, result = _numbers(text)
    made = first - second if "minus" in text else second - first if "from" in text else first + second
    return made == result


def _happened_first(row):
    """The deed that happened first, by the words that tell of time."""
    text = row["text"]
    later_named_first = re.search(r" after |^Before |^When .* already|^Later ", text)
    in_text = sorted((row["event0"], row["event1"]), key=text.index)
    return in_text[1 if later_named_first else 0]


def _answer(task, row):
    """The right answer of a row, read from its text alone."""
    text = row["text"]
    match task.name:
        case "word_reverse":
            return ", ".join(_nouns(text)[::-1])
        case "word_pick":
            return _nouns(text)[{"first": 0, "second": 1, "last": -1}[row["place"]]]
        case "word_repeat":
            return "yes" if len(set(_nouns(text))) < len(_nouns(text)) else "no"
        case "word_member":
            return "yes" if row["word"] in _nouns(text) else "no"
        case "word_same_set":
            return "yes" if set(_nouns(text)) == set(_nouns(row["other"])) else "no"
        case "arithmetic_true":
            return "true" if _claimed_sum_holds(text) else "false"
        case "arithmetic_more":
            return max(zip(_numbers(text), _names(text), strict=True))[1]
        case "arithmetic_change":
            before, after = _numbers(text)
            return "more" if after > before else "fewer" if after < before else "the same"
        case "arithmetic_next":
            told = _numbers(text)
            assert told == list(range(told[0], told[0] + len(told)))
            return NUMBERS[told[-1] + 1]
        case "arithmetic_now":
            first, second = _numbers(text.replace("one on", ""))
            return NUMBERS[first - second if re.search("gave|lost|sold|took", text) else first + second]
        case "ordering_most":
            down = {quality.down[2] for both in ordering.QUALITIES.values() for quality in both}
            return _order(text)[-1 if row["most"] in down else 0]
        case "ordering_follows":
            ((more, less, quality),) = _comparisons(row["claim"])
            assert {quality} == {index for _, _, index in _comparisons(text)}
            return "yes" if _order(text).index(more) < _order(text).index(less) else "no"
        case "ordering_first":
            return _happened_first(row)
    raise AssertionError(task.name)


@every_drawing
def test_answers_are_those_that_the_text_gives(task, domain, language):
    for row in _take(task, 400, domain=domain, language=language):
        assert task.plain.render(row).targets == _answer(task, row)


@pytest.mark.parametrize("cluster", CLUSTERS, ids=lambda cluster: cluster.__name__.rpartition(".")[2])
def test_at_least_three_tasks_most_of_them_classification(cluster):
    assert len(cluster.TASKS) >= 3
    assert sum(task.is_classification for task in cluster.TASKS) >= 2 / 3 * len(cluster.TASKS)
    assert {task.cluster for task in cluster.TASKS} == {cluster.__name__.rpartition(".")[2]}


@every_drawing
def test_rows_are_the_same_again_and_many(task, domain, language):
    first = _take(task, 3000 if domain == "in" else 1000, domain=domain, language=language)
    assert len(first) == (3000 if domain == "in" else 1000)
    assert first[:50] == _take(task, 50, domain=domain, language=language)
    for split in ("validation", "test"):
        assert len(_take(task, 200, split, domain=domain, language=language)) == 200


@every_task
def test_splits_share_no_content(task):
    keys = {split: {_key(task, row) for row in _take(task, 200, split)} for split in ("train", "validation", "test")}
    assert not keys["train"] & keys["validation"] and not keys["train"] & keys["test"] and not keys["validation"] & keys["test"]
    assert all(split_of(task, row) == "test" for row in _take(task, 20, "test", seed=9))


@every_task
def test_out_of_domain_has_other_words_and_other_content(task):
    inside, outside = (_take(task, 500, domain=domain) for domain in ("in", "out"))
    assert not {_key(task, row) for row in inside} & {_key(task, row) for row in outside}
    texts = [{word for row in part for word in re.findall(r"\w+", row["text"])} for part in (inside, outside)]
    assert not texts[0] & {*NAMES["out"], *NOUNS["out"]} and not texts[1] & {*NAMES["in"], *NOUNS["in"]}
    assert len(texts[1] - texts[0]) >= 10


@every_classification
def test_labels_are_balanced(task):
    labels = [row["label"] for row in _take(task, 1000)]
    share = 1 / len(task.plain.answer_choices)
    for label in range(len(task.plain.answer_choices)):
        assert abs(labels.count(label) / len(labels) - share) < 0.08


@pytest.mark.parametrize(
    "task, domain, language", [drawn for drawn in DRAWN if drawn[0].is_classification], ids=lambda v: getattr(v, "name", v)
)
def test_a_bag_of_words_stays_far_below_the_ceiling(task, domain, language):
    train, test = (_take(task, count, split, domain=domain, language=language) for count, split in ((1000, "train"), (500, "test")))
    vectorizer = CountVectorizer()
    classifier = LogisticRegression(max_iter=1000)
    classifier.fit(vectorizer.fit_transform([task.plain.render(row).inputs for row in train]), [row["label"] for row in train])
    score = classifier.score(vectorizer.transform([task.plain.render(row).inputs for row in test]), [row["label"] for row in test])
    assert score <= (0.62 if len(task.plain.answer_choices) == 2 else 0.5)


@every_task
def test_ten_templates_some_turned_around_all_render(task):
    assert len(task.templates) == 10
    assert len({template.name for template in task.templates}) == 10
    assert len({template.inputs for template in task.templates}) == 10
    assert 2 <= sum(template.turned_around for template in task.templates) <= 3
    for language in task.languages:
        for row in _take(task, 20, language=language):
            for template in (task.plain, *task.templates):
                rendered = template.render(row)
                assert 0 < len(rendered.inputs.split()) <= 60 and 0 < len(rendered.targets.split()) <= 25
                assert "{" not in rendered.inputs + rendered.targets
                if task.is_classification:
                    assert (rendered.answer_choices is None) == template.turned_around
                if rendered.answer_choices is not None:
                    assert len(set(rendered.answer_choices)) == len(rendered.answer_choices)


@every_classification
def test_templates_whose_question_is_turned_have_turned_answers(task):
    """Two rows that differ in the label get different answers from every template."""
    by_label = {row["label"]: row for row in _take(task, 100)}
    for template in task.templates:
        if not template.turned_around and not any("{" in choice for choice in template.answer_choices):
            assert len({template.render(row).targets for row in by_label.values()}) == len(by_label)


def _runs(text, length=8):
    tokens = re.findall(r"\w+", text.lower())
    return {tuple(tokens[start : start + length]) for start in range(len(tokens) - length + 1)}


@pytest.mark.parametrize("cluster", CLUSTERS, ids=lambda cluster: cluster.__name__.rpartition(".")[2])
def test_passages_hold_no_formatted_example(cluster):
    rng = random.Random(5)
    told = [cluster.passages(rng, rng.choice(("in", "out"))) for _ in range(4000)]
    text = "\n".join(told)
    runs = set().union(*(_runs(passage) for passage in told))
    for task in cluster.TASKS:
        for template in (task.plain, *task.templates):
            for literal in re.split(r"\{\w+\}", template.inputs) if field_names(template.inputs) else (template.inputs,):
                assert not _runs(literal) & runs
            for row in _take(task, 50):
                assert template.render(row).inputs not in text


@pytest.mark.parametrize("cluster", CLUSTERS, ids=lambda cluster: cluster.__name__.rpartition(".")[2])
def test_passages_are_the_same_again_and_short(cluster):
    told = [cluster.passages(random.Random(seed), "in") for seed in range(300)]
    assert told == [cluster.passages(random.Random(seed), "in") for seed in range(300)]
    assert len(set(told)) > 250
    assert all(4 <= len(passage.split()) <= 60 and passage[0].isupper() and passage[-1] in ".?" for passage in told)


def test_arithmetic_passages_judge_rightly():
    rng = random.Random(2)
    judged = 0
    for _ in range(6000):
        passage = arithmetic.passages(rng, rng.choice(("in", "out")))
        for first, second, result in re.findall(r"(\w+) plus (\w+) is (\w+)\.", passage if "says" not in passage else ""):
            assert _numbers(first) + _numbers(second) != [] and sum(_numbers(f"{first} {second}")) == _numbers(result)[0]
            judged += 1
        claim, verdict = re.match(r"(.*?\.) (That is (?:true|false)\.)?", passage + " ").groups()
        if verdict and len(_numbers(claim)) == 3:
            assert ("true" in verdict) == _claimed_sum_holds(claim)
            judged += 1
    assert judged > 1000


def test_ordering_passages_judge_rightly():
    rng = random.Random(2)
    compared = r"\w+ is \w+ than \w+"
    downs = {quality.down[2] for both in ordering.QUALITIES.values() for quality in both}
    judged = named = 0
    for _ in range(6000):
        passage = ordering.passages(rng, rng.choice(("in", "out")))
        told = re.match(rf"({compared}((, and|, while) {compared})?\. )+", passage)
        if not told:
            continue
        order, rest = _order(told.group()), passage[told.end() :]
        for claim, verdict in re.findall(rf"(?:said that|thinks that) ({compared}).*?(true|false|right|wrong)\.", rest):
            ((more, less, _),) = _comparisons(claim)
            assert (verdict in ("true", "right")) == (order.index(more) < order.index(less))
            judged += 1
        for name, most in re.findall(r"(\w+) is the (\w+) of all\.", rest):
            assert order[-1 if most in downs else 0] == name
            named += 1
    assert judged > 400 and named > 400


@pytest.mark.parametrize("cluster", [arithmetic, ordering])
def test_about_a_tenth_of_the_passages_is_in_tavi(cluster):
    rng = random.Random(4)
    forms = {*cluster.TAVI.dictionary.values(), "es"}
    told = [cluster.passages(rng, "in") for _ in range(2000)]
    share = sum(bool(forms & set(re.findall(r"\w+", passage.lower()))) for passage in told) / len(told)
    assert 0.06 < share < 0.14
