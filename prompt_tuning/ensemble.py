"""Asks several trained prompts on one frozen model at once, and scores each of them and what they decide together.

  python -m prompt_tuning.ensemble --gin_file=configs/models/t5_mini.gin --gin_file=configs/data/world.gin \\
      --prompts runs/seed_0/prompt.npy runs/seed_1/prompt.npy runs/seed_2/prompt.npy

Every example stands in a batch once with each prompt. `vote` takes the answer of most prompts (Lester et al. 2021, arXiv:2104.08691,
section 6); among equals the one with the best mean score, and where answers are generated the one a prompt named earlier gave. `scores`
takes the answer choice with the best mean score. Prints a table as of the paper's: each prompt, their mean, the best of them, the ensemble.

Axes: E examples, N prompts, C choices.
"""

import argparse
import collections
import dataclasses
import functools
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from prompt_tuning import cli, evaluate, text_tables
from prompt_tuning.errors import UserError

if TYPE_CHECKING:
    import numpy as np

    from prompt_tuning.evaluation import Evaluation, Lengths, Parts, TaskExamples
    from prompt_tuning.experiment import Experiment


def main(argv: list[str] | None = None) -> None:
    """The command."""
    cli.main(_run, __doc__, extra_flags=_flags, fallbacks=evaluate.FALLBACKS, argv=argv)


def _flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--prompts", nargs="+", default=[], metavar="FILE", help=".npy files of prompts, all of one length")
    evaluate.add_report_flags(parser)


def _run(experiment: "Experiment", flags: argparse.Namespace) -> None:
    if not flags.prompts:
        raise UserError("--prompts is missing; wanted prompts as runs leave them: --prompts runs/a/prompt.npy runs/b/prompt.npy")
    settings = dataclasses.replace(experiment.evaluation, **({"split": flags.split} if flags.split else {}))
    found = scored_prompts(experiment, flags.prompts, settings)
    print(json.dumps({"split": settings.split, "prompts": flags.prompts, "metrics": found}) if flags.json else table(found, flags.prompts))


def scored_prompts(experiment: "Experiment", prompts: Sequence[str], settings: "Evaluation") -> dict[str, dict[str, Any]]:
    """What prompts of `.npy` files score on each task of an experiment's evaluation data, alone and together; values as of `scored`."""
    from prompt_tuning import assembly, evaluation
    from prompt_tuning.methods.ensemble import Ensemble

    experiment = dataclasses.replace(experiment, method=Ensemble(tuple(prompts)))
    vocabulary = assembly.check_vocabulary(experiment)
    lengths = evaluation.Lengths(experiment.input_length, experiment.target_length, experiment.layout)
    source = experiment.evaluation_data or experiment.data
    tasks = evaluation.task_examples(source, vocabulary, settings=settings, lengths=lengths)
    built = assembly.assemble(experiment)
    parts = (built.graphdef, built.tuned, built.frozen)
    return {
        task.name: scored(parts, task, members=len(prompts), settings=settings, lengths=lengths, vocabulary=vocabulary) for task in tasks
    }


def scored(
    parts: "Parts", task: "TaskExamples", *, members: int, settings: "Evaluation", lengths: "Lengths", vocabulary: Any
) -> dict[str, Any]:
    """The main metric of one task.

    Args:
      parts: of a model that `methods.ensemble.Ensemble` was attached to.
      task: examples that all have answer choices, or none has.
      members: N.
      settings, lengths, vocabulary: as of `evaluation.evaluate`.

    Returns:
      `metric`, its name; `members`, of each prompt; `mean` and `best` of those; `vote`, and `scores` where there are choices.
    """
    import numpy as np

    from prompt_tuning.data import metrics

    if not task.metrics:
        raise UserError(f"task {task.name}: has no metric, so that prompts have nothing to vote on; wanted a task with answers")
    predictions = answers(parts, task, members=members, settings=settings, lengths=lengths, vocabulary=vocabulary)
    values = {
        name: metrics.compute_for_examples(task.metrics, task.examples, given)[task.metrics[0]] for name, given in predictions.items()
    }
    own = [values.pop(str(number)) for number in range(members)]
    return {"metric": task.metrics[0], "members": own, "mean": float(np.mean(own)), "best": max(own)} | values


def answers(
    parts: "Parts", task: "TaskExamples", *, members: int, settings: "Evaluation", lengths: "Lengths", vocabulary: Any
) -> dict[str, list[str]]:
    """The predictions of each prompt, by its number, of `vote`, and where there are choices of `scores`; arguments as of `scored`."""
    import numpy as np

    from prompt_tuning import evaluation

    rows = [{**example, "task": number} for example in task.examples for number in range(members)]
    texts = [tuple(example.get("answer_choices") or ()) for example in task.examples]
    if settings.mode == "generate" or not any(texts):
        written = evaluation.generate_texts(parts, rows, lengths=lengths, settings=settings, vocabulary=vocabulary)
        said_EN = [written[start : start + members] for start in range(0, len(rows), members)]
        found = {str(number): [said[number] for said in said_EN] for number in range(members)}
        # Counter keeps the order of first appearance among equals.
        return found | {"vote": [collections.Counter(said).most_common(1)[0][0] for said in said_EN]}
    if not all(texts):
        raise UserError(f"task {task.name}: some examples have answer choices and others none; wanted all or none; set Evaluation.mode")
    encode = functools.cache(lambda text: (*map(int, vocabulary.encode(text)), lengths.prompt.delimiters.eos))
    scores = evaluation.score_choices(
        parts,
        rows,
        choices=[[encode(choice) for choice in own] for own in texts for _ in range(members)],
        lengths=lengths,
        batch_size=settings.batch_size,
        normalisation=settings.normalisation,
        include_eos=settings.include_eos,
    )
    scores_ENC = [np.stack(scores[start : start + members]) for start in range(0, len(rows), members)]
    found = {str(n): [own[int(np.argmax(each[n]))] for own, each in zip(texts, scores_ENC, strict=True)] for n in range(members)}
    found["vote"] = [own[vote(each)] for own, each in zip(texts, scores_ENC, strict=True)]
    found["scores"] = [own[int(np.argmax(each.mean(axis=0)))] for own, each in zip(texts, scores_ENC, strict=True)]
    return found


def vote(scores_NC: "np.ndarray") -> int:
    """The choice that most prompts score best; among equals the one with the best mean score."""
    import numpy as np

    votes_C = np.bincount(np.argmax(scores_NC, axis=1), minlength=scores_NC.shape[1])
    return int(np.argmax(np.where(votes_C == votes_C.max(), scores_NC.mean(axis=0), -np.inf)))


def table(found: dict[str, dict[str, Any]], prompts: Sequence[str]) -> str:
    """Results as text: a line a task and prompt, then what all of them do."""
    lines = [("task", "metric", "prompt", "value")]
    for task, values in found.items():
        named = dict(zip(prompts, values["members"], strict=True))
        named |= {f"{name} of {len(prompts)}": values[name] for name in ("mean", "best")}
        named |= {f"ensemble by {name}": values[name] for name in ("vote", "scores") if name in values}
        lines += [(task, values["metric"], name, f"{value:.4f}") for name, value in named.items()]
    return text_tables.aligned(lines)


if __name__ == "__main__":
    main()
