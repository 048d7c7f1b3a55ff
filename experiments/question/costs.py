"""What each way to a task costs, counted without running it: python -m experiments.question.costs

Writes `costs.csv` beside this file: for every base and way, the floating-point operations of a training step and of answering one test row,
and the bytes a task needs stored beside the base. Matrix products alone count (`prompt_tuning.planning.counting`), at the lengths of
configs/runs/mini.gin; inputs with solved examples are as long as the few-shot rows are.
"""

import math
import pathlib
from typing import Any

from experiments import mini, points
from experiments.points import Point
from experiments.question import sweep
from prompt_tuning import environment, files

COSTS = pathlib.Path(__file__).parent / "costs.csv"
COLUMNS = ("base", "way", "trained_parameters", "train_steps", "train_step_flops", "answer_flops")
# An answer's tokens, its end among them, of rows that rank choices: each choice is scored once.
_CHOICES, _ANSWER_TOKENS = 3, 4


def main() -> None:
    """The command."""
    environment.settle()
    files.write_csv(COSTS, [row for base in mini.BASES for row in rows(base)], COLUMNS)


def ways(base: str) -> dict[str, Point]:
    """A point of each way."""
    return {
        "frozen": sweep.frozen(base)[0],
        "few-shot": sweep.few_shot(base)[0],
        **{method: next(point for point in sweep.tuned(base) if point.factors["method"] == method) for method in sweep.METHODS},
        "instruction tuning": sweep.instructed(base, 0),
        "prompt on instruction tuning": sweep.prompts_on_instructed(base)[0],
    }


def rows(base: str) -> list[dict[str, Any]]:
    """A row for each way."""
    return [{"base": base, "way": way, **counted(point)} for way, point in ways(base).items()]


def counted(point: Point) -> dict[str, int]:
    """What one point costs, from shapes alone."""
    import jax
    import jax.numpy as jnp
    from flax import nnx

    from prompt_tuning import assembly, decoding, evaluation_batches, losses, programs
    from prompt_tuning.planning import counting

    experiment = points.experiment(point, points.RUNS)
    mesh = experiment.mesh.build(jax.devices()[:1])
    built = assembly.abstract(experiment, mesh)
    program = programs.program(experiment, built)
    found = {"trained_parameters": 0, "train_steps": 0, "train_step_flops": 0}
    if point.trained:
        stage = program.step.trace(program.state, program.frozen, programs.abstract_batch(experiment, mesh))
        found = {
            "trained_parameters": sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(program.state.tuned)),
            "train_steps": experiment.train_steps,
            "train_step_flops": counting.operations(stage.jaxpr.jaxpr),
        }
    lengths = evaluation_batches.Lengths(experiment.input_length, experiment.target_length, experiment.layout)
    row = [{"inputs": [1] * experiment.input_length}]
    encoder = evaluation_batches.encoder_batch(row, experiment.input_length, lengths)
    answers = [{"inputs": [1], "targets": [1] * _ANSWER_TOKENS}] * _CHOICES
    decoder = evaluation_batches.decoder_batch(answers, experiment.input_length, _ANSWER_TOKENS, lengths)

    def answer(tuned: Any, frozen: Any, batch: Any) -> Any:
        """As `evaluation.score_choices` ranks the choices of one row."""
        model = nnx.merge(built.graphdef, tuned, frozen)
        shared = evaluation_batches.shared_columns(encoder, lengths)
        cache = decoding.encode(model, batch, length=batch["decoder_input_tokens"].shape[1], shared=shared)
        cache = decoding.take_rows(cache, jnp.zeros(_CHOICES, jnp.int32))
        logits_RTV, _ = model.decode_step(batch["decoder_input_tokens"], cache, slots_BT=batch.get("decoder_prompt_slots"))
        return losses.token_log_probs(logits_RTV, batch["decoder_target_tokens"])

    traced = jax.make_jaxpr(answer)(program.state.tuned, program.frozen, {**encoder, **decoder})
    return {**found, "answer_flops": counting.operations(traced.jaxpr)}


if __name__ == "__main__":
    main()
