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
int4 30/17/0/0 31/11.1/0/0 31/17/0/0 54/35/0/0 28/22/0/0 28/22/0/0
codebook1 34/22/0/0 31/16/0/0 34/22/0/0 70/31/0/0 26/22/0/0 29/22/0/0
codebook2 33/35/0/0 27/27/0/0 31/35/0/0 40/59/0/0 18/45/0/0 18/37/0/0
codebook3 35/41/0/0 28/33/0/0 35/41/0/0 41/63/0/0 19/48/0/0 18/42/0/0
codebook4 33/35/0/0 27/27/0/0 31/35/0/0 38/58/0/0 18/39/0/0 18/39/0/0
codebook5 37/39/0/0 27/31/0/0 33/40/0/0 58/78/0/0 19/54/0/0 26/50/0/0
codebook2_pairs 31/20/0/0 27/15/0/0 31/20/0/0 47/39/0/0 18/25/0/0 18/21/0/0
codebook3_pairs 35/26/0/0 28/21/0/0 35/27/0/0 48/43/0/0 19/30/0/0 18/26/0/0
codebook4_pairs 31/20/0/0 27/15/0/0 31/20/0/0 33/34/0/0 18/23/0/0 18/19/0/0
bitmap 62/7.3/9.8/0 34/4.4/6.9/0 62/7.3/10.8/0 66/18/4.9/25 19/8/3.9/11.8 41/7.2/9.9/0
bitmap_int4 62/7.6/13.3/0 37/5.1/8.8/0 62/7.6/13.3/0 81/20/17/24 22/8.3/7.8/10.6 46/7.3/11.3/0
bitmap_codebook1 69/7.3/17/0 36/4.4/13.9/0 69/7.3/20/0 73/19/11.5/24 23/8.2/7.5/11.3 49/7.2/13.2/0
bitmap_codebook2 69/7.3/17/0 36/4.4/13.9/0 69/7.3/20/0 73/19/11.9/23 22/8.2/7.9/11.4 49/7.2/13.6/0
bitmap_codebook3 74/7.3/16/0 40/4.4/11.8/0 75/7.3/19/0 78/19/12.8/23 27/8.3/8.4/10.9 52/7.5/14/0
bitmap_codebook4 65/7.2/16/0 35/5.1/10.3/0 65/7.2/17/0 73/19/12.9/24 22/8.1/8.6/11.4 47/7.4/12.3/0
bitmap_codebook5 69/7.3/17/0 36/4.4/13.9/0 69/7.3/20/0 74/19/13.9/24 24/8.2/9.4/11.4 50/7.3/15/0
relative4 60/4.3/10.3/0 32/1.8/8/0 59/4.3/10.8/0 69/5.4/11.9/0 30/2.7/6.9/0 30/2.8/7/0
relative4_int4 52/4.3/9.9/0 29/1.8/7/0 52/4.3/9.9/0 61/5.4/13.8/0 28/2.7/8.9/0 28/2.8/8.9/0
relative4_codebook4 54/4.3/10.9/0 29/1.8/7/0 54/4.3/12.9/0 62/5.4/14.9/0 28/2.7/9.9/0 28/2.8/10/0
relative8 54/4.2/10.9/0 30/1.8/8/0 55/4.2/11.9/0 61/5.4/12.9/0 28/2.7/6.9/0 27/2.8/7/0
relative8_int4 59/4.3/11.8/0 32/1.8/8.9/0 59/4.3/11.8/0 69/5.4/12.8/0 30/2.7/7.9/0 30/2.8/8/0
relative8_codebook4 61/4.3/11.3/0 31/1.8/9/0 61/4.2/12.3/0 70/5.4/13.9/0 30/2.7/8.9/0 30/2.8/9/0
blocks4 71/5/9.6/0 46/2.3/6.9/0 72/5/10.6/0 32/33/16/0 12.5/14.9/11.1/0 63/3.7/20/0
blocks4_int4 78/5/16/0 48/2.3/11.9/0 78/5/16/0 56/34/24/0 20/14.9/11.1/0 66/3.9/20/0
blocks4_codebook4 79/5.1/28/0 44/2.4/22/0 81/5.1/28/0 48/34/26/0 11.4/17/17/0 63/3.8/28/0
blocks8 72/4.7/14.5/0 47/2/10.8/0 72/4.7/16/0 60/20/29/0 20/10.4/20/0 65/3.2/32/0
blocks8_int4 77/4.7/20/0 47/2/16/0 77/4.7/20/0 82/22/33/0 26/10.4/18/0 67/3.3/29/0
blocks8_codebook4 78/4.8/45/0 46/2.1/36/0 82/4.7/46/0 65/19/49/0 21/9.4/34/0 65/3.3/46/0
huffman 56/0/20/6 29/0/14.2/4.4 56/0/20/6.3 83/0/29/8.7 39/0/16/5.2 42/0/17/5.7
huffman_gaps 111/4.8/21/7.4 69/2.4/15/4.5 111/4.9/21/7.3 160/6.5/30/8.3 84/3.7/17/4.1 88/3.8/18/5
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
