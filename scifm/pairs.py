"""Pairs of training: which x0 goes with which sample, as a pure function of the seed and the number of a block.

A block is `pool` training batches.  Their samples follow from (seed, step) as always; dequantisation noise, the draws
of the prior and the coupling over the *whole* block come from one generator, seeded by a hash of (seed, block).  A
coupling keeps the order of the data, and that order is a shuffle, so cut into batches again they are what they would
have been, each sample with a better partner: optimal transport within n samples is biased, the less the larger n
(Fatras et al. 2021), and n need not be the number of samples that fit into a training step.

Nothing depends on what was made before.  So a thread may prepare the next block while the steps of this one run, a
resumed run may start in the middle of a block, and under DDP every process makes the same block and takes its own
rows, rank, rank + world, ...: together they train on the pairs of one process, where a coupling per process would pair
within a fraction of the batch.

Work that is worth hiding, any coupling but `independent`, is done by one thread with one core, whether it runs ahead or
is waited for: sums over several threads differ in the last digit.  It works on the CPU with copies of prior and
transform, so the pairs are those of the CPU on any device.  Where nothing is paired there is no thread, and a block is
some batches long only because one large draw is cheaper than many small ones.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from scifm.batch import Batch
from scifm.couplings import independent
from scifm.data.stored import Stored
from scifm.flow import Flow
from scifm.likelihood import dequantise
from scifm.schedule import draw, seed_of

if TYPE_CHECKING:
    from scifm.recipe import Recipe

__all__ = ["Pairs"]

Block = list[tuple[Batch, Tensor]]


class Pairs:
    """The batches of a training with their x0; close it, or use `with`, to end its thread.

    Args:
        recipe: its flow, data, steps, batch_size and pool.
        seed: of the training.
        device: where batches and x0 are put.
        part: (rank, world): the rows of each batch that are this process's, rank, rank + world, ...
        ahead: whether a thread prepares the next block while this one is used; changes no number.

    Raises:
        ValueError: where the batch cannot be dealt evenly to the processes.

    Example:
        >>> from scifm import Flow, Recipe, couplings, networks, priors
        >>> from scifm.data import moons
        >>> flow = Flow(networks.MLP(2), priors.Gaussian(), coupling=couplings.OptimalTransport())
        >>> with Pairs(Recipe(flow, moons(100), batch_size=8, pool=4), seed=0) as pairs:
        ...     batch, x0 = pairs.at(5)
        >>> batch.x.shape, x0.shape
        (torch.Size([8, 2]), torch.Size([8, 2]))
    """

    def __init__(
        self, recipe: Recipe, seed: int, device: str = "cpu", part: tuple[int, int] = (0, 1), ahead: bool = True
    ):
        rank, world = part
        if not 0 <= rank < world or recipe.batch_size % world:
            raise ValueError(
                f"Pairs: batch_size={recipe.batch_size} cannot be dealt to rank {rank} of {world} processes; the batch "
                "is that of all processes together, so choose a multiple of their number."
            )
        self.recipe, self.seed, self.device, self.part, self.ahead = recipe, seed, device, part, ahead
        prior, transform = copy.deepcopy(recipe.flow.prior).cpu(), copy.deepcopy(recipe.flow.transform).cpu()
        flow = recipe.flow  # whose velocity is not needed to pair, and may be large
        self._flow = Flow(
            nn.Identity(), prior, coupling=flow.coupling, path=flow.path, objective=flow.objective, transform=transform
        )
        self.pool = recipe.pool if flow.coupling is not independent else _batches(recipe)
        self._blocks: dict[int, Callable[[], Block]] = {}  # those at hand or on their way: this one and the next
        self._thread = None if flow.coupling is independent else _one_thread()

    def at(self, step: int) -> tuple[Batch, Tensor]:
        """This process's samples of a step, in the user's units, and their x0, in model units.

        Raises:
            Exception: what went wrong while the block was made, here or in the thread, as it was raised.
        """
        block, number = divmod(step, self.pool)
        if block not in self._blocks:
            self._blocks = {block: self._start(block)}
        made = self._blocks[block]()
        if self._thread is not None and self.ahead and block + 1 not in self._blocks:
            self._blocks = {block: self._blocks[block]}
            if (block + 1) * self.pool < self.recipe.steps:
                self._blocks[block + 1] = self._start(block + 1)
        return made[number]

    @torch.no_grad()
    def block(self, block: int) -> Block:
        """The batches of a block and their x0: a pure function of the seed and the block's number."""
        recipe, (rank, world) = self.recipe, self.part
        size = recipe.batch_size
        samples = draw(len(recipe.data.train), size * self.pool, block, self.seed, recipe.data.stretches)
        generator = torch.Generator().manual_seed(seed_of(self.seed, "pairs", block))
        batch = dequantise(recipe.data.train.select(samples), recipe.data.delta, generator)
        x0 = self._flow.pair(self._flow.transform(batch), generator)
        if self.pool == world == 1:
            cut = [(batch, x0)]
        else:
            layout = batch.replace(x0)
            parts = [torch.arange(first + rank, first + size, world) for first in range(0, len(batch), size)]
            cut = [(batch.select(part), layout.select(part).x) for part in parts]
        if torch.device(self.device).type == "cpu":
            return cut
        return [(batch.to(self.device), x0.to(self.device)) for batch, x0 in cut]

    def _start(self, block: int) -> Callable[[], Block]:
        if self._thread is None:
            made = self.block(block)
            return lambda: made
        future: Future[Block] = self._thread.submit(self.block, block)
        return future.result

    def close(self) -> None:
        """End the thread; a block that is being made is finished and forgotten."""
        if self._thread is not None:
            self._thread.shutdown(wait=False, cancel_futures=True)
        self._blocks = {}

    def __enter__(self) -> Pairs:
        return self

    def __exit__(self, *exception: Any) -> None:
        self.close()


def _batches(recipe: Recipe, most: int = 16, numbers: int = 2**20) -> int:
    """Batches of a block where nothing is paired: a few, as long as they are small."""
    train = recipe.data.train
    each = train.head.x.numel() if isinstance(train, Stored) else train.x.numel() / len(train)
    batch = each * recipe.batch_size
    return max(recipe.pool, min(most, int(numbers / batch)))


def _one_thread() -> ThreadPoolExecutor:
    """A thread of one core, which leaves the others to the training step."""
    threads = torch.get_num_threads()
    pool = ThreadPoolExecutor(1, thread_name_prefix="scifm-pairs")
    pool.submit(_one_core).result()
    torch.set_num_threads(threads)  # set for one thread, it is also what threads born later are given
    return pool


def _one_core() -> None:
    torch.get_num_threads()  # a thread takes the process's number when it first asks, which would undo the next line
    torch.set_num_threads(1)
