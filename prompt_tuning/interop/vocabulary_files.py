"""The vocabulary that lies beside a published model, and the settings that read it.

A Hugging Face folder has `spiece.model` (T5), `tokenizer.model` (SentencePiece), `tokenizer.json`, or the latter two; which of its tokens
ends a text it says in `tokenizer_config.json`, or by its id in `config.json`. Beside a llama2.c file lies a SentencePiece model.
"""

import dataclasses
import json
import pathlib
from typing import Any

from prompt_tuning.errors import UserError

_SENTENCEPIECE = ("spiece.model", "tokenizer.model")
_JSON = "tokenizer.json"


@dataclasses.dataclass(frozen=True)
class Found:
    """A vocabulary's settings.

    Attributes:
      module, name: of their class.
      file: what they read; None where nothing was found.
      fields: the class's other fields.
    """

    module: str
    name: str
    file: pathlib.Path | None
    fields: dict[str, Any]


def of_encoder_decoder(folder: pathlib.Path) -> Found:
    """The vocabulary of a T5 in a folder."""
    file = next((folder / name for name in _SENTENCEPIECE if (folder / name).is_file()), None)
    return Found("vocabularies", "SentencePiece", file, {})


def of_decoder(folder: pathlib.Path) -> Found:
    """The vocabulary of a decoder-only model in a folder: a SentencePiece model, if only one is there, or else a tokenizer.json.

    Raises UserError for a tokenizer.json that cannot be read.
    """
    models = [folder / "tokenizer.model"] if (folder / "tokenizer.model").is_file() else sorted(folder.glob("*.model"))
    if len(models) == 1 and _is_sentencepiece(models[0]):
        return Found("decoder_vocabularies", "SentencePiece", models[0], {})
    if (folder / _JSON).is_file():
        return Found("decoder_vocabularies", "TokenizerJson", folder / _JSON, _special_tokens(folder))
    return Found("decoder_vocabularies", "SentencePiece", None, {})


def _is_sentencepiece(file: pathlib.Path) -> bool:
    """Whether a `.model` file is one: Llama 3's, of another kind, has the same name."""
    from prompt_tuning.data.decoder_vocabularies import SentencePiece

    try:
        return bool(SentencePiece(str(file)).delimiters)
    except UserError:
        return False


def _special_tokens(folder: pathlib.Path) -> dict[str, str | None]:
    """`eos`, `bos` and `pad` of a tokenizer.json; BOS is one where the tokenizer puts it before texts itself."""
    from prompt_tuning.data.decoder_vocabularies import TokenizerJson

    tokenizer = TokenizerJson(str(folder / _JSON)).read()
    stated, ids = (_read(folder / name) for name in ("tokenizer_config.json", "config.json"))

    def token(name: str) -> str | None:
        said = stated.get(f"{name}_token")
        said = said.get("content") if isinstance(said, dict) else said
        number = ids.get(f"{name}_token_id")
        number = number[0] if isinstance(number, list) and number else number
        return said if said is not None or not isinstance(number, int) else tokenizer.id_to_token(number)

    begins = tokenizer.encode("", add_special_tokens=True).ids[:1]
    bos = tokenizer.id_to_token(begins[0]) if begins else None
    return {"eos": token("eos"), "bos": bos if bos == token("bos") else None, "pad": token("pad")}


def _read(file: pathlib.Path) -> dict[str, Any]:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
