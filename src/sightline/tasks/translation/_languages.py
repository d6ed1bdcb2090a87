"""Languages by the codes that people write, and by those that models have for them."""

from __future__ import annotations

import re
from collections.abc import Iterable

from ...errors import InputError

__all__ = ["chosen", "named"]

_KNOWN = {
    "af": ("afr", "Afrikaans"), "ar": ("arb", "Arabic"), "bg": ("bul", "Bulgarian"), "bn": ("ben", "Bengali"),
    "ca": ("cat", "Catalan"), "cs": ("ces", "Czech"), "cy": ("cym", "Welsh"), "da": ("dan", "Danish"),
    "de": ("deu", "German"), "el": ("ell", "Greek"), "en": ("eng", "English"), "es": ("spa", "Spanish"),
    "et": ("est", "Estonian"), "eu": ("eus", "Basque"), "fa": ("pes", "Persian"), "fi": ("fin", "Finnish"),
    "fr": ("fra", "French"), "ga": ("gle", "Irish"), "gl": ("glg", "Galician"), "he": ("heb", "Hebrew"),
    "hi": ("hin", "Hindi"), "hr": ("hrv", "Croatian"), "hu": ("hun", "Hungarian"), "id": ("ind", "Indonesian"),
    "is": ("isl", "Icelandic"), "it": ("ita", "Italian"), "ja": ("jpn", "Japanese"), "ko": ("kor", "Korean"),
    "lt": ("lit", "Lithuanian"), "lv": ("lvs", "Latvian"), "mk": ("mkd", "Macedonian"), "ms": ("zsm", "Malay"),
    "nb": ("nob", "Norwegian Bokmål"), "nl": ("nld", "Dutch"), "pl": ("pol", "Polish"), "pt": ("por", "Portuguese"),
    "ro": ("ron", "Romanian"), "ru": ("rus", "Russian"), "sk": ("slk", "Slovak"), "sl": ("slv", "Slovenian"),
    "sr": ("srp", "Serbian"), "sv": ("swe", "Swedish"), "sw": ("swh", "Swahili"), "ta": ("tam", "Tamil"),
    "th": ("tha", "Thai"), "tr": ("tur", "Turkish"), "uk": ("ukr", "Ukrainian"), "ur": ("urd", "Urdu"),
    "vi": ("vie", "Vietnamese"), "zh": ("zho", "Chinese"),
}  # fmt: skip
"""ISO 639-1 → the code of three letters that models use (FLORES), and the name in English."""


def named(code: str) -> str:
    """The English name of a language; what was given, where it is no code known here.

    >>> from sightline.tasks.translation._languages import named
    >>> named("pt"), named("Occitan")
    ('Portuguese', 'Occitan')
    """
    return _KNOWN[code][1] if code in _KNOWN else code


def chosen(code: str, there: Iterable[str], name: str) -> str:
    """Which of a model's own codes is meant: that one itself, or the only one of the language.

    "en" is `en`, `en_XX` or `eng_Latn`. Raises InputError for a language that is not there, and where there are several
    (scripts, countries) and none is named.

    >>> from sightline.tasks.translation._languages import chosen
    >>> chosen("pt", ["eng_Latn", "por_Latn"], "NLLB"), chosen("eng_Latn", ["eng_Latn"], "NLLB")
    ('por_Latn', 'eng_Latn')
    """
    codes = sorted(there)
    if code in codes:
        return code
    languages = {code.lower(), *_KNOWN.get(code.lower(), ())[:1]}
    found = [one for one in codes if re.split("[_-]", one.lower())[0] in languages]
    if len(found) == 1:
        return found[0]
    if found:
        raise InputError(
            f"the language {code!r} was asked for; {name} has several of that kind: {', '.join(found)}. Name one."
        )
    raise InputError(
        f"the language {code!r} was asked for; {name} does not have it. It has: {', '.join(codes)}. Choose one of "
        "these, or another model."
    )
