"""Telling a pass its targets, for rules that learn from them.

The loss function is where output and targets meet, so that is where a pass is told: the loop stays
as it is. What is noted lies with the pass's own autograd node, and nowhere else.
"""

from __future__ import annotations

import inspect
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, ParamSpec

import torch
from torch import Tensor, nn
from torch._compile import _disable_dynamo

from fdfa.engine.notes import Note, is_output, notes_behind
from fdfa.engine.outputs import map_tensors
from fdfa.errors import FDFAError

__all__ = ["Criterion", "check_nothing_beside", "shares_of", "targets_of", "weighed"]

P = ParamSpec("P")


class Criterion(Generic[P]):
    """A loss function that also tells the passes behind its first argument what its second says.

    It is called as the loss function is, output first and targets second (by keyword in any order),
    and returns the same loss. Where the output carries no learning rule (eval mode, ``no_grad``) it
    does nothing more.

    Args:
        loss_function: any; :meth:`fdfa.Estimator.criterion` wraps it.

    Attributes:
        loss_function: the same.
    """

    def __init__(self, loss_function: Callable[P, Tensor]) -> None:
        self.loss_function = loss_function

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Tensor:
        """The loss."""
        sent: list[Tensor] = []
        watched, kwatched = _watched(self.loss_function, args, kwargs, sent)
        loss = self.loss_function(*watched, **kwatched)
        _take_note(self.loss_function, watched, kwatched, loss, sent)
        return loss


@_disable_dynamo
def _watched(
    loss_function: Callable[..., Tensor],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    sent: list[Tensor],
) -> Any:
    """The arguments, keywords in order, the output as an alias; what the loss sends it is kept."""

    def watch(tensor: Tensor) -> Tensor:
        if not (tensor.requires_grad and is_output(tensor)):
            return tensor
        alias = tensor.view_as(tensor)

        def keep(gradient: Tensor) -> None:
            sent[:] = [gradient.detach()]

        alias.register_hook(keep)  # type: ignore[no-untyped-call]
        return alias

    kwargs = _in_order(loss_function, kwargs)
    if args:
        return (map_tensors(args[0], watch), *args[1:]), kwargs
    first = dict(itertools.islice(kwargs.items(), 1))
    return args, {**kwargs, **map_tensors(first, watch)}


@_disable_dynamo
def _take_note(
    loss_function: Callable[..., Tensor],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    loss: Any,
    sent: list[Tensor],
) -> None:
    arguments = [*args, *kwargs.values()]
    if len(arguments) < 2 or not isinstance(loss, Tensor) or not loss.requires_grad:
        return
    output, targets = arguments[:2]
    outputs: list[Tensor] = []

    def gather(tensor: Tensor) -> Tensor:
        outputs.append(tensor)
        return tensor

    map_tensors(output, gather)
    places = notes_behind(outputs)
    if not places or not isinstance(targets, Tensor):
        return
    note = Note(targets.detach(), loss_of=_loss_of(loss_function, args, kwargs, outputs), sent=sent)
    for notes in places:
        notes.append(note)

    def weigh(gradient: Tensor) -> None:
        note.weight = gradient.detach()  # what accumulation and loss scaling make of the loss

    loss.register_hook(weigh)  # type: ignore[no-untyped-call]


def targets_of(e: Tensor, notes: Sequence[Note], *, sample_dims: int, method: str) -> Tensor:
    """What stands in the output error's place for a rule that learns from the targets.

    The mean over the samples of a loss ``-sum_k t_k y_k`` has this gradient, times -1. Losses that
    one backward call adds up are added, each with the factor that it has there (a part's share of
    its batch, a loss scale). Where the output error is zero the sample (of a dense output: the
    position) rests: its loss ignores it, weighs it with zero, or cannot be made any smaller there.

    Args:
        e: the output error; of its values, only where it is zero is read.
        notes: of the pass.
        sample_dims: number of leading dimensions that count samples.
        method: for the error's text.

    Returns:
        t / N of e's shape, never narrower than float32.

    Raises:
        FDFAError: if the pass was told no targets, or of a shape that does not fit.
    """
    total = torch.zeros(e.shape, dtype=torch.promote_types(e.dtype, torch.float32), device=e.device)
    for note, weight in weighed(notes, method=method):
        total += _weighted(note.targets.to(e.device), weight.to(e.device), total, sample_dims)
    return total.masked_fill((e == 0).all(sample_dims, keepdim=True), 0.0)


def weighed(notes: Sequence[Note], *, method: str) -> list[tuple[Note, Tensor]]:
    """The notes of the losses that one backward pass is made of.

    Args:
        notes: of the pass.
        method: for the error's text.

    Returns:
        Each with how much its loss counts: the gradient that arrived there. It is taken out of the
        note, for it was for this backward pass.

    Raises:
        FDFAError: if the pass was told nothing.
    """
    found = [(note, note.weight) for note in notes if note.weight is not None]
    if not found:
        raise FDFAError(
            f"method '{method}' learns from what the loss function gets, and this pass was told"
            " nothing. Set up criterion = learner.criterion(loss_function) once, and compute the"
            " loss by it: loss = criterion(learner(x), targets)."
        )
    for note, _ in found:
        note.weight = None
        note.sent.clear()
    return found


def check_nothing_beside(e: Tensor, notes: Sequence[Note], *, method: str) -> None:
    """Refuse an output error that is not the sum of what the noted losses sent.

    Args:
        e: the output error.
        notes: of the pass, not weighed yet.
        method: for the error's text.

    Raises:
        FDFAError: if something beside the losses depends on the output.
    """
    told = [note for note in notes if note.weight is not None]
    if not told or any(note.loss_of is None for note in told):
        return  # the one thing or the other is said where the losses are called again
    sent = [gradient for note in told for gradient in note.sent]
    kind = torch.promote_types(e.dtype, torch.float32)
    rest, size = e.to(kind), e.norm(dtype=kind)
    for gradient in sent:
        rest = rest - gradient.to(rest).reshape(e.shape)
        size = size + gradient.norm(dtype=kind).to(e.device)
    rounding = max(torch.finfo(tensor.dtype).eps for tensor in (e, *sent))
    if (rest.norm() > 16 * rounding * size).item():  # False where a number is not finite
        raise FDFAError(
            "the gradient at the output is not that of the loss that criterion computed: something"
            f" beside it depends on the output, and method '{method}', which computes the loss"
            " again from another output, would learn a part of it only. Put all of it into the loss"
            " function: criterion = learner.criterion(lambda y, t: loss_function(y, t) +"
            " penalty(y))."
        )


def shares_of(weights: Sequence[Tensor], samples: int) -> Tensor:
    """How much each sample's own loss counts in what ``backward()`` was called on.

    Args:
        weights: the gradients that arrived at the losses of one pass.
        samples: N.

    Returns:
        A number for all samples, or (N,); never narrower than float32.

    Raises:
        FDFAError: if a loss is neither one number nor (N, ...).
    """
    total = torch.zeros((), dtype=torch.float32, device=weights[0].device)
    for weight in weights:
        if weight.numel() == 1:
            total = total + weight.reshape(()) / samples
        elif len(weight) == samples:
            total = total + weight.reshape(samples, -1).sum(1)
        else:
            raise FDFAError(_wrong_loss(weight))
    return total


def _loss_of(
    loss_function: Callable[..., Tensor],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    outputs: Sequence[Tensor],
) -> Callable[[Tensor], Tensor] | None:
    """The loss with another output among the tensors of the first argument, and no graph held."""
    ours = [number for number, tensor in enumerate(outputs) if is_output(tensor)]
    if len(ours) != 1:
        return None
    kept_args, kept_kwargs = map_tensors((tuple(args), dict(kwargs)), Tensor.detach)
    like = outputs[ours[0]].detach()
    device_type = like.device.type
    autocast = torch.is_autocast_enabled(device_type), torch.get_autocast_dtype(device_type)

    def loss_of(output: Tensor) -> Tensor:
        number = itertools.count(-ours[0])  # the first argument's tensors come first

        def placed(tensor: Tensor) -> Tensor:
            return tensor if next(number) else output.to(like.dtype).reshape(like.shape)

        args, kwargs = map_tensors((kept_args, kept_kwargs), placed)
        with torch.autocast(device_type, enabled=autocast[0], dtype=autocast[1]):
            return loss_function(*args, **kwargs)

    return loss_of


def _in_order(loss_function: Callable[..., Tensor], kwargs: Mapping[str, Any]) -> Mapping[str, Any]:
    """Keyword arguments as the loss function lists them; unlisted, as torch's losses do."""
    if not kwargs:
        return kwargs
    called = loss_function.forward if isinstance(loss_function, nn.Module) else loss_function
    try:
        listed = list(inspect.signature(called).parameters)
    except (TypeError, ValueError):  # a function of torch's own in C++
        listed = []
    listed += ["input", "target", *kwargs]
    return dict(sorted(kwargs.items(), key=lambda item: listed.index(item[0])))


def _weighted(targets: Tensor, weight: Tensor, like: Tensor, sample_dims: int) -> Tensor:
    classes = like.shape[sample_dims]
    labels = like.shape[:sample_dims] + like.shape[sample_dims + 1 :]
    count = math.prod(labels)
    whole = not targets.is_floating_point() and targets.numel() == count
    # one component has no classes to number: integers are its values
    if whole and targets.shape != like.shape and classes > 1:  # class numbers, (N,) or (N, ...)
        index = targets.reshape(labels).unsqueeze(sample_dims)
        places = torch.arange(classes, device=like.device)
        shape = (classes, *(1 for _ in like.shape[sample_dims + 1 :]))
        t = (index == places.view(shape)).to(like.dtype)  # nothing where a label is ignored
    elif targets.numel() == like.numel():
        t = targets.reshape(like.shape).to(like.dtype)
    else:
        raise FDFAError(
            f"the targets have shape {tuple(targets.shape)} and type {targets.dtype}, which fits no"
            f" output of shape {tuple(like.shape)}: pass class numbers {tuple(labels)} of an"
            " integer type, or targets of the output's own shape."
        )
    if weight.numel() == 1:
        return t * (weight.to(like.dtype).reshape(()) / count)
    if weight.numel() == like.numel():  # reduction="none": a loss a component, or a sample
        return t * weight.to(like.dtype).reshape(like.shape)
    if weight.numel() == count:
        return t * weight.to(like.dtype).reshape(labels).unsqueeze(sample_dims)
    raise FDFAError(_wrong_loss(weight))


def _wrong_loss(weight: Tensor) -> str:
    return (
        f"the loss has shape {tuple(weight.shape)}: one number, one a sample or one a component of"
        " the output were expected, to know how much each target counts. Pass a loss function that"
        " returns one of these."
    )
