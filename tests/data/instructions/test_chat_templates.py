"""Chat templates against transformers: the text, the token ids and the mask of the responses, over conversations of many turns.

The oracle is `apply_chat_template` of a tokenizer that splits text into words and marks, with templates of another make than ours: those
are filled by Hugging Face's own tag for responses, ours are told apart by rendering.
"""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prompt_tuning.data.instructions import chat_templates
from prompt_tuning.data.instructions.chat_templates import TEMPLATES, ChatTemplate, Message
from prompt_tuning.errors import UserError

SPECIALS = [
    "<s>",
    "</s>",
    "<|begin_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
    "<bos>",
    "<start_of_turn>",
    "<end_of_turn>",
    "<|im_start|>",
    "<|im_end|>",
]
# As the models' publishers describe their formats, in one line each.
ORACLE = {
    "llama2": "{% for m in messages %}{% if m['role'] == 'user' %}{% set sys = '<<SYS>>\n' + messages[0]['content'] + '\n<</SYS>>\n\n' if "
    "messages[0]['role'] == 'system' and loop.index0 == 1 else '' %}{{ '<s>[INST] ' ~ sys ~ m['content'] ~ ' [/INST]' }}"
    "{% elif m['role'] == 'assistant' %}{% generation %}{{ ' ' ~ m['content'] ~ ' </s>' }}{% endgeneration %}{% endif %}{% endfor %}",
    "llama3": "<|begin_of_text|>{% for m in messages %}<|start_header_id|>{{ m['role'] }}<|end_header_id|>{{ '\n\n' }}"
    "{% if m['role'] == 'assistant' %}{% generation %}{{ m['content'] }}<|eot_id|>{% endgeneration %}{% else %}{{ m['content'] }}<|eot_id|>"
    "{% endif %}{% endfor %}",
    "gemma": "<bos>{% set ns = namespace(sys='') %}{% for m in messages %}{% if m['role'] == 'system' %}"
    "{% set ns.sys = m['content'] + '\n\n' %}{% elif m['role'] == 'user' %}<start_of_turn>user{{ '\n' ~ ns.sys ~ m['content'] }}"
    "<end_of_turn>{{ '\n' }}{% set ns.sys = '' %}{% else %}<start_of_turn>model{{ '\n' }}{% generation %}{{ m['content'] }}<end_of_turn>"
    "{% endgeneration %}{{ '\n' }}{% endif %}{% endfor %}",
    "chatml": "{% for m in messages %}<|im_start|>{{ m['role'] ~ '\n' }}{% if m['role'] == 'assistant' %}{% generation %}{{ m['content'] }}"
    "<|im_end|>{% endgeneration %}{% else %}{{ m['content'] }}<|im_end|>{% endif %}{{ '\n' }}{% endfor %}",
}
WORDS = st.lists(st.sampled_from(["one", "two", "red", "?", "no", "\n"]), min_size=1, max_size=5)
TEXTS = WORDS.map(lambda words: " ".join(words).strip()).filter(bool)


@st.composite
def conversations(draw):
    messages = [Message("system", draw(TEXTS))] if draw(st.booleans()) else []
    for _ in range(draw(st.integers(1, 4))):
        messages += [Message("user", draw(TEXTS)), Message("assistant", draw(TEXTS))]
    return messages


@pytest.fixture(scope="module")
def tokenizer():
    import tokenizers
    import transformers

    words = ["[UNK]", *SPECIALS, "one", "two", "red", "?", "no", "\n", " ", "user", "model", "assistant", "system", "[INST]", "[/INST]"]
    words += ["<<SYS>>", "<</SYS>>"]
    found = tokenizers.Tokenizer(tokenizers.models.WordLevel({word: place for place, word in enumerate(words)}, unk_token="[UNK]"))
    found.pre_tokenizer = tokenizers.pre_tokenizers.Split(tokenizers.Regex(r"\n| |[^\n ]+"), "isolated")
    found.add_special_tokens(SPECIALS)
    return transformers.PreTrainedTokenizerFast(tokenizer_object=found, unk_token="[UNK]", bos_token="<s>", eos_token="</s>")


@pytest.mark.parametrize("name", ORACLE)
def test_text_tokens_and_response_mask_are_those_of_transformers(name, tokenizer):
    template = TEMPLATES[name]

    @settings(deadline=None)
    @given(conversations())
    def check(messages):
        wanted = tokenizer.apply_chat_template(
            [{"role": message.role, "content": message.content} for message in messages],
            chat_template=ORACLE[name],
            tokenize=True,
            return_dict=True,
            return_assistant_tokens_mask=True,
        )
        ids, mask = list(wanted["input_ids"]), list(wanted["assistant_masks"])
        written = template.conversation(messages)
        text = template.bos + written.inputs + written.targets + template.eos
        encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        while ids[-1] == tokenizer.convert_tokens_to_ids("\n"):
            ids.pop(), mask.pop()
        assert encoded["input_ids"] == ids
        shift = len(template.bos) + len(written.inputs)
        ours = [
            any(begin < stop + shift and end > start + shift for start, stop in written.spans) for begin, end in encoded["offset_mapping"]
        ]
        if template.eos:
            ours[-1] = True  # The vocabulary's EOS is appended, and counts.
        np.testing.assert_array_equal(ours, np.array(mask, bool))

    check()


@settings(deadline=None)
@given(conversations())
def test_spans_are_the_responses(messages):
    for name, template in TEMPLATES.items():
        written = template.conversation(messages)
        responses = [message.content for message in messages if message.role == "assistant"]
        assert len(written.spans) == len(responses)
        for (begin, end), response in zip(written.spans, responses, strict=True):
            assert written.targets[begin:end].strip().startswith(response), name
        assert written.spans[0][0] == 0 and written.spans[-1][1] == len(written.targets)
        last = template.conversation(messages, last_only=True)
        assert last.spans == ((0, len(last.targets)),)
        assert last.inputs + last.targets == written.inputs + written.targets, name


def test_the_formats_written_out():
    messages = [
        Message("system", "Be brief."),
        Message("user", "Hi"),
        Message("assistant", "Hello"),
        Message("user", "Bye"),
        Message("assistant", "So long"),
    ]
    written = {name: template.conversation(messages) for name, template in TEMPLATES.items()}
    assert (written["plain"].inputs, written["plain"].targets) == (
        "Be brief.\n\nUser: Hi\nAssistant:",
        " Hello\nUser: Bye\nAssistant: So long",
    )
    assert (written["llama2"].inputs, written["llama2"].targets) == (
        "[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nHi [/INST]",
        " Hello </s><s>[INST] Bye [/INST] So long ",
    )
    assert written["llama3"].targets == (
        "Hello<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nBye<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nSo long<|eot_id|>"
    )
    assert written["gemma"].inputs == "<start_of_turn>user\nBe brief.\n\nHi<end_of_turn>\n<start_of_turn>model\n"
    assert written["chatml"].inputs == "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    assert [written["plain"].targets[slice(*span)] for span in written["plain"].spans] == [" Hello", " So long"]


def test_a_published_template_is_read_from_its_file(tmp_path):
    config = {"chat_template": ORACLE["llama3"], "bos_token": {"content": "<|begin_of_text|>"}, "eos_token": None}
    path = tmp_path / "tokenizer_config.json"
    # What the oracle's form lacks: a generation prompt.
    config["chat_template"] += "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>{{ '\n\n' }}{% endif %}"
    path.write_text(json.dumps(config))
    messages = [Message("user", "Hi"), Message("assistant", "Hello"), Message("user", "Bye"), Message("assistant", "So long")]
    assert chat_templates.load(str(path)).conversation(messages) == TEMPLATES["llama3"].conversation(messages)
    (tmp_path / "own.jinja").write_text(
        "{% for m in messages %}{{ m.role[0] }}:{{ m.content }};{% endfor %}{% if add_generation_prompt %}a:{% endif %}"
    )
    assert chat_templates.load(str(tmp_path / "own.jinja")).conversation(messages).targets == "Hello;u:Bye;a:So long;"


def test_what_cannot_be_written_is_refused(tmp_path):
    turn = [Message("user", "Hi"), Message("assistant", "Hello")]
    with pytest.raises(UserError, match="ends with a message of 'user', wanted the assistant's last"):
        TEMPLATES["plain"].conversation([*turn, Message("user", "?")])
    with pytest.raises(UserError, match="has no message"):
        TEMPLATES["plain"].conversation([])
    with pytest.raises(UserError, match="chat template 'strict': no more than a turn"):
        ChatTemplate("strict", "{{ raise_exception('no more than a turn') }}").conversation(turn)
    forgets = ChatTemplate("forgets", "{% for m in messages %}{{ m.content if loop.last or m.role == 'user' else '...' }}{% endfor %}")
    with pytest.raises(UserError, match="'forgets' writes message 1 in another way once others follow"):
        forgets.conversation([*turn, *turn])
    for name, text, message in (
        ("a.json", "{}", "'chat_template' is NoneType"),
        ("b.json", "{", "cannot be read"),
        ("c.jinja", "{% if %}", "not a Jinja template"),
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(UserError, match=message):
            chat_templates.load(str(tmp_path / name))
    with pytest.raises(UserError, match="'llama4': no such template; wanted one of plain, llama2"):
        chat_templates.load("llama4")
    with pytest.raises(UserError, match="SecurityError|unsafe"):
        ChatTemplate("bad", "{{ messages.__class__.__base__.__subclasses__() }}").text(turn)
