"""The instruction templates of the story clusters (comprehension, facts, extraction, summarising), by task name.

Each task has ten, of which two are turned around: the answer is given and the question, the statement or the sentence is asked for.
"""

from prompt_tuning.data.templates import Template

_NO_YES = ("no", "yes")
_FALSE_TRUE = ("false", "true")
_WRONG_RIGHT = ("wrong", "right")
_TWO = ("{choice0}", "{choice1}")
_THREE = ("{choice0}", "{choice1}", "{choice2}")
_ROLES = ("giver", "receiver")
_KINDS = ("animal", "food", "tool")


def _turned(name: str, inputs: str, targets: str, choices: tuple[str, ...] | None = None) -> Template:
    return Template(inputs, targets, choices, turned_around=True, name=name)


def _free(targets: str, **inputs: str) -> tuple[Template, ...]:
    """Free-text templates that all ask for the same `targets`; the keywords are the names."""
    return tuple(Template(text, targets, name=name) for name, text in inputs.items())


def _choice(choices: tuple[str, ...], **inputs: str) -> tuple[Template, ...]:
    """Templates that all offer the same answer choices; the keywords are the names."""
    return tuple(Template(text, "{answer}", choices, name=name) for name, text in inputs.items())


_YES_NO = (
    *_choice(
        _NO_YES,
        read="Read the story and answer yes or no. {story} {question}",
        question_first="{question} Decide with the help of this story: {story}",
        options="{story}\n{question}\n{options}",
        text_question="Text: {story} Question: {question} Answer:",
        according="Go by this text alone. {question} {story} Reply with yes or no.",
    ),
    *_choice(
        _FALSE_TRUE,
        claim="Story: {story} Claim: {claim}. True or false?",
        decide="Decide whether the claim is true or false. Claim: {claim}. {story}",
        claim_options="{story}\nIs this claim about the story true or false: {claim}\n{options}",
    ),
    _turned("ask", "{story} Ask something about this story to which one must reply {answer}.", "{question}", _NO_YES),
    _turned("state", "Make a {answer} claim about this story: {story}", "{claim}", _FALSE_TRUE),
)

_WHERE = (
    *_choice(
        _THREE,
        options="{story}\n{question}\n{options}",
        read="Read the story and name the right place. {story} {question} {options}",
        pick="Pick {choice0}, {choice1} or {choice2}. {question} {story}",
        text_question="Text: {story} Question: {question} Places: {choice0} / {choice1} / {choice2}. Answer:",
        question_first="{question} {options}\nStory: {story}",
        thing="{story} Tell me the place of the {thing}: {choice0}, {choice1} or {choice2}.",
        find="Help me find the {thing}. {story} {options}",
        place="Name the place of the {thing} when the story ends. {story} Places: {choice0}, {choice1}, {choice2}.",
    ),
    _turned("ask", "Ask a question about this story with the answer {answer}. {story}", "{question}", _THREE),
    _turned(
        "state",
        "{story} Write a sentence with the words {thing} and {answer} that fits this story.",
        "The {thing} is in the {answer}.",
        _THREE,
    ),
)

_WHO = (
    *_choice(
        _THREE,
        options="{story}\n{question}\n{options}",
        read="Read the story and name the right person. {story} {question} {options}",
        pick="Pick {choice0}, {choice1} or {choice2}. {question} {story}",
        text_question="Text: {story} Question: {question} People: {choice0} / {choice1} / {choice2}. Answer:",
        question_first="{question} {options}\nStory: {story}",
        thing="{story} Tell me the holder of the {thing}: {choice0}, {choice1} or {choice2}.",
        holder="Name the holder of the {thing} when the story ends. {story} People: {choice0}, {choice1}, {choice2}.",
        hands="In whose hands is the {thing} at the end? {story} {options}",
    ),
    _turned("ask", "Ask a question about this story with the answer {answer}. {story}", "{question}", _THREE),
    _turned(
        "state", "{story} Write a sentence with the words {thing} and {answer} that fits this story.", "{answer} has the {thing}.", _THREE
    ),
)

_ANSWER = (
    *_free(
        "{reply}",
        read="Read the story, then answer with one word. {story} {question}",
        text_question="Text: {story} Question: {question} Answer:",
        question_first="{question} Use this story: {story}",
        short="Give a short answer. Story: {story} Asked: {question}",
        tell="Tell me: {question} Here is what happened. {story}",
        line="{story}\n{question}",
        reader="You have read this: {story} Somebody asks you: {question}",
        find="Find the answer to the question in the text. {question} {story}",
    ),
    _turned("ask", "Ask a question about this story with the answer {reply}. {story}", "{question}"),
    _turned("quiz", "Answer: {reply}. Text: {story} Question:", "{question}"),
)

_TOWN_STATEMENT = (
    *_choice(
        _FALSE_TRUE,
        true_or_false="True or false? {statement}",
        decide="Decide whether this is true or false. {statement}",
        options="{statement}\nThe statement is\n{options}",
        quiz="Quiz on people and towns: {statement} Is the statement true or false?",
    ),
    *_choice(
        _NO_YES,
        correct="Is this statement correct? {statement}",
        yes_no="{statement} Reply yes if that is so, else no.",
        live="Check the facts, yes or no: {claim}",
    ),
    *_choice(_WRONG_RIGHT, mark="Mark the statement as right or wrong. {statement}"),
    _turned("write", "Write a {answer} statement with {person} and {town}.", "{statement}", _FALSE_TRUE),
    _turned("town", "Name {person} and a town so that the sentence is {answer}.", "{statement}", _WRONG_RIGHT),
)

_TOWN_CHOICE = (
    *_choice(
        _THREE,
        options="{question}\n{options}",
        pick="Pick {choice0}, {choice1} or {choice2}. {question}",
        quiz="Quiz: {question} Towns: {choice0} / {choice1} / {choice2}. Answer:",
        person="The town of {person}: {choice0}, {choice1} or {choice2}?",
        options_first="{options}\n{question}",
        know="Use what you know about {person}. {question} {options}",
        letter="I want to write to {person}. Shall I send the letter to {choice0}, {choice1} or {choice2}?",
        only="Only one of these towns is right: {choice0}, {choice1}, {choice2}. {question}",
    ),
    _turned("ask", "Ask for the town of {person}, where the answer is {answer}.", "{question}", _THREE),
    _turned("state", "Write a true sentence with {person} and {answer}.", "{person} lives in {answer}.", _THREE),
)

_JOB_CHOICE = (
    *_choice(
        _TWO,
        options="{question}\n{options}",
        pick="Pick {choice0} or {choice1}. {question}",
        quiz="Quiz: {question} Jobs: {choice0} / {choice1}. Answer:",
        person="The job of {person}: {choice0} or {choice1}?",
        options_first="{options}\n{question}",
        know="Use what you know about {person}. {question} {options}",
        card="Card of {person}. Job (one of {choice0}, {choice1}):",
        only="Only one of these jobs is right: {choice0}, {choice1}. {question}",
    ),
    _turned("ask", "Ask for the job of {person}, where the answer is {answer}.", "{question}", _TWO),
    _turned("state", "Write a true sentence with {person} and {answer}.", "The job of {person} is that of a {answer}.", _TWO),
)

_JOB = (
    *_free(
        "{job}",
        reply="{question} Reply in one word:",
        quiz="Quiz: {question} Answer:",
        one_word="Answer with one word. {question}",
        know="Use what you know about {person}. {question}",
        card="Card of {person}. Job:",
        fill="Fill in the job. Name: {person}. Job:",
        tell="Tell me the job of {person}.",
        name="Name the trade of {person}.",
    ),
    _turned("ask", "Ask for the job of {person}, where the answer is {job}.", "{question}"),
    _turned("state", "Write a true sentence with {person} and {job}.", "The job of {person} is that of a {job}."),
)

_ROLE = (
    *_choice(
        _ROLES,
        role="Read the sentence and name the role of {person}: giver or receiver. {sentence}",
        options="{sentence}\nThe role of {person} is\n{options}",
        question="{sentence} Is {person} giver or receiver?",
        person_first="{person}: giver or receiver? Sentence: {sentence}",
        classify="Classify {person} as giver or receiver in this sentence: {sentence}",
    ),
    *_choice(
        ("yes", "no"),
        gives="{sentence} Does {person} give something here? Reply yes or no.",
        away="Yes or no: {person} gives a thing away. {sentence}",
    ),
    *_choice(("gives", "gets"), verb="{sentence} Choose the right verb for {person}, gives or gets."),
    _turned("write", "Write a sentence about a gift in which {person} is the {answer}.", "{sentence}", _ROLES),
    _turned("example", "Give an example with {person} as {answer}.", "{sentence}", _ROLES),
)

_FIRST_KIND = (
    *_choice(
        _KINDS,
        which="{sentence} Which kind of thing is mentioned first: animal, food or tool?",
        options="{sentence}\nThe first thing mentioned is of this kind:\n{options}",
        classify="Classify the first thing in this sentence as animal, food or tool. {sentence}",
        kind="Name the kind (animal, food, tool) of what comes first here: {sentence}",
        sort="Sentence: {sentence} Kind of the first of the two things:",
        options_first="{options}\nChoose the kind of the first thing in the sentence. {sentence}",
        given="The first thing here is the {first}. Its kind is animal, food or tool? {sentence}",
    ),
    *_choice(
        ("an animal", "food", "a tool"), articles="Look at the first thing in this sentence. Is it an animal, food or a tool? {sentence}"
    ),
    _turned("write", "Write a sentence about two things of which the first is of the kind {answer}.", "{sentence}", _KINDS),
    _turned("example", "Name two things in a sentence, first the {first} ({answer}).", "{sentence}", _KINDS),
)

_COLOUR_CLAIM = (
    *_choice(
        _WRONG_RIGHT,
        right_or_wrong="{sentence} Right or wrong: {claim}?",
        mark="Mark the claim as right or wrong. Claim: {claim}. Sentence: {sentence}",
        options="{sentence}\nThe claim is that {claim}.\n{options}",
    ),
    *_choice(
        _NO_YES,
        yes_no="{sentence} Does it follow that {claim}? Reply yes or no.",
        check="Check this claim, yes or no: {claim}. {sentence}",
    ),
    *_choice(
        _FALSE_TRUE,
        true_or_false="True or false: {claim}. It has to fit this sentence: {sentence}",
        decide="Decide whether the colours are true or false in the claim. {sentence} Claim: {claim}",
        claim_options="Claim: {claim}\nSentence: {sentence}\n{options}",
    ),
    _turned("claim", "Make a {answer} claim about a colour in this sentence: {sentence}", "{claim}", _FALSE_TRUE),
    _turned("sentence", "Write a sentence for which this claim about a colour is {answer}: {claim}", "{sentence}", _WRONG_RIGHT),
)

_COLOUR = (
    *_free(
        "{colour}",
        question="{sentence} Of which colour is the {thing}?",
        find="Find the colour of the {thing} in this sentence: {sentence}",
        word="Copy the word for the colour of the {thing}. {sentence}",
        thing_first="The {thing}: which colour? {sentence}",
        extract="Extract the colour. Thing: {thing}. Sentence: {sentence}",
        answer="Sentence: {sentence} Question: colour of the {thing}? Answer:",
        paint="I want to paint the {thing} as in this sentence. Which colour do I need? {sentence}",
        one_word="Answer with one word. {sentence} Name the colour of the {thing}.",
    ),
    _turned("write", "Write a sentence about two things, one of them a {thing} of the colour {colour}.", "{sentence}"),
    _turned("which", "{sentence} Name the thing that has the colour {colour}.", "{thing}"),
)

_DETAIL = (
    *_free(
        "{value}",
        find="Find the {wanted} in this sentence: {sentence}",
        question="{sentence} Which {wanted} is meant?",
        extract="Extract the {wanted}. {sentence}",
        copy="Copy the word for the {wanted}. Sentence: {sentence}",
        form="Fill in the form. Sentence: {sentence} Field: {wanted}. Value:",
        wanted_first="{wanted}? {sentence}",
        one_word="Answer with one word. {sentence} Name the {wanted}.",
        tell="Tell me the {wanted} named here. {sentence}",
    ),
    _turned("write", "Write a sentence about an event with this {wanted}: {value}", "{sentence}"),
    _turned("kind", "{sentence} Is {value} the person, the day, the place or the thing?", "{wanted}"),
)

_SUMMARY = (
    *_free(
        "{summary}",
        sentence="Summarize the story in one sentence. {story}",
        short="Make this short: {story}",
        outcome="Say in one sentence what happened. {story}",
        main="Main point of the story below.\n{story}",
        tldr="{story}\nSummary:",
        news="Turn the story into a line of news. {story}",
        friend="{story} Tell a friend about it in one sentence.",
        brief="Story: {story} Give the outcome only.",
    ),
    _turned("story", "Write a short story about this: {summary}", "{story}"),
    _turned("long", "Make a story of three or four sentences out of this one. {summary}", "{story}"),
)

_TITLE = (
    *_choice(
        _TWO,
        options="{story}\nChoose the title that fits.\n{options}",
        pick="Pick the right title, {choice0} or {choice1}. {story}",
        question="{story} Which title fits this story: {choice0} or {choice1}?",
        options_first="{options}\nOne of these is the title of the story. {story}",
        read="Read the story and choose its title. {story} {options}",
        label="Story: {story} First title: {choice0}. Second title: {choice1}. Right title:",
        heading="Choose the heading, {choice0} or {choice1}, for this text: {story}",
        misleading="One title is misleading, the other fits. Give the one that fits. {choice0} / {choice1} / {story}",
    ),
    _turned("story", "Write a short story with the title: {answer}", "{story}", _TWO),
    _turned("misfit", "Write a title that does not fit this story. {story}", "{wrong_title}"),
)

_CHECK = (
    *_choice(
        _WRONG_RIGHT,
        right_or_wrong="{story} Right or wrong as a summary: {summary}",
        mark="Mark the summary as right or wrong. Summary: {summary} Story: {story}",
        options="{story}\nSummary: {summary}\n{options}",
    ),
    *_choice(
        _NO_YES,
        fits="Does the summary fit the story? {story} Summary: {summary}",
        yes_no="{story} Did it happen like this, yes or no? {summary}",
        check="Check the last sentence against the story before it, yes or no. {story} {summary}",
    ),
    *_choice(
        _FALSE_TRUE,
        true_or_false="True or false: {summary} Read this to find out. {story}",
        claim_options="Claim: {summary}\nStory: {story}\n{options}",
    ),
    _turned("write", "Write a {answer} summary of this story. {story}", "{summary}", _WRONG_RIGHT),
    _turned("say", "{story} Say something about it that is {answer}.", "{summary}", _FALSE_TRUE),
)

TEMPLATES: dict[str, tuple[Template, ...]] = {
    "story_yes_no": _YES_NO,
    "story_where": _WHERE,
    "story_who": _WHO,
    "story_answer": _ANSWER,
    "fact_town_statement": _TOWN_STATEMENT,
    "fact_town_choice": _TOWN_CHOICE,
    "fact_job_choice": _JOB_CHOICE,
    "fact_job": _JOB,
    "giver_receiver": _ROLE,
    "first_kind": _FIRST_KIND,
    "colour_claim": _COLOUR_CLAIM,
    "extract_colour": _COLOUR,
    "extract_detail": _DETAIL,
    "story_summary": _SUMMARY,
    "story_title": _TITLE,
    "summary_check": _CHECK,
}
