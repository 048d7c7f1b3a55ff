"""Every format: what it reads, from rows written here and from files of others, and what it says of rows that are wrong."""

import gzip
import json
import re
import string
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prompt_tuning.data.instructions import chat_templates
from prompt_tuning.data.instructions.alpaca import Alpaca
from prompt_tuning.data.instructions.chain_of_thought import ChainOfThought
from prompt_tuning.data.instructions.chat import Chat, wrapped
from prompt_tuning.data.instructions.record import Counts, Reading, records
from prompt_tuning.data.instructions.rendered import Rendered
from prompt_tuning.data.instructions.super_natural import SuperNaturalInstructions
from prompt_tuning.data.instructions.templated import Templated
from prompt_tuning.data.rows import TextRow
from prompt_tuning.errors import UserError
from tests.shared import shared_path

TRAIN, EVALUATE = Reading(task="t"), Reading(task="t", training=False)
TASK = {
    "Definition": ["Say the opposite of the word"],
    "Positive Examples": [
        {"input": "hot", "output": "cold", "explanation": "Both are about warmth"},
        {"input": "up?", "output": "down.", "explanation": ""},
        {"input": "in", "output": "out"},
    ],
    "Negative Examples": [{"input": "wet", "output": "damp", "explanation": "That is nearly the same!"}],
    "Instances": [{"id": "t-1", "input": "big", "output": ["small", "little"]}, {"id": "t-2", "input": "fast!", "output": "slow"}],
}


def write(folder, name, content):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else (content if isinstance(content, str) else json.dumps(content)).encode())
    return str(path)


def lines(*rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def rows(path, format, reading=TRAIN, **settings):
    return [record.row for record in records(path, format, reading, **settings)]


# Super-NaturalInstructions.


@pytest.mark.parametrize(
    ("given", "group"), [({"Categories": ["Word Analogy", "Other"]}, "Word Analogy"), ({"Categories": "Sentiment "}, "Sentiment"), ({}, "")]
)
def test_a_row_s_group_is_the_first_category_of_its_task(tmp_path, given, group):
    path = write(tmp_path, "t.json", TASK | given)
    assert {row.group for row in rows(path, SuperNaturalInstructions(), EVALUATE)} == {group}


def test_the_encoding_of_tk_instruct(tmp_path):
    """As printed in the paper's appendix and made by the released code, written out by hand."""
    path = write(tmp_path, "t.json", TASK)
    first, second = rows(path, SuperNaturalInstructions(), EVALUATE)
    assert first.inputs == (
        "Definition: Say the opposite of the word.\n\n"
        " Positive Example 1 -\nInput: hot.\n Output: cold.\n\n"
        " Positive Example 2 -\nInput: up?\n Output: down.\n\n"
        "Now complete the following example -\nInput: big.\nOutput: "
    )
    assert (first.targets, first.references, second.targets, second.references) == ("small", ("small", "little"), "slow", ())
    whole = SuperNaturalInstructions(positive=1, negative=2, explanations=True)
    assert rows(path, whole)[1].inputs == (
        "Definition: Say the opposite of the word.\n\n"
        " Positive Example 1 -\nInput: hot.\n Output: cold.\n Explanation: Both are about warmth.\n\n"
        " Negative Example 1 -\nInput: wet.\n Output: damp.\n Explanation: That is nearly the same!\n\n"
        "Now complete the following example -\nInput: fast!\nOutput: "
    )
    bare = SuperNaturalInstructions(definition=False, positive=0)
    assert rows(path, bare)[0].inputs == "Now complete the following example -\nInput: big.\nOutput: "


def test_examples_are_added_while_they_fit(tmp_path):
    path = write(tmp_path, "t.json", TASK)

    def shown(limit):
        format = SuperNaturalInstructions(positive=3, negative=1, input_tokens=limit)
        return re.findall(r"(?:Posi|Nega)tive Example \d", rows(path, format)[0].inputs)

    whole = len(rows(path, SuperNaturalInstructions(positive=3, negative=1))[0].inputs)
    assert shown(None) == ["Positive Example 1", "Positive Example 2", "Positive Example 3", "Negative Example 1"] == shown(whole)
    assert shown(whole - 1) == shown(None)[:-1]
    assert shown(10) == []
    for limit in range(80, whole):
        text = rows(path, SuperNaturalInstructions(positive=3, negative=1, input_tokens=limit))[0].inputs
        assert len(text) <= limit or not shown(limit)


def test_a_reference_is_drawn_for_training_only(tmp_path):
    many = TASK | {"Instances": [{"id": f"t-{n}", "input": str(n), "output": ["a", "b"]} for n in range(200)]}
    path = write(tmp_path, "t.json", many)
    drawn = [row.targets for row in rows(path, SuperNaturalInstructions())]
    assert drawn == [row.targets for row in rows(path, SuperNaturalInstructions())]
    assert 70 < drawn.count("a") < 130, "100 and four standard deviations of 7"
    assert {row.targets for row in rows(path, SuperNaturalInstructions(), EVALUATE)} == {"a"}


def test_training_draws_one_of_five_encodings(tmp_path):
    many = TASK | {"Instances": [{"id": f"t-{n}", "input": str(n), "output": ["a"]} for n in range(500)]}
    path = write(tmp_path, "t.json", many)
    format = SuperNaturalInstructions(mixed=True)
    kinds = [tuple(word in row.inputs for word in ("Definition", "Positive", "Negative", "Explanation")) for row in rows(path, format)]
    wanted = {(1, 0, 0, 0), (0, 1, 0, 0), (1, 1, 0, 0), (1, 1, 1, 0), (1, 1, 0, 1)}
    assert {tuple(map(int, kind)) for kind in kinds} == wanted
    assert all(64 < kinds.count(tuple(map(bool, kind))) < 136 for kind in wanted), "100 each, four standard deviations of 9"
    assert rows(path, format, EVALUATE) == rows(path, SuperNaturalInstructions(), EVALUATE)


def published(task, instance, positive, negative, explanations):
    """The released collator's text, from its description: parts joined without a limit."""

    def stop(text):
        return text if text[-1] in string.punctuation else text + "."

    text = stop("Definition: " + (task["Definition"] if isinstance(task["Definition"], str) else task["Definition"][0]).strip()) + "\n\n"
    for kind, count in (("Positive", positive), ("Negative", negative)):
        for index, example in enumerate(task[f"{kind} Examples"][:count]):
            text += f" {kind} Example {index + 1} -\n" + stop(f"Input: {example['input'].strip()}") + "\n"
            text += stop(f" Output: {example['output'].strip()}") + "\n"
            if explanations and example.get("explanation"):
                text += stop(f" Explanation: {example['explanation'].strip()}") + "\n"
            text += "\n"
    return text + "Now complete the following example -\n" + stop(f"Input: {instance['input'].strip()}") + "\nOutput: "


@pytest.mark.parametrize("folder", ["tasks", "old_schema"])
def test_real_tasks_of_both_schemas(folder):
    paths = sorted(shared_path(f"data/super_natural_instructions/{folder}").glob("*.json"))
    assert len(paths) == {"tasks": 19, "old_schema": 5}[folder]
    total = 0
    for path in paths:
        task = json.loads(path.read_text())
        format = SuperNaturalInstructions(positive=2, negative=1, explanations=True, input_tokens=None)
        counts = Counts()
        found = list(records(str(path), format, Reading(task=path.stem, training=False), counts=counts, on_error="skip"))
        assert (counts.read, len(found)) == (len(task["Instances"]), counts.read - counts.skipped)
        # Published files have their mistakes, few of them.
        assert counts.skipped <= 0.02 * counts.read, counts
        for record in found[:50]:
            instance = task["Instances"][int(record.where.rpartition(" ")[2])]
            assert record.row.inputs == published(task, instance, 2, 1, True)
            wanted = instance["output"] if isinstance(instance["output"], list) else [instance["output"]]
            assert [text.strip() for text in record.row.references or (record.row.targets,)] == [str(text).strip() for text in wanted]
        total += len(found)
    assert total > 9000


# The other formats.


def test_rendered_rows(tmp_path):
    path = write(tmp_path, "p3.jsonl", lines({"prompt": "Good?\n", "completion": " yes<|endoftext|>"}, {"prompt": "2+2", "completion": 4}))
    assert rows(path, Rendered()) == [TextRow("Good?", "yes"), TextRow("2+2", "4")]
    own = {"q": "Which?", "a": ["red", "rot"], "c": ["red", "blue"], "id": 5}
    format = Rendered(input_field="q", target_field="a", choices_field="c")
    assert rows(write(tmp_path, "own.json", [own]), format) == [TextRow("Which?", "red", ("red", "blue"), ("red", "rot"))]
    packed = tmp_path / "p3.jsonl.gz"
    packed.write_bytes(gzip.compress((tmp_path / "p3.jsonl").read_bytes()))
    assert rows(str(packed), Rendered()) == rows(path, Rendered())


def test_alpaca_and_self_instruct(tmp_path):
    alpaca = [
        {"instruction": "Add.", "input": "1 and 2", "output": "3", "text": "..."},
        {"instruction": "Greet me.", "input": "", "output": "Hello"},
        {"instruction": "Wave.", "output": "o/"},
    ]
    wanted = [TextRow("Add.\n\n1 and 2", "3"), TextRow("Greet me.", "Hello"), TextRow("Wave.", "o/")]
    assert rows(write(tmp_path, "a.json", alpaca), Alpaca()) == wanted
    assert rows(write(tmp_path, "a.jsonl", lines(*alpaca)), Alpaca()) == wanted
    own = Alpaca(with_input="Do: {instruction} With: {input} Done:", without_input="Do: {instruction} Done:")
    assert [row.inputs for row in rows(write(tmp_path, "a.json", alpaca), own)] == [
        "Do: Add. With: 1 and 2 Done:",
        "Do: Greet me. Done:",
        "Do: Wave. Done:",
    ]
    seed = {"id": "s0", "instruction": "Double.", "instances": [{"input": "1", "output": "2"}, {"input": "2", "output": "4"}]}
    found = list(records(write(tmp_path, "s.jsonl", lines(seed)), Alpaca(), TRAIN))
    assert [(record.id, record.row) for record in found] == [("s0/0", TextRow("Double.\n\n1", "2")), ("s0/1", TextRow("Double.\n\n2", "4"))]


def test_chain_of_thought(tmp_path):
    path = write(tmp_path, "c.tsv", "Is 4 even?\\nOptions:\\n- yes\\n- no\tyes\t4 is 2 times 2.\n")
    (row,) = rows(path, ChainOfThought(), EVALUATE)
    assert "Is 4 even?\nOptions:\n- yes\n- no" in row.inputs
    assert "yes" in row.targets and "4 is 2 times 2." in row.targets


def test_templated_rows(tmp_path):
    table = [{"premise": f"It is {n}.", "hypothesis": "So it is.", "label": n % 2, "idx": n} for n in range(300)]
    path = write(tmp_path, "rte.jsonl", lines(*table))
    tsv = write(tmp_path, "rte.tsv", "hypothesis\tpremise\tlabel\n" + "".join(f"So it is.\tIt is {n}.\t{n % 2}\n" for n in range(300)))
    training, evaluation = rows(path, Templated("rte")), rows(path, Templated("rte"), EVALUATE)
    assert 40 < sum(not row.answer_choices for row in training) < 80, "two of ten are turned around: 60 and four standard deviations of 7"
    assert all(row.answer_choices for row in evaluation)
    assert len({row.answer_choices for row in evaluation}) == 4
    assert Templated("rte").metrics == ("accuracy",)
    yaml = write(tmp_path, "own.yaml", "answer_choices: a ||| b\ntemplates: {t: '{{ premise }} ||| {{ answer_choices[label] }}'}")
    assert [row.targets for row in rows(tsv, Templated(yaml))] == ["a", "b"] * 150, "a number in a TSV file is a label"
    squad = {"title": "T", "context": "C", "question": "Q", "answers": {"text": ["x", "y", "x"]}}
    assert rows(write(tmp_path, "q.jsonl", lines(squad)), Templated("squad"), EVALUATE)[0].references == ("x", "y")
    one = rows(tsv, Templated("rte", template="entail"))
    assert [row.targets for row in one] == ["entailment", "no entailment"] * 150
    assert one[0] == rows(path, Templated("rte", template="entail"))[0]
    renamed = write(tmp_path, "r.jsonl", lines({"a": {"b": "It is."}, "hypothesis": "So.", "label": "entailment"}))
    assert "It is." in rows(renamed, Templated("rte", columns={"premise": "a.b"}), EVALUATE)[0].inputs


def test_a_row_draws_the_same_whatever_stands_around_it(tmp_path):
    table = [{"sentence": f"film {n}", "label": n % 2} for n in range(60)]
    whole = rows(write(tmp_path, "a.jsonl", lines(*table)), Templated("sst2"))
    part = rows(write(tmp_path, "b.jsonl", lines(*reversed(table[20:]))), Templated("sst2"))
    assert part == whole[:19:-1]
    other = rows(write(tmp_path, "a.jsonl", lines(*table)), Templated("sst2"), Reading(task="t", seed=1))
    assert sum(row == again for row, again in zip(whole, other, strict=True)) < 20, "one in ten by chance"


def test_what_a_template_drops_is_counted(tmp_path):
    yaml = write(tmp_path, "t.yaml", "templates: {a: '{% if keep %}{{ text }} ||| yes{% endif %}'}")
    path = write(tmp_path, "a.jsonl", lines(*({"text": str(n), "keep": n % 3 == 0} for n in range(9))))
    counts = Counts()
    assert len(rows(path, Templated(yaml), counts=counts)) == 3
    assert (counts.read, counts.dropped, str(counts)) == (9, 6, "9 rows, 6 dropped by their template")


TURNS = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]


def test_conversations(tmp_path):
    path = write(
        tmp_path, "c.jsonl", lines({"messages": [*TURNS, {"role": "user", "content": "Bye"}, {"role": "assistant", "content": "Ciao"}]})
    )
    (row,) = rows(path, Chat())
    assert (row.inputs, row.targets) == ("User: Hi\nAssistant:", " Hello\nUser: Bye\nAssistant: Ciao")
    assert [row.targets[slice(*span)] for span in row.loss_spans] == [" Hello", " Ciao"]
    llama = Reading(training=False, chat=chat_templates.TEMPLATES["llama3"])
    (row,) = rows(path, Chat(), llama)
    assert (row.targets, row.references, row.loss_spans) == ("Ciao<|eot_id|>", ("Ciao",), ())
    assert rows(path, Chat(last_only=True))[0].targets == " Ciao"


def test_other_formats_in_a_conversation():
    chatml = chat_templates.TEMPLATES["chatml"]
    row = wrapped(chatml, TextRow("Good?", "yes", ("no", "yes")))
    assert row.inputs == "<|im_start|>user\nGood?<|im_end|>\n<|im_start|>assistant\n"
    assert (row.targets, row.answer_choices) == ("yes<|im_end|>", ("no<|im_end|>", "yes<|im_end|>"))
    assert wrapped(chatml, TextRow("Q", "a", references=("a", "b"))).references == ("a", "b")


def test_real_files_of_others():
    found = [
        record for path in sorted(shared_path("data/p3_rendered").glob("glue_*.jsonl")) for record in records(str(path), Rendered(), TRAIN)
    ]
    assert len(found) > 2000 and not any("<|endoftext|>" in record.row.targets for record in found)
    seeds = rows(str(shared_path("data/self_instruct/seed_tasks.jsonl")), Alpaca())
    assert len(seeds) >= 175 and seeds[1].inputs.endswith("Night : Day :: Right : Left")
    for path in sorted(shared_path("data/flan_cot").glob("*.tsv")):
        chains = rows(str(path), ChainOfThought(), on_error="skip")
        assert len(chains) > 1000 and not any("\\n" in row.inputs for row in chains)
    counts = Counts()
    gsm = Rendered(input_field="question", target_field="answer")
    assert len(rows(str(shared_path("data/gsm8k/test.jsonl")), gsm, counts=counts)) == 1319 == counts.read


def test_lines_are_read_one_at_a_time(tmp_path):
    path = tmp_path / "long.jsonl"
    with open(path, "w") as file:
        for number in range(20_000):
            file.write(json.dumps({"prompt": f"{number} " + "x" * 500, "completion": "y"}) + "\n")
    tracemalloc.start()
    assert sum(1 for _ in records(str(path), Rendered(), TRAIN)) == 20_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2_000_000, f"{peak} bytes for a file of {path.stat().st_size}"


# What is wrong.

GOOD = {"prompt": "p", "completion": "c"}
CASES = [
    (Rendered(), "a.jsonl", lines(GOOD) + '{"prompt": \n', r"a\.jsonl:2: not JSON: "),
    (Rendered(), "a.jsonl", lines(GOOD, {"prompt": "p"}), r"a\.jsonl:2: no field 'completion'; it has 'prompt'"),
    (Rendered(), "a.jsonl", lines(GOOD, {"prompt": " ", "completion": "c"}), r"a\.jsonl:2: field 'prompt' is empty"),
    (Rendered(), "a.jsonl", lines(GOOD, {"prompt": "p", "completion": "<|endoftext|>"}), r"a\.jsonl:2: the targets are empty"),
    (Rendered(), "a.jsonl", lines(GOOD, {"prompt": None, "completion": "c"}), r"a\.jsonl:2: field 'prompt' is null, wanted text"),
    (Rendered(), "a.jsonl", lines(GOOD, [1]), r"a\.jsonl:2: wanted a JSON object, got list"),
    (Rendered(), "a.jsonl", lines(GOOD).encode() + b'{"prompt": "caf\xe9"}\n', r"a\.jsonl:2: not UTF-8: byte 0xe9"),
    (Rendered(), "a.jsonl", lines(GOOD | {"id": 1}, GOOD | {"id": 1}), r"a\.jsonl:2: id '1' stands at .*a\.jsonl:1 too"),
    (Rendered(choices_field="c"), "a.jsonl", lines(GOOD, GOOD | {"c": ["a", "b"]}), r"a\.jsonl:2: the answer 'c' is none of the choices"),
    (
        Rendered(target_field="t"),
        "a.jsonl",
        lines({"prompt": "p", "t": "c"}, {"prompt": "p", "t": []}),
        r"a\.jsonl:2: field 't' is an empty list",
    ),
    (Alpaca(), "a.json", [{"instruction": "i", "output": "o"}, {"instruction": "i"}], r"a\.json: element 2: no field 'output'"),
    (
        Alpaca(),
        "a.json",
        [{"instruction": "i", "output": "o"}, {"instruction": "i", "instances": []}],
        r"element 2: field 'instances' is no list",
    ),
    (ChainOfThought(), "a.tsv", "q\ta\te\nq\ta\n", r"a\.tsv:2: 2 columns, wanted three"),
    (ChainOfThought(), "a.tsv", "q\ta\te\nq\t\te\n", r"a\.tsv:2: column 'answer' is empty"),
    (Templated("sst2"), "a.tsv", "sentence\tlabel\nx\t1\ny\n", r"a\.tsv:3: 1 columns, wanted 2"),
    (Templated("sst2"), "a.jsonl", lines({"sentence": "x", "label": 1}, {"label": 1}), r"a\.jsonl:2: no field 'text' at 'sentence'"),
    (
        Templated("sst2"),
        "a.jsonl",
        lines({"sentence": "x", "label": 1}, {"sentence": "x", "label": -1}),
        r"a\.jsonl:2: label is -1, wanted one of",
    ),
    (Chat(), "a.jsonl", lines({"messages": TURNS}, {"text": "?"}), r"a\.jsonl:2: field 'messages' is NoneType"),
    (Chat(), "a.jsonl", lines({"messages": TURNS}, {"messages": TURNS[:1]}), r"a\.jsonl:2: the conversation ends with a message of 'user'"),
    (
        Chat(),
        "a.jsonl",
        lines({"messages": TURNS}, {"messages": TURNS[1:]}),
        r"a\.jsonl:2: message 0: field 'role' is 'assistant' after 'system'",
    ),
    (Chat(), "a.jsonl", lines({"messages": TURNS}, {"messages": [{"role": "bot", "content": "x"}]}), r"message 0: field 'role' is 'bot'"),
    (
        SuperNaturalInstructions(),
        "t.json",
        TASK | {"Instances": [TASK["Instances"][0], {"id": "b", "input": "x", "output": []}]},
        r"t\.json: instance 1: field 'output' is an empty list",
    ),
    (
        SuperNaturalInstructions(),
        "t.json",
        TASK | {"Instances": [TASK["Instances"][0]] * 2},
        r"t\.json: instance 1: id 't-1' stands at .*t\.json: instance 0 too",
    ),
]


@pytest.mark.parametrize(("format", "name", "content", "message"), CASES, ids=[f"{case[2]!r:.60}" for case in CASES])
def test_a_wrong_row_is_an_error_or_skipped_and_counted(tmp_path, format, name, content, message):
    path = write(tmp_path, name, content)
    with pytest.raises(UserError, match=message):
        rows(path, format)
    counts = Counts()
    assert len(rows(path, format, counts=counts, on_error="skip")) == 1
    assert (counts.read, counts.skipped) == (2, 1)
    assert re.search(message, counts.first)


@pytest.mark.parametrize(
    ("format", "name", "content", "message"),
    [
        (Rendered(), "absent.jsonl", None, "cannot be read"),
        (Rendered(), "a.jsonl.gz", b"not gzip", "cannot be read"),
        (Alpaca(), "a.json", "[{},\n,]", r"a\.json:2: not JSON"),
        (Alpaca(), "a.json", "{}", "wanted an array of objects, got dict"),
        (Alpaca(), "a.json", b"[\xff]", "not UTF-8"),
        (SuperNaturalInstructions(), "t.json", {"Definition": "d"}, "field 'Instances' is NoneType, wanted a list"),
        (SuperNaturalInstructions(), "t.json", TASK | {"Definition": []}, "field 'Definition' is an empty list"),
        (Templated(), "a.jsonl", lines(GOOD), "set TEMPLATES"),
        (Templated("nope"), "a.jsonl", lines(GOOD), "'nope': no such set"),
    ],
)
def test_a_file_that_cannot_be_read_is_an_error_in_any_case(tmp_path, format, name, content, message):
    path = str(tmp_path / name) if content is None else write(tmp_path, name, content)
    with pytest.raises(UserError, match=message):
        rows(path, format, on_error="skip")


@settings(deadline=None)
@given(st.lists(st.tuples(st.text(min_size=1), st.text(min_size=1)), max_size=5))
def test_any_text_survives(tmp_path_factory, pairs):
    path = tmp_path_factory.mktemp("any") / "a.jsonl"
    kept = [(left, right) for left, right in pairs if left.strip() and right.strip()]
    path.write_text(lines(*({"prompt": left, "completion": right} for left, right in kept)))
    assert rows(str(path), Rendered(end="")) == [TextRow(left.strip(), right.strip()) for left, right in kept]
