"""Puts the model, the checkpoint and the method of an experiment together, once."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
from flax import nnx

from prompt_tuning import assets, checkpoints, interop, sharding, trainable
from prompt_tuning.data import vocabularies
from prompt_tuning.errors import UserError
from prompt_tuning.experiment import Experiment
from prompt_tuning.models import quantized
from prompt_tuning.models.decoder import Decoder, DecoderConfig
from prompt_tuning.models.quantized import Quantization
from prompt_tuning.models.t5 import T5, T5Config
from prompt_tuning.models.whisper import Whisper, WhisperConfig

# T5's embeddings are padded to a multiple of 128 rows: a vocabulary may be smaller by less than that. Those of decoder-only models have
# more rows to spare, up to the 2,384 of 102,400 of DeepSeek-V2-Lite.
_PADDING_ROWS = 128
_DECODER_PADDING = 1 / 32
_RANDOM = "random: normal initialisation"
# Where a base's values come from in `abstract`.
UNREAD = "shape alone"

ModelConfig = T5Config | DecoderConfig | WhisperConfig


@dataclasses.dataclass(frozen=True)
class Assembly:
    """A model ready to train or to run.

    Attributes:
      graphdef: the model without its arrays; `nnx.merge(graphdef, tuned, frozen)` is the model.
      tuned, frozen: nested dicts of arrays on the mesh, or of their shapes (`abstract`).
      places: the sharding of every parameter, by name.
      rows: the audit table.
      base: what the frozen weights are, for checkpoints.
      mesh: the devices.
    """

    graphdef: Any
    tuned: dict[str, Any]
    frozen: dict[str, Any]
    places: dict[str, jax.sharding.NamedSharding]
    rows: tuple[trainable.Row, ...]
    base: checkpoints.Base
    mesh: jax.sharding.Mesh


def random_base(config: ModelConfig, *, seed: int, quantization: Quantization = "none") -> T5 | Decoder | Whisper:
    """The model of an architecture with random values."""
    rngs = nnx.Rngs(params=seed)
    model: T5 | Decoder | Whisper
    match config:
        case DecoderConfig():
            model = Decoder(config, rngs)
        case WhisperConfig():
            model = Whisper(config, rngs)
        case _:
            model = T5(config, rngs)
    quantized.quantize(model, quantization)
    return model


def abstract_base(config: ModelConfig, *, quantization: Quantization = "none") -> T5 | Decoder | Whisper:
    """The model's shapes, without values."""
    return nnx.eval_shape(lambda: random_base(config, seed=0, quantization=quantization))


def audit(experiment: Experiment) -> tuple[trainable.Row, ...]:
    """The audit table without any weights in memory: shapes only, and the checkpoint's index of entries."""
    vocabulary = check_vocabulary(experiment)
    model = abstract_base(experiment.trained_model)
    sources = dict.fromkeys((name for name, _ in trainable.named_variables(model)), _RANDOM)
    if experiment.base_checkpoint is not None:
        sources = interop.base_sources(assets.resolve(experiment.base_checkpoint), experiment.model, _abstract_arrays(model))
    quantized.name_sources(sources, quantized.linears(model), experiment.base_quantization)
    model, found = _attached(experiment, vocabulary)
    return trainable.audit(model, experiment.method.trainable, sources | found)


def abstract(experiment: Experiment, mesh: jax.sharding.Mesh) -> Assembly:
    """The assembly of an experiment from shapes alone, `jax.ShapeDtypeStruct`s that say where each lies: no checkpoint is read, no array
    made, and the mesh may be one of devices that are not there."""
    model, found = _attached(experiment, LateVocabulary(experiment))
    sources = {name: UNREAD for name, _ in trainable.named_variables(model)} | found
    rows = trainable.audit(model, experiment.method.trainable, sources)
    graphdef, places, tuned, frozen = _split(model, experiment, mesh)
    tuned, frozen = (
        trainable.nested({name: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=places[name]) for name, x in state.items()})
        for state in (tuned, frozen)
    )
    return Assembly(graphdef, tuned, frozen, places, rows, checkpoints.Base("shapes alone", ""), mesh)


def _split(
    model: nnx.Module, experiment: Experiment, mesh: jax.sharding.Mesh
) -> tuple[Any, dict[str, jax.sharding.NamedSharding], dict[str, Any], dict[str, Any]]:
    """The graph definition, where every parameter lies, and by name what is tuned and what is frozen."""
    graphdef, *states = trainable.split(model, experiment.method.trainable)
    places: dict[str, jax.sharding.NamedSharding] = {}
    for state in states:
        places |= sharding.of_state(state, mesh, fsdp=experiment.mesh.fsdp)
    tuned, frozen = (trainable.named(nnx.to_pure_dict(state)) for state in states)
    return graphdef, places, tuned, frozen


def _attached(experiment: Experiment, vocabulary: Any) -> tuple[T5 | Decoder | Whisper, trainable.Sources]:
    """The shapes of the model with the method attached, and where the method's values come from."""
    found: dict[str, str] = {}

    def attached() -> T5 | Decoder | Whisper:
        # Values are needed to trace, not to know the shapes: a fresh base stands in for the checkpoint.
        fresh = random_base(experiment.trained_model, seed=0, quantization=experiment.base_quantization)
        found.update(experiment.method.attach(fresh, jax.random.key(0), vocabulary=vocabulary))
        return fresh

    return nnx.eval_shape(attached), found


class LateVocabulary:
    """A vocabulary that is read, with the seconds of TensorFlow's import, only where an initialiser asks for it."""

    def __init__(self, experiment: Experiment):
        self._experiment = experiment

    def encode(self, text: str) -> list[int]:
        """Token ids."""
        return list(check_vocabulary(self._experiment).encode(text))


def assemble(experiment: Experiment) -> Assembly:
    """The model with the base's values and the method attached.

    Reads the vocabulary only if the method's initialiser needs it: `check_vocabulary` is the caller's. Raises UserError where the
    checkpoint does not fill the model exactly, or the method finds nothing to train.
    """
    return assemble_several([experiment])[0]


def assemble_several(experiments: Sequence[Experiment]) -> list[Assembly]:
    """The assemblies of experiments that have the same base: it is read once, and all share its arrays. Raises as `assemble`."""
    mesh = experiments[0].mesh.build()
    graphdef, values, sources, source = _base(experiments[0], mesh)
    placed: dict[str, jax.Array] = {}  # What stays frozen as the base has it.
    found: list[Assembly] = []
    for experiment in experiments:
        model = nnx.merge(graphdef, trainable.nested(values))
        method_key, _ = jax.random.split(jax.random.key(experiment.seed))
        own = sources | experiment.method.attach(model, method_key, vocabulary=LateVocabulary(experiment))
        rows = trainable.audit(model, experiment.method.trainable, own)
        split, places, tuned, frozen = _split(model, experiment, mesh)
        for name, value in frozen.items():
            if value is not values.get(name):
                frozen[name] = sharding.put(value, places[name])
            else:
                if name not in placed:
                    placed[name] = sharding.put(values[name], places[name])
                frozen[name] = placed[name]
        tuned = {name: sharding.put(value, places[name]) for name, value in tuned.items()}
        if found and all(value is trainable.named(found[0].frozen).get(name) for name, value in frozen.items()):
            fingerprint = found[0].base.fingerprint
        else:
            fingerprint = checkpoints.fingerprint(frozen) if frozen else ""
        base = checkpoints.Base(source, fingerprint)
        found.append(Assembly(split, trainable.nested(tuned), trainable.nested(frozen), places, rows, base, mesh))
    return found


def _base(experiment: Experiment, mesh: jax.sharding.Mesh) -> tuple[Any, dict[str, jax.Array], trainable.Sources, str]:
    """The base of an experiment: its graph definition, its values by name, where each came from, and where all of them did."""
    config, quantization = experiment.trained_model, experiment.base_quantization
    model = abstract_base(config)
    kernels = list(quantized.linears(model))
    if experiment.base_checkpoint is None:
        _, base_key = jax.random.split(jax.random.key(experiment.seed))
        base_seed = int(jax.random.randint(base_key, (), 0, 2**31 - 1))
        sources = dict.fromkeys((name for name, _ in trainable.named_variables(model)), _RANDOM)
        graphdef, state = nnx.split(jax.jit(lambda: random_base(config, seed=base_seed, quantization=quantization))())
        values, source = trainable.named(nnx.to_pure_dict(state)), f"{_RANDOM}, seed {experiment.seed}"
    else:
        read, sources = interop.load_base(assets.resolve(experiment.base_checkpoint), experiment.model, _abstract_arrays(model))
        quantized.quantize_named(read, kernels, quantization)
        graphdef, state = nnx.split(abstract_base(config, quantization=quantization))
        places = sharding.of_state(state, mesh, fsdp=experiment.mesh.fsdp)
        values = {name: sharding.put(value, places[name]) for name, value in read.items()}
        # A checkpoint's name alone is written into runs, so that a folder can be moved without changing what its runs are.
        source = experiment.base_checkpoint
    quantized.name_sources(sources, kernels, quantization)
    return graphdef, values, sources, source


def check_vocabulary(experiment: Experiment) -> Any:
    """The SeqIO vocabulary.

    Raises UserError where it is not the model's: larger, smaller by more than an embedding is padded by, or without T5's start token.
    """
    vocabulary = experiment.vocabulary.load()
    size, rows = vocabulary.vocab_size, experiment.model.vocab_size
    joint = vocabularies.delimiters(vocabulary).start is None
    if joint and isinstance(experiment.model, T5Config):
        raise UserError(
            f"vocabulary {experiment.vocabulary} is a decoder-only model's, and the model is a T5; "
            "take vocabularies.SentencePiece or vocabularies.Bytes"
        )
    padding = max(_PADDING_ROWS, int(rows * _DECODER_PADDING)) if joint else _PADDING_ROWS
    if not rows - padding < size <= rows:
        which = "larger" if size > rows else "smaller"
        raise UserError(
            f"vocabulary {experiment.vocabulary} is {which} than the model's: wanted {max(1, rows - padding + 1)} to {rows} ids, "
            f"got {size}; give the model's own vocabulary (VOCABULARY) and number of extra_ids"
        )
    return vocabulary


def _abstract_arrays(model: nnx.Module) -> dict[str, jax.ShapeDtypeStruct]:
    return {name: jax.ShapeDtypeStruct(v.get_value().shape, v.get_value().dtype) for name, v in trainable.named_variables(model)}
