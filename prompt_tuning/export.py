"""Writes what a run trained in a form that other programs read.

  python -m prompt_tuning.export --workdir=runs/sst2 --format=peft --target=adapters/sst2

| --format | what the target folder gets |
|---|---|
| peft | an adapter of the PEFT library: `adapter_config.json`, `adapter_model.safetensors`; the base stays where it is |
| huggingface | the whole model as transformers reads it, LoRA and IA3 folded into its weights: `config.json`, `model.safetensors` |
| npy | the prompt alone, `prompt.npy`, float32 [P, D] |

Methods that were trained together are an adapter each, in folders such as `1_lora` and `2_prompt_tuning`: PEFT loads them in that order,
each folded in (`merge_and_unload`) before the next.

It takes the run's best checkpoint (or --checkpoint=latest; base exports the base itself), with the run's own configuration where no gin
file is given. What the form cannot hold is an error that says why. The target must be new or empty.
"""

import argparse
import dataclasses
import json
import pathlib
import shutil
import sys
from typing import TYPE_CHECKING, Any

from prompt_tuning import cli, evaluate, files
from prompt_tuning.errors import UserError

if TYPE_CHECKING:
    from prompt_tuning.experiment import Experiment
    from prompt_tuning.methods.base import Method

# A tokenizer's files, which a merged folder takes along from a base that has them.
_TOKENIZER = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "spiece.model",
    "special_tokens_map.json",
    "vocab.json",
    "merges.txt",
)


def main(argv: list[str] | None = None) -> None:
    """The command."""
    fallbacks = (*evaluate.FALLBACKS, "experiment.Experiment.data = None")
    cli.main(_run, __doc__, extra_flags=_flags, fallbacks=fallbacks, argv=argv)


def _flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--format", choices=("peft", "huggingface", "npy"), required=True, help="see above")
    parser.add_argument("--target", metavar="DIR", required=True, help="a new or empty folder")
    evaluate.add_checkpoint_flag(parser)


def _run(experiment: "Experiment", flags: argparse.Namespace) -> None:
    from flax import nnx

    from prompt_tuning.methods.full import Full

    with files.new_folder(flags.target, flag="--target") as folder:
        loaded = evaluate.load(experiment, workdir=flags.workdir, checkpoint=flags.checkpoint)
        if loaded.checkpoint == "base":
            experiment = dataclasses.replace(experiment, method=Full())
        if flags.format == "peft":
            _check_place(experiment)
        model = nnx.merge(*loaded.parts)
        {"peft": write_peft, "huggingface": write_huggingface, "npy": write_npy}[flags.format](folder, model, experiment)
    print(f"wrote {', '.join(sorted(path.name for path in pathlib.Path(flags.target).iterdir()))} into {flags.target}", file=sys.stderr)


def _check_place(experiment: "Experiment") -> None:
    """Raises UserError for a prompt behind BOS: PEFT's stands before it."""
    layout = experiment.layout
    if layout.encoder_length and layout.placement == "before" and layout.delimiters.bos is not None:
        raise UserError(
            "PEFT puts a prompt before BOS, and this one was trained behind it: train with prompt.Prompt.placement = 'first', "
            "or use --format=npy"
        )


def write_peft(folder: pathlib.Path, model: Any, experiment: "Experiment") -> None:
    """Writes what the model trains beside its base as a PEFT adapter, or one for each of several methods, in folders numbered in the order
    in which PEFT is to load them; the model may be changed. Raises UserError where PEFT has no like."""
    from prompt_tuning.interop import adapter_files, peft

    base, adapters = _base_folder(experiment), []
    for part, method in _parts(model, experiment):
        method = _as_peft_has_it(part, method, experiment)
        adapters.append(peft.to_adapter(part, method, base=base))
    # A scale is of what changes its kernel too, and a prompt stands on the weights as they are then.
    adapters.sort(key=lambda adapter: {"LORA": 0, "IA3": 1}.get(adapter.kind, 2))
    if len(before := [adapter.kind for adapter in adapters if adapter.kind not in ("LORA", "IA3")]) > 1:
        raise UserError(f"{' and '.join(before)}: PEFT puts one prompt or prefix on a model; train one of them, or use --format=npy")
    for number, adapter in enumerate(adapters, start=1):
        own = folder / f"{number}_{adapter.kind.lower()}" if len(adapters) > 1 else folder
        own.mkdir(exist_ok=True)
        adapter_files.write(own, adapter)


def _parts(model: Any, experiment: "Experiment") -> "list[tuple[Any, Method]]":
    """Each method of those that are together, on a model of its own that holds what it trains and the base as it is now."""
    import jax
    from flax import nnx

    from prompt_tuning import assembly, trainable
    from prompt_tuning.methods.together import Together

    if not isinstance(experiment.method, Together):
        return [(model, experiment.method)]
    vocabulary = assembly.LateVocabulary(experiment)
    values = {name: variable.get_value() for name, variable in trainable.named_variables(model)}

    def alone(method: "Method") -> Any:
        def attached() -> Any:
            fresh = assembly.random_base(experiment.trained_model, seed=0, quantization=experiment.base_quantization)
            method.attach(fresh, jax.random.key(0), vocabulary=vocabulary)
            return fresh

        part = nnx.eval_shape(attached)
        for name, variable in trainable.named_variables(part):
            variable.set_value(values[name])
        return part

    return [(alone(method), method) for method in experiment.method.methods]


def _as_peft_has_it(model: Any, method: "Method", experiment: "Experiment") -> "Method":
    """The method as which PEFT can hold what the model trains, with the model changed to fit it."""
    from prompt_tuning.methods import prefix
    from prompt_tuning.methods.from_peft import FromPeft
    from prompt_tuning.methods.full import Full
    from prompt_tuning.methods.pissa import Pissa
    from prompt_tuning.methods.prompt import Prompt

    if isinstance(method, FromPeft):
        method = method.method(model)
    if isinstance(method, Full):
        raise UserError(
            "a PEFT adapter holds what stands beside the base, and here the base itself is what there is: use --format=huggingface"
        )
    if isinstance(method, Prompt):
        return _one_prompt(model, method)
    if isinstance(method, prefix.Prefix) and method.hidden is not None:
        prefix.drop_network(model)
    if type(method) is Pissa:
        return _on_the_whole_base(model, method, experiment)
    return method


def _one_prompt(model: Any, method: Any) -> "Method":
    """A plain prompt of the rows that the method's prompt comes to, whatever makes them."""
    from prompt_tuning import trainable
    from prompt_tuning.methods.prompt import Prompt, PromptRows
    from prompt_tuning.models.layers import Tunable

    name, layout = type(method).__name__, method.layout
    added = [path for path, variable in trainable.named_variables(model) if isinstance(variable, Tunable)]
    if hasattr(model.embed.prompt, "among") or not all(path.startswith("embed/prompt/") for path in added):
        raise UserError(f"{name} does more than put the same rows before every input, which is all that PEFT's prompts do")
    rows_PD = model.embed.prompt()
    if len(rows_PD) != layout.encoder_length + layout.decoder_length:
        raise UserError(f"{name} holds the prompts of several tasks, {len(rows_PD)} rows in all, and PEFT's adapter one: use --format=npy")
    model.embed.prompt = PromptRows(rows_PD)
    return Prompt(length=method.length, stacks=method.stacks, placement=method.placement)


def _on_the_whole_base(model: Any, method: Any, experiment: "Experiment") -> "Method":
    """PiSSA as LoRA of twice the rank over the base as it was: what is trained, less what it began as (PiSSA's own conversion).

    s A B - s A0 B0 = s [A, A0] [B; -B0]; alpha grows with the rank so that s stays.
    """
    import jax.numpy as jnp

    from prompt_tuning import assembly, trainable
    from prompt_tuning.methods import sites
    from prompt_tuning.methods.lora import Lora, LowRank
    from prompt_tuning.models.layers import Linear

    first = trainable.named(assembly.assemble(experiment).tuned)
    for name, linear in sites.modules(model, Linear).items():
        if not isinstance(linear.delta, LowRank):
            continue
        delta: Any = linear.delta
        begun = {part: jnp.asarray(first[f"{name}/delta/{part}"]) for part in ("down", "up")}
        delta.down.set_value(jnp.concatenate([delta.down[...], begun["down"]], axis=-1))
        delta.up.set_value(jnp.concatenate([delta.up[...], -begun["up"]], axis=-2))
    factor = 2**0.5 if method.rank_stabilized else 2
    changed = {field.name: getattr(method, field.name) for field in dataclasses.fields(method)}
    return Lora(**changed | {"rank": 2 * method.rank, "alpha": factor * method.alpha})


def write_huggingface(folder: pathlib.Path, model: Any, experiment: "Experiment") -> None:
    """Writes the whole model as transformers reads it, changing it. Raises UserError for what cannot be folded into its weights."""
    import numpy as np
    import safetensors.numpy

    from prompt_tuning import trainable
    from prompt_tuning.interop import decoders, huggingface, whisper
    from prompt_tuning.interop.config_json import config_json
    from prompt_tuning.methods import ia3, lora, sites
    from prompt_tuning.models.layers import Tunable
    from prompt_tuning.models.whisper import WhisperConfig

    about = config_json(experiment.model)
    if any(isinstance(getattr(module, "delta", None), lora.LowRank) for module in sites.modules(model, lora.Linear).values()):
        lora.merge(model)
    added = {name for name, variable in trainable.named_variables(model) if isinstance(variable, Tunable)}
    if any(name.endswith("scale/scale") for name in added):
        ia3.merge(model)
    variables = dict(trainable.named_variables(model))
    if left := [name for name, variable in variables.items() if isinstance(variable, Tunable)]:
        prompt = all(name.startswith("embed/prompt/") for name in left)
        advice = "export it as --format=peft or --format=npy" if prompt else "export it as --format=peft, if PEFT has its like"
        raise UserError(f"{left[0]} stands beside the model's weights and cannot be folded into them: {advice}")
    params = {name: np.asarray(variable.get_value()) for name, variable in variables.items()}
    if isinstance(experiment.model, WhisperConfig):
        named = whisper.to_huggingface(params, source_positions=experiment.model.source_positions)
    else:
        named = (huggingface if hasattr(model, "encoder") else decoders).to_huggingface(params)
    safetensors.numpy.save_file(named, folder / "model.safetensors", metadata={"format": "pt"})
    base = _base_folder(experiment)
    if base is not None:
        stated = json.loads((pathlib.Path(base) / "config.json").read_text("utf-8"))
        about |= {key: value for key, value in stated.items() if key.endswith("_token_id")}
        for name in _TOKENIZER:
            if (pathlib.Path(base) / name).is_file():
                shutil.copyfile(pathlib.Path(base) / name, folder / name)
    (folder / "config.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")


def write_npy(folder: pathlib.Path, model: Any, experiment: "Experiment") -> None:
    """Writes the rows of the model's prompt. Raises UserError where it has none."""
    from prompt_tuning import checkpoints, trainable

    prompt, name = getattr(model.embed, "prompt", None), type(experiment.method).__name__
    if prompt is None:
        raise UserError(f"{name} has no prompt to write; wanted a run with one: use --format=peft or --format=huggingface")
    deeper = [path for path, _ in trainable.named_variables(model) if "/layers/prompt/" in path]
    if hasattr(prompt, "among") or deeper:
        raise UserError(f"{name} does more than put rows before the input: prompt.npy could not say what it does")
    checkpoints.save_prompt_npy(folder / "prompt.npy", prompt())


def _base_folder(experiment: "Experiment") -> str | None:
    """The base's folder where it is one of Hugging Face's, which other programs can read."""
    from prompt_tuning import assets

    if experiment.base_checkpoint is None:
        return None
    folder = pathlib.Path(assets.resolve(experiment.base_checkpoint)).expanduser()
    try:
        stated = json.loads((folder / "config.json").read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return str(folder) if isinstance(stated, dict) and "model_type" in stated else None


if __name__ == "__main__":
    main()
