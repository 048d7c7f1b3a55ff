"""The instructions of the inference tasks."""

from prompt_tuning.data.templates import Template

_TRUE = ("false", "true")
_YES = ("no", "yes")
_RIGHT = ("wrong", "right")
_TRUE3 = ("true", "false", "unknown")
_YES3 = ("yes", "no", "maybe")
_CHOICES = ("{choice0}", "{choice1}", "{choice2}", "{choice3}")
_THE_CHOICES = ("the {choice0}", "the {choice1}", "the {choice2}", "the {choice3}")

KIND: tuple[Template, ...] = (
    Template("{text}\nDoes it follow that {hypothesis}", answer_choices=_YES, name="follow"),
    Template("{text} True or false? {hypothesis}", answer_choices=_TRUE, name="true_or_false"),
    Template(
        "Premise: {text}\nHypothesis: {hypothesis}\nDoes the premise entail the hypothesis?\n{options}", answer_choices=_YES, name="entail"
    ),
    Template('Given that {text} can we conclude "{hypothesis}"?', answer_choices=("No", "Yes"), name="conclude"),
    Template("A pupil reads: {text} The pupil concludes: {hypothesis} Is the pupil right or wrong?", answer_choices=_RIGHT, name="pupil"),
    Template("Check this claim: {hypothesis}\nThe facts are: {text}\n{options}", answer_choices=_TRUE, name="check"),
    Template(
        "Think of what kind each thing is. {text} Now mark the claim right or wrong: {hypothesis}", answer_choices=_RIGHT, name="mark"
    ),
    Template(
        "{text}\nWrite a claim about {person} that is {answer}.", "{hypothesis}", answer_choices=_TRUE, turned_around=True, name="claim"
    ),
    Template(
        "Here is a claim: {hypothesis} Write facts that make it {answer}.",
        "{text}",
        answer_choices=_TRUE,
        turned_around=True,
        name="facts",
    ),
    Template(
        'Asked "{hypothesis}", the answer was {answer}. What was the text?',
        "{text}",
        answer_choices=_YES,
        turned_around=True,
        name="which_text",
    ),
)

ENTAILMENT: tuple[Template, ...] = (
    Template("{text}\nTrue, false or unknown? {hypothesis}", answer_choices=_TRUE3, name="true_false_unknown"),
    Template("{text} Can we conclude this: {hypothesis} Say yes, no or maybe.", answer_choices=_YES3, name="yes_no_maybe"),
    Template(
        "Premise: {text}\nHypothesis: {hypothesis}\nDoes the premise entail the hypothesis?\n{options}", answer_choices=_YES3, name="entail"
    ),
    Template(
        "All we know is this. {text} What is to be said of the following? {hypothesis}\n{options}",
        answer_choices=_TRUE3,
        name="all_we_know",
    ),
    Template("Claim: {hypothesis} Report: {text} Judge the claim by the report.", answer_choices=_TRUE3, name="judge"),
    Template("{text}\nIs the next sentence true?\n{hypothesis}", answer_choices=("Yes", "No", "Maybe"), name="next_sentence"),
    Template(
        "Read the text and decide on the statement behind it.\n{text}\n{hypothesis}\n{options}",
        answer_choices=("It is true.", "It is false.", "It is unknown."),
        name="decide",
    ),
    Template(
        "{text}\nWrite a sentence that is {answer}, by this text.", "{hypothesis}", answer_choices=_TRUE3, turned_around=True, name="write"
    ),
    Template(
        "Describe two things so that the truth of the sentence is {answer}: {hypothesis}",
        "{text}",
        answer_choices=_TRUE3,
        turned_around=True,
        name="describe",
    ),
    Template(
        'The question was whether "{hypothesis}" and a reader said {answer}. What had been read?',
        "{text}",
        answer_choices=_YES3,
        turned_around=True,
        name="reader",
    ),
)

ODD: tuple[Template, ...] = (
    Template("Which does not fit in with the rest? {text}", answer_choices=_CHOICES, name="fit"),
    Template("{text}\nFind the odd one out.\n{options}", answer_choices=_CHOICES, name="odd_one_out"),
    Template("Three of these are of a kind, one is not: {text}. Which one is it?", answer_choices=_THE_CHOICES, name="three_of_a_kind"),
    Template("Strike out the word that is out of place.\n{text}", answer_choices=_CHOICES, name="strike_out"),
    Template("Here are four words: {text}. Only three can stay. Which must go?\n{options}", answer_choices=_CHOICES, name="must_go"),
    Template("Name the stranger in this group: {text}", answer_choices=_THE_CHOICES, name="stranger"),
    Template("Group: {text}\nAll but one are alike. Answer with the one.", answer_choices=_CHOICES, name="all_but_one"),
    Template(
        "Write four words of which {answer} is the stranger.", "{text}", answer_choices=_CHOICES, turned_around=True, name="four_words"
    ),
    Template(
        "Make a puzzle. Three words should be of the kind {kind}; the solution is {answer}.",
        "{text}",
        answer_choices=_CHOICES,
        turned_around=True,
        name="puzzle",
    ),
    Template(
        "The solution of a puzzle is {answer}, and the other words have the kind {kind}. What was asked?",
        "{text}",
        answer_choices=_THE_CHOICES,
        turned_around=True,
        name="solution",
    ),
)

_WORDS = ("{choice0}", "{choice1}", "{choice2}")

OPPOSITE: tuple[Template, ...] = (
    Template("{text}\nWhat can the {thing} not have been: {choice0}, {choice1} or {choice2}?", answer_choices=_WORDS, name="not_have_been"),
    Template("{text} Which of these words is ruled out by that?\n{options}", answer_choices=_WORDS, name="ruled_out"),
    Template("Find the opposite. {text} {choice0}, {choice1}, {choice2}", answer_choices=_WORDS, name="find"),
    Template("Told: {text}\nWords: {choice0}, {choice1}, {choice2}\nContradicted:", answer_choices=_WORDS, name="fields"),
    Template("One of three words would be a contradiction. Which? {text}\n{options}", answer_choices=_WORDS, name="contradiction"),
    Template(
        "{text} Someone calls the {thing} {choice0}, {choice1} and {choice2}. Where is the error?", answer_choices=_WORDS, name="error"
    ),
    Template("Of {choice0}, {choice1} and {choice2} two may be right. Name the other one. {text}", answer_choices=_WORDS, name="two_right"),
    Template("{text}\nIt follows that the {thing} was not\n{options}", answer_choices=_WORDS, name="follows"),
    Template("Say something about the {thing} that rules out {answer}.", "{text}", answer_choices=_WORDS, turned_around=True, name="say"),
    Template(
        "Nobody could call the {thing} {answer}. What is known of it?", "{text}", answer_choices=_WORDS, turned_around=True, name="nobody"
    ),
)
