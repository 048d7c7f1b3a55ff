"""A prompt of one base, made into one of another, and scored there (Lester et al. 2022)."""

import pathlib
from collections.abc import Mapping
from typing import Any

from experiments import points


def scores(point: points.Point, loaded: Any, folder: pathlib.Path, *, by: str) -> Mapping[str, Mapping[str, float]]:
    """The scores on test rows of the prompt of the run that `point.after` calls source, recycled for the base of `loaded`.

    Args:
      point: with the run of the prompt in `after`.
      loaded: the experiment of prompt tuning on the target base.
      folder: of the point, where the recycled prompt is put as `prompt.npy`.
      by: the map, see `recycled`.
    """
    import dataclasses

    import numpy as np

    from prompt_tuning import assembly, evaluation
    from prompt_tuning.methods.prompt import File, Prompt
    from prompt_tuning.methods.recycling import recycled

    source = points.experiment(point.after["source"], folder.parent)
    prompt = np.load(folder.parent / point.after["source"].name / "prompt.npy")
    # 4,000 tokens in the paper, whose vocabulary is larger; of ours, all.
    made = recycled(prompt, embedding(source), embedding(loaded), by=by, num_tokens=4000)  # type: ignore[arg-type]
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "prompt.npy", made)
    begun = dataclasses.replace(loaded, method=Prompt(length=len(made), initializer=File(str(folder / "prompt.npy"))))
    built = assembly.assemble(begun)
    lengths = evaluation.Lengths(begun.input_length, begun.target_length, begun.layout)
    settings = dataclasses.replace(begun.evaluation, split="test", max_examples=None)
    vocabulary = begun.vocabulary.load()
    tasks = evaluation.task_examples(begun.data, vocabulary, settings=settings, lengths=lengths)
    parts = (built.graphdef, built.tuned, built.frozen)
    return evaluation.evaluate(parts, tasks, settings=settings, lengths=lengths, vocabulary=vocabulary).metrics


def embedding(experiment: Any) -> Any:
    """The token embeddings [V, D] of an experiment's base, in float32."""
    import dataclasses

    import numpy as np

    from prompt_tuning import assembly
    from prompt_tuning.methods.prompt import Prompt

    built = assembly.assemble(dataclasses.replace(experiment, method=Prompt(length=1)))
    return np.asarray(built.frozen["embed"]["embedding"], np.float32)
