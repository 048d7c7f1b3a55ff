"""Pretrains the four bases of the papers in miniature by one recipe: python -m experiments.bases.run [--only=t5_100k,t5_500k]

Span corruption, then LM adaptation (Lester et al. 2021, section 3.1), over the prose of the task world, with the same passages in the same
order for every size. A base that is finished is put into prompt_tuning/assets; the command goes on where it was interrupted.
"""

import argparse
import pathlib
import sys
from collections.abc import Sequence

from experiments.bundled_base import publish
from prompt_tuning import cli, environment
from prompt_tuning.errors import Interrupted, UserError, reported

SIZES = ("t5_100k", "t5_500k", "t5_2m", "t5_8m")
# As t5_mini was pretrained, which stands between the last two.
SPAN_STEPS, LM_STEPS = 800, 18_000
ASSETS = pathlib.Path(__file__).parents[2] / "prompt_tuning" / "assets"


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", type=pathlib.Path, default=pathlib.Path("runs/bases"), help="of the runs (default runs/bases)")
    parser.add_argument("--only", default=",".join(SIZES), help="sizes, with commas between")
    parser.add_argument(
        "--target", type=pathlib.Path, default=ASSETS, help="the folder of the bases' folders (default: the package's assets)"
    )
    flags = parser.parse_args(argv)
    environment.settle(may_restart=argv is None)
    try:
        with reported():
            for size in flags.only.split(","):
                if size not in SIZES:
                    raise UserError(f"--only: wanted some of {', '.join(SIZES)}, got {size!r}")
                pretrain(size, flags.workdir, flags.target / size)
    except Interrupted as stop:
        print(stop, file=sys.stderr)
        sys.exit(143)


def pretrain(size: str, workdir: pathlib.Path, target: pathlib.Path, *, span_steps: int = SPAN_STEPS, lm_steps: int = LM_STEPS) -> None:
    """Trains what is not trained yet, and puts the base into its place."""
    from prompt_tuning import training

    runs = [workdir / f"{size}_span", workdir / f"{size}_lm"]
    bases = ["None", f"'{runs[0] / 'base'}'"]
    for kind, run, base, steps in zip(("span", "lm"), runs, bases, (span_steps, lm_steps), strict=True):
        files = [f"configs/models/{size}.gin", f"configs/runs/pretrain_{kind}.gin"]
        experiment = cli.load_experiment(files, [f"BASE_CHECKPOINT = {base}", f"TRAIN_STEPS = {steps}"])
        training.train(experiment, str(run), gin_config=cli.config_text(), label=run.name)
    publish.publish(runs, target)


if __name__ == "__main__":
    main()
