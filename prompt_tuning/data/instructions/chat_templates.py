"""How a conversation is written as one text, and which parts of it are the responses.

A chat template is a Jinja text over `messages`, as tokenizers publish it. What is a response is found by rendering: the text of the
conversation after an assistant's message, less the text before it with the generation prompt. So the loss is on each response and on the
mark that ends it, whatever the template, and any published one can be given by its file.
"""

import dataclasses
import functools
import json
import os
import re
from collections.abc import Sequence
from typing import Any

import jinja2
import jinja2.sandbox

from prompt_tuning.errors import UserError

ROLES = ("system", "user", "assistant")


@dataclasses.dataclass(frozen=True)
class Message:
    """One message: its role, one of ROLES, and its text."""

    role: str
    content: str


@dataclasses.dataclass(frozen=True)
class Conversation:
    """A conversation as text.

    Attributes:
      inputs: what stands before the first response that counts.
      targets: all from there on, without white space at the end.
      spans: where the responses stand in `targets`, as begin and end counted in characters, with the marks that end them.
    """

    inputs: str
    targets: str
    spans: tuple[tuple[int, int], ...]


@dataclasses.dataclass(frozen=True)
class ChatTemplate:
    """A chat template.

    Attributes:
      name: for messages.
      jinja: over `messages` (mappings with `role` and `content`), `add_generation_prompt`, `bos_token` and `eos_token`.
      bos: what it begins with where the layout of a batch adds the vocabulary's own: it is taken off.
      eos: what it ends with where the vocabulary's EOS is appended: it is taken off.
    """

    name: str
    jinja: str
    bos: str = ""
    eos: str = ""

    def text(self, messages: Sequence[Message], *, generation_prompt: bool = False) -> str:
        """The text of a conversation. Raises UserError for what the template refuses."""
        try:
            return _compiled(self.jinja, self.name).render(
                messages=[dataclasses.asdict(message) for message in messages],
                add_generation_prompt=generation_prompt,
                bos_token=self.bos,
                eos_token=self.eos,
                tools=None,
                documents=None,
            )
        except (jinja2.TemplateError, TypeError, ValueError, LookupError) as error:
            raise UserError(f"chat template {self.name!r}: {error}; mend the conversation or take another template") from error

    def conversation(self, messages: Sequence[Message], *, last_only: bool = False) -> Conversation:
        """A conversation whose responses are told apart.

        Args:
          messages: the last one the assistant's.
          last_only: whether the last response alone is the target, and all before it the input.

        Raises UserError where there is no response or the last message is none, and for a template that writes a message otherwise once
        others follow it.
        """
        if not messages or messages[-1].role != "assistant":
            last = f"ends with a message of {messages[-1].role!r}" if messages else "has no message"
            raise UserError(f"the conversation {last}, wanted the assistant's last; cut it or drop the row")
        places = [place for place, message in enumerate(messages) if message.role == "assistant"]
        places = places[-1:] if last_only else places
        whole = self.text(messages)
        found = []
        for place in places:
            before = self.text(messages[:place], generation_prompt=True)
            after = self.text(messages[: place + 1]).rstrip()
            if not (after.startswith(before) and whole.startswith(after)):
                raise UserError(
                    f"chat template {self.name!r} writes message {place} in another way once others follow, so that responses can't be "
                    "told apart; take another template, or conversations of one turn"
                )
            found.append((len(before), len(after)))
        start = found[0][0]
        end = len(whole.rstrip())
        if self.eos and whole[:end].endswith(self.eos):
            end -= len(self.eos)
        skipped = len(self.bos) if self.bos and whole.startswith(self.bos) else 0
        return Conversation(whole[skipped:start], whole[start:end], tuple((begin - start, min(stop, end) - start) for begin, stop in found))


_PLAIN = """{%- for message in messages -%}
{%- if message.role == "system" -%}{{ message.content | trim + "\\n\\n" }}
{%- elif message.role == "user" -%}{{ "User: " + message.content | trim + "\\n" }}
{%- else -%}{{ "Assistant: " + message.content | trim + "\\n" }}{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}Assistant:{%- endif -%}"""

_LLAMA2 = """{%- set system = messages[0].content if messages[0].role == "system" else none -%}
{%- for message in messages -%}
{%- if message.role == "user" -%}
{%- set told = "<<SYS>>\\n" + system + "\\n<</SYS>>\\n\\n" if system is not none and loop.index0 == 1 else "" -%}
{{ bos_token + "[INST] " + (told + message.content) | trim + " [/INST]" }}
{%- elif message.role == "assistant" -%}{{ " " + message.content | trim + " " + eos_token }}{%- endif -%}
{%- endfor -%}"""

_LLAMA3 = """{{- bos_token -}}
{%- for message in messages -%}
{{ "<|start_header_id|>" + message.role + "<|end_header_id|>\\n\\n" + message.content | trim + "<|eot_id|>" }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ "<|start_header_id|>assistant<|end_header_id|>\\n\\n" }}{%- endif -%}"""

_GEMMA = """{{- bos_token -}}
{%- set system = messages[0].content | trim + "\\n\\n" if messages[0].role == "system" else "" -%}
{%- for message in messages if message.role != "system" -%}
{%- set role = "model" if message.role == "assistant" else "user" -%}
{{ "<start_of_turn>" + role + "\\n" + (system if loop.first else "") + message.content | trim + "<end_of_turn>\\n" }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ "<start_of_turn>model\\n" }}{%- endif -%}"""

_CHATML = """{%- for message in messages -%}
{{ "<|im_start|>" + message.role + "\\n" + message.content + "<|im_end|>\\n" }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ "<|im_start|>assistant\\n" }}{%- endif -%}"""

TEMPLATES = {
    template.name: template
    for template in (
        ChatTemplate("plain", _PLAIN),
        ChatTemplate("llama2", _LLAMA2, bos="<s>", eos="</s>"),
        ChatTemplate("llama3", _LLAMA3, bos="<|begin_of_text|>"),
        ChatTemplate("gemma", _GEMMA, bos="<bos>"),
        ChatTemplate("chatml", _CHATML),
    )
}


def load(name: str) -> ChatTemplate:
    """The template of a name in TEMPLATES, or of a file: a `.jinja` text, or a `tokenizer_config.json` with `chat_template`.

    Raises UserError for a name that is none, and for a file without a template.
    """
    if name in TEMPLATES:
        return TEMPLATES[name]
    if not name.endswith((".jinja", ".json")):
        raise UserError(f"chat template {name!r}: no such template; wanted one of {', '.join(TEMPLATES)}, a .jinja file or a .json file")
    try:
        with open(os.path.expanduser(name), encoding="utf-8") as file:
            content = file.read()
        config: dict[str, Any] = json.loads(content) if name.endswith(".json") else {"chat_template": content}
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UserError(f"chat template {name}: cannot be read: {error}; mend the path or the file") from error
    jinja = config.get("chat_template")
    if not isinstance(jinja, str):
        raise UserError(f"chat template {name}: 'chat_template' is {type(jinja).__name__}, wanted a Jinja text; take a .jinja file")
    _compiled(jinja, name)
    return ChatTemplate(name, jinja, _token(config.get("bos_token")), _token(config.get("eos_token")))


def _token(value: Any) -> str:
    """A special token as tokenizer_config.json has it: its text, a mapping with its text, or nothing."""
    return str((value.get("content") if isinstance(value, dict) else value) or "")


def _refuse(message: str) -> None:
    raise jinja2.TemplateRuntimeError(message)


@functools.lru_cache(maxsize=16)
def _compiled(text: str, name: str) -> jinja2.Template:
    # As Hugging Face renders chat templates: lines of tags alone leave nothing behind, loops may be left, undefined names are false.
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"], keep_trailing_newline=False
    )
    environment.globals["raise_exception"] = _refuse
    # The tags by which Hugging Face marks responses: rendering finds those by itself.
    text = re.sub(r"(\{%[-+]?\s*)generation(\s*[-+]?%\})", r"\1if true\2", text)
    text = re.sub(r"(\{%[-+]?\s*)endgeneration(\s*[-+]?%\})", r"\1endif\2", text)
    try:
        return environment.from_string(text)
    except jinja2.TemplateSyntaxError as error:
        raise UserError(f"chat template {name}: not a Jinja template: {error.message} (line {error.lineno}); mend the template") from error
