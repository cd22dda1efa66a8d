"""Optimisers for a recipe: the numbers now, the parameters later; weight decay spares norms and biases.

Each returns a function from a module to an optimiser: torch's, fused where torch has a fused kernel, or one of ours in
the files beside this one.   OPTIMISERS has all that need no more than a learning rate, by name.
"""

from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import nn
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from thalweg.training.optimisers.adaptive import adabound, yogi
from thalweg.training.optimisers.around import Together, centralised, gradient_noise, lookahead, parts
from thalweg.training.optimisers.descent import sgdw, swats
from thalweg.training.optimisers.groups import MakeOptimizer, check, decayed, trainable
from thalweg.training.optimisers.layerwise import lamb, lars

__all__ = [
    "OPTIMISERS", "MakeOptimizer", "Together", "adabound", "adadelta", "adafactor", "adagrad", "adam", "adamax", "adamw",
    "centralised", "decayed", "discriminative_adamw", "gradient_noise", "lamb", "lars", "lookahead", "muon", "nadam", "parts",
    "radam", "rmsprop", "sgd", "sgdw", "swats", "yogi",
]  # fmt: skip


def sgd(lr: float, *, momentum: float = 0.0, nesterov: bool = False, weight_decay: float = 0.0,
        bias_scale: float = 1.0) -> MakeOptimizer:  # fmt: skip
    """Stochastic gradient descent.   v = momentum v + g;   w = w - lr v   (LBDL 3.3, D2L 11.4-11.6)

    nesterov: w = w - lr (g + momentum v), the slope where momentum will have carried w.   g holds weight_decay w.
    bias_scale: how many times lr vectors (biases, norms) learn at.
    """
    check(lr=lr, momentum=momentum, weight_decay=weight_decay, bias_scale=bias_scale)

    def make(module: nn.Module) -> Optimizer:
        sharded = any(isinstance(p, DTensor) for p in module.parameters())  # of which torch has no fused kernel
        parameters = trainable(module)
        groups = decayed(parameters, weight_decay)
        if bias_scale != 1:
            vectors = {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0, "lr": lr * bias_scale}
            groups = [*decayed([p for p in parameters if p.ndim >= 2], weight_decay), vectors]
        optimizer = torch.optim.SGD(groups, lr=lr, momentum=momentum, nesterov=nesterov, fused=not sharded)
        if momentum:  # torch's fused kernel wants either all of the velocities or none, also where a parameter joins late
            for parameter in trainable(module):
                optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        return optimizer

    return make


def adagrad(lr: float = 0.01, *, eps: float = 1e-10, weight_decay: float = 0.0) -> MakeOptimizer:
    """Every number has a rate of its own, which all gradients that it has had make smaller: good where most are zero.

    s = s + g^2,   w = w - lr g / (sqrt(s) + eps);   g holds weight_decay w.
    Duchi, Hazan, Singer 2011, "Adaptive subgradient methods".   D2L 11.7
    """
    check(lr=lr, eps=eps, weight_decay=weight_decay)
    return lambda module: torch.optim.Adagrad(decayed(trainable(module), weight_decay), lr=lr, eps=eps)


def rmsprop(
    lr: float = 0.01, *, alpha: float = 0.99, eps: float = 1e-8, momentum: float = 0.0, weight_decay: float = 0.0
) -> MakeOptimizer:
    """AdaGrad that forgets: a rate recovers some 1 / (1 - alpha) steps after large gradients.

    s = alpha s + (1 - alpha) g^2,   v = momentum v + g / (sqrt(s) + eps),   w = w - lr v;   g holds weight_decay w.
    Tieleman, Hinton 2012, Coursera lecture 6.5.   D2L 11.8
    """
    check(lr=lr, alpha=alpha, eps=eps, momentum=momentum, weight_decay=weight_decay)
    return lambda module: torch.optim.RMSprop(decayed(trainable(module), weight_decay), lr=lr, alpha=alpha, eps=eps,
                                              momentum=momentum)  # fmt: skip


def adadelta(lr: float = 1.0, *, rho: float = 0.9, eps: float = 1e-6, weight_decay: float = 0.0) -> MakeOptimizer:
    """Needs no learning rate: the size of a step comes from the size of the steps before it.

    s = rho s + (1 - rho) g^2,   c = sqrt(d + eps) / sqrt(s + eps) g,   d = rho d + (1 - rho) c^2,   w = w - lr c
    with lr = 1;   g holds weight_decay w.   Zeiler 2012, arXiv:1212.5701.   D2L 11.9
    """
    check(lr=lr, rho=rho, eps=eps, weight_decay=weight_decay)
    return lambda module: torch.optim.Adadelta(decayed(trainable(module), weight_decay), lr=lr, rho=rho, eps=eps)


def adafactor(lr: float = 0.01, *, beta2_decay: float = -0.8, weight_decay: float = 0.0) -> MakeOptimizer:
    """Steps relative to the size of what they change, by squares of which a matrix keeps its rows' and columns' means alone.

    r, c: running means of g^2 over each row and each column, that forget t^beta2_decay of themselves;   V = r c / mean(r);
    u = g / sqrt(V), at most of rms 1;   w = w - lr weight_decay w - min(lr, 1 / sqrt(t)) max(0.001, rms(w)) u
    What T5 is made for, whose embeddings are of size 1 and whose queries are small: one rate in Adam is too slow for those or
    too fast for these.   Shazeer, Stern 2018, arXiv:1804.04235.
    """
    check(lr=lr, weight_decay=weight_decay)
    if beta2_decay > 0:
        raise ValueError(f"beta2_decay={beta2_decay}: expected at most 0")
    return lambda module: torch.optim.Adafactor(decayed(trainable(module), weight_decay), lr=lr, beta2_decay=beta2_decay)


def adam(lr: float, *, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8, amsgrad: bool = False) -> MakeOptimizer:
    """Adam.   m, v: running means of g and g^2;   w = w - lr m' / (sqrt(v') + eps)   Kingma, Ba 2014, arXiv:1412.6980.

    m' = m / (1 - beta1^t),   v' = v / (1 - beta2^t): both means start at 0, and this corrects it exactly.
    amsgrad: the largest v so far in place of v, so that no rate rises again (Reddi, Kale, Kumar 2019, arXiv:1904.09237,
    where neither mean is corrected; here both are, the largest v by the present step's factor).
    """
    return adamw(lr, betas=betas, eps=eps, weight_decay=0.0, amsgrad=amsgrad)


def adamw(
    lr: float,
    *,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.01,
    amsgrad: bool = False,
) -> MakeOptimizer:
    """Adam with decoupled decay: w shrinks by lr * weight_decay a step.   Loshchilov, Hutter 2017, arXiv:1711.05101."""
    check(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)
    return lambda module: torch.optim.AdamW(decayed(trainable(module), weight_decay), lr=lr, betas=betas, eps=eps,
                                            amsgrad=amsgrad, fused=True)  # fmt: skip


def discriminative_adamw(lr: float, *, backbone: float = 0.1, weight_decay: float = 0.0) -> MakeOptimizer:
    """AdamW for fine-tuning: what is inside of submodules named `backbone`, or where there are none outside of those named
    `head`, learns at `backbone` times the rate.

    What was learned elsewhere is nearly right, the head is not yet: at one rate for both, what is right would be lost while
    the head still guesses.   Howard, Ruder 2018, arXiv:1801.06146; D2L 13.2
    """
    check(lr=lr, backbone=backbone, weight_decay=weight_decay)

    def make(module: nn.Module) -> Optimizer:
        named = list(module.named_modules())
        of = {name: {id(p) for path, part in named if path.rpartition(".")[2] == name for p in part.parameters()}
              for name in ("backbone", "head")}  # fmt: skip
        slow, groups = of["backbone"] or {id(p) for p in module.parameters()} - of["head"], []
        for is_slow, rate in ((False, lr), (True, lr * backbone)):
            mine = [p for p in trainable(module) if (id(p) in slow) is is_slow]
            groups += [{**group, "lr": rate} for group in decayed(mine, weight_decay) if group["params"]]
        return torch.optim.AdamW(groups, lr=lr, fused=True)

    return make


def adamax(
    lr: float = 2e-3, *, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8, weight_decay: float = 0.0
) -> MakeOptimizer:
    """Adam by the largest gradient instead of the mean square.

    m = beta1 m + (1 - beta1) g,   u = max(beta2 u, |g| + eps),   w = w - lr m / (1 - beta1^t) / u;   g holds
    weight_decay w.   Kingma, Ba 2014, arXiv:1412.6980.
    """
    check(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)
    return lambda module: torch.optim.Adamax(decayed(trainable(module), weight_decay), lr=lr, betas=betas, eps=eps)


def nadam(
    lr: float = 2e-3, *, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8, weight_decay: float = 0.0,
    momentum_decay: float = 4e-3,
) -> MakeOptimizer:  # fmt: skip
    """Adam with Nesterov's momentum: the step takes the mean as it will be after the next gradient like this one.

    w = w - lr (b_{t+1} m / (1 - b_1 ... b_{t+1}) + (1 - b_t) g / (1 - b_1 ... b_t)) / (sqrt(v') + eps),
    b_t = beta1 (1 - 0.96^(t momentum_decay) / 2);   weight decay is decoupled.
    Dozat 2016, "Incorporating Nesterov momentum into Adam".
    """
    check(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, momentum_decay=momentum_decay)
    return lambda module: torch.optim.NAdam(decayed(trainable(module), weight_decay), lr=lr, betas=betas, eps=eps,
                                            momentum_decay=momentum_decay, decoupled_weight_decay=True)  # fmt: skip


def radam(
    lr: float, *, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8, weight_decay: float = 0.0
) -> MakeOptimizer:
    """Adam that warms itself up: while too few gradients are known to trust their mean square, it is momentum alone.

    n = 2 / (1 - beta2) - 1,   n_t = n - 2 t beta2^t / (1 - beta2^t): the gradients that v holds, at most and by now;
    w = w - lr m' until n_t > 5, then w = w - lr r m' / sqrt(v'),   r^2 = (n_t - 4) (n_t - 2) n / ((n - 4) (n - 2) n_t).
    Weight decay is decoupled.   Liu et al. 2019, arXiv:1908.03265.
    """
    check(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)
    return lambda module: torch.optim.RAdam(decayed(trainable(module), weight_decay), lr=lr, betas=betas, eps=eps,
                                            decoupled_weight_decay=True)  # fmt: skip


def muon(lr: float, *, momentum: float = 0.95, weight_decay: float = 0.0, other: MakeOptimizer) -> MakeOptimizer:
    """Muon for the matrices of hidden layers; `other`, a factory such as adamw(...), for all else.

    v = momentum v + (1 - momentum) g;   W = W - lr 0.2 sqrt(max(rows, columns)) U V',  where U S V' = (1 - momentum) g
    + momentum v is nearly decomposed by five Newton-Schulz steps: every direction learns equally fast, and lr has the
    size that Adam's has. All else is embeddings, what is named head, filters, norms and biases.
    Jordan 2024, kellerjordan.github.io/posts/muon; Liu et al. 2025, arXiv:2502.16982.
    """

    def make(module: nn.Module) -> Optimizer:
        outer = {
            parameter
            for name, part in module.named_modules()
            for parameter in part.parameters(recurse=False)
            if parameter.ndim != 2 or isinstance(part, nn.Embedding) or "head" in name.split(".")
        }
        rest = nn.ParameterList([p for p in trainable(module) if p in outer])
        hidden = [p for p in trainable(module) if p not in outer]
        made: list[Optimizer] = []  # of nothing torch makes no optimiser
        if hidden:
            made.append(torch.optim.Muon(hidden, lr=lr, momentum=momentum, weight_decay=weight_decay,
                                         adjust_lr_fn="match_rms_adamw"))  # fmt: skip
        if len(rest):
            made.append(other(rest))
        return Together(*made)

    return make


OPTIMISERS: Mapping[str, Callable[..., MakeOptimizer]] = {
    "sgd": sgd,
    "momentum": partial(sgd, momentum=0.9),
    "nesterov": partial(sgd, momentum=0.9, nesterov=True),
    "sgdw": sgdw,
    "adagrad": adagrad,
    "rmsprop": rmsprop,
    "adadelta": adadelta,
    "adafactor": adafactor,
    "adam": adam,
    "amsgrad": partial(adam, amsgrad=True),
    "adamax": adamax,
    "nadam": nadam,
    "radam": radam,
    "adamw": adamw,
    "yogi": yogi,
    "adabound": adabound,
    "amsbound": partial(adabound, amsbound=True),
    "swats": swats,
    "lars": lars,
    "lamb": lamb,
}
