"""The instructions of the paraphrase tasks."""

from prompt_tuning.data.templates import Template

_SAME = ("different", "same")
_YES = ("no", "yes")
_CHOICES = ("{choice0}", "{choice1}")

SAME: tuple[Template, ...] = (
    Template("{first}\n{second}\nDo these two sentences mean the same?", answer_choices=_YES, name="mean_the_same"),
    Template("Same or different? {first} {second}", answer_choices=_SAME, name="same_or_different"),
    Template(
        "Sentence 1: {first}\nSentence 2: {second}\nAre they paraphrases of each other?\n{options}", answer_choices=_YES, name="paraphrases"
    ),
    Template("If you read {first} and then {second} have you learned anything new?", answer_choices=("yes", "no"), name="anything_new"),
    Template(
        "Compare what two reports mean.\n{first}\n{second}\n{options}",
        answer_choices=("They said different things.", "They said the same."),
        name="compare",
    ),
    Template('A witness says "{first}" Another says "{second}" Do they agree?', answer_choices=("No", "Yes"), name="witness"),
    Template(
        "Could one put {second} in place of {first} without changing what is said? Answer right or wrong.",
        answer_choices=("wrong", "right"),
        name="replace",
    ),
    Template(
        "{first}\nWrite a sentence with {answer} meaning.",
        "{second}",
        answer_choices=("a different", "the same"),
        turned_around=True,
        name="write_second",
    ),
    Template(
        "Give me a sentence that is {answer} in meaning, next to this one: {second}",
        "{first}",
        answer_choices=_SAME,
        turned_around=True,
        name="write_first",
    ),
    Template(
        'Somebody held the sentence "{first}" against another and found the meaning {answer}. Guess the other.',
        "{second}",
        answer_choices=_SAME,
        turned_around=True,
        name="guess",
    ),
)

CHOICE: tuple[Template, ...] = (
    Template("{text}\nWhich of the two means the same?\n{options}", answer_choices=_CHOICES, name="which_means_the_same"),
    Template("Pick the paraphrase of the sentence. {text}\n{options}", answer_choices=_CHOICES, name="pick"),
    Template(
        "The first choice: {choice0}\nThe second choice: {choice1}\nWhich one repeats this: {text}",
        answer_choices=("the first", "the second"),
        name="which_choice",
    ),
    Template(
        "{text} One of these says it again, first or second?\n{choice0}\n{choice1}", answer_choices=("first", "second"), name="ordinals"
    ),
    Template("Who listened well?\nTold: {text}\nHeard: {choice0}\nHeard: {choice1}", answer_choices=_CHOICES, name="listened"),
    Template("Given {text} copy the true one of these. {choice0} {choice1}", answer_choices=_CHOICES, name="copy_true"),
    Template("{choice0}\n{choice1}\nOnly one can be drawn from the next line. Copy it.\n{text}", answer_choices=_CHOICES, name="drawn"),
    Template("Say with other words: {answer}", "{text}", answer_choices=_CHOICES, turned_around=True, name="other_words"),
    Template(
        "A question on paraphrases has the answer: {answer} What was the sentence asked about?",
        "{text}",
        answer_choices=_CHOICES,
        turned_around=True,
        name="asked_about",
    ),
    Template(
        "Between {choice0} and {choice1} a reader took {answer} Which sentence was the reader given?",
        "{text}",
        answer_choices=_CHOICES,
        turned_around=True,
        name="given",
    ),
)

REWRITE: tuple[Template, ...] = (
    Template("{text}\nTurn active into passive, or passive into active.", "{rewritten}", name="turn"),
    Template("Change the voice of the sentence: {text}", "{rewritten}", name="change_voice"),
    Template("Begin with the other one: {text}", "{rewritten}", name="begin_with_other"),
    Template("Rewrite so that subject and object change places but the meaning stays. {text}", "{rewritten}", name="change_places"),
    Template("{text} Can you tell this from the other side?", "{rewritten}", name="other_side"),
    Template("Sentence: {text}\nThe same sentence in the other voice:", "{rewritten}", name="other_voice"),
    Template("Grammar exercise. Active becomes passive and passive becomes active.\n{text}", "{rewritten}", name="exercise"),
    Template("A pupil changed the voice of a sentence and got this: {rewritten} Go back.", "{text}", turned_around=True, name="go_back"),
    Template("What stood here before the voice was changed? {rewritten}", "{text}", turned_around=True, name="before"),
    Template("Undo the rewriting.\n{rewritten}", "{text}", turned_around=True, name="undo"),
)
