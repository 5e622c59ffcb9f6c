"""The one error that docmem raises, and the checks that raise it.

Every message is a sentence or two: what was wrong, what was expected, what to do. What a program
hands to docmem is checked where it comes in: `@checked` holds arguments against the annotations, in
which limits may stand (`Count`, `Positive`).
"""

import dataclasses
import difflib
import errno
import functools
import inspect
import math
import os
import re
import types
import typing
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, get_args, get_origin

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T", bound=Callable[..., Any])

UNIONS = (typing.Union, types.UnionType)
WIDER: dict[Any, Any] = {
    int: Integral, float: Real, Path: (str, os.PathLike), tuple: (tuple, list),
}  # fmt: skip
"""What is accepted in place of a type: numbers of numpy, strings as paths, lists as tuples."""
BASE_LM, EVERYTHING = "(base LM)", "all entries"
"""Names that stand for the LM without memory, and with all entries open. No document may have one
of them as its title."""
# How an error calls a type, and where to get one.
NAMES: dict[Any, str] = {
    bool: "True or False", int: "a whole number", float: "a number", str: "a string",
    Path: "a path", os.PathLike: "a path", types.NoneType: "None", Callable: "a function",
}  # fmt: skip
CALLED = {"ndarray": "an array", "Tensor": "a tensor", "_AllEntries": "docmem.ALL_ENTRIES"}
SOURCES = {
    "Document": "docmem.Document(title, text)",
    "DocumentMemory": "run.load_memory()",
    "HiddenStateCache": "run.cache_hidden_states(lm)",
    "Hooked": "`with docmem.attach(…) as hooked`",
    "LanguageModel": "docmem.load_lm",
    "Module": "lm.model",
    "PreTrainedTokenizerBase": "lm.tokenizer",
    "Run": "docmem.train or docmem.Run.open",
    "TrainConfig": "docmem.preset",
}


class DocmemError(Exception):
    """An error the reader can act on: what was wrong, what was expected, what to do."""


class ArgumentError(DocmemError, TypeError):
    """An argument of a wrong type or name: also what Python itself raises."""


def checked(target: T) -> T:
    """A function that raises DocmemError for arguments its signature and annotations do not allow.

    For what people call; not for inner loops. Of a dataclass, only the names: its `__post_init__`
    calls `check_fields`, after it has put right what it can.
    """
    if isinstance(target, type):
        target.__init__ = _checked(target.__init__, target.__name__, False)  # type: ignore[misc]
        return target
    return typing.cast(T, _checked(target, target.__qualname__.removesuffix(".__init__"), True))


def _checked(function: Callable[..., Any], name: str, types_too: bool) -> Callable[..., Any]:
    signature = inspect.signature(function)
    known = [one for one in signature.parameters if one not in ("self", "cls")]
    open_ended = any(one.kind is one.VAR_KEYWORD for one in signature.parameters.values())

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            given = signature.bind(*args, **kwargs)
        except TypeError as error:
            unknown = [] if open_ended else [word for word in kwargs if word not in known]
            for word in unknown:
                hint = did_you_mean(word, known)
                raise ArgumentError(f"{name} takes no argument {word!r}.{hint}") from None
            raise ArgumentError(f"{name}: {error}.") from None
        hints = _hints(function) if types_too else {}
        for argument, value in given.arguments.items():
            check_type(argument, value, hints.get(argument, Any))
            given.arguments[argument] = plain(value)
        return function(*given.args, **given.kwargs)

    return call


@functools.cache
def _hints(target: Any) -> dict[str, Any]:
    return typing.get_type_hints(target, include_extras=True)


def check_fields(instance: Any) -> None:
    """Raise unless every field of a dataclass is as declared; 1 becomes 1.0 where that may be."""
    hints = _hints(instance.__class__)
    for field in dataclasses.fields(instance):
        value, kind = getattr(instance, field.name), hints[field.name]
        check_type(field.name, value, kind)
        real = _finite(value) and _fits(0.5, kind)
        object.__setattr__(instance, field.name, float(value) if real else plain(value))


def plain(value: Any) -> Any:
    """A number of any kind as Python's, which JSON and torch's generators take; others as is."""
    if not _finite(value):
        return value
    return int(value) if isinstance(value, Integral) else float(value)


def check_type(name: str, value: object, kind: Any) -> None:
    """Raise unless `value` is what an annotation says; bools are no numbers, strings no lists.

    Functions in an `Annotated` are called with name and value: they raise if it is out of limits.
    """
    if not _fits(value, kind):
        what = "choose one of" if get_origin(kind) is Literal else "it must be"
        raise ArgumentError(f"{name} is {_misfit(value, kind)}; {what} {_words(kind)}.")
    several = get_args(kind) if get_origin(kind) in UNIONS else (kind,)
    if Path in several and isinstance(value, str | os.PathLike):
        check_path(name, value)
    for one in several:
        if get_origin(one) is Annotated and _fits(value, one):
            for check in one.__metadata__:
                check(name, value)


def _fits(value: Any, kind: Any) -> bool:
    origin, args = get_origin(kind), get_args(kind)
    if kind is Any:
        return True
    if origin is Annotated:
        return _fits(value, args[0])
    if origin in UNIONS:
        return any(_fits(value, one) for one in args)
    if origin is Literal:
        return isinstance(value, str) and value in args
    if kind is bool or isinstance(value, bool):
        return kind is bool and isinstance(value, bool)
    if not isinstance(value, WIDER.get(origin or kind) or origin or kind):
        return False
    if origin is not None and issubclass(origin, Mapping):
        return all(_fits(key, args[0]) and _fits(one, args[1]) for key, one in value.items())
    if origin is not None and issubclass(origin, Iterable):
        return not isinstance(value, str | bytes) and all(_fits(one, args[0]) for one in value)
    return True


def _misfit(value: Any, kind: Any) -> str:
    """What does not fit, as an error shows it: of a list or dict also what is wrong in it."""
    for one in get_args(kind) if get_origin(kind) in UNIONS else (kind,):
        origin, args = get_origin(one), get_args(one)
        several = origin in (Mapping, Sequence, tuple) and not isinstance(value, str | bytes)
        if several and isinstance(value, WIDER.get(origin) or origin):
            rows = value.items() if origin is Mapping else zip(value, strict=True)
            for part, wanted in (pair for row in rows for pair in zip(row, args, strict=False)):
                if not _fits(part, wanted):
                    return f"{_shown(value)} with {_shown(part)} in it"
    return _shown(value)


def _words(kind: Any) -> str:
    origin, args = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _words(args[0])
    if origin in UNIONS:
        return " or ".join(dict.fromkeys(map(_words, args)))
    if origin is Literal:
        return ", ".join(args)
    if (origin or kind) in NAMES:
        return NAMES[origin or kind]
    if origin is not None:
        many, one = ("dict", args[1]) if issubclass(origin, Mapping) else ("list", args[0])
        return f"a {many}" + ("" if one is Any else f", each {_words(one)}")
    if hasattr(kind, "dim_str"):  # jaxtyping's
        numbers = "decimal" if "float32" in kind.dtypes else "whole"
        return f"a tensor of {numbers} numbers, of shape ({kind.dim_str.strip()})"
    if getattr(kind, "_is_protocol", False):
        return f"an object with {' and '.join(one for one in vars(kind) if one[0] != '_')}"
    source, called = SOURCES.get(kind.__name__), CALLED.get(kind.__name__, f"a {kind.__name__}")
    return called + (f" (from {source})" if source else "")


def _shown(value: object) -> str:
    """A value as an error shows it: short."""
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if isinstance(shape := getattr(value, "shape", None), tuple) and not isinstance(value, Real):
        return f"a {type(value).__name__} of shape {tuple(shape)}"
    if value is None or isinstance(value, str | bytes | Real):
        text = repr(value)
        return text if len(text) <= 80 else f"{text[:79]}…"
    return f"a {type(value).__name__}"


def check_count(name: str, value: object, least: int = 1) -> None:
    """Raise unless `value` is a whole number not below `least`, which torch has room for."""
    whole = typing.cast(int, value) if _fits(value, int) else least - 1
    if not least <= whole < 2**63:
        limit = f"at least {least}" if whole < least else "below 2 ** 63"
        raise DocmemError(f"{name} is {_shown(value)}; it must be a whole number, {limit}.")


def check_at_least(name: str, value: object, least: float) -> None:
    """Raise unless `value` is a finite number not below `least`."""
    if not _finite(value) or typing.cast(float, value) < least:
        limit = f", at least {least}" if math.isfinite(least) else ""
        raise DocmemError(f"{name} is {_shown(value)}; it must be a finite number{limit}.")


def check_positive(name: str, value: object, most: float = math.inf) -> None:
    """Raise unless `value` is a finite number above zero, and not above `most`."""
    if not _finite(value) or not 0 < typing.cast(float, value) <= most:
        limit = f", at most {most:g}" if math.isfinite(most) else ""
        raise DocmemError(f"{name} is {_shown(value)}; it must be a finite number above 0{limit}.")


def _finite(value: object) -> bool:
    try:
        return _fits(value, float) and math.isfinite(typing.cast(float, value))
    except OverflowError:  # a whole number that no float is as large as
        return False


def check_path(name: str, path: str | os.PathLike[str]) -> None:
    """Raise if no file or folder can have such a path: it is empty, too long, or has a NUL."""
    if path == "":  # which Path takes for the current folder
        raise DocmemError(f"{name} is ''; give the path of a file or folder.")
    check_unicode(name, str(path))  # which is written into files that are UTF-8
    if Path(path).parts[:1] == ("~",):
        whole = Path(path).expanduser()
        raise DocmemError(f"{name} is {str(path)!r}, where ~ means nothing; write {str(whole)!r}.")
    try:
        Path(path).lstat()
    except (OSError, ValueError) as error:
        if isinstance(error, ValueError) or error.errno == errno.ENAMETOOLONG:
            fault = getattr(error, "strerror", None) or error
            shown = _shown(str(path))
            raise DocmemError(f"{name} is {shown}, which cannot be a path: {fault}.") from error


def check_folder(name: str, path: str | os.PathLike[str]) -> None:
    """Raise unless `path` is a folder that can be written in, or can become one."""
    check_path(name, path)
    there = Path()
    for there in (Path(path), *Path(path).parents):
        with suppress(OSError):
            there.stat()
            break
    if not there.is_dir():
        raise DocmemError(f"Could not write in {path}: {there} is a file. Choose another folder.")
    if not os.access(there, os.W_OK | os.X_OK):
        raise DocmemError(f"Could not write in {path}: {there} is write-protected.")


def check_file(name: str, path: str | os.PathLike[str]) -> None:
    """Raise unless a file can be written at `path`."""
    check_path(name, path)
    check_folder(name, Path(path).parent)
    if Path(path).exists() and not Path(path).is_file():
        what = "a folder" if Path(path).is_dir() else "no file that can be replaced"
        raise DocmemError(f"{str(path)!r} is {what}; give the path of a file to write.")


Natural = Annotated[int, functools.partial(check_count, least=0)]
"""A whole number, at least 0."""
Count = Annotated[int, check_count]
"""A whole number, at least 1."""
Several = Annotated[int, functools.partial(check_count, least=2)]
"""A whole number, at least 2."""
NotNegative = Annotated[float, functools.partial(check_at_least, least=0)]
"""A finite number, at least 0."""
Positive = Annotated[float, check_positive]
"""A finite number above 0."""
Rate = Annotated[float, functools.partial(check_positive, most=1e30)]
"""A learning rate: also for a step, which may be larger, float32 has room."""
OutFolder = Annotated[Path, check_folder]
"""A folder to write in; it may not be there yet."""
OutFile = Annotated[Path, check_file]
"""A file to write."""


def as_doc_reps(name: str, given: Any) -> "Tensor":
    """DocReps in a tensor, an array, or a list of these or of numbers, as a tensor.

    Raises:
        DocmemError: if they are no numbers, or not finite in float32.
    """
    import numpy as np
    import torch

    def tensor(one: Any) -> "Tensor":
        if hasattr(one, "__array__") and not isinstance(one, torch.Tensor):
            one = np.asarray(one)  # torch takes no other order, of bytes or of rows
            one = np.array(one, one.dtype.newbyteorder("="), order="C")
        return torch.as_tensor(one)

    try:
        many, text = isinstance(given, Sequence), str | bytes | bytearray
        if isinstance(given, text) or (many and any(isinstance(one, text) for one in given)):
            raise ValueError("it holds text; documents are called one at a time, by their titles")
        if many and not len(given):
            raise ValueError("there are none")
        doc_reps = torch.stack([tensor(one) for one in given]) if many else tensor(given)
        if not doc_reps.numel():
            raise ValueError(f"there are none in shape {tuple(doc_reps.shape)}")
        if doc_reps.dtype == torch.bool or doc_reps.is_complex():
            raise ValueError(f"they are {str(doc_reps.dtype).removeprefix('torch.')}")
        if not doc_reps.float().isfinite().all():
            raise ValueError("they are not all finite in float32")
    except (TypeError, ValueError, RuntimeError) as error:
        raise DocmemError(f"{name} must hold finite numbers, as DocReps do: {error}.") from error
    return doc_reps if doc_reps.is_floating_point() else doc_reps.float()


def check_unicode(name: str, text: str) -> None:
    """Raise if a text has what UTF-8 cannot say: surrogates, as of bytes that were not UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DocmemError(
            f"{name} has {text[error.start]!r} at place {error.start}, which is no character of "
            "Unicode; give text that is UTF-8."
        ) from error


def check_text(name: str, text: str) -> None:
    """Raise if a text is empty or white, or not Unicode."""
    check_unicode(name, text)
    if not text.strip():
        raise DocmemError(f"{name} is {text!r}; it must have something in it.")


def check_titles(titles: Sequence[str], files: Sequence[str] = ()) -> None:
    """Raise if a title is empty or taken, or two are alike, with the `files` they are from."""
    (title, count), *_ = Counter(titles).most_common(1) or [("", 0)]
    if count > 1:
        alike = [file for file, one in zip(files, titles, strict=False) if one == title]
        where = f" ({', '.join(alike[:5])})" if alike else ""
        raise DocmemError(f"{count} documents are called {title!r}{where}; give each its own.")
    for title in titles:
        check_text("A document's title", title)
    for kept in {BASE_LM, EVERYTHING}.intersection(titles):
        raise DocmemError(
            f"A document is called {kept!r}, which stands for what is read or written without any "
            "document; give it another title."
        )


def check_title(title: str, titles: Collection[str]) -> None:
    """Raise unless a title is among `titles`; the nearest are named, or the first."""
    if title not in titles:
        first = "".join(f" The first is called {one!r}." for one in list(titles)[:1])
        near = did_you_mean(title, titles) or first
        raise DocmemError(f"There is no document called {title!r}.{near}")


def check_index(name: str, index: int, count: int, otherwise: str) -> int:
    """The index from 0 of one of `count` things, given from either end; raises if out of range."""
    check_type(name, index, int)
    if not -count <= index < count:
        raise DocmemError(f"{otherwise} 0 to {count - 1}, or -{count} to -1 counted from the end.")
    return int(index) % count


def counted(count: int, thing: str, things: str = "") -> str:
    """A number of things in words: 1 document, 1,000 documents."""
    return f"{count:,} {thing if count == 1 else things or f'{thing}s'}"


def did_you_mean(title: str, titles: Iterable[str]) -> str:
    """A suffix for an error, "Did you mean …?"; empty if no title is close."""
    known = {one.lower(): one for one in titles}
    near = difflib.get_close_matches(title.lower(), known, n=3, cutoff=0.4)
    return f" Did you mean {' or '.join(repr(known[n]) for n in near)}?" if near else ""


def fault_of(error: Exception) -> str:
    """What is wrong where reading a file failed so: the file, or the device it should go to."""
    words = re.search("CUDA|NVIDIA|MPS|device string", str(error))
    if isinstance(error, PermissionError):
        fault = "you may not read it"
    elif words and isinstance(error, AssertionError | RuntimeError):  # as torch says it
        fault = "torch cannot use that device here"
    else:
        fault = "it is damaged or not a docmem file"
    return f"{fault} ({type(error).__name__}: {error})"
