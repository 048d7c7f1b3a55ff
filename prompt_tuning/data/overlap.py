"""Which evaluation examples training data holds already: the same text, a shared word n-gram, or nearly the same text.

What is looked for is held in memory, training text streams by, so memory grows with the evaluation set alone. Texts are compared as words:
lower case, without punctuation.

- `same`: the words of the input are those of a training input.
- `shared`: input and target together share an n-gram of words with a training example (n = 13: Brown et al. 2020, arXiv:2005.14165,
  appendix C). An n-gram of more than `common` training examples counts for nothing: it is a template's, or an idiom. Texts shorter than n
  words have no n-gram.
- `near`: unless it is turned off, the sets of shingles (5 words in a row) of the inputs have a Jaccard similarity of at least `similarity`
  (Broder 1997). MinHash with locality-sensitive hashing (datasketch) proposes and the sets themselves decide; a pair just above the
  threshold may be missed.
"""

import dataclasses
import fnmatch
import functools
import hashlib
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from prompt_tuning.errors import UserError

_WORD = re.compile(r"[^\W_]+")
_CHUNK = 4096  # Training examples looked at together.
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
      similarity: of shingle sets, from which on texts are near; None: near ones are not looked for, which is some ten times as fast.
    """

    ngram: int = 13
    common: int = 10
    shingle: int = 5
    similarity: float | None = 0.8

    def __post_init__(self) -> None:
        if min(self.ngram, self.shingle, self.common) < 1 or not (self.similarity is None or 0 < self.similarity <= 1):
            wanted = "ngram, shingle and common of 1 or more and a similarity above 0 and at most 1"
            raise UserError(f"Search: wanted {wanted}, got {dataclasses.asdict(self)}")

    def overlaps(self, evaluation: Sequence[Text], training: Iterable[Text]) -> list[Overlap]:
        """The evaluation examples that training examples hold, in their order; `training` is read once."""
        index = _Index(self, evaluation)
        texts = iter(training)
        while chunk := list(itertools.islice(texts, _CHUNK)):
            index.see(chunk)
        return list(index.found())


@dataclasses.dataclass(frozen=True)
class Guard:
    """What training does about evaluation examples that its data holds.

    Of a task that is evaluated on and not trained on, any example that training data holds (`same` or `shared`) is an error. Of one that
    is trained on as well, it is an error where half of its examples or more, with their targets, are training examples: a file that is
    given twice; fewer are said aloud.

    Attributes:
      allow: names of evaluation tasks that may overlap, or patterns of them; `*` turns it off.
      search: what counts as an overlap of a task that is not trained on.
      max_examples: training data of more examples is not looked through at each start.
    """

    allow: tuple[str, ...] = ()
    search: Search = Search(similarity=None)
    max_examples: int = 200_000

    def __post_init__(self) -> None:
        object.__setattr__(self, "allow", (self.allow,) if isinstance(self.allow, str) else tuple(self.allow))

    def allows(self, task: str) -> bool:
        """Whether a task may overlap."""
        return any(fnmatch.fnmatchcase(task, pattern) for pattern in self.allow)


class _Index:
    """The evaluation examples by what is looked for, and the first training example that has each."""

    def __init__(self, search: Search, evaluation: Sequence[Text]) -> None:
        self._search = search
        self._evaluation = evaluation
        self._by_input: dict[tuple[str, ...], list[int]] = {}
        self._shingles: list[np.ndarray] = []
        self._near: Any = None
        if search.similarity is not None:
            import datasketch  # It imports SciPy.

            # What it proposes is checked, so that it may rather propose too much.
            self._near = datasketch.MinHashLSH(threshold=min(search.similarity, 0.9), num_perm=_PERMUTATIONS, weights=(0.2, 0.8))
        grams = []
        for number, text in enumerate(evaluation):
            inputs = words(text.inputs)
            if inputs:
                self._by_input.setdefault(inputs, []).append(number)
            if self._near is not None:
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

    def see(self, texts: Sequence[Text]) -> None:
        """Notes what training examples hold."""
        inputs = [words(text.inputs) for text in texts]
        for text, said in zip(texts, inputs, strict=True):
            for number in self._by_input.get(said, ()):
                self._same.setdefault(number, text)
            if self._near is not None:
                self._see_near(text, said)
        if not len(self._grams):
            return
        runs, owners = _runs_of_each([said + words(text.targets) for text, said in zip(texts, inputs, strict=True)], self._search.ngram)
        places = np.minimum(np.searchsorted(self._grams, runs), len(self._grams) - 1)
        held = self._grams[places] == runs
        # Each counts once an example, in their order.
        for owner, place in np.unique(np.stack([owners[held], places[held]], axis=1), axis=0).tolist():
            self._counts[place] += 1
            self._first.setdefault(place, texts[owner])

    def _see_near(self, text: Text, said: Sequence[str]) -> None:
        shingles = hashed_runs(said, self._search.shingle)
        least = self._search.similarity
        if not len(shingles) or least is None:
            return
        for number in self._near.query(_minhash(shingles)):
            if number not in self._similar and similarity(shingles, self._shingles[number]) >= least:
                self._similar[number] = text

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
    return np.unique(_runs_of_each([found], length)[0])


def _runs_of_each(texts: Sequence[Sequence[str]], length: int) -> tuple[np.ndarray, np.ndarray]:
    """The runs of `length` words of every text, as 64-bit numbers, and the place of the text that each is of; in order."""
    numbers = np.array([_number(word) for text in texts for word in text], np.uint64)
    if len(numbers) < length:
        return np.zeros(0, np.uint64), np.zeros(0, np.int64)
    owners = np.repeat(np.arange(len(texts)), [len(text) for text in texts])
    count = len(numbers) - length + 1
    runs = np.zeros(count, np.uint64)
    for place in range(length):
        runs = runs * _BASE + numbers[place : place + count]
    whole = owners[:count] == owners[length - 1 :]  # Those that begin in one text and end in another are nobody's.
    return runs[whole], owners[:count][whole]


def similarity(a: np.ndarray, b: np.ndarray) -> float:
    """The Jaccard similarity of two sets given as sorted arrays without repetitions; 0 for two empty ones."""
    both = len(np.intersect1d(a, b, assume_unique=True))
    union = len(a) + len(b) - both
    return both / union if union else 0.0


def _minhash(shingles: np.ndarray) -> Any:
    import datasketch

    # MinHash takes numbers of 32 bits.
    made = datasketch.MinHash(num_perm=_PERMUTATIONS, hashfunc=int, scheme=_SCHEME, permutations=_permutations())
    made.update_batch((shingles >> np.uint64(32)).tolist())
    return made


@functools.cache
def _permutations() -> Any:
    import datasketch

    return datasketch.MinHash(num_perm=_PERMUTATIONS, scheme=_SCHEME).permutations


@functools.lru_cache(maxsize=1 << 17)
def _number(word: str) -> int:
    return int.from_bytes(hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest())
