"""Tavi, the world's constructed language: words coined from English ones, and a small grammar of its own.

Sounds. A syllable is a consonant (b d g k l m n p r s t v z), a vowel (a e i o u) and, in a first syllable only, perhaps an n.
A content word has two syllables, and its last vowel tells its part of speech: nouns end in -a or -o, verbs in -i, adjectives in -u,
numbers and the like in -ei. Names of people and places stay as they are.

Grammar.
- The verb comes first, then the subject, then the object, then the rest: `Veni Mara dako` is "Mara sees a dog".
- "To be" is the verb `es`: `Es Mara tilu` is "Mara is tall".
- Adjectives and numbers follow their noun, the adjective first: `dako bigu terei` is "three big dogs". No articles, no plurals, no tenses.
- `ne` before the verb denies: `Ne es Mara tilu` is "Mara is not tall". `kai` at the end asks: `Es Mara tilu kai?`.
- `zo` before an adjective compares and `da` stands for "than": `Es Mara zo tilu da Tom`. `zozo` makes the superlative.
- Clauses and phrases are joined with `ai` ("and"). `Eja` is "yes", `Nela` is "no".
- `ro` ("to") stands before the one to whom something is given, said or brought.
- `lo` before a noun is "whose": `dako lo Mara` is "Mara's dog". `sa` is "but".

The words of the examples are only to show the shape; a dictionary comes from `coin`.
"""

import dataclasses
import hashlib
from collections.abc import Iterable, Mapping
from typing import Literal

Part = Literal["noun", "verb", "adjective", "other"]
Phrase = str | tuple[str, ...]

BE = "es"
NOT = "ne"
ASK = "kai"
YES = "eja"
NO = "nela"
AND = "ai"
BUT = "sa"
TO = "ro"
OF = "lo"
THAN = "da"
MORE = "zo"
MOST = "zozo"
FUNCTION_WORDS: Mapping[str, str] = {
    "be": BE,
    "not": NOT,
    "yes": YES,
    "no": NO,
    "and": AND,
    "but": BUT,
    "to": TO,
    "of": OF,
    "than": THAN,
    "more": MORE,
    "most": MOST,
}

_CONSONANTS = "bdgklmnprstvz"
_VOWELS = "aeiou"
_ENDINGS: Mapping[Part, tuple[str, ...]] = {"noun": ("a", "o"), "verb": ("i",), "adjective": ("u",), "other": ("ei",)}


def coin(words: Iterable[str], part: Part, *, avoid: Iterable[str] = ()) -> dict[str, str]:
    """English words -> Tavi words of one part of speech: no two alike, and the same on every machine.

    A word's form comes from a hash of the word; where two words of the list would sound alike, the later in the alphabet takes its next
    form, so the order of the list is of no account. No form is an English word of the list or of `avoid`, nor a function word.
    """
    english = sorted(set(words))
    taken = {*english, *avoid, *FUNCTION_WORDS.values(), ASK}
    coined = {}
    for word in english:
        attempt = 0
        while (form := _form(f"{word}/{part}/{attempt}", part)) in taken:
            attempt += 1
        taken.add(form)
        coined[word] = form
    return coined


def _form(seed: str, part: Part) -> str:
    first, vowel, nasal, second, last = hashlib.sha256(seed.encode()).digest()[:5]
    endings = _ENDINGS[part]
    start = _CONSONANTS[first % len(_CONSONANTS)] + _VOWELS[vowel % len(_VOWELS)] + ("n" if nasal % 4 == 0 else "")
    return start + _CONSONANTS[second % len(_CONSONANTS)] + endings[last % len(endings)]


@dataclasses.dataclass(frozen=True)
class Tavi:
    """A dictionary and the grammar over it.

    A phrase is an English word, or a tuple of words in English that are said in the order given (noun first, then adjective, then number):
    `("dog", "big", "three")`. Words with a capital are names and are kept.
    """

    dictionary: Mapping[str, str]

    def word(self, english: str) -> str:
        """One word. Raises KeyError for a small-letter word that is neither in the dictionary nor a function word."""
        if english[:1].isupper():
            return english
        return FUNCTION_WORDS[english] if english in FUNCTION_WORDS else self.dictionary[english]

    def phrase(self, phrase: Phrase) -> str:
        """The words of a phrase, one after the other."""
        return " ".join(self.word(word) for word in ((phrase,) if isinstance(phrase, str) else phrase))

    def clause(
        self,
        verb: str,
        subject: Phrase,
        *,
        object: Phrase | None = None,
        complement: Phrase | None = None,
        negated: bool = False,
        question: bool = False,
    ) -> str:
        """A clause without capital or stop: [ne] verb subject [object] [complement] [kai].

        The complement is what follows the object, with its own small word in front where it has one: `("to", "Tom")`, `("more", "tall",
        "than", "Tom")`. "be" is the verb "to be".
        """
        parts = [NOT] if negated else []
        parts += [self.word(verb), self.phrase(subject)]
        parts += [self.phrase(phrase) for phrase in (object, complement) if phrase is not None]
        return " ".join([*parts, ASK] if question else parts)

    def say(self, *clauses: str) -> str:
        """Clauses as sentences: a capital in front, and a stop or (after `kai`) a question mark behind."""
        return " ".join(clause[0].upper() + clause[1:] + ("?" if clause.endswith(f" {ASK}") else ".") for clause in clauses)
