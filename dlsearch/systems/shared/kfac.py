"""K-FAC: Optimizing neural networks with Kronecker-factored approximate curvature (Martens and Grosse, 2015).

Convolutions are factored as in "A Kronecker-factored approximate Fisher matrix for convolution
layers" (Grosse and Martens, 2016).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

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

    Departures from the paper: momentum and damping are fixed numbers, not solved for at each step;
    and the length of a step is limited in the norm of the Fisher matrix instead, as by Ba, Grosse
    and Martens (2017).

    Args:
        params: Of the net, or groups of them.
        lr: Learning rate.
        momentum: Of the steps.
        weight_decay: L2 term in the gradient.
        damping: λ, added to the Fisher matrix.
        factor_decay: Of the moving averages of A and G.
        update_every: Steps between two measurements, and inversions, of the factors.
        norm_limit: Largest ``lr² · step · gradient``; 0 for none.
        likelihood: categorical (outputs are logits) or gaussian (outputs are means, of variance 1).
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
        likelihood: str = "categorical",
        fisher: str = "sampled",
    ) -> None:
        for name, value, low, high in (
            ("lr", lr, 0.0, float("inf")),
            ("momentum", momentum, 0.0, 1.0),
            ("weight_decay", weight_decay, 0.0, float("inf")),
            ("factor_decay", factor_decay, 0.0, 1.0),
            ("norm_limit", norm_limit, 0.0, float("inf")),
        ):
            if not low <= value < high:
                raise ValueError(
                    f"{name}: expected {low:g} or more and below {high:g}, got {value}"
                )
        if damping <= 0:
            raise ValueError(f"damping: expected a positive number, got {damping}")
        if isinstance(update_every, bool) or not isinstance(update_every, int) or update_every < 1:
            raise ValueError(f"update_every: expected a positive integer, got {update_every!r}")
        if likelihood not in LIKELIHOODS:
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
        self._seen: dict[Layer, tuple[Tensor, Tensor]] = {}

    # -- the factors -------------------------------------------------------------------------------
    def attach(self, net: nn.Module) -> None:
        """Measure the factors of the layers of `net` whenever it runs in training."""
        ours = {id(p) for group in self.param_groups for p in group["params"]}
        for module in net.modules():
            fits = isinstance(module, nn.Linear) or (
                isinstance(module, nn.Conv2d)
                and module.groups == 1
                and not isinstance(module.padding, str)
            )
            if fits and id(module.weight) in ours:
                self.layers.append(module)  # type: ignore[arg-type]
                module.register_forward_hook(self._note_call)
        net.register_forward_hook(self._measure_moments)

    def _is_due(self, net: nn.Module) -> bool:
        step = self.state[self.layers[0].weight].get("step", 0) if self.layers else 1
        return net.training and torch.is_grad_enabled() and step % self.update_every == 0

    def _note_call(
        self,
        layer: Layer,
        inputs: tuple[Tensor, ...],
        output: Tensor,
    ) -> None:
        if self._is_due(layer) and output.requires_grad:
            self._seen[layer] = (inputs[0].detach(), output)

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
        layers = list(seen)
        signals = self._output_signals(outputs.detach().float())
        sums: list[Tensor | None] = [None] * len(layers)
        for signal in signals:
            gradients = torch.autograd.grad(
                outputs,
                [seen[layer][1] for layer in layers],
                signal.to(outputs.dtype),
                retain_graph=True,
            )
            for number, (layer, gradient) in enumerate(zip(layers, gradients, strict=True)):
                moment = output_moment(layer, gradient.float())
                previous = sums[number]
                sums[number] = moment if previous is None else previous + moment
        for layer, total in zip(layers, sums, strict=True):
            assert total is not None
            state = self.state[layer.weight]
            for name, found in (("A", input_moment(layer, seen[layer][0].float())), ("G", total)):
                keep = self.factor_decay if name in state else 0.0
                state[name] = keep * state[name] + (1 - keep) * found if keep else found
            state["A_inverse"], state["G_inverse"] = inverses(state["A"], state["G"], self.damping)

    def _output_signals(self, outputs: Tensor) -> list[Tensor]:
        """Gradients at the outputs (B, K) of the negative log-likelihood.

        Their second moments are the Fisher's.
        """
        if self.likelihood == "gaussian":
            if self.fisher == "sampled":
                return [torch.randn_like(outputs)]
            return [
                torch.zeros_like(outputs).index_fill(
                    1, torch.tensor([k], device=outputs.device), 1.0
                )
                for k in range(outputs.shape[1])
            ]
        chances = outputs.softmax(1)
        if self.fisher == "sampled":
            labels = torch.multinomial(chances, 1)[:, 0]
            return [chances - F.one_hot(labels, outputs.shape[1])]
        unit = torch.eye(outputs.shape[1], device=outputs.device)
        return [chances[:, k : k + 1].sqrt() * (chances - unit[k]) for k in range(outputs.shape[1])]

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
                if parameter.grad is not None:
                    self._move_parameter(parameter, directions[parameter], group)
        return loss

    def _move_parameter(self, parameter: Tensor, direction: Tensor, group: dict[str, Any]) -> None:
        """Take a step against `direction`, with the group's momentum."""
        state = self.state[parameter]
        if group["momentum"]:
            velocity = state.get("velocity")
            if velocity is None:
                velocity = direction.clone()
                state["velocity"] = velocity
            else:
                velocity.mul_(group["momentum"]).add_(direction)
            direction = velocity
        parameter.sub_(group["lr"] * direction)
        state["step"] = state.get("step", 0) + 1

    def _precondition_gradients(self) -> dict[Tensor, Tensor]:
        """The direction of every parameter that has a gradient."""
        gradients: dict[Tensor, Tensor] = {}
        rates: dict[Tensor, float] = {}
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    gradients[parameter] = parameter.grad + group["weight_decay"] * parameter
                    rates[parameter] = group["lr"]
        directions = dict(gradients)
        length = 0.0
        natural: list[Tensor] = []
        for layer in self.layers:
            if layer.weight not in gradients or "A_inverse" not in self.state[layer.weight]:
                continue
            squared = self._precondition_layer(layer, gradients, directions, natural)
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
        squared = float((direction * matrix).sum())
        if bias is not None:
            if bias in gradients:
                directions[bias] = direction[:, -1].to(bias.dtype)
                natural.append(bias)
            direction = direction[:, :-1]
        directions[weight] = direction.reshape(weight.shape).to(weight.dtype)
        natural.append(weight)
        return squared


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
        patches = F.unfold(x, layer.kernel_size, layer.dilation, layer.padding, layer.stride)
        rows = patches.transpose(1, 2).flatten(0, 1)  # (B · positions, inputs)
    else:
        rows = x.reshape(-1, x.shape[-1])
    if layer.bias is not None:
        rows = torch.cat([rows, rows.new_ones(len(rows), 1)], dim=1)
    return rows.T @ rows / len(x)


def output_moment(layer: Layer, gradient: Tensor) -> Tensor:
    """G: the second moment of the gradients at a layer's outputs, mean over the batch and a convolution's positions.

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
    """``(A + π √λ)⁻¹`` and ``(G + √λ / π)⁻¹``, π² the ratio of their mean eigenvalues (equation 6.3)."""
    ratio = (a.trace() / len(a)) / (g.trace() / len(g)).clamp(min=1e-12)
    pi = ratio.clamp(min=1e-12).sqrt()
    root = damping**0.5
    damped = (a + pi * root * torch.eye(len(a)).to(a), g + root / pi * torch.eye(len(g)).to(g))
    inverted = [torch.cholesky_inverse(torch.linalg.cholesky(each)) for each in damped]
    return inverted[0], inverted[1]
