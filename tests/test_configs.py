"""Every gin file under configs/ parses, builds and takes two steps at tiny size."""

import csv
import dataclasses
import functools
import json
import math
import pathlib

import numpy as np
import pytest

from prompt_tuning import assembly, cli, experiment, trainable, training
from prompt_tuning.data import decoder_vocabularies, vocabularies
from prompt_tuning.data.tasks import world
from prompt_tuning.interop import adapter_files
from prompt_tuning.models import decoder_sizes
from prompt_tuning.models.decoder_layers import DecoderConfig
from tests.data.tasks.test_mmlu_and_bbh import bbh_folder, mmlu_folder
from tests.data.test_decoder_vocabularies import tokenizer_json
from tests.shared import shared_path

ROOT = pathlib.Path(__file__).resolve().parents[1]
MODEL, METHOD = "configs/models/t5_nano.gin", "configs/methods/prompt.gin"
WORLD = world.World(task_list=("sentiment_review",), num_train=8, num_validation=2, num_test=2)
# For a part alone: a model needs no data to be built, and none of these needs its weights.
NO_DATA = ("experiment.Experiment.data = None", "experiment.Experiment.allow_random_base = True")
# What a file leaves to its user; FOLDER is one of the test's own.
NEEDED = {
    "configs/methods/from_peft.gin": ("ADAPTER = 'FOLDER/adapter'",),
    "configs/methods/attempt.gin": ("SOURCE_PROMPTS = ['FOLDER/one.npy', 'FOLDER/two.npy']",),
    "configs/data/files.gin": (
        "TRAIN_FILES = 'rows.tsv'",
        "VALIDATION_FILES = ['rows.tsv']",
        "INPUT_COLUMN = 'sentence'",
        "TARGET_COLUMN = 'label'",
        "ANSWER_CHOICES = ['even', 'odd']",
        "TEMPLATE = 'number: {sentence}'",
    ),
    "configs/data/instructions.gin": ("TRAIN_FILES = 'rows.jsonl'", "FORMAT = 'chat'", "CHAT = 'chatml'"),
    "configs/data/templated.gin": ("TRAIN_FILES = 'rows.tsv'", "TEMPLATES = 'sst2'"),
    "configs/data/every_template.gin": ("TRAIN_FILES = 'rows.tsv'", "TEMPLATES = 'sst2'"),
    "configs/data/mmlu.gin": ("MMLU_DIR = 'mmlu'", "MMLU_SUBJECTS = 'virology'"),
    "configs/data/bbh.gin": ("BBH_DIR = 'bbh'", "BBH_TASKS = 'snarks'"),
    "configs/data/super_natural.gin": ("TRAIN_FILES = 'task.json'",),
    "configs/papers/lester2021/mrqa.gin": ("TRAIN_FILES = 'tfds:mrqa/squad#train'",),  # It has test files only.
    "configs/papers/lester2021/prompt.gin": ("CLASS_LABELS = ('negative', 'positive')",),
    "configs/papers/lester2021/sentinel.gin": ("after_sentinel.AfterSentinel.source = @world.World()",),
    "configs/papers/flan2021/mixture.gin": ("DATASETS = ['rte', 'sst2', 'wic']",),  # All of them: tests/data/tasks/test_flan2021.py.
    "configs/papers/flan2021/every_template.gin": ("DATASETS = ['rte', 'sst2', 'wic']",),
    "configs/papers/flan2021/zero_shot.gin": ("DATASETS = ['rte', 'sst2', 'wic']",),
    "configs/papers/flan2022/mixture.gin": ("DATASETS = ['rte', 'wic']", "WEIGHTS = (0.5, 0, 0, 0.5, 0)", "COT_FILES = 'FOLDER/cot.tsv'"),
    "configs/papers/chung2022/tasks.gin": ("DATASETS = ['rte', 'wic']", "WEIGHTS = (0.5, 0, 0, 0.5, 0)", "COT_FILES = 'FOLDER/cot.tsv'"),
    "configs/papers/spot2022/target.gin": ("SOURCE_PROMPT = 'FOLDER/one.npy'",),
    "configs/papers/spot2022/retrieval.gin": (
        "TARGET_PROMPT = 'FOLDER/one.npy'",
        "SOURCE_PROMPTS = ['FOLDER/one.npy', 'FOLDER/two.npy']",
        "TOP = 2",
    ),
    "configs/papers/t0/mixture.gin": ("TRAIN_FILES = 'FOLDER/trec_a.jsonl'",),
    "configs/papers/t0/evaluate.gin": ("TRAIN_FILES = 'FOLDER/super_glue_rte_a.jsonl'",),
    "configs/papers/super_ni/mixture.gin": (
        "TRAIN_FILES = 'FOLDER/task*.json'",
        "TRAIN_TASKS = 'FOLDER/train_tasks.txt'",
        "HELD_OUT = 'FOLDER/test_tasks.txt'",
    ),
}
# What a file with data of its own says to name before it.
BEFORE = {
    "configs/papers/flan2021/mixture.gin": (),
    "configs/papers/lester2021/mrqa.gin": ("configs/papers/lester2021/squad.gin",),
    "configs/papers/lester2021/model_tuning.gin": ("configs/data/boolq.gin",),
    "configs/papers/lester2021/multitask.gin": (),
    "configs/papers/lester2021/paraphrase.gin": ("configs/papers/lester2021/prompt.gin",),
    "configs/papers/lester2021/squad.gin": (),
    "configs/papers/flan2021/zero_shot.gin": ("configs/papers/flan2021/mixture.gin",),
    "configs/papers/flan2021/every_template.gin": ("configs/papers/flan2021/mixture.gin", "configs/papers/flan2021/zero_shot.gin"),
    "configs/papers/flan2022/mixture.gin": (),
    "configs/papers/chung2022/tasks.gin": ("configs/papers/flan2022/mixture.gin",),
    "configs/papers/t0/mixture.gin": (),
    "configs/papers/t0/evaluate.gin": ("configs/papers/t0/mixture.gin",),
    "configs/papers/super_ni/mixture.gin": ("configs/data/super_natural.gin",),
    **{
        f"configs/papers/{path}.gin": ("configs/data/templated.gin",)
        for path in (
            "tfew2022/few_shot",
            *(f"{paper}/{name}" for paper in ("prefix2021", "lora2021") for name in ("e2e", "webnlg", "dart")),
        )
    },
    "configs/papers/lora2021/mnli_low_data.gin": ("configs/data/mnli.gin",),
    "configs/papers/ptuning2021/superglue.gin": ("configs/data/rte.gin",),
    "configs/papers/ptuning2021/few_shot.gin": ("configs/data/rte.gin", "configs/papers/ptuning2021/superglue.gin"),
    "configs/papers/ptuning_v2_2022/boolq.gin": ("configs/data/boolq.gin",),
    "configs/papers/houlsby2019/glue.gin": ("configs/data/mrpc.gin",),
    "configs/papers/khashabi2022/wayward.gin": ("configs/methods/wayward.gin", "configs/data/sst2.gin"),
    "configs/papers/mpt2023/source.gin": ("configs/methods/mpt.gin",),
    "configs/papers/vu2022b/wiki_lingua.gin": (),
}


NATURAL_TASK = {
    "Definition": ["Odd or even?"],
    "Positive Examples": [],
    "Negative Examples": [],
    "Instances": [{"input": str(i), "output": [str(i % 2)]} for i in range(4)],
}


def mocked_downloads():
    """TensorFlow Datasets' own builders, with random examples in place of downloaded ones."""
    import tensorflow_datasets as tfds

    return tfds.testing.mock_data(num_examples=4)


def named(folder):
    """The gin files of a folder, as a user writes them."""
    return [str(path.relative_to(ROOT)) for path in sorted((ROOT / "configs" / folder).rglob("*.gin"))]


# A decoder's own kinds of layers stay: grouped queries, windows, latent attention, mixtures; each with at least one plain layer before.
DECODER = {
    "d_model": 8,
    "d_ff": 8,
    "num_layers": 3,
    "num_heads": 4,
    "head_width": 4,
    "max_positions": 64,
    "window": 4,
    "latent_width": 4,
    "latent_query_width": 4,
    "rope_width": 2,
    "value_width": 4,
    "experts": 4,
    "experts_per_token": 2,
    "expert_width": 4,
    "dense_layers": 1,
    "router_groups": 2,
    "router_top_groups": 1,
}


def tiny_decoder(model):
    """A decoder-only model with every size that it has cut down."""
    smaller = {name: min(size, getattr(model, name)) for name, size in DECODER.items()}
    smaller["num_kv_heads"] = 4 if model.num_kv_heads == model.num_heads else 2
    kinds = model.layer_kinds if len(model.layer_kinds) <= 3 else "LG"
    return dataclasses.replace(model, vocab_size=2048, layer_kinds=kinds, unroll_layers=False, **smaller)


@functools.cache
def decoder_vocabulary(vocabulary, folder):
    """A small vocabulary of the same kind, as published ones are not at hand."""
    if isinstance(vocabulary, decoder_vocabularies.SentencePiece):
        return dataclasses.replace(vocabulary, path="bundled:world.model")
    special = [token for token in (vocabulary.eos, vocabulary.bos) if token is not None]
    own = folder / f"ends with {special[0].strip('<|｜>')}"
    own.mkdir()
    return dataclasses.replace(vocabulary, path=str(tokenizer_json(own, special=special)))


def tiny(built, folder=None, **changes):
    """The experiment with every size cut down; what kind of model, method and data it is stays.

    `folder` is where a small vocabulary is put for a decoder-only model.
    """
    bundled = str(getattr(built.vocabulary, "path", "")).startswith("bundled:")  # T5's own vocabularies are not at hand.
    if isinstance(built.model, DecoderConfig):
        model, vocabulary = tiny_decoder(built.model), decoder_vocabulary(built.vocabulary, folder)
    else:
        vocabulary = built.vocabulary if bundled else vocabularies.Bytes()
        model = dataclasses.replace(
            built.model,
            vocab_size=2048 if bundled else 384,
            d_model=8,
            d_ff=8,
            num_heads=2,
            d_kv=4,
            num_encoder_layers=2,
            num_decoder_layers=2,
            unroll_layers=False,
        )
    small = {
        "model": model,
        "vocabulary": vocabulary,
        "base_checkpoint": None,
        "allow_random_base": True,
        "batch_size": 2,
        "input_length": 16,
        "target_length": 8,
    }
    if hasattr(built.method, "length"):
        small["method"] = dataclasses.replace(built.method, length=3)
    return dataclasses.replace(built, **(small | changes))


def two_steps(small):
    """Builds the experiment and takes two steps; gives the losses."""
    built = assembly.assemble(small)
    ready = training.trainer(small, built)
    state, losses = ready.state, []
    with training.batches(small, start_step=0) as batches:
        for _ in range(2):
            state, metrics = ready.step(state, built.frozen, training.on_devices(next(batches), built.mesh))
            losses.append(float(metrics["loss"]))
    assert int(state.step) == 2
    return losses


@functools.cache
def losses_of(digest):
    """Two steps of an experiment that is at tiny size the same as another's are not taken again."""
    return two_steps(_EXPERIMENTS[digest])


_EXPERIMENTS = {}


def check(small):
    digest = experiment.digest(small)
    _EXPERIMENTS[digest] = small
    assert all(math.isfinite(loss) for loss in losses_of(digest))


# Of a family of decoder-only models one file is left to the fast tests.
SLOW_MODELS = set(decoder_sizes.SIZES) - {"gpt2_medium", "llama_3_2_1b", "mistral_7b_v0_1", "gemma_3_270m", "qwen_2_5_0_5b", "qwen_3_0_6b"}


@pytest.fixture(scope="module")
def vocabulary_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("vocabulary")


@pytest.mark.parametrize(
    "path", [pytest.param(path, marks=pytest.mark.slow if pathlib.Path(path).stem in SLOW_MODELS else ()) for path in named("models")]
)
def test_model_files_train(path, vocabulary_folder):
    built = cli.load_experiment([path, METHOD], ["BASE_CHECKPOINT = None"], fallbacks=NO_DATA)
    check(tiny(built, vocabulary_folder, data=WORLD))


# Of decoder-only models as their pages state them, a tied head counted once. DeepSeek-V3's says "671B", and that of Gemma 3 4B counts 420
# million more, which read images.
PUBLISHED_COUNTS = {
    "gpt2": 124_439_808,
    "gpt2_medium": 354_823_168,
    "gpt2_large": 774_030_080,
    "gpt2_xl": 1_557_611_200,
    "llama_2_7b": 6_738_415_616,
    "llama_2_13b": 13_015_864_320,
    "llama_2_70b": 68_976_648_192,
    "llama_3_8b": 8_030_261_248,
    "llama_3_70b": 70_553_706_496,
    "llama_3_1_8b": 8_030_261_248,
    "llama_3_1_70b": 70_553_706_496,
    "llama_3_2_1b": 1_235_814_400,
    "llama_3_2_3b": 3_212_749_824,
    "mistral_7b_v0_1": 7_241_732_096,
    "mistral_7b_v0_3": 7_248_023_552,
    "gemma_2b": 2_506_172_416,
    "gemma_7b": 8_537_680_896,
    "gemma_2_2b": 2_614_341_888,
    "gemma_2_9b": 9_241_705_984,
    "gemma_2_27b": 27_227_128_320,
    "gemma_3_270m": 268_098_176,
    "gemma_3_1b": 999_885_952,
    "gemma_3_4b": 3_880_263_168,
    "qwen_2_5_0_5b": 494_032_768,
    "qwen_2_5_1_5b": 1_543_714_304,
    "qwen_2_5_3b": 3_085_938_688,
    "qwen_2_5_7b": 7_615_616_512,
    "qwen_3_0_6b": 596_049_920,
    "qwen_3_1_7b": 1_720_574_976,
    "qwen_3_4b": 4_022_468_096,
    "qwen_3_8b": 8_190_735_360,
    "deepseek_v2_lite": 15_706_484_224,
    "deepseek_v3": 671_026_419_200,
}


@pytest.mark.parametrize("path", named("models"))
def test_model_files_have_the_parameters_that_they_state(path):
    built = cli.load_experiment([path, METHOD], ["BASE_CHECKPOINT = None"], fallbacks=NO_DATA)
    base = assembly.abstract_base(dataclasses.replace(built.model, unroll_layers=False))
    size = sum(math.prod(variable.get_value().shape) for _, variable in trainable.named_variables(base))
    assert f": {size:,} parameters." in (ROOT / path).read_text().splitlines()[0]
    name = pathlib.Path(path).stem
    assert isinstance(built.model, DecoderConfig) == (name in PUBLISHED_COUNTS)
    assert size == PUBLISHED_COUNTS.get(name, size)


def test_sizes_of_decoders_are_those_of_the_published_table():
    rows = {}
    with shared_path("published/decoder_configs_small.csv").open() as file:
        for row in csv.DictReader(file):
            rows.setdefault(row["model"], {})[row["metric"]] = row["value"]
    pairs = {
        "Llama-2-7b-hf": "llama_2_7b", "Llama-3-8B": "llama_3_8b", "Llama-3.1-8B": "llama_3_1_8b", "Llama-3.2-1B": "llama_3_2_1b",
        "Llama-3.2-3B": "llama_3_2_3b", "Mistral-7B-v0.1": "mistral_7b_v0_1", "Mistral-7B-v0.3": "mistral_7b_v0_3", "Gemma-2b": "gemma_2b",
        "Gemma-7b": "gemma_7b", "Gemma-2-2b": "gemma_2_2b", "Gemma-2-9b": "gemma_2_9b", "Gemma-3-1b-it": "gemma_3_1b",
        "Gemma-3-4b-it": "gemma_3_4b", "Qwen2.5-0.5B": "qwen_2_5_0_5b", "Qwen2.5-1.5B": "qwen_2_5_1_5b", "Qwen3-0.6B": "qwen_3_0_6b",
    }  # fmt: skip
    fields = {
        "n_layer": "num_layers", "n_embd": "d_model", "intermediate_size": "d_ff", "n_head": "num_heads", "n_query_groups": "num_kv_heads",
        "head_size": "head_width", "rope_base": "rope_base", "sliding_window_size": "window",
        "attention_logit_softcapping": "attention_cap", "final_logit_softcapping": "logit_cap",
    }  # fmt: skip
    for theirs, ours in pairs.items():
        config = decoder_sizes.named(ours)
        for metric, field in fields.items():
            if metric in rows[theirs]:
                assert float(rows[theirs][metric]) == float(getattr(config, field)), (ours, field)


@pytest.mark.parametrize("path", named("methods"))
def test_method_files_train(path, tmp_path):
    for name in ("one.npy", "two.npy"):
        np.save(tmp_path / name, np.ones((3, 8), np.float32))
    (tmp_path / "adapter").mkdir()
    prompt = {"prompt_embeddings": np.ones((3, 8), np.float32)}
    adapter_files.write(tmp_path / "adapter", adapter_files.Adapter({"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 3}, prompt))
    needed = [line.replace("FOLDER", str(tmp_path)) for line in NEEDED.get(path, ())]
    built = cli.load_experiment([MODEL, path], ["BASE_CHECKPOINT = None", *needed], fallbacks=NO_DATA)
    check(tiny(built, data=WORLD))


@pytest.mark.parametrize("path", named("data"))
def test_data_files_train(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.tsv").write_text("sentence\tlabel\n" + "".join(f"it is number {i}\t{i % 2}\n" for i in range(4)))
    turns = [{"role": role, "content": "so"} for role in ("user", "assistant", "user", "assistant")]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"messages": turns}) + "\n" for _ in range(4)))
    (tmp_path / "task.json").write_text(json.dumps(NATURAL_TASK))
    mmlu_folder(tmp_path / "mmlu", ["virology"])
    bbh_folder(tmp_path / "bbh", ["snarks"])
    files = ["configs/data/templated.gin", path] if path == "configs/data/every_template.gin" else [path]  # It says what is added there.
    built = cli.load_experiment([MODEL, METHOD, *files], ["BASE_CHECKPOINT = None", *NEEDED.get(path, ())], fallbacks=NO_DATA)
    fewer = {name: 4 for name in ("num_train", "num_validation", "num_test") if hasattr(built.data, name)}
    with mocked_downloads():
        check(tiny(built, data=dataclasses.replace(built.data, **fewer)))


@pytest.mark.parametrize("path", [*named("runs"), *named("papers")])
def test_run_files_train(path, tmp_path):
    for name in ("one.npy", "two.npy"):
        np.save(tmp_path / name, np.ones((3, 8), np.float32))
    (tmp_path / "cot.tsv").write_text("".join(f"is {i} even?\t{'no' if i % 2 else 'yes'}\thalf of it is {i / 2}\n" for i in range(4)))
    for name in ("trec_a", "super_glue_rte_a"):
        (tmp_path / f"{name}.jsonl").write_text(
            "".join(json.dumps({"prompt": f"is {i} even?", "completion": "no"}) + "\n" for i in range(4))
        )
    for name, tasks in (("train_tasks", ["task1_a", "task2_a"]), ("test_tasks", ["task3_a"])):
        (tmp_path / f"{name}.txt").write_text("\n".join(tasks) + "\n")
        for task in tasks:
            (tmp_path / f"{task}.json").write_text(json.dumps(NATURAL_TASK))
    needed = [line.replace("FOLDER", str(tmp_path)) for line in NEEDED.get(path, ())]
    # A run file says what differs from the files that its command names before it.
    built = cli.load_experiment([MODEL, METHOD, *BEFORE.get(path, ("configs/data/world.gin",)), path], needed, fallbacks=NO_DATA)
    fewer = {name: 4 for name in ("num_train", "num_validation", "num_test") if hasattr(built.data, name)}
    with mocked_downloads():
        check(tiny(built, data=dataclasses.replace(built.data, **fewer)))
