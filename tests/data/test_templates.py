"""The engine: two notations, what a full template may call, dropped rows, and errors that name file, template and field."""

import string

import jinja2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prompt_tuning.data.templates import Rendered, Template, field_names
from prompt_tuning.errors import UserError

ROW = {"text": "It was dull.", "label": 0}


def full(text, choices=None, **settings):
    return Template(text, None, choices, name="t", where="set.yaml", **settings)


def test_short_notation():
    template = Template("{text} Good or bad?\n{options}", answer_choices=("bad", "good"))
    assert template.render(ROW) == Rendered("It was dull. Good or bad?\nOPTIONS:\n- bad\n- good", "bad", ("bad", "good"))
    assert Template("Write: {answer}", "{text}", ("bad", "good"), turned_around=True).render(ROW) == Rendered("Write: bad", "It was dull.")


@settings(deadline=None)
@given(st.lists(st.tuples(st.text(), st.sampled_from(["", "a", "self", "true", "in", "range", "_x"]))), st.text())
def test_short_notation_is_pythons_format(pieces, value):
    """Literal braces, Jinja's own delimiters and names, and any value: str.format is the oracle."""
    text = "".join(
        literal.replace("{", "{{").replace("}", "}}").replace("\r", "") + (f"{{{name}}}" if name else "") for literal, name in pieces
    )
    values = {name: value for _, name in pieces if name}
    assert Template(text, "x").render(values).inputs == text.format_map(values)
    assert list(field_names(text)) == [name for _, name, _, _ in string.Formatter().parse(text) if name]


def test_full_notation():
    template = full("{{ text }} {{ options }} ||| {{ answer_choices[label] }}", "bad ||| good")
    assert template.render(ROW) == Rendered("It was dull. OPTIONS:\n- bad\n- good", "bad", ("bad", "good"))
    assert full("{{ q }} ||| {{ answer }}", "{{ c | join('|||') }}").render({"q": "?", "c": ["x", "y"], "label": 1}).targets == "y"
    assert full("{{ answer }} ||| {{ options }}", "a ||| b").render({"answer": "mine", "options": "a", "label": 1}) == Rendered(
        "mine", "a", ("a", "b")
    ), "what the row calls so stays the row's"


@settings(deadline=None)
@given(st.text(alphabet="|a {}%\n#").map(str.strip).filter(bool))
def test_a_rows_own_separators_and_delimiters_stay(text):
    """Plain Jinja, which knows no separator, is the oracle."""
    assert full("in: {{ text }} ||| {{ text }}").render({"text": text}) == Rendered(
        jinja2.Template("in: {{ text }}").render(text=text).strip(), text
    )


def test_a_condition_drops_a_row():
    template = full("{% if label == 1 %}{{ text }} ||| good{% endif %}")
    assert template.render(ROW).dropped
    assert not template.render(ROW | {"label": 1}).dropped
    assert full("{{ text }} ||| {{ more }}").render(ROW | {"more": " "}).dropped


def test_what_is_drawn_is_the_rows():
    template = full("{{ range(1000) | list | choice }} {{ range(1000) | list | random }} ||| x")
    rows = [{"text": str(number)} for number in range(50)]
    drawn = [template.render(row).inputs for row in rows]
    assert drawn == [template.render(row).inputs for row in rows]
    assert len(set(drawn)) > 45
    assert any(len(set(text.split())) == 2 for text in drawn), "each place draws anew"
    assert drawn != [template.render(row, seed=1).inputs for row in rows]


def test_what_promptsource_offers():
    row = {"a": [1, 2, 2, 3, 3], "b": "xyz", "text": "t"}
    assert full("{{ a | most_frequent }} ||| {{ text | highlight }}").render(row) == Rendered("[2, 3]", "t")
    assert full("{% for x, y in zip(a, b) %}{{ x }}{{ y }}{% endfor %} ||| t").render(row).inputs == "1x2y2z"


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (full("{{ txt }} ||| x"), r"set\.yaml: template 't': no field 'txt' in the row; the row has \['label', 'text'\]"),
        (full("{{ text.body.head }} ||| x"), r"set\.yaml: template 't': .*'body'"),
        (full("x ||| {{ answer_choices[label] }}"), "no field 'answer_choices'"),
        (full("{{ text }} ||| meh", "bad ||| good"), r"the target 'meh' is none of the choices \['bad', 'good'\]"),
        (full("a ||| b ||| c"), "gave 3 parts"),
        (full("{% if %} ||| x"), r"set\.yaml: template 't': not a Jinja template: .*line 1"),
        (full("{{ 1 / 0 }} ||| x"), "cannot be filled: ZeroDivisionError"),
        (full("{{ text.__class__.__mro__ }} ||| x"), "unsafe|undefined|no element|no field"),
        (full("{{ [].append(1) }} ||| x"), "cannot be filled: SecurityError"),
        (full("{{ lipsum() }} ||| x"), "no field 'lipsum'"),
        (Template("{txt}"), r"template '': no field 'txt' in the row; the row has \['label', 'text'\]"),
        (Template("{text"), "cannot read"),
        (Template("{text!r}"), "not a plain name"),
        (Template("{text}", answer_choices=("a",)), None),
        (Template("{label}", "{text}", ("a", "b")), "is none of the choices"),
    ],
)
def test_errors_name_file_template_and_field(template, message):
    if message is None:
        assert template.render(ROW).targets == "a"
        return
    with pytest.raises(UserError, match=message):
        template.render(ROW)


def test_a_label_outside_the_choices_is_refused():
    with pytest.raises(UserError, match=r"template '': label is 2, wanted 0\.\.1"):
        Template("{text}", answer_choices=("a", "b")).render(ROW | {"label": 2})
    with pytest.raises(UserError, match="a field 'answer_choices'"):
        full("a ||| b").render({"answer_choices": 1})
