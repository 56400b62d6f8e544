"""The contract of every method.

An ``nn.Module`` around the user's model whose ``backward()`` is a learning rule.
"""

from __future__ import annotations

import abc
import json
import operator
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch._compile import _disable_dynamo

from fdfa.engine.discovery import checkpoint_region
from fdfa.engine.distributed import refuse_wrapped
from fdfa.errors import CheckpointError, UnsupportedModelError

__all__ = ["Estimator"]


class Estimator(nn.Module, abc.ABC):
    """Wraps a model: same call, same output.

    ``loss.backward()`` then fills ``.grad`` by a learning rule.

    In eval mode, or where gradients are off, it is the plain model, bit for bit. ``parameters()``
    are the model's own; what the method learns beside them is in buffers, so that ``.to()``,
    ``state_dict()``, ``deepcopy`` and pickling carry it.

    Args:
        model: any module; nothing in it is rewritten.
        output: which entry of a tuple, dict or dataclass is the output (N, K, ...); None for a bare
            tensor.
        seed: of the method's own random numbers. By default torch's seed
            (``torch.initial_seed()``), which is read and never advanced.

    Attributes:
        model: the user's model, untouched.
        steps: forward passes in which the method learned.

    Raises:
        TypeError: if ``model`` is not an instance of a module, or ``seed`` no whole number.
        UnsupportedModelError: if it has no parameters.
        DistributedError: if it is wrapped in ``DistributedDataParallel`` already.
    """

    method: ClassVar[str]

    def __init__(
        self, model: nn.Module, *, output: str | int | None = None, seed: int | None = None
    ) -> None:
        super().__init__()
        _check_model(model)
        if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int)):
            raise TypeError(f"seed={seed!r} is no whole number. Pass an int, or None for torch's.")
        self.model = model
        self.output = output
        self.seed = (torch.initial_seed() if seed is None else seed) % 2**63
        self.steps = 0

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The model's own return value; in training mode its output carries the learning rule.

        Args:
            *args: positional arguments of the model.
            **kwargs: keyword arguments of the model.

        Returns:
            What the model returns.

        Raises:
            ValueError: if the batch is empty.
        """
        if not (self.training and torch.is_grad_enabled()):
            return self.model(*args, **kwargs)
        for value in (*args, *kwargs.values()):
            if isinstance(value, Tensor) and value.dim() and not value.shape[0]:
                raise ValueError(
                    f"the batch is empty: an input has shape {tuple(value.shape)}. A mean over no"
                    " samples has no gradient; leave empty batches out (drop_last, or a check"
                    " before the call)."
                )
        return _learn(self, args, kwargs)

    @abc.abstractmethod
    def learning_forward(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """One forward pass whose output hands the method its error.

        Args:
            args: positional arguments of the model.
            kwargs: keyword arguments of the model.

        Returns:
            What the model returns.
        """

    def take_step(self) -> int:
        """Count this forward pass.

        Returns:
            Its number; a pass that ``checkpoint(learner)`` runs again for backward keeps its own.
        """
        in_backward = torch._C._current_graph_task_id() != -1
        if in_backward and checkpoint_region() is not None:
            return self.steps - 1
        self.steps += 1
        return self.steps - 1

    def get_extra_state(self) -> Tensor:
        """Method, seed and step counter as JSON bytes.

        So every entry of the state dict is a tensor.

        Returns:
            The bytes, uint8.
        """
        own = sorted(name for name, _ in self.named_buffers() if not name.startswith("model."))
        values = {"method": self.method, "seed": self.seed, "steps": self.steps, "own": own}
        text = json.dumps(values)
        return torch.tensor(list(text.encode()), dtype=torch.uint8)

    def set_extra_state(self, state: Tensor) -> None:
        """Take over seed and step counter.

        Args:
            state: from :meth:`get_extra_state`.
        """
        values = _parse_extra_state(state)
        self.seed, self.steps = values["seed"], values["steps"]

    def _load_from_state_dict(
        self,
        state_dict: Mapping[str, Any],
        prefix: str,
        local_metadata: Any,
        strict: bool,
        *rest: Any,
    ) -> None:
        """Look at everything first: a state that does not fit changes nothing."""
        mine = {
            key[len(prefix) :]: value for key, value in state_dict.items() if key.startswith(prefix)
        }
        problems = []
        if "_extra_state" in mine:
            saved = _parse_extra_state(mine["_extra_state"])
            if saved["method"] != self.method:
                problems.append(
                    f"it was saved by method '{saved['method']}', and this is '{self.method}'."
                )
            if strict:
                own = {key for key in mine if not key.startswith(("model.", "_extra_state"))}
                problems += [f"'{key}' is missing." for key in sorted({*saved["own"]} - own)]
                problems += [f"'{key}' is unknown here." for key in sorted(own - {*saved["own"]})]
        elif strict:
            problems.append("'_extra_state' is missing: method, seed and step counter.")
        if strict:
            problems += self.state_conflicts(mine)
        if problems:
            shown = "\n".join(f"  - {problem}" for problem in problems[:12])
            more = f"\n  ... and {len(problems) - 12} more" if len(problems) > 12 else ""
            raise CheckpointError(
                "this state dict belongs to another learner; nothing was"
                f" loaded:\n{shown}{more}\nLoad it into the method and model that saved it, or give"
                " the weights alone to learner.model.load_state_dict()."
            )
        self.prepare_to_load(mine)
        super()._load_from_state_dict(state_dict, prefix, local_metadata, strict, *rest)

    def state_conflicts(self, state: Mapping[str, Any]) -> list[str]:
        """Why this state, prefix removed, cannot be this learner's; empty if it can.

        Args:
            state: entries of a state dict.

        Returns:
            One text a problem.
        """
        own = {f"model.{key}": value for key, value in self.model.state_dict().items()}
        given = {key: value for key, value in state.items() if key.startswith("model.")}
        problems = [f"'{key}' is missing." for key in own if key not in given]
        problems += [f"'{key}' is unknown here." for key in given if key not in own]
        for key in (key for key in own if key in given):
            here, there = (getattr(value, "shape", None) for value in (own[key], given[key]))
            if here is not None and here != there:
                problems.append(
                    f"'{key}' is {tuple(there or ())} in the state and {tuple(here)} here."
                )
        return problems

    def prepare_to_load(self, state: Mapping[str, Any]) -> None:
        """Make room for what the state brings; called once it is known to fit.

        Args:
            state: entries of a state dict, prefix removed.
        """


# Under torch.compile(learner), tracing stops here: taps and probes would be baked in.
@_disable_dynamo
def _learn(estimator: Estimator, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    return estimator.learning_forward(args, kwargs)


def _check_model(model: Any) -> None:
    if isinstance(model, type):
        raise TypeError(f"{model.__name__} is a class: pass an instance, {model.__name__}(...).")
    if not isinstance(model, nn.Module):
        raise TypeError(
            f"model is a {type(model).__name__}, not a torch.nn.Module: wrap the function in a"
            " module."
        )
    for name, module in model.named_modules():
        if isinstance(module, Estimator):
            where = f"module '{name}'" if name else "the model"
            raise UnsupportedModelError(
                f"{where} is a learner already"
                f" ({type(module).__name__}): one rule at a time. Wrap the plain model,"
                " learner.model."
            )
    refuse_wrapped(model)
    parameters = list(model.parameters())
    if not parameters:
        raise UnsupportedModelError(
            f"{type(model).__name__} has no parameters: there is nothing to learn."
        )
    if any(isinstance(parameter, nn.parameter.UninitializedParameter) for parameter in parameters):
        raise UnsupportedModelError(
            "the model has lazy parameters without a shape yet: run it once on a batch, model(x),"
            " before wrapping it."
        )


def _parse_extra_state(state: Any) -> dict[str, Any]:
    try:
        values = json.loads(bytes(state.tolist()))
        method, own = str(values["method"]), [str(name) for name in values["own"]]
        seed, steps = (operator.index(values[key]) for key in ("seed", "steps"))
        if seed < 0 or steps < 0:
            raise ValueError("negative")
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(
            "the entry '_extra_state' is not what fdfa writes (JSON bytes with method, seed, steps"
            " and the names of the method's entries). The state dict is damaged or not of an fdfa"
            " learner."
        ) from error
    return {"method": method, "own": own, "seed": seed, "steps": steps}
