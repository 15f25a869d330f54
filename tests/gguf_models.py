"""Small random models written to GGUF files, and an independent reading of such a file in NumPy, one head at a time."""

from __future__ import annotations

import numpy as np

WIDTH, HEADS, KV_HEADS, FEED, LAYERS, EPS, BASE = 32, 4, 2, 64, 2, 1e-5, 500.0
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
LETTERS = [*"abcdefghijklmnopqrstuvwxyz", *"0123456789", *"NYI.?'", "Ġ", "Ċ"]
MERGES = ["Ġ t", "h e", "Ġt he", "y e", "Y e", "N o", "n o", "e r", "ye s", "1 2", "12 3"]
TOKENS = [*SPECIAL, *LETTERS, *(merge.replace(" ", "") for merge in MERGES)]
TOKENS += [f"<{i}>" for i in range(60 - len(TOKENS))]
CHAT = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>i\n' }}{% endif %}"
)
FACTS = {
    "llama.block_count": LAYERS, "llama.embedding_length": WIDTH, "llama.feed_forward_length": FEED,
    "llama.attention.head_count": HEADS, "llama.attention.head_count_kv": KV_HEADS, "llama.context_length": 128,
    "llama.attention.layer_norm_rms_epsilon": EPS, "llama.rope.freq_base": BASE,
    "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "smollm", "tokenizer.ggml.tokens": TOKENS,
    "tokenizer.ggml.merges": MERGES, "tokenizer.ggml.token_type": [3] * len(SPECIAL) + [1] * (60 - len(SPECIAL)),
    "tokenizer.ggml.bos_token_id": 1, "tokenizer.ggml.eos_token_id": 2, "tokenizer.chat_template": CHAT,
}  # fmt: skip


def weights(seed=0, *, tied=True, factors=False):
    """Every tensor by its name in the file, float32; the gate of the last layer is no multiple of anything."""
    rng = np.random.default_rng(seed)
    keys = WIDTH // HEADS * KV_HEADS
    shapes = {
        "attn_q": (WIDTH, WIDTH), "attn_k": (keys, WIDTH), "attn_v": (keys, WIDTH), "attn_output": (WIDTH, WIDTH),
        "ffn_gate": (FEED, WIDTH), "ffn_up": (FEED, WIDTH), "ffn_down": (WIDTH, FEED),
    }  # fmt: skip
    found = {"token_embd.weight": rng.normal(size=(60, WIDTH)), "output_norm.weight": rng.uniform(0.5, 2, WIDTH)}
    for i in range(LAYERS):
        found |= {f"blk.{i}.{name}.weight": rng.normal(size=s) / s[1] ** 0.5 for name, s in shapes.items()}
        found |= {f"blk.{i}.{name}.weight": rng.uniform(0.5, 2, WIDTH) for name in ("attn_norm", "ffn_norm")}
    if not tied:
        found["output.weight"] = rng.normal(size=(60, WIDTH))
    if factors:
        found["rope_freqs.weight"] = rng.uniform(1, 8, WIDTH // HEADS // 2)
    return {name: x.astype(np.float32) for name, x in found.items()}


def write(path, tensors=None, kind="F32", architecture="llama", **facts):
    """A GGUF file; matrices of a kind of the library's quantisations. A fact that is None is left out."""
    import gguf

    writer = gguf.GGUFWriter(path, architecture)
    for name, value in {**FACTS, **facts}.items():
        if isinstance(value, list):
            writer.add_array(name, value)
        elif isinstance(value, str):
            writer.add_string(name, value)
        elif isinstance(value, bool):
            writer.add_bool(name, value)
        elif isinstance(value, float):
            writer.add_float32(name, value)
        elif value is not None:
            writer.add_uint32(name, value)
    for name, x in (weights() if tensors is None else tensors).items():
        of = gguf.GGMLQuantizationType[kind if x.ndim == 2 else "F32"]
        writer.add_tensor(name, gguf.quants.quantize(x, of), raw_dtype=of)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def dequantised(raw, kind, shape):
    """The numbers of a tensor's bytes, by the layout of its blocks of 32."""
    if kind == "F32":
        return np.asarray(raw, np.float32).reshape(shape).astype(float)
    blocks = np.asarray(raw, np.uint8).reshape(-1, {"Q8_0": 34, "Q4_1": 20}[kind])
    scale = blocks[:, :2].copy().view(np.float16).astype(float)
    if kind == "Q8_0":
        return (scale * blocks[:, 2:].copy().view(np.int8)).reshape(shape)
    least, nibbles = blocks[:, 2:4].copy().view(np.float16).astype(float), blocks[:, 4:]
    return (least + scale * np.concatenate([nibbles & 15, nibbles >> 4], axis=1)).reshape(shape)


def read(path):
    """Tensors of a file in float64."""
    import gguf

    return {
        t.name: dequantised(t.data, t.tensor_type.name, tuple(int(n) for n in reversed(t.shape)))
        for t in gguf.GGUFReader(path).tensors
    }


def numpy_logits(w, ids):
    """Logits (T, 60) of a row of tokens, in float64: token by token, head by head, rotations as complex numbers."""

    def norm(x, weight):
        return x / np.sqrt(np.mean(x**2, axis=-1, keepdims=True) + EPS) * weight

    size = WIDTH // HEADS
    speed = BASE ** (-2 * np.arange(size // 2) / size) / w.get("rope_freqs.weight", 1)

    def turned(v, t):
        z = (v[0::2] + 1j * v[1::2]) * np.exp(1j * t * speed)
        return np.stack([z.real, z.imag], axis=-1).ravel()

    x = w["token_embd.weight"][ids]
    for i in range(LAYERS):
        of = {name.split(".")[2]: array for name, array in w.items() if name.startswith(f"blk.{i}.")}
        h = norm(x, of["attn_norm"])
        q, k, v = (h @ of[name].T for name in ("attn_q", "attn_k", "attn_v"))
        mixed = np.zeros_like(x)
        for head in range(HEADS):
            mine, shared = slice(head * size, (head + 1) * size), head // (HEADS // KV_HEADS)
            theirs = slice(shared * size, (shared + 1) * size)
            for t in range(len(ids)):
                scores = [turned(q[t, mine], t) @ turned(k[s, theirs], s) / size**0.5 for s in range(t + 1)]
                p = np.exp(scores - np.max(scores))
                mixed[t, mine] = p / p.sum() @ v[: t + 1, theirs]
        x = x + mixed @ of["attn_output"].T
        h = norm(x, of["ffn_norm"])
        gate = h @ of["ffn_gate"].T
        x = x + (gate / (1 + np.exp(-gate)) * (h @ of["ffn_up"].T)) @ of["ffn_down"].T
    return norm(x, w["output_norm.weight"]) @ w.get("output.weight", w["token_embd.weight"]).T


def numpy_log_probs(w, prompt, response):
    """Log-probabilities of the tokens of a response, each from a row of its own."""
    logits = numpy_logits(w, [*prompt, *response])[len(prompt) - 1 : -1]
    highest = logits.max(axis=-1, keepdims=True)
    log_probs = logits - highest - np.log(np.exp(logits - highest).sum(axis=-1, keepdims=True))
    return log_probs[np.arange(len(response)), response]
