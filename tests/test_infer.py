"""The `infer` command: order and rows are kept, scores are the model's, errors name file and line, files are whole or not there."""

import io
import json
import os

import numpy as np
import pytest

from prompt_tuning import cli, evaluate, evaluation, infer
from prompt_tuning.errors import UserError
from tests import tiny_run


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Flags that name the tiny base."""
    files = tiny_run.write_gin(tmp_path_factory.mktemp("infer"))
    return [f"--gin_file={files['model']}", "--gin.INPUT_LENGTH=32", "--gin.TARGET_LENGTH=6"]


def rows(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def read(text, **how):
    return list(infer.read_rows(io.BytesIO(text.encode() if isinstance(text, str) else text), name="in", **how))


def test_text_lines_and_jsonl_of_the_same_inputs_get_the_same_predictions_in_order(model, tmp_path):
    texts = [f"naïve {'x' * (7 * i % 23)} {i}" for i in range(11)]
    (tmp_path / "in.txt").write_text("\n".join(texts) + "\n", encoding="utf-8")
    (tmp_path / "in.jsonl").write_text("".join(json.dumps({"id": i, "inputs": text}) + "\n" for i, text in enumerate(texts)))
    for name in ("in.txt", "in.jsonl"):
        infer.main([*model, f"--input={tmp_path / name}", f"--output={tmp_path / name}.out"])
    from_text, from_json = rows(tmp_path / "in.txt.out"), rows(tmp_path / "in.jsonl.out")
    assert [row["inputs"] for row in from_text] == texts
    assert [row["id"] for row in from_json] == list(range(11))
    assert [row["prediction"] for row in from_text] == [row["prediction"] for row in from_json]
    assert len({row["prediction"] for row in from_text}) > 1


def test_settings_of_generation_reach_the_command_through_gin(model, tmp_path):
    (tmp_path / "in.txt").write_text("".join(f"row {i}\n" for i in range(6)))

    def predictions(*settings):
        flags = [f"--gin.decoding.Decoding.{setting}" for setting in settings]
        infer.main([*model, *flags, f"--input={tmp_path / 'in.txt'}", f"--output={tmp_path / 'out'}"])
        return [row["prediction"] for row in rows(tmp_path / "out")]

    greedy = predictions()
    letter = max("".join(greedy), key="".join(greedy).count)
    assert predictions(f"stop_strings=[{letter!r}]") == [text.split(letter)[0] for text in greedy] != greedy
    assert predictions("num_beams=3", "length_penalty=0.0") != greedy
    drawn = predictions("temperature=2.0", "top_k=20", "top_p=0.95")
    assert drawn != greedy and drawn == predictions("temperature=2.0", "top_k=20", "top_p=0.95")
    with pytest.raises(SystemExit) as stop:
        predictions("top_k=20")
    assert stop.value.code == 2


def test_standard_input_to_standard_output(model, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"one\n\ntwo")))
    infer.main(model)
    out, err = capsys.readouterr()
    assert [json.loads(line)["inputs"] for line in out.splitlines()] == ["one", "two"]
    assert "skipped 1 blank line" in err and "2 rows" in err


def test_scores_are_summed_log_likelihoods_whatever_the_batch(model, tmp_path):
    pairs = [{"inputs": "abc", "targets": "yes"}, {"inputs": "d", "targets": ""}, {"inputs": "efgh " * 5, "targets": "a longer one"}]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    infer.main([*model, "--score", f"--input={tmp_path / 'in.jsonl'}", f"--output={tmp_path / 'out.jsonl'}"])
    found = rows(tmp_path / "out.jsonl")
    assert [row["target_tokens"] for row in found] == [4, 1, 13]
    assert all("prediction" not in row for row in found)
    assert all(row["log_likelihood"] < 0 for row in found)
    (tmp_path / "one.jsonl").write_text(json.dumps(pairs[0]))
    infer.main([*model, "--score", f"--input={tmp_path / 'one.jsonl'}", f"--output={tmp_path / 'one.out'}"])
    np.testing.assert_allclose(found[0]["log_likelihood"], rows(tmp_path / "one.out")[0]["log_likelihood"], rtol=1e-5)


def test_rows_are_answered_in_pieces_as_they_come(model):
    fallbacks = (*evaluate.FALLBACKS, "experiment.Experiment.data = None")
    experiment = cli.load_experiment([model[0].split("=", 1)[1]], fallbacks=fallbacks)
    loaded = evaluate.load(experiment, workdir=None, checkpoint=None)
    taken = []

    def endless():
        for i in range(10**9):
            taken.append(i)
            yield {"inputs": f"row {i}"}

    vocabulary = experiment.vocabulary.load()
    answers = infer.answer(endless(), loaded, settings=evaluation.Evaluation(batch_size=2), vocabulary=vocabulary, score=False)
    assert [next(answers)["inputs"] for _ in range(3)] == ["row 0", "row 1", "row 2"]
    assert len(taken) == 16
    answers.close()


def test_a_trained_run_answers_with_its_prompt(tmp_path):
    run = tiny_run.train_tiny(tmp_path)
    (tmp_path / "in.txt").write_text("good\nbad\n")
    flags = [f"--workdir={run}", f"--input={tmp_path / 'in.txt'}"]
    infer.main([*flags, f"--output={tmp_path / 'tuned'}", "--checkpoint=latest"])
    infer.main([*flags, f"--output={tmp_path / 'base'}", "--checkpoint=base"])
    assert [row["inputs"] for row in rows(tmp_path / "tuned")] == ["good", "bad"]
    assert rows(tmp_path / "tuned") != rows(tmp_path / "base")


def test_the_first_line_that_is_not_blank_decides_the_format():
    assert read('\n{"inputs": "a"}\n') == [{"inputs": "a"}]
    assert read('a\n{"inputs": "b"}\n') == [{"inputs": "a"}, {"inputs": '{"inputs": "b"}'}]
    assert read("\ufeffa\r\nb\r\n") == [{"inputs": "a"}, {"inputs": "b"}]


@pytest.mark.parametrize(
    ("text", "score", "message"),
    [
        ('{"inputs": "a"}\n{"inputs": \n', False, "in:2: bad JSON"),
        ('{"inputs": "a"}\n\n["b"]\n', False, "in:3: wanted a JSON object, got list"),
        ('{"input": "a"}\n', False, "in:1: no \"inputs\" in the row; it has ['input']"),
        ('{"inputs": 3}\n', False, 'in:1: "inputs" is int, wanted a string'),
        ('{"inputs": "a", "targets": "b"}\n{"inputs": "a"}\n', True, 'in:2: no "targets"'),
        ("a\n", True, "in:1: --score wants JSONL"),
        (b"fine\n\xff\xfe\n", False, "in:2: not UTF-8"),
    ],
)
def test_bad_rows_are_named_by_file_and_line(text, score, message):
    with pytest.raises(UserError) as error:
        read(text, score=score)
    assert message in str(error.value)


def test_an_interrupted_output_leaves_the_earlier_file(tmp_path):
    path = tmp_path / "out.jsonl"
    path.write_text("earlier\n")
    with pytest.raises(UserError), infer.opened_output(str(path), input_path="-") as output:
        output.write("half")
        raise UserError("interrupted")
    assert path.read_text() == "earlier\n"
    assert os.listdir(tmp_path) == ["out.jsonl"]


@pytest.mark.parametrize(
    ("source", "output", "message"),
    [
        ("in.txt", "in.txt", "is the input file"),
        ("in.txt", "link.txt", "is the input file"),
        ("in.txt", ".", "is a folder"),
        ("in.txt", "nowhere/out.jsonl", "cannot write"),
        ("missing.txt", "out.jsonl", "cannot read"),
        (".", "out.jsonl", "cannot read"),
        ("empty.txt", "out.jsonl", "holds no row"),
    ],
)
def test_bad_files_are_one_line_status_2_and_nothing_is_written(model, tmp_path, capsys, source, output, message):
    (tmp_path / "in.txt").write_text("text\n")
    (tmp_path / "empty.txt").write_text("\n")
    (tmp_path / "link.txt").symlink_to(tmp_path / "in.txt")
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(SystemExit) as stop:
        infer.main([*model, f"--input={tmp_path / source}", f"--output={tmp_path / output}"])
    assert stop.value.code == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ") and message in error
    assert sorted(os.listdir(tmp_path)) == before
    assert (tmp_path / "in.txt").read_text() == "text\n"
