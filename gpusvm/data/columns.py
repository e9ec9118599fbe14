"""Which columns of a table are features, which holds the labels, and which are neither."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from gpusvm.data.column_faults import MOST_WORDS, ColumnFault, UnusableColumnsError, option_of, truth_of
from gpusvm.data.table import Contents, TableOptions, as_labels
from gpusvm.errors import DataError, DataWarning, warn

LABEL_NAMES = (
    "label", "labels", "class", "target", "y", "digit", "category", "species", "diagnosis", "outcome", "variety",
    "class_label", "classlabel",
)  # fmt: skip
"""Where nobody says which column holds the labels, one of these does."""
_ID_NAMES = frozenset(
    {"id", "imageid", "image_id", "rowid", "row_id", "sampleid", "sample_id", "unnamed: 0", "__index_level_0__"}
)
# Not what merely ends in id: acid, humid.
_SAYS_ID = re.compile(r".*[a-z](Id|ID)|.*(?i:[_ ]id)")
_MAYBE_ID = re.compile(r"|(?i:index|idx|row|no|nr)|.*[a-z](Id|ID)|.*(?i:[_ ](id|no|nr|key|number))")
MISSING = frozenset({"", "na", "n/a", "nan", "null", "?", "#n/a"})
"""What people write for a value that is not known, in lower case."""
_MOST_CLASSES = 64
_MOST_OF_ONE_CLASS = 0.9
_LONGEST_WORD = 200
_ROWS_TO_TELL = 20
"""From so many rows on, whole numbers that all differ, under the name of an id, are one; fewer may
differ by chance."""
_MOST_NAMED = 5


@dataclass
class Roles:
    """What each column of a table is, by its number from 0.

    `pending` columns are read as words, and are judged by `settle` when all of them are known.
    """

    features: list[int]
    label: int | None = None
    ids: int | None = None
    pending: list[int] = field(default_factory=list)
    left_out: list[int] = field(default_factory=list)

    @property
    def worded(self) -> list[int]:
        """The columns that are read as words."""
        return [*self.pending, *(column for column in (self.label, self.ids) if column is not None)]


@dataclass
class Words:
    """A column of words: which of them stands in each row. Most have few different ones."""

    values: list[str]
    codes: np.ndarray  # (n,) integers, indices into values

    def as_strings(self) -> np.ndarray:
        """(n,) str."""
        return np.array([word[:_LONGEST_WORD] for word in self.values])[self.codes]

    def truths(self) -> dict[str, float]:
        """Each word as 1 or 0, where all are true and false, or yes and no; else empty.

        Words for a missing value are left out.
        """
        return truth_of([word for word in self.values if not is_missing(word)]) or {}

    def as_numbers(self) -> np.ndarray | None:
        """float64, NaN where the value is missing, or None where a word is no number."""
        numbers = [np.nan if is_missing(word) else number(word) for word in self.values]
        return None if None in numbers else np.array(numbers, dtype=np.float64)[self.codes]


@dataclass
class Foreign:
    """A column of what is neither numbers nor words, by the name of its type."""

    kind: str
    n_rows: int


def names_ids(name: str) -> bool:
    """Whether a column of this name tells rows apart, whatever is in it."""
    return name.lower() in _ID_NAMES


def is_missing(word: str) -> bool:
    """Whether a cell says that its value is not known."""
    return word.strip().lower() in MISSING


def number(cell: str) -> float | None:
    """A cell as a number; None where it is none."""
    if "_" in cell or not cell.isascii():  # which Python's float() takes
        return None
    try:
        return float(cell)
    except ValueError:
        return None


def find_column(wanted: str, names: Sequence[str], n_columns: int) -> int | None:
    """The column of that name, else of that name in another case, else of that number.

    Numbers count from 1; -1 is the last column.
    """
    if wanted in names:
        return names.index(wanted)
    lowered = [name.casefold() for name in names]
    if lowered.count(wanted.casefold()) == 1:
        return lowered.index(wanted.casefold())
    if re.fullmatch(r"-?[0-9]{1,9}", wanted):
        place = int(wanted)
        if 1 <= place <= n_columns:
            return place - 1
        if -n_columns <= place <= -1:
            return place + n_columns
    return None


def assign(names: tuple[str, ...], n_columns: int, options: TableOptions, path: Path) -> Roles:
    """What each column is, by the names of the columns (none: ()) and what the user says.

    Raises
    ------
    DataError
        A column that is needed or named is not there, two have one name, or two could be the
        labels.
    """
    _require_unique(names, path)
    options = like_training(options, n_columns, path)
    dropped = {_require_column(name, names, n_columns, path, "--drop") for name in options.drop}
    if options.columns and names:
        return _by_name(names, options, dropped, path)
    label = None
    has_no_label = _is_unlabelled(n_columns - len(dropped), names, options)
    if options.label is not None and not has_no_label:
        label = _label_column(options, names, n_columns, path)
        _say_other_labels(names, {*dropped, label}, path)
    elif names:
        label = _usual_label(names, dropped, path)
    rest = [column for column in range(n_columns) if column != label and column not in dropped]
    if names:
        ids = [column for column in rest if names_ids(names[column])]
        _say_left_out([names[column] for column in ids], "an id", path)
        rest = [column for column in rest if column not in ids]
        pending = {column for column in rest if _MAYBE_ID.fullmatch(names[column])}
    else:
        ids, pending = [], set()
    if label is None and rest and not has_no_label:
        pending |= {rest[0], rest[-1]}  # one of them may hold the labels
    features = [column for column in rest if column not in pending]
    return Roles(features, label, ids[0] if ids else None, sorted(pending), sorted({*ids[1:], *dropped}))


def like_training(options: TableOptions, n_columns: int, path: Path) -> TableOptions:
    """The options for a file of `n_columns` that go by their numbers, as in the training file.

    What was left out of that (`options.left_out`) is in this file, and is dropped, or is not; so
    are the labels.

    Raises
    ------
    DataError
        The number of columns does not tell which of these are there.
    """
    if not options.left_out or options.drop or options.columns or options.n_features is None:
        return options
    surplus, n_left_out = n_columns - options.n_features, len(options.left_out)
    if surplus == 0:
        return options
    n_labels = int(options.label is not None)
    numbers = ", ".join(map(str, options.left_out[:_MOST_NAMED])) + (" ..." if n_left_out > _MOST_NAMED else "")
    kept = (
        f"the model was trained without the columns {numbers}"
        if n_left_out > 1
        else (f"the model was trained without column {numbers}")
    )
    if surplus == n_left_out == n_labels:
        raise DataError(
            f"{path}: has {n_columns:,} columns, and {kept}: it is unclear whether that or the labels are not in this"
            " file; say what to leave out of it (--drop NUMBER), or which holds the labels (--label NUMBER)"
        )
    if surplus == n_left_out + n_labels:
        return replace(options, drop=tuple(map(str, options.left_out)))
    place = int(options.label or 0)
    if surplus == n_labels:
        before = sum(number < place for number in options.left_out)
        return replace(options, label=str(place - before) if n_labels else None)
    if surplus == n_left_out:
        return replace(options, label=None, drop=tuple(str(n - (0 < place < n)) for n in options.left_out))
    raise DataError(
        f"{path}: has {n_columns:,} columns, and {kept}, on {options.n_features:,} others; give it the same columns, or"
        " say what to leave out of it (--drop NUMBER)"
    )


def _is_unlabelled(n_columns: int, names: tuple[str, ...], options: TableOptions) -> bool:
    """Whether a file to predict has just the columns needed, and none of the label's name."""
    is_there = options.label is not None and find_column(options.label, names, 0) is not None
    return n_columns == (options.n_features or len(options.columns)) and not is_there


def _label_column(options: TableOptions, names: tuple[str, ...], n_columns: int, path: Path) -> int | None:
    """The column that is said to hold the labels.

    None where it is a model's name for it and the file has no header.
    """
    needs = options.columns or options.n_features
    if needs and not names and find_column(options.label or "", names, n_columns) is None:
        return None
    return _require_column(options.label or "", names, n_columns, path, "--label")


def _by_name(names: tuple[str, ...], options: TableOptions, dropped: set[int], path: Path) -> Roles:
    """The features that are needed, in their order, and the labels where they are recognised.

    The other columns are left out.
    """
    found = [find_column(name, names, 0) for name in options.columns]
    absent = [name for name, column in zip(options.columns, found, strict=True) if column is None]
    if absent:
        raise DataError(
            f"{path}: lacks {_listed(absent, 'column')} that the model needs; it has {_listed(names, 'column')}"
        )
    features = [column for column in found if column is not None]
    if needed := [names[column] for column in features if column in dropped]:
        raise DataError(f"{path}: the model needs {_listed(needed, 'column')}, which --drop names; do not drop it")
    label = None
    if options.label is not None:
        label = find_column(options.label, names, 0)
    else:
        label = next((c for name in LABEL_NAMES for c, n in enumerate(names) if n.lower() == name), None)
    label = None if label in features else label
    rest = [column for column in range(len(names)) if column not in {*features, label}]
    ids = next((c for c in rest if names_ids(names[c]) or _MAYBE_ID.fullmatch(names[c])), None)
    extra = [column for column in rest if column not in dropped and column != ids]
    _say_left_out([names[column] for column in extra], "none of the model's features", path)
    return Roles(features, label, ids, [], [column for column in rest if column != ids])


def _require_unique(names: tuple[str, ...], path: Path) -> None:
    first: dict[str, int] = {}
    for column, name in enumerate(names):
        if name and name in first:
            raise DataError(f"{path}: columns {first[name] + 1} and {column + 1} are both named {name:.40}; rename one")
        first.setdefault(name, column)


def _require_column(wanted: str, names: tuple[str, ...], n_columns: int, path: Path, option: str) -> int:
    column = find_column(wanted, names, n_columns)
    if column is None:
        has = f"it has {_listed(names, 'column')}" if names else f"without a header it has columns 1 to {n_columns}"
        raise DataError(f"{path}: has no column {wanted!r:.60}, which {option} names; {has}")
    return column


def _usual_label(names: tuple[str, ...], dropped: set[int], path: Path) -> int | None:
    found = [c for name in LABEL_NAMES for c, n in enumerate(names) if n.lower() == name and c not in dropped]
    if len(found) > 1:
        both = " or ".join(repr(names[column]) for column in found[:_MOST_NAMED])
        raise DataError(f"{path}: its labels could be {both}; say which: --label NAME, and --drop the other")
    if found and names[found[0]].lower() != "label":
        warn(f"{path}: the column {names[found[0]]!r} is taken for the labels", DataWarning)
    return found[0] if found else None


def _say_other_labels(names: tuple[str, ...], aside: set[int | None], path: Path) -> None:
    """Warn of features that are named as labels usually are: they may give the label away."""
    for column, name in enumerate(names):
        if column not in aside and name.lower() in LABEL_NAMES:
            warn(
                f"{path}: the column {name!r} is named as labels usually are, and is taken for a feature; leave it out"
                f" (--drop {option_of(name, column)}) if it is none",
                DataWarning,
            )


def settle(
    roles: Roles,
    words: dict[int, Words],
    names: tuple[str, ...],
    n_columns: int,
    path: Path,
    *,
    has_words: bool = False,
) -> Roles:
    """What the pending columns turned out to be: each a feature, the labels, or left out.

    Where other columns hold words too (`has_words`), one of named columns is not taken for the
    labels for holding some.

    Raises
    ------
    DataError
        A column without a name, or two that could be the labels.
    """
    features, label, ids, left_out = set(roles.features), roles.label, roles.ids, list(roles.left_out)
    ends: dict[int, Words] = {}
    outer = {roles.pending[0], roles.pending[-1]} if roles.pending and label is None else set()
    for column in roles.pending:
        column_words = words[column]
        numbers = column_words.as_numbers()
        name = names[column] if names else ""
        if numbers is not None and np.isnan(numbers).all():
            left_out.append(column)  # what a separator at the end of each line makes
        elif names and _MAYBE_ID.fullmatch(name) and (numbers is None or _tells_rows_apart(numbers)):
            if name:
                _say_left_out([name], "an id", path)
            else:
                what = "holds words" if numbers is None else "numbers the rows"
                warn(f"{path}: column {column + 1}, which has no name, {what}, and is left out", DataWarning)
            ids = column if ids is None else ids
        elif names and name == "":
            raise DataError(
                f"{path}: column {column + 1} has no name; give it one, or leave it out: --drop {column + 1}"
            )
        elif column in outer:
            ends[column] = column_words
        else:
            features.add(column)
            if names and _SAYS_ID.fullmatch(name):
                warn(
                    f"{path}: the column {name[:40]!r} is named as an id, does not number the rows, and is"
                    f" taken for a feature; leave it out (--drop {option_of(name, column)}) if it is none",
                    DataWarning,
                )
    if label is None and not (names and has_words):
        label = _label_at_an_end(ends, names, path)
    if label is not None and roles.label is None:
        shown = repr(names[label]) if names else f"{label + 1} (there is no header)"
        place = "last" if label == n_columns - 1 else "first" if label == 0 else ""
        warn(f"{path}: the {place + ' ' if place else ''}column, {shown}, is taken for the labels", DataWarning)
    features |= {column for column in ends if column != label}
    order = roles.features if not features - set(roles.features) else sorted(features)
    return Roles(order, label, ids, [], left_out)


def _label_at_an_end(ends: dict[int, Words], names: tuple[str, ...], path: Path) -> int | None:
    """Which of the first and the last column holds the labels: the one of words that recur.

    Without a header it may also be the one of numbers that look like labels. Raises DataError
    where both could be.
    """
    numbers = {column: words.as_numbers() for column, words in ends.items()}
    found = [c for c, words in ends.items() if numbers[c] is None and 2 * len(words.values) <= max(len(words.codes), 4)]
    if not found and not names:
        found = [c for c, values in numbers.items() if values is not None and look_like_labels(values)]
    if len(found) > 1:
        first, last = (repr(names[column]) if names else str(column + 1) for column in found)
        raise DataError(
            f"{path}: its labels could be the first column or the last; say which: --label {first} or --label {last}"
        )
    return found[0] if found else None


def look_like_labels(column: np.ndarray) -> bool:
    """Whether numbers look like classes: whole, few, none just once, none nearly everywhere."""
    if not np.isfinite(column).all() or (column != np.floor(column)).any():
        return False
    counts = np.unique(column, return_counts=True)[1]
    return 2 <= len(counts) <= _MOST_CLASSES and counts.min() > 1 and counts.max() < _MOST_OF_ONE_CLASS * counts.sum()


def _tells_rows_apart(numbers: np.ndarray) -> bool:
    """Whether these are whole numbers, each once.

    Where they are few, they must also be consecutive, in any order.
    """
    if not np.isfinite(numbers).all() or (numbers != np.floor(numbers)).any():
        return False
    are_all = len(numbers) >= _ROWS_TO_TELL or numbers.max() - numbers.min() == len(numbers) - 1
    return len(np.unique(numbers)) == len(numbers) and bool(are_all)


def labels_of(words: Words, where: str) -> np.ndarray:
    """Labels (n,): numbers where all are, as `as_labels` has it, else words.

    Raises
    ------
    DataError
        A label is missing, or so long that it is none.
    """
    missing = np.array([is_missing(word) for word in words.values], dtype=bool)[words.codes]
    if missing.any():
        word = words.values[words.codes[np.argmax(missing)]]
        raise DataError(
            f"{where}: {np.count_nonzero(missing):,} of {len(missing):,} labels are missing, the first ({word!r:.20})"
            f" in row {np.argmax(missing) + 1}; leave out those rows"
        )
    numbers = words.as_numbers()
    if numbers is not None:
        return as_labels(numbers, where)
    _say_alike(words.values, where)
    longest = max(words.values, key=len)
    if len(longest) > _LONGEST_WORD:
        raise DataError(f"{where}: {longest!r:.30}... is too long for a label; name another column: --label NAME")
    return np.array(words.values)[words.codes]


def _say_alike(words: Sequence[str], where: str) -> None:
    """Warn of labels that differ in case alone, which are often one class."""
    first: dict[str, str] = {}
    for word in words:
        if word != first.setdefault(word.casefold(), word):
            pair = f"{first[word.casefold()]!r:.40} and {word!r:.40}"
            warn(
                f"{where}: {pair} differ in case alone, and are two classes; write them in one way if not", DataWarning
            )
            return


def from_columns(
    names: tuple[str, ...], values: Sequence[np.ndarray | Words | Foreign], options: TableOptions, path: Path
) -> Contents:
    """The table of columns, each numbers (n,) or words.

    Files that store columns by their type hold them so.

    Raises
    ------
    DataError
        As `assign` and `labels_of`; also a feature that is missing, infinite or a word.
    """
    roles = assign(names, len(names), options, path)
    foreign = [column for column in roles.pending if isinstance(values[column], Foreign)]
    roles.pending = [column for column in roles.pending if column not in foreign]
    roles.features = sorted([*roles.features, *foreign]) if foreign else roles.features
    words = {column: as_words(values[column]) for column in roles.pending}
    worded = any(isinstance(values[column], Words) for column in roles.features)
    roles = settle(roles, words, names, len(names), path, has_words=worded)
    if not roles.features:
        raise DataError(f"{path}: has no column of features left; it needs at least one of numbers")
    columns = [feature_of(values[column], names, column) for column in roles.features]
    if faults := [fault for _, fault in columns if fault is not None]:
        raise UnusableColumnsError(path, faults, has_label=roles.label is not None)
    say_truths(names, [column for column in roles.features if has_truths(values[column])], path)
    found = [column for column, _ in columns]
    single = all(column.dtype == np.float32 for column in found)
    X = np.empty((len(found[0]), len(found)), dtype=np.float32 if single else np.float64)
    for place, column_values in enumerate(found):
        X[:, place] = column_values
    features = tuple(names[column] for column in roles.features)
    labels, name = None, None
    if roles.label is not None:
        name, of_labels = names[roles.label], values[roles.label]
        if isinstance(of_labels, Foreign):
            raise DataError(
                f"{path}, the labels ({name:.40}): holds {of_labels.kind:.60}, which is neither numbers nor words; name"
                " another column: --label NAME"
            )
        labels = labels_of(as_words(of_labels), f"{path}, the labels ({name:.40})")
    ids = None if roles.ids is None else as_words(values[roles.ids]).as_strings()
    return Contents(X, labels, features, name, ids, None if roles.ids is None else names[roles.ids])


def pick(contents: Contents, options: TableOptions, path: Path) -> Contents:
    """A table without names, its columns picked as the user says by their numbers.

    The labels come from one column, and columns to drop are left out.

    Raises
    ------
    DataError
        There is no such column, none is left, or the table is sparse: what it counts are indices.
    """
    if isinstance(contents.X, np.ndarray):
        options = like_training(options, contents.X.shape[1], path)
    needs = options.columns or options.n_features
    if not options.drop and (options.label is None or (needs and not isinstance(contents.X, np.ndarray))):
        return contents
    if not isinstance(contents.X, np.ndarray):
        raise DataError(f"{path}: --label and --drop name columns, and a svmlight file has none; leave them out")
    n_columns = contents.X.shape[1]
    dropped = {_require_column(name, (), n_columns, path, "--drop") for name in options.drop}
    label = None
    if options.label is not None and not _is_unlabelled(n_columns - len(dropped), (), options):
        label = _label_column(options, (), n_columns, path)
    kept = [column for column in range(n_columns) if column != label and column not in dropped]
    if not kept:
        raise DataError(f"{path}: has no column of features left; it needs at least one of numbers")
    if label is not None:
        labels = as_labels(contents.X[:, label], f"{path}, the labels (column {label + 1})")
        contents = contents._replace(labels=labels, label_number=label + 1)
    contents = contents._replace(left_out=tuple(column + 1 for column in sorted(dropped)))
    return contents._replace(X=np.ascontiguousarray(contents.X[:, kept])) if len(kept) < n_columns else contents


def as_words(column: np.ndarray | Words | Foreign) -> Words:
    """A column as words, whatever it holds; a foreign one as its type's name in every row."""
    if isinstance(column, Words):
        return column
    if isinstance(column, Foreign):
        return Words([column.kind], np.zeros(column.n_rows, dtype=np.int64))
    distinct, codes = np.unique(column, return_inverse=True)
    return Words([_plain(value) for value in distinct.tolist()], codes)


def _plain(value: float | int | bool) -> str:
    return repr(int(value)) if float(value).is_integer() else repr(value)


def feature_of(
    values: np.ndarray | Words | Foreign, names: tuple[str, ...], column: int
) -> tuple[np.ndarray, ColumnFault | None]:
    """A column of features as numbers (n,), and what is wrong with it, if anything is."""
    name = names[column] if names else ""
    if isinstance(values, Foreign):
        return np.empty(0), ColumnFault(column, name, "", kind=values.kind)
    if not isinstance(values, Words):
        return values, _fault_of_numbers(values, name, column)
    truths = values.truths()
    numbers = [truths.get(word, number(word)) for word in values.values]
    found = np.array([np.nan if value is None else value for value in numbers], dtype=np.float64)[values.codes]
    fault = _fault_of_numbers(found, name, column)
    if fault is None:
        return found, None
    odd = [word for word, value in zip(values.values, numbers, strict=True) if value is None and not is_missing(word)]
    n_words = int(np.isin(values.codes, [c for c, word in enumerate(values.values) if word in set(odd)]).sum())
    return found, replace(fault, words=tuple(odd[:MOST_WORDS]), n_missing=fault.n_missing - n_words, n_words=n_words)


def _fault_of_numbers(values: np.ndarray, name: str, column: int) -> ColumnFault | None:
    finite = np.isfinite(values)
    if finite.all():
        return None
    n_missing = int(np.count_nonzero(np.isnan(values)))
    n_infinite = len(values) - np.count_nonzero(finite) - n_missing
    place = f"row {int(np.argmin(finite)) + 1}"
    return ColumnFault(column, name, place, (), n_missing, int(n_infinite), len(values))


def has_truths(values: np.ndarray | Words | Foreign) -> bool:
    """Whether a column holds words, all of them true and false, or yes and no."""
    return isinstance(values, Words) and bool(values.truths())


def say_truths(names: tuple[str, ...], found: Sequence[int], path: Path) -> None:
    """Say which columns of true and false, or yes and no, were read as numbers."""
    if found:
        called = [names[column] if names else f"column {column + 1}" for column in found]
        verb = "holds" if len(called) == 1 else "hold"
        noun = _listed(called, "column") if names else _quoted(called)
        warn(f"{path}: {noun} {verb} words of truth, read as 1 (true, yes) and 0 (false, no)", DataWarning)


def _say_left_out(names: list[str], what: str, path: Path) -> None:
    if names:
        verb = "is" if len(names) == 1 else "are"
        noun = "columns" if len(names) > 1 else "column"
        warn(f"{path}: the {noun} {_quoted(names)} {verb} {what}, and left out", DataWarning)


def _listed(names: Sequence[str], noun: str) -> str:
    return f"the {noun}{'s' if len(names) > 1 else ''} {_quoted(names)}"


def _quoted(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name[:40]) for name in names[:_MOST_NAMED])
    return shown + (f" and {len(names) - _MOST_NAMED:,} more" if len(names) > _MOST_NAMED else "")
