"""Code, comments, messages and documentation use the field's standard terms.

Persisted keys of version 0.1 in quotes or backticks, such as "processor", are exempt.
"""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# Private term -> standard term. Each pattern is matched without regard to case.
WORDS = {
    r"\bpictures?\b": "image",
    r"(?<!ground )(?<!ground_)(?<![-|])\btruths?\b": "ground truth",
    r"\bdrawn (images?|data ?sets?|set|lesions?)\b": "synthetic",
    r"\bbelie(f|ve|ves|ved|ving)\b": "predicted quality",
    r"\bimagined\b": "false positive",
    r"\bperceptrons?\b": "MLP",
    r"(?<![\"`.])\b(graphics cards?|processors?)\b": "GPU or CPU",
    r"\bbehold|\b_?beheld\b": "wrap",
    r"\bcanvas\b": "accumulator",
    r"\bsymmetries\b": "test-time augmentation",
    r"\banew\b": "again",
    r"\bfrugal(ly)?\b": "memory-efficient",
    r"\bundecayed\b": "no_weight_decay",
    r"\brehears(e|ed|al)\b": "warm up",
    r"\bweigh(ed|s|ing)?\b": "attention weights, compare, or weight",
    r"\b(one and the same|in turns|next to no|to the eye)\b": "the same, interleaved",
    r"\bhand(s|ed)? over\b": "load or pass",
    r"(?<![\"`.-])\b(colour|grey|neighbour|licence|centre|artefact|behaviour)s?\b": "US spelling",
    r"\b(milli)?metres?\b": "US spelling",
    r"\b(normal|summar|initial|standard|recogn|regular|optim|organ)is(e|ed|es|ing|ation)\b": "-ize",
    r"\blabell(ed|ing)\b": "labeled, or classification",
    r'"""(Give|Say|Tell|Put|Take|Bring|Lay)\b': "Return, Return whether, Write, Read, ...",
    r"\bmended\b": "fixed",
    r"\bkept letter for letter\b": "preserved exactly",
    r"\balike\b": "equal, or duplicate",
}
PATTERNS = [(re.compile(pattern, re.IGNORECASE), term) for pattern, term in WORDS.items()]

# Old names that must stay: files of version 0.1, third-party formats, quotations.
EXEMPT_FILES = {
    "tests/packaging/test_words.py",
    "segnetr/config/renames.py",
    "tests/unit/config/test_renames.py",
    "tests/integration/test_version_0_1_files.py",
}
EXEMPT_FOLDERS = ("tests/fixtures/", "tests/golden/records/", "benchmarks/results/")
EXEMPT_LINE = "words: allow"


def list_files() -> list[Path]:
    folders = ("benchmarks", "cli", "configs", "docs", "hybrid_backbones", "segnetr", "tests")
    found = [path for folder in folders for path in (ROOT / folder).rglob("*")]
    found += [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "Makefile")]
    suffixes = {".py", ".md", ".yaml", ".j2", ".css", ""}
    return sorted(
        path
        for path in found
        if path.is_file()
        and path.suffix in suffixes
        and str(path.relative_to(ROOT)) not in EXEMPT_FILES
        and not str(path.relative_to(ROOT)).startswith(EXEMPT_FOLDERS)
    )


def find_private_words(text: str) -> list[tuple[int, str, str]]:
    """Return (line number, word, standard term) of each private term."""
    return [
        (number, match[0], term)
        for number, line in enumerate(text.splitlines(), start=1)
        if EXEMPT_LINE not in line
        for pattern, term in PATTERNS
        for match in pattern.finditer(line)
    ]


@pytest.mark.slow
def test_no_file_uses_a_private_term():
    found = [
        f"{path.relative_to(ROOT)}:{number}: {word!r}; write {term}"
        for path in list_files()
        for number, word, term in find_private_words(path.read_text(encoding="utf-8"))
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("text", "is_found"),
    [
        ("Read a picture.", True),
        ("Read an image.", False),
        ("compare with the truth", True),
        ("compare with the ground truth", False),
        ("def read_ground_truth(path):", False),
        ('"""Give the mean Dice."""', True),
        ('"""Return the mean Dice."""', False),
        ("normalise the colour", True),
        ("the picture  # words: allow", False),
        ('content["licence"]', False),
    ],
)
def test_private_terms_are_found_and_standard_ones_are_not(text: str, is_found: bool):
    assert bool(find_private_words(text)) is is_found
