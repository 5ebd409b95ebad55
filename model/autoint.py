"""AutoInt: self-attention over the fields beside a deep network (Song et al., CIKM 2019)."""

from model.deepctr import DeepCTR


class AutoInt(DeepCTR):
    """deepctr-torch's AutoInt; see DeepCTR."""

    architecture = "AutoInt"
