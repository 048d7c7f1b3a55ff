"""The user's files: what is read, and what is said of what cannot be."""

import gzip
import json

import pytest

from prompt_tuning.data import mixtures
from prompt_tuning.data.tasks import files
from prompt_tuning.data.tasks.files import Files
from prompt_tuning.errors import UserError
from tests.data.small import BYTES

SENTIMENT = {"input_column": "sentence", "target_column": "label", "answer_choices": ["negative", "positive"]}


def write(folder, name, text):
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


def rows(path, **settings):
    found = files.text_rows(Files(train_files=path, **(SENTIMENT | settings)), "train")
    return [(row.inputs, row.targets) for row in found]


def test_all_formats_give_the_same_rows(tmp_path):
    wanted = [("a fine film", "positive"), ('dull, "flat"', "negative")]
    table = [{"sentence": "a fine film", "label": 1}, {"sentence": 'dull, "flat"', "label": "negative"}]
    lines = "".join(json.dumps(row) + "\n" for row in table)
    texts = {
        "a.tsv": 'sentence\tlabel\na fine film\t1\ndull, "flat"\tnegative\n',
        "a.csv": 'sentence,label\r\na fine film,1\r\n"dull, ""flat""",negative\r\n',
        "a.jsonl": lines,
        "a.json": json.dumps(table),
        "b.tsv": b"\xef\xbb\xbf" + b'sentence\tlabel\na fine film\t1\n\ndull, "flat"\tnegative',
        "a.jsonl.gz": gzip.compress(lines.encode()),
    }
    for name, text in texts.items():
        assert rows(write(tmp_path, name, text)) == wanted, name


def test_patterns_and_lists_of_files(tmp_path):
    for number in (2, 1):
        write(tmp_path, f"part{number}.tsv", f"sentence\tlabel\nrow {number}\t0\n")
    assert [text for text, _ in rows(str(tmp_path / "part*.tsv"))] == ["row 1", "row 2"]
    assert [text for text, _ in rows([str(tmp_path / "part2.tsv"), str(tmp_path / "part1.tsv")])] == ["row 2", "row 1"]


def test_template_names_columns_and_options(tmp_path):
    path = write(tmp_path, "a.tsv", "one\ttwo\tlabel\nA\tB\tyes\n")
    settings = {"input_column": None, "answer_choices": ["no", "yes"], "template": "first: {one} second: {two}\n{options}"}
    assert rows(path, **settings) == [("first: A second: B\nOPTIONS:\n- no\n- yes", "yes")]


def test_choices_may_stand_in_columns(tmp_path):
    path = write(tmp_path, "a.tsv", "q\tx\ty\tlabel\nWhich?\tcat\tdog\t1\nWhich?\tfox\towl\tfox\n")
    assert rows(path, input_column="q", answer_choices=["{x}", "{y}"]) == [("Which?", "dog"), ("Which?", "fox")]


def test_columns_may_have_any_name(tmp_path):
    path = write(tmp_path, "a.csv", "Review text,label\nfine,positive\n")
    assert rows(path, input_column="Review text") == [("fine", "positive")]


def test_json_values(tmp_path):
    path = write(tmp_path, "a.jsonl", '{"sentence": 5, "label": true}\n\n{"sentence": "x\\u2028y", "label": false}\n')
    assert rows(path) == [("5", "positive"), ("x\u2028y", "negative")]
    path = write(tmp_path, "b.jsonl", '{"sentence": "q", "label": ["a", "b"]}\n')
    (row,) = files.text_rows(Files(train_files=path, input_column="sentence", target_column="label"), "train")
    assert (row.targets, row.references) == ("a", ("a", "b"))


def test_choices_that_are_digits_are_read_as_choices(tmp_path):
    path = write(tmp_path, "a.tsv", "sentence\tlabel\nx\t1\n")
    assert rows(path, answer_choices=["1", "0"]) == [("x", "1")]


def test_few_training_rows_are_drawn_with_the_seed(tmp_path):
    path = write(tmp_path, "a.tsv", "sentence\tlabel\n" + "".join(f"row {i}\t0\n" for i in range(50)))
    drawn = rows(path, num_train=8)
    assert drawn == rows(path, num_train=8) != rows(path, num_train=8, seed=1)
    assert len(set(drawn)) == 8
    with pytest.raises(UserError, match="wanted 51 training rows, the files hold 50"):
        rows(path, num_train=51)


@pytest.mark.parametrize(
    ("name", "text", "settings", "message"),
    [
        ("a.tsv", "sentence\tlabel\nx\t1\ny\t7\n", {}, r"a\.tsv:3: column 'label' is '7', wanted one of \['negative', 'positive'\]"),
        ("a.tsv", "sentence\tlabel\nx\t1\ny\n", {}, r"a\.tsv:3: 1 columns, wanted 2"),
        ("a.tsv", "sentence\ttag\nx\t1\n", {}, r"a\.tsv:2: no column 'label'; it has 'sentence', 'tag'; mend TARGET_COLUMN"),
        ("a.tsv", "sentence\tlabel\nx\t1\n", {"template": "{sentense}"}, r"a\.tsv:2: no column 'sentense'.*TEMPLATE"),
        ("a.tsv", "sentence\tlabel\nx\t1\n", {"template": "{sentence"}, "TEMPLATE: cannot read"),
        ("a.tsv", "sentence\tlabel\tlabel\nx\t1\t1\n", {}, r"a\.tsv:1: the header names column 'label' twice"),
        ("a.tsv", "", {}, "the file is empty"),
        ("a.tsv", "sentence\tlabel\n", {}, "no data rows"),
        ("a.tsv", b"sentence\tlabel\nx\t1\ncaf\xe9\t1\n", {}, r"a\.tsv:3: not UTF-8: byte 0xe9"),
        ("a.csv", 'sentence,label\n"x,1\n', {}, r"a\.csv:\d+: not readable as columns"),
        ("a.csv", 'sentence,label\n"two\nlines",1\nz,9\n', {}, r"a\.csv:4: column 'label' is '9'"),
        ("a.jsonl", '{"sentence": "x", "label": 1}\n{"sentence": \n', {}, r"a\.jsonl:2: not JSON"),
        ("a.jsonl", "[1]\n", {}, r"a\.jsonl:1: wanted a JSON object, got list"),
        ("a.jsonl", '{"sentence": null, "label": 1}\n', {}, r"a\.jsonl:1: column 'sentence' is null"),
        ("a.json", '{"sentence": "x"}', {}, r"a\.json: wanted an array"),
        ("a.json", "[{},\n,]", {}, r"a\.json:2: not JSON"),
        ("a.jsonl.gz", b"not gzip", {}, "cannot be read"),
        ("a.txt", "1 x\n", {}, "suffix '.txt'"),
        ("a.tsv", "sentence\tlabel\nx\t\n", {"answer_choices": None}, r"a\.tsv:2: column 'label' is empty"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(tmp_path, name, text, settings, message):
    with pytest.raises(UserError, match=message):
        rows(write(tmp_path, name, text), **settings)


def test_missing_files_and_settings_are_refused(tmp_path):
    path = write(tmp_path, "a.tsv", "sentence\tlabel\nx\t1\n")
    vocabulary = BYTES.load()
    for settings, message in (
        ({"train_files": str(tmp_path / "absent.tsv")}, "absent.tsv: no such file.*TRAIN_FILES"),
        ({"validation_files": str(tmp_path)}, "is a folder.*VALIDATION_FILES"),
        ({}, "no data files"),
        ({"train_files": path, "target_column": None}, "TARGET_COLUMN is not set"),
        ({"train_files": path, "input_column": None}, "neither INPUT_COLUMN nor TEMPLATE"),
    ):
        with pytest.raises(UserError, match=message):
            Files(**(SENTIMENT | settings)).tasks(vocabulary)
    for settings, message in (
        ({"answer_choices": ["one"]}, "at least two different choices"),
        ({"answer_choices": "yes"}, "wanted a list"),
        ({"metrics": ["acuracy"]}, "no metric is called 'acuracy'"),
        ({"name": "my data"}, "Files.name"),
        ({"delimiter": "||"}, "one character"),
        ({"num_train": 0}, "at least 1"),
    ):
        with pytest.raises(UserError, match=message):
            Files(**settings)


def test_the_task_reads_through_seqio(tmp_path):
    train = write(tmp_path, "train.tsv", "sentence\tlabel\na\t1\nb\t0\n")
    settings = Files(name="mine", train_files=train, validation_files=train, **SENTIMENT)
    (task,) = settings.tasks(BYTES.load())
    assert (task.title, task.metric_names, tuple(task.splits)) == ("mine", ("accuracy", "f1_macro"), ("train", "validation"))
    examples = mixtures.evaluation_examples(task, "validation")
    assert [(example["inputs_pretokenized"], example["targets_pretokenized"]) for example in examples] == [
        ("a", "positive"),
        ("b", "negative"),
    ]
    assert examples[0]["answer_choices"] == ("negative", "positive")


def test_a_changed_file_is_read_anew(tmp_path):
    path = write(tmp_path, "train.tsv", "sentence\tlabel\na\t1\n")
    settings = Files(train_files=path, **SENTIMENT)
    first = len(mixtures.example_table(settings.tasks(BYTES.load())[0], "train"))
    write(tmp_path, "train.tsv", "sentence\tlabel\na\t1\nb\t0\n")
    assert (first, len(mixtures.example_table(settings.tasks(BYTES.load())[0], "train"))) == (1, 2)


def test_free_text_has_free_texts_metrics(tmp_path):
    assert Files().metric_names == ("exact_match", "squad_f1", "rougeL")
    assert Files(metrics=["bleu"]).metric_names == ("bleu",)
