"""Methods that peft offers and that need no code of their own: one row each.

A row names peft's type, the settings that are passed on, the defaults that were chosen on MiniLM-L6 (width 384), the
source and the capabilities. `FromTable` does the rest. `NOT_COMPARABLE` lists the types of peft without a method.
"""

from __future__ import annotations

from typing import Any, Final

from harness.methods._peft_types import (
    AddedType,
    FromTable,
    Setting,
    keep_clusters,
    keep_no_layers,
    method_of,
    rank,
    route_each_token,
    train_in_float32,
    why_no_adaption_prompt,
    why_too_many_values,
)
from harness.methods.base import ENCODER


def _pair_of_matrices(of: Any, width: int) -> float:
    """Return the values of two matrices of a rank, as LoRA has them."""
    return 2.0 * float(of.rank) * width


_MERGE: Final = frozenset({"merge"})
_CONVERT: Final = frozenset({"merge", "convert-to-lora"})

TABLE: Final = (
    AddedType(
        name="adaption-prompt",
        peft_type="ADAPTION_PROMPT",
        does="Learn prompts that attention reads beside the text, through gates that start at zero.\n\n"
        "In the top blocks, each attention also attends to n trained vectors P; the gate g starts at 0:\n\n"
        "    h = attention(x) + g attention(x over P)",
        trains="gated prompts in attention",
        source="Zhang et al., 2023, arXiv:2303.16199; peft",
        settings={
            "n_virtual_tokens": Setting(
                "adapter_len", 10, "number of vectors of a block.", least=1, search=(5, 10, 20)
            ),
            "n_layers": Setting("adapter_layers", 0, "number of adapted blocks, from the top; 0 adapts all.", least=0),
        },
        learning_rate=1e-2,
        serves=frozenset({"causal"}),
        adapts="attention",
        why_not=why_no_adaption_prompt,
        mend=train_in_float32,
    ),
    AddedType(
        name="adamss",
        peft_type="ADAMSS",
        does="Learn a low-rank addition for each cluster of the outputs of a weight matrix.\n\n"
        "Outputs are clustered by the left singular vectors of W. V holds its top right singular vectors, up to\n"
        "`decomposition_rank`. Cluster i gets two small matrices:\n\n    h_i = (W x)_i + B_i A_i V^T x",
        note="Where the layer has a bias b, the singular vectors are those of [W, b], and V^T is multiplied by [x; 1].",
        trains="low-rank additions for clusters of outputs",
        source="Zheng et al., 2025, openreview:8ZdWmpYxT0; peft",
        settings={
            "decomposition_rank": Setting("r", 100, "number of singular vectors to cluster.", least=1),
            "n_subspaces": Setting("num_subspaces", 5, "number of clusters.", least=1, search=(5, 10)),
            "rank": Setting("subspace_rank", 1, "rank of the addition inside a cluster.", least=1, search=(1, 4)),
        },
        learning_rate=1e-2,
        rate_falls=False,
        seed="random_seed",
        keeps=("adamss_newB", "scatter_index"),
        mend=keep_clusters,
        n_added=lambda of, width: of.rank * (width + of.decomposition_rank),
        can=_MERGE,
        uses_weights=True,
    ),
    AddedType(
        name="beft",
        peft_type="BEFT",
        does="Learn a bias for the layers of values in attention.\n\nThe vector b starts at 0:\n\n    v = W x + b",
        trains="added biases of the layers of values",
        source="Huang et al., 2025, arXiv:2509.15974; peft",
        learning_rate=3e-2,
        n_added=lambda _, width: 0.5 * width,
        can=_MERGE | {"quantise"},
        adapts="v",
        note="Where one matrix makes queries, keys and values (BLOOM, Falcon, ModernBERT), all three get a bias.",
    ),
    AddedType(
        name="boft",
        peft_type="BOFT",
        does="Learn a block-diagonal rotation of the inputs of weight matrices, and a scale for each output.\n\n"
        "Each block of R follows from a skew-symmetric matrix; s starts at 1 and `*` is elementwise:\n\n"
        "    h = s * (W R x)",
        trains="block-diagonal rotations of weight matrices, and scales",
        source="Liu et al., 2023, arXiv:2311.06243; peft",
        settings={
            "block_size": Setting("boft_block_size", 8, "rows of a block.", least=2, search=(4, 8), divides=True),
            "n_factors": Setting("boft_n_butterfly_factor", 1, "number of butterfly factors.", values=(1,)),
        },
        learning_rate=1e-2,
        n_added=lambda of, width: width * of.block_size + width,
        n_held=lambda _, n_in, __: 3 * n_in**2,
        can=_MERGE,
        uses_weights=True,
    ),
    AddedType(
        name="c3a",
        peft_type="C3A",
        does="Learn an addition to weight matrices made of circulant blocks.\n\n"
        "Each block of `block_size` rows and columns is the circular correlation with one trained vector k:\n\n"
        "    h = W x + C(k) x",
        trains="circulant additions to weight matrices",
        source="Chen et al., 2024, arXiv:2407.19342; peft",
        settings={
            "block_size": Setting(
                "block_size",
                64,
                "rows of a block; the largest divisor of the widths up to it is used.",
                least=1,
                search=(32, 64, 128),
                divides=True,
            )
        },
        fixed={"init_weights": True},
        learning_rate=1.0,
        rate_falls=False,
        rates=(1e-2, 3.0),
        n_added=lambda of, width: width * width / of.block_size,
        can=_CONVERT,
    ),
    AddedType(
        name="deft",
        peft_type="DEFT",
        does="Remove a low-rank part of each weight matrix and learn what replaces it.\n\n"
        "P and R train; R starts where the matrix is unchanged:\n\n    h = (I - P relu(P)^T) W x + P R x",
        trains="a low-rank part of each weight matrix, and what replaces it",
        source="Kumar et al., 2025, NeurIPS 38 (DEFT); peft",
        settings={"rank": rank(8)},
        n_added=_pair_of_matrices,
        can=_MERGE,
        uses_weights=True,
    ),
    AddedType(
        name="delora",
        peft_type="DELORA",
        does="Learn the direction of a low-rank addition apart from its size, which is bounded.\n\n"
        "D holds the inverse norms of the parts of B A, so that `bound` limits the addition:\n\n"
        "    h = W x + (bound / r) B D A (|W| * x),    |W| has the norm of each column",
        trains="low-rank additions and their size",
        source="Bini et al., 2025, arXiv:2503.18225; peft",
        settings={
            "rank": rank(8),
            "bound": Setting("delora_lambda", 15, "start of the bound of the addition's norm.", least=1),
        },
        learning_rate=1e-2,
        n_added=lambda of, width: 2 * of.rank * width + 1,
        can=_CONVERT,
        uses_weights=True,
    ),
    AddedType(
        name="frod",
        peft_type="FROD",
        does="Learn a scale and a sparse rotation in a basis that all blocks share.\n\n"
        "The matrices W of all blocks share the basis V, with W = U V^T. A diagonal L and a sparse S train:\n\n"
        "    h = U (L + S) V^T x",
        trains="scales and sparse rotations in a shared basis",
        source="FRoD, 2026, doi:10.1609/aaai.v40i31.39813; peft",
        settings={
            "density": Setting("sparse_rate", 0.01, "share of the rotation's values that train.", above=0, most=1)
        },
        fixed={"progressbar": False},
        seed="projection_prng_key",
        keeps=("frod_",),
        n_added=lambda of, width: width + of.density * width * width,
        n_held=lambda _, __, n_out: n_out**2,
        can=_MERGE,
        uses_weights=True,
    ),
    AddedType(
        name="glora",
        peft_type="GLORA",
        does="Learn a low-rank factor and a low-rank addition for each weight matrix, and the same for its bias.\n\n"
        "A, B and C are of low rank, D and E scalars; `*` is elementwise:\n\n    h = (W + W * A + B) x +"
        " b + D b + E + W C",
        trains="low-rank factors and additions of weight matrices and biases",
        source="Chavan et al., 2023, arXiv:2306.07967; peft",
        settings={"rank": rank(4, search=(2, 4, 8))},
        n_added=lambda of, width: 5 * of.rank * width,
        n_held=lambda _, n_in, n_out: n_in * n_out,
        can=_MERGE,
        uses_weights=True,
        wants_plain_layers=True,
    ),
    AddedType(
        name="gralora",
        peft_type="GRALORA",
        does="Learn a low-rank addition for each block of each weight matrix.\n\n"
        "The matrix is cut into k x k blocks, each with LoRA's two matrices of rank r / k, so that the whole has rank\n"
        "k r with as many parameters:\n\n    h = W x + (alpha / r) [B_ij A_ij]_ij x",
        trains="low-rank additions to blocks of weight matrices",
        source="Jung et al., 2025, arXiv:2505.20355; peft",
        settings={
            "rank": rank(8),
            "alpha": Setting("alpha", 16, "scale of the addition.", least=1),
            "n_blocks": Setting(
                "gralora_k", 2, "blocks along each side; they divide the rank and the widths.", least=1
            ),
        },
        learning_rate=5e-3,
        n_added=_pair_of_matrices,
        can=_CONVERT,
    ),
    AddedType(
        name="hira",
        peft_type="HIRA",
        does="Learn a low-rank factor of each weight matrix, multiplied elementwise.\n\n"
        "The change may have a high rank, though B and A are small; `*` is elementwise:\n\n    h = W x + (W * (B A)) x",
        trains="low-rank elementwise factors of weight matrices",
        source="Huang et al., 2025, openreview:TwJrTz9cRS; peft",
        settings={"rank": rank(8, search=(8, 32))},
        learning_rate=3e-2,
        rate_falls=False,
        n_added=_pair_of_matrices,
        n_held=lambda _, n_in, n_out: n_in * n_out,
        can=_MERGE,
        uses_weights=True,
    ),
    AddedType(
        name="hra",
        peft_type="HRA",
        does="Learn Householder reflections of weight matrices.\n\n"
        "Each of r trained vectors u_i gives a reflection H_i; pairs of equal vectors start as the identity:\n\n"
        "    h = W H_1 ... H_r x,    H_i = I - 2 u_i u_i^T / |u_i|^2",
        trains="vectors of reflections of weight matrices",
        source="Yuan et al., 2024, arXiv:2405.17484; peft",
        settings={"rank": rank(8, meaning="number of reflections; an even number.", multiple_of=2)},
        learning_rate=1e-2,
        n_added=lambda of, width: of.rank * width,
        n_held=lambda of, n_in, _: (of.rank + 1.5) * n_in**2,
        can=_MERGE,
        uses_weights=True,
    ),
    AddedType(
        name="lily",
        peft_type="LILY",
        does="Learn low-rank additions whose second matrices all blocks share, mixed by a router.\n\n"
        "Each block, or each `stride` of them, has its own A. A softmax p of A x mixes the shared B_j:\n\n"
        "    h = W x + scaling (sum over j of p_j B_j) A x",
        trains="low-rank additions with shared matrices, and routers",
        source="Zhong et al., 2024, arXiv:2407.09946; peft",
        settings={
            "rank": rank(16, search=(16, 32)),
            "stride": Setting("stride_A", 1, "blocks that share one A.", least=1),
            "n_shared": Setting("num_B", 2, "number of shared matrices B.", least=2),
            "scaling": Setting("scaling", 2.0, "factor of the addition.", above=0),
        },
        n_added=lambda of, width: of.rank * width * 1.5,
        mend=route_each_token,
        note="peft averages p over all tokens of a batch, so that an answer would depend on the texts beside it.",
    ),
    AddedType(
        name="ln-tuning",
        peft_type="LN_TUNING",
        does="Train the layer norms inside the transformer.\n\n"
        "The gain g and the bias b of each norm train:\n\n    h = g (x - mean) / deviation + b",
        trains="gains and biases of the norms",
        source="Zhao et al., 2023, arXiv:2312.11420; peft",
        learning_rate=1e-2,
        can=_MERGE | {"quantise"},
        adapts="norms",
        note="It trains what `layer-norm` trains, through peft.",
    ),
    AddedType(
        name="miss",
        peft_type="MISS",
        does="Learn one small matrix per weight matrix, which is repeated over its inputs.\n\n"
        "D has r columns; the input is summed over groups of r values:\n\n    h = W x + D sum over groups of x",
        trains="repeated small matrices",
        source="Kang and Yin, 2024, arXiv:2409.15371; peft",
        settings={"rank": rank(16, search=(8, 16, 32), meaning="columns of the matrix.")},
        learning_rate=1e-3,
        n_added=lambda of, width: of.rank * width,
        can=_CONVERT,
    ),
    AddedType(
        name="osf",
        peft_type="OSF",
        does="Train the part of each weight matrix with the small singular values, away from the large ones.\n\n"
        "The top `frozen_share` of the singular directions stay; gradients are projected off them:\n\n"
        "    W = U_high S_high V_high^T + U_low S_low V_low^T",
        trains="the singular directions with small values",
        source="Nayak et al., 2025, arXiv:2504.07097; peft",
        settings={
            "frozen_share": Setting(
                "effective_rank", 0.5, "share of the singular directions that stay.", above=0, below=1
            ),
        },
        learning_rate=3e-3,
        rates=(1e-4, 1e-2),
        n_added=lambda of, width: (1 - of.frozen_share) * width * (2 * width + 1),
        n_held=lambda of, n_in, n_out: of.frozen_share * min(n_in, n_out) * (n_in + n_out) + 1.5 * n_in * n_out,
        can=_MERGE,
        uses_weights=True,
    ),
    AddedType(
        name="peanut",
        peft_type="PEANUT",
        does="Learn a small network that computes an addition from the weight matrix itself.\n\n"
        "A and B train, f is ReLU:\n\n    h = W x + scaling (f(W A) B) x",
        trains="networks that compute additions from weight matrices",
        source="Zhong et al., 2024, arXiv:2410.01870; peft",
        settings={
            "rank": rank(8),
            "scaling": Setting("scaling", 2.0, "factor of the addition.", above=0),
        },
        n_added=_pair_of_matrices,
        n_held=lambda _, n_in, n_out: n_in * n_out,
        can=_MERGE,
        uses_weights=True,
    ),
    AddedType(
        name="psoft",
        peft_type="PSOFT",
        does="Learn a rotation inside the space of the largest singular values of each weight matrix.\n\n"
        "A B is the best approximation of W of rank r. R is a rotation (Cayley); two vectors relax it:\n\n"
        "    h = W x + A (diag(a) R diag(b) - I) B x",
        trains="rotations inside principal subspaces",
        source="Wu et al., 2025, arXiv:2505.11235; peft",
        settings={"rank": rank(32, search=(32, 64))},
        fixed={"psoft_alpha": 32},
        learning_rate=1e-2,
        rate_falls=False,
        seed="random_seed",
        keeps=("_psoft_",),
        n_added=lambda of, _: of.rank * (of.rank + 3) / 2,
        can=_CONVERT,
        uses_weights=True,
    ),
    AddedType(
        name="pvera",
        peft_type="PVERA",
        does="Train scaling vectors around fixed random matrices, with a learned spread of the inner one.\n\n"
        "A_1, A_2 and B are random and frozen, as in VeRA. Training draws z; predictions take its mean:\n\n"
        "    h = W x + b * (B z),    z ~ N(d_1 * (A_1 x), exp(d_2 * (A_2 x)))",
        trains="scaling vectors around random matrices, and a spread",
        source="PVeRA, 2025, arXiv:2512.07703; peft",
        settings={"rank": rank(256, search=(64, 256), meaning="rank of the random matrices.")},
        fixed={"save_projection": False},
        learning_rate=3e-2,
        rate_falls=False,
        seed="projection_prng_key",
        n_added=lambda of, width: 2 * of.rank + width,
        can=_MERGE,
    ),
    AddedType(
        name="randlora",
        peft_type="RANDLORA",
        does="Learn scales of a sum of fixed random low-rank matrices, which together have full rank.\n\n"
        "B_i and A_i are random and frozen; the diagonal matrices train. A lower `rank` means more parameters:\n\n"
        "    h = W x + (alpha / r) sum over i of B_i diag(l_i) A_i diag(g_i) x",
        trains="scales of random full-rank additions",
        source="Albert et al., 2025, arXiv:2502.00987; peft",
        settings={
            "rank": rank(32, search=(16, 32), meaning="rank of each random matrix; a lower one trains more."),
            "alpha": Setting("randlora_alpha", 640, "scale of the addition.", least=1),
        },
        fixed={"save_projection": False},
        learning_rate=1e-3,
        seed="projection_prng_key",
        n_added=lambda of, width: width / of.rank * (of.rank + width),
        can=_CONVERT,
    ),
    AddedType(
        name="road",
        peft_type="ROAD",
        does="Learn rotations and scales of pairs of outputs of weight matrices.\n\n"
        "Each pair of outputs is rotated by a trained angle t and scaled by a:\n\n"
        "    (h_1, h_2) = a (cos(t) y_1 - sin(t) y_2, sin(t) y_1 + cos(t) y_2),    y = W x",
        trains="rotations and scales of pairs of outputs",
        source="Liao and Monz, 2024, arXiv:2409.00119; peft",
        settings={
            "variant": Setting(
                "variant",
                "road_1",
                "values per pair: one angle and scale, two of both, or four.",
                values=("road_1", "road_2", "road_4"),
                search=("road_1", "road_2", "road_4"),
            ),
            "group_size": Setting("group_size", 64, "outputs among which pairs are made.", least=2, divides=True),
        },
        learning_rate=3e-2,
        n_added=lambda of, width: width * int(of.variant[-1]),
        can=_MERGE | {"quantise"},
    ),
    AddedType(
        name="shira",
        peft_type="SHIRA",
        does="Train a few values of each weight matrix at random places.\n\n"
        "S is zero except at r (rows + columns) places, which is as many values as LoRA trains:\n\n"
        "    h = (W + S) x",
        trains="a sparse set of values of weight matrices",
        source="Bhardwaj et al., 2024, arXiv:2406.13175; peft",
        settings={"rank": rank(8, meaning="values per row and column of a matrix.")},
        learning_rate=3e-2,
        seed="random_seed",
        n_added=_pair_of_matrices,
        n_held=lambda _, n_in, n_out: n_in * n_out,
        can=_MERGE,
        why_not=why_too_many_values,
        uses_weights=True,
    ),
    AddedType(
        name="supertuning",
        peft_type="SUPERTUNING",
        does="Train the values of each weight matrix with the largest magnitudes.\n\n"
        "S is zero except at the largest `1 - sparsity` of the values of W:\n\n    h = (W + S) x",
        trains="the largest values of weight matrices",
        source="Super-Tuning, 2026, arXiv:2607.09287; peft",
        settings={
            "sparsity": Setting(
                "sparsity", 0.99, "share of the values that stay.", least=0, below=1, search=(0.9, 0.99)
            )
        },
        learning_rate=3e-2,
        keeps=("supertuning_indices",),
        mend=keep_no_layers,
        n_added=lambda of, width: (1 - of.sparsity) * width * width,
        n_held=lambda _, n_in, n_out: n_in * n_out,
        can=_MERGE,
        uses_weights=True,
    ),
    AddedType(
        name="tinylora",
        peft_type="TINYLORA",
        does="Train one tiny vector per weight matrix, mapped by fixed random tensors into its top singular space.\n\n"
        "U, S and V are the top r singular triples of W; P_i are random and frozen; v trains:\n\n"
        "    h = W x + U S (sum over i of v_i P_i) V^T x",
        trains="one tiny vector per weight matrix",
        source="Learning to Reason in 13 Parameters, 2026, arXiv:2602.04118; peft",
        settings={
            "rank": rank(2, search=(2, 4), meaning="number of singular triples."),
            "size": Setting("u", 64, "length of the vector.", least=1, search=(16, 64)),
        },
        fixed={"init_v_bound": 0.0},
        learning_rate=1e-2,
        rate_falls=False,
        seed="projection_seed",
        keeps=("tinylora_A", "tinylora_B", "tinylora_P"),
        n_added=lambda of, _: of.size,
        can=_CONVERT,
        uses_weights=True,
    ),
    AddedType(
        name="trainable-tokens",
        peft_type="TRAINABLE_TOKENS",
        does="Train the embeddings of the tokenizer's special tokens, which every text carries.\n\n"
        "The rows e of a few tokens train; all others stay:\n\n    input = [e(CLS), x_1, ..., x_m, e(SEP)]",
        trains="embeddings of special tokens",
        source="peft",
        learning_rate=1e-2,
        serves=ENCODER,
        adapts="special tokens",
        can=_MERGE | {"quantise"},
    ),
    AddedType(
        name="unilora",
        peft_type="UNILORA",
        does="Train one vector from which all values of all low-rank additions are taken.\n\n"
        "Each value of A and B is a randomly chosen entry of the vector t, scaled by a fixed factor:\n\n"
        "    h = W x + B(t) A(t) x",
        trains="one vector behind all low-rank additions",
        source="Li et al., 2025, arXiv:2506.00799; peft",
        settings={
            "rank": rank(4),
            "size": Setting("theta_d_length", 1024, "length of the vector.", least=1, search=(256, 1024, 4096)),
        },
        learning_rate=1e-1,
        rate_falls=False,
        seed="proj_seed",
        can=_CONVERT,
        starts_elsewhere="its vector starts with small random values, or no gradient would reach it",
    ),
    AddedType(
        name="vblora",
        peft_type="VBLORA",
        does="Learn low-rank additions composed of vectors from one shared bank.\n\n"
        "Each piece of A and B mixes the top k vectors of the bank, by trained logits:\n\n"
        "    h = W x + B A x,    piece = sum over the top k of softmax(logits) * bank",
        trains="a shared bank of vectors, and how matrices mix them",
        source="Li et al., 2024, arXiv:2405.15179; peft",
        settings={
            "rank": rank(4),
            "n_vectors": Setting("num_vectors", 90, "vectors in the bank.", least=2, search=(30, 90)),
            "vector_length": Setting("vector_length", 64, "length of a vector.", least=1, divides=True),
        },
        learning_rate=1e-2,
        n_added=lambda of, width: 2 * of.rank * width / of.vector_length * of.n_vectors,
        can=_CONVERT,
        starts_elsewhere="its bank starts with small random values, or no gradient would reach it",
    ),
    AddedType(
        name="waveft",
        peft_type="WAVEFT",
        does="Learn a few wavelet coefficients of an addition to each weight matrix.\n\n"
        "C is zero except at `n_frequencies` random places:\n\n    h = W x + scaling * IDWT(C) x",
        trains="wavelet coefficients of additions to weight matrices",
        source="Bilican et al., 2025, arXiv:2505.12532; peft",
        settings={
            "n_frequencies": Setting("n_frequency", 1000, "coefficients per matrix.", least=1, search=(200, 1000)),
            "scaling": Setting("scaling", 25.0, "factor of the addition.", above=0),
        },
        seed="random_loc_seed",
        rate_falls=False,
        n_added=lambda of, _: of.n_frequencies,
        n_held=lambda _, n_in, n_out: 2 * n_in * n_out,
        can=_CONVERT,
    ),
)
"""The types of added parameters that need no code of their own."""

NOT_COMPARABLE: Final = {
    "POLY": "it learns how several tasks share modules; a cell has one task",
    "XLORA": "it mixes several trained LoRA adapters; a cell starts from none",
    "MULTITASK_PROMPT_TUNING": "it learns a prompt on several tasks first; a cell has one task",
    "aLoRA": "it changes a language model only after an invocation in the prompt; the harness reads the whole text",
    "SHADOW": "it trains a second decoder beside the backbone, which peft couples to whole language models only",
    "CPT": "its loss is over the tokens of a prompt with demonstrations; the harness trains an output layer",
}
"""Types of peft, and variants of its LoRA, without a method; and the reasons."""

for _row in TABLE:
    _made: type[FromTable] = method_of(_row, __name__)
    globals()[_made.__name__] = _made
