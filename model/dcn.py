"""DCN: explicit crosses of all inputs beside a deep network (Wang et al., ADKDD 2017)."""

from model.deepctr import DeepCTR


class DCN(DeepCTR):
    """deepctr-torch's DCN; see DeepCTR."""

    architecture = "DCN"
