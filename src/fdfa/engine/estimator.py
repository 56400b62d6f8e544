"""The contract of every method.

An ``nn.Module`` around the user's model whose ``backward()`` is a learning rule.
"""

from __future__ import annotations

import abc
import inspect
import json
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, ParamSpec, Self

import torch
from torch import Tensor, nn
from torch._compile import _disable_dynamo

from fdfa.engine.distributed import process_rank, refuse_wrapped
from fdfa.engine.learner_state import parse_extra_state, refuse_conflicts
from fdfa.engine.outputs import map_tensors
from fdfa.engine.saved_tensors import checkpoint_region
from fdfa.engine.targets import Criterion
from fdfa.errors import ConfigError, UnsupportedModelError, unknown_name

__all__ = ["Estimator"]

P = ParamSpec("P")


class Estimator(nn.Module, abc.ABC):
    """Wraps a model: same call, same output, and ``loss.backward()`` becomes a learning rule.

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
        needs_targets: whether the rule learns from the targets, so that the loss has to come from
            :meth:`criterion`.
        alone: set it on a copy that one process of several runs by itself: it speaks with no other
            process, and teaches nothing but gradients.
        redraw: set it on a copy to any number but 0, and a pass draws other noise than the
            learner's own pass of that step: independent from number to number, and of the same
            kind.

    Raises:
        TypeError: if ``model`` is not an instance of a module, or ``seed`` no whole number.
        UnsupportedModelError: if it has no parameters, or is a learner already.
        DistributedError: if it is wrapped in ``DistributedDataParallel`` already.
    """

    method: ClassVar[str]
    needs_targets: ClassVar[bool] = False

    def __new__(cls, *args: Any, **options: Any) -> Self:
        """Say what was meant by an unknown option, before Python says that it is one."""
        parameters = inspect.signature(cls.__init__).parameters.values()
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
            known = [parameter.name for parameter in parameters if parameter.name != "self"]
            for option in options:
                if option not in known:
                    text = unknown_name(
                        "option", option, [name for name in known if name != "model"]
                    )
                    raise ConfigError(f"method {cls.method!r}: {text}")
        return super().__new__(cls)

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
        self.alone = False
        self.redraw = 0

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
        if any(isinstance(x, Tensor) and 0 in x.shape[:1] for x in (*args, *kwargs.values())):
            _refuse_empty((args, kwargs))
        return _learn(self, args, kwargs)

    def criterion(self, loss_function: Callable[P, Tensor]) -> Callable[P, Tensor]:
        """A loss function for this rule, set up once; a loop that uses it serves every rule.

        Called as ``loss_function`` is, output first and targets second (by keyword in any order),
        with the same result. For a rule that learns from the output error alone it is
        ``loss_function`` itself. For one that learns from the targets it also tells them to the
        pass that made the output: class numbers, or targets of the output's shape. How much a loss
        counts in what ``backward()`` is called on (a part's share of a batch, a loss scale) counts
        for its targets too. A loss that is one number is taken for the mean over the samples. Of
        further arguments with targets nothing is told: for a mixture of two, as in mixup, call it
        twice and add.

        Args:
            loss_function: such as ``torch.nn.functional.cross_entropy``.

        Returns:
            A callable with the same signature.

        Example:
            >>> import fdfa
            >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
            >>> learner = fdfa.DRTP(model)
            >>> criterion = learner.criterion(nn.functional.cross_entropy)
            >>> loss = criterion(learner(torch.ones(2, 4)), torch.tensor([0, 2]))
            >>> loss.backward()
        """
        return Criterion(loss_function) if self.needs_targets else loss_function

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
        step = self.coming_step()
        self.steps = step + 1
        return step

    def coming_step(self) -> int:
        """The number that :meth:`take_step` would give a forward pass made now.

        Returns:
            The number.
        """
        in_backward = torch._C._current_graph_task_id() != -1
        return self.steps - 1 if in_backward and checkpoint_region() is not None else self.steps

    def noise_seeds(self, step: int) -> tuple[int, ...]:
        """All that the noise of a pass is a function of.

        Args:
            step: number of the pass.

        Returns:
            Seed, step, process (alone the first one, so that copies find the same in each), and
            which draw where it is not the learner's own.
        """
        seeds = (self.seed, step, 0 if self.alone else process_rank())
        return (*seeds, self.redraw) if self.redraw else seeds

    def get_extra_state(self) -> Tensor:
        """Method, seed and step counter as JSON bytes.

        So every entry of the state dict is a tensor.

        Returns:
            The bytes, uint8.
        """
        names = (name for name, _ in (*self.named_buffers(), *self.named_parameters()))
        own = sorted(name for name in names if not name.startswith("model."))
        values = {"method": self.method, "seed": self.seed, "steps": self.steps, "own": own}
        text = json.dumps(values)
        return torch.tensor(list(text.encode()), dtype=torch.uint8)

    def set_extra_state(self, state: Tensor) -> None:
        """Take over seed and step counter.

        Args:
            state: from :meth:`get_extra_state`.
        """
        values = parse_extra_state(state)
        self.seed, self.steps = values["seed"], values["steps"]

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """Load what :meth:`state_dict` gave; a state that does not fit changes nothing.

        Args:
            state_dict: of a learner of the same method and model.
            strict: whether every entry must be there, and no other.
            assign: as in PyTorch.

        Returns:
            Missing and unexpected keys, as in PyTorch.

        Raises:
            CheckpointError: with all that does not fit.
        """
        problems = self.state_conflicts(state_dict)
        if strict:
            problems += self._incomplete(state_dict)
        refuse_conflicts(problems)
        return super().load_state_dict(state_dict, strict=strict, assign=assign)

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *rest: Any) -> None:
        """As a part of a larger module: PyTorch itself says what is missing or unknown."""
        mine = {k[len(prefix) :]: value for k, value in state_dict.items() if k.startswith(prefix)}
        refuse_conflicts(self.state_conflicts(mine))
        if any(not key.startswith("model.") for key in mine):  # more than the weights alone
            self.prepare_to_load(mine)
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def state_conflicts(self, state: Mapping[str, Any]) -> list[str]:
        """Why the entries of this state, prefix removed, cannot be this learner's.

        Args:
            state: entries of a state dict.

        Returns:
            One text a problem; empty if they can.
        """
        problems = []
        if "_extra_state" in state:
            saved = parse_extra_state(state["_extra_state"])["method"]
            if saved != self.method:
                problems.append(f"it was saved by method '{saved}', and this is '{self.method}'.")
        for key, value in self.model.state_dict().items():
            here = getattr(value, "shape", None)
            there = getattr(state.get(f"model.{key}", value), "shape", None)
            if here is not None and here != there:
                sizes = f"{tuple(there or ())} in the state and {tuple(here)} here"
                problems.append(f"'model.{key}' is {sizes}.")
        return problems

    def _incomplete(self, state: Mapping[str, Any]) -> list[str]:
        """What is missing in a state, and what it holds beside."""
        if "_extra_state" not in state:
            return ["'_extra_state' is missing: method, seed and step counter."]
        own = set(parse_extra_state(state["_extra_state"])["own"])
        wanted = {*(f"model.{key}" for key in self.model.state_dict()), *own, "_extra_state"}
        missing, unknown = sorted(wanted - state.keys()), sorted(state.keys() - wanted)
        return [
            *(f"'{key}' is missing." for key in missing),
            *(f"'{key}' is unknown here." for key in unknown),
        ]

    def prepare_to_load(self, state: Mapping[str, Any]) -> None:
        """Make room for what the state brings; called once it is known to fit.

        Args:
            state: entries of a state dict, prefix removed.
        """


# Under torch.compile(learner), tracing stops here: taps and probes would be baked in.
@_disable_dynamo
def _learn(estimator: Estimator, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    return estimator.learning_forward(args, kwargs)


def _refuse_empty(arguments: Any) -> None:
    """Some argument is empty: refuse the batch if all are; else the output will tell."""
    shapes: list[torch.Size] = []

    def note(tensor: Tensor) -> Tensor:
        if tensor.dim():
            shapes.append(tensor.shape)
        return tensor

    map_tensors(arguments, note)
    if not any(shape[0] for shape in shapes):
        raise ValueError(
            f"the batch is empty: the input has shape {tuple(shapes[0])}. A mean over no samples"
            " has no gradient; leave empty batches out (drop_last, or a check before the call)."
        )


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
            " Give a model with at least one trainable parameter."
        )
    if any(isinstance(parameter, nn.parameter.UninitializedParameter) for parameter in parameters):
        raise UnsupportedModelError(
            "the model has lazy parameters without a shape yet: run it once on a batch, model(x),"
            " before wrapping it."
        )
