"""Metrics on cases worked out by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rouge_score import rouge_scorer

from prompt_tuning.data import metrics
from prompt_tuning.errors import UserError


def test_accuracy_takes_any_accepted_text():
    assert metrics.accuracy(["yes", "no", ("a", "b"), "c"], ["yes", "yes", "b", " c "]) == 0.75


def test_f1_macro_by_hand():
    # Class a: precision 1/2, recall 1; class b: precision 1, recall 1/2; "?" is no class.
    assert metrics.f1_macro(["a", "b", "b"], ["a", "a", "b"]) == pytest.approx(2 / 3)
    assert metrics.f1_macro(["a", "b"], ["?", "b"]) == pytest.approx(1 / 2)


def test_f1_binary_is_about_the_positive_class():
    targets, predictions = ["yes", "yes", "no", "no"], ["yes", "no", "no", "yes"]
    assert metrics.f1_binary(targets, predictions, positive="yes") == pytest.approx(1 / 2)
    assert metrics.f1_binary(["no", "no", "yes"], ["no", "yes", "yes"]) == pytest.approx(2 / 3), "the rarer class where none is named"
    examples = [{"targets_pretokenized": target, "answer_choices": ("no", "yes")} for target in ("yes", "no", "no", "no")]
    found = metrics.compute_for_examples(["f1_binary"], examples, ["yes", "no", "no", "yes"])
    assert found == {"f1_binary": pytest.approx(2 / 3)}, "the second choice"


def test_squad_normalisation():
    assert metrics.squad_normalise("The  Eiffel-Tower, a tower!") == "eiffeltower tower"
    assert metrics.exact_match(["the cat", "a dog"], ["Cat.", "dogs"]) == 0.5


def test_tk_instruct_s_exact_match_counts_articles():
    targets, predictions = ["the cat", "a dog", ("no", "New  York!")], ["Cat.", "A dog", "new york"]
    assert metrics.exact_match(targets, predictions) == 1.0
    assert metrics.tk_exact_match(targets, predictions) == pytest.approx(2 / 3)


WORDS = st.lists(st.sampled_from(["the", "cats", "cat", "sat", "sitting,", "Sits.", "of", "runs", "running"]), max_size=6).map(" ".join)


@given(st.lists(st.tuples(st.lists(WORDS, min_size=1, max_size=3), WORDS), min_size=1, max_size=4))
def test_rouge_l_is_rouge_score_stemmed_with_the_best_reference(pairs):
    scorer = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=True)
    wanted = [scorer.score_multi(accepted, said)["rougeL"].fmeasure for accepted, said in pairs]
    found = metrics.rouge_l([accepted for accepted, _ in pairs], [said for _, said in pairs])
    assert found == pytest.approx(sum(wanted) / len(wanted))


def test_squad_f1_by_hand():
    # Two common words; precision 2/3, recall 2/2.
    assert metrics.squad_f1(["black cat"], ["big black cat"]) == pytest.approx(0.8)
    # Words count as often as they stand.
    assert metrics.squad_f1(["row row row"], ["row"]) == pytest.approx(0.5)
    assert metrics.squad_f1([("dog", "black cat")], ["black cat"]) == 1.0
    assert metrics.squad_f1(["cat"], [""]) == 0.0


def test_matthews_by_hand():
    # TP 1, TN 1, FP 1, FN 0: (1*1 - 1*0) / sqrt(2 * 1 * 2 * 1).
    assert metrics.matthews(["1", "0", "0"], ["1", "0", "1"]) == pytest.approx(0.5)


def test_correlations():
    assert metrics.pearson(["1", "2", "3"], ["2.0", "4.0", "6.0"]) == pytest.approx(1.0)
    assert metrics.spearman(["1", "2", "3"], ["1", "4", "100"]) == pytest.approx(1.0)
    assert metrics.pearson(["1", "2", "3"], ["3", "3", "3"]) == 0.0, "a constant correlates with nothing"
    assert metrics.spearman(["0", "1", "2"], ["no number", "nan", "5"]) == pytest.approx(0.866, abs=1e-3), "what is no number is -1"


def test_rouge_and_bleu():
    assert metrics.rouge1(["the cats sat"], ["cat sat"]) == pytest.approx(0.8), "stemmed"
    assert metrics.rouge2(["a b c"], ["a b d"]) == pytest.approx(0.5)
    assert metrics.rouge_l(["a b c d"], ["a c d"]) == pytest.approx(6 / 7)
    assert metrics.bleu(["the cat sat on the mat"], ["the cat sat on the mat"]) == pytest.approx(1.0)
    assert metrics.bleu(
        [("nothing alike here at all", "the cat sat on the mat"), "one two three four"], ["the cat sat on the mat", "one two three four"]
    ) == (pytest.approx(1.0))


def test_grouped_metrics():
    targets, predictions = ["True", "False", "True", "True"], ["True", "False", "True", "False"]
    groups = ["q1", "q1", "q2", "q2"]
    assert metrics.compute(["group_exact_match", "f1_over_answers"], targets, predictions, groups=groups) == {
        "group_exact_match": 0.5,
        "f1_over_answers": pytest.approx(0.8),
    }


@pytest.mark.parametrize(
    ("referent", "prediction", "names"),
    [
        ("the rabbit", "fuzzy rabbit", True),
        ("Bob", "bob", True),
        ("Bob", "Bob's hat", False),
        ("the rabbit", "the fox", False),
        ("the rabbit", "the", False),
    ],
)
def test_referent_accuracy(referent, prediction, names):
    assert metrics.referent_accuracy([referent], [prediction], ["True"]) == float(names)
    assert metrics.referent_accuracy([referent], [prediction], ["False"]) == float(not names)


def test_every_metric_is_a_fraction_and_perfect_at_its_best():
    targets = ["1", "2", "1"]
    found = metrics.compute([name for name in metrics.METRICS if name not in ("f1_over_answers", "rouge2", "bleu")], targets, targets)
    assert all(value == pytest.approx(1.0) for value in found.values()), found


def test_seqio_metric_takes_targets_and_predictions():
    assert metrics.seqio_metric("accuracy")(["a"], ["a"]) == {"accuracy": 1.0}


def test_unknown_metrics_and_nothing_to_score_are_refused():
    with pytest.raises(UserError, match="accuracies.*accuracy"):
        metrics.compute(["accuracies"], ["a"], ["a"])
    with pytest.raises(UserError, match="no prediction"):
        metrics.compute(["accuracy"], [], [])
