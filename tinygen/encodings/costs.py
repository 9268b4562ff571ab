"""What decoding costs, by decoder and instruction set.

The figures are measured: ``python -m benchmarks.encodings --costs`` runs lines of many kinds on
the emulated cores and fits what :class:`tinygen.encodings.base.Work` counts.  Cycles are those of
:mod:`tinygen.cycles` for the cores that it knows (Cortex-M4, M3, M0), elsewhere instructions
(Cortex-M55, RV32IMC, Xtensa LX106).
"""

from __future__ import annotations

ISAS = ("dsp", "mve", "armv7m", "armv6m", "rv32m", "xtensa", "portable")

Cost = tuple[float, ...]

_MEASURED = """
int4 37/17/0/0 38/11.1/0/0 37/17/0/0 62/35/0/0 33/22/0/0 33/22/0/0
codebook1 36/22/0/0 34/16/0/0 36/22/0/0 74/31/0/0 29/22/0/0 32/22/0/0
codebook2 43/43/0/0 41/27/0/0 43/40/0/0 52/59/0/0 31/45/0/0 29/37/0/0
codebook3 48/47/0/0 41/33/0/0 48/48/0/0 54/63/0/0 33/48/0/0 30/42/0/0
codebook4 43/43/0/0 41/27/0/0 43/40/0/0 52/67/0/0 31/51/0/0 29/39/0/0
codebook5 48/43/0/0 41/31/0/0 46/45/0/0 69/72/0/0 33/54/0/0 34/50/0/0
codebook2_pairs 43/23/0/0 41/15/0/0 43/24/0/0 52/39/0/0 31/25/0/0 29/21/0/0
codebook3_pairs 46/29/0/0 41/21/0/0 48/30/0/0 54/43/0/0 33/30/0/0 30/26/0/0
codebook4_pairs 43/23/0/0 41/15/0/0 43/24/0/0 52/47/0/0 31/33/0/0 29/19/0/0
bitmap 37/11.2/10/0 32/5.7/7/0 37/11.2/11/0 70/18/4.9/25 22/8/3.9/11.8 31/8.6/9.9/0
bitmap_int4 40/11.2/18/0 34/5.7/14/0 40/11.2/18/0 85/20/17/24 25/8.3/7.8/10.6 36/8.6/13.4/0
bitmap_codebook1 43/11.2/17/0 35/5.7/14/0 43/11.2/20/0 77/19/11.5/24 26/8.2/7.5/11.3 39/8.6/13.3/0
bitmap_codebook2 43/11.2/17/0 35/5.7/14/0 43/11.2/20/0 77/19/11.9/23 25/8.2/7.9/11.4 39/8.6/13.7/0
bitmap_codebook3 49/11.2/17/0 40/5.7/11.8/0 50/11.2/19/0 82/19/12.8/23 30/8.3/8.4/10.9 42/8.8/14/0
bitmap_codebook4 43/11.2/17/0 35/5.7/14/0 43/11.2/20/0 77/19/12.9/24 25/8.1/8.6/11.4 38/8.6/14.4/0
bitmap_codebook5 43/11.2/17/0 35/5.7/14/0 43/11.2/20/0 78/19/13.9/24 27/8.2/9.4/11.4 40/8.6/15/0
relative4 33/8.1/10.5/0 28/3.1/8/0 33/8.1/11/0 38/9.2/12/0 17/4.1/7/0 17/4.1/7/0
relative4_int4 22/8.1/10/0 25/3.1/7/0 22/8.1/10/0 29/9.2/14/0 14.1/4.1/9/0 15/4.1/9/0
relative4_codebook4 22/8.1/11/0 25/3.1/7/0 22/8.1/13/0 31/9.2/15/0 14.1/4.1/10/0 15/4.1/10/0
relative8 24/8.1/11/0 26/3.1/8/0 24/8.1/12/0 26/9.2/13/0 14.1/4.1/7/0 15/4.1/7/0
relative8_int4 30/8.1/12/0 27/3.1/9/0 30/8.1/12/0 38/9.2/13/0 16/4.1/8/0 17/4.1/8/0
relative8_codebook4 32/8.1/11.5/0 27/3.1/9/0 32/8.1/12.5/0 41/9.2/14/0 16/4.1/9/0 17/4.2/9/0
blocks4 14.9/32/0.4/0 19/23/0.2/0 13.9/34/0.4/0 35/33/16/0 16/14.9/11.1/0 14.5/14.9/11.1/0
blocks4_int4 30/27/7.4/0 23/19/6.2/0 30/27/7.4/0 59/34/24/0 23/14.9/11.1/0 25/14.9/11.1/0
blocks4_codebook4 22/28/26/0 19/22/16/0 22/28/30/0 42/33/28/0 14.4/17/19/0 14.4/14.9/21/0
blocks8 35/16/5.2/0 32/12.6/1.9/0 35/16/5.2/0 59/20/29/0 24/10.4/20/0 27/9.5/22/0
blocks8_int4 36/16/9.3/0 30/14.1/7/0 36/16/9.3/0 82/20/31/0 30/10.4/18/0 36/10.6/18/0
blocks8_codebook4 33/16/51/0 30/11.1/32/0 33/16/55/0 59/18/53/0 24/9.4/38/0 22/9.5/40/0
huffman 43/0/24/13.8 18/0/17/11.1 42/0/24/15 74/0/38/19 25/0/19/11.6 28/0/22/11
huffman_gaps 60/9/24/14.3 44/3.9/18/10 61/9/25/15 87/10.6/40/22 50/5.6/20/8.7 47/5.9/23/10.5
"""
"""A row a decoder; a line, eight values, what is stored, and steps, for the first six of ISAS."""

_COSTS: dict[str, tuple[Cost, ...]] = {
    f"decode_{decoder}": tuple(tuple(map(float, cell.split("/"))) for cell in cells)
    for decoder, *cells in map(str.split, _MEASURED.strip().splitlines())
}


def of(decoder: str, isa: str) -> Cost:
    """Cycles of a line, eight values, what is stored, and a step.

    ``isa`` is one of :data:`ISAS`; any core ("portable") is taken to cost what RV32 does.
    """
    return _COSTS[decoder][ISAS.index("rv32m" if isa == "portable" else isa)]
