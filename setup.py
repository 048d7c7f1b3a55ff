"""Packaging: what the library needs (ranges here, the tried versions in constraints.txt) and its extras."""

import pathlib

import setuptools

_ROOT = pathlib.Path(__file__).resolve().parent
_VERSION = next(
    line.split('"')[1] for line in (_ROOT / "prompt_tuning" / "__init__.py").read_text().splitlines() if line.startswith("__version__")
)
_README = _ROOT / "README.md"

setuptools.setup(
    name="prompt_tuning",
    version=_VERSION,
    description="Prompt tuning and instruction tuning of T5 and decoder-only models in JAX",
    long_description=_README.read_text() if _README.exists() else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    packages=setuptools.find_namespace_packages(include=["prompt_tuning", "prompt_tuning.*"]),
    package_data={"prompt_tuning": ["defaults.gin", "assets/*.model", "assets/*.vocab", "assets/*/*"]},
    python_requires=">=3.11",
    install_requires=[
        # JAX and Flax move together: flax 0.12.8 breaks at import with jax 0.11 and later.
        "jax>=0.10.2,<0.11",
        "flax>=0.12.8,<0.12.12",
        "optax>=0.2.8",
        "orbax-checkpoint>=0.12.8",
        "safetensors>=0.5",
        "tensorstore>=0.1.84",
        # tensorflow-text, which SeqIO needs, brings tensorflow; tensorflow-cpu beside it would own the same folder.
        "seqio>=0.0.20",
        "tensorflow>=2.21,<2.22",
        "tensorflow-datasets>=4.9.10",
        "etils",
        "importlib_resources",  # tensorflow-datasets imports it and does not ask for it.
        "sentencepiece>=0.2.3",  # Says where in a text its pieces stand (return_type).
        "tokenizers>=0.21",  # Reads the tokenizer.json of decoder-only models.
        "jinja2>=3.1",  # Templates, in its sandbox.
        "pyyaml>=6",
        "gin-config>=0.5.0",
        "qwix>=0.1.8,<0.2",  # Rounds a frozen base to eight or four bits.
        "tensorboard>=2.21",  # Its records are what runs write; SeqIO's TensorBoardLogger imports it.
        "tqdm",
        "numpy>=2.0",
        "ml_dtypes",
        "msgpack",
        "datasketch>=2",  # Proposes evaluation examples that training data nearly holds.
        "scikit-learn",
        "scipy",
        "rouge-score",
        "sacrebleu",
        "matplotlib",
    ],
    extras_require={
        "tpu": ["jax[tpu]>=0.10.2,<0.11"],
        "cuda": ["jax[cuda12]>=0.10.2,<0.11"],
        "report": ["markdown-it-py>=3"],  # READMEs as pages of the site.
        # torch goes in by itself first (see Makefile): asked for together with the two that need it, pip may take a build with CUDA.
        "test": [
            "pytest",
            "pytest-xdist",
            "hypothesis",
            "ruff",
            "mypy",
            "torch==2.13.0",
            "transformers",
            "peft",
            "datasets>=4",
            "markdown-it-py>=3",
            "nbclient",  # The notebooks.
            "ipykernel",
        ],
    },
)
