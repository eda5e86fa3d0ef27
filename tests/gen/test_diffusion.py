"""Noising, targets, weights, guidance and sampling against their formulas, with networks of two
lines."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cmrgen.diffusion import (
    clean_from_velocity,
    diffusion_loss,
    ema_update,
    guided,
    integrate,
    latent,
    loss_weight,
    noised,
    row_noise,
    stratified_timesteps,
    velocity,
    within,
)
from cmrgen.render.sampler import SAMPLERS, Sampler
from cmrgen.training.small_base import SCHEDULE

SHAPE = (4, 8, 8)
ALPHAS = Sampler("ddim").scheduler(SCHEDULE).alphas_cumprod
few = settings(max_examples=20, deadline=None)


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@few
@given(a=st.floats(0, 1), seed=st.integers(0, 99))
def test_noising_and_velocity_are_a_rotation_that_inverts(a, seed):
    x0, noise = drawn(2, 3, *SHAPE, seed=seed)
    a = torch.tensor(a).view(1, 1, 1, 1)
    x, v = noised(x0, noise, a), velocity(x0, noise, a)
    torch.testing.assert_close(clean_from_velocity(x, v, a), x0, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close((1 - a).sqrt() * x + a.sqrt() * v, noise, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(
        x.square() + v.square(), x0.square() + noise.square(), atol=1e-4, rtol=1e-4
    )


def test_at_the_ends_there_is_only_image_or_only_noise():
    x0, noise = drawn(2, 1, *SHAPE)
    one, zero = torch.ones(1, 1, 1, 1), torch.zeros(1, 1, 1, 1)
    assert torch.equal(noised(x0, noise, one), x0) and torch.equal(noised(x0, noise, zero), noise)
    assert torch.equal(velocity(x0, noise, one), noise) and torch.equal(
        velocity(x0, noise, zero), -x0
    )


def test_a_latent_has_the_mean_and_spread_its_moments_say():
    mean, logvar = torch.tensor([3.0, -1.0]), torch.tensor([0.5, -2.0])
    shift, scale = torch.tensor([1.0, 2.0]).view(2, 1, 1), torch.tensor([0.5, 4.0]).view(2, 1, 1)
    moments = torch.cat([mean, logvar]).view(1, 4, 1, 1).expand(1, 4, 200, 200)
    z = latent(moments, drawn(1, 2, 200, 200), shift=shift, scale=scale)[0]
    torch.testing.assert_close(
        z.mean((1, 2)), (mean - shift.flatten()) * scale.flatten(), atol=0.05, rtol=0
    )
    torch.testing.assert_close(
        z.std((1, 2)), (logvar / 2).exp() * scale.flatten(), atol=0, rtol=0.02
    )


def test_a_latent_is_never_the_cached_mean():
    moments = torch.cat([torch.zeros(1, *SHAPE), torch.full((1, *SHAPE), 4.0)], 1)
    unit = {"shift": torch.zeros(4, 1, 1), "scale": torch.ones(4, 1, 1)}
    first, second = (latent(moments, drawn(1, *SHAPE, seed=seed), **unit) for seed in (1, 2))
    assert (first != 0).all() and (second != 0).all() and (first != second).all()
    assert torch.equal(first, latent(moments, drawn(1, *SHAPE, seed=1), **unit))


@pytest.mark.parametrize("logvar", [-1e4, 1e4])
def test_an_absurd_variance_stays_finite(logvar):
    moments = torch.cat([torch.zeros(1, *SHAPE), torch.full((1, *SHAPE), logvar)], 1)
    assert (
        latent(moments, drawn(1, *SHAPE), shift=torch.zeros(1), scale=torch.ones(1))
        .isfinite()
        .all()
    )


def knows(x0: torch.Tensor, prediction: str):
    """The perfect predictor of one image: its only information about the noise is x."""

    def predict(x, t):
        a = ALPHAS[t].view(-1, 1, 1, 1)
        if prediction == "v_prediction":
            return (a.sqrt() * x - x0) / (1 - a).sqrt()
        return (x - a.sqrt() * x0) / (1 - a).sqrt()

    return predict


@pytest.mark.parametrize("gamma", [None, 5.0])
@pytest.mark.parametrize("prediction", ["v_prediction", "epsilon"])
def test_a_perfect_predictor_has_no_loss_and_another_has(prediction, gamma):
    x0, noise = drawn(2, 5, *SHAPE)
    t = torch.tensor([20, 250, 500, 900, 999])
    kind = {"alphas": ALPHAS, "prediction": prediction, "gamma": gamma}
    loss = diffusion_loss(knows(x0, prediction), x0, noise, t, **kind)
    assert loss.shape == (5,) and loss.max() < 1e-6
    assert (diffusion_loss(knows(x0 + 0.3, prediction), x0, noise, t, **kind)[:4] > 1e-4).all()


def test_the_loss_is_the_weighted_mean_square_of_each_sample_alone():
    x0, noise = drawn(2, 4, *SHAPE)
    t = torch.tensor([10, 300, 700, 999])
    kind = {"alphas": ALPHAS, "prediction": "v_prediction"}

    def ones(x, t):
        return velocity(x0, noise, ALPHAS[t].view(-1, 1, 1, 1)) + torch.arange(4.0).view(
            -1, 1, 1, 1
        )

    plain = diffusion_loss(ones, x0, noise, t, gamma=None, **kind)
    torch.testing.assert_close(plain, torch.tensor([0.0, 1, 4, 9]), atol=1e-5, rtol=1e-5)
    weights = loss_weight(ALPHAS[t], prediction="v_prediction", gamma=5)
    torch.testing.assert_close(diffusion_loss(ones, x0, noise, t, gamma=5, **kind), plain * weights)


@pytest.mark.parametrize(
    ("a", "prediction", "expected"),
    [
        (0.5, "v_prediction", 1 / 2),
        (0.5, "epsilon", 1),
        (0.9, "v_prediction", 5 / 10),
        (0.9, "epsilon", 5 / 9),
        (0.2, "v_prediction", 0.25 / 1.25),
        (0.2, "epsilon", 1),
        (0.0, "v_prediction", 0.05),
        (0.0, "epsilon", 0.05),
    ],
)
def test_min_snr_weight_at_known_noise(a, prediction, expected):
    """SNR = a / (1 - a); gamma 5; the floor of 0.05 at pure noise."""
    assert loss_weight(torch.tensor([a]), prediction=prediction, gamma=5).item() == pytest.approx(
        expected, rel=1e-5
    )


@pytest.mark.parametrize("prediction", ["v_prediction", "epsilon"])
def test_weights_are_finite_and_positive_over_the_whole_schedule(prediction):
    assert ALPHAS[-1] < 1e-6  # zero terminal SNR
    ends = torch.cat([ALPHAS, torch.tensor([0.0, 1.0])])
    weights = loss_weight(ends, prediction=prediction, gamma=5)
    assert weights.isfinite().all() and (weights >= 0.05).all() and (weights <= 1).all()
    assert torch.equal(loss_weight(ends, prediction=prediction, gamma=None), torch.ones(len(ends)))


def test_pure_noise_gives_a_finite_gradient():
    weight = torch.ones(1, requires_grad=True)
    predict = lambda x, t: weight * x  # noqa: E731
    x0, noise = drawn(2, 1, *SHAPE)
    kind = {"alphas": torch.zeros(1), "prediction": "v_prediction", "gamma": 5.0}
    diffusion_loss(predict, x0, noise, torch.tensor([0]), **kind).sum().backward()
    assert weight.grad.isfinite().all() and weight.grad.abs() > 0


@pytest.mark.parametrize("n", [1, 4, 10, 20, 100])
def test_each_of_n_equal_bins_gets_one_timestep(n):
    orders = set()
    for seed in range(10):
        t = stratified_timesteps(n, steps=1000, generator=torch.Generator().manual_seed(seed))
        assert t.dtype == torch.int64 and t.min() >= 0 and t.max() < 1000
        assert (t.sort().values // (1000 // n)).tolist() == list(range(n))
        orders.add(tuple((t // (1000 // n)).tolist()))
    assert n < 4 or len(orders) > 5  # which sample is the noisy one is drawn too


@few
@given(n=st.integers(1, 64), steps=st.integers(1, 1000), seed=st.integers(0, 99))
def test_timesteps_stay_in_range_for_any_batch(n, steps, seed):
    t = (
        stratified_timesteps(n, steps=steps, generator=torch.Generator().manual_seed(seed))
        .sort()
        .values
    )
    low = torch.arange(n) * steps / n
    assert ((t >= low.floor() - 1e-3) & (t <= (low + steps / n).ceil())).all() and t.max() < steps


class Counting:
    """A predictor linear in x and prompt that counts its calls and rows."""

    def __init__(self):
        self.rows = []

    def __call__(self, x, t, context, rows, steered=None):
        assert len(rows) == len(x) == len(context)
        self.rows.append(len(x))
        return x * 0.5 + context.mean((1, 2)).view(-1, 1, 1, 1)


def test_guidance_of_one_is_the_conditional_predictor_in_one_forward():
    x, words, empty = drawn(3, *SHAPE), drawn(3, 5, 6), drawn(1, 5, 6, seed=1)
    counting = Counting()
    got = guided(counting, context=words, empty=empty, scale=torch.ones(3))(x, torch.tensor(7))
    assert counting.rows == [3] and torch.equal(got, Counting()(x, 7, words, range(3)))


@pytest.mark.parametrize("scale", [[3.0, 3.0, 3.0], [0.0, 1.0, 4.0]])
def test_guidance_extrapolates_each_row_from_the_empty_prompt(scale):
    x, words, empty = drawn(3, *SHAPE), drawn(3, 5, 6), drawn(1, 5, 6, seed=1)
    counting, s = Counting(), torch.tensor(scale)
    got = guided(counting, context=words, empty=empty, scale=s)(x, torch.tensor(7))
    conditional = Counting()(x, 7, words, range(3))
    unconditional = Counting()(x, 7, empty.expand_as(words), range(3))
    wanted = unconditional + s.view(-1, 1, 1, 1) * (conditional - unconditional)
    torch.testing.assert_close(got, wanted)
    assert counting.rows == [3 + sum(k != 1 for k in scale)]


def test_bare_guidance_starts_from_what_sees_neither_prompt_nor_mask():
    x, words, empty, s = (
        drawn(3, *SHAPE),
        drawn(3, 5, 6),
        drawn(1, 5, 6, seed=1),
        torch.tensor([3.0, 1.0, 2.0]),
    )

    def predict(x, t, context, rows, steered):
        assert steered.tolist() == [2, 3, 4] and rows.tolist() == [0, 2, 0, 1, 2]
        sees = torch.zeros(5).index_fill(0, steered, 1)
        return (
            x
            + context.mean((1, 2)).view(-1, 1, 1, 1)
            + 10 * sees.view(-1, 1, 1, 1) * (rows + 1).view(-1, 1, 1, 1)
        )

    got = guided(predict, context=words, empty=empty, scale=s, bare=True)(x, torch.tensor(7))
    seen, free = words.mean((1, 2)) + torch.tensor([10.0, 20.0, 30.0]), empty.mean()
    torch.testing.assert_close(
        got, x + torch.where(s == 1, seen, free + s * (seen - free)).view(-1, 1, 1, 1)
    )


@few
@given(seeds=st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=8), pick=st.integers(0, 7))
def test_a_rows_noise_depends_on_its_seed_alone(seeds, pick):
    pick %= len(seeds)
    together, alone = row_noise(seeds, SHAPE), row_noise([seeds[pick]], SHAPE)
    assert together.shape == (len(seeds), *SHAPE) and torch.equal(together[pick], alone[0])
    assert torch.equal(row_noise(seeds[::-1], SHAPE), together.flip(0))


def test_row_noise_is_standard_normal_and_leaves_the_global_generator_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    noise = row_noise(range(200), SHAPE)
    assert torch.equal(torch.get_rng_state(), before)
    assert abs(noise.mean()) < 0.02 and abs(noise.std() - 1) < 0.02
    assert len({row.sum().item() for row in noise}) == 200


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_recovers_the_image_a_perfect_predictor_knows(name):
    x0 = drawn(2, *SHAPE, seed=3)
    got = integrate(
        knows(x0, "v_prediction"),
        row_noise([1, 2], SHAPE),
        scheduler=Sampler(name).scheduler(SCHEDULE),
        steps=8,
    )
    torch.testing.assert_close(got, x0, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_follows_the_flow_of_a_gaussian(name):
    """Data N(2, 0.5^2): the probability flow carries noise z to 2 + 0.5 z (Song 2021, eq. 13)."""
    mu, sd = 2.0, 0.5

    def predict(x, t):
        a = ALPHAS[t].view(-1, 1, 1, 1)
        clean = mu + sd**2 * a.sqrt() * (x - a.sqrt() * mu) / (a * sd**2 + 1 - a)
        return (a.sqrt() * x - clean) / (1 - a).sqrt()

    z = row_noise(range(4), SHAPE)
    errors = [
        (
            integrate(predict, z, scheduler=Sampler(name).scheduler(SCHEDULE), steps=steps)
            - (mu + sd * z)
        )
        .abs()
        .max()
        for steps in (10, 80)
    ]
    assert errors[1] < 0.1 and errors[1] < errors[0]


def test_the_average_follows_its_formula_and_leaves_no_graph():
    average = torch.nn.Linear(3, 2).requires_grad_(False)
    current = torch.nn.Linear(3, 2)
    wanted = [
        0.9 * a + 0.1 * c.detach()
        for a, c in zip(average.parameters(), current.parameters(), strict=True)
    ]
    kept = [c.detach().clone() for c in current.parameters()]
    (current(torch.ones(1, 3)).sum() * 2).backward()
    ema_update(average.parameters(), current.parameters(), 0.9)
    for a, w in zip(average.parameters(), wanted, strict=True):
        torch.testing.assert_close(a.data, w)
        assert not a.requires_grad and a.grad_fn is None and a.grad is None
    assert all(torch.equal(c, k) for c, k in zip(current.parameters(), kept, strict=True))


@pytest.mark.parametrize(("decay", "wanted"), [(1.0, 5.0), (0.0, 1.0)])
def test_a_decay_of_one_keeps_and_of_zero_replaces(decay, wanted):
    average, current = [torch.full((3,), 5.0)], [torch.ones(3)]
    ema_update(average, current, decay)
    assert torch.equal(average[0], torch.full((3,), wanted))


@pytest.mark.parametrize(
    ("interval", "steps", "inside"),
    [
        ((0.25, 0.75), 8, [2, 3, 4, 5]),
        ((0.0, 0.5), 5, [0, 1, 2]),
        ((0.5, 1.0), 4, [2, 3]),
        ((0.3, 0.3), 4, []),
    ],
)
@pytest.mark.parametrize("name", SAMPLERS)
def test_the_inner_predictor_is_asked_in_its_share_of_the_steps(name, interval, steps, inside):
    asked, solver = [], Sampler(name).scheduler(SCHEDULE)
    arms = {arm: lambda x, t, arm=arm: (asked.append(arm), x)[1] for arm in ("inside", "outside")}
    integrate(
        within(interval, **arms, scheduler=solver, steps=steps),
        drawn(1, *SHAPE),
        scheduler=solver,
        steps=steps,
    )
    assert asked == ["inside" if k in inside else "outside" for k in range(steps)]
    assert within((0, 1), **arms, scheduler=solver, steps=steps) is arms["inside"]
