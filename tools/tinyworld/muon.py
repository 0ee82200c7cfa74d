"""Muon (Jordan et al. 2024): momentum whose matrices are made orthogonal, so that every direction of a layer learns at the same pace."""

import torch

# Of a quintic that moves all singular values in (0, 1] to about 1, applied five times (Jordan et al. 2024).
LINEAR, CUBIC, QUINTIC = 3.4445, -4.7750, 2.0315
STEPS = 5


class Muon(torch.optim.Optimizer):
    """For weights of two and more dimensions; a convolution's kernel is the matrix of its outputs by all of its inputs."""

    def __init__(self, params, lr, momentum=0.95, weight_decay=0.01):
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for parameters in self.by_shape(group["params"]).values():
                self.update(parameters, group)

    @staticmethod
    def by_shape(parameters):
        """Parameters that have a gradient by their matrix's shape: one product serves all of a shape."""
        shapes = {}
        for parameter in parameters:
            if parameter.grad is not None:
                shapes.setdefault(parameter.flatten(1).shape, []).append(parameter)
        return shapes

    def update(self, parameters, group):
        gradients = torch.stack([parameter.grad.flatten(1) for parameter in parameters])
        for parameter, gradient in zip(parameters, gradients):
            momentum = self.state[parameter].setdefault("momentum", torch.zeros_like(gradient))
            momentum.lerp_(gradient, 1 - group["momentum"])
            gradient.lerp_(momentum, group["momentum"])  # Nesterov's look ahead
        rows, columns = gradients.shape[1:]
        rate = group["lr"] * max(1, rows / columns) ** 0.5
        for parameter, direction in zip(parameters, orthogonal(gradients)):
            parameter.mul_(1 - group["lr"] * group["weight_decay"]).sub_(direction.reshape(parameter.shape), alpha=rate)


def orthogonal(matrices):
    """Matrices [N, R, C] with their singular values moved to about 1: a Newton-Schulz iteration."""
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(STEPS):
        square = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(square, square, square, beta=CUBIC, alpha=QUINTIC), x, beta=LINEAR)
    return x.mT if tall else x
