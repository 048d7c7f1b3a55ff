"""Which evaluation examples training data holds already: the same text, a shared word n-gram, or nearly the same text.

What is looked for is held in memory, training text streams by, so memory grows with the evaluation set alone. Texts are compared as words:
lower case, without punctuation.

- `same`: the words of the input are those of a training input.
- `shared`: input and target together share an n-gram of words with a training example (n = 13: Brown et al. 2020, arXiv:2005.14165,
  appendix C). An n-gram of more than `common` training examples counts for nothing: it is a template's, or an idiom. Texts shorter than n
  words have no n-gram.
- `near`: the sets of shingles (5 words in a row) of the inputs have a Jaccard similarity of at least `similarity` (Broder 1997). MinHash
  with locality-sensitive hashing (datasketch) proposes and the sets themselves decide; a pair just above the threshold may be missed.
"""

import dataclasses
import functools
import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence

import datasketch
import numpy as np

from prompt_tuning.errors import UserError

_WORD = re.compile(r"[^\W_]+")
_PERMUTATIONS = 128
_SCHEME = "affine32"
# Odd, so that no word is lost modulo 2^64.
_BASE = np.uint64(0x9E3779B97F4A7C15)


@dataclasses.dataclass(frozen=True)
class Text:
    """One example: the task it is of, where it stands there, and what it says."""

    task: str
    index: int
    inputs: str
    targets: str


@dataclasses.dataclass(frozen=True)
class Overlap:
    """An evaluation example that training data holds, and where.

    Attributes:
      task, index: the evaluation example.
      kind: `same`, `near` or `shared`, whichever comes first in this order.
      share: of the evaluation example's n-grams, those that are in training data: 0 to 1.
      training_task, training_index: a training example that holds it.
      inputs, training_inputs: both texts.
    """

    task: str
    index: int
    kind: str
    share: float
    training_task: str
    training_index: int
    inputs: str
    training_inputs: str


@dataclasses.dataclass(frozen=True)
class Search:
    """What counts as an overlap; the module says what the settings mean.

    Attributes:
      ngram: words of an n-gram.
      common: an n-gram of more training examples than this counts for nothing.
      shingle: words of a shingle.
      similarity: of shingle sets, from which on texts are near.
    """

    ngram: int = 13
    common: int = 10
    shingle: int = 5
    similarity: float = 0.8

    def __post_init__(self) -> None:
        if min(self.ngram, self.shingle, self.common) < 1 or not 0 < self.similarity <= 1:
            wanted = "ngram, shingle and common of 1 or more and a similarity above 0 and at most 1"
            raise UserError(f"Search: wanted {wanted}, got {dataclasses.asdict(self)}")

    def overlaps(self, evaluation: Sequence[Text], training: Iterable[Text]) -> list[Overlap]:
        """The evaluation examples that training examples hold, in their order; `training` is read once."""
        index = _Index(self, evaluation)
        for text in training:
            index.see(text)
        return list(index.found())


class _Index:
    """The evaluation examples by what is looked for, and the first training example that has each."""

    def __init__(self, search: Search, evaluation: Sequence[Text]) -> None:
        self._search = search
        self._evaluation = evaluation
        self._by_input: dict[tuple[str, ...], list[int]] = {}
        self._shingles: list[np.ndarray] = []
        # What it proposes is checked, so that it may rather propose too much.
        self._near = datasketch.MinHashLSH(threshold=min(search.similarity, 0.9), num_perm=_PERMUTATIONS, weights=(0.2, 0.8))
        grams = []
        for number, text in enumerate(evaluation):
            inputs = words(text.inputs)
            self._by_input.setdefault(inputs, []).append(number)
            self._shingles.append(hashed_runs(inputs, search.shingle))
            if len(self._shingles[-1]):
                self._near.insert(number, _minhash(self._shingles[-1]))
            grams.append(hashed_runs(inputs + words(text.targets), search.ngram))
        self._grams, places = np.unique(np.concatenate([*grams, np.zeros(0, np.uint64)]), return_inverse=True)
        self._places = np.split(places, np.cumsum([len(each) for each in grams])[:-1]) if grams else []
        self._counts = np.zeros(len(self._grams), np.int64)
        self._first: dict[int, Text] = {}
        self._same: dict[int, Text] = {}
        self._similar: dict[int, Text] = {}

    def see(self, text: Text) -> None:
        """Notes what a training example holds."""
        inputs = words(text.inputs)
        for number in self._by_input.get(inputs, ()):
            self._same.setdefault(number, text)
        shingles = hashed_runs(inputs, self._search.shingle)
        if len(shingles):
            for number in self._near.query(_minhash(shingles)):
                if number not in self._similar and similarity(shingles, self._shingles[number]) >= self._search.similarity:
                    self._similar[number] = text
        if len(self._grams):
            grams = hashed_runs(inputs + words(text.targets), self._search.ngram)
            places = np.searchsorted(self._grams, grams)
            held = places[self._grams[np.minimum(places, len(self._grams) - 1)] == grams]
            self._counts[held] += 1
            for place in held:
                self._first.setdefault(int(place), text)

    def found(self) -> Iterator[Overlap]:
        """The overlaps."""
        telling = (self._counts > 0) & (self._counts <= self._search.common)
        for number, text in enumerate(self._evaluation):
            places = self._places[number]
            held = places[telling[places]]
            if number in self._same:
                kind, training = "same", self._same[number]
            elif number in self._similar:
                kind, training = "near", self._similar[number]
            elif len(held):
                kind, training = "shared", self._first[int(held[0])]
            else:
                continue
            share = len(held) / len(places) if len(places) else 0.0
            yield Overlap(text.task, text.index, kind, share, training.task, training.index, text.inputs, training.inputs)


def words(text: str) -> tuple[str, ...]:
    """The words of a text: runs of letters and digits of any script, in lower case."""
    return tuple(_WORD.findall(text.lower()))


def hashed_runs(found: Sequence[str], length: int) -> np.ndarray:
    """The different runs of `length` words as sorted 64-bit numbers; none where there are fewer words."""
    if len(found) < length:
        return np.zeros(0, np.uint64)
    numbers = np.array([_number(word) for word in found], np.uint64)
    runs = np.zeros(len(found) - length + 1, np.uint64)
    for place in range(length):
        runs = runs * _BASE + numbers[place : place + len(runs)]
    return np.unique(runs)


def similarity(a: np.ndarray, b: np.ndarray) -> float:
    """The Jaccard similarity of two sets given as sorted arrays without repetitions; 0 for two empty ones."""
    both = len(np.intersect1d(a, b, assume_unique=True))
    union = len(a) + len(b) - both
    return both / union if union else 0.0


def _minhash(shingles: np.ndarray) -> datasketch.MinHash:
    # MinHash takes numbers of 32 bits.
    made = datasketch.MinHash(num_perm=_PERMUTATIONS, hashfunc=int, scheme=_SCHEME, permutations=_permutations())
    made.update_batch((shingles >> np.uint64(32)).tolist())
    return made


@functools.cache
def _permutations() -> np.ndarray:
    return datasketch.MinHash(num_perm=_PERMUTATIONS, scheme=_SCHEME).permutations


@functools.lru_cache(maxsize=1 << 17)
def _number(word: str) -> int:
    return int.from_bytes(hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest())
