"""Languages: tags (`pt-BR` is `pt`), words where no blanks stand between them, and the script a text must be in."""

from __future__ import annotations

import re
import unicodedata
from math import ceil

import regex

#: Scripts that put no blanks between words, by how many letters make a word there; rounded down from running text, so
#: that a short prompt rather counts a word too many.
UNSPACED = {
    1.5: ("Hani", "Hira", "Kana", "Bopo", "Yiii"),
    3.0: ("Thai", "Laoo", "Khmr", "Mymr", "Lana", "Talu", "Tale", "Tavt", "Java", "Bali"),
}


def script_class(scripts: tuple[str, ...]) -> str:
    """The letters of these scripts (ISO 15924) as a set of the regex library."""
    return "[[" + "".join(f"\\p{{scx={script}}}" for script in scripts) + r"]&&\p{L}]"


UNSPACED_LETTER = script_class(tuple(script for scripts in UNSPACED.values() for script in scripts))
SPACED_CHARACTER = rf"[[\p{{L}}\p{{M}}\p{{N}}]--{UNSPACED_LETTER}]"
_TOKEN = regex.compile(rf"(?V1){UNSPACED_LETTER}\p{{M}}*|{SPACED_CHARACTER}+")
#: Between syllables of Tibetan, and between words of Ethiopic.
_SEPARATORS = str.maketrans(dict.fromkeys("་༌፡", " "))
_ASCII_WORD = re.compile(r"[a-z0-9]+")
_UNSPACED_LETTERS = {letters: regex.compile(rf"(?V1){script_class(scripts)}") for letters, scripts in UNSPACED.items()}
_UNSPACED = regex.compile(rf"(?V1){UNSPACED_LETTER}\p{{M}}*")

#: Languages written in one script (ISO 15924) that is not Latin.
_OF_SCRIPT = {
    "Cyrl": "be bg ce cv kk ky mk mn ru tg tt udm uk ab ba os sah", "Arab": "ar fa ur ps ug ckb arz ary",
    "Deva": "hi mr ne sa mai bho kok doi", "Hebr": "he yi", "Beng": "bn as mni", "Ethi": "am ti", "Tibt": "bo dz",
    "Mymr": "my shn", "Grek": "el", "Armn": "hy", "Geor": "ka", "Thai": "th", "Laoo": "lo", "Khmr": "km", "Sinh": "si",
    "Taml": "ta", "Telu": "te", "Knda": "kn", "Mlym": "ml", "Gujr": "gu", "Orya": "or", "Thaa": "dv", "Cher": "chr",
    "Tfng": "zgh", "Yiii": "ii",
}  # fmt: skip
#: Scripts of languages that are not, or not only, written in Latin letters.
SCRIPTS: dict[str, tuple[str, ...]] = {
    **{language: (script,) for script, languages in _OF_SCRIPT.items() for language in languages.split()},
    **dict.fromkeys(("zh", "yue", "wuu", "nan", "lzh"), ("Hani", "Bopo")),
    "ja": ("Hani", "Hira", "Kana"), "ko": ("Hang", "Hani"), "iu": ("Cans", "Latn"), "pa": ("Guru", "Arab"),
    "sd": ("Arab", "Deva"), "ks": ("Arab", "Deva"), "sr": ("Cyrl", "Latn"), "bs": ("Latn", "Cyrl"),
    "uz": ("Latn", "Cyrl"), "az": ("Latn", "Cyrl", "Arab"), "tk": ("Latn", "Cyrl"), "ku": ("Latn", "Arab"),
    "ms": ("Latn", "Arab"), "ha": ("Latn", "Arab"), "jv": ("Latn", "Java"), "ban": ("Latn", "Bali"),
    "sat": ("Olck", "Deva", "Beng"), "ber": ("Latn", "Tfng", "Arab"),
}  # fmt: skip
#: Script subtags that stand for others.
SCRIPT_GROUPS = {
    "hans": ("Hani", "Bopo"), "hant": ("Hani", "Bopo"), "jpan": ("Hani", "Hira", "Kana"), "kore": ("Hang", "Hani"),
}  # fmt: skip
#: Old and narrower tags of the same language.
SAME = {"iw": "he", "in": "id", "ji": "yi", "jw": "jv", "cmn": "zh", "nb": "no", "nn": "no", "tl": "fil"}
#: Largest share of letters of foreign scripts; Latin ones do not count in languages of other scripts.
MAX_FOREIGN = 0.1
#: Smallest share of words in a language's own script beside Latin names and terms.
MIN_OWN_WORDS = 0.5
#: From this many letters on, a Japanese text has kana: without it is Chinese.
KANA_FROM_LETTERS = 12


def same_language(tag: str, wanted: str) -> bool:
    """Whether two BCP 47 tags may mean the same: equal as far as both say something (`pt` and `pt-BR`, not `pt-PT`)."""
    return all(a == b or not a or not b for a, b in zip(_subtags(tag), _subtags(wanted), strict=True))


def tokens(text: str) -> list[str]:
    """Lower-case words; of scripts without blanks between words each letter with its marks is one."""
    if text.isascii():  # the same, faster
        return _ASCII_WORD.findall(text.lower())
    found: list[str] = _TOKEN.findall(unicodedata.normalize("NFKC", text).casefold())
    return found


def word_count(text: str) -> int:
    """Words by the blanks between them; in scripts without blanks as many as their letters make on average.

    >>> word_count("How do I boil an egg?"), word_count("如何煮一个完美的鸡蛋？")
    (6, 7)
    """
    text = text.translate(_SEPARATORS)
    words, replaced = _UNSPACED.subn(" ", text)
    if not replaced:
        return len(text.split())
    spaced = sum(any(map(str.isalnum, word)) for word in words.split())
    return ceil(spaced + sum(len(letter.findall(text)) / letters for letters, letter in _UNSPACED_LETTERS.items()))


def scripts_of(language: str) -> tuple[str, ...]:
    """Scripts of a language tag: those it names, else those of its language; Latin for languages not listed."""
    primary, script, _ = _subtags(language)
    if script:
        return SCRIPT_GROUPS.get(script, (script.capitalize(),))
    return SCRIPTS.get(primary, ("Latn",))


def in_script(text: str, language: str) -> bool:
    """Whether a text can be in a language by its letters: a cheap guess."""
    scripts = scripts_of(language)
    letters = [c for c in text if c.isalpha()]
    own = regex.compile(rf"(?V1){script_class(scripts)}")
    latin = regex.compile(r"\p{scx=Latn}")
    foreign = sum(not own.match(c) and ("Latn" in scripts or not latin.match(c)) for c in letters)
    if not letters or foreign / len(letters) > MAX_FOREIGN:
        return False
    words = [word for word in tokens(text) if any(c.isalpha() for c in word)]
    if sum(own.match(word) is not None for word in words) < MIN_OWN_WORDS * len(words):
        return False
    if _subtags(language)[0] == "ja" and len(letters) >= KANA_FROM_LETTERS:
        return regex.search(r"\p{sc=Hira}|\p{sc=Kana}", text) is not None
    return True


def primary_language(language: str) -> str:
    """`en` of `en-GB`."""
    return _subtags(language)[0]


def _subtags(tag: str) -> tuple[str, str, str]:
    """(language, script, region) of a tag, lower-case, empty where it does not say."""
    first, *rest = tag.strip().lower().replace("_", "-").split("-")
    script = next((part for part in rest if len(part) == 4 and part.isalpha()), "")
    region = next((part for part in rest if (len(part) == 2 and part.isalpha()) or part.isdecimal()), "")
    return SAME.get(first, first), script, region
