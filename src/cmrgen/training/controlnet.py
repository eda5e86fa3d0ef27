"""The ControlNet LightningModule: only the ControlNet trains; the base stays outside the module and
frozen."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import lightning as L
import torch
from diffusers import ControlNetModel
from torch import Tensor

from cmrdata.batch import LatentBatch
from cmrgen.base.load import load_base
from cmrgen.diffusion import denoise, follow
from cmrstudy import runs
from cmrstudy.checkpoints import check_fits, fingerprint_of, read_checkpoint
from cmrstudy.continuing import batch_seed
from cmrstudy.inputs import weights_hash

# stride-2 stages bring the mask down to the latent's grid: two for f = 4, three for f = 8
# (diffusers' default)
CONDITIONING_CHANNELS = {4: (16, 32, 64), 8: (16, 32, 96, 256)}
WEIGHTS_FILE = "diffusion_pytorch_model.safetensors"  # of a diffusers folder


@dataclass(frozen=True)
class Memory:
    """How training spends the GPU's memory (conf/memory); the defaults spend the most and round the
    least.

    Args:
        frozen: precision of the frozen U-Net, float32 or bfloat16.
        checkpointing: compute activations of the ControlNet and of the U-Net's decoder twice
            instead of keeping them.
        optimizer: adamw, or adamw8bit with 8-bit moments (Dettmers 2022).
        compile: torch.compile both networks.
        channels_last: their layout in memory, which tensor cores prefer.
    """

    frozen: str = "float32"
    checkpointing: bool = False
    optimizer: str = "adamw"
    compile: bool = False
    channels_last: bool = False

    def __post_init__(self) -> None:
        for name, value, known in (
            ("frozen", self.frozen, ("float32", "bfloat16")),
            ("optimizer", self.optimizer, ("adamw", "adamw8bit")),
        ):
            if value not in known:
                raise ValueError(f"memory.{name} is {value!r}; it takes {' or '.join(known)}")
        if self.optimizer == "adamw8bit" and not find_spec("bitsandbytes"):
            raise ValueError(
                "memory.optimizer=adamw8bit needs the package bitsandbytes, which is not "
                "installed: pip install bitsandbytes, or take memory.optimizer=adamw"
            )

    @property
    def lighter(self) -> str:
        """The settings that would take less memory, and their price, as a part of a sentence."""
        ways = [
            ("memory.frozen=bfloat16 halves the frozen U-Net", self.frozen == "float32"),
            (
                "memory.checkpointing=true computes activations twice instead of keeping them, "
                "for the same numbers",
                not self.checkpointing,
            ),
            (
                "memory.optimizer=adamw8bit has a quarter of AdamW's state (package bitsandbytes)",
                self.optimizer == "adamw",
            ),
        ]
        less = [way for way, open_ in ways if open_]
        return "; ".join([*less, "trainer=gpu8 has all of these"] if less else [])

    def arrange(self, network: torch.nn.Module) -> None:
        """Prepare a network in place; names and values of its weights stay."""
        if self.channels_last:
            network.to(memory_format=torch.channels_last)
        if self.checkpointing:
            network.enable_gradient_checkpointing()
        if self.compile:
            network.compile()


class ControlNetModule(L.LightningModule):
    """Trains a ControlNet on cached latents (paper 2.2).

    Args:
        base: arguments of `load_base`.
        lr: AdamW's (paper: 1e-5 for SD 2.1).
        weight_decay: AdamW's.
        gamma: of min-SNR, None for plain squared errors.
        ema: decay of the averaged copy that is used in the end, 0 for none.
        prompt_dropout: proportion of empty prompts.
        warmup: steps until the learning rate is reached.
        memory: arguments of `Memory`.
        seed: of all draws.
    """

    logs = ("train_loss", "val_loss")

    def __init__(
        self,
        *,
        base: dict[str, Any],
        lr: float = 1e-5,
        weight_decay: float = 0.01,
        gamma: float | None = None,
        ema: float = 0.0,
        prompt_dropout: float = 0.1,
        warmup: int = 50,
        memory: dict[str, Any] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(logger=False)
        self.memory = Memory(**memory or {})
        self.base = load_base(**base)
        channels = CONDITIONING_CHANNELS[self.base.factor]
        self.controlnet = ControlNetModel.from_unet(
            self.base.unet, conditioning_embedding_out_channels=channels
        )
        self.controlnet.requires_grad_(True)
        self.average = copy.deepcopy(self.controlnet).requires_grad_(False) if ema else None
        # not before its weights are copied
        self.base.to(self.base.device, unet=getattr(torch, self.memory.frozen))
        for network in (self.base.unet, self.controlnet):
            self.memory.arrange(network)

    @property
    def best(self) -> ControlNetModel:
        """The network to generate with: the average if there is one."""
        return self.average or self.controlnet

    @property
    def lighter(self) -> str:
        """What takes less memory than this training does, and its price."""
        return self.memory.lighter

    def on_fit_start(self) -> None:
        self.base.to(self.device)
        self.empty = self.base.embed([""]).float()

    def on_validation_start(self) -> None:
        self.on_fit_start()  # a loaded module is validated without having been fitted

    def training_step(self, batch: LatentBatch, batch_idx: int) -> Tensor:
        seed = batch_seed(
            self.hparams.seed, step=self.global_step, batch=batch_idx, rank=self.global_rank
        )
        draws = torch.Generator().manual_seed(seed)
        loss = self._loss(batch, draws, dropout=self.hparams.prompt_dropout)
        self.log("train_loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: LatentBatch, batch_idx: int) -> None:
        # fixed noise and timesteps: curves compare across runs
        draws = torch.Generator().manual_seed(batch_idx)
        loss = self._loss(batch, draws, dropout=0.0, network=self.best)
        self.log("val_loss", loss, prog_bar=True, batch_size=len(batch["moments"]), sync_dist=True)

    def _loss(
        self,
        batch: LatentBatch,
        draws: torch.Generator,
        *,
        dropout: float,
        network: ControlNetModel | None = None,
    ) -> Tensor:
        def predict(x: Tensor, t: Tensor, context: Tensor) -> Tensor:
            control = batch["control"]
            return denoise(
                self.base.unet, network or self.controlnet, x, t, context=context, control=control
            )

        return self.base.loss(
            predict, batch, draws, empty=self.empty, dropout=dropout, gamma=self.hparams.gamma
        )

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)
        if self.average:
            follow(self.average, self.controlnet, limit=self.hparams.ema, step=self.global_step + 1)

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        if not optimizer.defaults.get("fused"):
            super().configure_gradient_clipping(
                optimizer, gradient_clip_val, gradient_clip_algorithm
            )
        elif (
            gradient_clip_val
        ):  # Lightning refuses, thinking of scaled gradients, which bfloat16 has not
            torch.nn.utils.clip_grad_norm_(self.controlnet.parameters(), gradient_clip_val)

    def configure_optimizers(self) -> Any:
        weights, options = (
            self.controlnet.parameters(),
            {"lr": self.hparams.lr, "weight_decay": self.hparams.weight_decay},
        )
        if self.memory.optimizer == "adamw8bit":
            from bitsandbytes.optim import AdamW8bit

            optimizer = AdamW8bit(weights, **options)
        else:  # one kernel instead of a dozen per tensor; not with float16, whose gradients are scaled
            fused = self.device.type == "cuda" and self.trainer.precision != "16-mixed"
            optimizer = torch.optim.AdamW(weights, **options, fused=fused)
        warm = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: min(1.0, (step + 1) / (self.hparams.warmup + 1))
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": warm, "interval": "step"}}

    def on_fit_end(self) -> None:
        self.best.to(memory_format=torch.contiguous_format)  # as safetensors wants it


def start_from(module: ControlNetModule, source: Path) -> str:
    """Put another ControlNet's weights into `module` before its first step, into the averaged copy
    too.

    Args:
        module: an untrained one.
        source: the folder of a finished ControlNet run, a diffusers folder, or a .ckpt or
            .safetensors file. Of a checkpoint with an averaged copy that one is taken, as for
            drawing.

    Returns:
        The fingerprint of the weights.

    Raises:
        FileNotFoundError: when there is nothing, or no finished run.
        ValueError: for another kind of network, other shapes, or a damaged file.
    """
    name = f"weights={source}"
    if source.is_dir():
        folder = source if (source / "config.json").exists() else source / "controlnet"
        if folder != source:
            runs.facts(source)
        if not (folder / WEIGHTS_FILE).exists():
            raise FileNotFoundError(
                f"{name}: no ControlNet's run or folder, {WEIGHTS_FILE} is not there"
            )
        state = read_checkpoint(folder / WEIGHTS_FILE, source=name)["state_dict"]
        mark = weights_hash(folder)
    else:
        state = read_checkpoint(source, source=name)["state_dict"]
        parts = {key.partition(".")[0] for key in state}
        if part := next((part for part in ("average", "controlnet") if part in parts), None):
            state = {
                key.partition(".")[2]: value
                for key, value in state.items()
                if key.startswith(f"{part}.")
            }
        mark = fingerprint_of(state)
    check_fits(module.controlnet, state, source=name)
    for network in (module.controlnet, module.average):
        if network is not None:
            network.load_state_dict(state)
    return mark
