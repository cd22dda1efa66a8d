"""Recipes that restore photographs: clean ones are degraded, and a network learns the way back.   LBDL 6.1"""

from pathlib import Path

from thalweg.build import build
from thalweg.data.augmentation import flip
from thalweg.data.degradation import blur, downscale, grey, jpeg, low_light, noise
from thalweg.data.photographs import coco_photographs, own_photographs
from thalweg.data.streams import Augment, TensorStream
from thalweg.models import builder
from thalweg.tasks.restoration import Restoration
from thalweg.training import Experiment
from thalweg.training.optimisers import adamw
from thalweg.training.schedules import cosine, warmup


def _restorer(degrade: Augment, data: Path | None, model: str, updates: int, batch_size: int, lr: float,
              enlarge: int = 1) -> Experiment:  # fmt: skip
    """A network learns to undo what `degrade` does to photographs."""
    notes = {}
    if data:
        splits, skipped = own_photographs(data)
        notes["data"] = f"{len(splits.train['image']):,} patches to train on, {len(splits.test['image']):,} to test"
        if skipped:
            notes["skipped"] = ", ".join(f"{path.name} ({reason})" for path, reason in skipped)
    else:
        splits = coco_photographs()
    train = TensorStream(splits.train, batch_size, shuffle=True, augment=[flip(), degrade])
    valid, test = (TensorStream(part, 64, augment=[degrade]) for part in (splits.valid, splits.test))
    task = build(Restoration, model=build(builder(model)), enlarge=enlarge)
    return Experiment(task=task, train=train, valid=valid, test=test, steps=updates, optimizer=adamw(lr, weight_decay=1e-4),
                      schedule=warmup(0.05, cosine()), clip=1.0, ema=0.995, monitor="psnr",
                      evaluate_every=max(1, updates // 5), notes=notes)  # fmt: skip


def denoiser(*, data: Path | None = None, sigma: float = 25.0, model: str = "nafnet_small", updates: int = 1200,
             batch_size: int = 8, lr: float = 2e-3) -> Experiment:  # fmt: skip
    """A network takes the grain out of photographs.   LBDL 6.1

    data: your folder of clean photographs; if not given, 142 photographs of COCO
    sigma: deviation of the noise, of 255
    model: nafnet_small, nafnet_32, dncnn or any other network from image to image
    """
    return _restorer(noise(sigma / 255), data, model, updates, batch_size, lr)


def deblurrer(*, data: Path | None = None, radius: float = 3.0, model: str = "nafnet_small", updates: int = 1200,
              batch_size: int = 8, lr: float = 2e-3) -> Experiment:  # fmt: skip
    """A network sharpens photographs that were taken out of focus.   LBDL 6.1

    data: your folder of sharp photographs; if not given, 142 photographs of COCO
    radius: pixels of the disc that a point has become
    """
    return _restorer(blur(radius), data, model, updates, batch_size, lr)


def brightener(*, data: Path | None = None, exposure: float = 0.05, model: str = "nafnet_small", updates: int = 1200,
               batch_size: int = 8, lr: float = 2e-3) -> Experiment:  # fmt: skip
    """A network makes photographs that were taken in low light bright and takes out their grain.   LBDL 6.1

    data: your folder of well lit photographs; if not given, 142 photographs of COCO
    exposure: share of the light that was there
    """
    return _restorer(low_light(exposure), data, model, updates, batch_size, lr)


def deblocker(*, data: Path | None = None, quality: int = 10, model: str = "nafnet_small", updates: int = 1200,
              batch_size: int = 8, lr: float = 2e-3) -> Experiment:  # fmt: skip
    """A network takes blocks and rings out of photographs that were compressed too much.   LBDL 6.1

    data: your folder of photographs; if not given, 142 photographs of COCO
    quality: of the JPEG files, 1 to 100
    """
    return _restorer(jpeg(quality), data, model, updates, batch_size, lr)


def enlarger(*, data: Path | None = None, factor: int = 2, model: str = "nafnet_small", updates: int = 1200,
             batch_size: int = 8, lr: float = 2e-3) -> Experiment:  # fmt: skip
    """A network makes photographs larger and sharper than bicubic interpolation does (super-resolution).   LBDL 6.1

    data: your folder of photographs; if not given, 142 photographs of COCO
    factor: how many times larger
    """
    return _restorer(downscale(factor), data, model, updates, batch_size, lr, enlarge=factor)


def colouriser(*, data: Path | None = None, model: str = "nafnet_small", updates: int = 1200, batch_size: int = 8,
               lr: float = 2e-3) -> Experiment:  # fmt: skip
    """A network colours grey photographs.   LBDL 6.1

    data: your folder of colour photographs; if not given, 142 photographs of COCO
    """
    return _restorer(grey(), data, model, updates, batch_size, lr)
