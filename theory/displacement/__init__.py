"""Unintentional unalignment: likelihood displacement in direct preference optimization (Razin et al., ICLR 2025).

Losses of the DPO kind push the margin up; often the chosen itself falls. The model is that of unconstrained features:
unembedding and hidden vectors are free parameters. Read in an earlier version than the last one; what is not in it says
"ours" or "as reported".

tokens: one pair of single tokens, its speeds and which term is to blame (C1-C3).
flow: the same flow in closed form; what training only one of the two does; how fast h must learn (C4-C7).
sequences: responses of several tokens, several samples, the mends (C8-C10).
scores: CHES against the exact gradient quantity, and on-policy data (C11-C13).
"""

from theory.displacement import tokens, flow, sequences, scores  # noqa: I001  the order of the claims

__all__ = ["flow", "scores", "sequences", "tokens"]
