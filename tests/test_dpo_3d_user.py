"""A user's training log: the three D's, the fit and the safe ratios against theory, and what is refused."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments._record import plain
from experiments.dpo_3d import user
from experiments.dpo_3d._fit import fit_margin
from experiments.dpo_3d._log import read_log
from experiments.dpo_3d.table import START, L, W, closed_form, table_loss
from experiments.dpo_3d.user import EXAMPLE, User, analysis, table_bound
from experiments.harness import Experiment
from sandbox import losses
from sandbox.algebra import flow_margin
from sandbox.dynamics import train
from sandbox.losses import response_pair
from sandbox.measures import gradient_products
from tests.tolerances import Tolerance, assert_close

# The example: four responses, chosen, rejected and two unseen; the second unseen has the score 3/2.
FEATURES = ((1.0, 0.5), (0.0, 0.5), (0.5, -1.0), (1.5, 0.0))
LAW = (0.05, 0.35, 0.55, 0.05)
BETA, STEPS = 0.1, 10_000


def now(theta, features, start):
    return jax.nn.log_softmax(start + features @ theta)


def example_loss(theta, features, start):
    return losses.dpo(response_pair(now(theta, features, start), start, 0, 1), beta=BETA)


def example_record(theta, features, start):
    log_probs = now(theta, features, start)
    g_w, g_l = jax.jacrev(lambda theta: now(theta, features, start)[:2])(theta)
    return log_probs, gradient_products(g_w, g_l)


def example_columns():
    """What is in log.csv: gradient descent with DPO at learning rate 1, at steps 0, 1, ... about eight a decade."""
    features, start = jnp.array(FEATURES), jnp.log(jnp.array(LAW))
    log_probs, products = train(
        example_loss, jnp.zeros(2), (features, start), steps=STEPS, learning_rate=1.0, record=example_record
    ).history
    steps = np.unique(np.concatenate([[0], np.round(10 ** np.linspace(0, np.log10(STEPS), 33)).astype(int)]))
    names = ("chosen", "rejected", "plain", "lookalike")
    columns = {name: np.asarray(log_probs[steps, k]) for k, name in enumerate(names)}
    return {"step": steps, **columns, **{name: np.asarray(x)[steps] for name, x in products._asdict().items()}}


def of(log, **flags):
    return analysis(User(log=log, **flags))[0]


@pytest.fixture
def csv(tmp_path):
    """Write columns, by default those of a short good log, to a file; its path."""

    def csv(columns=None, name="mine.csv", **changed):
        columns = {"step": [0, 1, 2, 4], "chosen": [-3, -2.5, -2.2, -2], "rejected": [-1, -2, -3, -4]} | changed \
            if columns is None else columns | changed  # fmt: skip
        lines = [
            ",".join(columns),
            *(",".join(map(repr, map(float, row))) for row in zip(*columns.values(), strict=True)),
        ]
        (tmp_path / name).write_text("\n".join(lines) + "\n")
        return tmp_path / name

    return csv


@pytest.fixture
def run(command):
    """The command line of an experiment that only reports."""
    from experiments.dpo_3d.setup import Setup

    experiment = Experiment(
        "dpo_3d", "A log.", Setup, lambda s, k: {}, lambda s, m: (), lambda s, m, v: (), user=User, report=user.report
    )
    return partial(command, experiment)


def in_float64(function, *args):
    with jax.enable_x64(True):
        return np.asarray(function(*args))


def table_log(beta, steps, law=START):
    """Log-probabilities (rows, responses) of DPO's flow in a table, in float64: time is steps."""
    steps, start = np.asarray(steps, float), np.log(law)
    return in_float64(lambda: jax.vmap(lambda t: closed_form(jnp.asarray(start), beta, t))(jnp.asarray(steps)))


def as_columns(steps, log_probs):
    return {"step": steps, "chosen": log_probs[:, W], "rejected": log_probs[:, L]}


LATE = np.concatenate([[0], np.logspace(0, 9, 46)])
PRINTED = Tolerance(1e-8, 1e-12, "a least-squares fit of exact data: rounding times the condition of two constants")


# -- the fit -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("beta", [0.05, 0.1, 0.5, 2.0])
@pytest.mark.parametrize("rate", [1e-6, 0.02, 30.0])
@pytest.mark.parametrize("clock", [1.0, 1e5])
def test_the_fit_finds_the_constants_of_a_closed_form(beta, rate, clock):
    """At rate times time 1 the margin has hardly bent, at 1e5 it is a logarithm; 40 rows, evenly in time."""
    time = np.linspace(0, clock / rate, 40)
    fit = fit_margin(time, in_float64(flow_margin, 1 + rate * time) / beta)
    assert_close([fit.beta, fit.rate, fit.r2, fit.clock], [beta, rate, 1.0, clock], PRINTED)
    assert fit.word == ""


def test_time_before_the_first_row_counts():
    """The margin is then counted from the first row, time still from the reference."""
    time, beta, rate = np.linspace(50, 5_000, 60), 0.1, 0.02
    u = in_float64(flow_margin, 1 + rate * time)
    fit = fit_margin(time, (u - u[0]) / beta)
    assert_close([fit.beta, fit.rate], [beta, rate], PRINTED)


def test_noise_widens_the_errors():
    """Means of 100 fits lie within 4 standard errors of the constants, and the errors given are those seen."""
    time, beta, rate, noise = np.linspace(0, 2_000, 101), 0.1, 0.02, 0.3
    clean = in_float64(flow_margin, 1 + rate * time) / beta
    rng = np.random.default_rng(0)
    fits = [fit_margin(time, clean + np.r_[0, rng.normal(0, noise, 100)]) for _ in range(100)]
    logs = np.log([[fit.beta, fit.rate] for fit in fits])
    errors = np.mean([fit.errors for fit in fits], axis=0)
    assert (np.abs(logs.mean(axis=0) - np.log([beta, rate])) < 4 * errors / np.sqrt(100) + errors**2).all()  # + bias
    spread = logs.std(axis=0, ddof=1) / errors
    assert (np.abs(spread - 1) < 4 / np.sqrt(2 * 100)).all()  # of a standard deviation from 100


@pytest.mark.parametrize(
    ("margin", "said"),
    [
        (np.linspace(0, 3, 20), "not bent down yet"),
        (np.linspace(0, 3, 20) ** 2, "not bent down yet"),  # it speeds up, which DPO's never does
        (in_float64(flow_margin, 1 + 0.001 * np.arange(20)) / 0.1, "not bent down yet"),
        (
            in_float64(flow_margin, 1 + 0.15 * np.arange(20)) / 0.1
            + np.r_[0, np.random.default_rng(3).normal(0, 1, 19)],
            "tell beta",
        ),
        (-np.linspace(0, 3, 20), "has not grown"),
        (np.zeros(20), "has not grown"),
        (np.array([0, 1, 1.5]), "4 rows"),
    ],
)
def test_what_cannot_be_told_is_said_so(margin, said):
    fit = fit_margin(np.arange(len(margin), dtype=float), margin)
    assert fit.beta is fit.rate is fit.errors is fit.clock is None
    assert said in fit.word


def test_only_the_logarithm_seen():
    """From rows that are all late the slope in log time gives beta, and nothing tells the rate."""
    time = np.logspace(6, 9, 40)
    margin = np.log(time / time[0]) / 0.1 + np.random.default_rng(0).normal(0, 0.1, 40) * (time > time[0])
    fit = fit_margin(time, margin)
    assert_close(fit.beta, 0.1, Tolerance(0.02, 0, "four standard errors"))
    assert fit.rate is None
    assert "starts too late" in fit.word


# -- the three D's -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("beta", [0.25, 0.5, 1.0])
def test_late_in_a_table_the_rejected_falls_like_time_to_the_minus_one_over_beta(csv, beta):
    record = of(csv(as_columns(LATE, table_log(beta, LATE))))
    # d log pi_l / d log t is -s u' t, s the mean score: 1 - s is a few t^(-1/2 beta), u' t is 1 up to log(t) / t
    late = Tolerance(0.01, 0, "1 - pi_w and log(t) / t, in the decade up to 1e9")
    assert_close(record["D1"], 1 / beta, late)
    assert_close(record["D2_last"], 1.0, late)
    assert record["D2c"] == 0
    assert_close([record["fit"]["beta"], record["fit"]["rate"]], [beta, 2 * beta**2], PRINTED)
    assert record["words"]["D1"].startswith("drastic" if beta < 1 else ("drastic", "no faster"))
    assert record["words"]["D3"].startswith("no more than a table allows; given back")


def test_cross_entropy_is_the_yardstick(csv):
    """From a uniform start the others fall like 1 / (K t), and DPO's closed form does not fit."""
    ahead = np.linspace(0, 25, 60)
    time, log_z = (4 * ahead + np.exp(ahead) - 1) / 5, np.log(np.exp(ahead) + 4)
    record = of(csv({"step": time, "chosen": ahead - log_z, "rejected": -log_z}))
    assert_close(record["D1"], 1.0, Tolerance(1e-6, 0, "log(t) / t at the times of the last decade, above 1e9"))
    assert_close(record["D3"], 0.0)


def test_shares_of_a_constructed_log(csv):
    """A rise of 1 and then a fall of 2, against a fall of 6: the share is 6 / (6 - 1); of late 3 / (3 - 1)."""
    steps = np.array([0, 10, 100, 300, 1000])
    scale = np.log10([10, 10, 100, 300, 1000]) - 1
    chosen, rejected = -5 + np.array([0, 1, 1, 1, 1]) - scale, -8 - 3 * scale
    record = of(csv({"step": steps, "chosen": chosen, "rejected": rejected}))
    assert_close([record["D2"], record["D2_last"]], [6 / 5, 3 / 2])
    assert_close([record["D2c"], record["peak"]], [2.0, 10.0])
    assert_close(record["D1"], 3 / np.log(10))
    words = record["words"]
    assert "the chosen has fallen too" in words["D2"] and "the chosen falls too" in words["D2_last"]
    assert "falls from step 10 on" in words["D2c"]


@pytest.mark.parametrize(
    ("chosen", "rejected", "share", "said"),
    [(1, -1, 0.5, "moves no more"), (1, -3, 0.75, "moves more"), (3, 1, -0.5, "the rejected has risen too"),
     (-1, -1, None, "the margin has not grown"), (-1, 1, None, "the margin has not grown"),
     (1, 0, 0.0, "moves no more")],
)  # fmt: skip
def test_the_share_and_its_thresholds(csv, chosen, rejected, share, said):
    x = np.array([0, 1, 2, 4]) / 4
    record = of(csv(chosen=-5 + chosen * x, rejected=-5 + rejected * x))
    assert share is record["D2"] if share is None else np.isclose(share, record["D2"])
    assert said in record["words"]["D2"]
    assert (record["D2_last"] is None) == (share is None)


def test_gradient_descent_in_a_table(csv):
    """The bound on the unseen is reached and not passed, in any step size; fit within a step's error of the flow."""
    start, beta, rate = jnp.log(jnp.array(START)), 0.5, 0.1
    run = train(
        table_loss, start, (start, beta), steps=2_000, learning_rate=rate, record=lambda z, *_: jax.nn.log_softmax(z)
    )
    log_probs = np.minimum(np.asarray(run.history, float), 0)
    record = of(csv(as_columns(np.arange(2_001), log_probs)), logged_learning_rate=rate)
    bound = record["thresholds"]["D3"]
    assert_close(bound, -np.log(1 - (np.sqrt(0.4) - np.sqrt(0.05)) ** 2))
    # the peak lies between two steps: log U is flat there, (d log U/dg) dg is below 1e-3
    assert_close(record["D3"], bound, Tolerance(0, 1e-3, "the peak between two steps"))
    assert record["D3"] <= bound + 1e-5
    step = Tolerance(2 * beta**2 * rate, 0, "O(rate times learning rate): what a step of descent adds to the flow")
    assert_close([record["fit"]["beta"], record["fit"]["rate"]], [beta, 2 * beta**2], step)
    assert_close(record["square"], 2.0, Tolerance(4 * beta**2 * rate, 0, step.why))
    assert record["D2c"] == 0 and 0.5 < record["D2_last"] < 1
    assert record["words"]["fit"] == "follows the closed form"
    listed = {f"o{k}": log_probs[:, k] for k in (2, 3, 4)}
    again = of(csv(as_columns(np.arange(2_001), log_probs) | listed))
    assert_close(
        again["D3"], record["D3"], Tolerance(0, 1e-5, "float32: 1 - pi_w - pi_l against the sum of the others")
    )
    part = of(csv(as_columns(np.arange(2_001), log_probs) | {"o": log_probs[:, 3]}))  # all unseen gain alike
    assert_close(part["D3"], record["D3"], Tolerance(0, 1e-5, "the same"))


@pytest.mark.parametrize("p", [(0.05, 0.4, 0.55), (0.02, 0.8, 0.18), (0.3, 0.31, 0.39), (0.001, 0.998, 0.001)])
def test_the_threshold_is_the_theorem(p):
    from theory.dpo_3d.softmax import dispersion_is_bounded

    most = dispersion_is_bounded(jnp.array(p), 0, 1, 1.0).rhs
    assert_close(table_bound(*np.log(p[:2])), np.log(most / p[2]))
    assert table_bound(*np.log(p[1::-1])) == 0


def test_long_responses_leave_the_unseen_unknown(csv):
    record = of(csv(chosen=[-90, -89, -88, -87], rejected=[-80, -85, -90, -99]))
    assert record["D3"] is record["D3_end"] is record["thresholds"]["D3"] is None
    assert "log columns of unseen responses" in record["words"]["D3"]
    listed = of(csv(chosen=[-90, -89, -88, -87], rejected=[-80, -85, -90, -99], other=[-70, -69, -68, -69]))
    assert_close([listed["D3"], listed["D3_end"]], [2.0, 1.0])
    assert "more than a table allows" in listed["words"]["D3"]
    assert_close(listed["thresholds"]["D3"], 0.0)


def test_what_is_no_distribution_leaves_the_unseen_unknown(csv):
    """Log-probabilities per token, say."""
    record = of(csv(chosen=[-0.4] * 4, rejected=[-0.5, -0.6, -0.7, -0.8]))
    assert record["D3"] is None and "at step 0 sum to 1.28" in record["words"]["D3"]
    assert of(csv(chosen=[-0.4] * 4, rejected=[-9, -9.5, -9, -10], o=[-0.5] * 4))["D3"] is None
    assert of(csv(chosen=[0] * 4, rejected=[-9, -9.5, -9, -10]))["D3"] is None


def test_a_rest_below_the_rounding_is_none(csv):
    record = of(csv(chosen=[-2, -1, -0.5, -0.0004], rejected=[-1, -2, -3, -9]))
    rest = 1 - np.exp([-2, -1, -0.5]) - np.exp([-1, -2, -3])
    assert_close(record["D3"], np.log(rest.max() / rest[0]))
    assert record["D3_end"] == -np.inf


def test_few_rows_late(csv):
    record = of(csv(step=[0, 1, 10, 1000]))
    assert record["D1"] is record["D2_last"] is None
    assert "fewer than 3 rows" in record["words"]["D1"] and "fewer than 3 rows" in record["words"]["D2_last"]
    assert record["D2"] is not None


def test_too_early_for_a_power_is_said(csv):
    steps = np.arange(0, 200, 5)  # rate 0.02: rate times time below 4
    words = of(csv(as_columns(steps, table_log(0.1, steps))))["words"]
    assert "too early for a power of time (rate times time is 3.9, not 10)" in words["D1"]
    assert "less than a decade" in of(csv(step=[100, 110, 120, 130]))["words"]["D1"]


# -- the safe ratios ---------------------------------------------------------------------------------------------------


def test_the_interval_is_that_of_the_rejected_over_the_chosen(csv):
    """g_w = (3, 0), g_l = (1, 1): chosen rises for 9 > 3 r, rejected falls for 2 r > 3: r from 3/2 to 3."""
    norms = {"norm_chosen": [3.0] * 4, "norm_rejected": [2**0.5] * 4, "inner": [-1.0, 0.0, 1.0, 3.0]}
    record = of(csv(**norms))
    assert_close(record["safe_ratio"], [1.5, 3.0])
    assert record["unsafe"] == {"rows": 1, "chosen_falls": 0, "steps": [4.0, 4.0]}
    assert_close(record["ratio_of_norms"], 3 / 2**0.5)
    other = of(csv(norm_chosen=norms["norm_rejected"], norm_rejected=norms["norm_chosen"], inner=norms["inner"]))
    assert_close(other["safe_ratio"], [1 / 3, 2 / 3])
    assert other["unsafe"]["chosen_falls"] == 1
    assert of(csv(**norms | {"inner": [0.1, 0.1, 0.1, -1]}))["safe_ratio"] == [0, np.inf]


def test_inside_the_interval_a_step_does_what_is_said(csv):
    """Random gradients, log-probabilities linear in theta: a step along r = beta_rejected / beta_chosen decides."""
    rng = np.random.default_rng(0)
    g_w, g_l = rng.normal(size=(2, 400, 2))
    products = gradient_products(g_w, g_l)
    path = csv({"step": np.arange(400), "chosen": -np.ones(400), "rejected": -2 - np.arange(400) / 400},
               **{name: np.asarray(x) for name, x in products._asdict().items()})  # fmt: skip
    low, high = user.safe_ratios(read_log(path))
    for ratio in (0.5, 1.0, 2.0):
        step = g_w - ratio * g_l
        safe = (np.sum(g_w * step, axis=1) > 0) & (np.sum(g_l * step, axis=1) < 0)
        assert 50 < safe.sum() < 350
        np.testing.assert_array_equal((low < ratio) & (ratio < high), safe)


def test_parallel_gradients_printed_with_four_digits(csv):
    record = of(csv(norm_chosen=[1.234] * 4, norm_rejected=[2.346] * 4, inner=[2.8951] * 4))  # product 2.894964
    low, high = record["safe_ratio"]
    assert_close(low, high)


# -- the example -------------------------------------------------------------------------------------------------------


def test_the_example_is_what_gradient_descent_gives():
    log, made = read_log(EXAMPLE), example_columns()
    printed = (
        Tolerance(1e-6, 1e-6, "seven digits")
        if jax.config.jax_enable_x64
        else Tolerance(2e-3, 2e-3, "float32, 10,000 steps")
    )
    for name in ("step", "chosen", "rejected"):
        assert_close(getattr(log, name), made[name], printed, name)
    for name, column in log.unseen.items():
        assert_close(column, made[name], printed, name)
    for name, column in zip(("norm_chosen", "norm_rejected", "inner"), log.products, strict=True):
        assert_close(column, made[name], printed, name)


def test_the_example_shows_all_three():
    """Score 3/2 of the unseen: in the end D1 is 1.5 / beta, the share 3/2, and the unseen take all."""
    record = of("example", logged_learning_rate=1.0)
    assert_close(record["fit"]["beta"], BETA, Tolerance(0.01, 0, "O(rate times learning rate), rate 0.01"))
    assert_close(record["square"], 1.0, Tolerance(0.02, 0, "the same, twice"))
    assert_close(record["D1"], 1.5 / BETA, Tolerance(0.05, 0, "the crest of u' t after u = 2 is 5% at most"))
    assert_close(record["D2_last"], 1.5, Tolerance(1e-3, 0, "mass outside of the last response"))
    assert record["D2c"] > 20 and record["D3"] > record["thresholds"]["D3"]
    assert_close(record["D3"], -np.log(sum(LAW[2:])), Tolerance(1e-6, 1e-6, "seven digits"))
    assert 1.2 < record["peak"] / 58 * 1.3 < 1.4  # g = 2.685 at t = 58, between rows


def test_the_example_runs(run, tmp_path):
    status, found, out, err = run("--log", "example")
    assert (status, err) == (0, "")
    said = {key: value for key, value in found["user"].items() if key != "given"}
    assert said == plain(of("example"))
    assert {"rows", "D1", "D2", "D3", "fit", "safe_ratio"} <= set(said)
    assert set(said["fit"]) == {"beta", "rate", "r2"}
    (drawing,) = found["figures"]
    assert "D3 = 0.511" in drawing["caption"]
    assert (tmp_path / "out" / "dpo_3d" / f"{drawing['name']}.png").stat().st_size > 20_000
    assert max(map(len, out.splitlines())) <= 120
    assert "ratio of the norms" in out


def test_a_log_of_the_least_is_reported(run, csv):
    """Everything unknown that can be: a table, a figure, nulls, no warning."""
    path = csv({"step": [0, 1, 1000], "chosen": [-50, -50, -51], "rejected": [-60, -60, -60]})
    status, found, out, err = run("--log", path)
    assert (status, err) == (0, "")
    said = found["user"]
    assert [said[name] for name in ("D1", "D2", "D3", "safe_ratio")] == [None] * 4
    assert said["fit"] == {"beta": None, "rate": None, "r2": None}
    assert set(said["unknown"]) == {"D1", "D2", "D2_last", "D3", "fit"}
    assert out.count("unknown") == 4


# -- what is refused ---------------------------------------------------------------------------------------------------

HEAD = "step,chosen,rejected\n"
GOOD = "0,-1,-2\n1,-1,-3\n2,-1,-4\n"
G = "step,chosen,rejected,norm_chosen,norm_rejected,inner\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "empty; it must begin with a line of column names"),
        ("\n \n", "empty"),
        (HEAD, "0 row(s) below the names, up to line 1: at least 3"),
        (HEAD + "0,-1,-2\n1,-1,-3\n", "2 row(s) below the names, up to line 3: at least 3"),
        (GOOD, "line 1: no column step, chosen, rejected; found: '0', '-1', '-2'"),
        ("step,chosen\n0,-1\n", "line 1: no column rejected; found: 'step', 'chosen'"),
        ("\nstep;chosen;rejected\n0;-1;-2\n", "line 2: no column step, chosen, rejected; found: 'step;chosen;rej"),
        ("step,chosen,rejected,chosen\n" + GOOD, "line 1: column chosen more than once"),
        (",step,chosen,rejected\n" + GOOD, "line 1: column number 1 has no name"),
        ("step,chosen,rejected,inner\n" + GOOD, "line 1: inner without norm_chosen, norm_rejected"),
        (HEAD + GOOD + "2,-1,-5\n", "line 5: step = 2: repeats line 4; steps must increase"),
        (HEAD + GOOD + "\n1.5,-1,-5\n3,-1,-5\n", "line 6: step = 1.5: must be above 2 of line 4; steps must increase"),
        (HEAD + "-1,-1,-2\n" + GOOD, "line 2: step = -1: must be >= 0"),
        (HEAD + GOOD + "3,0.5,-5\n", "line 5: chosen = 0.5: must be <= 0, a log-probability in nats"),
        (HEAD + GOOD + "3,-1,1e-9\n", "line 5: rejected = 1e-09: must be <= 0"),
        ("step,chosen,rejected,loss\n0,-1,-2,0.7\n", "line 2: loss = 0.7: must be <= 0, a log-probability in nats (a"),
        (HEAD + GOOD + "3,,-5\n", "line 5: chosen = '': must be a number"),
        (HEAD + GOOD + "3,low,-5\n", "line 5: chosen = 'low': must be a number"),
        (HEAD + GOOD + "3,nan,-inf\n", "line 5: chosen = nan: must be finite; rejected = -inf: must be finite"),
        (HEAD + GOOD + "inf,-1,-5\n", "line 5: step = inf: must be finite"),
        (HEAD + GOOD + "3,-1\n", "line 5: 2 value(s) for 3 columns"),
        (HEAD + GOOD + "3,-1,-5,\n", "line 5: 4 value(s) for 3 columns"),
        (HEAD + GOOD + '3,"-1,-5\n', "line 5: unexpected end of data"),
        (G + "0,-1,-2,-1,1,0\n", "line 2: norm_chosen = -1: must be > 0"),
        (G + "0,-1,-2,1,0,0\n", "line 2: norm_rejected = 0: must be > 0"),
        (G + "0,-1,-2,1,2,2.1\n", "line 2: inner = 2.1: must be within ±2, the product of the norms"),
        (G + "0,-1,-2,1,2,-2.1\n", "line 2: inner = -2.1: must be within ±2"),
    ],
)  # fmt: skip
def test_bad_logs_are_refused(run, tmp_path, text, said):
    path = tmp_path / "mine.csv"
    path.write_text(text)
    status, found, out, err = run("--log", path)
    assert (status, found, out, err.count("\n")) == (2, None, "", 1)
    assert f"{path.name}: " in err
    assert said in err
    assert path.read_text() == text


def test_all_bad_lines_are_named_up_to_ten(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text(HEAD + GOOD + "".join(f"{k},1,-1\n" for k in range(3, 15)))
    with pytest.raises(ValueError, match=r"(?s)12 bad line.*line 5: .*line 14: .*and 2 more"):
        read_log(path)


def test_not_utf8(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_bytes((HEAD + GOOD).encode() + b"3,-1,\xff\n")
    with pytest.raises(ValueError, match=r"mine.csv: line 5: not UTF-8"):
        read_log(path)
    path.write_bytes((HEAD + GOOD).encode("utf-16"))
    with pytest.raises(ValueError, match=r"mine.csv: line 1: not UTF-8"):
        read_log(path)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_marks_and_line_ends_do_not_matter(tmp_path, end, mark):
    path = tmp_path / "mine.csv"
    text = mark + ' step ,"chosen",rejected\n' + GOOD + "\n" + " 3 , -1.5,-5"
    path.write_bytes(text.replace("\n", end).encode())
    log = read_log(path)
    np.testing.assert_array_equal([log.step, log.chosen, log.rejected],
                                  [[0, 1, 2, 3], [-1, -1, -1, -1.5], [-2, -3, -4, -5]])  # fmt: skip
    assert (log.unseen, log.products) == ({}, None)


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--logged_learning_rate", "0.1"], "log: missing"),
        (["--log", "example", "--logged_learning_rate", "0"], "logged_learning_rate = 0.0: must be finite and > 0"),
        (["--log", "absent.csv"], "absent.csv"),
    ],
)
def test_wrong_words_are_refused(run, argv, said):
    status, found, out, err = run(*argv)
    assert (status, found, out, err.count("\n")) == (2, None, "", 1)
    assert said in err


def test_the_file_is_part_of_the_package():
    import tomllib

    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())
    assert f"*{EXAMPLE.suffix}" in project["tool"]["setuptools"]["package-data"]["*"]
