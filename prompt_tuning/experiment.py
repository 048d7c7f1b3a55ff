"""One run, settled in full: what the gin files choose, in one frozen dataclass, checked against itself."""

import dataclasses
import hashlib
import json
import typing
from typing import Any, Protocol

from prompt_tuning.data.features import PromptLayout
from prompt_tuning.data.mixtures import Source
from prompt_tuning.data.overlap import Guard
from prompt_tuning.data.prepared import Prepared
from prompt_tuning.data.vocabularies import Vocabulary
from prompt_tuning.errors import UserError
from prompt_tuning.evaluation import Evaluation
from prompt_tuning.losses import ChoiceLosses
from prompt_tuning.methods.base import Method
from prompt_tuning.methods.full import Full
from prompt_tuning.methods.norms import Norms
from prompt_tuning.models.decoder_layers import DecoderConfig
from prompt_tuning.models.quantized import Quantization
from prompt_tuning.models.t5 import T5Config
from prompt_tuning.models.whisper import WhisperConfig
from prompt_tuning.optimizers import Adafactor, AdamW, Schedule
from prompt_tuning.sharding import Mesh


class Settings(Protocol):
    """Any frozen dataclass of settings."""

    __dataclass_fields__: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Experiment:
    """Everything that decides a run's result.

    Attributes:
      model: the architecture.
      vocabulary: whose ids the model's embedding rows are.
      method: what is tuned.
      data: where training examples come from, and examples for evaluation unless `evaluation_data` is given.
      evaluation_data: other tasks to evaluate on, such as held-out clusters; None for those of `data`.
      base_checkpoint: a folder or file that `interop.load_base` reads; None leaves the base at random, which only `full` accepts
        unless `allow_random_base` says so aloud.
      base_quantization: what the kernels of the base's linear layers are kept in, "none" for as they are; see `models.quantized`.
      allow_random_base: tune a method over a random base (tests, plans).
      evaluation: how the dev split is scored.
      prepared: a folder of `python -m prompt_tuning.prepare`, from which the examples of both come; None reads the sources.
      overlaps: what the `train` command does about evaluation examples that the training data holds.
      optimizer, schedule: Optax, as settings.
      train_steps, batch_size: steps, and examples (rows where packed) a step over all devices.
      input_length, target_length: tokens; prompts come on top.
      packed: several examples share a row.
      length_buckets: the rows of a batch are of similar length, and padded to one of so many: the longest, half of it, a quarter and so on.
        None pads all to the longest.
      seed: of data order, dropout, the method's initialisation and a random base.
      eval_steps, checkpoint_steps, log_steps: how often; 0 is never (an evaluation and a checkpoint always end a run).
      early_stopping_evals: stop after this many evaluations without a better score; 0 is never.
      dropout_rate: of the base in training; the published prompts were trained with 0 in the architecture and 0.1 in the released configs.
      z_loss, label_smoothing: see `losses.cross_entropy`.
      choice_losses: what the wrong answer choices of training examples add to the loss; None leaves them out of training.
      gradient_clip_norm: global norm over trained parameters; None is off.
      accumulation_steps: batches whose gradients are averaged before one update.
      keep_checkpoints: latest ones kept beside the best.
      mesh: how devices share the work.
      save_base: write the tuned base as `base/` at the end, for runs that continue from it (model tuning only).
    """

    model: T5Config | DecoderConfig | WhisperConfig
    vocabulary: Vocabulary
    method: Method
    data: Source
    optimizer: Adafactor | AdamW
    schedule: Schedule = Schedule()
    evaluation: Evaluation = Evaluation()
    evaluation_data: Source | None = None
    prepared: str | None = None
    overlaps: Guard = Guard()
    base_checkpoint: str | None = None
    base_quantization: Quantization = "none"
    allow_random_base: bool = False
    train_steps: int = 1000
    batch_size: int = 32
    input_length: int = 128
    target_length: int = 32
    packed: bool = False
    length_buckets: int | None = None
    seed: int = 0
    eval_steps: int = 100
    checkpoint_steps: int = 500
    log_steps: int = 10
    early_stopping_evals: int = 0
    dropout_rate: float = 0.0
    z_loss: float = 0.0
    label_smoothing: float = 0.0
    choice_losses: ChoiceLosses | None = None
    gradient_clip_norm: float | None = None
    accumulation_steps: int = 1
    keep_checkpoints: int = 1
    mesh: Mesh = Mesh()
    save_base: bool = False

    def __post_init__(self) -> None:
        for name, least in (
            ("train_steps", 1), ("batch_size", 1), ("input_length", 2), ("target_length", 2), ("accumulation_steps", 1),
            ("keep_checkpoints", 1), ("eval_steps", 0), ("checkpoint_steps", 0), ("log_steps", 1), ("early_stopping_evals", 0), ("seed", 0),
        ):  # fmt: skip
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise UserError(f"{name}: wanted a whole number of {least} or more, got {value!r}; set --gin.{name.upper()}")
        for name in ("dropout_rate", "label_smoothing"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise UserError(f"{name}: wanted 0 or more and less than 1, got {getattr(self, name)!r}")
        if self.prepared is not None:
            for name in ("data", "evaluation_data"):
                source = getattr(self, name)
                if source is not None and not isinstance(source, Prepared):
                    object.__setattr__(self, name, Prepared(source, self.prepared))
        if self.packed and self.choice_losses is not None:
            raise UserError("packed: wanted False with experiment.Experiment.choice_losses, for the choices of an example share its row")
        if self.length_buckets is not None and (self.packed or self.length_buckets not in range(2, 9)):
            raise UserError(
                f"length_buckets: wanted 2 to 8, or None, and packed = False with it, got {self.length_buckets!r} and {self.packed!r}; "
                "set experiment.Experiment.length_buckets"
            )
        if self.early_stopping_evals and not self.eval_steps:
            raise UserError("early_stopping_evals needs evaluations; set EVAL_STEPS to more than 0")
        method = type(self.method).__name__
        if self.save_base and not isinstance(self.method, Full | Norms):
            raise UserError(
                f"save_base: wanted model tuning, for {method} leaves the base as it was; set experiment.Experiment.save_base = False"
            )
        wanted = typing.get_args(Quantization)
        if self.base_quantization not in wanted:
            raise UserError(f"base_quantization: wanted one of {list(wanted)}, got {self.base_quantization!r}; set BASE_QUANTIZATION")
        if self.save_base and self.base_quantization != "none":
            raise UserError(
                f"save_base: wanted a base in its own numbers, this one is quantized ({self.base_quantization}); "
                "set BASE_QUANTIZATION = 'none'"
            )
        if self.base_checkpoint is None and not self.allow_random_base and not isinstance(self.method, Full):
            raise UserError(
                f"no base checkpoint: {method} over random weights learns nothing; set --gin.BASE_CHECKPOINT=\"'DIR'\" "
                "(or experiment.Experiment.allow_random_base = True to do it all the same)"
            )

    @property
    def layout(self) -> PromptLayout:
        """Where the method's prompts stand, beside the vocabulary's delimiters."""
        return dataclasses.replace(self.method.layout, delimiters=self.vocabulary.delimiters)

    @property
    def trained_model(self) -> T5Config | DecoderConfig | WhisperConfig:
        """The architecture with this run's dropout, and quantized layers in a loop unless the model's settings say otherwise."""
        # Unrolled, XLA on a CPU makes the numbers of every layer's kernels before it takes the first product.
        scanned = False if self.base_quantization != "none" and self.model.unroll_layers is None else self.model.unroll_layers
        return dataclasses.replace(self.model, dropout_rate=self.dropout_rate, unroll_layers=scanned)


def resolved(settings: Any) -> Any:
    """A tree of plain JSON values that says every setting: a dataclass becomes a dict of its class's name and fields."""
    if dataclasses.is_dataclass(settings) and not isinstance(settings, type):
        fields = {field.name: resolved(getattr(settings, field.name)) for field in dataclasses.fields(settings)}
        return {"class": f"{type(settings).__module__}.{type(settings).__qualname__}"} | fields
    if isinstance(settings, dict):
        return {str(key): resolved(value) for key, value in settings.items()}
    if isinstance(settings, list | tuple):
        return [resolved(value) for value in settings]
    if settings is None or isinstance(settings, str | int | float | bool):
        return settings
    return repr(settings)


def digest(settings: Any) -> str:
    """A short hash of settings, the same on any machine."""
    return hashlib.sha256(json.dumps(resolved(settings), sort_keys=True).encode()).hexdigest()[:12]
