"""Sets of templates: the bundled ten for each kind of task, and files in promptsource's layout.

A file is YAML. Under `templates` stand templates by name or number: promptsource's `!Template` with `name`, `jinja`, `answer_choices` and
`metadata`, or the same as a plain mapping, or the Jinja text alone. A file may also say for all its templates:

    fields: the columns that templates may name; a row's other columns are not shown to them
    labels: the names of the labels, in the order of the answer choices
    answer_choices, metrics: of templates that say none
    target: what follows a template that has no `|||`
    references: all accepted targets, parted by `|||`, of templates that ask the original task
    turned_around: more templates, which ask for what the task gives (FLAN, Wei et al. 2021, section 2.1)

YAML is read with a safe loader: a file can hold data only.
"""

import dataclasses
import functools
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from prompt_tuning import assets
from prompt_tuning.data import metrics
from prompt_tuning.data.templates import SEPARATOR, Template, check_syntax
from prompt_tuning.errors import UserError

# Promptsource's names of metrics; those that are not here it computes in ways of their own, and a template has them in vain.
_METRICS = {
    "Accuracy": ("accuracy",),
    "BLEU": ("bleu",),
    "ROUGE": ("rouge1", "rouge2", "rougeL"),
    "Squad": ("exact_match", "squad_f1"),
    "Trivia QA": ("exact_match", "squad_f1"),
    "Pearson Correlation": ("pearson",),
    "Spearman Correlation": ("spearman",),
}
_FILE_KEYS = frozenset(
    ("dataset", "subset", "fields", "labels", "answer_choices", "metrics", "references", "target", "templates", "turned_around")
)
_TEMPLATE_KEYS = frozenset(("id", "name", "reference", "jinja", "answer_choices", "metadata", "task_template"))
_METADATA_KEYS = frozenset(("choices_in_prompt", "languages", "metrics", "original_task", "turned_around"))


@dataclasses.dataclass(frozen=True)
class TemplateSet:
    """The templates of one kind of task, and how rows of a data set are shown to them.

    Attributes:
      templates: in the order of the file.
      fields: the fields that templates may name; empty: all that a row has.
      labels: the names of the labels in the order of the answer choices; empty: a row's label is taken as it is.
      columns: where a field is in a row, as `{"premise": "sentence1"}`; a path such as `answers.text.0` goes into mappings and lists.
      constants: fields that are the same in every row.
      row_labels: the names of the labels in the order in which the data set numbers them; empty: as `labels`.
    """

    templates: tuple[Template, ...]
    fields: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    columns: Mapping[str, str] = dataclasses.field(default_factory=dict)
    constants: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    row_labels: tuple[str, ...] = ()

    def row(self, row: Mapping[str, Any], where: str = "row") -> dict[str, Any]:
        """A row of the data set as the templates know it. Raises UserError for a field it lacks, or a label that is none."""
        renamed = {column.split(".")[0] for column in self.columns.values()}
        fields = self.fields or tuple(dict.fromkeys([*(name for name in row if name not in renamed), *self.columns]))
        shown = {name: _at(row, self.columns.get(name, name), name, where) for name in fields if name not in self.constants}
        if self.labels:
            shown["label"] = self._label(shown["label"], where)
        elif isinstance(label := shown.get("label"), str) and label.isdecimal():
            shown["label"] = int(label)  # A column of a TSV file.
        return shown | dict(self.constants)

    def _label(self, value: Any, where: str) -> int:
        """The place of a row's label, given as name, number or truth, among `labels`."""
        names = self.row_labels or self.labels
        if isinstance(value, str) and value in self.labels:
            return self.labels.index(value)
        number = int(value) if isinstance(value, (bool, int)) else int(value) if isinstance(value, str) and value.isdecimal() else -1
        if not 0 <= number < len(names) or names[number] not in self.labels:
            raise UserError(f"{where}: label is {value!r}, wanted one of {list(names)} or an index 0..{len(names) - 1}; mend the row")
        return self.labels.index(names[number])


def draw(templates: Sequence[Template], identity: str, seed: int = 0) -> Template:
    """The template of one example: drawn by a hash of its identity, so that no order, shard or restart changes it."""
    digest = hashlib.sha256(f"template\x1f{seed}\x1f{identity}".encode("utf-8", "surrogatepass")).digest()
    return templates[int.from_bytes(digest[:8]) % len(templates)]


def load(name: str) -> TemplateSet:
    """The set of a data set that is known by name (see BUNDLED), or of a YAML file by its path.

    Raises UserError, naming file and template, for whatever cannot be read.
    """
    if name in BUNDLED:
        entry = BUNDLED[name]
        read = read_file(f"{assets.BUNDLED}templates/{entry.file}.yaml")
        return dataclasses.replace(read, columns=entry.columns, constants=entry.constants, row_labels=entry.labels)
    if not name.endswith((".yaml", ".yml")):
        raise UserError(f"templates {name!r}: no such set; wanted the path of a .yaml file or one of {', '.join(sorted(BUNDLED))}")
    return read_file(name)


@functools.lru_cache(maxsize=64)
def read_file(path: str) -> TemplateSet:
    """The templates of a YAML file. Raises UserError, naming file and template, for whatever cannot be read."""
    try:
        with open(assets.resolve(path), encoding="utf-8") as file:
            content = yaml.load(file, Loader=_Loader)  # A subclass of SafeLoader: ruff's S506 knows only the loader itself.
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {error}; wanted a YAML file of templates; mend the path") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else path
        raise UserError(f"{where}: not readable as YAML: {getattr(error, 'problem', None) or error}; mend the line") from error
    content = _mapping(content, path, _FILE_KEYS)
    found = []
    for key, turned in (("templates", False), ("turned_around", True)):
        entries = content.get(key) or {}
        entries = entries if isinstance(entries, Mapping) else dict(enumerate(entries))
        found += [_template(str(name), entry, content, path, turned) for name, entry in entries.items()]
    names = [template.name for template in found]
    if not found:
        raise UserError(f"{path}: holds no template; wanted some under 'templates:'; mend the file")
    if len(set(names)) < len(names):
        raise UserError(f"{path}: two templates are called {max(names, key=names.count)!r}; wanted different names; mend the file")
    return TemplateSet(tuple(found), tuple(content.get("fields") or ()), tuple(content.get("labels") or ()))


def _template(name: str, entry: Any, content: Mapping[str, Any], path: str, turned: bool) -> Template:
    where = f"{path}: template {name!r}"
    values = _mapping({"jinja": entry} if isinstance(entry, str) else entry, where, _TEMPLATE_KEYS)
    metadata = _mapping(values.get("metadata") or {}, f"{where}: metadata", _METADATA_KEYS)
    text = values.get("jinja")
    if not isinstance(text, str) or not text.strip():
        raise UserError(f"{where}: 'jinja' is {text!r}, wanted the text 'input {SEPARATOR} target'; mend the file")
    if SEPARATOR not in text:
        if not content.get("target"):
            raise UserError(f"{where}: has no {SEPARATOR}, wanted 'input {SEPARATOR} target', or a 'target:' of the file; mend the file")
        text = f"{text} {SEPARATOR} {content['target']}"
    choices = values.get("answer_choices", content.get("answer_choices"))
    if choices is not None and not isinstance(choices, str):
        raise UserError(f"{where}: 'answer_choices' is {choices!r}, wanted text 'one {SEPARATOR} other'; put it in quotes")
    named = metadata.get("metrics") or content.get("metrics") or ()
    turned = turned or bool(metadata.get("turned_around"))
    original = not turned and metadata.get("original_task") is not False
    own = [ours for metric in named for ours in _METRICS.get(metric, (metric,) if metric in metrics.METRICS else ())]
    template = Template(
        text,
        None,
        choices or None,
        turned_around=turned,
        name=str(values.get("name") or name),
        original_task=original,
        metrics=tuple(dict.fromkeys(own)),
        references=content.get("references") if original else None,
        where=path,
    )
    check_syntax(template)
    return template


def _mapping(value: Any, where: str, known: frozenset[str]) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise UserError(f"{where}: wanted a mapping, got {type(value).__name__}; mend the file")
    unknown = [key for key in value if key not in known]
    if unknown:
        raise UserError(f"{where}: key {unknown[0]!r} is not known; wanted some of {', '.join(sorted(known))}; mend the file")
    return value


def _at(row: Mapping[str, Any], path: str, field: str, where: str) -> Any:
    """The value at a path of a row."""
    if path in row:
        return row[path]
    value: Any = row
    for step in path.split("."):
        try:
            value = value[int(step)] if isinstance(value, (list, tuple)) else value[step]
        except (KeyError, IndexError, TypeError, ValueError):
            asked = f"field {field!r} at {path!r}" if path != field else f"field {field!r}"
            raise UserError(f"{where}: no {asked}; the row has {sorted(map(str, row))}; mend the columns or the row") from None
    return value


class _Loader(yaml.SafeLoader):
    """Reads promptsource's tags as plain mappings."""


for _tag in ("!Template", "!TemplateMetadata"):
    _Loader.add_constructor(_tag, lambda loader, node: loader.construct_mapping(node, deep=True))


@dataclasses.dataclass(frozen=True)
class _Entry:
    """A data set as its publishers lay it out: which bundled file asks its task, where its fields are, in which order its labels count."""

    file: str
    columns: Mapping[str, str] = dataclasses.field(default_factory=dict)
    labels: tuple[str, ...] = ()
    constants: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def _translation(source: str, target: str, names: tuple[str, str]) -> _Entry:
    columns = {"source": f"translation.{source}", "target": f"translation.{target}"}
    return _Entry("translation", columns, constants={"source_language": names[0], "target_language": names[1]})


# Columns are those of the data set's publishers where TFDS keeps them, and TFDS's where it has others.
BUNDLED: Mapping[str, _Entry] = {
    "cola": _Entry("acceptability"),
    "sst2": _Entry("sentiment", {"text": "sentence"}),
    "imdb": _Entry("sentiment"),
    "yelp": _Entry("customer_review"),
    "sentiment140": _Entry("tweet_mood", {"label": "polarity"}, ("negative", "", "neutral", "", "positive")),
    "rotten_tomatoes": _Entry("sentiment"),
    "mrpc": _Entry("paraphrase"),
    "paws": _Entry("paraphrase"),
    "qqp": _Entry("duplicate_questions"),
    "stsb": _Entry("similarity"),
    "mnli": _Entry("inference_three"),
    "anli": _Entry("inference_three"),
    "cb": _Entry("inference_three", labels=("entailment", "contradiction", "neutral")),
    "rte": _Entry("inference_two"),
    "glue_rte": _Entry("inference_two", {"premise": "sentence1", "hypothesis": "sentence2"}),
    "qnli": _Entry("question_inference"),
    "wnli": _Entry("pronoun_inference"),
    "boolq": _Entry("yes_no_questions"),
    "copa": _Entry("cause_and_effect"),
    "hellaswag": _Entry("continuation", {"activity": "activity_label"}),
    "piqa": _Entry("practical_goals"),
    "story_cloze": _Entry("story_ending"),
    "arc": _Entry("exam_questions"),
    "openbookqa": _Entry(
        "open_book",
        {"stem": "question.stem", "fact": "fact1", "label": "answerKey"} | {f"choice_{a}": f"question.choice_{a.upper()}" for a in "abcd"},
    ),
    "cosmos_qa": _Entry("between_the_lines"),
    "drop": _Entry("counting_questions", {"reply": "answer", "accepted": "validated_answers"}),
    "coqa": _Entry("story_conversation", {"answers": "answers.input_text"}),
    "quac": _Entry("article_questions", {"reply": "orig_answer.text", "accepted": "answers.text"}),
    "dpr": _Entry("pronoun_choice", {"text": "sentence", "first": "candidates.0", "second": "candidates.1"}),
    "wsc273": _Entry("pronoun_choice", {"pronoun": "pronoun_text", "first": "option1_normalized", "second": "option2_normalized"}),
    "winogrande": _Entry("gap_choice"),
    "multirc": _Entry("answer_check", {"candidate": "answer"}),
    "record": _Entry("entity_gap"),
    "wic": _Entry("word_sense"),
    "trec": _Entry("question_kinds", {"label": "label-coarse"}),
    "math_dataset": _Entry("equations", {"reply": "answer"}),
    "fix_punct": _Entry("punctuation", {"text": "en"}),
    "common_gen": _Entry("concepts"),
    "dart": _Entry("data_to_text", {"data": "tripleset"}),
    "e2e_nlg": _Entry("data_to_text", {"data": "meaning_representation"}),
    "web_nlg": _Entry("data_to_text", {"data": "input"}),
    "wsc": _Entry("pronouns"),
    "squad": _Entry("extractive_questions"),
    "commonsense_qa": _Entry("commonsense"),
    "xsum": _Entry("summarisation"),
    "gigaword": _Entry("summarisation"),
    "multi_news": _Entry("summarisation"),
    "newsroom": _Entry("summarisation", {"document": "text"}),
    "aeslc": _Entry("email_subject", {"body": "email_body", "subject": "subject_line"}),
    "ag_news": _Entry("news_topic"),
    "opinion_abstracts_idebate": _Entry(
        "argument_claim", {"debate": "_debate_name", "arguments": "_argument_sentences.value", "claim": "_claim"}
    ),
    "opinion_abstracts_rotten_tomatoes": _Entry(
        "critics_consensus", {"movie": "_movie_name", "critics": "_critics.value", "consensus": "_critic_consensus"}
    ),
    "samsum": _Entry("chat_summary"),
    "wiki_lingua": _Entry("how_to", {"article": "source", "summary": "target"}),
    "qrecc": _Entry("dialogue_turn", {"turns": "context", "reply": "answer"}),
    "wiki_dialog": _Entry("dialogue_turn", {"turns": "utterances"}, constants={"question": "", "reply": ""}),
    "cnn_dailymail": _Entry("summarisation", {"document": "article", "summary": "highlights"}),
    "wmt16_de_en": _translation("de", "en", ("German", "English")),
    "wmt16_en_de": _translation("en", "de", ("English", "German")),
    "wmt14_fr_en": _translation("fr", "en", ("French", "English")),
    "wmt16_ro_en": _translation("ro", "en", ("Romanian", "English")),
    "trivia_qa": _Entry("closed_book", {"reply": "answer.value", "accepted": "answer.aliases"}),
    "nq_open": _Entry("closed_book", {"reply": "answer.0", "accepted": "answer"}),
    "web_questions": _Entry("closed_book", {"reply": "answers.0", "accepted": "answers"}),
    "wmt14_en_fr": _translation("en", "fr", ("English", "French")),
    "wmt16_en_cs": _translation("en", "cs", ("English", "Czech")),
    "wmt16_en_fi": _translation("en", "fi", ("English", "Finnish")),
    "wmt16_en_ro": _translation("en", "ro", ("English", "Romanian")),
    "wmt16_en_ru": _translation("en", "ru", ("English", "Russian")),
    "wmt16_en_tr": _translation("en", "tr", ("English", "Turkish")),
    "paracrawl_en_es": _translation("en", "es", ("English", "Spanish")),
    "chain_of_thought": _Entry("chain_of_thought", {"reply": "answer"}),
}
