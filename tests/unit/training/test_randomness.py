"""Everything random follows from (seed, step, position): exact resume and elasticity rest on it."""

from collections import Counter

import torch
from hypothesis import given
from hypothesis import strategies as st

from service.training.randomness import bucket_turns, draw, epoch_order, global_batch

SHAPE = (4, 2, 2)
seeds = st.integers(0, 2**31)
steps = st.integers(0, 10_000)


@given(seed=seeds, step=steps, batch=st.integers(1, 16), size=st.integers(1, 40))
def test_a_batch_has_the_asked_size_and_only_samples_that_exist(seed: int, step: int, batch: int, size: int) -> None:
    indices = global_batch(seed, step, batch, [range(size)])
    assert len(indices) == batch
    assert set(indices) <= set(range(size))


@given(seed=seeds, batch=st.integers(1, 16), size=st.integers(1, 40))
def test_every_epoch_shows_every_sample_once(seed: int, batch: int, size: int) -> None:
    stream = [index for step in range(2 * size) for index in global_batch(seed, step, batch, [range(size)])]
    epochs = [stream[start : start + size] for start in range(0, len(stream) - size + 1, size)]
    assert all(sorted(epoch) == list(range(size)) for epoch in epochs)


@given(seed=seeds, batch=st.integers(1, 9), sizes=st.lists(st.integers(1, 12), min_size=1, max_size=5))
def test_a_batch_is_of_one_bucket_and_every_image_is_seen_equally_often(
    seed: int, batch: int, sizes: list[int]
) -> None:
    ends = [sum(sizes[: number + 1]) for number in range(len(sizes))]
    buckets = [range(end - size, end) for end, size in zip(ends, sizes, strict=True)]
    # In one cycle a bucket of n images has n turns of `batch` samples: each of its images comes `batch` times.
    batches = [global_batch(seed, step, batch, buckets) for step in range(ends[-1])]
    assert all(any(set(indices) <= set(bucket) for bucket in buckets) for indices in batches)
    assert Counter(index for indices in batches for index in indices) == dict.fromkeys(range(ends[-1]), batch)


@given(seed=seeds, batch=st.integers(1, 9), sizes=st.lists(st.integers(1, 12), min_size=1, max_size=5))
def test_a_step_needs_no_step_before_it(seed: int, batch: int, sizes: list[int]) -> None:
    buckets = [[(number, index) for index in range(size)] for number, size in enumerate(sizes)]
    forwards = [global_batch(seed, step, batch, buckets) for step in range(2 * sum(sizes))]
    bucket_turns.cache_clear()
    epoch_order.cache_clear()
    backwards = [global_batch(seed, step, batch, buckets) for step in reversed(range(2 * sum(sizes)))]
    assert forwards == backwards[::-1]


@given(seed=seeds, step=steps, position=st.integers(0, 63))
def test_a_draw_depends_on_seed_step_and_position_alone(seed: int, step: int, position: int) -> None:
    first = draw(seed, step, position, shape=SHAPE, timesteps=1000, flip=0.5, drop_caption=0.5)
    torch.manual_seed(position)
    torch.rand(3)
    again = draw(seed, step, position, shape=SHAPE, timesteps=1000, flip=0.5, drop_caption=0.5)
    assert torch.equal(first.noise, again.noise)
    assert torch.equal(first.posterior_noise, again.posterior_noise)
    assert (first.flip, first.drop_caption, first.timestep) == (again.flip, again.drop_caption, again.timestep)


@given(seed=seeds, step=steps, position=st.integers(0, 63))
def test_neighbours_in_step_and_position_draw_other_noise(seed: int, step: int, position: int) -> None:
    here = draw(seed, step, position, shape=SHAPE, timesteps=1000, flip=0.5, drop_caption=0.0)
    assert not torch.equal(here.noise, here.posterior_noise)
    for other in ((seed + 1, step, position), (seed, step + 1, position), (seed, step, position + 1)):
        assert not torch.equal(here.noise, draw(*other, shape=SHAPE, timesteps=1000, flip=0.5, drop_caption=0.0).noise)


def test_flips_caption_dropout_and_timesteps_come_as_often_as_asked() -> None:
    draws = [draw(0, step, 0, shape=SHAPE, timesteps=1000, flip=0.5, drop_caption=0.1) for step in range(4000)]
    assert abs(sum(d.flip for d in draws) / 4000 - 0.5) < 0.03
    assert abs(sum(d.drop_caption for d in draws) / 4000 - 0.1) < 0.02
    timesteps = [d.timestep for d in draws]
    assert 0 <= min(timesteps) < 10
    assert 990 <= max(timesteps) < 1000
    assert abs(sum(timesteps) / 4000 - 499.5) < 20


def test_flips_never_and_always_are_exact() -> None:
    assert not any(
        draw(0, step, 0, shape=SHAPE, timesteps=1000, flip=0.0, drop_caption=0.0).flip for step in range(200)
    )
    assert all(draw(0, step, 0, shape=SHAPE, timesteps=1000, flip=1.0, drop_caption=0.0).flip for step in range(200))
