"""Arithmetic in words, zero to twenty: is a sum right, who has more, is it more or fewer than before, what is next, how many are there.

Addends go from zero to ten. `arithmetic_true` and `arithmetic_more` can also be drawn in Tavi.
Out of domain the names, the things and the sentences are others; the numbers are the same.
"""

import random

from prompt_tuning.data.templates import Template
from prompt_tuning.data.world.clusters.arithmetic_frames import CHANGES, CLAIMS, COUNTS, PAIRS, STORIES, TAVI
from prompt_tuning.data.world.clusters.words_lexicon import NAMES, NUMBERS, THINGS, capital, counted, people, pronoun
from prompt_tuning.data.world.task import Domain, Language, Row, WorldTask

_MORE_FEWER_SAME = ("fewer", "the same", "more")


def _operands(rng: random.Random, sign: int) -> tuple[int, int, int]:
    """Two numbers and what they make; both addends are at most ten."""
    small, other = rng.randrange(11), rng.randrange(11)
    return (small, other, small + other) if sign > 0 else (small + other, other, small)


def _wrong(rng: random.Random, result: int) -> int:
    return rng.choice([number for number in range(max(0, result - 4), min(20, result + 4) + 1) if number != result])


def _claim(rng: random.Random, domain: Domain, right: bool) -> tuple[str, int]:
    """A claim, and the number that would be right."""
    frame, sign = rng.choice(CLAIMS[domain])
    first, second, result = _operands(rng, sign)
    said = result if right else _wrong(rng, result)
    name, other = people(rng, domain, 2)
    one, many = rng.choice(THINGS[domain])
    numbers = {"first": NUMBERS[first], "second": NUMBERS[second], "result": NUMBERS[said]}
    return frame.format(name=name, other=other, things=one if first == 1 else many, **numbers), result


def _tavi_claim(rng: random.Random, domain: Domain, right: bool) -> str:
    """In Tavi: a person has a number of things and another number; so many they are."""
    first, second, result = _operands(rng, 1)
    said = result if right else _wrong(rng, result)
    name = rng.choice(NAMES[domain])
    things = rng.choice(THINGS[domain])[1]
    return TAVI.say(
        TAVI.clause("have", name, object=(things, NUMBERS[first], "and", NUMBERS[second])),
        TAVI.clause("be", things, complement=NUMBERS[said]),
    )


def _draw_true(rng: random.Random, domain: Domain, language: Language) -> Row:
    label = rng.randrange(2)
    text = _tavi_claim(rng, domain, bool(label)) if language == "tavi" else _claim(rng, domain, bool(label))[0]
    return {"text": text, "label": label}


def _two_owners(rng: random.Random, domain: Domain, language: Language) -> tuple[str, list[str], list[int], tuple[str, str]]:
    """A text on two people and how many things they have, the people, their numbers, the thing."""
    names = people(rng, domain, 2)
    numbers = rng.sample(range(21), 2)
    thing = rng.choice(THINGS[domain])
    if language == "tavi":
        has = [TAVI.clause("have", name, object=(thing[1], NUMBERS[number])) for name, number in zip(names, numbers, strict=True)]
        return TAVI.say(*has), names, numbers, thing
    some, others = (counted(number, thing) for number in numbers)
    text = rng.choice(PAIRS[domain]).format(first=names[0], second=names[1], some=some, others=others)
    return capital(text), names, numbers, thing


def _draw_more(rng: random.Random, domain: Domain, language: Language) -> Row:
    text, names, numbers, _ = _two_owners(rng, domain, language)
    return {"text": text, "first": names[0], "second": names[1], "label": int(numbers[1] > numbers[0])}


def _change(rng: random.Random, domain: Domain) -> tuple[str, int, str, tuple[str, str]]:
    """A text on how many things a person had at two times, the label, the person, the thing."""
    label = rng.randrange(3)
    low, high = sorted(rng.sample(range(21), 2))
    before, after = ((high, low), (low, low), (low, high))[label]
    name = rng.choice(NAMES[domain])
    thing = rng.choice(THINGS[domain])
    frame = rng.choice(CHANGES[domain])
    return frame.format(name=name, pronoun=pronoun(name), some=counted(before, thing), others=NUMBERS[after]), label, name, thing


def _draw_change(rng: random.Random, domain: Domain, language: Language) -> Row:
    text, label, _, _ = _change(rng, domain)
    return {"text": text, "label": label}


def _story(rng: random.Random, domain: Domain) -> tuple[str, int, tuple[str, str], str]:
    frame, sign = rng.choice(STORIES[domain])
    first, second, result = _operands(rng, sign)
    name, other = people(rng, domain, 2)
    thing = rng.choice(THINGS[domain])
    some = counted(first, thing)
    if first == 1:
        frame = frame.replace("There were", "There was")
    text = frame.format(name=name, other=other, Pronoun=capital(pronoun(name)), some=some, second=NUMBERS[second])
    return text, result, thing, name


def _draw_now(rng: random.Random, domain: Domain, language: Language) -> Row:
    text, result, thing, _ = _story(rng, domain)
    return {"text": text, "number": NUMBERS[result], "things": thing[1]}


def _draw_next(rng: random.Random, domain: Domain, language: Language) -> Row:
    """Numbers in a row and three that may follow: the label is the index of the one that does."""
    length = rng.choice((3, 4, 5))
    start = rng.randrange(21 - length)
    told, answer = NUMBERS[start : start + length], NUMBERS[start + length]
    others = rng.sample([number for number in NUMBERS if number != answer and number not in told], 2)
    choices = rng.sample([answer, *others], 3)
    name = rng.choice(NAMES[domain])
    text = rng.choice(COUNTS[domain]).format(name=name, numbers=", ".join(told))
    return {"text": text, "name": name, "label": choices.index(answer)} | {f"choice{i}": number for i, number in enumerate(choices)}


def _say_fact(rng: random.Random, domain: Domain) -> str:
    facts = []
    for _ in range(rng.choice((2, 3))):
        sign = rng.choice((1, 1, -1))
        first, second, result = (NUMBERS[number] for number in _operands(rng, sign))
        if sign > 0:
            facts.append(rng.choice((f"{first} plus {second} is {result}.", f"{first} and {second} make {result}.")))
        else:
            facts.append(rng.choice((f"{first} minus {second} is {result}.", f"{second} from {first} leaves {result}.")))
    return " ".join(capital(fact) for fact in facts)


def _say_claim(rng: random.Random, domain: Domain) -> str:
    right = rng.random() < 0.5
    text, result = _claim(rng, domain, right)
    number = NUMBERS[result]
    name = rng.choice([name for name in NAMES[domain] if name not in text])
    if right:
        ends = (
            "That is true.",
            f"That is right, it is {number}.",
            f"Yes, it is {number}.",
            f"{name} finds it true.",
            "There is no mistake in it.",
        )
    else:
        ends = (
            "That is false.",
            f"That is wrong, it is {number}.",
            f"No, it is {number}.",
            f"{name} finds it false.",
            f"There is a mistake in it, for it is {number}.",
        )
    return f"{text} {rng.choice(ends)}"


def _say_more(rng: random.Random, domain: Domain) -> str:
    text, names, numbers, (_, many) = _two_owners(rng, domain, "english")
    if numbers[1] > numbers[0]:
        names = names[::-1]
    more, fewer = names
    ends = (
        f"So {more} has more {many} than {fewer}.",
        f"Who has more? It is {more}.",
        f"The one with more {many} is {more}, and the one with fewer is {fewer}.",
        f"{more} has the larger number.",
        f"{fewer} has fewer, and {more} has more.",
        f"{more} wins this time.",
    )
    return f"{text} {rng.choice(ends)}"


def _say_change(rng: random.Random, domain: Domain) -> str:
    text, label, name, (_, many) = _change(rng, domain)
    what = ("fewer", "the same", "more")[label]
    ends = (
        f"In the end it was {('fewer', 'the same number', 'more')[label]}.",
        f"So the {many} of {name} {('became fewer', 'stayed the same', 'became more')[label]}.",
        f"Were there more, fewer or the same? It was {what}.",
        f"The number {('went down', 'stayed the same', 'went up')[label]}.",
        f"Compared with before, that is {what}.",
    )
    return f"{text} {rng.choice(ends)}"


def _say_story(rng: random.Random, domain: Domain) -> str:
    text, result, thing, name = _story(rng, domain)
    ends = (
        f"Now there are {NUMBERS[result]}.",
        f"That makes {counted(result, thing)}.",
        f"How many are there then? The answer is {NUMBERS[result]}.",
        f"Then {name} counted {counted(result, thing)}.",
        f"{capital(NUMBERS[result])}, that was the number in the end.",
    )
    return f"{text} {rng.choice(ends)}"


def _say_order(rng: random.Random, domain: Domain) -> str:
    if rng.random() < 0.5:
        start = rng.randrange(15)
        numbers = NUMBERS[start : start + rng.choice((4, 5, 6))]
        return f"{rng.choice(NAMES[domain])} counted {', '.join(numbers)}."
    low, high = sorted(rng.sample(range(21), 2))
    return rng.choice(
        (
            f"{capital(NUMBERS[high])} is more than {NUMBERS[low]}, and {NUMBERS[low]} is less than {NUMBERS[high]}.",
            f"Of {NUMBERS[low]} and {NUMBERS[high]}, {NUMBERS[high]} is the larger number.",
            f"Of {NUMBERS[high]} and {NUMBERS[low]}, {NUMBERS[high]} is the larger number.",
        )
    )


def _say_tavi(rng: random.Random, domain: Domain) -> str:
    kind = rng.randrange(4)
    if kind == 0:
        first, second, result = (NUMBERS[number] for number in _operands(rng, 1))
        line = TAVI.say(TAVI.clause("be", (first, "and", second), complement=result))
        return f"{line} {capital(first)} and {second} make {result}." if rng.random() < 0.6 else line
    if kind == 1:
        name, number = rng.choice(NAMES[domain]), rng.randrange(21)
        thing = rng.choice(THINGS[domain])
        line = TAVI.say(TAVI.clause("have", name, object=(thing[1], NUMBERS[number])))
        return f"{line} In English, {name} has {counted(number, thing)}."
    if kind == 2:
        right = rng.random() < 0.5
        if right:
            ends = (f"Eja, es {TAVI.word('true')}.", "Yes, that is true.", "That is true.", "That is right.")
        else:
            ends = (f"Nela, es {TAVI.word('false')}.", "No, that is false.", "That is false.", "That is wrong.")
        return f"{_tavi_claim(rng, domain, right)} {rng.choice(ends)}"
    text, names, numbers, thing = _two_owners(rng, domain, "tavi")
    more, fewer = names if numbers[0] > numbers[1] else names[::-1]
    tavi = TAVI.say(TAVI.clause("have", more, object=(thing[1], "more"), complement=("than", fewer)))
    return f"{text} {rng.choice((tavi, f'So {more} has more.', f'Who has more? It is {more}.'))}"


_SKILLS = (_say_fact, _say_claim, _say_more, _say_change, _say_story, _say_order, _say_tavi)
_WEIGHTS = (15, 24, 15, 13, 18, 5, 10)


def passages(rng: random.Random, domain: Domain) -> str:
    """One passage of prose on numbers (1 to 4 sentences), one in ten of them in Tavi."""
    return rng.choices(_SKILLS, _WEIGHTS)[0](rng, domain)


_CLASSIFIED = ("accuracy", "f1_macro")
_OWNERS = ("{first}", "{second}")
_THREE = ("{choice0}", "{choice1}", "{choice2}")
_OWNERS_TURNED = ("{second}", "{first}")

TASKS: tuple[WorldTask, ...] = (
    WorldTask(
        name="arithmetic_true",
        cluster="arithmetic",
        draw=_draw_true,
        key_fields=("text",),
        plain=Template("sum: {text}", answer_choices=("false", "true"), name="plain"),
        templates=(
            Template("{text}\nIs the number right?", answer_choices=("no", "yes"), name="right"),
            Template("True or false? {text}", answer_choices=("false", "true"), name="true"),
            Template("Check the sum in this sentence. {text}\n{options}", answer_choices=("wrong", "right"), name="check"),
            Template("{text} Did someone count correctly?", answer_choices=("no", "yes"), name="count"),
            Template("Read and judge the arithmetic.\n{text}\nJudgement:", answer_choices=("false", "true"), name="judge"),
            Template("Is there a mistake in the numbers? {text}", answer_choices=("yes", "no"), name="mistake"),
            Template("{text}\nThe result given is:\n{options}", answer_choices=("false", "true"), name="result"),
            Template("Do these numbers agree with each other? {text}\n{options}", answer_choices=("no", "yes"), name="agree"),
            Template("Write a sentence on numbers that is {answer}.", "{text}", ("false", "true"), turned_around=True, name="write"),
            Template("Give me a {answer} calculation in words.", "{text}", ("wrong", "right"), turned_around=True, name="give"),
        ),
        metrics=_CLASSIFIED,
        languages=("english", "tavi"),
    ),
    WorldTask(
        name="arithmetic_more",
        cluster="arithmetic",
        draw=_draw_more,
        key_fields=("text",),
        plain=Template("more: {text}", answer_choices=_OWNERS, name="plain"),
        templates=(
            Template("{text}\nWho has more?", answer_choices=_OWNERS, name="who"),
            Template("Which person owns the larger number of things? {text}\n{options}", answer_choices=_OWNERS, name="larger"),
            Template("{text}\nWho has fewer?", answer_choices=_OWNERS_TURNED, name="fewer"),
            Template("Name the one with more. {text}", answer_choices=_OWNERS, name="name"),
            Template("{text} {first} or {second}: whose number is higher?", answer_choices=_OWNERS, name="higher"),
            Template("{text}\nDoes {first} have more than {second}?", answer_choices=("yes", "no"), name="more"),
            Template("True or false: {second} has more than {first}. {text}", answer_choices=("false", "true"), name="true"),
            Template("Two people are compared.\n{text}\nThe one with less:\n{options}", answer_choices=_OWNERS_TURNED, name="less"),
            Template(
                "{first} and {second} each own something. {answer} has more. Tell how many each has.", "{text}", _OWNERS, True, name="tell"
            ),
            Template(
                "Write two numbers of things so that {answer} has the smaller one.",
                "{text}",
                _OWNERS_TURNED,
                turned_around=True,
                name="write",
            ),
        ),
        metrics=_CLASSIFIED,
        languages=("english", "tavi"),
    ),
    WorldTask(
        name="arithmetic_change",
        cluster="arithmetic",
        draw=_draw_change,
        key_fields=("text",),
        plain=Template("change: {text}", answer_choices=_MORE_FEWER_SAME, name="plain"),
        templates=(
            Template("{text}\nDid the number become fewer, more or stay the same?", answer_choices=_MORE_FEWER_SAME, name="become"),
            Template("{text} Compared with the first number, the second is:\n{options}", answer_choices=_MORE_FEWER_SAME, name="second"),
            Template("How did the number change? {text}", answer_choices=("down", "same", "up"), name="how"),
            Template("Up, down or the same? {text}", answer_choices=("down", "the same", "up"), name="up"),
            Template("Say which way the number went.\n{text}\n{options}", answer_choices=("down", "same", "up"), name="way"),
            Template("Read of two times.\n{text}\nAt the later time there were:", answer_choices=_MORE_FEWER_SAME, name="later"),
            Template("Was it more in the end, or fewer, or the same? {text}", answer_choices=_MORE_FEWER_SAME, name="end"),
            Template(
                "{text}\nWhat had the person at the earlier time?\n{options}", answer_choices=("more", "the same", "fewer"), name="earlier"
            ),
            Template(
                "Write about a number of things that {answer}.", "{text}", ("went down", "stayed the same", "went up"), True, name="write"
            ),
            Template(
                "Later it was {answer}. Tell what there was at both times.", "{text}", _MORE_FEWER_SAME, turned_around=True, name="tell"
            ),
        ),
        metrics=_CLASSIFIED,
    ),
    WorldTask(
        name="arithmetic_next",
        cluster="arithmetic",
        draw=_draw_next,
        key_fields=("text", "choice0", "choice1", "choice2"),
        plain=Template("next: {text} choices: {choice0}, {choice1}, {choice2}", answer_choices=_THREE, name="plain"),
        templates=(
            Template("{text}\nWhich number is next: {choice0}, {choice1} or {choice2}?", answer_choices=_THREE, name="which"),
            Template("{text} Count on. What follows?\n{options}", answer_choices=_THREE, name="count"),
            Template("Go on with the numbers. {text} {choice0}, {choice1} or {choice2}?", answer_choices=_THREE, name="go"),
            Template("Numbers: {text}\nChoices: {choice0}, {choice1}, {choice2}\nThe next one:", answer_choices=_THREE, name="fields"),
            Template("One more number is to be said. Which is it? {text}\n{options}", answer_choices=_THREE, name="said"),
            Template("{text} Now take {choice0}, {choice1} or {choice2}, whichever goes on the row.", answer_choices=_THREE, name="row"),
            Template("What comes after the last of these? {text}\n\n{options}", answer_choices=_THREE, name="after"),
            Template(
                "{name} was interrupted. {text} {choice0}, {choice1}, {choice2}: what was left out?", answer_choices=_THREE, name="left"
            ),
            Template("{name} counts and {answer} is next. What was there so far?", "{text}", _THREE, turned_around=True, name="far"),
            Template("Write a row of numbers that goes on with {answer}.", "{text}", _THREE, turned_around=True, name="write"),
        ),
        metrics=_CLASSIFIED,
    ),
    WorldTask(
        name="arithmetic_now",
        cluster="arithmetic",
        draw=_draw_now,
        key_fields=("text",),
        plain=Template("story: {text}", "{number}", name="plain"),
        templates=(
            Template("{text}\nHow many are there now?", "{number}", name="now"),
            Template("{text} How many {things} is that in the end?", "{number}", name="end"),
            Template("Work out the number of {things}. {text}", "{number}", name="work"),
            Template("Solve this little story: {text}", "{number}", name="solve"),
            Template("Answer with a number in words. {text} What is the number afterwards?", "{number}", name="answer"),
            Template("Story: {text}\nNumber of {things} afterwards:", "{number}", name="fields"),
            Template("Add or take away as the story says.\n{text}\nResult:", "{number}", name="add"),
            Template("Write a story about {things} at whose end there are {number}.", "{text}", turned_around=True, name="write"),
            Template("The answer is {number}. What is the story about {things}?", "{text}", turned_around=True, name="story"),
            Template("Make up a task on {things} with the result {number}.", "{text}", turned_around=True, name="task"),
        ),
        metrics=("exact_match",),
    ),
)
