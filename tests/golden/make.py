#!/usr/bin/env python3
"""Makes the golden files of this folder with PyTorch: logits, gradients and AdamW losses of two small GPT-2s.

    python3 tests/golden/make.py

Weights and tokens come from a formula that tests/nn/golden_model.h computes with the same bits, so no file
holds them. Everything is computed in f64; gradients are rounded to F32 once, logits and losses stay F64.
"""
import json
import pathlib
import struct

import numpy as np
import torch
import torch.nn.functional as F

FOLDER = pathlib.Path(__file__).parent
MODELS = {
    "small": dict(layers=2, width=64, heads=4, sequence=16, vocab=65, scale=0.2),
    "wide": dict(layers=4, width=128, heads=4, sequence=24, vocab=65, scale=0.15),
}
BATCH, MICRO_BATCHES, STEPS = 2, 2, 10
MASK = (1 << 64) - 1


def stream_of(name):
    """FNV-1a, 64 bits."""
    h = 0xCBF29CE484222325
    for byte in name.encode():
        h = ((h ^ byte) * 0x100000001B3) & MASK
    return h


def words(name, count):
    """splitmix64: word i of the stream that starts at the name's hash."""
    with np.errstate(over="ignore"):
        z = np.uint64(stream_of(name)) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def uniform(name, shape):
    """In [-1, 1), multiples of 2^-52."""
    u = (words(name, int(np.prod(shape))) >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return (2.0 * u - 1.0).reshape(shape)


def first_value(name, shape, scale):
    if len(shape) == 2:
        return scale * uniform(name, shape)
    if name.endswith("weight"):  # of a norm
        return 1.0 + 0.2 * uniform(name, shape)
    return 0.1 * uniform(name, shape)


def shapes(m):
    c = m["width"]
    yield "wte.weight", (m["vocab"], c)
    yield "wpe.weight", (m["sequence"], c)
    for i in range(m["layers"]):
        h = f"h.{i}."
        yield h + "ln_1.weight", (c,)
        yield h + "ln_1.bias", (c,)
        yield h + "attn.c_attn.weight", (3 * c, c)
        yield h + "attn.c_attn.bias", (3 * c,)
        yield h + "attn.c_proj.weight", (c, c)
        yield h + "attn.c_proj.bias", (c,)
        yield h + "ln_2.weight", (c,)
        yield h + "ln_2.bias", (c,)
        yield h + "mlp.c_fc.weight", (4 * c, c)
        yield h + "mlp.c_fc.bias", (4 * c,)
        yield h + "mlp.c_proj.weight", (c, 4 * c)
        yield h + "mlp.c_proj.bias", (c,)
    yield "ln_f.weight", (c,)
    yield "ln_f.bias", (c,)


def parameters(m):
    return {
        name: torch.tensor(first_value(name, shape, m["scale"]), dtype=torch.float64, requires_grad=True)
        for name, shape in shapes(m)
    }


def batch(m, micro_batch):
    """tokens and targets [BATCH, sequence]: row r reads words r * (sequence + 1) ... of the stream."""
    t = m["sequence"]
    ids = (words(f"tokens.{micro_batch}", BATCH * (t + 1)) % np.uint64(m["vocab"])).astype(np.int64)
    ids = torch.tensor(ids.reshape(BATCH, t + 1))
    return ids[:, :-1], ids[:, 1:]


def logits_of(m, p, tokens):
    c, heads, t = m["width"], m["heads"], m["sequence"]
    d = c // heads

    def norm(x, name):
        return F.layer_norm(x, (c,), p[name + ".weight"], p[name + ".bias"], 1e-5)

    def linear(x, name):
        return F.linear(x, p[name + ".weight"], p[name + ".bias"])

    hidden = torch.full((t, t), float("-inf"), dtype=torch.float64).triu(1)
    x = p["wte.weight"][tokens] + p["wpe.weight"][torch.arange(t)]
    for i in range(m["layers"]):
        h = f"h.{i}."
        # Head-major: [B, T, heads, (q, k, v), d].
        qkv = linear(norm(x, h + "ln_1"), h + "attn.c_attn").view(BATCH, t, heads, 3, d).permute(3, 0, 2, 1, 4)
        scores = qkv[0] @ qkv[1].transpose(-2, -1) / d**0.5 + hidden
        y = (F.softmax(scores, dim=-1) @ qkv[2]).transpose(1, 2).reshape(BATCH, t, c)
        x = x + linear(y, h + "attn.c_proj")
        y = F.gelu(linear(norm(x, h + "ln_2"), h + "mlp.c_fc"), approximate="tanh")
        x = x + linear(y, h + "mlp.c_proj")
    return norm(x, "ln_f") @ p["wte.weight"].T


def accumulate(m, p):
    """Gradients of sum(cross entropies) / tokens over all micro-batches; returns that loss and the logits."""
    total = MICRO_BATCHES * BATCH * m["sequence"]
    loss, logits = 0.0, []
    for k in range(MICRO_BATCHES):
        tokens, targets = batch(m, k)
        out = logits_of(m, p, tokens)
        part = F.cross_entropy(out.reshape(-1, m["vocab"]), targets.reshape(-1), reduction="sum") / total
        part.backward()
        loss += part.item()
        logits.append(out.detach().reshape(-1, m["vocab"]).numpy())
    return loss, logits


def train(m, clip):
    """The loss before each step, and the norm of its gradient."""
    p = parameters(m)
    groups = [
        dict(params=[x for x in p.values() if x.dim() >= 2], weight_decay=0.1),
        dict(params=[x for x in p.values() if x.dim() < 2], weight_decay=0.0),
    ]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.95), eps=1e-8)
    losses, norms = [], []
    for _ in range(STEPS):
        optimizer.zero_grad()
        losses.append(accumulate(m, p)[0])
        norms.append(torch.nn.utils.clip_grad_norm_(p.values(), 1.0 if clip else float("inf")).item())
        optimizer.step()
    return np.array(losses), np.array(norms)


def save(name, tensors):
    """A safetensors file: length of the header, the header, the numbers."""
    header, at = {"__metadata__": {"made_with": "PyTorch " + torch.__version__.split("+")[0]}}, 0
    for key, x in tensors.items():
        kind = {"float32": "F32", "float64": "F64"}[str(x.dtype)]
        header[key] = dict(dtype=kind, shape=list(x.shape), data_offsets=[at, at + x.nbytes])
        at += x.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    data = b"".join(np.ascontiguousarray(x).tobytes() for x in tensors.values())
    (FOLDER / (name + ".safetensors")).write_bytes(struct.pack("<Q", len(text)) + text + data)


def part_of(name):
    """Gradients lie in one file a layer, and one for the rest."""
    return name.split(".")[1] if name.startswith("h.") else "rest"


def main():
    torch.set_num_threads(1)
    for model, m in MODELS.items():
        p = parameters(m)
        loss, logits = accumulate(m, p)
        runs = {f"logits.{k}": x for k, x in enumerate(logits)}
        for run, clip in (("adamw", False), ("clip", True)):
            runs[run + ".loss"], runs[run + ".norm"] = train(m, clip)
            print(model, run, *(f"{x:.6f}" for x in runs[run + ".loss"]), "norms", *(f"{x:.3f}" for x in runs[run + ".norm"]))
        assert runs["adamw.loss"][0] == loss
        assert (runs["clip.norm"] > 1).any(), "clipping that never clips shows nothing"
        save(model, runs)
        for part in dict.fromkeys(map(part_of, p)):
            save(f"{model}.gradient.{part}",
                 {n: x.grad.numpy().astype(np.float32) for n, x in p.items() if part_of(n) == part})


if __name__ == "__main__":
    main()
