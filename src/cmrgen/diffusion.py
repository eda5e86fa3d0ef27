"""Noising, targets, loss, guidance and sampling as pure functions; a two-line network can test
each.

`a` is the cumulative alpha at a timestep, shaped to broadcast; a predictor is a function (x, t) ->
output.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

Predictor = Callable[[Tensor, Tensor], Tensor]


def noised(x0: Tensor, noise: Tensor, a: Tensor) -> Tensor:
    """x_t = sqrt(a) x0 + sqrt(1-a) noise (Ho 2020, eq. 4)."""
    return a.sqrt() * x0 + (1 - a).sqrt() * noise


def velocity(x0: Tensor, noise: Tensor, a: Tensor) -> Tensor:
    """v = sqrt(a) noise - sqrt(1-a) x0 (Salimans & Ho 2022, App. D)."""
    return a.sqrt() * noise - (1 - a).sqrt() * x0


def clean_from_velocity(x: Tensor, v: Tensor, a: Tensor) -> Tensor:
    """x0 = sqrt(a) x_t - sqrt(1-a) v (Salimans & Ho 2022, App. D)."""
    return a.sqrt() * x - (1 - a).sqrt() * v


def latent(moments: Tensor, noise: Tensor, *, shift: Tensor, scale: Tensor) -> Tensor:
    """A fresh sample of the VAE's posterior, standardised: (mean + sd * noise - shift) * scale.

    moments (B, 2C, h, w), mean then log-variance; noise (B, C, h, w); shift, scale (C, 1, 1).
    """
    mean, logvar = moments.chunk(2, dim=1)
    return (mean + (0.5 * logvar.clamp(-30, 20)).exp() * noise - shift) * scale


def loss_weight(a: Tensor, *, prediction: str, gamma: float | None, floor: float = 0.05) -> Tensor:
    """Min-SNR weight per sample (Hang 2023, eq. 8): min(SNR, gamma) over the target's own SNR
    factor; None = 1.

    With v-prediction the factor is SNR + 1, which stays finite at zero terminal SNR; `floor` keeps
    pure noise taught.
    """
    if gamma is None:
        return torch.ones_like(a)
    snr = a / (1 - a).clamp_min(1e-8)
    return (
        snr.clamp(max=gamma) / (snr + 1 if prediction == "v_prediction" else snr.clamp_min(1e-8))
    ).clamp_min(floor)


def diffusion_loss(
    predict: Predictor,
    x0: Tensor,
    noise: Tensor,
    t: Tensor,
    *,
    alphas: Tensor,
    prediction: str,
    gamma: float | None,
) -> Tensor:
    """Weighted squared error per sample, (B,), of `predict` at timesteps t (B,)."""
    a = alphas[t].view(-1, 1, 1, 1)
    targets = {"v_prediction": velocity(x0, noise, a), "epsilon": noise}
    error = (
        (predict(noised(x0, noise, a), t).float() - targets[prediction].float())
        .square()
        .mean(dim=(1, 2, 3))
    )
    return error * loss_weight(a, prediction=prediction, gamma=gamma).view(-1)


def stratified_timesteps(n: int, *, steps: int, generator: torch.Generator) -> Tensor:
    """n timesteps, one from each of n equal bins in random order: less variance than independent
    draws."""
    u = (torch.arange(n) + torch.rand(n, generator=generator)) / n
    return (u[torch.randperm(n, generator=generator)] * steps).long().clamp_max(steps - 1)


def guided(
    predict: Callable[[Tensor, Tensor, Tensor, Tensor, Tensor | None], Tensor],
    *,
    context: Tensor,
    empty: Tensor,
    scale: Tensor,
    bare: bool = False,
) -> Predictor:
    """Classifier-free guidance (Ho & Salimans 2022): uncond + scale (cond - uncond), with a scale
    per row; rows at scale 1 need no second input.

    Args:
        predict: a function of (x, t, context, rows, steered) of n inputs: rows (n,) says which of
            the B each is, steered (m,) which of the n see their mask, None for all.
        context: (B, tokens, width), the prompts' embeddings.
        empty: of what the images shall not show, as `context` or (1, tokens, width).
        scale: (B,).
        bare: the unconditional prediction sees no mask either, so that guidance pushes towards
            both.
    """
    every = torch.arange(len(context), device=context.device)
    pushed = every[scale != 1]
    if not len(pushed):
        return lambda x, t: predict(x, t, context, every, None)
    rows = torch.cat([pushed, every])
    contexts = torch.cat([empty.expand_as(context)[pushed], context])
    # places, not a boolean mask: a GPU would wait in every step until it has counted one
    steered = torch.arange(len(pushed), len(rows), device=rows.device) if bare else None
    weight = scale[pushed].view(-1, 1, 1, 1)

    def combined(x: Tensor, t: Tensor) -> Tensor:
        both = predict(x[rows], t, contexts, rows, steered)
        unconditional, conditional = both[: len(pushed)], both[len(pushed) :]
        moved = unconditional + weight * (conditional[pushed] - unconditional)
        return moved if len(pushed) == len(every) else conditional.index_copy(0, pushed, moved)

    return combined


def within(
    interval: Sequence[float], *, inside: Predictor, outside: Predictor, scheduler: Any, steps: int
) -> Predictor:
    """`inside` in the share `interval` of the steps, from the noisiest at 0 to 1, and `outside` in
    the others.

    With guidance inside only, the others take one forward for two (Kynkaanniemi 2024). A step
    counts as its start.
    """
    low, high = interval
    if (low, high) == (0, 1):
        return inside
    scheduler.set_timesteps(steps)
    times = scheduler.timesteps.tolist()
    chosen = {t for k, t in enumerate(times) if low <= k / len(times) < high}
    return lambda x, t: (inside if t.item() in chosen else outside)(x, t)


def row_noise(seeds: Sequence[int], shape: tuple[int, ...]) -> Tensor:
    """Initial noise (len(seeds), *shape), a generator per row: independent of batch size, order and
    device."""
    return torch.stack(
        [torch.randn(shape, generator=torch.Generator().manual_seed(int(seed))) for seed in seeds]
    )


def denoise(
    unet: nn.Module,
    controlnet: nn.Module,
    x: Tensor,
    t: Tensor,
    *,
    context: Tensor,
    control: Tensor | None,
    strength: float | Tensor = 1.0,
    steered: Tensor | None = None,
) -> Tensor:
    """The U-Net's output, its skips and middle steered by the ControlNet (Zhang 2023, Fig. 3).

    A U-Net of lower precision than x is fed in its own, free of autocast: its weights are already
    what autocast makes.

    Args:
        unet, controlnet: the networks.
        x: (B, C, h, w) noisy latents.
        t: the timestep, of all or (B,).
        context: (B, tokens, width), the prompts' embeddings.
        control: (m, 3, P, P), the masks as the ControlNet's input; None: the U-Net alone, which is
            strength 0.
        strength: of the ControlNet, for all or (m,).
        steered: (m,) the rows that `control` and `strength` are of, in order, if not all; the
            others cost no ControlNet.
    """
    if control is None:
        down, middle = [], None
    else:
        scale = strength.view(-1, 1, 1, 1) if isinstance(strength, Tensor) else strength
        rows = slice(None) if steered is None else steered
        down, middle = controlnet(
            x[rows],
            t[rows] if t.ndim else t,
            encoder_hidden_states=context[rows],
            controlnet_cond=control,
            conditioning_scale=scale,
            return_dict=False,
        )
        if steered is not None:
            down = [_among(d, steered, rows=len(x)) for d in down]
            middle = _among(middle, steered, rows=len(x))
    residuals = {
        "down_block_additional_residuals": down or None,
        "mid_block_additional_residual": middle,
    }
    own = getattr(unet, "dtype", x.dtype)
    if own == x.dtype:
        return unet(x, t, encoder_hidden_states=context, **residuals).sample
    with torch.autocast(x.device.type, enabled=False):
        residuals = {
            "down_block_additional_residuals": [d.to(own) for d in down] or None,
            "mid_block_additional_residual": middle if middle is None else middle.to(own),
        }
        output = unet(x.to(own), t, encoder_hidden_states=context.to(own), **residuals)
        return output.sample.to(x.dtype)


def _among(residual: Tensor, steered: Tensor, *, rows: int) -> Tensor:
    """(m, ...) of the steered rows, zeros for the others: (rows, ...)."""
    every = residual.new_zeros(rows, *residual.shape[1:])
    every[steered] = residual
    return every


@torch.no_grad()
def integrate(predict: Predictor, x: Tensor, *, scheduler: Any, steps: int) -> Tensor:
    """Integrate from noise x to a clean latent with a diffusers scheduler (deterministic ones
    only)."""
    scheduler.set_timesteps(steps, device=x.device)
    x = x * scheduler.init_noise_sigma
    for t in scheduler.timesteps:
        x = scheduler.step(predict(scheduler.scale_model_input(x, t), t), t, x).prev_sample
    return x


@torch.no_grad()
def ema_update(average: Iterable[Tensor], current: Iterable[Tensor], decay: float) -> None:
    """average <- decay average + (1 - decay) current, in place."""
    torch._foreach_lerp_(list(average), list(current), 1 - decay)


def follow(average: nn.Module, network: nn.Module, *, limit: float, step: int) -> None:
    """One step of a network's moving average; call it once per optimiser step (from 1). Young
    averages forget faster."""
    ema_update(average.parameters(), network.parameters(), min(limit, (1 + step) / (10 + step)))
