"""Translation models in Marian's binary format, as Transformers models.

Browsers translate offline with such models, small students with a recurrent decoder, for dozens of language pairs.
Importing this package registers them with Transformers: `AutoModelForSeq2SeqLM` and `AutoTokenizer` then load a folder
that `convert` (or `save_pretrained`) wrote. `sightline.models.load` does all of it.
"""

from transformers import AutoConfig, AutoModelForSeq2SeqLM, AutoTokenizer

from .cache import DecoderCache
from .configuration import MODEL_TYPE, MarianSsruConfig
from .convert import convert, read_model
from .file import MarianFile, read_file
from .greedy import greedy
from .module import MarianSsruForTranslation
from .tokenizer import MarianSsruTokenizer, Piece

__all__ = [
    "MODEL_TYPE",
    "DecoderCache",
    "MarianFile",
    "MarianSsruConfig",
    "MarianSsruForTranslation",
    "MarianSsruTokenizer",
    "Piece",
    "convert",
    "greedy",
    "read_file",
    "read_model",
]

AutoConfig.register(MODEL_TYPE, MarianSsruConfig, exist_ok=True)
AutoModelForSeq2SeqLM.register(MarianSsruConfig, MarianSsruForTranslation, exist_ok=True)
AutoTokenizer.register(MarianSsruConfig, tokenizer_class=MarianSsruTokenizer, exist_ok=True)
