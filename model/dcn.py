"""DCN: explicit crosses of all inputs beside a deep network (Wang et al., ADKDD 2017)."""

from model.deepctr import adapt

DCN = adapt("DCN")
