"""Public weights become a task of ours, which names what it sees, is saved, served, explained and taught further."""

from typing import Any

from thalweg import public
from thalweg.build import adapt, build
from thalweg.data.sources import imagenet_classes
from thalweg.layers.standardize import standardize
from thalweg.models import builder
from thalweg.tasks.classification import Classification

MIDDLE = 0.875  # of an image, in its own proportions, is what the networks of ImageNet are measured on


def adopt(model: str, source: str) -> Classification:
    """The classifier of a public checkpoint, behind what it must see, with the names of its classes.

    model: a builder such as mobilenetv2.   source: folder, file or Hugging Face id of its weights.
    Where nothing names the classes, a thousand of them are ImageNet's, others are numbered.
    ValueError if the weights do not fit; CorruptFile if they are damaged.
    """
    make = builder(model)
    module: Any = adapt(public.pretrained(make, source), standardize, **public.preprocessing(source, make), crop=MIDDLE)
    count = module.model.head.out_features
    names = public.classes(source) or (imagenet_classes() if count == 1000 else [str(label) for label in range(count)])
    return build(Classification, model=module, classes=list(names)).eval()
