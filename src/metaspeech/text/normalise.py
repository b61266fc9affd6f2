"""English text as it is read aloud: lower case, numbers and abbreviations in words, little punctuation."""

from __future__ import annotations

import re
import unicodedata

from num2words import num2words

PUNCTUATION = ",.?!;:"

_ABBREVIATIONS = {
    "mr": "mister",
    "mrs": "missus",
    "ms": "miz",
    "dr": "doctor",
    "prof": "professor",
    "st": "saint",
    "mt": "mount",
    "jr": "junior",
    "sr": "senior",
    "co": "company",
    "ltd": "limited",
    "capt": "captain",
    "gen": "general",
    "col": "colonel",
    "lt": "lieutenant",
    "sgt": "sergeant",
    "rev": "reverend",
    "hon": "honorable",
    "vs": "versus",
    "etc": "et cetera",
    "approx": "approximately",
    "dept": "department",
    "e. g": "for example",
    "i. e": "that is",
}
_ABBREVIATION = re.compile(rf"\b({'|'.join(map(re.escape, _ABBREVIATIONS))})\.")
_NUMBER_SIGN = re.compile(r"\b(?:no|nr)\.\s*(?=\d)|#\s*(?=\d)")
_CURRENCIES = {"$": "USD", "£": "GBP", "€": "EUR"}
_NUMERAL = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?"
_MONEY = re.compile(rf"([$£€])\s?({_NUMERAL})")
_ORDINAL = re.compile(r"(?<!\d)(\d{1,3}(?:,\d{3})+|\d+)(?:st|nd|rd|th)\b")
_PERCENT = re.compile(rf"(?<!\d)({_NUMERAL})\s?%")
_YEAR = re.compile(r"(?<![\d,.])(1[1-9]\d\d|20[1-9]\d)(?!\d|[,.]\d)")
_PLURAL = re.compile(r"(?<![\d,.])(\d{2,4})'?s\b")
_TIME = re.compile(r"(?<=\d):(?=\d)")
_PLAIN = re.compile(_NUMERAL)
_SIGNS = {"&": " and ", "@": " at ", "+": " plus ", "=": " equals ", "%": " percent ", "°": " degrees "}
_QUOTES = str.maketrans({"’": "'", "‘": "'", "`": "'", "´": "'", "ʼ": "'", "…": ".", "—": ", ", "–": ", "})
_LONGEST = 15  # digits that are still read as one number


def normalise(text: str) -> str:
    """Words of lower-case letters with apostrophes, separated by single spaces, and the marks ``, . ? ! ; :``.

    Accents are dropped ("café" becomes "cafe"); letters of other scripts stay, for the caller to refuse. Text without a
    letter or digit becomes the empty string.
    """
    text = unicodedata.normalize("NFKC", text.translate(_QUOTES)).casefold().translate(_QUOTES)
    text = "".join(char for char in unicodedata.normalize("NFKD", text) if not unicodedata.combining(char))
    text = _numbers_to_words(unicodedata.normalize("NFC", text))
    for sign, word in _SIGNS.items():
        text = text.replace(sign, word)
    text = "".join(char if char.isalpha() or char in PUNCTUATION + "'" else " " for char in text)
    text = re.sub(r"(?<!\w)'+|'+(?!\w)", " ", text)  # quotation marks, not the apostrophe inside a word
    text = re.sub(rf"\s*([{PUNCTUATION}])[\s{PUNCTUATION}]*", r"\1 ", re.sub(r"\s+", " ", text))
    text = _ABBREVIATION.sub(lambda match: _ABBREVIATIONS[match[1]], text.lstrip(PUNCTUATION + " ")).strip()
    return text if any(char.isalpha() for char in text) else ""


def words(text: str) -> list[str]:
    """The words of normalised text, without punctuation."""
    return re.findall(rf"[^\s{PUNCTUATION}]+", text)


def _numbers_to_words(text: str) -> str:
    text = _NUMBER_SIGN.sub("number ", text)
    text = _MONEY.sub(lambda match: f" {_money(match[1], match[2])} ", text)
    text = _ORDINAL.sub(lambda match: f" {_read(match[1], 'ordinal')} ", text)
    text = _PERCENT.sub(lambda match: f" {_read(match[1])} percent ", text)
    text = _PLURAL.sub(lambda match: f" {_plural(_read(match[1], 'year'))} ", text)
    text = _TIME.sub(" ", text)
    text = _YEAR.sub(lambda match: f" {_read(match[1], 'year')} ", text)
    return _PLAIN.sub(lambda match: f" {_read(match[0])} ", text)


def _read(numeral: str, to: str = "cardinal") -> str:
    digits = numeral.replace(",", "")
    if (digits.startswith("0") and digits[1:2].isdigit()) or len(digits) > _LONGEST:
        spelled = " ".join(num2words(int(digit)) for digit in digits if digit.isdigit())
    else:
        spelled = num2words(digits, to=to)
    return spelled.replace("-", " ").replace(",", "")


def _plural(number: str) -> str:
    return f"{number[:-1]}ies" if number.endswith("y") else f"{number}es" if number.endswith("x") else f"{number}s"


def _money(sign: str, numeral: str) -> str:
    amount = numeral.replace(",", "")
    if len(amount) > _LONGEST:
        return _read(amount)
    spelled: str = num2words(float(amount), to="currency", currency=_CURRENCIES[sign], separator=" and")
    return re.sub(r" and zero (cents|pence)$", "", spelled).replace("-", " ").replace(",", "")
