"""The six source tasks of ATTEMPT and MPT, in T5's formats, from TFDS."""

from prompt_tuning.data.instructions.templated import Templated
from prompt_tuning.data.mixtures import Mixture
from prompt_tuning.data.tasks.glue import Glue
from prompt_tuning.data.tasks.instructions import Instructions
from prompt_tuning.data.tasks.superglue import SuperGlue


def mixture(*, cap: int | None = None, data_dir: str | None = None, seed: int = 0) -> Mixture:
    """MNLI, QNLI, QQP, SST-2, SQuAD and ReCoRD, in the order of their teachers (Wang et al. 2023).

    Args:
      cap: no example of a task beyond so many adds to its share.
      data_dir: the TFDS folder; None is TFDS's own.
      seed: of what is drawn.
    """
    glue = [Glue(name, data_dir=data_dir, seed=seed) for name in ("mnli", "qnli", "qqp", "sst2")]
    squad = Instructions(
        name="squad",
        format=Templated("configs/papers/lester2021/reading.yaml", columns={"answers": "answers.text"}, data_dir=data_dir),
        train_files="tfds:squad/v1.1:3.0.0#train",
        validation_files="tfds:squad/v1.1:3.0.0#validation",
        seed=seed,
    )
    return Mixture((*glue, squad, SuperGlue("record", data_dir=data_dir, seed=seed)), cap=cap)
