"""The bundled sets, each on a row as its data set's publishers lay it out, and files in promptsource's layout."""

import itertools
import pathlib

import pytest

from prompt_tuning.data import template_sets
from prompt_tuning.data.template_sets import BUNDLED, load
from prompt_tuning.errors import UserError

_PAIR = {"sentence1": "The cat sat on the mat.", "sentence2": "A cat was sitting there."}
_NLI = {"premise": "Ann drove to Oslo on Monday.", "hypothesis": "Ann was in a car."}
_WMT = {
    "translation": {
        **{"de": "Guten Tag.", "en": "Good day.", "fr": "Bonjour.", "ro": "Bună ziua.", "cs": "Dobrý den.", "es": "Buenos días."},
        **{"fi": "Hyvää päivää.", "ru": "Добрый день.", "tr": "İyi günler."},
    }
}
_TEXT = {"text": "A warm and funny film.", "label": 1}
# Two rows a data set, of different labels where it has labels, in the schema of its publishers.
ROWS = {
    "cola": [{"sentence": "They drank the pub dry.", "label": 1, "idx": 0}, {"sentence": "They drank the pub.", "label": 0, "idx": 1}],
    "sst2": [{"sentence": "a joy", "label": 1, "idx": 3}, {"sentence": "a bore", "label": 0, "idx": 4}],
    "imdb": [_TEXT, _TEXT | {"label": 0}],
    "rotten_tomatoes": [_TEXT, _TEXT | {"label": 0}],
    "mrpc": [_PAIR | {"label": 1, "idx": 0}, _PAIR | {"label": 0, "idx": 1}],
    "paws": [_PAIR | {"id": 1, "label": 0}, _PAIR | {"id": 2, "label": 1}],
    "qqp": [{"question1": "Why is it so?", "question2": "How come?", "label": label, "idx": 7} for label in (0, 1)],
    "stsb": [_PAIR | {"label": 2.4, "idx": 0}, _PAIR | {"label": 5.0, "idx": 1}],
    "mnli": [_NLI | {"label": label, "idx": 0} for label in (0, 1, 2)],
    "anli": [_NLI | {"uid": "x", "reason": "", "label": label} for label in (0, 1, 2)],
    "cb": [_NLI | {"idx": 0, "label": label} for label in (0, 1, 2)],
    "rte": [_NLI | {"idx": 0, "label": label} for label in (0, 1)],
    "glue_rte": [_PAIR | {"idx": 0, "label": label} for label in (0, 1)],
    "qnli": [{"question": "Who sat?", "sentence": "The cat sat.", "label": label, "idx": 0} for label in (0, 1)],
    "wnli": [_PAIR | {"label": label, "idx": 0} for label in (0, 1)],
    "boolq": [{"question": "is ice cold", "passage": "Ice is frozen water.", "label": label, "idx": 0} for label in (0, 1)],
    "copa": [
        {"premise": "I fell.", "choice1": "It was wet.", "choice2": "It rang.", "question": question, "idx": 0, "label": label}
        for question in ("cause", "effect")
        for label in (0, 1)
    ],
    "multirc": [
        {"paragraph": "Bo ate a pear.", "question": "What did Bo eat?", "answer": "A pear", "idx": {}, "label": label} for label in (0, 1)
    ],
    "record": [
        {
            "passage": "Ada met Bo in Rome.\n@highlight\nA trip",
            "query": "It was @placeholder whom Ada met",
            "entities": ["Ada", "Bo", "Rome"],
            "answers": ["Bo"],
            "idx": {},
        }
    ],
    "wic": [_PAIR | {"word": "mat", "idx": 0, "start1": 15, "start2": 1, "end1": 18, "end2": 2, "label": label} for label in (0, 1)],
    "wsc": [
        {
            "text": "Ann saw Bo, and she smiled.",
            "span1_index": 0,
            "span2_index": 4,
            "span1_text": "Ann",
            "span2_text": "she",
            "label": label,
        }
        for label in (0, 1)
    ],
    "squad": [
        {
            "id": "5",
            "title": "Cats",
            "context": "Cats purr when they rest.",
            "question": "When do cats purr?",
            "answers": {"text": ["when they rest", "rest"], "answer_start": [10, 20]},
        }
    ],
    "commonsense_qa": [
        {
            "id": "a",
            "question": "Where does one sleep?",
            "question_concept": "sleep",
            "choices": {"label": ["A", "B", "C"], "text": ["bed", "oven", "cup"]},
            "answerKey": key,
        }
        for key in ("A", "C")
    ],
    "xsum": [{"document": "A fire broke out in a mill. Nobody was hurt.", "summary": "A mill burnt.", "id": "1"}],
    "gigaword": [{"document": "shares rose on monday .", "summary": "shares up"}],
    "cnn_dailymail": [{"article": "A fire broke out in a mill.", "highlights": "A mill burnt.", "id": "1"}],
    "wmt16_de_en": [_WMT],
    "wmt16_en_de": [_WMT],
    "wmt14_fr_en": [_WMT],
    "wmt16_ro_en": [_WMT],
    **{
        name: [_WMT]
        for name in ("wmt14_en_fr", "wmt16_en_cs", "wmt16_en_fi", "wmt16_en_ro", "wmt16_en_ru", "wmt16_en_tr", "paracrawl_en_es")
    },
    "trivia_qa": [{"question": "Who wrote Hamlet?", "question_id": "t", "answer": {"value": "Shakespeare", "aliases": ["The Bard"]}}],
    "nq_open": [{"question": "who wrote hamlet", "answer": ["Shakespeare", "The Bard"]}],
    "web_questions": [{"url": "u", "question": "who wrote hamlet?", "answers": ["Shakespeare"]}],
    "yelp": [{"text": "Warm bread, kind people.", "label": label} for label in (0, 1)],
    "sentiment140": [
        {"polarity": polarity, "date": "d", "query": "NO_QUERY", "user": "u", "text": "off to the sea"} for polarity in (0, 2, 4)
    ],
    "hellaswag": [
        {
            "context": "A man kneels by a tyre. He",
            "endings": ["pumps it up.", "sings to it.", "eats it.", "paints the sea."],
            "activity_label": "Fixing a bicycle",
            "label": label,
            "split_type": "indomain",
            "source_id": "a",
        }
        for label in range(4)
    ],
    "piqa": [{"id": "1", "goal": "Cool a drink.", "sol1": "Add ice.", "sol2": "Add sand.", "label": label} for label in (0, 1)],
    "story_cloze": [
        {"context": "Ann lost her key. She rang a smith.", "endings": ["He let her in.", "She flew home."], "label": label}
        for label in (0, 1)
    ],
    "arc": [
        {
            "id": "a",
            "question": "Which of these is a metal?",
            "choices": {"label": [0, 1, 2], "text": ["iron", "wool", "salt"]},
            "answerKey": key,
        }
        for key in (0, 2)
    ],
    "openbookqa": [
        {
            "question": {
                "stem": "Ice is put in the sun and",
                "choice_A": "melts",
                "choice_B": "burns",
                "choice_C": "sings",
                "choice_D": "grows",
            },
            "fact1": "heat melts ice",
            "humanScore": 1.0,
            "clarity": 1.5,
            "turkIdAnonymized": "t",
            "answerKey": key,
        }
        for key in range(4)
    ],
    "cosmos_qa": [
        {
            "context": "I ran all the way and the doors closed before me.",
            "question": "Why did I run?",
            "answer0": "I was late for a train.",
            "answer1": "I was bored.",
            "answer2": "I was a horse.",
            "answer3": "None of these.",
            "label": label,
            "id": "i",
        }
        for label in range(4)
    ],
    "drop": [
        {
            "passage": "Rovers scored two goals before the break and one after it.",
            "question": "How many goals did Rovers score?",
            "answer": "3",
            "validated_answers": ["3", "three"],
            "query_id": "q",
        }
    ],
    "coqa": [
        {
            "source": "mctest",
            "story": "Bo has a red kite. It flies high.",
            "questions": ["What has Bo?", "Which colour is it?"],
            "answers": {"input_text": ["a kite", "red"], "answer_start": [0, 0], "answer_end": [5, 5]},
        }
    ],
    "quac": [
        {
            "context": "She was born in Bergen. CANNOTANSWER",
            "followup": "y",
            "yesno": "x",
            "question": "Where was she born?",
            "answers": {"text": ["in Bergen", "Bergen"], "answer_start": [13, 16]},
            "orig_answer": {"text": "in Bergen", "answer_start": 13},
            "section_title": "Early life",
            "background": "Ada Lie was a painter.",
            "title": "Ada Lie",
        }
    ],
    "dpr": [
        {"sentence": "The cat fled from the dog, for it barked.", "pronoun": "it", "candidates": ["The cat", "the dog"], "label": label}
        for label in (0, 1)
    ],
    "wsc273": [
        {
            "text": "The cup is too big for the box, so it stays here.",
            "option1": "The cup",
            "option1_normalized": "the cup",
            "option2": "the box",
            "option2_normalized": "the box",
            "pronoun_start": 35,
            "pronoun_end": 37,
            "pronoun_text": "it",
            "label": label,
            "idx": 3,
        }
        for label in (0, 1)
    ],
    "winogrande": [
        {"sentence": "Ann thanked Bea because _ had helped.", "option1": "Ann", "option2": "Bea", "label": label} for label in (0, 1)
    ],
    "trec": [{"label-coarse": label, "label-fine": 0, "text": "What is a quark ?"} for label in range(6)],
    "math_dataset": [{"question": "Solve 2*x = 8 for x.", "answer": "4"}],
    "fix_punct": [{"da": "Ja, Ann, det er her.", "en": "Yes, Ann, it is here."}],
    "common_gen": [
        {"gem_id": "g", "gem_parent_id": "g", "concept_set_id": 1, "concepts": ["dog", "run"], "target": "A dog runs.", "references": []}
    ],
    "dart": [
        {
            "gem_id": "g",
            "gem_parent_id": "g",
            "dart_id": 1,
            "tripleset": ["Oslo | COUNTRY | Norway", "Oslo | RIVER | Akerselva"],
            "subtree_was_extended": False,
            "target_sources": ["x"],
            "target": "Oslo in Norway is on the Akerselva.",
            "references": [],
        }
    ],
    "e2e_nlg": [
        {
            "gem_id": "g",
            "gem_parent_id": "g",
            "meaning_representation": "name[The Mill], food[French]",
            "target": "The Mill serves French food.",
            "references": ["The Mill serves French food.", "The Mill is French."],
        }
    ],
    "web_nlg": [
        {
            "gem_id": "g",
            "gem_parent_id": "g",
            "input": ["Oslo | country | Norway"],
            "category": "City",
            "webnlg_id": "w",
            "target": "Oslo is in Norway.",
            "references": [],
        }
    ],
    "multi_news": [{"document": "A mill burnt. The mill is gone.", "summary": "The mill burnt down."}],
    "newsroom": [{"text": "A fire broke out in a mill.", "summary": "A mill burnt.", "title": "Fire", "url": "u", "date": "d"}],
    "aeslc": [{"email_body": "Shall we meet on Monday?", "subject_line": "Meeting"}],
    "ag_news": [{"title": "Rovers win", "description": "Rovers beat City on Sunday.", "label": label} for label in range(4)],
    "opinion_abstracts_idebate": [
        {
            "_debate_name": "Ban cars",
            "_claim_id": "c",
            "_claim": "Streets would be safer.",
            "_argument_sentences": {"key": ["0", "1"], "value": ["Cars hit people.", "Children could play."]},
        }
    ],
    "opinion_abstracts_rotten_tomatoes": [
        {
            "_movie_name": "The Mill",
            "_movie_id": "m",
            "_critic_consensus": "Slow but warm.",
            "_critics": {"key": ["0", "1"], "value": ["It drags.", "It glows."]},
        }
    ],
    "samsum": [{"dialogue": "Ann: Lunch?\nBo: At noon.", "summary": "Ann and Bo have lunch at noon.", "id": "1"}],
    "wiki_lingua": [
        {
            "gem_id": "g",
            "gem_parent_id": "g",
            "source": "Fill the pot. Then wait until it boils.",
            "target": "Boil water.",
            "source_aligned": {"en": "Fill the pot."},
            "target_aligned": {"en": "Boil water."},
            "references": [],
        }
    ],
    "qrecc": [
        {
            "context": ["Who wrote Peer Gynt?", "Ibsen did."],
            "question": "When?",
            "question_rewrite": "When did Ibsen write Peer Gynt?",
            "answer": "In 1867.",
            "answer_url": "u",
            "conversation_id": 1,
            "turn_id": 2,
            "source": "quac",
        }
    ],
    "wiki_dialog": [
        {
            "title": "Oslo",
            "pid": "p",
            "passage": "Oslo lies on a fjord. It is old.",
            "sentences": ["Oslo lies on a fjord.", "It is old."],
            "utterances": ["Where is Oslo?", "Oslo lies on a fjord.", "Is it old?", "It is old."],
            "author_num": [0, 1, 0, 1],
        }
    ],
    "chain_of_thought": [{"question": "Is 2 even?", "answer": "yes", "explanation": "2 is twice 1."}],
}


def test_every_bundled_set_has_its_row():
    assert ROWS.keys() == BUNDLED.keys()


@pytest.mark.parametrize("name", BUNDLED)
def test_ten_templates_that_all_differ(name):
    chosen = load(name)
    assert len(chosen.templates) == 10
    assert 1 <= sum(template.turned_around for template in chosen.templates) <= 3
    assert not any(template.turned_around and template.original_task for template in chosen.templates)
    assert all(template.metrics for template in chosen.templates)
    for row in ROWS[name]:
        rendered = [template.render(chosen.row(row)) for template in chosen.templates]
        assert len({text.inputs for text in rendered}) == 10
        for template, text in zip(chosen.templates, rendered, strict=True):
            assert not text.dropped, template.name
            assert "{" not in text.inputs + text.targets and "|||" not in text.inputs + text.targets, template.name
            assert "  " not in text.inputs.replace("\n", "") and "undefined" not in text.inputs.lower()
            if not template.turned_around and template.answer_choices is not None:
                assert text.answer_choices is not None and text.targets in text.answer_choices
                assert len(set(text.answer_choices)) == len(text.answer_choices) > 1


@pytest.mark.parametrize("name", BUNDLED)
def test_labels_change_the_target_and_every_field_is_read(name):
    chosen = load(name)
    rows = [chosen.row(row) for row in ROWS[name]]
    for template in chosen.templates:
        texts = [(text.inputs, text.targets) for text in (template.render(row) for row in rows)]
        assert len(set(texts)) == len(texts), f"{template.name}: two rows with different labels give the same text"
    for field in rows[0].keys() - {"label", "accepted"}:
        text = str(rows[0][field] if isinstance(rows[0][field], str) else "")
        assert any(text in template.render(rows[0]).inputs + template.render(rows[0]).targets for template in chosen.templates), field


@pytest.mark.parametrize("name", ["cb", "mnli"])
def test_labels_are_counted_as_the_data_set_counts_them(name):
    first = load(name).templates[0]
    words = [first.render(load(name).row(row)).targets for row in ROWS[name]]
    assert words == (["yes", "no", "maybe"] if name == "cb" else ["yes", "maybe", "no"])
    assert first.render(load(name).row(_NLI | {"label": "contradiction"})).targets == "no"
    assert first.render(load(name).row(_NLI | {"label": "1"})).targets == words[1]
    with pytest.raises(UserError, match=r"f:3: label is 'meh', wanted one of \['entailment', "):
        load(name).row(_NLI | {"label": "meh"}, "f:3")


def test_rows_without_an_answer_are_dropped():
    unanswered = {
        "record": ROWS["record"][0] | {"answers": []},
        "squad": ROWS["squad"][0] | {"answers": {"text": [], "answer_start": []}},
        "commonsense_qa": ROWS["commonsense_qa"][0] | {"answerKey": ""},
    }
    for name, row in unanswered.items():
        assert all(template.render(load(name).row(row)).dropped for template in load(name).templates), name


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("squad", ("when they rest", "rest")),
        ("trivia_qa", ("Shakespeare", "The Bard")),
        ("nq_open", ("Shakespeare", "The Bard")),
        ("record", ("Bo",)),
        ("rte", ()),
    ],
)
def test_every_accepted_answer_is_a_reference_of_what_asks_the_task(name, wanted):
    for template in load(name).templates:
        references = template.render(load(name).row(ROWS[name][0])).references
        assert references == (() if template.turned_around else wanted)


def test_templates_are_drawn_evenly_by_identity():
    templates = load("rte").templates
    drawn = [template_sets.draw(templates, f"rte/{number}").name for number in range(2000)]
    assert drawn == [template_sets.draw(templates, f"rte/{number}").name for number in range(2000)]
    counts = [drawn.count(template.name) for template in templates]
    assert min(counts) > 150 and max(counts) < 260, "200 each, within four standard deviations (13.4 each)"
    assert drawn != [template_sets.draw(templates, f"rte/{number}", seed=1).name for number in range(2000)]


PROMPTSOURCE = """
dataset: toys
subset: null
templates:
  0a1b: !Template
    answer_choices: 'Bad ||| Good'
    id: 0a1b
    jinja: 'Is "{{text}}" good? ||| {{ answer_choices[label] }}'
    metadata: !TemplateMetadata
      choices_in_prompt: false
      languages:
      - en
      metrics:
      - Accuracy
      - Other
      original_task: true
    name: is it good
    reference: ''
  2c3d: !Template
    answer_choices: null
    id: 2c3d
    jinja: 'Write about a {{ ["bad", "good"][label] }} toy. ||| {{text}}'
    metadata: !TemplateMetadata
      choices_in_prompt: null
      languages: []
      metrics: [BLEU, ROUGE]
      original_task: false
    name: write
    reference: me
"""


def test_a_file_as_promptsource_writes_it(tmp_path):
    (tmp_path / "toys.yaml").write_text(PROMPTSOURCE)
    first, second = load(str(tmp_path / "toys.yaml")).templates
    assert (first.name, first.metrics, first.original_task) == ("is it good", ("accuracy",), True)
    assert (second.name, second.metrics, second.original_task) == ("write", ("bleu", "rouge1", "rouge2", "rougeL"), False)
    row = load(str(tmp_path / "toys.yaml")).row({"text": "A kite", "label": 1})
    assert [first.render(row).inputs, first.render(row).targets, second.render(row).inputs, second.render(row).targets] == [
        'Is "A kite" good?',
        "Good",
        "Write about a good toy.",
        "A kite",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("templates: !!python/object/apply:os.system ['true']", r"t\.yaml:1: not readable as YAML"),
        ("templates:\n  a: {jinja: 'x ||| y'\n", r"t\.yaml:\d+: not readable as YAML"),
        ("templates: {}", "holds no template"),
        ("template: {}", "key 'template' is not known"),
        ("templates: {a: {jinga: 'x ||| y'}}", "template 'a': key 'jinga' is not known"),
        ("templates: {a: x}", r"template 'a': has no \|\|\|"),
        ("templates: {a: {jinja: 5}}", "'jinja' is 5"),
        ("templates: {a: '{{ x ||| y'}", "template 'a': not a Jinja template"),
        ("templates: {a: {jinja: 'x ||| y', answer_choices: no}}", "put it in quotes"),
        ("templates: {a: {jinja: 'x ||| y', name: n}, b: {jinja: 'x ||| z', name: n}}", "two templates are called 'n'"),
        ("- 1", "wanted a mapping, got list"),
    ],
)
def test_what_is_wrong_with_a_file_is_named(tmp_path, text, message):
    (tmp_path / "t.yaml").write_text(text)
    with pytest.raises(UserError, match=message):
        template_sets.read_file.__wrapped__(str(tmp_path / "t.yaml"))


def test_names_and_columns_that_are_not_there(tmp_path):
    with pytest.raises(UserError, match=r"templates 'rtee': no such set; wanted the path of a \.yaml file or one of aeslc, "):
        load("rtee")
    with pytest.raises(UserError, match="cannot be read"):
        load(str(tmp_path / "absent.yaml"))
    with pytest.raises(UserError, match=r"row 4: no field 'reply' at 'answer\.value'; the row has \['answer', 'question'\]"):
        load("trivia_qa").row({"question": "?", "answer": {}}, "row 4")


def test_all_bundled_files_are_used():
    from prompt_tuning import assets

    files = {path.name for path in (pathlib.Path(assets.resolve("bundled:templates"))).glob("*.yaml")}
    assert files == {f"{entry.file}.yaml" for entry in BUNDLED.values()}
    inputs = itertools.chain.from_iterable(template_sets.read_file(f"bundled:templates/{name}").templates for name in sorted(files))
    texts = [template.inputs for template in inputs]
    assert len(set(texts)) == len(texts) == 10 * len(files)


def test_the_page_names_every_set_and_its_file_is_read(tmp_path):
    page = (pathlib.Path(__file__).resolve().parents[2] / "docs" / "instructions.md").read_text()
    named = page.split("they\nfit: ")[1].split(". All")[0]
    assert sorted(name.strip() for name in named.replace("\n", " ").split(",")) == sorted(BUNDLED)
    (tmp_path / "own.yaml").write_text(page.split("```yaml\n")[1].split("```")[0])
    row = {"passage": "Ice is cold.", "question": "is ice cold", "label": 1}
    asks, one_of_two, write = (template.render(row) for template in load(str(tmp_path / "own.yaml")).templates)
    assert (asks.inputs, asks.targets) == ("Ice is cold.\nis ice cold?\nOPTIONS:\n- no\n- yes", "yes")
    assert one_of_two.targets == "true" and one_of_two.inputs in ("Is it so? is ice cold", "Does it hold? is ice cold")
    assert (write.inputs, write.targets) == ("Ask something to which one says yes.", "is ice cold")
