"""Every tuning method at tiny size, with the number of parameters it must train, for the tests that hold for all of them.

A new method takes a line here.
"""

import dataclasses
import pathlib
import tempfile
from typing import Any

import numpy as np

from prompt_tuning.methods.adapter import Adapter
from prompt_tuning.methods.attempt import Attempt
from prompt_tuning.methods.compacter import Compacter
from prompt_tuning.methods.dept import DePT
from prompt_tuning.methods.dora import Dora
from prompt_tuning.methods.full import Full
from prompt_tuning.methods.ia3 import IA3
from prompt_tuning.methods.lora import Lora
from prompt_tuning.methods.mpt import MPT
from prompt_tuning.methods.multitask import MultitaskPrompt
from prompt_tuning.methods.norms import Norms
from prompt_tuning.methods.p_tuning import PTuning
from prompt_tuning.methods.per_layer import PerLayerPrompt
from prompt_tuning.methods.pissa import Pissa
from prompt_tuning.methods.prefix import Prefix
from prompt_tuning.methods.prompt import Prompt, String, Uniform
from prompt_tuning.methods.residual_prompt import ResidualPrompt
from prompt_tuning.methods.together import Together
from prompt_tuning.methods.wayward import Wayward
from prompt_tuning.models.t5 import T5Config

# D = 16, F = 24, H K = 8; 2 + 2 layers with 2 + 4 attentions and 2 + 2 feed-forward layers.
CONFIG = T5Config(
    vocab_size=384,
    d_model=16,
    d_ff=24,
    num_heads=2,
    d_kv=4,
    num_encoder_layers=2,
    num_decoder_layers=2,
    relative_buckets=8,
    relative_max_distance=20,
    unroll_layers=False,
)


class Letters:
    """A vocabulary of small letters: "a" is 3, "b" is 4."""

    def encode(self, text: str) -> list[int]:
        """Token ids."""
        return [ord(letter) - ord("a") + 3 for letter in text if letter.isalpha()]


VOCABULARY = Letters()
_FOLDER = tempfile.TemporaryDirectory()


def _prompt_files(count: int, length: int) -> tuple[str, ...]:
    """Prompts of other tasks."""
    rng = np.random.default_rng(0)
    paths = [str(pathlib.Path(_FOLDER.name) / f"{number}.npy") for number in range(count)]
    for path in paths:
        np.save(path, rng.normal(size=(length, CONFIG.d_model)).astype(np.float32))
    return tuple(paths)


@dataclasses.dataclass(frozen=True)
class Case:
    """A method and what must be true of it.

    Attributes:
      trained: how many parameters it trains in `CONFIG`.
      neutral: the model it makes begins as the base.
      variant: another of the list tries nearly the same code, so that this one is left to the slow tests where programs are compiled.
    """

    method: Any
    trained: int
    neutral: bool = True
    variant: bool = False


# The scales of all layer norms: six attentions, four feed-forward layers, two stacks.
NORMS = (6 + 4 + 2) * 16
EVERYTHING = 2 * 384 * 16 + 2 * 16 + 6 * (16 + 4 * 16 * 8) + 4 * (16 + 3 * 16 * 24) + 2 * 16
CASES = {
    "full": Case(Full(), EVERYTHING),
    "full of the decoder's norms": Case(Full(("decoder/.*norm/scale",)), 2 * 3 * 16 + 16, variant=True),
    "prompt": Case(Prompt(length=3, initializer=Uniform()), 3 * 16, neutral=False),
    "prompts in both": Case(
        Prompt(length=2, initializer=Uniform(), stacks="both", placement="suffix"), 2 * 2 * 16, neutral=False, variant=True
    ),
    "lora": Case(Lora(rank=2), 6 * 2 * 2 * (16 + 8)),
    "lora everywhere": Case(
        Lora(rank=3, alpha=2.0, targets=(".*",), rank_stabilized=True, dropout_rate=0.2, initializer="normal"),
        3 * (6 * 4 * (16 + 8) + 4 * 3 * (16 + 24) + 16 + 384),
        variant=True,
    ),
    "dora": Case(Dora(rank=2, targets=(".*/(query|out)", ".*/wo")), 6 * (2 * 2 * (16 + 8) + 8 + 16) + 4 * (2 * (16 + 24) + 16)),
    "pissa": Case(Pissa(rank=2, alpha=4.0), 6 * 2 * 2 * (16 + 8)),
    "prefix": Case(Prefix(length=3, hidden=5), 3 * (3 * 16 + (16 + 1) * 5 + (5 + 1) * 2 * 2 * 8), neutral=False),
    "p-tuning v2": Case(Prefix(length=3, hidden=None), 6 * 3 * 2 * 8, neutral=False, variant=True),
    "ia3": Case(IA3(), 6 * 2 * 8 + 4 * 24),
    "adapter": Case(Adapter(width=3), 10 * (2 * 3 * 16 + 3 + 16) + NORMS, neutral=False),
    "parallel adapter": Case(
        Adapter(width=3, placement="parallel", targets=(".*/feed_forward",), scale=4.0, train_norms=False),
        4 * (2 * 3 * 16 + 3 + 16),
        variant=True,
    ),
    "norms": Case(Norms(), NORMS, variant=True),
    "p-tuning, lstm": Case(
        PTuning(length=3, initializer=Uniform(), hidden=4, lstm_layers=1),
        3 * 16 + 2 * 4 * 4 * (16 + 4 + 1) + (8 + 1) * 8 + (8 + 1) * 16,
        neutral=False,
    ),
    "p-tuning, mlp": Case(
        PTuning(length=3, initializer=Uniform(), network="mlp", hidden=5), 3 * 16 + 17 * 5 + 6 * 5 + 6 * 16, neutral=False, variant=True
    ),
    "residual prompt": Case(ResidualPrompt(length=3, initializer=Uniform(), width=5), 3 * 16 + 2 * 5 * 16 + 2 * 16, neutral=False),
    "per-layer prompt": Case(PerLayerPrompt(length=3), 2 * 3 * 16, neutral=False),
    "per-layer prompt, added": Case(PerLayerPrompt(length=3, combine="add"), (1 + 2) * 3 * 16, neutral=False, variant=True),
    "wayward": Case(Wayward(length=3, initializer=String("abc"), gamma=0.1), 3 * 16, neutral=False, variant=True),
    "multitask prompt": Case(MultitaskPrompt(length=3, tasks=2, initializer=Uniform()), (1 + 2) * 3 * 16, neutral=False),
    "multitask prompt, projected, as released": Case(
        MultitaskPrompt(length=3, tasks=2, combine="project", shared_features=5, variant="released", initializer=String("abc")),
        2 * (5 * 16 + 16),
        neutral=False,
        variant=True,
    ),
    "mpt": Case(MPT(length=3, tasks=2, initializer=Uniform()), 3 * 16 + 2 * (3 + 16), neutral=False, variant=True),
    "mpt, taught": Case(
        MPT(length=3, tasks=2, initializer=Uniform(), teachers=_prompt_files(2, 3)), 3 * 16 + 2 * (3 + 16), neutral=False, variant=True
    ),
    "attempt": Case(
        Attempt(length=3, initializer=Uniform(), sources=_prompt_files(2, 3), width=4), 3 * 16 + 2 * 4 * 16 + 2 * 16, neutral=False
    ),
    "attempt, two targets": Case(
        Attempt(length=3, initializer=Uniform(), sources=_prompt_files(2, 3), width=4, tasks=2, attention_rate_factor=0.5),
        2 * 3 * 16 + 2 * 4 * 16 + 2 * 16,
        neutral=False,
        variant=True,
    ),
    "dept": Case(DePT(length=3, initializer=Uniform(), input_length=6, rank=2), 3 * 16 + 2 * (6 + 16), neutral=False),
    "prompt and lora": Case(
        Together((Prompt(length=3, initializer=Uniform()), Lora(rank=2))), 3 * 16 + 6 * 2 * 2 * (16 + 8), neutral=False, variant=True
    ),
    "compacter": Case(Compacter(width=4, n=2), 2 * 2**3 + 10 * (2 * 2 * (8 + 2) + 4 + 16) + NORMS, neutral=False, variant=True),
}
