"""Says, before a machine is rented, whether a run fits on it and how fast it can be at best.

    python -m prompt_tuning.plan --topology=v5e:4x4 --gin_file=configs/models/t5_1_1_xxl.gin --gin_file=configs/methods/prompt.gin \\
        --gin.sharding.Mesh.data=4 --gin.sharding.Mesh.model=4 [--json=FILE] [--search]

The run's own training step and decoding are compiled for the machine, which need not be there: nothing is read, and no weight is made.
Chips: v5e, v5p, v6e (the extra `tpu` brings their compiler) and h100, as v5e:4x4, v5p:2x2x4, h100:8. --simulate compiles for as many
simulated CPU devices instead: how the work is shared out is the same, temporaries are those of another compiler. docs/planning.md says what
the numbers mean. Exits with 0 whether it fits or not.
"""

import argparse
import json
import os
import sys
from typing import TYPE_CHECKING

from prompt_tuning import cli
from prompt_tuning.errors import UserError

if TYPE_CHECKING:
    from prompt_tuning.experiment import Experiment

# What training needs and this command does not.
FALLBACKS = ("experiment.Experiment.data = None", "experiment.Experiment.allow_random_base = True")
PROGRAMS = ("train", "prefill", "token")


def main(argv: list[str] | None = None) -> None:
    """The command."""
    os.environ["JAX_PLATFORMS"] = "cpu"  # Whatever is at hand is not what is planned for.
    cli.main(run, __doc__, extra_flags=_flags, fallbacks=FALLBACKS, argv=argv)


def _flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--topology", required=True, metavar="CHIP:SHAPE", help="the machine, as v5e:4x4")
    parser.add_argument("--programs", default=",".join(PROGRAMS), help="what to plan (default %(default)s)")
    parser.add_argument("--simulate", action="store_true", help="compile for simulated CPU devices")
    parser.add_argument("--json", metavar="FILE", help="write one JSON object too; - prints it and nothing else")
    parser.add_argument("--search", action="store_true", help="try meshes, rematerialisation and batch sizes; rank what fits")
    parser.add_argument("--batch_sizes", metavar="N,...", help="of --search (default: the experiment's, twice and four times that)")


def run(experiment: "Experiment", flags: argparse.Namespace) -> None:
    """Plans the experiment and prints what came."""
    import jax

    from prompt_tuning import files, inspect
    from prompt_tuning.planning import chips, compiling, report, search

    names = tuple(flags.programs.split(","))
    if unknown := [name for name in names if name not in PROGRAMS]:
        raise UserError(f"--programs: {unknown[0]!r} is none of {', '.join(PROGRAMS)}")
    machine = chips.topology(flags.topology)
    jax.config.update("jax_enable_compilation_cache", False)  # What is kept there is for the machine at hand.
    devices = chips.simulated(machine) if flags.simulate else chips.described(machine)
    experiment = inspect.without_vocabulary(experiment)
    if flags.search:
        sizes = search.batch_sizes(flags.batch_sizes, experiment)
        tried = search.search(experiment, machine, devices, batch_sizes=sizes, said=lambda line: print(line, file=sys.stderr, flush=True))
        text, data = search.table(tried), search.as_json(tried, machine)
    else:
        planned = compiling.plan(experiment, machine, devices, names=names)
        where = "simulated CPU devices" if flags.simulate else machine.chip.kind
        text, data = report.table(planned, experiment, machine, where), report.as_json(planned, experiment, machine, where)
    if flags.json == "-":
        print(json.dumps(data))
        return
    print(text)
    if flags.json:
        try:
            files.atomic_write(flags.json, json.dumps(data, indent=1) + "\n")
        except OSError as error:
            raise UserError(f"--json {flags.json}: cannot write there ({error.strerror}); choose another file") from error


if __name__ == "__main__":
    main()
