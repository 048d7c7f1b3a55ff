"""Metrics over texts. All are fractions: 0..1, correlations -1..1; BLEU and ROUGE too, which some report times 100.

`compute` takes what evaluation has at hand, texts; a target is one text or several accepted ones, of which the best counts. Accuracy, F1,
exact match and correlations take the first where only one makes sense (F1 over classes, Matthews, correlations).
"""

import collections
import re
import string
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from prompt_tuning.data import final_answers
from prompt_tuning.errors import UserError

# One accepted text, or several.
Target = str | Sequence[str]
_DETERMINERS = frozenset(
    ["a", "an", "few", "her", "his", "each", "every", "many", "much", "my", "our", "some", "that", "the", "their", "these", "this", "those"]
    + ["which", "whose", "your"]
)
NOT_A_NUMBER = -1.0  # What T5 takes for a prediction that is no number.


def accuracy(targets: Sequence[Target], predictions: Sequence[str]) -> float:
    """The share of predictions that are one of the accepted texts, surrounding space apart."""
    return _mean(
        float(prediction.strip() in {text.strip() for text in _texts(target)}) for target, prediction in _pairs(targets, predictions)
    )


def f1_macro(targets: Sequence[Target], predictions: Sequence[str]) -> float:
    """F1 averaged over the classes that occur in the targets; a prediction that is none of them counts as wrong."""
    from sklearn import metrics

    wanted, got = _classes(targets, predictions)
    return float(metrics.f1_score(wanted, got, labels=sorted(set(wanted)), average="macro", zero_division=0.0))


def f1_binary(targets: Sequence[Target], predictions: Sequence[str], *, positive: str | None = None) -> float:
    """F1 of the class `positive`; where it is not given, of the rarer class of the targets (as frequent: the later in the alphabet)."""
    from sklearn import metrics

    wanted, got = _classes(targets, predictions)
    if positive is None:
        counts = collections.Counter(wanted)
        positive = max(counts, key=lambda text: (-counts[text], text))
    return float(metrics.f1_score([text == positive for text in wanted], [text == positive for text in got], zero_division=0.0))


def exact_match(targets: Sequence[Target], predictions: Sequence[str]) -> float:
    """The share of predictions that equal an accepted text after SQuAD's normalisation (Rajpurkar et al. 2016, evaluation script v1.1)."""
    return _mean(
        max(float(squad_normalise(prediction) == squad_normalise(text)) for text in _texts(target))
        for target, prediction in _pairs(targets, predictions)
    )


def tk_exact_match(targets: Sequence[Target], predictions: Sequence[str]) -> float:
    """The share of predictions that equal an accepted text, case, punctuation and runs of space apart.

    Tk-Instruct's exact match (Wang et al. 2022, as its released scorer has it): SQuAD's, but that articles count.
    """
    return _mean(
        max(float(_plain(prediction) == _plain(text)) for text in _texts(target)) for target, prediction in _pairs(targets, predictions)
    )


def final_answer(targets: Sequence[Target], predictions: Sequence[str]) -> float:
    """The share of chains of thought whose final answer equals an accepted text's, as in `exact_match` (`final_answers.final_answer`)."""
    accepted = [[final_answers.final_answer(text) for text in _texts(target)] for target in targets]
    return exact_match(accepted, [final_answers.final_answer(prediction) for prediction in predictions])


def final_text(targets: Sequence[Target], predictions: Sequence[str]) -> float:
    """The share of texts whose final answer is an accepted text's, letter for letter, as BIG-Bench Hard is scored (Suzgun et al. 2022)."""
    said = map(final_answers.final_answer, predictions)
    return _mean(float(text in map(final_answers.final_answer, _texts(target))) for target, text in zip(targets, said, strict=True))


def final_number(targets: Sequence[Target], predictions: Sequence[str]) -> float:
    """The share of chains of thought whose final number is an accepted text's (`final_answers.final_number`); without one, it is wrong."""
    return _mean(
        float((said := final_answers.final_number(prediction)) is not None and said in map(final_answers.final_number, _texts(target)))
        for target, prediction in _pairs(targets, predictions)
    )


def squad_f1(targets: Sequence[Target], predictions: Sequence[str]) -> float:
    """SQuAD's F1: overlap of words, as bags, with the accepted text that fits best, averaged over examples (Rajpurkar et al. 2016)."""
    return _mean(max(_word_f1(text, prediction) for text in _texts(target)) for target, prediction in _pairs(targets, predictions))


def matthews(targets: Sequence[Target], predictions: Sequence[str]) -> float:
    """Matthews' correlation over the classes (GLUE's metric for CoLA)."""
    from sklearn import metrics

    wanted, got = _classes(targets, predictions)
    return float(metrics.matthews_corrcoef(wanted, got))


def pearson(targets: Sequence[Target], predictions: Sequence[str]) -> float:
    """Pearson's correlation of the texts read as numbers; what is no number counts as -1, as in T5. 0 where one side is constant."""
    return _correlation("pearsonr", targets, predictions)


def spearman(targets: Sequence[Target], predictions: Sequence[str]) -> float:
    """Spearman's rank correlation of the texts read as numbers; as `pearson` otherwise."""
    return _correlation("spearmanr", targets, predictions)


def rouge1(targets: Sequence[Target], predictions: Sequence[str]) -> float:
    """ROUGE-1 F1 with Porter stemming, averaged over examples, the best accepted text each (rouge-score)."""
    return _rouge("rouge1", targets, predictions)


def rouge2(targets: Sequence[Target], predictions: Sequence[str]) -> float:
    """ROUGE-2 F1, as `rouge1`."""
    return _rouge("rouge2", targets, predictions)


def rouge_l(targets: Sequence[Target], predictions: Sequence[str]) -> float:
    """ROUGE-L F1 (longest common subsequence), as `rouge1`."""
    return _rouge("rougeL", targets, predictions)


def bleu(targets: Sequence[Target], predictions: Sequence[str]) -> float:
    """Corpus BLEU (sacrebleu's default: 13a tokens, exponential smoothing), divided by 100."""
    import sacrebleu

    texts = [list(_texts(target)) for target, _ in _pairs(targets, predictions)]
    most = max(len(accepted) for accepted in texts)
    # sacrebleu wants a list for each reference place; a missing reference there is None.
    columns: Any = [[accepted[place] if place < len(accepted) else None for accepted in texts] for place in range(most)]
    return float(sacrebleu.corpus_bleu(list(predictions), columns).score) / 100


def f1_over_answers(targets: Sequence[Target], predictions: Sequence[str]) -> float:
    """F1 of the class "True" over all answers (SuperGLUE's F1a for MultiRC, Wang et al. 2019, section 3.2)."""
    return f1_binary(targets, predictions, positive="True")


def group_exact_match(targets: Sequence[Target], predictions: Sequence[str], groups: Sequence[str]) -> float:
    """The share of groups whose every prediction is right (SuperGLUE's exact match over the answers of a MultiRC question)."""
    right: dict[str, bool] = {}
    for group, (target, prediction) in zip(groups, _pairs(targets, predictions), strict=True):
        right[group] = right.get(group, True) and prediction.strip() in {text.strip() for text in _texts(target)}
    return _mean(map(float, right.values()))


def referent_accuracy(targets: Sequence[Target], predictions: Sequence[str], groups: Sequence[str]) -> float:
    """WSC's accuracy where the noun is written: naming the candidate (the target) says True, all else False; the group is the label.

    As in T5, case and determiners don't count, and of the words of prediction and candidate one side must hold the other ("rabbit", "the
    fuzzy rabbit"); a possessive never names the one it belongs to.
    """
    said = (_names_referent(prediction, _texts(target)[0]) for target, prediction in _pairs(targets, predictions))
    return _mean(float(names == (label == "True")) for names, label in zip(said, groups, strict=True))


METRICS: dict[str, Callable[[Sequence[Target], Sequence[str]], float]] = {
    "accuracy": accuracy,
    "f1_macro": f1_macro,
    "f1_binary": f1_binary,
    "exact_match": exact_match,
    "tk_exact_match": tk_exact_match,
    "final_answer": final_answer,
    "final_text": final_text,
    "final_number": final_number,
    "squad_f1": squad_f1,
    "matthews": matthews,
    "pearson": pearson,
    "spearman": spearman,
    "rouge1": rouge1,
    "rouge2": rouge2,
    "rougeL": rouge_l,
    "bleu": bleu,
    "f1_over_answers": f1_over_answers,
}
# These read the tag that examples carry as their group.
GROUPED_METRICS: dict[str, Callable[[Sequence[Target], Sequence[str], Sequence[str]], float]] = {
    "group_exact_match": group_exact_match,
    "referent_accuracy": referent_accuracy,
}


def check(names: Sequence[str], where: str = "metrics") -> None:
    """Raises UserError, with the names there are, for a name that is no metric."""
    for name in names:
        if name not in METRICS and name not in GROUPED_METRICS:
            raise UserError(f"{where}: no metric is called {name!r}; wanted one of {', '.join(sorted([*METRICS, *GROUPED_METRICS]))}")


def compute(
    names: Sequence[str],
    targets: Sequence[Target],
    predictions: Sequence[str],
    *,
    positive: str | None = None,
    groups: Sequence[str] | None = None,
) -> dict[str, float]:
    """The metrics of these names.

    Args:
      names: see METRICS and GROUPED_METRICS.
      targets: an accepted text, or several, for each example.
      predictions: a text for each example.
      positive: the class `f1_binary` is about.
      groups: the group of each example, for grouped metrics; None: each is a group of its own.

    Raises UserError for an unknown name, and where there is nothing to score.
    """
    check(names)
    if not len(targets):
        raise UserError("metrics: there is no prediction to score; check the split and its limit")
    values = {}
    for name in names:
        if name in GROUPED_METRICS:
            values[name] = GROUPED_METRICS[name](
                targets, predictions, groups if groups is not None else list(map(str, range(len(targets))))
            )
        elif name == "f1_binary":
            values[name] = f1_binary(targets, predictions, positive=positive)
        else:
            values[name] = METRICS[name](targets, predictions)
    return values


def compute_for_examples(names: Sequence[str], examples: Sequence[Mapping[str, Any]], predictions: Sequence[str]) -> dict[str, float]:
    """The metrics of these names over evaluation examples (`mixtures.evaluation_examples`).

    Accepted texts are an example's `references`, else its `targets_pretokenized`; `f1_binary` is about the second answer choice; groups are
    the examples' `group`.
    """
    targets = [example.get("references") or example["targets_pretokenized"] for example in examples]
    groups = [example.get("group") or f"\x00{place}" for place, example in enumerate(examples)]
    choices = {tuple(example.get("answer_choices") or ()) for example in examples}
    shared = next(iter(choices)) if len(choices) == 1 else ()
    return compute(names, targets, predictions, positive=shared[1] if len(shared) > 1 else None, groups=groups)


def seqio_metric(name: str) -> Callable[[Sequence[Target], Sequence[str]], dict[str, float]]:
    """The metric as a SeqIO task wants it: a function of `targets` and `predictions` that gives `{name: value}`."""
    check([name])

    def metric_fn(targets: Sequence[Target], predictions: Sequence[str]) -> dict[str, float]:
        return compute([name], targets, predictions)

    metric_fn.__name__ = name
    return metric_fn


def squad_normalise(text: str) -> str:
    """Lower case, no punctuation, no articles (a, an, the), single spaces: what SQuAD's script compares."""
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", _plain(text)).split())


def _plain(text: str) -> str:
    """Lower case, no punctuation, single spaces."""
    return " ".join("".join(letter for letter in text.lower() if letter not in string.punctuation).split())


def _word_f1(target: str, prediction: str) -> float:
    wanted, got = squad_normalise(target).split(), squad_normalise(prediction).split()
    common = sum((collections.Counter(wanted) & collections.Counter(got)).values())
    if not common:
        return 0.0
    precision, recall = common / len(got), common / len(wanted)
    return 2 * precision * recall / (precision + recall)


def _names_referent(prediction: str, referent: str) -> bool:
    said, wanted = ({word for word in text.lower().split() if word not in _DETERMINERS} for text in (prediction, referent))
    possessive = [any("'" in word for word in words) for words in (said, wanted)]
    return bool(said) and possessive[0] == possessive[1] and (said <= wanted or wanted <= said)


def _rouge(name: str, targets: Sequence[Target], predictions: Sequence[str]) -> float:
    from rouge_score import rouge_scorer

    scorer = rouge_scorer.RougeScorer([name], use_stemmer=True)
    return _mean(
        max(scorer.score(text, prediction)[name].fmeasure for text in _texts(target)) for target, prediction in _pairs(targets, predictions)
    )


def _correlation(function: str, targets: Sequence[Target], predictions: Sequence[str]) -> float:
    from scipy import stats

    wanted, got = zip(
        *((_number(_texts(target)[0]), _number(prediction)) for target, prediction in _pairs(targets, predictions)), strict=True
    )
    if len(set(wanted)) < 2 or len(set(got)) < 2:
        return 0.0
    return float(getattr(stats, function)(wanted, got)[0])


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        return NOT_A_NUMBER
    return value if abs(value) < float("inf") else NOT_A_NUMBER


def _classes(targets: Sequence[Target], predictions: Sequence[str]) -> tuple[list[str], list[str]]:
    pairs = list(_pairs(targets, predictions))
    return [_texts(target)[0].strip() for target, _ in pairs], [prediction.strip() for _, prediction in pairs]


def _texts(target: Target) -> Sequence[str]:
    return (target,) if isinstance(target, str) else target


def _pairs(targets: Sequence[Target], predictions: Sequence[str]) -> "zip[tuple[Target, str]]":
    return zip(targets, predictions, strict=True)


def _mean(values: Any) -> float:
    listed = list(values)
    return sum(listed) / len(listed)
