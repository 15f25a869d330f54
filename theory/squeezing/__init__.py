"""Learning Dynamics of LLM Finetuning (Ren and Sutherland, 2025).

The paper was known to us from its abstract, its official code and summaries of its appendix; what those do not give is
ours and says so. Its account of fine-tuning: a gradient step moves the log-probabilities of another input by -eta A K G
(C1), and a step against an improbable response "squeezes" the law into its top (C2 to C4). Here also the whole path of
that flow (C5, C6) and its mend (C7), what DPO on one pair can and cannot do (C8, C9), what fine-tuning on one answer
does to another question (C10), and rejected responses that the policy itself drew (C11). That DPO in one context moves
two logits alone, and where its flow then goes, is stated in theory/dpo_3d.
"""

from theory.squeezing import step, peaks, path, pairs  # noqa: I001

__all__ = ["pairs", "path", "peaks", "step"]
