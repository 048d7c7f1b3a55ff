"""MMLU and BIG-Bench Hard from files in their published formats, which the tests write."""

import csv
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prompt_tuning import evaluate, summarise
from prompt_tuning.data import metrics, mixtures
from prompt_tuning.data.tasks import bbh, mmlu
from prompt_tuning.errors import UserError
from tests.data.small import BYTES
from tests.data.test_plain_vocabularies import TEXTS

CELLS = TEXTS.filter(lambda text: "\r" not in text and "\0" not in text)
CANARY = "Some words about a canary.\n-----\n"


def mmlu_folder(folder, subjects, *, count=3):
    """An archive whose questions are "SUBJECT SPLIT NUMBER?"; the right letters go round."""
    for place in ("dev", "val", "test"):
        (folder / place).mkdir(parents=True, exist_ok=True)
        for subject in subjects:
            with open(folder / place / f"{subject}_{place}.csv", "w", newline="") as file:
                rows = [[f"{subject} {place} {n}?", f"{n}a", f'"{n}", b', f"{n}c\nd", "None", "ABCD"[n % 4]] for n in range(count)]
                csv.writer(file).writerows(rows)
    return str(folder)


def bbh_folder(folder, tasks, *, count=3):
    """A repository whose questions are "TASK NUMBER"; the answer is "(A)" for even ones."""
    for place in ("bbh", "cot-prompts"):
        (folder / place).mkdir(parents=True, exist_ok=True)
    for task in tasks:
        examples = [{"input": f"{task} {n}\nOptions:\n(A) x\n(B) y", "target": "(A)" if n % 2 == 0 else "(B)"} for n in range(count)]
        (folder / "bbh" / f"{task}.json").write_text(json.dumps({"canary": "words", "examples": examples}))
        shown = "\n\n".join(
            f"Q: shown {n}\nOptions:\n(A) x\n(B) y\nA: Let's think step by step.\nIt is {n}, so. So the answer is (B)." for n in range(3)
        )
        (folder / "cot-prompts" / f"{task}.txt").write_text(f"{CANARY}What {task} is.\n\n{shown}\n")
    return str(folder)


def rows(source, split, place=0):
    return mixtures.evaluation_examples(source.tasks(BYTES.load())[place], split)


def test_the_subjects_are_those_of_the_paper():
    assert len(mmlu.SUBJECTS) == 57
    sizes = {category: sum(map(len, fields.values())) for category, fields in mmlu.CATEGORIES.items()}
    assert sizes == {"STEM": 18, "humanities": 13, "social sciences": 12, "other": 14}, "table of the released code"
    assert (len(bbh.TASKS), {kind: len(tasks) for kind, tasks in bbh.KINDS.items()}) == (27, {"algorithmic": 15, "NLP": 12})
    sized = [task for task in bbh.TASKS if task.endswith("_objects") and task.startswith(("logical_deduction", "tracking_shuffled"))]
    assert len(bbh.TASKS) - len(sized) + 2 == 23


def test_a_question_reads_as_in_the_released_evaluation(tmp_path):
    folder = mmlu_folder(tmp_path, ["high_school_physics"])
    source = mmlu.Mmlu(folder, subjects="high_school_physics", exemplars=2)
    example = rows(source, "test")[1]
    wanted = [
        "The following are multiple choice questions (with answers) about  high school physics.",
        "",
        *("high_school_physics dev 0?", "A. 0a", 'B. "0", b', "C. 0c", "d", "D. None", "Answer: A", ""),
        *("high_school_physics dev 1?", "A. 1a", 'B. "1", b', "C. 1c", "d", "D. None", "Answer: B", ""),
        *("high_school_physics test 1?", "A. 1a", 'B. "1", b', "C. 1c", "d", "D. None", "Answer:"),
    ]
    assert example["inputs_pretokenized"].split("\n") == wanted
    assert (example["targets_pretokenized"], example["answer_choices"], example["group"]) == ("B", ("A", "B", "C", "D"), "STEM/physics")
    assert all("dev" in row["inputs_pretokenized"] and row["inputs_pretokenized"].count("Answer") == 1 for row in rows(source, "train"))
    spaced = rows(mmlu.Mmlu(folder, subjects="high_school_physics", before_answer=" "), "validation")[2]
    assert (spaced["targets_pretokenized"], spaced["answer_choices"]) == (" C", (" A", " B", " C", " D"))


@settings(deadline=None, max_examples=30)
@given(questions=st.lists(st.tuples(CELLS, CELLS, CELLS, CELLS, CELLS, st.sampled_from("ABCD")), min_size=1, max_size=4))
def test_cells_are_texts_whatever_they_hold(tmp_path_factory, questions):
    path = tmp_path_factory.mktemp("mmlu") / "a.csv"
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(questions)
    if questions[0][0].startswith("\ufeff"):
        return  # A byte-order mark is no letter of the first question.
    assert [(found.text, *found.choices, found.letter) for found in mmlu.questions(str(path))] == questions


@pytest.mark.parametrize("kind", ["mmlu", "bbh"])
@settings(deadline=None, max_examples=25)
@given(most=st.integers(60, 900))
def test_the_last_exemplars_are_left_out_until_an_input_fits(tmp_path_factory, kind, most):
    folder = tmp_path_factory.mktemp(kind)
    if kind == "mmlu":
        made = [mmlu.Mmlu(mmlu_folder(folder, ["virology"], count=5), "virology", exemplars=k) for k in range(5, -1, -1)]
        cut = mmlu.Mmlu(str(folder), "virology", input_tokens=most)
    else:
        made = [bbh.BigBenchHard(bbh_folder(folder, ["snarks"]), "snarks", True, exemplars=k) for k in range(3, -1, -1)]
        cut = bbh.BigBenchHard(str(folder), "snarks", True, input_tokens=most)
    longer = [[row["inputs"] for row in rows(source, "test")] for source in made]
    for place, row in enumerate(rows(cut, "test")):
        wanted = next((each[place] for each in longer if len(each[place]) <= most), longer[-1][place])
        np.testing.assert_array_equal(row["inputs"], wanted)


@pytest.mark.parametrize(("steps", "ends"), [(False, "A:"), (True, "A: Let's think step by step.")])
def test_exemplars_answer_directly_or_by_a_chain_of_thought(tmp_path, steps, ends):
    source = bbh.BigBenchHard(bbh_folder(tmp_path, ["snarks"]), "snarks", chain_of_thought=steps)
    text = rows(source, "test")[0]["inputs_pretokenized"]
    assert text.startswith("What snarks is.\n\nQ: shown 0\nOptions:\n(A) x\n(B) y\nA:") and "canary" not in text
    chain = " Let's think step by step.\nIt is 0, so. So the answer is (B)."
    assert f"(B) y\nA:{chain if steps else ' (B)'}\n\nQ: shown 1" in text
    assert text.endswith(f"Q: snarks 0\nOptions:\n(A) x\n(B) y\n{ends}") and text.count("Q: ") == 4
    targets = {row["targets_pretokenized"] for row in rows(source, "train")}
    assert targets == ({f"It is {n}, so. So the answer is (B)." for n in range(3)} if steps else {"(B)"})


@pytest.mark.parametrize(
    ("said", "right"),
    [
        ("It is so. So the answer is (B).", 1.0),
        ("(B)", 1.0),
        ("So the answer is (A). No: so the answer is (B).\nQ: more", 1.0),
        ("So the answer is (A).", 0.0),
        ("So the answer is B.", 0.0),
        ("", 0.0),
    ],
)
def test_answers_are_compared_letter_for_letter(said, right):
    assert metrics.compute(["final_text"], ["(B)"], [said]) == {"final_text": right}


def test_what_is_wrong_is_one_line(tmp_path):
    folder = mmlu_folder(tmp_path / "m", ["virology"])
    for make, message in (
        (lambda: mmlu.Mmlu(folder, subjects="virologie"), "MMLU_SUBJECTS: no subject 'virologie'"),
        (lambda: mmlu.Mmlu(folder, exemplars=6), "EXEMPLARS: wanted 0 to 5"),
        (lambda: mmlu.Mmlu().tasks(BYTES.load()), "MMLU_DIR is not set"),
        (lambda: mmlu.Mmlu(folder).tasks(BYTES.load()), r"abstract_algebra_dev.csv: no such file"),
        (lambda: bbh.BigBenchHard(task_list="snark"), "BBH_TASKS: no task 'snark'"),
        (lambda: bbh.BigBenchHard(exemplars=4), "EXEMPLARS: wanted 0 to 3"),
        (lambda: bbh.BigBenchHard().tasks(BYTES.load()), "BBH_DIR is not set"),
        (lambda: bbh.BigBenchHard(folder).tasks(BYTES.load()), "boolean_expressions.json: no such file"),
    ):
        with pytest.raises(UserError, match=message):
            make()
    path = tmp_path / "x.csv"
    for text, message in (
        ("q,a,b,c,d,A\nq,a,b\n", r"x.csv:2: 3 columns, wanted question"),
        ("q,a,b,c,d,E\n", "x.csv:1: the answer is 'E'"),
        ('"q,a\n', "x.csv:1: not readable as columns"),
        ("", "holds no question"),
    ):
        path.write_text(text)
        with pytest.raises(UserError, match=message):
            mmlu.questions(str(path))
    path.write_text("no dashes\nQ: a\nA: b")
    with pytest.raises(UserError, match="wanted a line of five dashes"):
        bbh.read_prompt(str(path))
    path.write_text(f"{CANARY}d\n\nQ: a\nB: b")
    with pytest.raises(UserError, match="question 1 has no answer"):
        bbh.read_prompt(str(path))
    for content, message in (({"examples": []}, "no list 'examples'"), ({"examples": [{"input": "a"}]}, "example 1: no field 'target'")):
        path.write_text(json.dumps(content))
        with pytest.raises(UserError, match=message):
            bbh.examples(str(path))


FLAGS = ["--gin_file=configs/models/t5_nano.gin", "--checkpoint=base", "--gin.INPUT_LENGTH=64"]


@pytest.mark.parametrize("kind", ["mmlu", "bbh"])
def test_from_files_to_the_papers_lines(tmp_path, kind, capsys):
    if kind == "mmlu":
        subjects = ["virology", "anatomy", "astronomy"]
        names = [f"--gin.MMLU_DIR='{mmlu_folder(tmp_path, subjects)}'", f"--gin.MMLU_SUBJECTS={subjects}"]
        groups = ["all", "STEM", "STEM/physics", "other", "other/health"]
    else:
        subjects = ["snarks", "navigate", "word_sorting"]
        names = [f"--gin.BBH_DIR='{bbh_folder(tmp_path, subjects)}'", f"--gin.BBH_TASKS={subjects}", "--gin.TARGET_LENGTH=4"]
        groups = ["all", "NLP", "algorithmic"]
    run = tmp_path / "run"
    evaluate.main([*FLAGS, f"--gin_file=configs/data/{kind}.gin", *names, f"--workdir={run}"])
    capsys.readouterr()
    summarise.main([str(run), "--by=group", "--split=test", "--checkpoint=base", "--resamples=50", "--json"])
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["of"] for line in lines] == [group for group in groups for _ in range(2)]
    result = json.loads((run / "evaluation-base-test.json").read_text())
    scores = {task: next(iter(values.values())) for task, values in result["metrics"].items()}
    assert lines[0]["value"]["value"] == pytest.approx(np.mean(list(scores.values())))
    assert lines[0]["value"]["value"] == pytest.approx(lines[1]["value"]["value"]), "as many examples each"
    assert lines[0]["count"] == 3
