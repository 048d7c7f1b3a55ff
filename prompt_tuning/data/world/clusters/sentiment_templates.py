"""The instructions of the sentiment tasks."""

from prompt_tuning.data.templates import Template

_SIGN = ("negative", "positive")
_VALUE = ("bad", "good")
_YES = ("no", "yes")
_LIKED = ("disliked", "liked")
_MOOD = ("unhappy", "happy")
_ITEMS = ("{choice0}", "{choice1}")
_THE_ITEMS = ("the {choice0}", "the {choice1}")

REVIEW: tuple[Template, ...] = (
    Template("{text}\nIs this review positive or negative?", answer_choices=_SIGN, name="positive_or_negative"),
    Template("Read the review. {text} Would you call it good or bad?", answer_choices=_VALUE, name="good_or_bad"),
    Template("Does the author recommend the {item}? {text}", answer_choices=_YES, name="recommend"),
    Template("Review: {text}\nHow does the author feel about the {item}?\n{options}", answer_choices=_MOOD, name="author_feels"),
    Template("What is the sentiment of these lines?\n{text}\n{options}", answer_choices=_SIGN, name="sentiment_options"),
    Template('"{text}" Is that praise or blame?', answer_choices=("blame", "praise"), name="praise_or_blame"),
    Template("Answer yes or no: was the author pleased with the {item}?\n{text}", answer_choices=("No", "Yes"), name="pleased"),
    Template("Write a {answer} review of the {item}.", "{text}", answer_choices=_SIGN, turned_around=True, name="write_review"),
    Template(
        "What would a guest write who thought the {item} {answer}?", "{text}", answer_choices=_VALUE, turned_around=True, name="guest"
    ),
    Template("Somebody {answer} the {item}. Make up the review.", "{text}", answer_choices=_LIKED, turned_around=True, name="make_up"),
)

COMPARISON: tuple[Template, ...] = (
    Template("{text}\nWhich did {person} like better?\n{options}", answer_choices=_ITEMS, name="like_better"),
    Template("Read on and say which {person} preferred. {text}", answer_choices=_THE_ITEMS, name="preferred"),
    Template("{text} Given the choice again, what would {person} take?", answer_choices=_ITEMS, name="again"),
    Template("{choice0} or {choice1}: which one won?\n{text}", answer_choices=_ITEMS, name="won"),
    Template("Question: what pleased {person} more? Text: {text}\n{options}", answer_choices=_THE_ITEMS, name="pleased_more"),
    Template("Find the favourite of {person} in this text.\n{text}", answer_choices=_ITEMS, name="favourite"),
    Template("{text}\nName the one of the two that is worth the money.", answer_choices=_THE_ITEMS, name="worth"),
    Template(
        "Write some lines on the {choice0} and the {choice1}, after which all know that {person} is for the {answer}.",
        "{text}",
        answer_choices=_ITEMS,
        turned_around=True,
        name="write_lines",
    ),
    Template("{person} prefers {answer}. Tell how it came.", "{text}", answer_choices=_THE_ITEMS, turned_around=True, name="how_it_came"),
    Template(
        "The {choice0} or the {choice1}? The winner is {answer}. Give the text.",
        "{text}",
        answer_choices=_THE_ITEMS,
        turned_around=True,
        name="winner",
    ),
)

FEELING: tuple[Template, ...] = (
    Template("{text}\nDid {person} like the {item}?", answer_choices=_YES, name="did_like"),
    Template("{text} What about {person}: happy or unhappy?", answer_choices=_MOOD, name="happy_or_unhappy"),
    Template("Read the story. {text} Tell the opinion of {person}.\n{options}", answer_choices=_SIGN, name="opinion"),
    Template("Is the opinion that {person} has of the {item} good or bad? {text}", answer_choices=_VALUE, name="good_or_bad"),
    Template(
        "Two people talk about the {item}. {text} Which is true?\n{options}",
        answer_choices=(
            "{person} disliked it.",
            "{person} liked it.",
        ),
        name="which_is_true",
    ),
    Template("Choose the right word, liked or disliked, for {person}.\n{text}", answer_choices=_LIKED, name="right_word"),
    Template("Will {person} come back for the {item}?\n{text}\nYes or no?", answer_choices=("No", "Yes"), name="come_back"),
    Template(
        "Tell a story in which {person} {answer} the {item}, and somebody else is there too.",
        "{text}",
        answer_choices=_LIKED,
        turned_around=True,
        name="tell_story",
    ),
    Template("{person} is {answer} with the {item}. What happened?", "{text}", answer_choices=_MOOD, turned_around=True, name="happened"),
    Template(
        "Write about two friends and the {item}. The opinion of {person} should be {answer}.",
        "{text}",
        answer_choices=_SIGN,
        turned_around=True,
        name="two_friends",
    ),
)

_WORDS = ("{choice0}", "{choice1}", "{choice2}")

WORD: tuple[Template, ...] = (
    Template("{text}\nWhich of these words is {asked}?", answer_choices=_WORDS, name="which"),
    Template("Only one of the words is {asked}. Find it. {text}", answer_choices=_WORDS, name="only_one"),
    Template("{text} Pick the word of {asked}.\n{options}", answer_choices=_WORDS, name="pick"),
    Template("Wanted: {asked}\nText: {text}\nWord:", answer_choices=_WORDS, name="fields"),
    Template("Two of the words agree with each other. Name the third. {text}", answer_choices=_WORDS, name="third"),
    Template("{text}\nThree opinions in a word each: the one that stands for {asked} is", answer_choices=_WORDS, name="stands_for"),
    Template("{choice0}, {choice1}, {choice2}. Say which of the three is meant as {asked}. {text}", answer_choices=_WORDS, name="meant"),
    Template("In this line there is a single word of {asked}: {text}\n{options}", answer_choices=_WORDS, name="single"),
    Template(
        "Write a line with three opinions, of which only {answer} is {asked}.",
        "{text}",
        answer_choices=_WORDS,
        turned_around=True,
        name="line",
    ),
    Template(
        "The odd opinion out is {answer}. Make up the line it comes from.",
        "{text}",
        answer_choices=_WORDS,
        turned_around=True,
        name="make_up",
    ),
)
