"""Trains: python -m prompt_tuning.train --gin_file=MODEL --gin_file=METHOD --gin_file=DATA --workdir=DIR.

The same command resumes an interrupted run; a finished run says so and does nothing. SIGTERM saves and exits with 143. With --distributed,
or with --coordinator_address, --num_processes and --process_id, several processes on one or many machines train together.
"""

import argparse
import sys
from typing import TYPE_CHECKING

from prompt_tuning import cli, processes
from prompt_tuning.errors import Interrupted, UserError

if TYPE_CHECKING:
    from prompt_tuning.experiment import Experiment


def main(argv: list[str] | None = None) -> None:
    """The command."""
    cli.main(run, __doc__, extra_flags=processes.add_flags, argv=argv)


def run(experiment: "Experiment", flags: argparse.Namespace) -> None:
    """Trains in `flags.workdir`."""
    from prompt_tuning import contamination, training
    from prompt_tuning.run_folder import RunFolder

    if not flags.workdir:
        raise UserError("--workdir is missing; wanted the folder that holds everything the run makes")
    processes.join(flags)
    with processes.only_first_speaks():
        finished = RunFolder(flags.workdir).results is not None
        if not finished:
            contamination.refuse(experiment)
        try:
            results = training.train(experiment, flags.workdir, gin_config=flags.gin_config)
        except Interrupted as stop:
            if processes.is_first():
                print(stop, file=sys.stderr)
            sys.exit(143)
        best = results["best"]
        state = "finished already" if finished else "finished"
        print(f"{state}: {results['split']} score {best['score']:.4f} at step {best['step']}; see {flags.workdir}/results.json")


if __name__ == "__main__":
    main()
