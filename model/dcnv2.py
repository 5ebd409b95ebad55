"""DCN-V2: DCN whose cross layers multiply by a matrix (Wang et al., WWW 2021)."""

from __future__ import annotations

from model.dcn import DCN


class DCNv2(DCN):
    """deepctr-torch's DCN with `cross_parameterization="matrix"`; see DeepCTR.

    x_{l+1} = x_0 * (W_l x_l + b_l) + x_l.
    """

    architecture = "DCN"

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options, cross_parameterization="matrix")

    @classmethod
    def option_names(cls) -> set[str]:
        """What the constructor takes: DCN's options, but the one that makes it this model."""
        return super().option_names() - {"cross_parameterization"}
