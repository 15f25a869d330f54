"""3D-properties: identifying challenges in DPO and charting a path forward (Yan et al., ICLR 2025).

The paper derives from the partial derivatives of DPO's loss in the two probabilities that the rejected one drops
drastically, that learning degrades into suppressing it, and that mass disperses to responses nobody ranked. The
derivatives are right; that they govern a softmax is not. The paper's body was not at hand: places are as reviews and
the abstract report them.

free: the two probabilities as free variables, the paper's argument and where it fails (C1-C5, C12).
softmax: the flow of a softmax in closed form, and the one number that decides (C6-C9, C13).
rates: powers of time, the worst beta, late rates of the mends (C10, C11, C14, C16).
mends: two betas, the safe cone, a fine-tuning term, other losses, on and off policy (C14-C18).
"""

from theory.dpo_3d import free, softmax, rates, mends  # noqa: I001  the order of the claims

__all__ = ["free", "mends", "rates", "softmax"]
