"""Shows training or evaluation data as the model gets it, after templates, tokenization, prompt slots and packing.

    python -m prompt_tuning.data --gin_file=configs/data/world.gin --gin_file=configs/methods/prompt.gin [--rows=5] [--html=page.html]

Prints the tasks with their mixing rates, as stated and as drawn; how long examples are, and what share is cut; and some rows, token by
token: what is read, what the loss is on (in green, or with a star), where rows of the prompt stand, and padding. --html writes the same as
a page to look through. Give the model's gin file for its vocabulary; no weight is read.
"""

import argparse
import itertools
import os
import sys
from typing import TYPE_CHECKING, Any

from prompt_tuning import cli
from prompt_tuning.contamination import ANY_MODEL
from prompt_tuning.errors import UserError
from prompt_tuning.evaluate import FALLBACKS

if TYPE_CHECKING:
    from prompt_tuning.data.show import View
    from prompt_tuning.experiment import Experiment


def main(argv: list[str] | None = None) -> None:
    """The command."""
    cli.main(_run, __doc__, extra_flags=_flags, fallbacks=FALLBACKS + ANY_MODEL, argv=argv)


def _flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--split", default="train", help="(default train)")
    parser.add_argument("--rows", type=int, default=5, help="rows of a batch to show (default 5)")
    parser.add_argument("--examples", type=int, default=1000, help="examples to look at for lengths and rates (default 1000)")
    parser.add_argument("--task", help="shows this task alone")
    parser.add_argument("--html", metavar="FILE", help="writes a page")
    parser.add_argument("--color", choices=("auto", "always", "never"), default="auto", help="(default auto: on a terminal)")


def _run(experiment: "Experiment", flags: argparse.Namespace) -> None:
    from prompt_tuning import files
    from prompt_tuning.data import show

    for name in ("rows", "examples"):
        if getattr(flags, name) < 1:
            raise UserError(f"--{name}: wanted 1 or more, got {getattr(flags, name)}")
    found = view(experiment, split=flags.split, rows=flags.rows, examples=flags.examples, task=flags.task)
    on_terminal = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    print(show.as_text(found, colour=flags.color == "always" or (flags.color == "auto" and on_terminal)))
    if flags.html:
        files.atomic_write(flags.html, show.as_html(found))
        print(f"wrote {flags.html}", file=sys.stderr)


def view(experiment: "Experiment", *, split: str, rows: int, examples: int, task: str | None = None) -> "View":
    """What a split of the experiment's data looks like, from the first examples of the stream that training reads.

    Raises UserError for a task or split that is not there.
    """
    from prompt_tuning.data import features, mixtures, show

    vocabulary, layout = experiment.vocabulary.load(), experiment.layout
    lengths: Any = {"input_length": experiment.input_length, "target_length": experiment.target_length}
    names = experiment.data.task_names
    if task is not None and task not in names:
        raise UserError(f"--task={task}: no such task; wanted one of {', '.join(names)}")
    every = mixtures.mixed_examples(experiment.data, vocabulary=vocabulary, seed=experiment.seed, split=split, **lengths)
    drawn = list(itertools.islice(every, examples))
    tasks = experiment.data.tasks(vocabulary)
    _, sizes, rates = mixtures.tables_and_rates(experiment.data, tasks, split)
    counts = [sum(example["task"] == number for example in drawn) for number in range(len(tasks))]
    shares = tuple(show.TaskShare(*each) for each in zip(names, sizes, map(float, rates), counts, strict=True))
    chosen = drawn if task is None else [example for example in drawn if example["task"] == names.index(task)]
    if not chosen:
        raise UserError(f"--task={task}: not among the first {examples} examples drawn; look at more with --examples")
    groups = (
        list(itertools.islice(features.pack(chosen, prompt=layout, **lengths), rows)) if experiment.packed else [[e] for e in chosen[:rows]]
    )
    batch = features.layout_rows(groups, prompt=layout, packed=experiment.packed, **lengths)
    shown = tuple(
        (
            f"row {row + 1}: {', '.join(names[example['task']] for example in group)}",
            show.pieces(batch, row, "encoder", vocabulary=vocabulary, layout=layout),
            show.pieces(batch, row, "decoder", vocabulary=vocabulary, layout=layout),
        )
        for row, group in enumerate(groups)
    )
    title = f"{', '.join(names[:3])}{f' and {len(names) - 3} more' if len(names) > 3 else ''}: {split}"
    return show.View(title, shares, show.looked_at(chosen, **lengths), shown)


if __name__ == "__main__":
    main()
