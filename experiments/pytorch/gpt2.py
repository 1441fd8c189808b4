"""GPT-2 in PyTorch, trained on the bytes of a file: graingrad's opponent.

A process builds the model, warms up and prints one JSON line; then, for every line "N" on stdin, it takes N optimizer
steps and answers with one JSON line: the seconds of each step and the last loss. It waits in read(), without CPU.
"""

import argparse
import json
import math
import sys
import time

import torch
from torch import nn
from torch.nn import functional as F


def resident_bytes():
    with open("/proc/self/statm") as f:
        return int(f.read().split()[1]) * 4096


class Attention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.c_attn = nn.Linear(width, 3 * width)
        self.c_proj = nn.Linear(width, width)

    def forward(self, x):
        B, T, C = x.shape
        # (B, T, 3 C) -> three of (B, heads, T, C / heads)
        q, k, v = self.c_attn(x).view(B, T, 3, self.heads, C // self.heads).permute(2, 0, 3, 1, 4)
        z = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.c_proj(z.transpose(1, 2).reshape(B, T, C))


class Block(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.ln_1 = nn.LayerNorm(width)
        self.attn = Attention(width, heads)
        self.ln_2 = nn.LayerNorm(width)
        self.c_fc = nn.Linear(width, 4 * width)
        self.c_proj = nn.Linear(4 * width, width)

    def forward(self, x):
        x = x + self.attn(self.ln_1(x))
        return x + self.c_proj(F.gelu(self.c_fc(self.ln_2(x)), approximate="tanh"))


class Gpt2(nn.Module):
    """tokens, targets (B, T) -> mean cross entropy. The head is the token embedding."""

    def __init__(self, layers, heads, width, vocab, sequence):
        super().__init__()
        self.wte = nn.Embedding(vocab, width)
        self.wpe = nn.Embedding(sequence, width)
        self.h = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.ln_f = nn.LayerNorm(width)
        for name, p in self.named_parameters():
            if p.dim() > 1:
                nn.init.normal_(p, std=0.02 / math.sqrt(2 * layers) if name.endswith("c_proj.weight") else 0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(p)

    def forward(self, tokens, targets):
        x = self.wte(tokens) + self.wpe.weight
        for block in self.h:
            x = block(x)
        logits = F.linear(self.ln_f(x), self.wte.weight)
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("layers", "heads", "width", "vocab", "sequence", "batch", "threads", "warmup"):
        parser.add_argument("--" + name, type=int, required=True)
    parser.add_argument("--lr", type=float, required=True)
    parser.add_argument("--data", required=True, help="text; a token is a byte, modulo the vocabulary")
    parser.add_argument("--compile", action="store_true", help="through torch.compile")
    o = parser.parse_args()
    base = resident_bytes()

    torch.set_num_threads(o.threads)
    torch.manual_seed(1)
    model = Gpt2(o.layers, o.heads, o.width, o.vocab, o.sequence)
    decayed = [p for p in model.parameters() if p.dim() > 1]
    others = [p for p in model.parameters() if p.dim() <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}],
        lr=o.lr, betas=(0.9, 0.95), eps=1e-8, fused=True)
    loss_of = torch.compile(model, fullgraph=True, dynamic=False) if o.compile else model

    with open(o.data, "rb") as f:
        data = torch.frombuffer(bytearray(f.read()), dtype=torch.uint8)
    windows = (len(data) - 1) // o.sequence
    order = torch.randperm(windows)
    taken = 0

    def step():
        nonlocal taken
        picked = order[torch.arange(taken, taken + o.batch) % windows] * o.sequence
        taken += o.batch
        text = data[picked[:, None] + torch.arange(o.sequence + 1)].long() % o.vocab
        loss = loss_of(text[:, :-1].contiguous(), text[:, 1:].contiguous())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.item()

    def timed(steps):
        seconds, loss = [], math.nan
        for _ in range(steps):
            start = time.perf_counter()
            loss = step()
            seconds.append(time.perf_counter() - start)
        return {"seconds": seconds, "loss": loss}

    start = time.perf_counter()
    first = timed(1)
    timed(o.warmup - 1)
    print(json.dumps({"torch": torch.__version__, "parameters": sum(p.numel() for p in model.parameters()),
                      "base_rss_bytes": base, "loss_first": first["loss"],
                      "warmup_seconds": time.perf_counter() - start}), flush=True)
    for line in sys.stdin:
        print(json.dumps(timed(int(line))), flush=True)


if __name__ == "__main__":
    main()
