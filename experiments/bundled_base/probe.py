"""What a pretrained base knows, asked in the words of its own pretraining text and not tuned at all.

python -m experiments.bundled_base.probe [--base=runs/pretrain_mini_lm/base]

A test row of each task is told as a passage would tell it, and the possible endings are ranked. This parts two things that a low score of
prompt tuning leaves together: what the base has not learned, and what a prompt does not get out of it.
"""

import argparse
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from prompt_tuning import cli, environment, text_tables
from prompt_tuning.errors import reported

Row = Mapping[str, Any]
# What is read, and the endings in the order of the labels.
Probe = Callable[[Row], tuple[str, Sequence[str]]]


def _bare(sentence: str) -> str:
    return sentence.rstrip(".")


def _choices(row: Row) -> list[str]:
    return [row[name] for name in sorted(row) if name.startswith("choice")]


_JUDGED = ("That was false.", "That was true.")
_YES = ("No", "Yes")

PROBES: dict[str, Probe] = {
    "arithmetic_true": lambda r: (r["text"], ("That is false.", "That is true.")),
    "arithmetic_more": lambda r: (f"{r['text']} Who has more?", [f"It is {r[name]}." for name in ("first", "second")]),
    "arithmetic_change": lambda r: (r["text"], [f"Compared with before, that is {word}." for word in ("fewer", "the same", "more")]),
    "arithmetic_next": lambda r: (f"{_bare(r['text'])},", _choices(r)),
    "story_yes_no": lambda r: (f"{r['story']} {r['question']}", _YES),
    "story_where": lambda r: (r["story"], [f"So the {r['thing']} is now in the {choice}." for choice in _choices(r)]),
    "story_who": lambda r: (r["story"], [f"So {choice} has the {r['thing']} now." for choice in _choices(r)]),
    "giver_receiver": lambda r: (r["sentence"], [f"So {r['person']} was the {role}." for role in ("giver", "receiver")]),
    "first_kind": lambda r: (r["sentence"], [f"What is named first is {kind}." for kind in ("an animal", "food", "a tool")]),
    "colour_claim": lambda r: (f"{r['sentence']} Is it true that {r['claim']}?", ("No, that is false.", "Yes, that is true.")),
    "inference_kind": lambda r: (f"{r['text']} Someone said that {_bare(r['hypothesis'])}.", _JUDGED),
    "inference_entailment": lambda r: (f"{r['text']} {r['hypothesis']}", [f"That is {word}." for word in ("true", "false", "unknown")]),
    "inference_opposite": lambda r: (f"{_bare(r['text'])}, not", _choices(r)),
    "inference_odd": lambda r: (f"There were four words on the wall, {r['text']}.", [f"The odd one was the {c}." for c in _choices(r)]),
    "ordering_most": lambda r: (r["text"], [f"So the {r['most']} is {choice}." for choice in _choices(r)]),
    "ordering_follows": lambda r: (f"{r['text']} {_bare(r['claim'])}?", _YES),
    "ordering_first": lambda r: (r["text"], [f"The first thing was that {r['name']} {r[event]}." for event in ("event0", "event1")]),
    "paraphrase_same": lambda r: (f"{r['first']} {r['second']}", ("The meaning was different.", "The meaning was the same.")),
    "paraphrase_choice": lambda r: (f"{r['text']} In other words,", _choices(r)),
    "sentiment_review": lambda r: (r["text"], ("The verdict was negative.", "The verdict was positive.")),
    "sentiment_comparison": lambda r: (r["text"], [f"The better one was the {choice}." for choice in _choices(r)]),
    "sentiment_feeling": lambda r: (r["text"], [f"{r['person']} {verb} it." for verb in ("disliked", "liked")]),
    "sentiment_word": lambda r: (r["text"], [f"{c.capitalize()} is {'good' if r['asked'] == 'praise' else 'bad'}." for c in _choices(r)]),
    "story_title": lambda r: (r["story"], [f"The title of this story is {choice}." for choice in _choices(r)]),
    "word_pick": lambda r: (r["text"], [f"The {r['place']} word was {choice}." for choice in _choices(r)]),
    "word_repeat": lambda r: (f"{r['text']} Does a word come back?", _YES),
    "word_member": lambda r: (f"{r['text']} Was {r['word']} there?", ("No, it was not.", "Yes, it was.")),
    "word_same_set": lambda r: (f"{r['text']} {r['other']} Are these the same words?", _YES),
}


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="t5_mini", help="the base: a file in configs/models (default t5_mini)")
    parser.add_argument("--base", help="another checkpoint of that base")
    parser.add_argument("--rows", type=int, default=300, help="test rows of each task and domain (default 300)")
    flags = parser.parse_args(argv)
    environment.settle(may_restart=argv is None)
    with reported():
        lines = [("task", "chance", "in domain", "out of domain"), *probe(flags.model, flags.base, flags.rows)]
        print(text_tables.aligned(lines, "lr"))


def probe(model: str, base: str | None, count: int) -> list[tuple[str, ...]]:
    """A line a task: its name, one over the number of choices, and the accuracy in both domains."""
    from prompt_tuning import evaluate, evaluation
    from prompt_tuning.data import features
    from prompt_tuning.data.world import catalogue
    from prompt_tuning.data.world import task as world

    bindings = ["INPUT_LENGTH = 128", "TARGET_LENGTH = 32", *([f"BASE_CHECKPOINT = '{base}'"] if base else [])]
    files = [f"configs/models/{model}.gin", "configs/methods/full.gin", "configs/data/world.gin", "configs/runs/demo.gin"]
    experiment = cli.load_experiment(files, bindings)
    loaded = evaluate.load(experiment, workdir=None, checkpoint="base")
    vocabulary = experiment.vocabulary.load()
    lines = []
    for name, ask in PROBES.items():
        task = catalogue.all_tasks()[name]
        accuracies = []
        for domain in ("in", "out"):
            rows = list(itertools.islice(world.rows(task, "test", domain=domain), count))
            asked = [ask(row) for row in rows]
            scores = evaluation.score_choices(
                loaded.parts,
                [{"inputs": [*vocabulary.encode(text), features.EOS_ID]} for text, _ in asked],
                choices=[[[*vocabulary.encode(ending)] for ending in endings] for _, endings in asked],
                lengths=loaded.lengths,
                batch_size=64,
            )
            accuracies.append(sum(int(own.argmax()) == row["label"] for own, row in zip(scores, rows, strict=True)) / len(rows))
        lines.append((name, f"{1 / len(asked[0][1]):.2f}", *(f"{value:.3f}" for value in accuracies)))
    return lines


if __name__ == "__main__":
    main()
