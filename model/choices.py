"""What the models' settings may be, without the models: a command line is read before torch is imported."""

from preprocessing.errors import UserError

FE_INPUTS = ("output", "input")
FE_SCALES = ("sum", "mean")
REWEIGHTINGS = ("light_se", "senet", "none")
INTERACTIONS = ("fe_block", "dot")
SIMILARITIES = ("temperature", "paper", "dot")
GROUPS = ("all", "fields")  # of COLD
GENERATOR_LOSSES = ("paper", "released")  # of HIT
CROSSES = ("vector", "matrix")  # of DCN: the first version of the paper, and the second


def parse_levels(levels: str | list[int], num_layers: int) -> list[int]:
    """Indices of the scored user layers, ascending; raises UserError for one that does not exist or stands twice."""
    if levels == "all":
        return list(range(num_layers))
    if levels == "last":
        return [num_layers - 1]
    exist = isinstance(levels, list | tuple) and all(level in range(num_layers) for level in levels)
    if not levels or not exist:
        raise UserError(f"levels: expected 'all', 'last' or indices from 0 to {num_layers - 1}, got {levels!r}.")
    if len(set(levels)) < len(levels):
        raise UserError(f"levels: expected each index once, got {levels!r}; leave out the repeated ones.")
    return sorted(levels)
