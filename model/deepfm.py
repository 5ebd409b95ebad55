"""DeepFM: a factorisation machine and a deep network on shared embeddings (Guo et al., IJCAI 2017)."""

from model.deepctr import DeepCTR


class DeepFM(DeepCTR):
    """deepctr-torch's DeepFM; see DeepCTR."""

    architecture = "DeepFM"
