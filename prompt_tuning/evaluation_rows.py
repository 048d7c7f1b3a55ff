"""What an evaluation says of each example, one row of plain values: what was asked, to which it adds what came of it."""

from collections.abc import Mapping, Sequence
from typing import Any

from prompt_tuning import decoding
from prompt_tuning.data.features import Delimiters


def asked(task: str, examples: Sequence[Mapping[str, Any]], *, marks: Delimiters, vocabulary: Any) -> list[dict[str, Any]]:
    """`task`, `inputs` and `target` of each example, with `choices`, `references` and `group` where it has them.

    Texts are those the example came with, else read back from its tokens.
    """

    def text(example: Mapping[str, Any], field: str) -> str:
        found = example.get(f"{field}_pretokenized")
        if found is not None:
            return str(found)
        return str(vocabulary.decode(decoding.without_end(example[field], eos_ids=(marks.eos,), pad_id=marks.pad)))

    def kept(example: Mapping[str, Any]) -> dict[str, Any]:
        named = {"choices": example.get("answer_choices"), "references": example.get("references"), "group": example.get("group")}
        return {name: value if isinstance(value, str) else list(value) for name, value in named.items() if value}

    return [{"task": task, "inputs": text(each, "inputs"), "target": text(each, "targets"), **kept(each)} for each in examples]
