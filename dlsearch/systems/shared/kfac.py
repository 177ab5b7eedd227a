"""K-FAC: Optimizing neural networks with Kronecker-factored approximate curvature.

After Martens and Grosse (2015).
Convolutions are factored as in "A Kronecker-factored approximate Fisher matrix for convolution
layers" (Grosse and Martens, 2016).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from dlsearch.systems.shared.layers import check_positive

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

Layer = nn.Linear | nn.Conv2d

LIKELIHOODS = ("categorical", "gaussian")
FISHERS = ("sampled", "exact")


class KFAC(Optimizer):
    """Natural gradient steps with the Fisher matrix of each layer as a Kronecker product A ⊗ G.

    A is the second moment of a layer's inputs (with a 1 for the bias), G that of the gradients of
    the log-likelihood at its outputs. The labels are drawn from the net's own predictions, as the
    Fisher matrix demands, and not those of the data. The step of a layer is ``(G + λ_G)⁻¹ ∇W (A +
    λ_A)⁻¹`` with the damping factored as in section 6.3.

    The factors are measured while the net runs, so :meth:`attach` must be called with it; the tasks
    do. Linear layers and convolutions of one group have factors; all other parameters take steps of
    stochastic gradient descent.

    Layers from which no gradient reaches the outputs, such as those of auxiliary classifiers, are
    among the others.

    Departures from the paper: momentum and damping are fixed numbers, not solved for at each step;
    the length of a step is limited in the norm of the Fisher matrix instead, as by Ba, Grosse and
    Martens (2017); the moving averages decay by a fixed `factor_decay` from the first measurement
    on, where the paper has min(1 − 1/k, 0.95) at the k-th.

    Args:
        params: Of the net, or groups of them.
        lr: Learning rate.
        momentum: Of the steps.
        weight_decay: L2 term in the gradient.
        damping: λ, added to the Fisher matrix.
        factor_decay: Of the moving averages of A and G.
        update_every: Steps between two measurements, and inversions, of the factors.
        norm_limit: Largest ``lr² · step · gradient``; 0 for none.
        likelihood: categorical (outputs are logits) or gaussian (outputs are means, of variance 1);
            None for what :meth:`attach` is told.
        fisher: sampled takes one label for each sample; exact the expectation over all labels of a
            categorical likelihood, or all outputs of a gaussian one, at a backward pass for each.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 0.01,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        damping: float = 0.01,
        factor_decay: float = 0.95,
        update_every: int = 10,
        norm_limit: float = 0.001,
        likelihood: str | None = None,
        fisher: str = "sampled",
    ) -> None:
        _check_below("lr", lr, math.inf)
        _check_below("momentum", momentum, 1.0)
        _check_below("weight_decay", weight_decay, math.inf)
        _check_below("factor_decay", factor_decay, 1.0)
        _check_below("norm_limit", norm_limit, math.inf)
        if damping <= 0:
            raise ValueError(f"damping: expected a positive number, got {damping}")
        check_positive(update_every=update_every)
        if likelihood is not None and likelihood not in LIKELIHOODS:
            raise ValueError(
                f"likelihood: expected one of {', '.join(LIKELIHOODS)}, got {likelihood!r}"
            )
        if fisher not in FISHERS:
            raise ValueError(f"fisher: expected one of {', '.join(FISHERS)}, got {fisher!r}")
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self.damping = damping
        self.factor_decay = factor_decay
        self.update_every = update_every
        self.norm_limit = norm_limit
        self.likelihood = likelihood
        self.fisher = fisher
        self.layers: list[Layer] = []
        self._seen: dict[Layer, _Call] = {}

    # -- the factors -------------------------------------------------------------------------------
    def attach(self, net: nn.Module, likelihood: str = "categorical") -> None:
        """Measure the factors of the layers of `net` whenever it runs in training.

        Args:
            net: Whose parameters are optimised.
            likelihood: Of its outputs, where the optimiser was given none.
        """
        if self.likelihood is None:
            self.likelihood = likelihood
        ours: set[int] = set()
        for group in self.param_groups:
            ours.update(id(parameter) for parameter in group["params"])
        for module in net.modules():
            if _has_factors(module) and id(module.weight) in ours:
                self.layers.append(module)
                module.register_forward_hook(self._note_call)
        net.register_forward_hook(self._measure_moments)

    def _is_due(self, net: nn.Module) -> bool:
        if not self.layers or not net.training or not torch.is_grad_enabled():
            return False
        first = self.layers[0].weight
        step = self.state[first].get("step", 0)
        return step % self.update_every == 0

    def _note_call(
        self,
        layer: Layer,
        inputs: tuple[Tensor, ...],
        output: Tensor,
    ) -> None:
        if self._is_due(layer) and output.requires_grad:
            self._seen[layer] = _Call(inputs[0].detach(), output)

    def _measure_moments(
        self,
        net: nn.Module,
        inputs: tuple[Any, ...],
        outputs: Tensor,
    ) -> None:
        """Take A and G of the layers that ran, by backward passes of their own."""
        seen = self._seen
        self._seen = {}
        if not seen:
            return
        output_moments = self._output_moments(seen, outputs)
        for layer, call in seen.items():
            if layer not in output_moments:
                continue
            state = self.state[layer.weight]
            self._average(state, "A", input_moment(layer, call.inputs.float()))
            self._average(state, "G", output_moments[layer])
            a_inverse, g_inverse = inverses(state["A"], state["G"], self.damping)
            state["A_inverse"] = a_inverse
            state["G_inverse"] = g_inverse

    def _output_moments(
        self,
        seen: dict[Layer, _Call],
        outputs: Tensor,
    ) -> dict[Layer, Tensor]:
        """G of each layer that reaches the outputs, by a backward pass for each signal there."""
        layers = list(seen)
        of_layers = [call.output for call in seen.values()]
        moments: dict[Layer, Tensor] = {}
        for signal in self._output_signals(outputs.detach().float()):
            gradients = torch.autograd.grad(
                outputs,
                of_layers,
                signal.to(outputs.dtype),
                retain_graph=True,
                allow_unused=True,
            )
            for layer, gradient in zip(layers, gradients, strict=True):
                if gradient is None:
                    continue
                moment = output_moment(layer, gradient.float())
                if layer in moments:
                    moments[layer] = moments[layer] + moment
                else:
                    moments[layer] = moment
        return moments

    def _average(self, state: dict[str, Tensor], name: str, found: Tensor) -> None:
        """Take a measurement into a moving average."""
        keep = self.factor_decay
        if keep and name in state:
            state[name] = keep * state[name] + (1 - keep) * found
        else:
            state[name] = found

    def _output_signals(self, outputs: Tensor) -> list[Tensor]:
        """Gradients at the outputs (B, K) of the negative log-likelihood.

        Their second moments are the Fisher's.
        """
        if self.likelihood == "gaussian":
            if self.fisher == "sampled":
                return [torch.randn_like(outputs)]
            return _unit_signals(outputs)
        chances = outputs.softmax(1)
        num_classes = outputs.shape[1]
        if num_classes < 2:
            raise ValueError(
                "optimizer.likelihood: categorical needs two outputs or more, the net has one"
                " (hint: optimizer.likelihood=gaussian)"
            )
        if self.fisher == "sampled":
            labels = torch.multinomial(chances, 1)[:, 0]
            return [chances - F.one_hot(labels, num_classes)]
        unit = torch.eye(num_classes, device=outputs.device)
        signals: list[Tensor] = []
        for label in range(num_classes):
            weight = chances[:, label : label + 1].sqrt()
            signals.append(weight * (chances - unit[label]))
        return signals

    # -- the step ----------------------------------------------------------------------------------
    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step; returns what `closure` does."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        directions = self._precondition_gradients()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                self._move_parameter(
                    parameter,
                    directions[parameter],
                    lr=group["lr"],
                    momentum=group["momentum"],
                )
        return loss

    def _move_parameter(
        self,
        parameter: Tensor,
        direction: Tensor,
        *,
        lr: float,
        momentum: float,
    ) -> None:
        """Take a step against `direction`, with momentum."""
        state = self.state[parameter]
        if momentum:
            velocity = state.get("velocity")
            if velocity is None:
                velocity = direction.clone()
                state["velocity"] = velocity
            else:
                velocity.mul_(momentum).add_(direction)
            direction = velocity
        parameter.sub_(lr * direction)
        state["step"] = state.get("step", 0) + 1

    def _precondition_gradients(self) -> dict[Tensor, Tensor]:
        """The direction of every parameter that has a gradient."""
        gradients: dict[Tensor, Tensor] = {}
        rates: dict[Tensor, float] = {}
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                decay = group["weight_decay"] * parameter
                gradients[parameter] = parameter.grad + decay
                rates[parameter] = group["lr"]
        directions = dict(gradients)
        length = 0.0
        natural: list[Tensor] = []
        for layer in self.layers:
            is_measured = "A_inverse" in self.state[layer.weight]
            if layer.weight not in gradients or not is_measured:
                continue
            squared = self._precondition_layer(
                layer,
                gradients,
                directions,
                natural,
            )
            length += rates[layer.weight] ** 2 * squared
        if self.norm_limit and length > self.norm_limit:
            factor = (self.norm_limit / length) ** 0.5
            for parameter in natural:
                directions[parameter] = directions[parameter] * factor
        return directions

    def _precondition_layer(
        self,
        layer: Layer,
        gradients: dict[Tensor, Tensor],
        directions: dict[Tensor, Tensor],
        natural: list[Tensor],
    ) -> float:
        """Find a layer's natural direction.

        Args:
            layer: Of which there are inverses.
            gradients: Of all parameters.
            directions: Gets those of the layer.
            natural: Gets the parameters whose direction is natural.

        Returns:
            The product of direction and gradient: the squared length of the step in the Fisher
            metric, for a learning rate of 1.
        """
        weight = layer.weight
        bias = layer.bias
        state = self.state[weight]
        matrix = gradients[weight].flatten(1)
        if bias is not None:
            column = gradients[bias] if bias in gradients else torch.zeros_like(bias)
            matrix = torch.cat([matrix, column[:, None]], dim=1)
        direction = state["G_inverse"] @ matrix.float() @ state["A_inverse"]
        product = direction * matrix
        squared = float(product.sum())
        if bias is not None:
            if bias in gradients:
                directions[bias] = direction[:, -1].to(bias.dtype)
                natural.append(bias)
            direction = direction[:, :-1]
        directions[weight] = direction.reshape(weight.shape).to(weight.dtype)
        natural.append(weight)
        return squared


@dataclass(frozen=True)
class _Call:
    """A layer's part in a forward pass.

    Args:
        inputs: What it got.
        output: What it gave; gradients reach it.
    """

    inputs: Tensor
    output: Tensor


def _check_below(name: str, value: float, limit: float) -> None:
    """Refuse a negative number, and one that reaches the limit."""
    if not 0.0 <= value < limit:
        raise ValueError(f"{name}: expected 0 or more and below {limit:g}, got {value}")


def _has_factors(module: nn.Module) -> TypeGuard[Layer]:
    """Whether a module is a linear layer, or a convolution whose patches can be unfolded."""
    if isinstance(module, nn.Conv2d):
        return module.groups == 1 and not isinstance(module.padding, str)
    return isinstance(module, nn.Linear)


def _unit_signals(outputs: Tensor) -> list[Tensor]:
    """A 1 at each output in turn, for outputs (B, K)."""
    signals: list[Tensor] = []
    for number in range(outputs.shape[1]):
        place = torch.tensor([number], device=outputs.device)
        signals.append(torch.zeros_like(outputs).index_fill(1, place, 1.0))
    return signals


def input_moment(layer: Layer, x: Tensor) -> Tensor:
    """A: the second moment of a layer's inputs, the bias's 1 among them, mean over the batch.

    Of a convolution, the sum over positions of the second moment of the patches.

    Args:
        layer: Linear or Conv2d.
        x: Its input.

    Returns:
        (inputs, inputs), one more with a bias.
    """
    if isinstance(layer, nn.Conv2d):
        assert not isinstance(layer.padding, str)
        patches = F.unfold(
            x,
            layer.kernel_size,
            layer.dilation,
            layer.padding,
            layer.stride,
        )
        rows = patches.transpose(1, 2).flatten(0, 1)  # (B · positions, inputs)
    else:
        rows = x.reshape(-1, x.shape[-1])
    if layer.bias is not None:
        ones = rows.new_ones(len(rows), 1)
        rows = torch.cat([rows, ones], dim=1)
    return rows.T @ rows / len(x)


def output_moment(layer: Layer, gradient: Tensor) -> Tensor:
    """G: the second moment of the gradients at a layer's outputs.

    It is a mean over the batch, and over a convolution's positions.

    Args:
        layer: Linear or Conv2d.
        gradient: (B, outputs, ...) of each sample's own log-likelihood.

    Returns:
        (outputs, outputs).
    """
    if isinstance(layer, nn.Conv2d):
        rows = gradient.flatten(2).transpose(1, 2).flatten(0, 1)  # (B · positions, outputs)
        return rows.T @ rows / len(rows)
    rows = gradient.reshape(-1, gradient.shape[-1])
    return rows.T @ rows / len(rows)


def inverses(a: Tensor, g: Tensor, damping: float) -> tuple[Tensor, Tensor]:
    """``(A + π √λ)⁻¹`` and ``(G + √λ / π)⁻¹``.

    π² is the ratio of their mean eigenvalues (equation 6.3).
    """
    mean_of_a = a.trace() / len(a)
    mean_of_g = g.trace() / len(g)
    ratio = mean_of_a / mean_of_g.clamp(min=1e-12)
    pi = ratio.clamp(min=1e-12).sqrt()
    root = damping**0.5
    damped_a = a + pi * root * torch.eye(len(a)).to(a)
    damped_g = g + root / pi * torch.eye(len(g)).to(g)
    return _invert(damped_a), _invert(damped_g)


def _invert(matrix: Tensor) -> Tensor:
    """The inverse of a positive definite matrix."""
    factor = torch.linalg.cholesky(matrix)
    return torch.cholesky_inverse(factor)
