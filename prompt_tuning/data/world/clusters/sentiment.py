"""Sentiment: whether an opinion is good or bad when every word of praise or blame may be negated.

The label is the polarity of an adjective, turned over by a negation ("never dull" is praise). Both are drawn evenly and apart from
each other, so that no single word tells the label.
"""

import random

from prompt_tuning.data.templates import Template
from prompt_tuning.data.world.clusters import sentiment_templates
from prompt_tuning.data.world.clusters.sentiment_lexicon import LEXICON, TAVI, TAVI_WORDS, Lexicon
from prompt_tuning.data.world.lexicon import DAYS, Person, listing, people, sentence
from prompt_tuning.data.world.task import Domain, Language, Row, WorldTask

# How often a judgement is negated: in tasks evenly, so that no word tells the label; in passages less, as in prose elsewhere, so that a
# learner finds what the adjectives mean before it finds what the denials do (even shares hold a small model on a plateau).
TASK_DENIALS = 0.5
PASSAGE_DENIALS = 0.25


def _phrase(rng: random.Random, words: Lexicon, positive: bool, denials: float) -> str:
    """An adjective with its modifier, such as "never dull"."""
    negated = rng.random() < denials
    adjective = rng.choice(words.good if positive != negated else words.bad)
    return f"{rng.choice(words.negators if negated else words.affirmers)} {adjective}".strip()


def _opinion(rng: random.Random, domain: Domain, item: str, positive: bool, denials: float) -> str:
    """One or two sentences about an item, all of one opinion."""
    words = LEXICON[domain]
    first, second = _phrase(rng, words, positive, denials), _phrase(rng, words, positive, denials)
    turned = rng.random() < denials
    expected = rng.choice(words.good if positive != turned else words.bad)
    frame = rng.randrange(5)
    if domain == "in":
        if frame == 0:
            return f"The {item} was {first}, and it was {second}."
        if frame == 1:
            return f"I thought the {item} would be {expected}, {'but it was not' if turned else 'and it was'}."
        if frame == 2:
            return f"To me the {item} was {first}."
        return f"The {item} was {first}."
    if frame == 0:
        return f"People called the {item} {expected}. They were {'wrong' if turned else 'right'}."
    if frame == 1:
        return f"They say the {item} is {expected}. I {'do not agree' if turned else 'agree'}."
    if frame == 2:
        return f"All I can say is that the {item} was {first}."
    return f"I must say that the {item} was {first}{f', and it was {second}' if frame == 3 else ''}."


def _opening(rng: random.Random, domain: Domain, item: str) -> str:
    verb, day = LEXICON[domain].items[item], rng.choice(DAYS)
    if domain == "in":
        return rng.choice((f"I {verb} the {item} on {day}.", f"{people(rng, domain)[0].name} and I {verb} the {item} on {day}."))
    return rng.choice((f"On {day} we {verb} the {item}.", f"On {day} I {verb} the {item} with {people(rng, domain)[0].name}."))


def _review_text(rng: random.Random, domain: Domain, item: str, positive: bool, denials: float) -> str:
    text = _opinion(rng, domain, item, positive, denials)
    return f"{_opening(rng, domain, item)} {text}" if rng.random() < 0.35 else text


def _compare_text(rng: random.Random, domain: Domain, person: Person, better: str, worse: str, denials: float) -> str:
    words = LEXICON[domain]
    clauses = [f"the {better} was {_phrase(rng, words, True, denials)}", f"the {worse} was {_phrase(rng, words, False, denials)}"]
    rng.shuffle(clauses)
    first, second = rng.sample((better, worse), 2)
    if domain == "in":
        opening = f"{person.name} {words.items[better]} the {first} and the {second}."
        if rng.random() < 0.5:
            return f"{opening} {sentence(clauses[0])} {sentence(clauses[1])}"
        return f"{opening} {sentence(f'{clauses[0]}, but {clauses[1]}')}"
    opening = f"On {rng.choice(DAYS)} {person.name} {words.items[better]} both the {first} and the {second}."
    return f"{opening} {sentence(f'{person.pronoun} said that {clauses[0]} and that {clauses[1]}')}"


def _pair_of_items(rng: random.Random, domain: Domain) -> list[str]:
    items = LEXICON[domain].items
    verb = rng.choice(sorted(set(items.values())))
    return rng.sample([item for item, use in items.items() if use == verb], 2)


def _two_person_text(rng: random.Random, domain: Domain, pair: list[Person], item: str, likes: list[bool], denials: float) -> str:
    words = LEXICON[domain]
    one, two = pair
    views = [_phrase(rng, words, like, denials) for like in likes]
    turns = [(one, views[0]), (two, views[1])]
    rng.shuffle(turns)
    if domain == "in":
        verb = rng.choice(("thought", "said"))
        said = [f"{person.name} {verb} it was {view}" for person, view in turns]
        ends = f"{said[0]}. {said[1]}." if rng.random() < 0.5 else f"{said[0]}, and {said[1]}."
        return f"{one.name} and {two.name} {words.items[item]} the {item}. {ends}"
    said = [f"for {person.name} it was {view}" for person, view in turns]
    return f"On {rng.choice(DAYS)} {one.name} {words.items[item]} the {item} with {two.name}. {sentence(said[0])} {sentence(said[1])}"


def _tavi_judgement(rng: random.Random, domain: Domain, item: str, positive: bool, denials: float) -> str:
    """A clause of Tavi, such as `ne es soup dull`."""
    words = TAVI_WORDS[domain]
    negated = rng.random() < denials
    return TAVI.clause("be", item, complement=rng.choice(words.good if positive != negated else words.bad), negated=negated)


def _tavi_review(rng: random.Random, domain: Domain, item: str, positive: bool, denials: float) -> str:
    clauses = list(dict.fromkeys(_tavi_judgement(rng, domain, item, positive, denials) for _ in range(rng.choice((1, 2, 3)))))
    if rng.random() < 0.7:
        clauses.insert(0, TAVI.clause(TAVI_WORDS[domain].items[item], people(rng, domain)[0].name, object=item))
    return TAVI.say(*clauses)


def _tavi_comparison(rng: random.Random, domain: Domain, person: Person, better: str, worse: str, denials: float) -> str:
    clauses = [_tavi_judgement(rng, domain, better, True, denials), _tavi_judgement(rng, domain, worse, False, denials)]
    rng.shuffle(clauses)
    first, second = rng.sample((better, worse), 2)
    opening = TAVI.clause(TAVI_WORDS[domain].items[first], person.name, object=(first, "and", second))
    return TAVI.say(opening, *clauses)


def draw_review(rng: random.Random, domain: Domain, language: Language) -> Row:
    """A review and its label: 0 negative, 1 positive."""
    if language == "tavi":
        item, label = rng.choice(tuple(TAVI_WORDS[domain].items)), rng.randrange(2)
        return {"text": _tavi_review(rng, domain, item, label == 1, TASK_DENIALS), "item": TAVI.word(item), "label": label}
    item = rng.choice(tuple(LEXICON[domain].items))
    label = rng.randrange(2)
    return {"text": _review_text(rng, domain, item, label == 1, TASK_DENIALS), "item": item, "label": label}


def draw_comparison(rng: random.Random, domain: Domain, language: Language) -> Row:
    """A person tries two things and likes one of them: `choice0`, `choice1`, and the index of the better as label."""
    person = people(rng, domain)[0]
    label = rng.randrange(2)
    if language == "tavi":
        pair = rng.sample(tuple(TAVI_WORDS[domain].items), 2)
        text = _tavi_comparison(rng, domain, person, pair[label], pair[1 - label], TASK_DENIALS)
        return {"text": text, "person": person.name, "choice0": TAVI.word(pair[0]), "choice1": TAVI.word(pair[1]), "label": label}
    choices = _pair_of_items(rng, domain)
    text = _compare_text(rng, domain, person, choices[label], choices[1 - label], TASK_DENIALS)
    return {"text": text, "person": person.name, "choice0": choices[0], "choice1": choices[1], "label": label}


def draw_feeling(rng: random.Random, domain: Domain, language: Language) -> Row:
    """Two persons judge one thing: the label says whether `person` disliked (0) or liked (1) it."""
    pair = people(rng, domain, 2)
    item = rng.choice(tuple(LEXICON[domain].items))
    asked, label = rng.randrange(2), rng.randrange(2)
    other = (1 - label) if rng.random() < 0.8 else label
    likes = [bool(label), bool(other)] if asked == 0 else [bool(other), bool(label)]
    text = _two_person_text(rng, domain, pair, item, likes, TASK_DENIALS)
    return {"text": text, "person": pair[asked].name, "item": item, "label": label}


def draw_word(rng: random.Random, domain: Domain, language: Language) -> Row:
    """Three words on a thing, one of them of another sign; the label is the index of the one that is `asked`, praise or blame."""
    words, person = LEXICON[domain], people(rng, domain)[0]
    item = rng.choice(tuple(words.items))
    praise = rng.random() < 0.5
    alone, others = (words.good, words.bad) if praise else (words.bad, words.good)
    answer = rng.choice(alone)
    choices = rng.sample([answer, *rng.sample(others, 2)], 3)
    if domain == "in":
        text = f"{person.name} wrote {listing(choices)} about the {item}."
    else:
        text = f"On {rng.choice(DAYS)} {person.name} called the {item} {listing(choices)}."
    asked = "praise" if praise else "blame"
    return {"text": text, "asked": asked, "label": choices.index(answer)} | {f"choice{i}": word for i, word in enumerate(choices)}


def _verdict(rng: random.Random, domain: Domain, item: str, positive: bool, person: Person | None = None) -> str:
    """A sentence of prose after a review that can be said only by who understood it; on its writer where one was named."""
    word = rng.choice(LEXICON[domain].good if positive else LEXICON[domain].bad)
    ends = [
        f"it was a {'good' if positive else 'bad'} review",
        f"the verdict was {'positive' if positive else 'negative'}",
        f"in other words, it was {word}",
    ]
    if person is not None:
        ends += [
            f"{person.name} {'liked' if positive else 'disliked'} the {item}",
            f"so {person.pronoun} {'liked' if positive else 'disliked'} it",
            f"{person.pronoun} was {'happy' if positive else 'unhappy'} with the {item}",
            f"did {person.pronoun} like it? {f'Yes, {person.pronoun} did' if positive else f'No, {person.pronoun} did not'}",
        ]
    return sentence(rng.choice(ends))


def _announcement(rng: random.Random, person: Person, item: str, positive: bool) -> str:
    """A sentence that tells the opinion before the review comes."""
    return rng.choice(
        (
            f"{person.name} gave the {item} a {'good' if positive else 'bad'} review.",
            f"{person.name} {'liked' if positive else 'disliked'} the {item} and wrote about it.",
            f"{person.name} had something {'positive' if positive else 'negative'} to say about the {item}.",
            f"{person.name} was {'happy' if positive else 'unhappy'} with the {item}.",
        )
    )


def _reviews(rng: random.Random, domain: Domain) -> str:
    parts = []
    for writer in people(rng, domain, rng.choice((1, 1, 2))):
        item = rng.choice(tuple(LEXICON[domain].items))
        positive = rng.random() < 0.5
        person = writer if rng.random() < 0.5 else None
        if person is not None:
            parts.append(f"{person.name} wrote about the {item}.")
        parts += [_review_text(rng, domain, item, positive, PASSAGE_DENIALS), _verdict(rng, domain, item, positive, person)]
    return " ".join(parts)


def _short_verdicts(rng: random.Random, domain: Domain) -> str:
    """Three or four judgements, each with what follows from it in the same sentence."""
    parts = []
    for person in people(rng, domain, rng.choice((3, 4))):
        positive, item = rng.random() < 0.5, rng.choice(tuple(LEXICON[domain].items))
        phrase = _phrase(rng, LEXICON[domain], positive, PASSAGE_DENIALS)
        parts.append(
            rng.choice(
                (
                    f"Something {phrase} is {'good' if positive else 'bad'}.",
                    f"{person.name} thought the {item} was {phrase} and {'liked' if positive else 'disliked'} it.",
                    f"The {item} was {phrase}, so {person.name} was {'happy' if positive else 'unhappy'} with it.",
                    f"The {item} was {phrase}, and what {person.name} wrote was {'positive' if positive else 'negative'}.",
                )
            )
        )
    return " ".join(parts)


def _glosses(rng: random.Random, domain: Domain) -> str:
    """What words of praise and blame mean, alone and denied."""
    parts = []
    for _ in range(rng.choice((4, 5, 6))):
        positive = rng.random() < 0.5
        phrase = _phrase(rng, LEXICON[domain], positive, PASSAGE_DENIALS)
        ends = ("good", "positive", "praise", "a happy word") if positive else ("bad", "negative", "blame", "an unhappy word")
        (end,) = rng.choices(ends, weights=(4, 4, 1, 1))
        parts.append(sentence(f"{phrase} is {end}"))
    return " ".join(parts)


def _announced(rng: random.Random, domain: Domain) -> str:
    person = people(rng, domain)[0]
    item = rng.choice(tuple(LEXICON[domain].items))
    positive = rng.random() < 0.5
    text = f"{_announcement(rng, person, item, positive)} {_review_text(rng, domain, item, positive, PASSAGE_DENIALS)}"
    return f"{text} {_verdict(rng, domain, item, positive, person)}" if rng.random() < 0.5 else text


def _comparison(rng: random.Random, domain: Domain) -> str:
    person = people(rng, domain)[0]
    better, worse = _pair_of_items(rng, domain)
    ends = (
        f"{person.name} liked the {better} better",
        f"so {person.pronoun} liked the {better} better than the {worse}",
        f"the better one was the {better}",
        f"{person.pronoun} was happy with the {better} and unhappy with the {worse}",
        f"of the {rng.choice(('two', 'pair'))} {person.pronoun} chose the {better}",
        f"the {worse} was the worse one",
    )
    return f"{_compare_text(rng, domain, person, better, worse, PASSAGE_DENIALS)} {sentence(rng.choice(ends))}"


def _feelings(rng: random.Random, domain: Domain) -> str:
    pair = people(rng, domain, 2)
    item = rng.choice(tuple(LEXICON[domain].items))
    first = rng.random() < 0.5
    likes = [first, not first if rng.random() < 0.7 else first]
    text = _two_person_text(rng, domain, pair, item, likes, PASSAGE_DENIALS)
    asked = rng.sample((0, 1), 2)
    ends = []
    for index in asked[: rng.choice((1, 2))]:
        name, she, like = *pair[index], likes[index]
        ends.append(
            rng.choice(
                (
                    f"{name} {'liked' if like else 'disliked'} it.",
                    f"{name} was {'happy' if like else 'unhappy'} with the {item}.",
                    f"Did {name} like it? {f'Yes, {she} did' if like else f'No, {she} did not'}.",
                    f"The view of {name} was {'positive' if like else 'negative'}.",
                    f"What {name} said was {'good' if like else 'bad'}.",
                )
            )
        )
    return " ".join([text, *ends])


def _story(rng: random.Random, domain: Domain) -> str:
    one, two = people(rng, domain, 2)
    item, other = rng.sample(tuple(LEXICON[domain].items), 2)
    verbs = LEXICON[domain].items
    view = _phrase(rng, LEXICON[domain], rng.random() < 0.5, PASSAGE_DENIALS)
    return (
        f"{one.name} met {two.name} on {rng.choice(DAYS)}. They {verbs[item]} the {item} first. "
        f"Then they {verbs[other]} the {other}, and {two.pronoun} said that it was {view}."
    )


def _tavi(rng: random.Random, domain: Domain) -> str:
    """Tavi, and in English what it means."""
    person = people(rng, domain)[0]
    better, worse = rng.sample(tuple(TAVI_WORDS[domain].items), 2)
    positive = rng.random() < 0.5
    item = better if positive else worse
    if rng.random() < 0.35:
        text = _tavi_comparison(rng, domain, person, better, worse, PASSAGE_DENIALS)
        best, rest = TAVI.word(better), TAVI.word(worse)
        ends = (
            f"{person.name} liked the {best} better.",
            f"The better one was the {best}.",
            TAVI.say(TAVI.clause("be", better, complement=("more", TAVI_WORDS[domain].good[0], "than", worse))),
            f"{person.name} chose the {best}, not the {rest}.",
        )
        return f"{text} {rng.choice(ends)}"
    text = _tavi_review(rng, domain, item, positive, PASSAGE_DENIALS)
    if rng.random() < 0.3:
        word = rng.choice((*TAVI_WORDS[domain].good, *TAVI_WORDS[domain].bad))
        negated = rng.random() < 0.5
        told = TAVI.say(TAVI.clause("be", item, complement=word, negated=negated))
        return f"{told} In English, the {item} was {'not ' if negated else ''}{word}. {text}"
    verdict = _verdict(rng, domain, item, positive)
    return f"{text} {verdict}" if rng.random() < 0.6 else f"{person.name} wrote in Tavi. {text} {verdict}"


def passages(rng: random.Random, domain: Domain) -> str:
    """One passage of prose about people and what they liked."""
    kinds = {_reviews: 20, _short_verdicts: 23, _glosses: 18, _announced: 2, _comparison: 15, _feelings: 15, _story: 1, _tavi: 6}
    (kind,) = rng.choices(tuple(kinds), weights=tuple(kinds.values()))
    return kind(rng, domain)


TASKS: tuple[WorldTask, ...] = (
    WorldTask(
        name="sentiment_review",
        cluster="sentiment",
        draw=draw_review,
        key_fields=("text",),
        plain=Template("review: {text}", answer_choices=("negative", "positive"), name="plain"),
        templates=sentiment_templates.REVIEW,
        metrics=("accuracy", "f1_macro"),
        languages=("english", "tavi"),
    ),
    WorldTask(
        name="sentiment_comparison",
        cluster="sentiment",
        draw=draw_comparison,
        key_fields=("text",),
        plain=Template("better: {text}", answer_choices=("{choice0}", "{choice1}"), name="plain"),
        templates=sentiment_templates.COMPARISON,
        metrics=("accuracy", "f1_macro"),
        languages=("english", "tavi"),
    ),
    WorldTask(
        name="sentiment_word",
        cluster="sentiment",
        draw=draw_word,
        key_fields=("text", "asked"),
        plain=Template("{asked}: {text}", answer_choices=("{choice0}", "{choice1}", "{choice2}"), name="plain"),
        templates=sentiment_templates.WORD,
        metrics=("accuracy", "f1_macro"),
    ),
    WorldTask(
        name="sentiment_feeling",
        cluster="sentiment",
        draw=draw_feeling,
        key_fields=("text", "person"),
        plain=Template("person: {person} story: {text}", answer_choices=("disliked", "liked"), name="plain"),
        templates=sentiment_templates.FEELING,
        metrics=("accuracy", "f1_macro"),
    ),
)
