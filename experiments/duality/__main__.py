"""Utility-probability duality: are a softmax's numbers probabilities, or a utility of which only the order counts?

Paper: Huang and Yuan, Utility-Probability Duality of Neural Networks, 2023; known to us from its abstract and first
page. The theorems C1 to C13, residual inversion among them, are ours.
Question: what does training write into utilities, when is their order right and when their numbers, and can the law of
the data be read back out of a table that is far from trained? Figures: order against divergence over training
(order_first), sampling quality (sampling), wide beams and exact modes (curse), the link from utilities to probabilities
(links), small samples (small_samples), the step size at which order is lost (order_lost), sharing parameters (sharing).
Look for: steps of the beam exactly at the rank of the end token; the link that is a line first and an exponential
later; inversion that is perfect in a table and wrong for small samples and shared parameters; the order of a table that
survives steps of 4, except among millions of outputs.

Your own utilities: --utilities FILE.npz; --utilities example reads ours.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from experiments.duality import measure, network, user
from experiments.duality.measure import FOUR, LARGE, SMALL_LAW, STEPS, WIDTHS, sample_sizes
from experiments.duality.movable import movable
from experiments.duality.setup import Setup
from experiments.harness import Check, Experiment, Verdicts, agrees, along, constant, main, measured, refuted
from sandbox import utility
from sandbox.tolerances import identity, monte_carlo
from theory.duality import choice, decisions, inversion, training

Found = Mapping[str, Mapping[str, Any]]
FLOW = "Runge-Kutta of fourth order in fixed steps"


def claims(setup: Setup, found: Found) -> Iterator[Check]:
    """What the simulations say of the statements."""
    yield from _of_duels(found["duels"])
    yield from _of_tables(found["sentences"], found["order"])
    yield from _of_links(found["links"])
    yield from _of_sentences(setup, found["sentences"])
    yield from _of_samples(setup, found["small samples"], found["payoffs"])


def _of_duels(runs: Mapping[str, Any]) -> Iterator[Check]:
    yield measured(choice.duel_identity, runs["autodiff"], runs["duel"], identity())
    yield measured(choice.duel_identity, runs["z"], 0 * runs["z"], monte_carlo(1.0))
    yield refuted(choice.duel_with_a_uniform_opponent, u=runs["u"][None], v=runs["rise"][None], y=2)


def _of_tables(runs: Mapping[str, Any], lost: Mapping[str, Any]) -> Iterator[Check]:
    laws, q = runs["laws"][:-1], runs["laws"][-1]  # (steps, sentences, outputs)
    u = np.log(laws[:, 4])
    yield along(training.divergence_falls_by_the_squared_residual, u=u, q=constant(q[4]))
    yield along(training.loss_falls_below_four, u=u, q=constant(q[4]), eta=1.0)
    yield measured(inversion.inversion_of_full_batches_is_the_law, runs["inverse"], q[None], identity())
    consistent, uniform = lost["lost"].T
    yield agrees(training.order_after_one_step, np.ones(3, bool), consistent[:3] == 0,
                 "steps of 1, 1.5 and 2 lose no order in any run")  # fmt: skip
    yield agrees(training.two_is_sharp, np.ones(3, bool), consistent[5:8] > 0, "steps of 2.5 to 3.5 lose some")
    below = measure.ETAS <= 4
    yield agrees(training.few_outputs_keep_their_order_up_to_four, below, uniform == 0,
                 "from a uniform start steps up to 4 lose none, and larger ones some")  # fmt: skip
    yield measured(training.few_outputs_keep_their_order_up_to_four, 0.0, lost["searched"], 0.0, "no counterexample")
    near = np.argmin(np.abs(measure.OTHERS - 3.5e7))
    yield measured(training.very_many_outputs_lose_their_order_at_four, lost["leaders"][near], -0.02, 0.0, "negative")


def _of_links(runs: Mapping[str, Any]) -> Iterator[Check]:
    precise = runs["h"].dtype == np.float64
    early = slice(0, 9)
    h = runs["h"][early]
    for k, order in enumerate((1, 2) if precise else ()):  # in float32 the smallest errors are rounding
        slope = np.polyfit(np.log(h), np.log(runs["four_error"][k, early]), 1)[0]
        yield measured(inversion.orders_of_the_early_links, slope, order, 0.02,
                       f"the next power of h, for the {('linear', 'corrected')[k]} link")  # fmt: skip
    lead = (h / 8) * np.max(np.abs(FOUR - 1 / 4))
    yield measured(inversion.early_link_is_linear, runs["four_error"][0, early] / lead, np.ones(9), 0.05,
                   "the next order: h up to 1/10")  # fmt: skip
    gap, time = runs["gap"], runs["time"]
    end = 0.4 - (1e-6 if precise else 1e-2)  # x = 0.7 - 0.3; there the clock has no digits left
    growing = (gap > 1e-3) & (np.tanh(gap / 2) < end)
    yield measured(inversion.clock_of_two_outputs, np.asarray(utility.binary_clock(gap[growing], 0.4)), time[growing],
                   1e-5 if precise else 1e-3, FLOW + ", and the clock's inverse slope near its end")  # fmt: skip
    yield measured(inversion.one_hot_flow, runs["certain"], np.asarray(utility.one_hot_margin(time)), 1e-6, FLOW)


def _of_sentences(setup: Setup, runs: Mapping[str, Any]) -> Iterator[Check]:
    critical, length = runs["critical"], runs["mode_length"]
    clear = np.abs(critical - setup.length) > 1e-6
    yield agrees(decisions.empty_beats_gold_beyond_the_critical_length, (critical < setup.length)[clear],
                 (length == 0)[clear])  # fmt: skip
    steps = np.append(STEPS, len(critical) - 1)
    lengths = np.arange(1, setup.longest + 1)
    predicted = lengths[None, :] > critical[steps, -1][:, None]
    yield agrees(decisions.empty_beats_gold_beyond_the_critical_length, predicted, runs["phase"] == 0)
    four = slice(0, 1)  # only there the empty sentence is the mode
    yield agrees(decisions.wide_beams_return_the_empty_sentence, runs["rank"][four, :, None] <= WIDTHS,
                 runs["beam"][four] == 0, "no beam below the rank finds it, none above misses it")  # fmt: skip
    sampled = runs["drawn"]
    expected = runs["sampling"][4, -1]
    error = float(np.std(sampled, ddof=1) / np.sqrt(sampled.size))
    yield measured(decisions.quality_of_sampling, sampled.mean(), expected, monte_carlo(error))
    q = runs["laws"][-1, -1]
    yield refuted(choice.exact_mode_is_ordinal, p=q[None], gold=1, end=0, length=20.0)


def _of_samples(setup: Setup, runs: Mapping[str, Any], tasks: Mapping[str, Any]) -> Iterator[Check]:
    sizes = np.array(sample_sizes(setup))
    theory = np.asarray(utility.frequency_error(SMALL_LAW, sizes))
    yield measured(decisions.error_of_the_raw_frequency, runs["raw"], theory, identity())
    for size in LARGE:
        expected, error = utility.frequency_error(SMALL_LAW, size), monte_carlo(float(runs[f"error_{size}"]))
        yield measured(decisions.error_of_the_raw_frequency, runs[f"raw_{size}"], expected, error)
    s = np.exp(-measure.STOPS / 4)  # how far a uniform start is still felt after so many steps
    yield refuted(decisions.inversion_never_hurts, q=constant(SMALL_LAW), s=1 - s, n=10.0)
    yield measured(inversion.inversion_of_full_batches_is_the_law, tasks["largest_inverted"], 0.0, identity())


def draw(setup: Setup, found: Found, verdicts: Verdicts) -> Iterator[tuple[str, Any, str]]:
    """Each figure with its caption: the claim, and what became of it."""
    from experiments.duality import draw

    says = verdicts.line
    yield "order_first", draw.order_first(setup, found), (
        "Order and divergence over training: a table is in order after one step, a network that shares parameters is "
        "not. Bands: smallest to largest of the seeds.\n"
        + says(training.order_after_one_step) + "\n" + says(training.features_match_moments) + "\n"
        + says(training.best_utility_in_a_class_keeps_the_order)
    )  # fmt: skip
    yield "sampling", draw.sampling(setup, found), (
        "Toy A: share of gold tokens in a sampled sentence. Right: expected payoff that decisions forgo (toy B); the "
        "best temperature is chosen in hindsight.\n"
        + says(inversion.inversion_of_full_batches_is_the_law) + "\n" + says(decisions.quality_of_sampling) + "\n"
        + says(decisions.a_temperature_repairs)
    )  # fmt: skip
    yield "curse", draw.curse(setup, found), (
        "Toy A. Left: nine sentences whose end token has rank 2 to 10; after 4 steps each width loses one more, "
        "(10 - B)/9. Right: the exact mode of the sentence whose end token has rank 10; lines: L* of the theory.\n"
        + says(decisions.wide_beams_return_the_empty_sentence) + "\n"
        + says(decisions.empty_beats_gold_beyond_the_critical_length) + "\n" + says(choice.exact_mode_is_ordinal)
    )  # fmt: skip
    yield "links", draw.links(setup, found), (
        "Gradient flow from uniform utilities towards a law of twelve outputs, at three times h.\n"
        + says(inversion.early_link_is_linear) + "\n" + says(inversion.orders_of_the_early_links)
    )  # fmt: skip
    yield "small_samples", draw.small_samples(setup, found), (
        "Toy C: mean squared error of softmax(u_T) less that of the inverted law, by enumeration of all samples. "
        "Inversion hurts on the blue side: it gives the raw frequency, and stopping early shrinks.\n"
        + says(decisions.error_of_the_raw_frequency) + "\n" + says(decisions.shrinking_wins_below_a_sample_size) + "\n"
        + says(decisions.inversion_never_hurts)
    )  # fmt: skip
    yield "order_lost", draw.order_lost(setup, found), (
        "Left: runs of 2 to 6 outputs that ever lose the order of a pair. Right: smallest lead of the first of two "
        "leaders over the second, of all others none is in the data; negative: they changed places.\n"
        + says(training.order_after_one_step) + "\n" + says(training.few_outputs_keep_their_order_up_to_four) + "\n"
        + says(training.very_many_outputs_lose_their_order_at_four)
    )  # fmt: skip
    yield "sharing", draw.sharing(setup, found), (
        "What survives sharing parameters. Left: order accuracy when the divergence first falls to a share of its "
        "start, from a table (0) to a kernel of 64 features for 128 outputs (1); hatched: never reached. Right: mean "
        "squared error of four readings of a network.\n"
        + says(inversion.linear_models_add_the_kernel_times_the_residual) + "\n" + says(training.a_kernel_sets_the_rate)
    )  # fmt: skip


def series(found: Found) -> dict[str, Any]:
    """What numbers.json keeps: all that the figures show; of toy A the steps of the phase diagram."""
    left_out = {
        "sentences": {"laws", "inverse", "drawn", "phase", "mode_length"},
        "duels": {"autodiff", "duel", "uniform_duel"},
    }
    kept = {
        stage: {name: x for name, x in arrays.items() if name not in left_out.get(stage, ())}
        for stage, arrays in found.items()
    }
    at = [0, *STEPS, -1]
    for name in ("sampling", "mode", "kl", "critical"):
        kept["sentences"][name] = kept["sentences"][name][at]
    return kept


STAGES = {
    "sentences": measure.sentences,
    "payoffs": measure.payoffs,
    "small samples": measure.small_samples,
    "links": measure.links,
    "order": measure.order,
    **network.STAGES,
}
EXPERIMENT = Experiment(
    "duality", __doc__, Setup, STAGES, claims, draw, series=series, user=user.User, report=user.report,
    movable=movable,
)  # fmt: skip

if __name__ == "__main__":
    sys.exit(main(EXPERIMENT))
