"""What each task of the world asks, in one sentence over its plain form: the "definition" of Wang et al. (2022, section 2)."""

_DEFINITIONS = {
    "arithmetic_true": "Say whether the sum in the sentence is right. Answer true or false.",
    "arithmetic_more": "Two people have things. Name the one who has more.",
    "arithmetic_change": "A number of things at first and at last is given. Say whether it became fewer, more or is the same.",
    "arithmetic_next": "Numbers are said in order. Say which of the choices is the next one.",
    "arithmetic_now": "Things are given or taken in the story. Say how many there are now.",
    "story_yes_no": "Read the story and answer the question about it with yes or no.",
    "story_where": "Read the story and say where the thing is now.",
    "story_who": "Read the story and say who has the thing now.",
    "story_answer": "Read the story and answer the question about it with one word.",
    "giver_receiver": "Somebody gives a thing to somebody. Say whether the person is the giver or the receiver.",
    "first_kind": "Two things are in the sentence. Say whether the first one is an animal, food or a tool.",
    "colour_claim": "Say whether the claim about the sentence is right or wrong.",
    "extract_colour": "Find the colour that the thing has in the sentence.",
    "extract_detail": "Find in the sentence what is wanted, and write it down.",
    "fact_town_statement": "Say whether what is said of the person is true or false.",
    "fact_town_choice": "Say which of the towns is the one where the person lives.",
    "fact_job_choice": "Say which of the jobs is the one that the person has.",
    "fact_job": "Name the job that the person has.",
    "inference_kind": "Say whether the hypothesis must be true if the premise is. Answer true or false.",
    "inference_entailment": "Say whether the hypothesis is true or false if the premise is true, or unknown.",
    "inference_opposite": "Say which of the words is the opposite of what the premise says.",
    "inference_odd": "Three of the words are of one kind. Name the one that is not.",
    "ordering_most": "People are put in order. Name the one who is to be found.",
    "ordering_follows": "People are put in order. Say whether the claim follows, yes or no.",
    "ordering_first": "Two things were done. Write down the one that was done first.",
    "paraphrase_same": "Say whether the two sentences mean the same, or something different.",
    "paraphrase_choice": "Of the two choices, write down the one that means the same as the sentence.",
    "paraphrase_rewrite": "Say the same in another way: turn active into passive, or passive into active.",
    "sentiment_review": "Say whether the review is positive or negative.",
    "sentiment_comparison": "Two things were tried. Name the one that was better.",
    "sentiment_word": "Three words are written about a thing. Name the one that is praise or blame, as it is asked.",
    "sentiment_feeling": "Say whether the person of the story liked or disliked the thing.",
    "story_summary": "Write one sentence that sums up the story.",
    "story_title": "Write down the title that fits the story.",
    "summary_check": "Say whether the summary of the story is right or wrong.",
    "word_reverse": "Write the words in reverse order.",
    "word_pick": "Write the word that stands at the place asked for.",
    "word_repeat": "Say whether a word is said twice, yes or no.",
    "word_member": "Say whether the word is one of the list, yes or no.",
    "word_same_set": "Say whether both lists have the same words, yes or no.",
}


def of(task: str) -> str:
    """The definition of a task by its name."""
    return _DEFINITIONS[task]
