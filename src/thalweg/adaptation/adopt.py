"""Public weights become a task of ours, which names what it sees, is saved, served, explained and taught further."""

import json
from pathlib import Path
from typing import Any

from thalweg import public
from thalweg.build import adapt, build
from thalweg.data.sources import imagenet_classes
from thalweg.layers.standardize import standardize
from thalweg.models import builder
from thalweg.models.language.bert import BERT
from thalweg.tasks.classification import Classification
from thalweg.tasks.sentence_vectors import SentenceVectors

MIDDLE = 0.875  # of an image, in its own proportions, is what the networks of ImageNet are measured on


def adopt(model: str, source: str) -> Classification | SentenceVectors:
    """The classifier of a public checkpoint, behind what it must see, with the names of its classes; of BERT sentence vectors.

    model: a builder such as mobilenetv2 or minilm.   source: folder, file or Hugging Face id of its weights.
    Where nothing names the classes, a thousand of them are ImageNet's, others are numbered.
    ValueError if the weights do not fit; CorruptFile if they are damaged.
    """
    make = builder(model)
    network = public.pretrained(make, source)
    if isinstance(network, BERT):
        return _sentence_vectors(network, public.fetch(source))
    if not hasattr(getattr(network, "head", None), "out_features"):
        raise ValueError(f"model={model}: expected a classifier of images, or BERT; thalweg generate, chat and serve take a "
                         "language model as it is")  # fmt: skip
    module: Any = adapt(network, standardize, **public.preprocessing(source, make), crop=MIDDLE)
    count = module.model.head.out_features
    names = public.classes(source) or (imagenet_classes() if count == 1000 else [str(label) for label in range(count)])
    return build(Classification, model=module, classes=list(names)).eval()


def _sentence_vectors(model: BERT, folder: Path) -> SentenceVectors:
    """The encoder with its tokenizer, and with what sentence-transformers says of it: pooling, and how much is read."""

    def told(name: str) -> Any:
        return json.loads((folder / name).read_text(encoding="utf8")) if (folder / name).exists() else {}

    parts = {one["type"].rpartition(".")[2]: one["path"] for one in told("modules.json") or ()}
    if other := [kind for kind in parts if kind not in ("Transformer", "Pooling", "Normalize")]:
        raise ValueError(f"{folder}: modules.json names {', '.join(other)}; expected Transformer, Pooling and Normalize alone")
    stated = told("sentence_bert_config.json") | told(f"{parts.get('Pooling', '1_Pooling')}/config.json")
    pools = [name for name, asked in stated.items() if name.startswith("pooling_mode") and asked]
    known = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "first"}
    if pools and (len(pools) > 1 or pools[0] not in known):
        raise ValueError(f"{folder}: its vectors are of {', '.join(pools)}; expected one of {', '.join(known)}")
    longest = min(stated.get("max_seq_length") or model.position.num_embeddings, model.position.num_embeddings)
    return build(SentenceVectors, model=model, tokenizer=tokenizer_of(folder), longest=longest,
                 pool=known[pools[0]] if pools else "mean").eval()  # fmt: skip


def tokenizer_of(folder: Path) -> str:
    """The text of the tokenizer.json that lies beside public weights; FileNotFoundError if none does."""
    path = folder / "tokenizer.json"
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing, without which the model cannot read texts")
    return path.read_text(encoding="utf8")
